//! What may stand in paths, queries and headers, by name.

use super::shape::Shape;
use crate::admission::parse::key::{BUSINESS, STRIPE};
use crate::admission::parse::names::{ID_BYTES_MAX, SCOPES};
use crate::http::query::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::http::routes::Endpoint;

/// A parameter of a path.
pub(super) fn in_path(name: &str) -> Shape {
    match name {
        "business_id" => Shape::text().set("minLength", 1).about("The business."),
        "customer_id" => Shape::id().about("The business's own id of the customer."),
        "metric_name" => Shape::metric_name().about("The name of the metric."),
        "key_type" => Shape::word([BUSINESS, STRIPE]).about("The type of the key."),
        "key_name" => Shape::id().about("The name of the key."),
        "event_id" => Shape::id().about("The `webhook-id` of the message."),
        "plan_id" | "limit_id" => Shape::text().set("minLength", 1).about("Its id."),
        _ => Shape::any(),
    }
}

/// A parameter of a query.
pub(super) fn in_query(endpoint: Endpoint, name: &str) -> Shape {
    let is_list = matches!(endpoint, Endpoint::MetricList | Endpoint::LimitList);
    match name {
        "scope" if is_list => Shape::option(&SCOPES).about("Only series of this scope."),
        "scope" => Shape::option(&SCOPES)
            .by_default("business")
            .about("Whose series: the business's own, or with `customer_id` that of one customer."),
        "customer_id" => Shape::id().about("The customer; goes only with `scope=customer`, which needs it."),
        "if_exists" => Shape::word(["error"]).about("409 if there is a series of that name."),
        "name" => Shape::metric_name().about("Only series of this name."),
        "tag" => Shape::pattern("^[^:]+:").about("Only series with this tag, as `name:value`."),
        "breached" => {
            Shape::flag().about("Only series that are past their limit, or only those that are not.")
        }
        "limit" => Shape::of("integer")
            .set("minimum", 1)
            .set("maximum", LIMIT_MAX)
            .by_default(LIMIT_DEFAULT)
            .about("How many at most on this page."),
        "cursor" => Shape::text().set("minLength", 1).about("`next_cursor` of the page before."),
        "start" => Shape::moment().about("Only windows that begin then or later."),
        "end" => Shape::moment().about("Only windows that begin before."),
        "business_id" => Shape::id().about("Only changes of this business."),
        "dry_run" => Shape::flag().about("Change nothing, and say what would."),
        "atomic" => Shape::flag().about("Items that are not valid reject the whole batch."),
        "results" => Shape::word(["errors", "all"]).by_default("errors").about("`all`: one entry an item."),
        "force" => Shape::flag().about("Delete also what has usage that is not exported."),
        _ => Shape::any(),
    }
}

/// The header `Idempotency-Key`: bare, or a quoted string of RFC 8941.
pub(super) fn idempotency_key() -> Shape {
    let most_inside = ID_BYTES_MAX - 2;
    let bare = format!("[!#-~](?:[ -~]{{0,{most_inside}}}[!-~])?");
    let quoted = format!(r#""(?:[ !#-\[\]-~]|\\["\\]){{1,{ID_BYTES_MAX}}}""#);
    Shape::pattern(format!("^(?:{bare}|{quoted})$"))
        .about("A request that is sent again under the same key counts once; another one under it is 422.")
}
