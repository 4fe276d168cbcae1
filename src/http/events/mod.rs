//! `POST /api/v1/events`: many updates in one request (API section 3), recorded while the body is still coming.
//!
//! ```text
//!  chunk ─▶ Batch (inflate, items) ─▶ Intake: series, age, identity ─▶ Part ─▶ journal ─▶ what was not admitted ─▶ Tally
//!                                       └─ no series: made from templates, all of a chunk at once
//! ```
//! Good items count and bad ones are reported by their place. A part is at least `PART_ITEMS` items; while one is being
//! synced the next is read, `PARTS_UNDER_WAY` at most, so a batch of any length takes the memory of a few parts. What must be
//! all or nothing (`atomic`, an `Idempotency-Key`, a chunk of a load) is one part, and shorter. A batch that breaks off (not
//! JSON any more, a truncated gzip, the client gone) leaves whole items behind: the answer says how many from the first on were
//! taken. A single CloudEvent goes the way of any one update (`single`).

mod intake;
mod key;
mod single;
mod stop;
mod tally;

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::Buf;
use dataflows::types::packed::LoadChunk;
use futures_core::Stream;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use hyper::{HeaderMap, StatusCode};

use super::error::{ApiError, Title};
use super::reply::Reply;
use super::{Call, Rooms};
use crate::admission::load_chunk;
use crate::admission::parse::events::{Batch, Bounds, Broken, BrokenKind, Encoding, Format, is_binary};
use crate::admission::parse::{Fault, names};
use crate::clock::{Clock, SystemClock};
use intake::{Gathers, Intake};

/// Bytes of a body as it is sent: a larger one is 413 before it is read.
pub const BODY_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a body once it is inflated.
const INFLATED_BYTES_MAX: u64 = 256 << 20;
/// Items of a batch whose parts are recorded as they come.
const ITEMS_MAX: u32 = 1_000_000;
/// Items of a batch that is all or nothing, or whose items are all answered for: they are kept until its end.
const WHOLE_ITEMS_MAX: u32 = 262_144;
/// What items take while they are kept, beside what they take as they are sent.
const WHOLE_FACTOR: u64 = 4;
/// What a body that is recorded as it comes holds of the memory that its business may have.
const STREAM_BYTES: u64 = 1 << 20;
const LOAD_ID: HeaderName = HeaderName::from_static("load-id");
const LOAD_CHUNK: HeaderName = HeaderName::from_static("load-chunk");

/// How a request is written.
enum Written {
    /// As a body of items.
    Items(Format, Encoding),
    /// As one CloudEvent.
    Single(single::Mode),
}

/// How the body may be waited for.
#[derive(Clone, Copy)]
pub(super) struct Waits {
    /// For its next bytes.
    pub chunk: Duration,
    /// For all of it.
    pub total: Duration,
    /// The length that it declares.
    pub declared: Option<u64>,
}

/// `POST /api/v1/events`.
pub(super) async fn record<B: Buf, E>(
    rooms: &Rooms,
    call: &Call<'_>,
    waits: Waits,
    body: Pin<&mut impl Stream<Item = Result<B, E>>>,
) -> Result<Reply, ApiError> {
    let written = written(call.headers)?;
    let is_atomic = call.query.flag("atomic")?.unwrap_or(false);
    let wants_all = call.query.choice("results", &[("all", true), ("errors", false)])?.unwrap_or(false);
    let key = call.idempotency_key()?;
    let chunk = chunk(&call.caller().business_id, call.headers)?;
    if chunk.is_some() && key.is_some() {
        let detail = "a chunk of a load has no Idempotency-Key: Load-Id and Load-Chunk say what it is";
        return Err(ApiError::new(Title::BadRequest, "invalid_combination", detail));
    }
    let (format, encoding) = match written {
        Written::Items(format, encoding) => (format, encoding),
        Written::Single(mode) if chunk.is_none() => {
            return single::record(rooms, call, mode, key, waits, body).await;
        }
        Written::Single(_) => {
            let detail = "a chunk of a load is a batch: a single CloudEvent is none";
            return Err(ApiError::new(Title::BadRequest, "invalid_combination", detail));
        }
    };
    let gathers = if is_atomic || key.is_some() || chunk.is_some() { Gathers::Whole } else { Gathers::Parts };
    let reserved = match gathers {
        Gathers::Whole => waits.declared.unwrap_or(BODY_BYTES_MAX) * WHOLE_FACTOR,
        Gathers::Parts => waits.declared.unwrap_or(STREAM_BYTES).min(STREAM_BYTES),
    };
    let _permit = rooms.admission.reserve(&call.caller().business_id, reserved as usize)?;
    let mut intake = Intake::new(rooms, call, gathers, is_atomic, wants_all, (key, chunk));
    let is_kept = gathers == Gathers::Whole || wants_all;
    let items_max = if is_kept { WHOLE_ITEMS_MAX } else { ITEMS_MAX };
    let bounds = Bounds { inflated_bytes_max: INFLATED_BYTES_MAX, items_max };
    let read = read(&mut intake, Batch::new(format, encoding, bounds), waits, body).await;
    Ok(Reply::json(StatusCode::OK, intake.finish(read).await?.json()))
}

/// The chunk of a load that the request is.
fn chunk(business_id: &str, headers: &HeaderMap) -> Result<Option<LoadChunk>, ApiError> {
    let one = |name: HeaderName| {
        let mut values = headers.get_all(&name).iter();
        let value = values.next();
        (value, values.next().is_none())
    };
    let ((id, id_is_one), (number, number_is_one)) = (one(LOAD_ID), one(LOAD_CHUNK));
    let wrong = |field: &str, detail: &str| ApiError::from(Fault::malformed(field, "invalid_load", detail));
    match (id, number) {
        (None, None) => Ok(None),
        (Some(id), Some(number)) if id_is_one && number_is_one => {
            let id = id.to_str().unwrap_or_default();
            names::check_id("Load-Id", id)?;
            let number = number.to_str().ok().and_then(|number| number.parse().ok());
            let number =
                number.ok_or_else(|| wrong("Load-Chunk", "it must be a number from 0 to 4294967295"))?;
            Ok(Some(load_chunk(business_id, id, number)))
        }
        _ => Err(wrong("Load-Id", "Load-Id and Load-Chunk go together, once each")),
    }
}

/// 415 with what there is instead.
fn written(headers: &HeaderMap) -> Result<Written, ApiError> {
    let text = |name| {
        let mut values = headers.get_all(name).iter().map(|value| value.to_str().ok());
        (values.next(), values.next().is_some())
    };
    let unsupported =
        |detail: &str| ApiError::new(Title::UnsupportedMediaType, "unsupported_media_type", detail);
    let encoding = match text(CONTENT_ENCODING) {
        (None, _) => Some(Encoding::Identity),
        (Some(Some(value)), false) => Encoding::of(value),
        _ => None,
    };
    let encoding = encoding.ok_or_else(|| unsupported("the body may be encoded with gzip or zstd, once"))?;
    let content_type = match text(CONTENT_TYPE) {
        (Some(Some(value)), false) => value,
        (None, _) => "",
        _ => return Err(unsupported("Content-Type must be given once, as text")),
    };
    // What says that it is a CloudEvent is one, though its attributes may be headers, too (HTTP binding, section 3.2).
    let is_structured = content_type.trim_ascii().to_ascii_lowercase().starts_with("application/cloudevents");
    if !is_structured && headers.keys().any(|name| is_binary(name.as_str())) {
        return match encoding {
            Encoding::Identity => Ok(Written::Single(single::Mode::Binary)),
            _ => Err(unsupported("the body of a CloudEvent in binary mode must not be encoded")),
        };
    }
    match Format::of(content_type) {
        Some(Format::CloudEvent) => Ok(Written::Single(single::Mode::Structured(encoding))),
        Some(format) => Ok(Written::Items(format, encoding)),
        None => Err(unsupported(
            "the body must be application/x-ndjson, application/json, text/csv, application/cloudevents+json or \
             application/cloudevents-batch+json",
        )),
    }
}

/// Reads a body to its end, or as far as it goes.
async fn read<B: Buf, E>(
    intake: &mut Intake<'_>,
    mut batch: Batch,
    waits: Waits,
    mut body: Pin<&mut impl Stream<Item = Result<B, E>>>,
) -> Result<(), ApiError> {
    let mut bytes = 0;
    let since_begin = SystemClock::default();
    loop {
        let next = poll_fn(|context| body.as_mut().poll_next(context));
        // Only the client is waited for in time: what has been read is seen through.
        let left = waits.total.saturating_sub(since_begin.monotonic());
        let chunk = tokio::time::timeout(waits.chunk.min(left), next).await.map_err(|_| {
            let (chunk, total) = (waits.chunk.as_secs(), waits.total.as_secs());
            let detail = format!("the body has {chunk} s for its next bytes and {total} s for all of them");
            ApiError::new(Title::BadRequest, "body_timeout", detail).closing()
        })?;
        let Some(chunk) = chunk else { break };
        let broken_off =
            |_| ApiError::new(Title::BadRequest, "body_incomplete", "the body broke off").closing();
        let mut chunk = chunk.map_err(broken_off)?;
        bytes += chunk.remaining() as u64;
        if bytes > BODY_BYTES_MAX {
            return Err(ApiError::too_large(BODY_BYTES_MAX));
        }
        while chunk.has_remaining() {
            let length = chunk.chunk().len();
            let (mut rest, mut goes_on) = (chunk.chunk(), true);
            while goes_on {
                let pushed = intake.take(|mut sink| batch.push_some(&mut rest, &mut sink));
                if !intake.advance().await {
                    return Ok(());
                }
                goes_on = pushed.map_err(broken)?;
            }
            chunk.advance(length);
        }
    }
    let finished = intake.take(|mut sink| batch.finish(&mut sink));
    intake.advance().await;
    finished.map_err(broken)
}

fn broken(broken: Broken) -> ApiError {
    match broken.kind {
        BrokenKind::Malformed => ApiError::new(Title::BadRequest, broken.code, broken.detail),
        BrokenKind::TooLarge => ApiError::new(Title::RequestTooLarge, broken.code, broken.detail).closing(),
    }
}
