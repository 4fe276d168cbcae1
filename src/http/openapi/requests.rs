//! What bodies may say. The fields are those of the parser's own `Schema`s, so none can be missing or made up; options
//! and bounds are the parser's constants. What fields mean together is in their descriptions only: JSON Schema could say
//! some of it, at the price of types that no client generator makes sense of.

use dataflows::types::Span;
use serde_json::json;

use super::shape::Shape;
use crate::admission::parse::metadata::{CUSTOM_BYTES_MAX, INTEGRATIONS, METADATA, STRIPE, SUPABASE};
use crate::admission::parse::names::{ACTIONS, CLEANUPS, METRIC_TYPES, OPERATIONS, OPERATORS, spans};
use crate::admission::parse::series::{NOTIFY_AT_MAX, NOTIFY_AT_PERCENT_MAX, PATCH, POST};
use crate::admission::parse::series::{TAG_NAME_BYTES_MAX, TAG_VALUE_BYTES_MAX, TAGS_MAX};
use crate::admission::parse::{business, customer, key, template, update, webhook};

/// Units of humantime, longest first, so that a pattern takes the whole unit.
const DURATION: &str = "^(?:0|(?:[0-9]+ ?(?:months?|minutes?|millis|mins?|msec|ms|M|m|nanos|nsec|ns|usec|us|\
                        seconds?|secs?|s|hours?|hrs?|h|days?|d|weeks?|wks?|w|years?|yrs?|y) ?)+)$";
/// No control characters, which is what `char::is_control` is.
const CLEAN: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
const CLEAN_NAME: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f:]+$";

/// Every body by the name of its component.
pub(super) fn all() -> Vec<(&'static str, Shape)> {
    vec![
        (
            "NewMetric",
            Shape::request(&POST, &["metric_name"], definition).set(
                "example",
                json!({"metric_name": "api_calls", "metric_type": "reset", "flush_interval": "1m",
                       "reset_interval": "1d", "limit_value": 1000, "tags": {"plan": "trial"}}),
            ),
        ),
        (
            "MetricChange",
            Shape::request(&PATCH, &[], changed_definition).set("example", json!({"limit_value": 2000})),
        ),
        (
            "NewTemplate",
            Shape::request(&template::BODY, &[], new_template).set(
                "example",
                json!({"metric_type": "reset", "flush_interval": "1m", "reset_interval": "1d",
                       "create_customers": true}),
            ),
        ),
        ("MetricMetadata", Shape::request(&METADATA, &[], metadata)),
        ("MetricIntegrations", Shape::request(&INTEGRATIONS, &[], integration)),
        ("StoreIntegration", Shape::request(&SUPABASE, &[], store)),
        ("StripeIntegration", Shape::request(&STRIPE, &[], stripe)),
        (
            "NewUpdate",
            Shape::request(&update::BODY, &["value"], new_update)
                .set("example", json!({"value": 1.5, "id": "event-1"})),
        ),
        (
            "Events",
            // An item that is not valid is an answer, not a problem: the document must not forbid it.
            Shape::list(Shape::any())
                .about(
                    "Items `{metric_name, customer_id?, scope?, value?, timestamp?, id?}`: a `customer_id` says that the series \
                     is that customer's; `value` is 1 where it is absent; of items with the same `id` for a series one counts.",
                )
                .set("example", json!([{"metric_name": "api_calls", "customer_id": "cust_1", "value": 1.5, "id": "event-1"}])),
        ),
        (
            "NewBusiness",
            Shape::request(&business::BODY, &["business_name", "email"], new_business)
                .set("example", json!({"business_name": "Example", "email": "ops@example.com"})),
        ),
        ("BusinessChange", Shape::request(&business::BODY, &[], new_business)),
        (
            "NewKey",
            Shape::either([Shape::named("NewBusinessKey"), Shape::named("NewStripeKey")])
                .set("example", json!({"key_type": key::BUSINESS, "key_name": "main", "scopes": ["read"]})),
        ),
        (
            "NewBusinessKey",
            Shape::request(&key::OWN, &["key_type", "key_name"], |name| new_key(name, key::BUSINESS)),
        ),
        (
            "NewStripeKey",
            Shape::request(&key::STRIPES, &["key_type", "key_name", "credentials"], |name| match name {
                "credentials" => Shape::named("StripeCredentials").about("Kept encrypted, shown never."),
                name => new_key(name, key::STRIPE),
            }),
        ),
        (
            "StripeCredentials",
            Shape::request(&key::CREDENTIALS, &["secret_key", "webhook_secret"], |name| match name {
                "secret_key" => Shape::secret("(?:sk|rk)_").about("A secret or restricted key."),
                "webhook_secret" => Shape::secret("whsec_").about("What Stripe signs its webhooks with."),
                _ => Shape::any(),
            }),
        ),
        (
            "NewCustomerKey",
            Shape::request(&key::OWN, &["key_type", "key_name"], |name| new_key(name, key::CUSTOMER))
                .set("example", json!({"key_type": key::CUSTOMER, "key_name": "portal"})),
        ),
        (
            "NewWebhook",
            Shape::request(&webhook::BODY, &["url"], |_| Shape::url().about("Where messages go."))
                .set("example", json!({"url": "https://example.com/hook"})),
        ),
        (
            "NewCustomer",
            Shape::request(&customer::BODY, &["customer_id"], new_customer)
                .set("anyOf", json!([{"required": ["customer_name"]}, {"required": ["name"]}]))
                .set("example", json!({"customer_id": "cust_456", "name": "Example Ltd"})),
        ),
        (
            "CustomerChange",
            Shape::request(&customer::BODY, &[], new_customer)
                .set("example", json!({"name": "Example Ltd", "description": "trial until March"})),
        ),
    ]
}

/// `null` puts a field back to its default.
fn definition(name: &str) -> Shape {
    let interval = || Shape::option(&spans(Span::FLUSH)).or_null();
    match name {
        "metric_name" => Shape::metric_name().about("Its name."),
        "initial_value" => Shape::sent_amount().or_null().by_default(0).about("What it reads at first."),
        "metric_type" => Shape::option(&METRIC_TYPES).or_null().by_default("checkpoint").about(
            "`checkpoint` counts on for ever, `reset` begins anew each `reset_interval`, `stripe_billing` \
             each billing period.",
        ),
        "operation" => {
            Shape::option(&OPERATIONS).or_null().by_default("SUM").about("What it makes of updates.")
        }
        "flush_interval" => {
            interval().by_default(Span::default().text()).about("The length of a window, which is a row.")
        }
        "reset_interval" => Shape::option(&spans(Span::ALL)).or_null().about(
            "Only with `metric_type` `reset`: how often it begins anew. By default the `flush_interval`, and \
             never shorter than that.",
        ),
        "max_event_age" => max_event_age(),
        "cleanup_after" => {
            Shape::option(&CLEANUPS).or_null().by_default("never").about("When it is deleted if idle.")
        }
        "tags" => tags(),
        "plan_limit_value" | "limit_value" => {
            Shape::sent_amount().or_null().about("The limit. Both names are one field.")
        }
        "plan_limit_operator" | "limit_operator" => Shape::option(&OPERATORS)
            .or_null()
            .by_default("gte")
            .about("How the value stands to the limit in a breach; needs a limit. Both names are one field."),
        "plan_breach_action" | "breach_action" => Shape::option(&ACTIONS)
            .or_null()
            .by_default("allow")
            .about("What a breach leads to; needs a limit. Both names are one field."),
        "metadata" => Shape::named("MetricMetadata").or_null().about("Where rows go, how usage is billed."),
        name => notice(name),
    }
}

fn new_template(name: &str) -> Shape {
    match name {
        "create_customers" => Shape::flag()
            .or_null()
            .by_default(false)
            .about("Whether a customer that is not known is made along with its series."),
        "metric_name" => Shape::metric_name().about("If it is given, that of the path."),
        name => definition(name),
    }
}

/// Whom to tell of a limit, and when: of a series and of a plan alike.
pub(super) fn notice(name: &str) -> Shape {
    match name {
        "notify_at" => {
            Shape::list(Shape::of("integer").set("minimum", 1).set("maximum", NOTIFY_AT_PERCENT_MAX))
                .set("maxItems", NOTIFY_AT_MAX)
                .or_null()
                .about("Percentages of the limit at which to notify.")
        }
        "webhook_url" => {
            Shape::url().or_null().about("Where to notify; needs the business's webhook secret.")
        }
        _ => Shape::any(),
    }
}

/// What a PATCH does not name stays: a client that fills in defaults would put it back.
fn changed_definition(name: &str) -> Shape {
    definition(name).without_default()
}

fn max_event_age() -> Shape {
    let seconds = Shape::of("integer").set("minimum", 0).set("maximum", u32::MAX);
    Shape::either([seconds, Shape::pattern(DURATION), Shape::of("null")]).about(
        "How old an event may be: seconds, or a duration such as `24h`; `null` for the server's default.",
    )
}

fn tags() -> Shape {
    Shape::strings(Shape::pattern(CLEAN).set("maxLength", TAG_VALUE_BYTES_MAX))
        .set("propertyNames", Shape::pattern(CLEAN_NAME).set("maxLength", TAG_NAME_BYTES_MAX))
        .set("maxProperties", TAGS_MAX)
        .or_null()
        .about("Names to values, for filters of lists. Lengths are counted in bytes.")
}

fn metadata(name: &str) -> Shape {
    match name {
        "integrations" => {
            Shape::named("MetricIntegrations").or_null().about("What the series is connected to.")
        }
        "custom" => Shape::of("object")
            .or_null()
            .about(&format!("Yours, kept as it is; at most {CUSTOM_BYTES_MAX} bytes.")),
        _ => Shape::any(),
    }
}

fn integration(name: &str) -> Shape {
    match name {
        "supabase" | "postgres" => {
            Shape::named("StoreIntegration").or_null().about("The database. Both names are one field.")
        }
        "stripe" => Shape::named("StripeIntegration").or_null().about("Billing; `null` for none."),
        _ => Shape::any(),
    }
}

fn store(name: &str) -> Shape {
    match name {
        "enabled" => Shape::flag().or_null().about("Whether rows are written; true for a new series."),
        "batch_interval" => Shape::option(&spans(Span::FLUSH))
            .or_null()
            .about("How often changed windows are written; `15s` for a new series."),
        "restore_on_startup" => {
            Shape::flag().or_null().about("Whether a restart gives the value back; true for a new series.")
        }
        _ => Shape::any(),
    }
}

fn stripe(name: &str) -> Shape {
    match name {
        "enabled" => Shape::flag().or_null().about("Whether usage is exported; true at first."),
        "price_id" => Shape::id().or_null().about("Stripe's id of the price."),
        "export" => Shape::word(["usage", "overage"]).or_null().about("What is exported; `usage` at first."),
        "overage_threshold" => {
            Shape::sent_amount().set("minimum", 0).or_null().about("Usage above it is overage.")
        }
        "scale" => {
            Shape::sent_amount().set("minimum", 1e-9).or_null().about("The unit in which usage is exported.")
        }
        _ => Shape::any(),
    }
}

fn new_update(name: &str) -> Shape {
    match name {
        "value" => {
            Shape::sent_amount().about("The amount: an exact decimal, rounded half to even to nine digits.")
        }
        "timestamp" => Shape::moment().or_null().about("When it happened; the arrival if it is absent."),
        "id" => Shape::id().or_null().about("The event's own id: it counts once, however often it is sent."),
        _ => Shape::any(),
    }
}

fn new_business(name: &str) -> Shape {
    match name {
        "business_name" => Shape::label().about("For people."),
        "email" => Shape::label().about("Whom to write to; not checked."),
        _ => Shape::any(),
    }
}

fn new_key(name: &str, key_type: &'static str) -> Shape {
    match name {
        "key_type" => Shape::word([key_type]).about("What the key acts for."),
        "key_name" => Shape::id().about("Unique among the active keys of its type."),
        "expires_at" => {
            Shape::moment().or_null().about("When it stops working, which must lie ahead; `null` is never.")
        }
        "scopes" => Shape::list(Shape::word(key::SCOPES))
            .set("minItems", 1)
            .or_null()
            .about("What it may do; no more than the key that makes it."),
        _ => Shape::any(),
    }
}

/// `null` clears what may be cleared.
fn new_customer(name: &str) -> Shape {
    match name {
        "customer_id" => Shape::id().about("Your own id of the customer."),
        "customer_name" | "name" => {
            Shape::label().about("For people; required for a new one. Both names are one field.")
        }
        "email" => Shape::label().or_null().about("Whom to write to; not checked."),
        "description" => Shape::note(customer::DESCRIPTION_BYTES_MAX).or_null().about("For people."),
        "plan_id" => Shape::text().or_null().about("The plan; empty or `null` is none."),
        "stripe_customer_id" => Shape::id().or_null().about("Stripe's id of the customer."),
        "stripe_price_id" => Shape::id().or_null().about("Stripe's id of the customer's price."),
        "subscription_ends_at" => Shape::moment().or_null().about("When the subscription ends."),
        _ => Shape::any(),
    }
}
