//! One exchange: a request goes out, an answer comes back whole or not at all. In: a business and a `Request`. Out: an `Answer`
//! or an `OutboundError`.
//!
//! HTTP/1.1 by hyper-util's client, which keeps connections for a moment, by scheme, host and port, for all businesses: a
//! connection that was checked when it was made stays as it is. Redirects are answers as others are.
//!
//! What this does not do: retry what a target may have begun to read; decompress; tell trailers and informational answers.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::HeaderMap;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::OutboundError;
use super::connect::{Bounded, ConnectError, GuardedTcp};
use super::guard::{Cidr, Guard};
use super::headers::end_to_end;
use super::request::Request;
use super::resolve::{Resolve, SystemResolver};
use super::slots::Slots;

/// From the start of an exchange to the last byte of the answer.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of an answer's body.
pub const ANSWER_BYTES_MAX: usize = 1_000_000;
/// Most headers of an answer.
pub const ANSWER_HEADERS_MAX: usize = 100;
/// Most bytes of the names and values of an answer's headers together.
pub const ANSWER_HEAD_BYTES_MAX: usize = 65_536;
/// Exchanges that a business may have in flight.
pub const IN_FLIGHT_MAX: usize = 64;

/// What a connection reads at once. A head that goes beyond is given up; one within is measured when it is there.
const READ_BYTES_MAX: usize = 2 * ANSWER_HEAD_BYTES_MAX;
/// How long a connection is kept that nobody uses: shorter than servers do, whose end of it might cross a request. The
/// usual short one is 5 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Connections to one origin that are kept while nobody uses them.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// How requests go out.
#[derive(Clone)]
pub struct OutboundOptions {
    /// Networks that may be reached although they are not public, and there on any port.
    pub allow: Vec<Cidr>,
    /// Who finds the addresses of names.
    pub resolver: Arc<dyn Resolve>,
    /// Authorities whose certificates are trusted.
    pub roots: RootCertStore,
    /// See `EXCHANGE_TIMEOUT`.
    pub exchange_timeout: Duration,
    /// See `IN_FLIGHT_MAX`.
    pub in_flight_max: usize,
}

impl OutboundOptions {
    /// The operating system's names and authorities, and the bounds above.
    pub fn new(allow: Vec<Cidr>) -> OutboundOptions {
        OutboundOptions {
            allow,
            resolver: Arc::new(SystemResolver::default()),
            roots: native_roots(),
            exchange_timeout: EXCHANGE_TIMEOUT,
            in_flight_max: IN_FLIGHT_MAX,
        }
    }
}

/// Whom the operating system trusts. If it trusts nobody there is a warning in the log, and no `https` target can be reached.
pub fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::warn!("this machine trusts no authority: no https target can be reached");
    }
    roots
}

/// What a target answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status, 200 to 999; redirects, too.
    pub status: u16,
    /// Its headers, without those of the connection.
    pub headers: HeaderMap,
    /// Its body as it came, compressed if the caller accepted that.
    pub body: Bytes,
}

/// The way out. Clones share connections and slots.
#[derive(Clone)]
pub struct Outbound {
    client: Client<Bounded, Full<Bytes>>,
    slots: Slots,
    exchange_timeout: Duration,
}

impl Outbound {
    /// Builds one. Nothing is connected to yet.
    pub fn new(options: OutboundOptions) -> Outbound {
        let tcp = GuardedTcp::new(Guard::new(options.allow), options.resolver);
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the suites of TLS 1.2 and 1.3")
            .with_root_certificates(options.roots)
            .with_no_client_auth();
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_headers(ANSWER_HEADERS_MAX)
            .http1_max_buf_size(READ_BYTES_MAX)
            .build(Bounded(https));
        let slots = Slots::new(options.in_flight_max);
        Outbound { client, slots, exchange_timeout: options.exchange_timeout }
    }

    /// Sends a request of a business and waits for the whole answer. Within a tokio runtime; dropping the future gives up the
    /// exchange and its connection.
    pub async fn send(&self, business_id: &str, request: Request) -> Result<Answer, OutboundError> {
        let _slot = self.slots.take(business_id).ok_or(OutboundError::Busy)?;
        let exchange = timeout(self.exchange_timeout, self.exchange(request));
        exchange.await.unwrap_or(Err(OutboundError::TimedOut))
    }

    async fn exchange(&self, request: Request) -> Result<Answer, OutboundError> {
        let mut message = hyper::Request::new(Full::new(request.body));
        *message.method_mut() = request.method;
        *message.uri_mut() = request.target.uri().clone();
        *message.headers_mut() = request.headers;
        let answer =
            self.client.request(message).await.map_err(|error| judge(&error, OutboundError::Unreachable))?;
        let (head, body) = answer.into_parts();
        let head_bytes: usize =
            head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if head_bytes > ANSWER_HEAD_BYTES_MAX {
            return Err(OutboundError::TooLarge);
        }
        let body = whole(body).await?;
        Ok(Answer { status: head.status.as_u16(), headers: end_to_end(&head.headers), body })
    }
}

/// All of a body. It is copied together: kept as they came, a million chunks of one byte would hold many times as much.
async fn whole(mut body: Incoming) -> Result<Bytes, OutboundError> {
    if body.size_hint().lower() > ANSWER_BYTES_MAX as u64 {
        return Err(OutboundError::TooLarge);
    }
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| judge(&error, OutboundError::Malformed))?;
        // Trailers are left out.
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(OutboundError::TooLarge);
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

/// What an error of the client means; `otherwise` if no cause of it says more.
fn judge(error: &(dyn Error + 'static), otherwise: OutboundError) -> OutboundError {
    let mut cause = Some(error);
    let mut judged = None;
    while let (Some(current), None) = (cause, judged) {
        judged = verdict(current);
        cause = current.source();
    }
    let judged = judged.unwrap_or(otherwise);
    tracing::debug!(error, %judged, "an exchange has failed");
    judged
}

/// What one cause of an error means, if it means anything by itself.
fn verdict(cause: &(dyn Error + 'static)) -> Option<OutboundError> {
    match cause.downcast_ref::<ConnectError>() {
        Some(ConnectError::Refused) => return Some(OutboundError::NotAllowed),
        Some(ConnectError::Unreachable) => return Some(OutboundError::Unreachable),
        None => (),
    }
    let error = cause.downcast_ref::<hyper::Error>()?;
    if error.is_parse_too_large() {
        return Some(OutboundError::TooLarge);
    }
    error.is_parse().then_some(OutboundError::Malformed)
}
