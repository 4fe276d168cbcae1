//! The accept loop: connections in, requests to a service, nothing that a client does can stop it.
//!
//! HTTP/1.1 with keep-alive over TCP. Each connection is a task of its own. A header must be complete
//! `Options::header_timeout` after its first byte (or after the connect), an idle connection is closed after
//! `idle_timeout`, and beyond `connections_max` a connection is answered 503 and closed. Bodies are the service's
//! concern (`body`). What this does not do: TLS, HTTP/2; a proxy in front does.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::error::ApiError;
use super::socket::{Pace, Socket};

/// Bytes of a header, and of what hyper buffers.
const HEADER_BYTES_MAX: usize = 65_536;
/// Waiting after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bounds of the HTTP side.
#[derive(Clone, Debug)]
pub struct Options {
    /// From the first byte of a header to its last, and from the connect to the end of the first header.
    pub header_timeout: Duration,
    /// From the end of a header to the end of the body; of a batch of events, to its next bytes.
    pub body_timeout: Duration,
    /// From the end of the header to the end of a batch of events.
    pub batch_timeout: Duration,
    /// How long a kept-alive connection may be silent.
    pub idle_timeout: Duration,
    /// How long requests in flight may take after a stop.
    pub drain_timeout: Duration,
    /// Open connections.
    pub connections_max: usize,
    /// Bytes of a body.
    pub body_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            batch_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(5),
            connections_max: 10_000,
            body_bytes_max: 1_000_000,
        }
    }
}

/// Serves until `stop` is done, then stops accepting, closes idle connections and lets requests in flight finish.
/// Returns how many connections were still open after `Options::drain_timeout` and were cut.
pub async fn serve<S, B>(
    listener: TcpListener,
    options: Options,
    service: S,
    stop: impl Future<Output = ()>,
) -> usize
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let refusal = refusal();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if connections.len() >= options.connections_max => {
                // A fresh socket has room for this; a client that is gone already needs no answer.
                let _ = stream.try_write(&refusal);
            }
            Ok((stream, _)) => {
                let pace = Pace::new(options.header_timeout, options.idle_timeout);
                connections.spawn(connection(stream, pace, service.clone(), graceful.watcher()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(options.drain_timeout, graceful.shutdown()).await.is_ok() {
        return 0;
    }
    while connections.try_join_next().is_some() {}
    // Dropping the set aborts the tasks.
    connections.len()
}

/// What a connection too many is told.
fn refusal() -> Vec<u8> {
    let body = ApiError::unavailable("too_many_connections", "too many connections").into_reply("").body;
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

async fn connection<S, B>(stream: TcpStream, pace: Pace, service: S, watcher: Watcher)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    // Without it an answer can wait 40 ms for a delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "nodelay could not be set");
    }
    let pace = Arc::new(pace);
    let served_pace = pace.clone();
    let paced = service_fn(move |request| {
        let pace = served_pace.clone();
        pace.begin();
        let answer = service.call(request);
        async move {
            let answer = answer.await;
            let closes = answer.as_ref().is_ok_and(|answer| answer.headers().contains_key(CONNECTION));
            pace.answered(closes);
            answer
        }
    });
    let io = TokioIo::new(Socket::new(stream, pace.clone()));
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(io, paced);
    let mut served = pin!(watcher.watch(served));
    // The age at which the timer fires. It runs late on purpose: it is set anew only when it fires, or when something
    // is due before it does.
    let mut wake_at = pace.due().unwrap_or_default();
    let mut timer = pin!(sleep(wake_at));
    poll_fn(|cx| {
        if let Poll::Ready(end) = served.as_mut().poll(cx) {
            if let Err(error) = end {
                tracing::debug!(%error, "a connection broke");
            }
            return Poll::Ready(());
        }
        loop {
            let due = pace.due();
            if due.is_some_and(|due| due < wake_at) {
                wake_at = due.unwrap_or_default();
            } else if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            } else if due.is_some_and(|due| due <= pace.age()) {
                return Poll::Ready(());
            } else {
                wake_at = due.unwrap_or_else(|| pace.age() + pace.idle_timeout());
            }
            timer.set(sleep(wake_at.saturating_sub(pace.age())));
        }
    })
    .await;
}
