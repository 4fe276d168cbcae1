//! One series: update, read, delete (API section 2).

use std::slice;

use dataflows::types::{Amount, Micros, Operation, SeriesSpec, Standing};
use hyper::StatusCode;

use super::auth::{absent, series_key};
use super::error::ApiError;
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::parse::names::{ACTIONS, METRIC_TYPES, OPERATIONS, OPERATORS, SCOPES, word};
use crate::admission::parse::update::NewUpdate;
use crate::admission::{AdmissionError, UpdateRequest, Updated};
use crate::control::SeriesHandle;

/// `PUT /api/v1/metrics/{metric_name}`: records one update. 200 once it is durable; a GET that starts after sees it.
pub(super) async fn update(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let key = series_key(call.caller(), &call.query, call.metric_name())?;
    let update = NewUpdate::parse(&call.body)?;
    let idempotency_key = call.idempotency_key()?.map(|text| (text, update.fingerprint(&key)));
    let handle = rooms.control.resolve(&key).ok_or_else(|| absent(&rooms.control, &key))?;
    let request = UpdateRequest {
        handle,
        amount: update.amount,
        event_at: update.event_at,
        id: update.id,
        key: idempotency_key,
        post: None,
    };
    let Updated { decision, is_duplicate } = rooms.admission.update(&request).await?;
    let json = Json::object()
        .set("status", "updated")
        .set("business_id", &key.business_id)
        .set_some("customer_id", key.customer_id.as_deref())
        .set("metric_name", &key.metric_name)
        .set("value", update.amount)
        .set("current_value", decision.current)
        .set("limit_breached", decision.breached)
        .set("timestamp", decision.arrival.seconds())
        .set_some("duplicate", is_duplicate.then_some(true))
        .set_some("late", decision.late.then_some(true));
    Ok(Reply::json(StatusCode::OK, json))
}

/// `GET /api/v1/metrics/{metric_name}`: the value as of now.
pub(super) async fn read(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let key = series_key(call.caller(), &call.query, call.metric_name())?;
    let handle = rooms.control.resolve(&key).ok_or_else(|| absent(&rooms.control, &key))?;
    let as_of = rooms.admission.now();
    let standings = rooms.admission.read(slice::from_ref(&handle)).await?;
    let standing = standings.into_iter().next().flatten().ok_or(AdmissionError::Gone)?;
    Ok(Reply::json(StatusCode::OK, reading(&handle, &standing, as_of)))
}

/// A series with its value.
pub(super) fn reading(handle: &SeriesHandle, standing: &Standing, as_of: Micros) -> Json {
    let (key, spec) = (&handle.record.key, &handle.record.spec);
    // A period without a beginning of its own began with the series.
    let start = standing.period_start.unwrap_or(handle.record.created_at);
    let period = Json::object().set("start", start).set("end", standing.period_end);
    Json::object()
        .set("metric_name", &key.metric_name)
        .set("business_id", &key.business_id)
        .set_some("customer_id", key.customer_id.as_deref())
        .set("scope", word(&SCOPES, &key.scope()))
        .set("metric_type", word(&METRIC_TYPES, &spec.metric_type))
        .set("operation", word(&OPERATIONS, &spec.operation))
        .set("current_value", standing.value)
        .set("initial_value", spec.initial_value)
        .set("count", standing.tally.count)
        .set("period", period)
        .set("limit_value", spec.limit.map(|limit| limit.value))
        .set("limit_operator", spec.limit.map(|limit| word(&OPERATORS, &limit.operator)))
        .set("limit_breached", spec.limit.map(|_| standing.breached))
        .set("breach_action", spec.limit.map(|limit| word(&ACTIONS, &limit.action)))
        // The only source until there are plans.
        .set("limit_source", spec.limit.map(|_| "series"))
        .set("remaining", remaining(spec, standing))
        .set("refused", standing.refused)
        .set("as_of", as_of)
        .set("timestamp", as_of.seconds())
}

/// How far the value may still go; none without a limit, and where updates do not add up to the value.
fn remaining(spec: &SeriesSpec, standing: &Standing) -> Option<Amount> {
    let adds_up = matches!(spec.operation, Operation::Sum | Operation::Count);
    spec.limit.filter(|_| adds_up)?.remaining(standing.value)
}

/// `DELETE /api/v1/metrics/{metric_name}`. `force` is known, but no series can have unexported usage yet.
pub(super) async fn delete(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let key = series_key(call.caller(), &call.query, call.metric_name())?;
    call.query.flag("force")?;
    rooms.control.resolve(&key).ok_or_else(|| absent(&rooms.control, &key))?;
    rooms.control.by(call.origin()).delete_series(&key).await?;
    let json = Json::object()
        .set("status", "deleted")
        .set("metric_name", &key.metric_name)
        .set("business_id", &key.business_id)
        .set_some("customer_id", key.customer_id.as_deref());
    Ok(Reply::json(StatusCode::OK, json))
}
