//! What answers say: a component for each kind of body. Members are those that the endpoints write.

use dataflows::types::Span;

use super::shape::Shape;
use crate::admission::parse::key::{self, BUSINESS, CUSTOMER, STRIPE};
use crate::admission::parse::names::{ACTIONS, CLEANUPS, METRIC_TYPES, OPERATIONS, OPERATORS, SCOPES, spans};
use crate::http::error::Title;

/// Every answer by the name of its component.
pub(super) fn all() -> Vec<(&'static str, Shape)> {
    let status = |word| [("status", Shape::word([word]))];
    let warnings = || ("warnings", Shape::list(Shape::text()).about("What was understood but may surprise."));
    let new_key = || ("api_key", Shape::text().about("The key itself: shown here, and never again."));
    vec![
        ("Problem", problem()),
        ("Liveness", Shape::answer(status("ok"))),
        (
            "Readiness",
            Shape::answer([
                ("status", Shape::word(["starting", "draining", "ok", "degraded"])),
                ("reasons", Shape::list(Shape::text())),
            ]),
        ),
        ("Document", Shape::of("object").about("An OpenAPI document.")),
        (
            "MetricCreated",
            definition().also([
                ("status", Shape::word(["created", "exists"])),
                (
                    "differs?",
                    Shape::list(Shape::text()).about("With `exists`: fields that the body wanted otherwise."),
                ),
                warnings(),
            ]),
        ),
        ("MetricUpdated", definition().also([("status", Shape::word(["updated"])), warnings()])),
        ("UpdateRecorded", update()),
        ("EventsRecorded", batch()),
        (
            "EventError",
            Shape::answer([
                ("index", Shape::count().about("The place of the item, from 0.")),
                ("code", Shape::text()),
                ("detail", Shape::text()),
            ]),
        ),
        ("MetricReading", reading()),
        ("MetricPage", page("metrics", "MetricReading").also([next_cursor()])),
        (
            "MetricDeleted",
            Shape::answer(status("deleted")).also([
                ("metric_name", Shape::metric_name()),
                business_id(),
                of_customer(),
            ]),
        ),
        ("Template", template()),
        ("TemplatePut", template().also([("status", Shape::word(["created", "updated"])), warnings()])),
        (
            "TemplateDeleted",
            Shape::answer(status("deleted")).also([("metric_name", Shape::metric_name()), business_id()]),
        ),
        ("HistoryPoint", point()),
        (
            "MetricHistory",
            page("points", "HistoryPoint").also([
                ("metric_name", Shape::metric_name()),
                business_id(),
                of_customer(),
                ("scope", Shape::option(&SCOPES)),
                next_cursor(),
            ]),
        ),
        ("Business", business()),
        ("BusinessCreated", business().also(status("created"))),
        ("BusinessUpdated", business().also(status("updated"))),
        ("BusinessDeleted", Shape::answer(status("deleted")).also([business_id()])),
        ("WebhookSet", webhook()),
        ("FailedMessage", failed_message()),
        ("FailedMessagePage", page("failed", "FailedMessage").also([next_cursor()])),
        ("MessageRetried", Shape::answer(status("retrying")).also([("event_id", Shape::id())])),
        ("ListedKey", Shape::either([Shape::named("Key"), Shape::named("StripeKey")])),
        ("Key", listed_key()),
        ("StripeKey", stripe_key()),
        ("KeyPage", page("keys", "ListedKey")),
        ("CustomerKeyPage", page("keys", "Key")),
        ("KeyCreated", Shape::either([Shape::named("OwnKeyCreated"), Shape::named("StripeKeyCreated")])),
        ("OwnKeyCreated", key().also(status("created")).also([new_key(), warnings()])),
        ("StripeKeyCreated", stripe_key().also(status("created"))),
        (
            "KeyDeleted",
            Shape::answer(status("deleted"))
                .also([("key_name", Shape::text()), ("key_type", Shape::word([BUSINESS, CUSTOMER, STRIPE]))]),
        ),
        (
            "BillingReset",
            Shape::answer(status("success")).also([
                business_id(),
                ("customer_id", Shape::id()),
                ("series", Shape::count().about("How many have begun a new period.")),
            ]),
        ),
        ("AuditEntry", entry()),
        ("AuditPage", page("audit_logs", "AuditEntry").also([next_cursor()])),
        ("Customer", customer()),
        ("CustomerPage", page("customers", "Customer").also([next_cursor()])),
        ("CustomerCreated", customer().also(status("created"))),
        ("CustomerUpdated", customer().also(status("updated"))),
        (
            "CustomerDeleted",
            Shape::answer(status("deleted")).also([business_id(), ("customer_id", Shape::id())]),
        ),
    ]
}

pub(super) fn business_id() -> (&'static str, Shape) {
    ("business_id", Shape::text())
}

fn of_customer() -> (&'static str, Shape) {
    ("customer_id?", Shape::id().about("Only of a customer series."))
}

pub(super) fn next_cursor() -> (&'static str, Shape) {
    ("next_cursor", Shape::text().or_null().about("`cursor` of the next page; `null` on the last."))
}

pub(super) fn page(things: &str, of: &str) -> Shape {
    Shape::answer([(things, Shape::list(Shape::named(of))), ("count", Shape::count().about("On this page."))])
}

/// The table of `http::error`.
fn problem() -> Shape {
    let title = || Shape::word(Title::ALL.map(|title| title.parts().1));
    Shape::answer([
        ("type", Shape::pattern("^urn:tracktags:error:[a-z0-9_]+$").set("format", "uri")),
        ("title", title()),
        ("status", Shape::of("integer").set("minimum", 400).set("maximum", 599)),
        ("detail", Shape::text().about("A sentence for people.")),
        ("error", title().about("As `title`.")),
        ("message", Shape::text().about("As `detail`.")),
        ("code", Shape::pattern("^[a-z0-9_]+$").about("For programs; stable.")),
        (
            "field?",
            Shape::text().about("The field at fault, dotted; items by their places: `[3].metric_name`."),
        ),
        ("valid?", Shape::list(Shape::text()).about("What the field may be.")),
        ("max_bytes?", Shape::count().about("With 413: the greatest body.")),
        ("current_value?", Shape::amount().about("With 429: the value that the update would have moved.")),
        ("limit_value?", Shape::amount().about("With 429: the limit that it would have passed.")),
        (
            "resets_at?",
            Shape::moment()
                .or_null()
                .about("With 429: when the value begins anew; `null` if no end of a period will help."),
        ),
        (
            "taken?",
            Shape::count().about("Of a batch that broke off: how many items from the first on were taken."),
        ),
        ("errors?", Shape::list(Shape::named("EventError")).about("Of a batch: why items did not count.")),
        (
            "outcome?",
            Shape::word(["rejected", "unknown"]).about(
                "With 5xx: `rejected` was never recorded; `unknown` may have been: send it again under the \
                 same key.",
            ),
        ),
        ("request_id", Shape::text().about("As in the header X-Request-Id.")),
    ])
}

fn definition() -> Shape {
    description().also([of_customer()])
}

fn template() -> Shape {
    let create_customers = Shape::flag().about("Whether a customer that is not known is made along.");
    description().also([("create_customers", create_customers)])
}

/// Whosever it is.
fn description() -> Shape {
    let supabase = Shape::answer([
        ("enabled", Shape::flag()),
        ("batch_interval", Shape::option(&spans(Span::FLUSH))),
        ("restore_on_startup", Shape::flag()),
    ]);
    let stripe = Shape::answer([
        ("enabled", Shape::flag()),
        ("price_id", Shape::id().or_null()),
        ("export", Shape::word(["usage", "overage"])),
        ("overage_threshold", Shape::amount().or_null()),
        ("scale", Shape::amount().or_null()),
    ]);
    let integrations = Shape::answer([("supabase", supabase), ("stripe", stripe.or_null())]);
    Shape::answer([
        business_id(),
        ("metric_name", Shape::metric_name()),
        ("metric_type", Shape::option(&METRIC_TYPES)),
        ("operation", Shape::option(&OPERATIONS)),
        ("flush_interval", Shape::option(&spans(Span::FLUSH))),
        ("reset_interval", Shape::option(&spans(Span::ALL)).or_null()),
        ("initial_value", Shape::amount()),
        ("max_event_age", Shape::count().about("In seconds.")),
        ("cleanup_after", Shape::option(&CLEANUPS)),
        ("tags", Shape::strings(Shape::text())),
        ("plan_limit_value", Shape::amount().or_null()),
        ("plan_limit_operator", Shape::option(&OPERATORS).or_null()),
        ("plan_breach_action", Shape::option(&ACTIONS).or_null()),
        ("notify_at", Shape::list(Shape::count()).or_null()),
        ("webhook_url", Shape::url().or_null()),
        ("metadata", Shape::answer([("integrations", integrations), ("custom", Shape::of("object"))])),
        ("created_at", Shape::moment()),
    ])
}

fn update() -> Shape {
    Shape::answer([
        ("status", Shape::word(["updated"])),
        business_id(),
        of_customer(),
        ("metric_name", Shape::metric_name()),
        ("value", Shape::amount().about("The amount as it was recorded.")),
        ("current_value", Shape::amount().about("What the series reads with it.")),
        ("limit_breached", Shape::flag()),
        ("timestamp", Shape::of("integer").about("When it arrived, in unix seconds.")),
        ("duplicate?", Shape::flag().about("True if it had been recorded before; it counts once.")),
        ("late?", Shape::flag().about("True if its window had ended.")),
    ])
}

fn batch() -> Shape {
    let result = Shape::answer([
        ("index", Shape::count()),
        ("status", Shape::word(["accepted", "duplicate", "refused", "rejected"])),
    ]);
    Shape::answer([
        ("accepted", Shape::count().about("Items that count.")),
        ("duplicates", Shape::count().about("Items that had been recorded before.")),
        ("refused", Shape::count().about("Items that would have passed a limit.")),
        ("rejected", Shape::count().about("Items that are not valid.")),
        (
            "errors",
            Shape::list(Shape::named("EventError"))
                .about("Why the first thousand of those refused and rejected did not count."),
        ),
        ("duplicate?", Shape::flag().about("True of a chunk of a load that had been applied before.")),
        ("results?", Shape::list(result).about("With `results=all`: one entry an item.")),
    ])
}

fn reading() -> Shape {
    let period = Shape::answer([("start", Shape::moment()), ("end", Shape::moment().or_null())]);
    Shape::answer([
        ("metric_name", Shape::metric_name()),
        business_id(),
        of_customer(),
        ("scope", Shape::option(&SCOPES)),
        ("metric_type", Shape::option(&METRIC_TYPES)),
        ("operation", Shape::option(&OPERATIONS)),
        ("current_value", Shape::amount()),
        ("initial_value", Shape::amount()),
        ("count", Shape::count().about("Updates in the period.")),
        ("period", period.about("What `current_value` is of; the end is `null` where it goes on for ever.")),
        ("limit_value", Shape::amount().or_null()),
        ("limit_operator", Shape::option(&OPERATORS).or_null()),
        ("limit_breached", Shape::flag().or_null()),
        ("breach_action", Shape::option(&ACTIONS).or_null()),
        ("limit_source", Shape::word(["series", "plan", "default"]).or_null().about("Whose limit it is.")),
        ("remaining", Shape::amount().or_null().about("How far the value may still go, with SUM and COUNT.")),
        ("refused", Shape::count().about("Updates refused since the start of the service.")),
        ("as_of", Shape::moment()),
        ("timestamp", Shape::of("integer").about("As `as_of`, in unix seconds.")),
    ])
}

fn point() -> Shape {
    Shape::answer([
        ("window_start", Shape::moment()),
        ("window_end", Shape::moment()),
        ("value", Shape::amount().about("What the series read at the end of the window.")),
        ("sum", Shape::amount()),
        ("count", Shape::count()),
        ("min", Shape::amount().or_null()),
        ("max", Shape::amount().or_null()),
        ("avg", Shape::amount().or_null()),
        ("flushed_at", Shape::moment().or_null().about("`null` if the database does not say the same yet.")),
    ])
}

fn business() -> Shape {
    Shape::answer([
        business_id(),
        ("business_name", Shape::text()),
        ("email", Shape::text()),
        ("created_at", Shape::moment()),
    ])
}

fn key_type() -> Shape {
    Shape::word([BUSINESS, CUSTOMER])
}

fn key() -> Shape {
    Shape::answer([
        business_id(),
        ("customer_id?", Shape::id().about("Only of a customer's key.")),
        ("key_name", Shape::text()),
        ("key_type", key_type()),
        ("scopes", Shape::list(Shape::word(key::SCOPES))),
        ("expires_at", Shape::moment().or_null()),
        ("created_at", Shape::moment()),
    ])
}

fn listed_key() -> Shape {
    let last_used_at = Shape::moment().or_null().about("A crash may forget the last minutes of it.");
    key().also([("last_used_at", last_used_at)])
}

fn stripe_key() -> Shape {
    Shape::answer([
        business_id(),
        ("key_name", Shape::text()),
        ("key_type", Shape::word([STRIPE])),
        ("created_at", Shape::moment()),
    ])
}

fn webhook() -> Shape {
    Shape::answer([
        ("status", Shape::word(["updated"])),
        business_id(),
        ("url", Shape::url()),
        ("secret", Shape::text().about("What messages are signed with: shown here, and never again.")),
        (
            "previous_secret_ends_at",
            Shape::moment().or_null().about("Until then the one before signs along; `null` without one."),
        ),
    ])
}

fn failed_message() -> Shape {
    Shape::answer([
        ("event_id", Shape::id().about("The `webhook-id` that it is sent under.")),
        business_id(),
        ("url", Shape::url()),
        ("type?", Shape::text().about("As in the payload.")),
        ("attempts", Shape::count().about("How many have failed.")),
        ("created_at", Shape::moment()),
        ("last_error", Shape::text().about("Why the last attempt failed.")),
        ("payload", Shape::of("object").about("What is sent.")),
    ])
}

fn entry() -> Shape {
    Shape::answer([
        ("at", Shape::moment()),
        ("actor", Shape::text().about("`server`, `admin`, or `key:` and its name.")),
        ("actor_type", Shape::word(["server", "admin", "stripe", BUSINESS, CUSTOMER])),
        ("action", Shape::text().about("What was done, such as `series.create`.")),
        business_id(),
        ("subject", Shape::text().about("The name of what was changed.")),
        ("request_id?", Shape::text().about("That of the request, if there was one.")),
    ])
}

fn customer() -> Shape {
    Shape::answer([
        business_id(),
        ("customer_id", Shape::id()),
        ("customer_name", Shape::text()),
        ("email", Shape::text().or_null()),
        ("description", Shape::text().or_null()),
        ("plan_id", Shape::text().or_null()),
        (
            "effective_plan_id",
            Shape::text()
                .or_null()
                .about("The plan that counts now: the free one once the subscription has ended."),
        ),
        ("stripe_customer_id", Shape::text().or_null()),
        ("stripe_price_id", Shape::text().or_null()),
        ("subscription_ends_at", Shape::moment().or_null()),
        ("created_at", Shape::moment()),
        ("warnings?", Shape::list(Shape::text())),
    ])
}
