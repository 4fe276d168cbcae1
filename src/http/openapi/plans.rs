//! Plans, limits, standings and the proxy: what bodies may say and what answers say.

use serde_json::json;

use super::answers::{business_id, next_cursor, page};
use super::requests::notice;
use super::shape::Shape;
use crate::admission::parse::names::{
    ACTIONS, METRIC_NAME_BYTES_MAX, METRIC_TYPES, OPERATIONS, OPERATORS, SCOPES,
};
use crate::admission::parse::plan::periods;
use crate::admission::parse::{check, plan, proxy};
use crate::outbound::{METHODS, ORIGIN_BYTES_MAX, REQUEST_HEADERS_MAX, TARGET_BYTES_MAX};

/// A token of RFC 9110.
const HEADER_NAME: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
/// No control character but the tab.
const HEADER_VALUE: &str = "^[^\\u0000-\\u0008\\u000a-\\u001f\\u007f]*$";
/// Nothing behind the host and its port.
const ORIGIN: &str = "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]+$";

/// Bodies by the names of their components.
pub(super) fn requests() -> Vec<(&'static str, Shape)> {
    let question = || Shape::named("Question");
    vec![
        (
            "NewPlan",
            Shape::request(&plan::PLAN, &["plan_name"], new_plan)
                .set("example", json!({"plan_name": "Pro", "stripe_price_id": "price_pro"})),
        ),
        (
            "NewPlanLimit",
            Shape::request(&plan::LIMIT, &["metric_name", "limit_value"], new_limit)
                .set("example", json!({"metric_name": "api_calls", "limit_value": 1000})),
        ),
        (
            "PlanLimitChange",
            Shape::request(&plan::LIMIT, &[], |name| new_limit(name).without_default())
                .set("example", json!({"limit_value": 2000})),
        ),
        (
            "Question",
            Shape::request(&check::QUESTION, &["metric_name"], new_question).set(
                "example",
                json!({"metric_name": "api_calls", "scope": "customer", "customer_id": "cust_123"}),
            ),
        ),
        (
            "NewCall",
            Shape::request(&proxy::BODY, &["metric_name", "target_url"], new_call).set(
                "example",
                json!({"metric_name": "api_calls", "scope": "customer", "customer_id": "cust_123",
                       "target_url": "https://example.com/v1/things", "method": "GET"}),
            ),
        ),
        (
            "NewProxyTargets",
            Shape::request(&proxy::TARGETS, &["proxy_targets"], proxy_targets)
                .set("example", json!({"proxy_targets": ["https://api.example.com"]})),
        ),
        ("Check", Shape::either([question(), Shape::list(question()).set("maxItems", check::QUESTIONS_MAX)])),
    ]
}

/// Answers by the names of their components.
pub(super) fn answers() -> Vec<(&'static str, Shape)> {
    let status = |word| [("status", Shape::word([word]))];
    let id = || ("id", Shape::text());
    vec![
        ("Plan", plan()),
        ("PlanCreated", plan().also(status("created"))),
        ("PlanPage", page("plans", "Plan").also([next_cursor()])),
        ("PlanDeleted", Shape::answer(status("deleted")).also([id()])),
        ("PlanLimit", limit()),
        ("PlanLimitPage", page("plan_limits", "PlanLimit").also([next_cursor()])),
        ("PlanLimitCreated", limit().also(status("created")).also(effects())),
        ("PlanLimitForeseen", terms().also(status("dry_run")).also(effects())),
        ("PlanLimitUpdated", limit().also([("status", Shape::word(["updated", "dry_run"]))]).also(effects())),
        (
            "PlanLimitDeleted",
            Shape::answer([("status", Shape::word(["deleted", "dry_run"])), id()]).also(effects()),
        ),
        ("Standing", standing()),
        ("StandingPage", page("limits", "Standing").also([next_cursor(), as_of()])),
        (
            "CustomerUsage",
            page("usage", "Standing").also([next_cursor(), as_of(), ("customer_id", Shape::id())]),
        ),
        (
            "Billing",
            page("series", "BilledSeries").also([
                next_cursor(),
                as_of(),
                ("customer_id", Shape::id()),
                ("stripe_customer_id", Shape::text().or_null()),
            ]),
        ),
        ("BilledSeries", billed_series()),
        ("BilledPeriod", billed_period()),
        ("Slice", slice()),
        ("BreachStatus", breach_status()),
        ("ProxyTargets", bound()),
        ("ProxyTargetsUpdated", bound().also(status("updated"))),
        (
            "Forwarded",
            Shape::answer([
                ("status", Shape::word(["allowed"])),
                ("breach_status", Shape::named("BreachStatus")),
                (
                    "forwarded_response",
                    Shape::answer([
                        ("status_code", Shape::count()),
                        ("headers", Shape::strings(Shape::text())),
                        ("body", Shape::text()),
                        ("body_encoding?", Shape::word(["base64"]).about("Where the body is no text.")),
                    ]),
                ),
            ]),
        ),
        (
            "Denied",
            Shape::answer([
                ("status", Shape::word(["denied"])),
                ("error", Shape::text()),
                ("code", Shape::word(["plan_limit_exceeded"])),
                ("retry_after?", Shape::count().about("In seconds, where waiting an hour at most helps.")),
                ("resets_at", Shape::moment().or_null()),
                ("breach_status", Shape::named("BreachStatus")),
            ]),
        ),
        ("CheckAnswer", answer()),
        (
            "ListedCheckAnswer",
            Shape::answer([
                ("metric_name", Shape::metric_name()),
                ("customer_id?", Shape::id()),
                ("allowed", Shape::flag()),
                ("code?", Shape::text().about("Why there is no answer, such as `metric_not_found`.")),
                ("current_value?", Shape::amount()),
                ("limit_value?", Shape::amount().or_null()),
                ("remaining?", Shape::amount().or_null()),
                ("resets_at?", Shape::moment().or_null()),
                ("limit_source?", source()),
            ]),
        ),
        (
            "Checked",
            Shape::either([Shape::named("CheckAnswer"), Shape::list(Shape::named("ListedCheckAnswer"))]),
        ),
    ]
}

fn new_plan(name: &str) -> Shape {
    match name {
        "plan_name" => Shape::label().about("For people."),
        "stripe_price_id" => {
            Shape::id().or_null().about("Stripe's id of the price that puts a customer on it.")
        }
        _ => Shape::any(),
    }
}

fn new_limit(name: &str) -> Shape {
    match name {
        "plan_id" => Shape::text().or_null().about("The plan; none is the default for all customers."),
        "metric_name" => Shape::metric_name().about("The metric."),
        "limit_value" => Shape::sent_amount().about("The limit. 0 is a limit of zero."),
        "limit_operator" | "breach_operator" => Shape::option(&OPERATORS)
            .or_null()
            .by_default("gte")
            .about("How the value stands to the limit in a breach. Both names are one field."),
        "breach_action" => {
            Shape::option(&ACTIONS).or_null().by_default("deny").about("What a breach leads to.")
        }
        "limit_period" => Shape::word(periods().map(|(name, _)| name))
            .or_null()
            .by_default("1mo")
            .about("What the series counts over that the limit creates."),
        "metric_type" => Shape::option(&METRIC_TYPES)
            .or_null()
            .about("The type of that series, should it not be the one of the period."),
        "operation" => {
            Shape::option(&OPERATIONS).or_null().by_default("SUM").about("What that series makes of updates.")
        }
        name => notice(name),
    }
}

fn new_question(name: &str) -> Shape {
    match name {
        "metric_name" => Shape::metric_name().about("The metric."),
        "scope" => Shape::option(&SCOPES)
            .or_null()
            .about("`customer` with a `customer_id`, else `business`. A customer key asks for its customer."),
        "customer_id" => Shape::id().or_null().about("The customer."),
        "value" => Shape::sent_amount().or_null().by_default(1).about("How much is to be used."),
        _ => Shape::any(),
    }
}

fn new_call(name: &str) -> Shape {
    match name {
        "metric_name" => Shape::pattern(format!("^[A-Za-z0-9_.:-]{{0,{METRIC_NAME_BYTES_MAX}}}$"))
            .about("The metric; empty for every limit of the customer."),
        "target_url" => Shape::text()
            .set("format", "uri")
            .set("maxLength", TARGET_BYTES_MAX)
            .about("Where to: http or https, without a user."),
        "method" => Shape::word(METHODS.iter().copied()).or_null().by_default("GET").about("The method."),
        "headers" => Shape::strings(Shape::pattern(HEADER_VALUE))
            .set("propertyNames", Shape::pattern(HEADER_NAME))
            .set("maxProperties", REQUEST_HEADERS_MAX)
            .or_null()
            .about("`Host`, those of a connection and `X-TrackTags-*` are left out."),
        "body" => Shape::any().about("A text goes out as it is, any other JSON as its text."),
        name => new_question(name),
    }
}

fn proxy_targets(name: &str) -> Shape {
    match name {
        "proxy_targets" => Shape::list(Shape::pattern(ORIGIN).set("maxLength", ORIGIN_BYTES_MAX))
            .set("maxItems", proxy::PROXY_TARGETS_MAX)
            .about("Origins: scheme, host and perhaps a port. They are kept in one spelling, once each."),
        _ => Shape::any(),
    }
}

fn bound() -> Shape {
    Shape::answer([business_id(), ("proxy_targets", Shape::list(Shape::text()).about("By their texts."))])
}

fn billed_series() -> Shape {
    Shape::answer([
        ("metric_name", Shape::metric_name()),
        ("operation", Shape::option(&OPERATIONS)),
        ("price_id", Shape::id().or_null()),
        ("export", Shape::word(["usage", "overage"])),
        (
            "waits_for",
            Shape::text().or_null().about("Why nothing is sent, where somebody must do something."),
        ),
        ("periods", Shape::list(Shape::named("BilledPeriod")).about("Newest first.")),
        (
            "slices",
            Shape::list(Shape::named("Slice")).about("That are not known to have arrived, oldest first."),
        ),
    ])
}

fn billed_period() -> Shape {
    let units = || Shape::of("integer");
    Shape::answer([
        ("start", Shape::moment()),
        ("end", Shape::moment().or_null()),
        ("is_final", Shape::flag().about("Whether its invoice takes nothing more.")),
        ("usage", Shape::amount().about("Without the initial value.")),
        ("billable", Shape::amount().about("What is billed of it, with what was moved here or away.")),
        ("scale", Shape::amount().about("What a unit stands for.")),
        ("exported", units().about("Units that have arrived.")),
        ("pending", units().about("Units on their way.")),
        ("dead", units().about("Units that never will arrive.")),
        ("remainder", Shape::amount().about("What is in no slice.")),
        ("late_amount", Shape::amount().about("Of `billable`: from earlier periods that were final.")),
        ("moved_amount", Shape::amount().about("Went into a later period, since this one was final.")),
        ("held_amount", Shape::amount().about("Came too late and is billed nowhere.")),
    ])
}

fn slice() -> Shape {
    Shape::answer([
        ("identifier", Shape::text().about("Its name at Stripe.")),
        ("period_start", Shape::moment().or_null()),
        ("number", Shape::count()),
        ("quantity", Shape::of("integer")),
        ("dated_at", Shape::moment()),
        ("state", Shape::word(["new", "sending", "unknown", "dead"])),
        ("state_at", Shape::moment()),
        ("reason", Shape::text().or_null()),
    ])
}

fn breach_status() -> Shape {
    Shape::answer([
        ("is_breached", Shape::flag()),
        ("metric_name", Shape::metric_name().or_null().about("The metric that decided.")),
        ("current_usage", Shape::amount().or_null()),
        ("limit_value", Shape::amount().or_null()),
        ("limit_operator", Shape::option(&OPERATORS).or_null()),
        ("breach_action", Shape::option(&ACTIONS).or_null()),
        ("remaining", Shape::amount().or_null()),
    ])
}

fn plan() -> Shape {
    Shape::answer([
        ("id", Shape::text()),
        ("plan_name", Shape::text()),
        ("stripe_price_id", Shape::id().or_null()),
        business_id(),
        ("created_at", Shape::moment()),
    ])
}

fn limit() -> Shape {
    terms().also([("id", Shape::text())])
}

fn terms() -> Shape {
    Shape::answer([
        ("plan_id", Shape::text().or_null()),
        ("metric_name", Shape::metric_name()),
        ("limit_value", Shape::amount()),
        ("limit_operator", Shape::option(&OPERATORS)),
        ("breach_action", Shape::option(&ACTIONS)),
        ("limit_period", Shape::word(periods().map(|(name, _)| name))),
        ("metric_type", Shape::option(&METRIC_TYPES).or_null()),
        ("operation", Shape::option(&OPERATIONS)),
        ("notify_at", Shape::list(Shape::count()).or_null()),
        ("webhook_url", Shape::url().or_null()),
        business_id(),
        ("created_at", Shape::moment()),
    ])
}

fn effects() -> [(&'static str, Shape); 4] {
    [
        ("series_touched", Shape::count().about("Series whose limit became another.")),
        ("series_created", Shape::count().about("Series that customers on the plan lacked.")),
        (
            "became_breached",
            Shape::count().about("Of the touched ones: those that are past their limit now."),
        ),
        ("warnings", Shape::list(Shape::text())),
    ]
}

fn source() -> Shape {
    Shape::word(["series", "plan", "default"]).or_null().about("Whose limit it is.")
}

fn as_of() -> (&'static str, Shape) {
    ("as_of", Shape::moment())
}

fn answer() -> Shape {
    Shape::answer([
        ("allowed", Shape::flag()),
        ("current_value", Shape::amount()),
        ("limit_value", Shape::amount().or_null()),
        ("remaining", Shape::amount().or_null().about("How far the value may still go, with SUM and COUNT.")),
        ("resets_at", Shape::moment().or_null()),
        ("limit_source", source()),
    ])
}

fn standing() -> Shape {
    Shape::answer([
        ("metric_name", Shape::metric_name()),
        ("scope", Shape::option(&SCOPES)),
        ("customer_id?", Shape::id()),
        ("metric_type", Shape::option(&METRIC_TYPES)),
        ("operation", Shape::option(&OPERATIONS)),
        ("current_value", Shape::amount()),
        ("limit_value", Shape::amount().or_null()),
        ("limit_operator", Shape::option(&OPERATORS).or_null()),
        ("breach_action", Shape::option(&ACTIONS).or_null()),
        ("limit_source", source()),
        ("limit_breached", Shape::flag().or_null()),
        ("percent", Shape::amount().or_null().about("Of the limit; `null` for a limit of zero.")),
        ("overage", Shape::amount().or_null().about("With `allow_overage`: what lies beyond the limit.")),
        ("remaining", Shape::amount().or_null()),
        ("period_start", Shape::moment()),
        ("resets_at", Shape::moment().or_null()),
    ])
}
