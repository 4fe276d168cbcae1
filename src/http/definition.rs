//! What a series is: create and change (API section 2).
//!
//! A POST on a name that exists changes nothing about the definition and says what differs. Its `initial_value` is
//! recorded as one update, once for each body: the order is *ask whether this body was recorded, record it under an id
//! made of the body, remember the body*, so that neither a race nor a crash in between counts it twice.

use std::slice;

use dataflows::types::{SeriesKey, SeriesSpec, Span};
use hyper::StatusCode;

use super::auth::{absent, no_such_customer, series_key, subject};
use super::error::{ApiError, Title};
use super::metrics::refused;
use super::reply::{Json, Raw, Reply, ToJson};
use super::{Call, Rooms};
use crate::admission::parse::names::{ACTIONS, CLEANUPS, METRIC_TYPES, OPERATIONS, OPERATORS, word};
use crate::admission::parse::series::{NewSeries, Patched};
use crate::admission::{AdmissionError, UpdateRequest};
use crate::control::{ControlError, Created, SeriesHandle};

/// `POST /api/v1/metrics`. 201, whether the series is new or was there.
pub(super) async fn create(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let must_be_new = call.query.choice("if_exists", &[("error", true)])?.unwrap_or(false);
    let customer_id = subject(call.caller(), &call.query)?;
    let new = NewSeries::parse(&call.body, &rooms.bounds)?;
    let idempotency_key = call.idempotency_key()?;
    let business_id = call.caller().business_id.as_ref().to_owned();
    if customer_id
        .as_ref()
        .is_some_and(|customer_id| !rooms.control.customer_exists(&business_id, customer_id))
    {
        return Err(no_such_customer());
    }
    let key = SeriesKey { business_id, customer_id, metric_name: new.metric_name.clone() };
    // Somebody may delete the series between finding and updating it: then it is new after all.
    for _ in 0..2 {
        let Created { handle, existed } =
            rooms.control.by(call.origin()).create_series(key.clone(), new.spec.clone()).await?;
        if existed && must_be_new {
            return Err(ApiError::new(Title::Conflict, "metric_exists", "a metric of that name exists"));
        }
        if !existed {
            return Ok(created(rooms, &handle, "created", None, &new.warnings));
        }
        match record_initial_value(rooms, call, &handle, &new, idempotency_key.clone()).await {
            Ok(()) => {
                let differs = differences(&handle.record.spec, &new.spec);
                return Ok(created(rooms, &handle, "exists", Some(&differs), &new.warnings));
            }
            Err(AdmissionError::Gone) => {}
            Err(error) => return Err(refused(&key, handle.record.spec.operation, error)),
        }
    }
    Err(AdmissionError::Gone.into())
}

fn created(
    rooms: &Rooms,
    handle: &SeriesHandle,
    status: &str,
    differs: Option<&[&str]>,
    warnings: &[String],
) -> Reply {
    let json = Json::object().set("status", status).set_some("differs", differs);
    Reply::json(StatusCode::CREATED, describe(json, rooms, handle).set("warnings", warnings))
}

async fn record_initial_value(
    rooms: &Rooms,
    call: &Call<'_>,
    handle: &SeriesHandle,
    new: &NewSeries,
    idempotency_key: Option<String>,
) -> Result<(), AdmissionError> {
    let (amount, body_hash) = (new.spec.initial_value, new.body_hash());
    let own = amount == handle.record.spec.initial_value;
    if own || !new.initial_value_given || rooms.control.post_recorded(handle.series, body_hash) {
        return Ok(());
    }
    let request = UpdateRequest {
        blocks: rooms.control.blocks(handle),
        handle: handle.clone(),
        amount,
        event_at: None,
        id: None,
        key: idempotency_key.map(|key| (key, new.fingerprint(&handle.record.key))),
        post: Some(body_hash),
    };
    rooms.admission.update(&request).await?;
    // The update is durable and its id remembered: should this fail, a repetition within the horizon is a duplicate.
    match rooms.control.by(call.origin()).record_post(handle.series, body_hash).await {
        Ok(()) | Err(ControlError::NoSuchSeries) => {}
        Err(error) => tracing::warn!(%error, "a recorded POST could not be remembered"),
    }
    Ok(())
}

/// `PATCH /api/v1/metrics/{metric_name}`. 409 for what decides how updates count, once there are updates.
pub(super) async fn change(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let key = series_key(call.caller(), &call.query, call.metric_name())?;
    let _one_at_a_time = rooms.patching.of(&key.business_id).await;
    let handle = rooms.control.resolve(&key).ok_or_else(|| absent(&rooms.control, &key))?;
    let current = &handle.record.spec;
    let patched = Patched::parse(&call.body, current, &rooms.bounds)?;
    if let Some(field) = fixed_by_updates(current, &patched.spec) {
        let standings = rooms.admission.read(slice::from_ref(&handle)).await?;
        let standing = standings.into_iter().next().flatten().ok_or(AdmissionError::Gone)?;
        if standing.touched {
            return Err(ControlError::Fixed { field }.into());
        }
    }
    let handle = if patched.spec == *current {
        handle
    } else {
        rooms.control.by(call.origin()).change_series(&key, patched.spec).await?
    };
    let json = describe(Json::object().set("status", "updated"), rooms, &handle);
    Ok(Reply::json(StatusCode::OK, json.set("warnings", &patched.warnings[..])))
}

fn fixed_by_updates(before: &SeriesSpec, after: &SeriesSpec) -> Option<&'static str> {
    let shape =
        |spec: &SeriesSpec| (spec.operation, spec.metric_type, spec.flush_interval, spec.reset_interval);
    if shape(before) == shape(after) {
        return None;
    }
    differences(before, after).into_iter().next()
}

/// The fields in which two descriptions differ, by the seed's names; what updates fix comes first.
fn differences(left: &SeriesSpec, right: &SeriesSpec) -> Vec<&'static str> {
    let limit = |spec: &SeriesSpec| spec.limit.map(|limit| (limit.value, limit.operator, limit.action));
    let (left_limit, right_limit) = (limit(left), limit(right));
    [
        ("operation", left.operation != right.operation),
        ("metric_type", left.metric_type != right.metric_type),
        ("flush_interval", left.flush_interval != right.flush_interval),
        ("reset_interval", left.reset_interval != right.reset_interval),
        ("initial_value", left.initial_value != right.initial_value),
        ("max_event_age", left.max_event_age_secs != right.max_event_age_secs),
        ("cleanup_after", left.cleanup_after_days != right.cleanup_after_days),
        ("tags", left.tags != right.tags),
        ("plan_limit_value", left_limit.map(|it| it.0) != right_limit.map(|it| it.0)),
        ("plan_limit_operator", left_limit.map(|it| it.1) != right_limit.map(|it| it.1)),
        ("plan_breach_action", left_limit.map(|it| it.2) != right_limit.map(|it| it.2)),
        ("notify_at", left.notify_at != right.notify_at),
        ("webhook_url", left.webhook_url != right.webhook_url),
        ("metadata.integrations.supabase", sink(left) != sink(right)),
        ("metadata.integrations.stripe", left.stripe != right.stripe),
        ("metadata.custom", left.custom != right.custom),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}

fn sink(spec: &SeriesSpec) -> (bool, Span, bool) {
    (spec.stored, spec.batch_interval, spec.restore_on_startup)
}

/// Adds the whole definition, defaults included, by the seed's names.
fn describe(into: Json, rooms: &Rooms, handle: &SeriesHandle) -> Json {
    let (key, spec) = (&handle.record.key, &handle.record.spec);
    let named = into
        .set("business_id", &key.business_id)
        .set_some("customer_id", key.customer_id.as_deref())
        .set("metric_name", &key.metric_name);
    describe_spec(named, rooms, spec).set("created_at", handle.record.created_at)
}

/// Adds what describes a series, whosever it is.
pub(super) fn describe_spec(into: Json, rooms: &Rooms, spec: &SeriesSpec) -> Json {
    let tags = spec.tags.iter().fold(String::new(), |mut text, (name, value)| {
        text.push(if text.is_empty() { '{' } else { ',' });
        // A tag's name may need escapes, which `Json::set` does not make.
        name.write(&mut text);
        text.push(':');
        value.write(&mut text);
        text
    });
    let tags = if tags.is_empty() { "{}".to_owned() } else { tags + "}" };
    let max_event_age_secs = spec.max_event_age_secs.unwrap_or(rooms.max_event_age_secs_default);
    let notify_at: Vec<u64> = spec.notify_at.iter().copied().map(u64::from).collect();
    into.set("metric_type", word(&METRIC_TYPES, &spec.metric_type))
        .set("operation", word(&OPERATIONS, &spec.operation))
        .set("flush_interval", spec.flush_interval.text())
        .set("reset_interval", spec.reset_interval.map(|span| span.text()))
        .set("initial_value", spec.initial_value)
        .set("max_event_age", u64::from(max_event_age_secs))
        .set("cleanup_after", word(&CLEANUPS, &spec.cleanup_after_days))
        .set("tags", Raw(&tags))
        .set("plan_limit_value", spec.limit.map(|limit| limit.value))
        .set("plan_limit_operator", spec.limit.map(|limit| word(&OPERATORS, &limit.operator)))
        .set("plan_breach_action", spec.limit.map(|limit| word(&ACTIONS, &limit.action)))
        .set("notify_at", Some(&notify_at[..]).filter(|list| !list.is_empty()))
        .set("webhook_url", spec.webhook_url.as_deref())
        .set("metadata", metadata(spec))
}

fn metadata(spec: &SeriesSpec) -> Json {
    let supabase = Json::object()
        .set("enabled", spec.stored)
        .set("batch_interval", spec.batch_interval.text())
        .set("restore_on_startup", spec.restore_on_startup);
    let stripe = spec.stripe.as_ref().map(|stripe| {
        Json::object()
            .set("enabled", stripe.enabled)
            .set("price_id", stripe.price_id.as_deref())
            .set("export", if stripe.overage { "overage" } else { "usage" })
            .set("overage_threshold", stripe.overage_threshold)
            .set("scale", stripe.scale)
    });
    let integrations = Json::object().set("supabase", supabase).set("stripe", stripe);
    Json::object().set("integrations", integrations).set("custom", Raw(&spec.custom))
}
