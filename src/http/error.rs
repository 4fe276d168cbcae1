//! Errors as clients see them: `application/problem+json` (RFC 9457).
//!
//! | member | |
//! |---|---|
//! | `type` | `urn:tracktags:error:<code>` |
//! | `title`, `error` | one of `Title`, a closed list; it decides the status |
//! | `status` | the status |
//! | `detail`, `message` | a sentence for people |
//! | `code` | for programs; stable |
//! | `field`, `valid` | where one field is at fault, and what it may be |
//! | `max_bytes` | with 413 |
//! | `current_value`, `limit_value`, `resets_at` | with 429; the last is null where no end of a period will help |
//! | `taken`, `errors` | of a batch that broke off: how many items from the first on were taken, and which of them were not counted |
//! | `outcome` | with 5xx: `rejected` (nothing was recorded, ever) or `unknown` |
//! | `request_id` | also in the header `x-request-id` |
//!
//! Each room's errors become an `ApiError` in one exhaustive match. Never `rejected` for what a replay could count.

use dataflows::types::{Amount, Micros};
use hyper::StatusCode;
use hyper::header::{ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use super::reply::{Json, Raw, Reply, ToJson};
use crate::admission::parse::events::Rejection;
use crate::admission::parse::names::rfc3339;
use crate::admission::parse::{Fault, FaultKind};
use crate::admission::{AdmissionError, Refused};
use crate::control::{ControlError, SealError};
use crate::store::StoreError;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
/// What clients are told to wait after a 503, in seconds.
const RETRY_AFTER_SECS: u32 = 1;

/// The titles of all problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant is its own text.
pub enum Title {
    BadRequest,
    ValidationFailed,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    KeyLimitReached,
    RequestTooLarge,
    UnsupportedMediaType,
    Unprocessable,
    PlanLimitExceeded,
    ServiceUnavailable,
    InternalServerError,
    BadGateway,
}

impl Title {
    /// Every one.
    pub const ALL: [Title; 15] = [
        Title::BadRequest,
        Title::ValidationFailed,
        Title::Unauthorized,
        Title::Forbidden,
        Title::NotFound,
        Title::MethodNotAllowed,
        Title::Conflict,
        Title::KeyLimitReached,
        Title::RequestTooLarge,
        Title::UnsupportedMediaType,
        Title::Unprocessable,
        Title::PlanLimitExceeded,
        Title::ServiceUnavailable,
        Title::InternalServerError,
        Title::BadGateway,
    ];

    /// The status and the text.
    pub fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Title::BadRequest => (StatusCode::BAD_REQUEST, "Bad Request"),
            Title::ValidationFailed => (StatusCode::BAD_REQUEST, "Validation Failed"),
            Title::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Title::Forbidden => (StatusCode::FORBIDDEN, "Forbidden"),
            Title::NotFound => (StatusCode::NOT_FOUND, "Not Found"),
            Title::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
            Title::Conflict => (StatusCode::CONFLICT, "Conflict"),
            Title::KeyLimitReached => (StatusCode::CONFLICT, "Key Limit Reached"),
            Title::RequestTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Request Too Large"),
            Title::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type"),
            Title::Unprocessable => (StatusCode::UNPROCESSABLE_ENTITY, "Unprocessable"),
            Title::PlanLimitExceeded => (StatusCode::TOO_MANY_REQUESTS, "Plan limit exceeded"),
            Title::ServiceUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
            Title::InternalServerError => (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
            Title::BadGateway => (StatusCode::BAD_GATEWAY, "Bad Gateway"),
        }
    }
}

/// What a client can conclude from a 5xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was recorded, and nothing will be.
    Rejected,
    /// It may have been recorded: repeat with the same key or id.
    Unknown,
}

/// A request that fails. Boxed: the happy path carries a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError(Box<Problem>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    title: Title,
    code: &'static str,
    detail: String,
    field: Option<String>,
    valid: Vec<&'static str>,
    max_bytes: Option<u64>,
    standing: Option<LimitStanding>,
    taken: Option<u32>,
    /// Rendered.
    errors: Option<String>,
    outcome: Option<Outcome>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// How things stand for an update that its limit refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LimitStanding {
    value: Amount,
    limit: Amount,
    resets_at: Option<Micros>,
}

impl ApiError {
    /// A problem of a kind. 5xx are made by `unavailable` and `internal`, which know the outcome.
    pub fn new(title: Title, code: &'static str, detail: impl Into<String>) -> Self {
        ApiError(Box::new(Problem {
            title,
            code,
            detail: detail.into(),
            field: None,
            valid: Vec::new(),
            max_bytes: None,
            standing: None,
            taken: None,
            errors: None,
            outcome: None,
            headers: Vec::new(),
        }))
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// With further headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        self.0.headers.extend(headers);
        self
    }

    /// 404. The same for what is absent and for what belongs to somebody else.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        ApiError::new(Title::NotFound, code, detail)
    }

    /// 401.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        let error = ApiError::new(Title::Unauthorized, "unauthorized", detail);
        error.with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 405 with the methods that the path knows.
    pub fn method_not_allowed(allow: &str) -> Self {
        let detail = format!("the path knows the methods {allow}");
        let allow = HeaderValue::from_str(allow).expect("names of methods are tokens");
        ApiError::new(Title::MethodNotAllowed, "method_not_allowed", detail).with_header(ALLOW, allow)
    }

    /// 413; the connection is closed, since the rest of the body is not read.
    pub fn too_large(bytes_max: u64) -> Self {
        let detail = format!("the body may be at most {bytes_max} bytes");
        let mut error = ApiError::new(Title::RequestTooLarge, "request_too_large", detail).closing();
        error.0.max_bytes = Some(bytes_max);
        error
    }

    /// 503: nothing happened, try again.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        let mut error = ApiError::new(Title::ServiceUnavailable, code, detail);
        error.0.outcome = Some(Outcome::Rejected);
        error.with_header(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS))
    }

    /// 500.
    pub fn internal(code: &'static str, detail: impl Into<String>, outcome: Outcome) -> Self {
        let mut error = ApiError::new(Title::InternalServerError, code, detail);
        error.0.outcome = Some(outcome);
        error
    }

    /// 502: what the request asked for may have happened.
    pub fn bad_gateway(code: &'static str, detail: impl Into<String>) -> Self {
        let mut error = ApiError::new(Title::BadGateway, code, detail);
        error.0.outcome = Some(Outcome::Unknown);
        error
    }

    /// The same, and the connection is closed.
    #[must_use]
    pub fn closing(self) -> Self {
        self.with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// A batch broke off behind so many items, which were taken: it is no longer true that nothing was recorded.
    #[must_use]
    pub fn behind(mut self, taken: u32) -> Self {
        self.0.taken = Some(taken);
        if taken > 0 && self.0.outcome.is_some() {
            self.0.outcome = Some(Outcome::Unknown);
        }
        self
    }

    /// With what was wrong with the items of a batch.
    #[must_use]
    pub fn with_errors(mut self, errors: &[Json]) -> Self {
        let mut text = String::new();
        errors.write(&mut text);
        self.0.errors = Some(text);
        self
    }

    /// Whether the same may be taken a moment later, or may have been.
    pub fn is_of_the_moment(&self) -> bool {
        self.0.outcome.is_some()
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The sentence for people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The answer.
    pub fn into_reply(self, request_id: &str) -> Reply {
        let problem = *self.0;
        let (status, title) = problem.title.parts();
        let json = Json::object()
            .set("type", format!("urn:tracktags:error:{}", problem.code))
            .set("title", title)
            .set("status", u64::from(status.as_u16()))
            .set("detail", &problem.detail)
            .set("error", title)
            .set("message", &problem.detail)
            .set("code", problem.code)
            .set_some("field", problem.field)
            .set_some("valid", Some(&problem.valid[..]).filter(|valid| !valid.is_empty()))
            .set_some("max_bytes", problem.max_bytes)
            .set_some("current_value", problem.standing.map(|standing| standing.value))
            .set_some("limit_value", problem.standing.map(|standing| standing.limit))
            .set_some("resets_at", problem.standing.map(|standing| standing.resets_at))
            .set_some("taken", problem.taken.map(u64::from))
            .set_some("errors", problem.errors.as_deref().map(Raw))
            .set_some(
                "outcome",
                problem.outcome.map(|outcome| match outcome {
                    Outcome::Rejected => "rejected",
                    Outcome::Unknown => "unknown",
                }),
            )
            .set("request_id", request_id);
        Reply { content_type: PROBLEM, headers: problem.headers, ..Reply::json(status, json) }
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let title = match (fault.kind, &fault.field) {
            (FaultKind::Malformed, None) => Title::BadRequest,
            (FaultKind::Malformed, Some(_)) => Title::ValidationFailed,
            (FaultKind::Unacceptable, _) => Title::Unprocessable,
        };
        let mut error = ApiError::new(title, fault.code, fault.detail);
        (error.0.field, error.0.valid) = (fault.field, fault.valid);
        error
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        let title = match rejection.code {
            "amount_out_of_range" => Title::Unprocessable,
            _ => Title::BadRequest,
        };
        ApiError::new(title, rejection.code, rejection.detail)
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let detail = error.to_string();
        match error {
            ControlError::NoSuchSeries => ApiError::not_found("metric_not_found", detail),
            ControlError::NoSuchCustomer => ApiError::not_found("customer_not_found", detail),
            ControlError::NoSuchBusiness => ApiError::not_found("business_not_found", detail),
            ControlError::NoSuchKey => ApiError::not_found("key_not_found", detail),
            ControlError::KeyExists => ApiError::new(Title::Conflict, "key_exists", detail),
            ControlError::KeyLimit => ApiError::new(Title::KeyLimitReached, "key_limit_reached", detail),
            ControlError::NoRandomness => ApiError::internal("no_randomness", detail, Outcome::Rejected),
            ControlError::CustomerExists => ApiError::new(Title::Conflict, "customer_exists", detail),
            ControlError::NoSuchPlan => ApiError::not_found("plan_not_found", detail),
            ControlError::NoSuchPlanLimit => ApiError::not_found("plan_limit_not_found", detail),
            ControlError::FreePlanExists => ApiError::new(Title::Conflict, "free_plan_exists", detail),
            ControlError::PricedPlanExists => ApiError::new(Title::Conflict, "priced_plan_exists", detail),
            ControlError::PlanLimitExists => ApiError::new(Title::Conflict, "plan_limit_exists", detail),
            ControlError::TooMany { .. } => ApiError::new(Title::Unprocessable, "too_many", detail),
            ControlError::NoSuchTemplate => ApiError::not_found("template_not_found", detail),
            ControlError::SeriesLimit { .. } => {
                ApiError::new(Title::Unprocessable, "series_limit_exceeded", detail)
            }
            ControlError::PlanInUse => ApiError::new(Title::Conflict, "plan_in_use", detail),
            ControlError::NoWebhookSecret => {
                Fault::unacceptable("webhook_url", "webhook_secret_missing", detail).into()
            }
            ControlError::PriceTaken => {
                Fault::unacceptable("metadata.integrations.stripe.price_id", "price_taken", detail).into()
            }
            ControlError::Fixed { field } => {
                let mut error = ApiError::new(Title::Conflict, "metric_has_updates", detail);
                error.0.field = Some(field.to_owned());
                error
            }
            ControlError::Overloaded => ApiError::unavailable("overloaded", detail),
            ControlError::Draining => ApiError::unavailable("draining", detail),
            ControlError::DiskFull => ApiError::unavailable("disk_full", detail),
            ControlError::Unknown => ApiError::internal("journal_failed", detail, Outcome::Unknown),
        }
    }
}

impl From<SealError> for ApiError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::NoKey => ApiError::new(Title::Unprocessable, "secret_key_missing", error.to_string()),
            SealError::NoRandomness => ControlError::NoRandomness.into(),
        }
    }
}

impl From<AdmissionError> for ApiError {
    fn from(error: AdmissionError) -> Self {
        let detail = error.to_string();
        match error {
            AdmissionError::Gone => ApiError::not_found("metric_not_found", detail),
            AdmissionError::OutOfRange { oldest, newest } => out_of_range(oldest, newest),
            AdmissionError::Refused(refused) => {
                let Refused { value, limit, resets_at, retry_after_secs, .. } = *refused;
                let mut error = ApiError::new(Title::PlanLimitExceeded, "plan_limit_exceeded", detail);
                error.0.standing = Some(LimitStanding { value, limit, resets_at });
                let after = retry_after_secs.map(|secs| (RETRY_AFTER, HeaderValue::from(secs)));
                error.0.headers.extend(after);
                error
            }
            AdmissionError::TooLate => Fault::unacceptable("timestamp", "too_late", detail).into(),
            AdmissionError::KeyReused => {
                ApiError::new(Title::Unprocessable, "idempotency_key_reused", detail)
            }
            AdmissionError::TooManyLoads => ApiError::new(Title::Unprocessable, "too_many_loads", detail),
            AdmissionError::DedupFull => ApiError::unavailable("dedup_full", detail),
            AdmissionError::ClockInDoubt => ApiError::unavailable("clock_in_doubt", detail),
            AdmissionError::Overloaded => ApiError::unavailable("overloaded", detail),
            AdmissionError::Draining => ApiError::unavailable("draining", detail),
            AdmissionError::DiskFull => ApiError::unavailable("disk_full", detail),
            AdmissionError::StoreBehind => ApiError::unavailable("store_behind", detail),
            AdmissionError::Unknown => ApiError::internal("journal_failed", detail, Outcome::Unknown),
        }
    }
}

fn out_of_range(oldest: Micros, newest: Micros) -> ApiError {
    let detail = format!("the timestamp must lie between {} and {}", rfc3339(oldest), rfc3339(newest));
    Fault::unacceptable("timestamp", "timestamp_out_of_range", detail).into()
}

impl From<StoreError> for ApiError {
    /// The store is read here, never written: whatever happened, nothing was recorded. What it says is for the log.
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "the store could not answer");
        match error {
            StoreError::Unavailable(_) | StoreError::Ambiguous(_) => {
                ApiError::unavailable("database_unavailable", "the database is not available")
            }
            StoreError::Fatal(_) | StoreError::Fenced(_) => {
                ApiError::internal("store_failed", "the store cannot be read", Outcome::Rejected)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(resets_at: Option<Micros>, retry_after_secs: Option<u32>) -> (Reply, serde_json::Value) {
        let (value, limit) = (Amount::from_units(7), Amount::from_units(8));
        let (held, at) = (None, Micros(0));
        let current = value;
        let refused = Refused { value, limit, resets_at, retry_after_secs, held, current, at };
        let refused = AdmissionError::Refused(Box::new(refused));
        let reply = ApiError::from(refused).into_reply("req_test");
        let body = serde_json::from_slice(&reply.body).expect("a problem is JSON");
        (reply, body)
    }

    #[test]
    fn a_refusal_has_its_members_and_says_how_long_to_wait_only_where_that_helps() {
        let (reply, body) = refused(Some(Micros::from_seconds(60)), Some(17));
        assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(reply.headers, [(RETRY_AFTER, HeaderValue::from(17))]);
        assert_eq!(body["title"], "Plan limit exceeded");
        assert_eq!(body["resets_at"], "1970-01-01T00:01:00Z");
        assert_eq!([body["current_value"].as_f64(), body["limit_value"].as_f64()], [Some(7.0), Some(8.0)]);
        let (reply, body) = refused(None, None);
        assert!(reply.headers.is_empty());
        assert_eq!(body.get("resets_at"), Some(&serde_json::Value::Null), "there, and null");
        let other = ApiError::from(AdmissionError::TooLate).into_reply("req_test");
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(!String::from_utf8_lossy(&other.body).contains("resets_at"));
    }
}
