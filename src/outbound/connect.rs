//! One connection: resolve once, check everything, connect to what was checked. In: the URI that the client wants a connection
//! for. Out: a TCP stream, or TLS over it.
//!
//! Two connectors in a row: `GuardedTcp` gives a stream, `hyper_rustls::HttpsConnector` wraps it where the scheme says so, and
//! `Bounded` bounds the time of both: the client may finish a connection in the background that no exchange waits for.
//!
//! What this does not do: try two addresses at the same time; a dead one costs `ATTEMPT_TIMEOUT`.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::guard::{Checked, Guard};
use super::resolve::Resolve;

/// A connection with all that belongs to it: name, TCP, TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a name may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one address may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses of a name that are tried; all are checked.
const ATTEMPTS_MAX: usize = 3;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Why there is no connection. The details are in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The guard said no.
    #[error("refused")]
    Refused,
    /// Nobody there, or too slow.
    #[error("unreachable")]
    Unreachable,
}

/// Connects to addresses that the guard lets through.
#[derive(Clone)]
pub struct GuardedTcp {
    guard: Arc<Guard>,
    resolver: Arc<dyn Resolve>,
}

impl GuardedTcp {
    /// A connector with these rules.
    pub fn new(guard: Guard, resolver: Arc<dyn Resolve>) -> GuardedTcp {
        GuardedTcp { guard: Arc::new(guard), resolver }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, ConnectError> {
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let addresses = self.addresses(host).await?;
        let checked = self.guard.check_all(&addresses, port).map_err(|refusal| {
            tracing::debug!(host, %refusal, "a target is refused");
            ConnectError::Refused
        })?;
        for address in checked.iter().take(ATTEMPTS_MAX) {
            match attempt(address).await {
                Ok(stream) => return Ok(TokioIo::new(stream)),
                Err(error) => tracing::debug!(host, ?address, %error, "a target does not answer"),
            }
        }
        Err(ConnectError::Unreachable)
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ConnectError> {
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = literal.parse() {
            return Ok(vec![address]);
        }
        let unreachable = |error: &dyn std::fmt::Display| {
            tracing::debug!(host, %error, "a target's name has no address");
            ConnectError::Unreachable
        };
        match timeout(RESOLVE_TIMEOUT, self.resolver.resolve(host)).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(unreachable(&error)),
            Err(error) => Err(unreachable(&error)),
        }
    }
}

async fn attempt(checked: &Checked) -> io::Result<TcpStream> {
    let stream = timeout(ATTEMPT_TIMEOUT, TcpStream::connect(checked.address())).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Service<Uri> for GuardedTcp {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Connecting<Self::Response, ConnectError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connector whose connections are there in time, or not at all.
#[derive(Clone)]
pub struct Bounded(pub HttpsConnector<GuardedTcp>);

impl Service<Uri> for Bounded {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response, BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async { timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| ConnectError::Unreachable)? })
    }
}
