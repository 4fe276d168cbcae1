//! HTTP: translates requests into questions and commands for the rooms behind, and their answers back.
//!
//! ```text
//!  socket ─▶ serve (bounds, time-outs) ─▶ lanes (warp) ─▶ routes: find ─▶ size ─▶ auth ─▶ permit ─▶ body ─▶ endpoint
//!                                                                         └──── ApiError: problem+json ◀──────┘
//! ```
//! Invariants: an endpoint returns `Result<Reply, ApiError>`, and a warp rejection never means "no"; a body is read
//! only behind the checks that need none; every answer carries `x-request-id`; foreign things answer as absent ones.
//! What this room does not do: decide about updates, keep state, or know SQL.

mod audit;
pub mod auth;
mod billing;
pub mod body;
mod businesses;
mod customers;
mod definition;
pub mod error;
mod events;
mod history;
mod keys;
mod lanes;
mod limits;
mod list;
mod metrics;
pub mod openapi;
mod patching;
mod plans;
mod proxy;
pub mod query;
mod ratelimit;
pub mod reply;
pub mod routes;
pub mod serve;
mod service;
mod socket;
mod stripe;
mod templates;
mod webhooks;

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes};
use dataflows::types::Actor;
use futures_core::Stream;
use hyper::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Response};
use warp::Filter;

use crate::admission::parse::series::Bounds;
use crate::admission::{Admission, parse::names};
use crate::clock::{Clock, SystemClock};
use crate::control::{Control, Origin, Principal, Vault};
use crate::outbound::Outbound;
use crate::store::History;
use auth::Access;
pub use billing::Remark;
use error::{ApiError, Title};
pub use lanes::Lanes;
pub use limits::SCANS_MAX;
pub use patching::Patching;
use query::Query;
use reply::Reply;
use routes::{Endpoint, Found, Route, Takes};
pub use serve::{Options, serve};
pub use service::Readiness;
pub use webhooks::Undelivered;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What the service says about itself, and what it hears about requests.
pub trait Signals: Send + Sync {
    /// Whether it may be used.
    fn readiness(&self) -> Readiness;
    /// The Prometheus text.
    fn exposition(&self) -> String;
    /// A request was answered. `method` and `route` are those of the table, or `other` where no route matched: what a
    /// client makes up is no label.
    fn answered(&self, method: &'static str, route: &'static str, status: u16, elapsed: Duration);
    /// An event of Stripe came, and what became of it: `applied`, `not_applied`, `duplicate`, `unknown_type`,
    /// `other_livemode`, `bad_signature` or `malformed`.
    fn stripe_event(&self, outcome: &'static str);
}

/// The rooms behind, once they are recovered.
pub struct Rooms {
    /// The machine's clock: what is signed is of now, whatever the stamps say.
    pub clock: Arc<dyn Clock>,
    /// Definitions.
    pub control: Control,
    /// Updates and readings.
    pub admission: Admission,
    /// What secrets are encrypted with.
    pub vault: Arc<Vault>,
    /// Where requests of tenants go out.
    pub outbound: Outbound,
    /// Rows in the store.
    pub history: Arc<dyn History>,
    /// Messages in the store.
    pub undelivered: Arc<Undelivered>,
    /// Why slices of usage wait.
    pub remark: Remark,
    /// What definitions may ask for.
    pub bounds: Bounds,
    /// `max_event_age` of series that name none, in seconds.
    pub max_event_age_secs_default: u32,
    /// One permit for each request that may look at every series of a business.
    pub scans: tokio::sync::Semaphore,
    /// A PATCH reads a description, changes it and writes it: of a business one at a time, or one would undo another.
    pub patching: Patching,
}

/// What requests are answered from. The server may listen before the rooms are there; the API is 503 until then.
pub struct Backend {
    rooms: OnceLock<Rooms>,
    signals: Arc<dyn Signals>,
    options: Options,
    /// Random, so that ids of two processes differ.
    request_id_base: u64,
    requests: AtomicU64,
}

impl Backend {
    /// A backend without rooms. Fails only if the system has no randomness to give.
    pub fn new(signals: Arc<dyn Signals>, options: Options) -> Result<Self, getrandom::Error> {
        let request_id_base = getrandom::u64()?;
        Ok(Backend { rooms: OnceLock::new(), signals, options, request_id_base, requests: AtomicU64::new(0) })
    }

    /// Opens the API. A second call changes nothing.
    pub fn open(&self, rooms: Rooms) {
        let _ = self.rooms.set(rooms);
    }

    fn rooms(&self) -> Result<&Rooms, ApiError> {
        self.rooms.get().ok_or_else(|| ApiError::unavailable("starting", "the service is starting"))
    }

    fn next_request_id(&self) -> String {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("req_{:016x}", self.request_id_base.wrapping_add(count))
    }
}

/// A request behind its checks, as endpoints get it.
struct Call<'a> {
    caller: Option<Principal>,
    /// Decoded path parameters, in order.
    parameters: Vec<String>,
    query: Query,
    headers: &'a HeaderMap,
    body: Bytes,
    request_id: &'a str,
}

impl Call<'_> {
    /// Who is calling. Only for routes that ask for a key.
    fn caller(&self) -> &Principal {
        self.caller.as_ref().expect("dispatch authorizes every route that is not open")
    }

    /// Who changes something. Nobody does over a route that asks for no key.
    fn origin(&self) -> Origin {
        let actor = self.caller.as_ref().map_or(Actor::Admin, Principal::actor);
        Origin { actor, request_id: Some(self.request_id.to_owned()) }
    }

    /// The `{metric_name}` of the path, decoded, not yet checked.
    fn metric_name(&self) -> &str {
        self.parameter(0)
    }

    /// A parameter of the path, decoded, not yet checked.
    fn parameter(&self, at: usize) -> &str {
        self.parameters.get(at).expect("the patterns of these routes have so many parameters")
    }

    fn idempotency_key(&self) -> Result<Option<String>, ApiError> {
        let mut values = self.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        // A second one is as wrong as an empty one.
        let value = if values.next().is_some() { b"" } else { value.as_bytes() };
        Ok(Some(names::idempotency_key(value)?))
    }
}

/// The service as one warp filter: the table of routes decides, not a chain of filters, whose cost would grow with it.
pub fn routes(
    backend: Arc<Backend>,
) -> impl Filter<Extract = (Response<Bytes>,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |method, path: warp::path::FullPath, query: String, headers, body| {
            let backend = backend.clone();
            // Boxed: warp and hyper move a future several times before its first poll, and this one is 1.6 kB.
            Box::pin(async move { respond(&backend, &method, path.as_str(), &query, &headers, body).await })
        })
}

async fn respond<B: Buf, E>(
    backend: &Backend,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, E>>,
) -> Response<Bytes> {
    let mut body = pin!(body);
    let since_begin = SystemClock::default();
    let request_id = backend.next_request_id();
    let (known, route, result) = match routes::find(method, path) {
        Found::Route(route, parameters) => (
            route.method.as_str(),
            route.path,
            dispatch(backend, route, &parameters, query, headers, body.as_mut(), &request_id).await,
        ),
        Found::OtherMethods(allow) => ("other", "other", Err(ApiError::method_not_allowed(&allow))),
        Found::Nothing => {
            ("other", "other", Err(ApiError::not_found("no_such_path", "there is no such path")))
        }
    };
    let is_refusal = result.is_err();
    let mut response = result.unwrap_or_else(|error| error.into_reply(&request_id)).into_response();
    let request_id = HeaderValue::try_from(request_id).expect("the id is ASCII");
    response.headers_mut().insert(X_REQUEST_ID, request_id);
    backend.signals.answered(known, route, response.status().as_u16(), since_begin.monotonic());
    if is_refusal && !response.headers().contains_key(CONNECTION) {
        // Who asks before sending a body need not send it now.
        let is_at_end = !headers.contains_key(EXPECT) && Box::pin(body::discard(body)).await;
        if !is_at_end {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    response
}

async fn dispatch<B: Buf, E>(
    backend: &Backend,
    route: &'static Route,
    parameters: &[&str],
    query: &str,
    headers: &HeaderMap,
    mut body: Pin<&mut impl Stream<Item = Result<B, E>>>,
    request_id: &str,
) -> Result<Reply, ApiError> {
    let is_batch = route.body == Takes::Items;
    let bytes_max = if is_batch { events::BODY_BYTES_MAX } else { backend.options.body_bytes_max };
    let declared = body::declared(headers, bytes_max)?;
    let caller = match route.access {
        Access::Open | Access::Signed => None,
        Access::Key { scope, customer_keys } => {
            Some(auth::authorize(&backend.rooms()?.control, headers, scope, customer_keys)?)
        }
        Access::Admin => {
            auth::authorize_admin(&backend.rooms()?.control, headers)?;
            None
        }
        Access::Tenant(scope) => {
            let business_id = parameters.first().expect("the patterns of these routes begin with a business");
            let business_id = query::decoded("business_id", business_id)?;
            Some(auth::authorize_tenant(&backend.rooms()?.control, headers, scope, &business_id)?)
        }
    };
    let query = Query::parse(query, route.query)?;
    let decode = |text: &&str| query::decoded("path", text).map(|text| text.into_owned());
    let parameters = parameters.iter().map(decode).collect::<Result<Vec<String>, _>>()?;
    let (mut bytes, mut _permit) = (Bytes::new(), None);
    if route.body == Takes::Json {
        media_type(headers)?;
        // Without a declared length the whole bound is reserved.
        let reserved = declared.unwrap_or(bytes_max) as usize;
        if let Some(caller) = &caller {
            _permit = Some(backend.rooms()?.admission.reserve(&caller.business_id, reserved)?);
        } else if route.access == Access::Signed {
            let rooms = backend.rooms()?;
            _permit = Some(rooms.admission.reserve(&signed_share(rooms, parameters.first()), reserved)?);
        }
        bytes = body::read(body.as_mut(), bytes_max, backend.options.body_timeout).await?;
    }
    let call = Call { caller, parameters, query, headers, body: bytes, request_id };
    if is_batch {
        let Options { body_timeout, batch_timeout, .. } = backend.options;
        let waits = events::Waits { chunk: body_timeout, total: batch_timeout, declared };
        return Box::pin(events::record(backend.rooms()?, &call, waits, body)).await;
    }
    answer(backend, route.endpoint, &call).await
}

/// Whose room a body takes that is only signed, which nobody knows before it is read: of the business that it is addressed to,
/// as much again as its keys have, so that a flood of bodies stops neither those nor what is signed for another. Businesses
/// that are not there share.
fn signed_share(rooms: &Rooms, business_id: Option<&String>) -> Arc<str> {
    // No id has a slash.
    match business_id.filter(|id| rooms.control.registry().business(id).is_some()) {
        Some(business_id) => format!("signed/{business_id}").into(),
        None => "signed/".into(),
    }
}

/// Boxed is what is rare or slow anyway: the future of every request has room for the greatest of the others.
async fn answer(backend: &Backend, endpoint: Endpoint, call: &Call<'_>) -> Result<Reply, ApiError> {
    match endpoint {
        Endpoint::Health => Ok(service::health()),
        Endpoint::Live => Ok(service::live()),
        Endpoint::Ready => Ok(service::ready(backend.signals.readiness())),
        Endpoint::Telemetry => Ok(service::telemetry(backend.signals.exposition())),
        Endpoint::OpenApi => Ok(openapi::reply()),
        // `dispatch` hands it the body as it comes.
        Endpoint::EventsRecord => Err(ApiError::unavailable("starting", "the service is starting")),
        Endpoint::MetricCreate => Box::pin(definition::create(backend.rooms()?, call)).await,
        Endpoint::MetricList => Box::pin(list::list(backend.rooms()?, call)).await,
        Endpoint::MetricUpdate => metrics::update(backend.rooms()?, call).await,
        Endpoint::MetricRead => metrics::read(backend.rooms()?, call).await,
        Endpoint::MetricChange => Box::pin(definition::change(backend.rooms()?, call)).await,
        Endpoint::MetricDelete => Box::pin(metrics::delete(backend.rooms()?, call)).await,
        Endpoint::MetricHistory => Box::pin(history::history(backend.rooms()?, call)).await,
        Endpoint::BusinessCreate => Box::pin(businesses::create(backend.rooms()?, call)).await,
        Endpoint::BusinessRead => businesses::read(backend.rooms()?, call),
        Endpoint::BusinessChange => Box::pin(businesses::change(backend.rooms()?, call)).await,
        Endpoint::BusinessDelete => Box::pin(businesses::delete(backend.rooms()?, call)).await,
        Endpoint::WebhookPut => Box::pin(webhooks::put(backend.rooms()?, call)).await,
        Endpoint::ProxyTargetsPut => Box::pin(proxy::put_targets(backend.rooms()?, call)).await,
        Endpoint::ProxyTargetsRead => proxy::read_targets(backend.rooms()?, call),
        Endpoint::MessageFailedList => Box::pin(webhooks::failed(backend.rooms()?, call)).await,
        Endpoint::MessageRetry => Box::pin(webhooks::retry(backend.rooms()?, call)).await,
        Endpoint::KeyCreate => Box::pin(keys::create(backend.rooms()?, call)).await,
        Endpoint::KeyList => keys::list(backend.rooms()?, call),
        Endpoint::KeyRead => keys::read(backend.rooms()?, call),
        Endpoint::KeyDelete => Box::pin(keys::delete(backend.rooms()?, call)).await,
        Endpoint::CustomerKeyCreate => Box::pin(keys::create_for_customer(backend.rooms()?, call)).await,
        Endpoint::CustomerKeyList => keys::list_of_customer(backend.rooms()?, call),
        Endpoint::CustomerKeyDelete => Box::pin(keys::delete_of_customer(backend.rooms()?, call)).await,
        Endpoint::BillingRead => Box::pin(billing::read(backend.rooms()?, call)).await,
        Endpoint::BillingReset => Box::pin(customers::reset_billing(backend.rooms()?, call)).await,
        Endpoint::AuditList => Box::pin(audit::list(backend.rooms()?, call)).await,
        Endpoint::AuditListOwn => Box::pin(audit::list_own(backend.rooms()?, call)).await,
        Endpoint::CustomerCreate => Box::pin(customers::create(backend.rooms()?, call)).await,
        Endpoint::CustomerList => customers::list(backend.rooms()?, call),
        Endpoint::CustomerPut => Box::pin(customers::put(backend.rooms()?, call)).await,
        Endpoint::CustomerRead => customers::read(backend.rooms()?, call),
        Endpoint::CustomerDelete => Box::pin(customers::delete(backend.rooms()?, call)).await,
        Endpoint::PlanCreate => Box::pin(plans::create(backend.rooms()?, call)).await,
        Endpoint::PlanList => plans::list(backend.rooms()?, call),
        Endpoint::PlanRead => plans::read(backend.rooms()?, call),
        Endpoint::PlanDelete => Box::pin(plans::delete(backend.rooms()?, call)).await,
        Endpoint::PlanLimitCreate => Box::pin(plans::create_limit(backend.rooms()?, call)).await,
        Endpoint::PlanLimitList => plans::list_limits(backend.rooms()?, call),
        Endpoint::PlanLimitRead => plans::read_limit(backend.rooms()?, call),
        Endpoint::PlanLimitChange => Box::pin(plans::change_limit(backend.rooms()?, call)).await,
        Endpoint::PlanLimitDelete => Box::pin(plans::delete_limit(backend.rooms()?, call)).await,
        Endpoint::LimitList => Box::pin(limits::list(backend.rooms()?, call)).await,
        Endpoint::CustomerUsage => Box::pin(limits::usage(backend.rooms()?, call)).await,
        Endpoint::Proxy => Box::pin(proxy::forward(backend.rooms()?, call)).await,
        Endpoint::Check => Box::pin(limits::check(backend.rooms()?, call)).await,
        Endpoint::StripeReceive => Box::pin(stripe::receive(backend.rooms()?, &*backend.signals, call)).await,
        Endpoint::StripeEventList => stripe::list(backend.rooms()?, call),
        Endpoint::TemplatePut => Box::pin(templates::put(backend.rooms()?, call)).await,
        Endpoint::TemplateRead => templates::read(backend.rooms()?, call),
        Endpoint::TemplateDelete => Box::pin(templates::delete(backend.rooms()?, call)).await,
    }
}

/// 415 unless the body is JSON as it is; no `Content-Type` at all is taken for JSON.
fn media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let all_are = |name, wanted: &str| {
        headers.get_all(name).iter().all(|value| {
            let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case(wanted)
        })
    };
    if all_are(CONTENT_TYPE, "application/json") && all_are(CONTENT_ENCODING, "identity") {
        return Ok(());
    }
    let detail = "the body must be application/json, not encoded";
    Err(ApiError::new(Title::UnsupportedMediaType, "unsupported_media_type", detail))
}
