//! Questions about the service itself: alive, ready, telemetry. Nothing here names a tenant.

use hyper::StatusCode;
use hyper::header::HeaderValue;

use super::reply::{Json, Reply};

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Whether the service may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not recovered yet: 503.
    Starting,
    /// 200. What is degraded, in stable words such as `store_unavailable`; nothing if all is well.
    Ready(Vec<String>),
    /// Stopping: 503.
    Draining,
}

/// `GET /health`.
pub(super) fn health() -> Reply {
    Reply::text("OK")
}

/// `GET /livez`: the process answers, no more.
pub(super) fn live() -> Reply {
    Reply::json(StatusCode::OK, Json::object().set("status", "ok"))
}

/// `GET /readyz`.
pub(super) fn ready(readiness: Readiness) -> Reply {
    let (code, status, reasons) = match readiness {
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting", vec!["recovering".to_owned()]),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", vec!["stopping".to_owned()]),
        Readiness::Ready(reasons) if reasons.is_empty() => (StatusCode::OK, "ok", reasons),
        Readiness::Ready(reasons) => (StatusCode::OK, "degraded", reasons),
    };
    Reply::json(code, Json::object().set("status", status).set("reasons", &reasons[..]))
}

/// `GET /metrics`: the text that Prometheus scrapes (OpenMetrics, as prometheus-client writes it).
pub(super) fn telemetry(exposition: String) -> Reply {
    Reply { content_type: OPEN_METRICS, ..Reply::text(exposition) }
}
