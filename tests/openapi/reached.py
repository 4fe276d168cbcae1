"""Whether a run has reached every operation: each must have succeeded at least once, or its checks have seen refusals only.

In: the service's own telemetry on standard input, the document as an argument. Fails with the operations that are missing.
"""

import json
import re
import sys

SAMPLE = re.compile(r'tracktags_request_seconds_count\{route="(.*)",method="(.*)",status="2..?"\} ([1-9].*)')

with open(sys.argv[1]) as file:
    document = json.load(file)
operations = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
reached = {match.group(1, 2) for match in map(SAMPLE.match, sys.stdin) if match}
missing = sorted(operations - reached)
if missing:
    sys.exit(f"never succeeded: {missing}")
print(f"all {len(operations)} operations have succeeded at least once")
