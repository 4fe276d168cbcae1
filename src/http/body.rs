//! Request bodies: bounded in size before and while they are read, and in time.
//!
//! A declared length above the bound is 413 at once, before anybody asks who is calling; a chunked body is counted as
//! it comes. What is left of the body of a refused request is thrown away if it ends soon; otherwise the connection is
//! closed, and the answer says so.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use hyper::HeaderMap;
use hyper::header::CONTENT_LENGTH;

use super::error::{ApiError, Title};

/// Bytes that are thrown away to keep a connection; more cost more than a new one.
const DISCARDED_BYTES_MAX: usize = 65_536;
/// How long they may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// The length that a request declares, if it does. 413 if it is above `bytes_max`.
pub fn declared(headers: &HeaderMap, bytes_max: u64) -> Result<Option<u64>, ApiError> {
    // The server has checked that it is a number; one beyond 64 bits is still too large.
    let Some(length) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let length = length.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    if length > bytes_max { Err(ApiError::too_large(bytes_max)) } else { Ok(Some(length)) }
}

/// Reads a body to its end.
pub async fn read<S, B, E>(body: S, bytes_max: u64, timeout: Duration) -> Result<Bytes, ApiError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    match tokio::time::timeout(timeout, collect(body, bytes_max)).await {
        Ok(read) => read,
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", timeout.as_secs());
            Err(ApiError::new(Title::BadRequest, "body_timeout", detail).closing())
        }
    }
}

/// Throws away what is left of a body. False if it does not end soon: then the next request of this connection could not
/// be told from it.
pub async fn discard<S, B, E>(mut body: Pin<&mut S>) -> bool
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let rest = async {
        let mut bytes = 0;
        while let Some(chunk) = poll_fn(|context| body.as_mut().poll_next(context)).await {
            bytes += chunk.map_or(DISCARDED_BYTES_MAX, |chunk| chunk.remaining());
            if bytes >= DISCARDED_BYTES_MAX {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(DISCARD_TIMEOUT, rest).await.unwrap_or(false)
}

async fn collect<S, B, E>(body: S, bytes_max: u64) -> Result<Bytes, ApiError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let mut body = pin!(body);
    let mut next = async || poll_fn(|context| body.as_mut().poll_next(context)).await;
    // Almost every body comes in one piece, which is then taken as it is.
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(chunk) = next().await {
        let broken = |_| ApiError::new(Title::BadRequest, "body_incomplete", "the body broke off").closing();
        let mut chunk = chunk.map_err(broken)?;
        let length = (first.len() + whole.len() + chunk.remaining()) as u64;
        if length > bytes_max {
            return Err(ApiError::too_large(bytes_max));
        }
        if first.is_empty() && whole.is_empty() {
            first = chunk.copy_to_bytes(chunk.remaining());
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        while chunk.has_remaining() {
            let length = chunk.chunk().len();
            whole.extend_from_slice(chunk.chunk());
            chunk.advance(length);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}
