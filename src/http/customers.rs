//! Customers of a business (API section 4): define, list, read, change, delete.
//!
//! A change is read, changed and written under its business's lock, so that of two requests neither undoes the other. Whether a new
//! one is new is decided where definitions are.

use dataflows::types::{Customer, CustomerDetails};
use hyper::StatusCode;

use super::auth::no_such_customer;
use super::error::ApiError;
use super::query::{LIMIT_DEFAULT, LIMIT_MAX};
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::parse::customer::CustomerBody;
use crate::admission::parse::{Fault, names};
use crate::control::CustomerRecord;

/// `POST /api/v1/customers`. 409 if there is one of that id.
pub(super) async fn create(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let body = CustomerBody::parse(&call.body)?;
    let customer_id = body.customer_id()?;
    define(rooms, call, &body, customer_id, None).await
}

/// `PUT /api/v1/customers/{customer_id}`: the same fields; what is absent stays. 201 if there was none of that id.
pub(super) async fn put(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let customer_id = named(call)?;
    let body = CustomerBody::parse(&call.body)?;
    body.agrees_with(&customer_id)?;
    let _one_at_a_time = rooms.patching.of(&call.caller().business_id).await;
    let before = rooms.control.customer(&call.caller().business_id, &customer_id);
    define(rooms, call, &body, customer_id, before).await
}

async fn define(
    rooms: &Rooms,
    call: &Call<'_>,
    body: &CustomerBody<'_>,
    customer_id: String,
    before: Option<CustomerRecord>,
) -> Result<Reply, ApiError> {
    let is_new = before.is_none();
    let (name, details, plan_id) = before.map_or_else(
        || (None, CustomerDetails::default(), None),
        |record| (Some(record.customer.customer_name), record.details, record.plan_id),
    );
    let customer_name = body.customer_name()?.or(name).ok_or_else(|| {
        Fault::malformed("customer_name", "missing_field", "customer_name is required for a new customer")
    })?;
    let business_id = call.caller().business_id.as_ref().to_owned();
    let customer = Customer { business_id, customer_id, customer_name, created_at: rooms.control.now() };
    let (business_id, customer_id) = (customer.business_id.clone(), customer.customer_id.clone());
    let record =
        CustomerRecord { customer, details: body.details(details)?, plan_id: body.plan_id(plan_id)? };
    rooms.control.by(call.origin()).put_customer(record, is_new).await?;
    let record = rooms.control.customer(&business_id, &customer_id).ok_or_else(no_such_customer)?;
    let (status, word) = if is_new { (StatusCode::CREATED, "created") } else { (StatusCode::OK, "updated") };
    Ok(Reply::json(status, describe(rooms, Json::object().set("status", word), &record)))
}

/// `GET /api/v1/customers`: by id, page by page. A cursor is the last id seen.
pub(super) fn list(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let limit = call.query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = call.query.get("cursor").map(|cursor| names::id("cursor", cursor)).transpose()?;
    // One more than wanted tells whether there is another page.
    let mut page = rooms.control.list_customers(&call.caller().business_id, after.as_deref(), limit + 1);
    let more = page.len() > limit;
    page.truncate(limit);
    let shown: Vec<_> = page.iter().map(|record| describe(rooms, Json::object(), record)).collect();
    let last = page.last().filter(|_| more).map(|record| record.customer.customer_id.as_str());
    let json =
        Json::object().set("customers", &shown[..]).set("count", shown.len() as u64).set("next_cursor", last);
    Ok(Reply::json(StatusCode::OK, json))
}

/// `GET /api/v1/customers/{customer_id}`.
pub(super) fn read(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let record =
        rooms.control.customer(&call.caller().business_id, &named(call)?).ok_or_else(no_such_customer)?;
    Ok(Reply::json(StatusCode::OK, describe(rooms, Json::object(), &record)))
}

/// `DELETE /api/v1/customers/{customer_id}`: with its keys and series; rows of its series stay.
pub(super) async fn delete(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (business_id, customer_id) = (&call.caller().business_id, named(call)?);
    let _one_at_a_time = rooms.patching.of(business_id).await;
    rooms.control.by(call.origin()).delete_customer(business_id, &customer_id).await?;
    let json = Json::object()
        .set("status", "deleted")
        .set("business_id", &**business_id)
        .set("customer_id", customer_id);
    Ok(Reply::json(StatusCode::OK, json))
}

/// `POST /admin/v1/customers/{business_id}/{customer_id}/reset-billing`: a new live period begins for every series that the
/// customer is billed by, at one moment. What was counted before stays in the old one, and rows stay.
pub(super) async fn reset_billing(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (business_id, customer_id) = (call.parameter(0), names::id("customer_id", call.parameter(1))?);
    let series = rooms.control.by(call.origin()).reset_billing(business_id, &customer_id).await?;
    let json = Json::object()
        .set("status", "success")
        .set("business_id", business_id)
        .set("customer_id", customer_id)
        .set("series", series as u64);
    Ok(Reply::json(StatusCode::OK, json))
}

/// The id of the path.
fn named(call: &Call<'_>) -> Result<String, ApiError> {
    Ok(names::id("customer_id", call.parameter(0))?)
}

fn describe(rooms: &Rooms, into: Json, record: &CustomerRecord) -> Json {
    let CustomerRecord { customer, details, plan_id } = record;
    let (effective, falls_nowhere) = {
        let registry = rooms.control.registry();
        let lapsed = registry.has_lapsed(record);
        let effective = registry.plans().effective(record, lapsed).map(|plan| plan.plan_id.clone());
        (effective, lapsed && registry.plans().free(&customer.business_id).is_none())
    };
    let warning = "the subscription has ended and there is no free plan: the customer stays on its plan";
    into.set("business_id", &customer.business_id)
        .set("customer_id", &customer.customer_id)
        .set("customer_name", &customer.customer_name)
        .set("email", details.email.as_deref())
        .set("description", details.description.as_deref())
        .set("plan_id", plan_id.as_deref())
        .set("effective_plan_id", effective)
        .set("stripe_customer_id", details.stripe_customer_id.as_deref())
        .set("stripe_price_id", details.stripe_price_id.as_deref())
        .set("subscription_ends_at", details.subscription_ends_at)
        .set("created_at", customer.created_at)
        .set_some("warnings", falls_nowhere.then_some(&[warning][..]))
}
