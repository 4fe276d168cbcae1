"""What a schema does not say, told to schemathesis before each call.

Requests that are meant to be good get fields that go together, or nearly all of them would be 400 and nothing behind the
parser would be reached; requests that are meant to be bad are left alone. And nobody deletes what the run stands on: the
answer to everything else would be 401.
"""

import schemathesis

OWN_BUSINESS = "biz_demo"
OWN_KEY = "dev"
# Two names of one field, which must say the same.
ALIASES = {
    "limit_value": "plan_limit_value",
    "limit_operator": "plan_limit_operator",
    "breach_action": "plan_breach_action",
    "name": "customer_name",
    "postgres": "supabase",
}


@schemathesis.hook
def before_call(context, case, kwargs):
    spare_the_run(case)
    if case.meta and case.meta.generation.mode.is_positive:
        agree(case.query or {}, case.body if isinstance(case.body, dict) else {})


def spare_the_run(case):
    names = case.path_parameters or {}
    if case.method == "DELETE" and names.get("business_id") == OWN_BUSINESS:
        if "{customer_id}" not in case.path and names.get("key_name", OWN_KEY) == OWN_KEY:
            names["business_id"] = "biz_absent"


def agree(query, body):
    if query.get("scope") != "customer":
        query.pop("customer_id", None)
    elif "customer_id" not in query:
        query["customer_id"] = "cust_123"
    same(body)
    integrations = (body.get("metadata") or {}).get("integrations") or {}
    same(integrations)
    # No secret can be set yet that it would be signed with.
    body.pop("webhook_url", None)
    if body.get("metric_type") != "reset":
        body.pop("reset_interval", None)


def same(fields):
    for alias, name in ALIASES.items():
        if alias in fields and name in fields:
            fields[alias] = fields[name]
