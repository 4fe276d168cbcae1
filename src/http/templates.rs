//! Templates (API section 3): what customers' series are made of at their first event.
//!
//! A series that is there is found without a word about templates; only where there is none are they asked. An update makes
//! the series and stays out of it otherwise: one that is then refused leaves the series, empty. `check` and the proxy make
//! nothing: they answer what the first event would find.

use std::slice;
use std::sync::Arc;

use dataflows::types::{SeriesKey, SeriesRecord, Standing, Template};
use hyper::StatusCode;

use super::auth::absent;
use super::definition::describe_spec;
use super::error::ApiError;
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::AdmissionError;
use crate::admission::parse::names;
use crate::admission::parse::template::NewTemplate;
use crate::control::{ControlError, SeriesHandle};

/// `PUT /api/v1/templates/{metric_name}`: in full. 201 if there was none of that name.
pub(super) async fn put(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let metric_name = named(call)?;
    let NewTemplate { spec, create_customers, warnings } =
        NewTemplate::parse(&call.body, &metric_name, &rooms.bounds)?;
    let business_id = call.caller().business_id.as_ref().to_owned();
    let _one_at_a_time = rooms.patching.of(&business_id).await;
    let (status, word) = match rooms.control.template(&business_id, &metric_name) {
        None => (StatusCode::CREATED, "created"),
        Some(_) => (StatusCode::OK, "updated"),
    };
    let created_at = rooms.control.now();
    let new = Template { business_id, metric_name, spec, create_customers, created_at };
    let (business_id, metric_name) = (new.business_id.clone(), new.metric_name.clone());
    rooms.control.by(call.origin()).put_template(new).await?;
    let template = rooms.control.template(&business_id, &metric_name).ok_or(ControlError::NoSuchTemplate)?;
    let json = describe(Json::object().set("status", word), rooms, &template);
    Ok(Reply::json(status, json.set("warnings", &warnings[..])))
}

/// `GET /api/v1/templates/{metric_name}`.
pub(super) fn read(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let template = rooms.control.template(&call.caller().business_id, &named(call)?);
    let template = template.ok_or(ControlError::NoSuchTemplate)?;
    Ok(Reply::json(StatusCode::OK, describe(Json::object(), rooms, &template)))
}

/// `DELETE /api/v1/templates/{metric_name}`: the series that were made from it stay.
pub(super) async fn delete(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (business_id, metric_name) = (&call.caller().business_id, named(call)?);
    let _one_at_a_time = rooms.patching.of(business_id).await;
    rooms.control.by(call.origin()).delete_template(business_id, &metric_name).await?;
    let json = Json::object()
        .set("status", "deleted")
        .set("metric_name", metric_name)
        .set("business_id", &**business_id);
    Ok(Reply::json(StatusCode::OK, json))
}

/// The name of the path.
fn named(call: &Call<'_>) -> Result<String, ApiError> {
    Ok(names::metric_name("metric_name", call.metric_name())?)
}

fn describe(into: Json, rooms: &Rooms, template: &Template) -> Json {
    let named = into
        .set("business_id", &template.business_id)
        .set("metric_name", &template.metric_name)
        .set("create_customers", template.create_customers);
    describe_spec(named, rooms, &template.spec).set("created_at", template.created_at)
}

/// The series of a first event, made if there is a template for it; 404 as without one.
pub(super) async fn first(rooms: &Rooms, call: &Call<'_>, key: &SeriesKey) -> Result<SeriesHandle, ApiError> {
    let Some(customer_id) = &key.customer_id else { return Err(absent(&rooms.control, key)) };
    let names = [(key.metric_name.as_str(), customer_id.as_str())];
    let made = rooms.control.by(call.origin()).create_from_template(&key.business_id, &names).await;
    Ok(made.into_iter().next().unwrap_or(Err(ControlError::NoSuchSeries))?)
}

/// A series and how it stands; where there is none yet but a template for it, what its first event would find. 404 else.
pub(super) async fn standing(
    rooms: &Rooms,
    key: &SeriesKey,
) -> Result<(Arc<SeriesRecord>, Standing), ApiError> {
    let Some(handle) = rooms.control.resolve(key) else { return prospect(rooms, key) };
    let standings = rooms.admission.read(slice::from_ref(&handle)).await?;
    let standing = standings.into_iter().next().flatten().ok_or(AdmissionError::Gone)?;
    Ok((handle.record, standing))
}

/// What a first event would find, if there is a template for it; 404 else. Nothing is made.
pub(super) fn prospect(rooms: &Rooms, key: &SeriesKey) -> Result<(Arc<SeriesRecord>, Standing), ApiError> {
    let prospect = rooms.control.prospect(key).ok_or_else(|| absent(&rooms.control, key))?;
    Ok((prospect.record, prospect.standing))
}
