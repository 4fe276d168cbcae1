//! The two lanes into `respond`: updates by themselves, everything else through warp.
//!
//! ```text
//!  serve ─┬─ PUT /api/v1/metrics/… ─────────────┬─▶ respond
//!         └─ everything else ─▶ one warp filter ─┘
//! ```
//! warp boxes and clones more for a request than an update costs behind it, so the one request that comes by the ten
//! thousand a second goes around it: as hyper has read it, without a copy of its headers. Both lanes answer alike.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyDataStream, Either, Full};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Method, Request, Response};

use super::{Backend, respond};

const UPDATES: &str = "/api/v1/metrics/";

/// The service behind `serve`.
#[derive(Clone)]
pub struct Lanes<W> {
    backend: Arc<Backend>,
    warp: W,
}

impl<W> Lanes<W> {
    /// `warp` is the service of `routes(backend)`.
    pub fn new(backend: Arc<Backend>, warp: W) -> Self {
        Lanes { backend, warp }
    }
}

impl<W, B> Service<Request<Incoming>> for Lanes<W>
where
    W: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Either<Full<Bytes>, B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if request.method() != Method::PUT || !request.uri().path().starts_with(UPDATES) {
            let answer = self.warp.call(request);
            return Box::pin(async move { Ok(answer.await?.map(Either::Right)) });
        }
        let backend = self.backend.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
            let body = BodyDataStream::new(body);
            let answer = respond(&backend, &head.method, path, query, &head.headers, body).await;
            Ok(answer.map(|bytes| Either::Left(Full::new(bytes))))
        })
    }
}
