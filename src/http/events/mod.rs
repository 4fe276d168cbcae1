//! `POST /api/v1/events`: many updates in one request (API section 3), recorded while the body is still coming.
//!
//! ```text
//!  chunk ─▶ Batch (inflate, items) ─▶ Intake: series, age, identity ─▶ Part ─▶ journal ─▶ what was not admitted ─▶ Tally
//!                                       └─ no series: made from templates, all of a chunk at once
//! ```
//! Good items count and bad ones are reported by their place. A part is at least `PART_ITEMS` items; while one is being
//! synced the next is read, `PARTS_UNDER_WAY` at most, so a batch of any length takes the memory of a few parts. What must be
//! all or nothing (`atomic`, an `Idempotency-Key`, a chunk of a load) is one part, and shorter. A batch that breaks off (not JSON any more, a
//! truncated gzip, the client gone) leaves whole items behind: the answer says how many from the first on were taken.

mod intake;
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
use super::{Call, Rooms, body};
use crate::admission::load_chunk;
use crate::admission::parse::events::{
    Batch, Bounds, Broken, BrokenKind, Encoding, Format, ITEM_BYTES_MAX, is_binary, parse_binary,
};
use crate::admission::parse::{Fault, names};
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
/// How long all of a body may take; its next bytes have `Options::body_timeout`.
const BATCH_TIMEOUT: Duration = Duration::from_secs(600);
const LOAD_ID: HeaderName = HeaderName::from_static("load-id");
const LOAD_CHUNK: HeaderName = HeaderName::from_static("load-chunk");

/// How a request is written.
enum Written {
    /// As a body of items.
    Items(Format, Encoding),
    /// As one CloudEvent in binary mode.
    Binary,
}

/// How the body may be waited for.
#[derive(Clone, Copy)]
pub(super) struct Waits {
    /// For its next bytes.
    pub chunk: Duration,
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
    let gathers = if is_atomic || key.is_some() || chunk.is_some() { Gathers::Whole } else { Gathers::Parts };
    let reserved = match gathers {
        Gathers::Whole => waits.declared.unwrap_or(BODY_BYTES_MAX) * WHOLE_FACTOR,
        Gathers::Parts => waits.declared.unwrap_or(STREAM_BYTES).min(STREAM_BYTES),
    };
    let _permit = rooms.admission.reserve(&call.caller().business_id, reserved as usize)?;
    let mut intake = Intake::new(rooms, call, gathers, is_atomic, wants_all, (key, chunk));
    let reading = async {
        match written {
            Written::Items(format, encoding) => {
                let is_kept = gathers == Gathers::Whole || wants_all;
                let items_max = if is_kept { WHOLE_ITEMS_MAX } else { ITEMS_MAX };
                let bounds = Bounds { inflated_bytes_max: INFLATED_BYTES_MAX, items_max };
                read(&mut intake, Batch::new(format, encoding, bounds), waits.chunk, body).await
            }
            Written::Binary => {
                let bytes = body::read(body, ITEM_BYTES_MAX as u64, waits.chunk).await?;
                let headers = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                intake.take_one(parse_binary(headers, &bytes));
                intake.advance().await
            }
        }
    };
    let read = tokio::time::timeout(BATCH_TIMEOUT, reading).await.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {} s", BATCH_TIMEOUT.as_secs());
        Err(ApiError::new(Title::BadRequest, "body_timeout", detail).closing())
    });
    let is_single = matches!(written, Written::Binary | Written::Items(Format::CloudEvent, _));
    let tally = intake.finish(read).await?;
    if is_single {
        return tally.single().map_or_else(Err, |()| Ok(Reply::no_content()));
    }
    Ok(Reply::json(StatusCode::OK, tally.json()))
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
    if headers.keys().any(|name| is_binary(name.as_str())) {
        return match encoding {
            Encoding::Identity => Ok(Written::Binary),
            _ => Err(unsupported("the body of a CloudEvent in binary mode must not be encoded")),
        };
    }
    let format = match text(CONTENT_TYPE) {
        (Some(Some(value)), false) => Format::of(value),
        _ => None,
    };
    let format = format.ok_or_else(|| {
        unsupported(
            "the body must be application/x-ndjson, application/json, text/csv, application/cloudevents+json or \
             application/cloudevents-batch+json",
        )
    })?;
    Ok(Written::Items(format, encoding))
}

/// Reads a body to its end, or as far as it goes.
async fn read<B: Buf, E>(
    intake: &mut Intake<'_>,
    mut batch: Batch,
    timeout: Duration,
    mut body: Pin<&mut impl Stream<Item = Result<B, E>>>,
) -> Result<(), ApiError> {
    let mut bytes = 0;
    loop {
        let next = poll_fn(|context| body.as_mut().poll_next(context));
        let chunk = tokio::time::timeout(timeout, next).await.map_err(|_| {
            let detail = format!("the body did not go on within {} s", timeout.as_secs());
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
            let pushed = intake.take(|mut sink| batch.push(chunk.chunk(), &mut sink));
            chunk.advance(length);
            intake.advance().await?;
            pushed.map_err(broken)?;
        }
    }
    let finished = intake.take(|mut sink| batch.finish(&mut sink));
    intake.advance().await?;
    finished.map_err(broken)
}

fn broken(broken: Broken) -> ApiError {
    match broken.kind {
        BrokenKind::Malformed => ApiError::new(Title::BadRequest, broken.code, broken.detail),
        BrokenKind::TooLarge => ApiError::new(Title::RequestTooLarge, broken.code, broken.detail).closing(),
    }
}
