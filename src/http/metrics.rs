//! One series: update, read, delete (API section 2).

use std::slice;

use dataflows::types::{Amount, Decision, LimitSource, Micros, Operation, SeriesKey, SeriesSpec, Standing};
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};

use super::auth::{absent, series_key};
use super::error::{ApiError, Title};
use super::reply::{Json, Reply};
use super::{Call, Rooms, ratelimit, templates};
use crate::admission::parse::events::Identity;
use crate::admission::parse::names::{ACTIONS, METRIC_TYPES, OPERATIONS, OPERATORS, SCOPES, word};
use crate::admission::parse::update::NewUpdate;
use crate::admission::{AdmissionError, UpdateRequest, Updated};
use crate::control::SeriesHandle;

/// `limit_source`.
pub(super) const SOURCES: [(&str, LimitSource); 3] =
    [("series", LimitSource::Series), ("plan", LimitSource::Plan), ("default", LimitSource::Default)];

/// `PUT /api/v1/metrics/{metric_name}`: records one update. 200 once it is durable; a GET that starts after sees it.
pub(super) async fn update(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let key = series_key(call.caller(), &call.query, call.metric_name())?;
    let update = NewUpdate::parse(&call.body)?;
    let idempotency_key = call.idempotency_key()?.map(|text| (text, update.fingerprint(&key)));
    let handle = match rooms.control.resolve(&key) {
        Some(handle) => handle,
        None => Box::pin(templates::first(rooms, call, &key)).await?,
    };
    let request = UpdateRequest {
        blocks: rooms.control.blocks(&handle),
        handle,
        amount: update.amount,
        event_at: update.event_at,
        id: update.id.map(|id| Identity::Plain(id.into())),
        key: idempotency_key,
        post: None,
    };
    let operation = request.handle.record.spec.operation;
    let answer = rooms.admission.update(&request).await;
    let Updated { decision, is_duplicate } = answer.map_err(|error| refused(&key, operation, error))?;
    let headers = rate_limit(&key, operation, &decision);
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
    Ok(Reply { headers, ..Reply::json(StatusCode::OK, json) })
}

/// What a decision says of the limit, as headers.
pub(super) fn rate_limit(
    key: &SeriesKey,
    operation: Operation,
    decision: &Decision,
) -> Vec<(HeaderName, HeaderValue)> {
    let Decision { current, held, arrival, .. } = *decision;
    ratelimit::headers(&key.metric_name, operation, held, current, arrival)
}

/// What a refusal says of the limit goes into headers, too.
pub(super) fn refused(key: &SeriesKey, operation: Operation, error: AdmissionError) -> ApiError {
    let headers = match &error {
        AdmissionError::Refused(refused) => {
            ratelimit::headers(&key.metric_name, operation, refused.held, refused.current, refused.at)
        }
        _ => Vec::new(),
    };
    ApiError::from(error).with_headers(headers)
}

/// `GET /api/v1/metrics/{metric_name}`: the value as of now.
pub(super) async fn read(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let key = series_key(call.caller(), &call.query, call.metric_name())?;
    let handle = rooms.control.resolve(&key).ok_or_else(|| absent(&rooms.control, &key))?;
    let as_of = rooms.admission.now();
    let standings = rooms.admission.read(slice::from_ref(&handle)).await?;
    let standing = standings.into_iter().next().flatten().ok_or(AdmissionError::Gone)?;
    let operation = handle.record.spec.operation;
    let headers = ratelimit::headers(&key.metric_name, operation, standing.held(), standing.value, as_of);
    Ok(Reply { headers, ..Reply::json(StatusCode::OK, reading(&handle, &standing, as_of)) })
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
        .set("limit_value", standing.limit.map(|limit| limit.value))
        .set("limit_operator", standing.limit.map(|limit| word(&OPERATORS, &limit.operator)))
        .set("limit_breached", standing.limit.map(|_| standing.breached))
        .set("breach_action", standing.limit.map(|limit| word(&ACTIONS, &limit.action)))
        .set("limit_source", standing.limit.map(|_| word(&SOURCES, &standing.limit_source)))
        .set("remaining", remaining(spec, standing))
        .set("refused", standing.refused)
        .set("as_of", as_of)
        .set("timestamp", as_of.seconds())
}

/// How far the value may still go; none without a limit, and where updates do not add up to the value.
pub(super) fn remaining(spec: &SeriesSpec, standing: &Standing) -> Option<Amount> {
    let adds_up = matches!(spec.operation, Operation::Sum | Operation::Count);
    standing.limit.filter(|_| adds_up)?.remaining(standing.value)
}

/// `DELETE /api/v1/metrics/{metric_name}`. 409 while usage that is billed has not arrived, unless `force` says so.
pub(super) async fn delete(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let key = series_key(call.caller(), &call.query, call.metric_name())?;
    let is_forced = call.query.flag("force")?.unwrap_or(false);
    let handle = rooms.control.resolve(&key).ok_or_else(|| absent(&rooms.control, &key))?;
    if !is_forced && super::billing::is_owed(rooms, &handle).await? {
        let detail = "usage of the metric has not been billed yet: wait for it, or delete with force=true";
        return Err(ApiError::new(Title::Conflict, "unexported_usage", detail));
    }
    rooms.control.by(call.origin()).delete_series(&key).await?;
    let json = Json::object()
        .set("status", "deleted")
        .set("metric_name", &key.metric_name)
        .set("business_id", &key.business_id)
        .set_some("customer_id", key.customer_id.as_deref());
    Ok(Reply::json(StatusCode::OK, json))
}
