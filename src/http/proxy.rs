//! `POST /api/v1/proxy`: check, then forward (API section 5); and `proxy_targets`, which binds customer keys to origins.
//!
//! Refused is who is past a limit with the action `deny` or `block`; the target then hears nothing. What was allowed is
//! answered with what the target said, whatever that was. Usage is not counted here: the target's owner records it. Where
//! requests may go to is decided by the room that sends them, at the address that it connects to. An origin of
//! `proxy_targets` is compared in the form that is connected to: a list opens nothing that the room would refuse.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use dataflows::types::{Amount, Micros, SeriesKey, SeriesRecord, Shape, Standing, Tally};
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use super::auth::no_such_customer;
use super::error::{ApiError, Title};
use super::limits::{about, percent};
use super::metrics::remaining;
use super::reply::{Json, Raw, Reply, ToJson};
use super::{Call, Rooms, ratelimit, templates};
use crate::admission::WAIT_MAX_SECS;
use crate::admission::parse::Fault;
use crate::admission::parse::names::{ACTIONS, OPERATORS, word};
use crate::admission::parse::proxy::{NewCall, targets};
use crate::control::SeriesFilter;
use crate::outbound::{Answer, OutboundError, Request, RequestError, Target, TargetError};

/// A series with the limit that decides.
type Judged = (Arc<SeriesRecord>, Standing);

/// `POST /api/v1/proxy`.
pub(super) async fn forward(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let new = NewCall::parse(&call.body)?;
    let customer_id = about(call.caller(), new.scope, new.customer_id.as_deref())?;
    let request = request(&new)?;
    let business_id = call.caller().business_id.clone();
    let is_bound = call.caller().customer_id.is_some();
    if is_bound && !rooms.control.may_reach(&business_id, request.target().origin()) {
        return Err(OutboundError::NotAllowed.into());
    }
    let judged = match &new.metric_name {
        Some(metric_name) => {
            let (business_id, metric_name) = (business_id.as_ref().to_owned(), metric_name.clone());
            Some(templates::standing(rooms, &SeriesKey { business_id, customer_id, metric_name }).await?)
        }
        None => {
            let customer_id = customer_id.ok_or_else(|| {
                let detail = "an empty metric_name checks the plan limits of a customer: name the metric";
                Fault::malformed("metric_name", "invalid_name", detail)
            })?;
            all(rooms, &business_id, customer_id).await?
        }
    };
    let now = rooms.admission.now();
    if let Some((record, standing)) = judged.as_ref().filter(|(_, standing)| is_refused(standing)) {
        return Ok(denied(record, standing, now));
    }
    let answer = rooms.outbound.send(&business_id, request).await?;
    let json = Json::object()
        .set("status", "allowed")
        .set("breach_status", breach_status(judged.as_ref()))
        .set("forwarded_response", forwarded(&answer));
    let headers = judged.as_ref().map(|(record, standing)| limits(record, standing, now)).unwrap_or_default();
    Ok(Reply { headers, ..Reply::json(StatusCode::OK, json) })
}

/// `PUT /api/v1/businesses/{business_id}/proxy_targets`: holds from the answer on.
pub(super) async fn put_targets(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let business_id: &str = &call.caller().business_id;
    rooms.control.by(call.origin()).put_proxy_targets(business_id, origins(&call.body)?).await?;
    Ok(Reply::json(StatusCode::OK, show(Json::object().set("status", "updated"), rooms, business_id)))
}

/// `GET /api/v1/businesses/{business_id}/proxy_targets`.
pub(super) fn read_targets(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    Ok(Reply::json(StatusCode::OK, show(Json::object(), rooms, &call.caller().business_id)))
}

fn show(into: Json, rooms: &Rooms, business_id: &str) -> Json {
    let origins = rooms.control.proxy_targets(business_id);
    let shown: Vec<_> = origins.iter().collect();
    into.set("business_id", business_id).set("proxy_targets", &shown[..])
}

/// The origins of a body, in normal form.
fn origins(body: &[u8]) -> Result<BTreeSet<String>, Fault> {
    let read = |(index, text): (usize, String)| {
        Target::parse_origin(&text).map_err(|error| {
            let field = format!("proxy_targets[{index}]");
            let fault = Fault::malformed(field, "invalid_target", error.to_string());
            if error == TargetError::Scheme { fault.with_valid(["http", "https"]) } else { fault }
        })
    };
    targets(body)?.into_iter().enumerate().map(read).collect()
}

/// What is to be sent. Nothing is looked up yet.
fn request(new: &NewCall) -> Result<Request, ApiError> {
    let fault = |field, detail: String| Fault::malformed(field, "invalid_target", detail);
    let target = Target::parse(&new.target_url).map_err(|error| fault("target_url", error.to_string()))?;
    let mut headers: Vec<(&str, &str)> =
        new.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if new.body_is_json && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        headers.push(("content-type", "application/json"));
    }
    let request = Request::new(&new.method, target, headers, Bytes::from(new.body.clone()));
    Ok(request.map_err(|error| match error {
        RequestError::Method => fault("method", error.to_string()),
        RequestError::Header(_) | RequestError::TooManyHeaders => fault("headers", error.to_string()),
    })?)
}

/// The limited series of a customer that decides: of those that refuse the one that does so the longest, else the one that
/// has used most of its limit.
async fn all(rooms: &Rooms, business_id: &str, customer_id: String) -> Result<Option<Judged>, ApiError> {
    if !rooms.control.customer_exists(business_id, &customer_id) {
        return Err(no_such_customer());
    }
    let (business_id, customer_id) = (business_id.to_owned(), Some(customer_id));
    let filter = SeriesFilter { business_id, customer_id, ..SeriesFilter::default() };
    let handles = rooms.control.list_series(&filter, None, usize::MAX);
    let standings = rooms.admission.read(&handles).await?;
    let limited = handles.into_iter().zip(standings).filter_map(|(handle, standing)| {
        let standing = standing.filter(|standing| standing.limit.is_some())?;
        Some((handle.record, standing))
    });
    Ok(limited.max_by_key(|(_, standing)| {
        let used = standing.limit.and_then(|limit| percent(&limit, standing.value));
        let until = standing.period_end.map_or(i64::MAX, |end| end.0);
        let refuses = is_refused(standing).then_some(until);
        (refuses, standing.breached, used)
    }))
}

fn is_refused(standing: &Standing) -> bool {
    standing.breached && standing.held().is_some()
}

fn limits(record: &SeriesRecord, standing: &Standing, now: Micros) -> Vec<(HeaderName, HeaderValue)> {
    let (name, operation) = (&record.key.metric_name, record.spec.operation);
    ratelimit::headers(name, operation, standing.held(), standing.value, now)
}

fn denied(record: &SeriesRecord, standing: &Standing, now: Micros) -> Reply {
    // Waiting for a new period helps where one that has just begun is not breached.
    let anew = Shape { limit: standing.limit, ..record.spec.shape(0) };
    let resets_at = standing.period_end.filter(|_| !anew.is_breached(&Tally::EMPTY));
    let wait = resets_at.map(|end| Micros(end.0 - now.0).seconds_up());
    let wait = wait.and_then(|secs| u32::try_from(secs).ok()).filter(|secs| *secs <= WAIT_MAX_SECS);
    let json = Json::object()
        .set("status", "denied")
        .set("error", Title::PlanLimitExceeded.parts().1)
        .set("code", "plan_limit_exceeded")
        .set_some("retry_after", wait.map(u64::from))
        .set("resets_at", resets_at)
        .set("breach_status", status_of(record, standing));
    let mut headers = limits(record, standing, now);
    headers.extend(wait.map(|secs| (RETRY_AFTER, HeaderValue::from(secs))));
    Reply { headers, ..Reply::json(StatusCode::TOO_MANY_REQUESTS, json) }
}

fn breach_status(judged: Option<&Judged>) -> Json {
    match judged {
        Some((record, standing)) => status_of(record, standing),
        None => Json::object()
            .set("is_breached", false)
            .set("metric_name", None::<&str>)
            .set("current_usage", None::<Amount>)
            .set("limit_value", None::<Amount>)
            .set("limit_operator", None::<&str>)
            .set("breach_action", None::<&str>)
            .set("remaining", None::<Amount>),
    }
}

fn status_of(record: &SeriesRecord, standing: &Standing) -> Json {
    let limit = standing.limit;
    Json::object()
        .set("is_breached", standing.breached)
        .set("metric_name", &record.key.metric_name)
        .set("current_usage", standing.value)
        .set("limit_value", limit.map(|limit| limit.value))
        .set("limit_operator", limit.map(|limit| word(&OPERATORS, &limit.operator)))
        .set("breach_action", limit.map(|limit| word(&ACTIONS, &limit.action)))
        .set("remaining", remaining(&record.spec, standing))
}

/// The target's answer: text as it is, anything else in base64.
fn forwarded(answer: &Answer) -> Json {
    let json = Json::object()
        .set("status_code", u64::from(answer.status))
        .set("headers", Raw(&headers_of(&answer.headers)));
    match std::str::from_utf8(&answer.body) {
        Ok(text) => json.set("body", text),
        Err(_) => json.set("body", BASE64_STANDARD.encode(&answer.body)).set("body_encoding", "base64"),
    }
}

/// An object of strings; headers of one name are joined as HTTP joins them.
fn headers_of(headers: &HeaderMap) -> String {
    let mut text = String::from("{");
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        if text.len() > 1 {
            text.push(',');
        }
        name.as_str().write(&mut text);
        text.push(':');
        values.join(", ").write(&mut text);
    }
    text.push('}');
    text
}

impl From<OutboundError> for ApiError {
    fn from(error: OutboundError) -> Self {
        let detail = error.to_string();
        match error {
            OutboundError::NotAllowed => ApiError::new(Title::Forbidden, "target_not_allowed", detail),
            OutboundError::Busy => ApiError::unavailable("overloaded", detail),
            OutboundError::Unreachable => ApiError::bad_gateway("target_unreachable", detail),
            OutboundError::TimedOut => ApiError::bad_gateway("target_timed_out", detail),
            OutboundError::TooLarge => ApiError::bad_gateway("target_answer_too_large", detail),
            OutboundError::Malformed => ApiError::bad_gateway("target_answer_malformed", detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::parse::FaultKind;
    use crate::admission::parse::proxy::PROXY_TARGETS_MAX;
    use crate::outbound::ORIGIN_BYTES_MAX;

    fn listed(targets: &[&str]) -> Result<BTreeSet<String>, Fault> {
        origins(serde_json::json!({"proxy_targets": targets}).to_string().as_bytes())
    }

    #[test]
    fn origins_are_merged_in_the_form_that_is_connected_to() {
        let read = listed(&[
            "https://API.example.com:443",
            "https://api.example.com",
            "HTTP://api.example.com:80",
            "http://api.example.com:8080",
            "https://api.example.com.",
            "http://0x7f.1",
            "http://127.0.0.1.",
            "http://[0:0:0:0:0:0:0:1]",
            "https://b\u{fc}cher.example",
        ]);
        let read: Vec<_> = read.expect("well-formed").into_iter().collect();
        assert_eq!(
            read,
            [
                "http://127.0.0.1",
                "http://[::1]",
                "http://api.example.com",
                "http://api.example.com:8080",
                "https://api.example.com",
                "https://api.example.com.",
                "https://xn--bcher-kva.example",
            ]
        );
        assert_eq!(listed(&[]), Ok(BTreeSet::new()));
        assert_eq!(listed(&["https://a.example"; PROXY_TARGETS_MAX]).map(|read| read.len()), Ok(1));
    }

    #[test]
    fn what_is_no_origin_names_its_place() {
        let name = |bytes: usize| format!("https://{}", "a".repeat(bytes));
        assert!(listed(&[&name(ORIGIN_BYTES_MAX - 8)]).is_ok());
        for (text, valid) in [
            ("", &[][..]),
            ("*", &[]),
            ("null", &[]),
            ("api.example.com", &[]),
            ("//api.example.com", &[]),
            ("https://", &[]),
            ("https://*.example.com:x", &[]),
            ("https://api.example.com:99999", &[]),
            ("https:api.example.com", &[]),
            ("https://api.example.com/", &[]),
            ("https://api.example.com/v1", &[]),
            ("https://api.example.com?", &[]),
            ("https://api.example.com?a=b", &[]),
            ("https://api.example.com#", &[]),
            ("https://api.example.com\\", &[]),
            (" https://api.example.com", &[]),
            ("https://api.example.com\n", &[]),
            ("https://user@api.example.com", &[]),
            ("https://user:word@api.example.com", &[]),
            ("https://@api.example.com", &[]),
            (&name(ORIGIN_BYTES_MAX), &[]),
            ("ftp://api.example.com", &["http", "https"]),
            ("file:///etc", &["http", "https"]),
            ("ws://api.example.com", &["http", "https"]),
        ] {
            let fault = listed(&["https://good.example", text]).expect_err(text);
            let shown = (fault.kind, fault.code, fault.field.as_deref(), &fault.valid[..]);
            assert_eq!(
                shown,
                (FaultKind::Malformed, "invalid_target", Some("proxy_targets[1]"), valid),
                "{text}"
            );
        }
        let many = listed(&["https://a.example"; PROXY_TARGETS_MAX + 1]).expect_err("too many");
        assert_eq!((many.kind, many.field.as_deref()), (FaultKind::Unacceptable, Some("proxy_targets")));
    }
}
