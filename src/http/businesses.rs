//! Tenants (API section 4): define, read, change, delete. For the admin key alone.

use dataflows::types::Business;
use hyper::StatusCode;

use super::error::ApiError;
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::parse::Fault;
use crate::admission::parse::business::BusinessBody;
use crate::control::{ControlError, new_business_id};

/// `POST /api/v1/businesses`.
pub(super) async fn create(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let body = BusinessBody::parse(&call.body)?;
    let required = |field: &'static str, value: Option<String>| {
        value.ok_or_else(|| Fault::malformed(field, "missing_field", format!("{field} is required")))
    };
    let business = Business {
        business_id: new_business_id().map_err(|_| ControlError::NoRandomness)?,
        business_name: required("business_name", body.business_name)?,
        email: required("email", body.email)?,
        created_at: rooms.control.now(),
    };
    rooms.control.by(call.origin()).put_business(business.clone()).await?;
    Ok(Reply::json(StatusCode::CREATED, describe(Json::object().set("status", "created"), &business)))
}

/// `GET /api/v1/businesses/{business_id}`.
pub(super) fn read(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    Ok(Reply::json(StatusCode::OK, describe(Json::object(), &named(rooms, call)?)))
}

/// `PUT /api/v1/businesses/{business_id}`: what is absent stays.
pub(super) async fn change(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let body = BusinessBody::parse(&call.body)?;
    let _one_at_a_time = rooms.patching.lock().await;
    let mut business = named(rooms, call)?;
    business.business_name = body.business_name.unwrap_or(business.business_name);
    business.email = body.email.unwrap_or(business.email);
    rooms.control.by(call.origin()).put_business(business.clone()).await?;
    Ok(Reply::json(StatusCode::OK, describe(Json::object().set("status", "updated"), &business)))
}

/// `DELETE /api/v1/businesses/{business_id}`: its keys stop at once; rows of its series stay.
pub(super) async fn delete(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let _one_at_a_time = rooms.patching.lock().await;
    let business_id = named(rooms, call)?.business_id;
    rooms.control.by(call.origin()).delete_business(&business_id).await?;
    let json = Json::object().set("status", "deleted").set("business_id", business_id);
    Ok(Reply::json(StatusCode::OK, json))
}

/// The business of the path.
fn named(rooms: &Rooms, call: &Call<'_>) -> Result<Business, ApiError> {
    Ok(rooms.control.business(call.parameter(0)).ok_or(ControlError::NoSuchBusiness)?)
}

fn describe(into: Json, business: &Business) -> Json {
    into.set("business_id", &business.business_id)
        .set("business_name", &business.business_name)
        .set("email", &business.email)
        .set("created_at", business.created_at)
}
