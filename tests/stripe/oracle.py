"""Stripe's own library as signer and verifier. In: JSON cases on standard input. Out: JSON verdicts and headers.

A case is {"secret", "time", "body", "header"}: the header that its library makes of the first three, and whether it accepts
the given header within 300 seconds of the time that `now` says.
"""

import json
import sys
import time

from stripe import SignatureVerificationError, WebhookSignature


def verdict(case, now):
    time.time = lambda: now
    try:
        WebhookSignature.verify_header(case["body"], case["header"], case["secret"], tolerance=300)
    except SignatureVerificationError:
        return False
    return True


cases = json.load(sys.stdin)
json.dump(
    [
        {
            "header": WebhookSignature.generate_signature_header(case["body"], case["secret"], case["time"]),
            "accepted": verdict(case, case["now"]),
        }
        for case in cases
    ],
    sys.stdout,
)
