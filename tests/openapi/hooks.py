"""What a schema does not say, told to schemathesis before each call.

Fields that do not go together are brought to agree, or nearly every request would be refused for that reason alone: a good
one would reach nothing behind the parser, and a bad one would be refused for the wrong thing. What is bad on purpose stays
as it is. And nobody deletes what the run stands on: the answer to everything else would be 401.
"""

import itertools
import os
import re
from datetime import UTC, datetime, timedelta

import schemathesis

OWN_BUSINESS = "biz_demo"
OWN_KEY = "dev"
# What the run stands on, and another that is deleted in its stead, and that nobody is put on.
SPARED = {
    "plan_id": (os.environ["TRACKTAGS_TEST_PLAN"], os.environ["TRACKTAGS_TEST_OTHER_PLAN"]),
    "limit_id": (os.environ["TRACKTAGS_TEST_LIMIT"], os.environ["TRACKTAGS_TEST_OTHER_LIMIT"]),
    "stripe_price_id": ("price_1", "price_2"),
}
# What the proxy calls.
TARGET = os.environ["TRACKTAGS_TEST_TARGET"]
# Two names of one field, which must say the same.
ALIASES = {
    "limit_value": "plan_limit_value",
    "limit_operator": "plan_limit_operator",
    "breach_operator": "limit_operator",
    "breach_action": "plan_breach_action",
    "name": "customer_name",
    "postgres": "supabase",
}
# They ask about series, and make none.
ASKING = {"/api/v1/check", "/api/v1/proxy"}
NEEDS_LIMIT = {"limit_operator", "plan_limit_operator", "breach_action", "plan_breach_action"}

numbers = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    spare_the_run(case)
    bad = bad_fields(case)
    if isinstance(case.query, dict):
        agree_query(case.query, bad)
    if case.headers and "Idempotency-Key" in case.headers and "Idempotency-Key" not in bad:
        case.headers["Idempotency-Key"] = f"key-{next(numbers)}"
    if isinstance(case.body, dict):
        agree_body(case.path, case.body, bad)
        if case.method == "POST" and case.path not in ASKING:
            name_anew(case.body, bad)
    # A list of questions.
    for question in case.body if isinstance(case.body, list) else []:
        if isinstance(question, dict):
            agree_question(question, bad)


def spare_the_run(case):
    names = case.path_parameters or {}
    if case.method == "DELETE":
        for name, (own, other) in SPARED.items():
            if names.get(name) == own:
                names[name] = other
    if case.method == "DELETE" and names.get("business_id") == OWN_BUSINESS:
        if "{customer_id}" not in case.path and names.get("key_name", OWN_KEY) == OWN_KEY:
            names["business_id"] = "biz_absent"


def bad_fields(case):
    """The words that say what is bad on purpose: `limit_value` and others of `limit_value: Incorrect type`."""
    if case.meta is None or not case.meta.generation.mode.is_negative:
        return set()
    data = case.meta.phase.data
    said = f"{getattr(data, 'parameter', None)} {getattr(data, 'description', None)}"
    return set(re.findall(r"[A-Za-z_-]+", said))


def agree_query(query, bad):
    if "scope" in bad:
        return
    if "customer_id" in bad or (query.get("scope") == "customer" and "customer_id" not in query):
        query.setdefault("customer_id", "cust_123")
        query["scope"] = "customer"
    elif query.get("scope") != "customer":
        query.pop("customer_id", None)


def agree_body(path, body, bad):
    one_name_each(body, bad)
    metadata = body.get("metadata")
    integrations = metadata.get("integrations") if isinstance(metadata, dict) else None
    if isinstance(integrations, dict):
        one_name_each(integrations, bad)
    now = datetime.now(UTC)
    for field, moment in {"timestamp": now, "expires_at": now + timedelta(days=1)}.items():
        if field in body and field not in bad:
            body[field] = moment.isoformat()
    for field, (own, other) in SPARED.items():
        if body.get(field) == other:
            body[field] = own
    if path in ASKING:
        agree_question(body, bad)
    # Nobody else's server is called.
    if "target_url" in body and "target_url" not in bad:
        body["target_url"] = TARGET
    # Most texts that a pattern leads to are no host.
    if not bad and isinstance(body.get("proxy_targets"), list) and next(numbers) % 2:
        body["proxy_targets"] = [f"https://{number}.example" for number, _ in enumerate(body["proxy_targets"])]
    unwanted = set()
    if body.get("metric_type") != "reset":
        unwanted.add("reset_interval")
    # The plan and the metric of a limit are what it is.
    if "{limit_id}" in path:
        unwanted |= {"plan_id", "metric_name"}
    elif body.get("limit_value", body.get("plan_limit_value")) is None:
        unwanted |= NEEDS_LIMIT
    for name in ("customer_id", "metric_name"):
        if f"{{{name}}}" in path:
            unwanted.add(name)
    for field in unwanted - bad:
        body.pop(field, None)


def agree_question(body, bad):
    """Its scope is that of the customer, if there is one."""
    if "scope" not in bad and isinstance(body.get("scope"), str):
        body["scope"] = "customer" if isinstance(body.get("customer_id"), str) else "business"


def name_anew(body, bad):
    """Every other time: by then, the names that requests share are taken."""
    number = next(numbers)
    for field in {"metric_name", "customer_id"} - bad:
        if field in body and number % 2:
            body[field] = f"new-{number}"


def one_name_each(fields, bad):
    for alias, name in ALIASES.items():
        if alias in fields and name in fields:
            del fields[name if alias in bad else alias]
