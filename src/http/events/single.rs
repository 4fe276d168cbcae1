//! One CloudEvent: an update like any other, answered 204 or with what an update is refused with.

use std::pin::Pin;

use bytes::Buf;
use dataflows::types::SeriesKey;
use futures_core::Stream;

use super::super::error::ApiError;
use super::super::reply::Reply;
use super::super::{Call, Rooms, body, metrics, templates};
use super::key::Key;
use super::{Waits, broken};
use crate::admission::UpdateRequest;
use crate::admission::parse::events::{
    Batch, Bounds, Broken, Encoding, Event, Format, ITEM_BYTES_MAX, Rejection, parse_binary,
};

/// How it is written.
pub enum Mode {
    /// All of it is the body.
    Structured(Encoding),
    /// Its attributes are headers.
    Binary,
}

/// Records it.
pub async fn record<B: Buf, E>(
    rooms: &Rooms,
    call: &Call<'_>,
    mode: Mode,
    key: Option<String>,
    waits: Waits,
    body: Pin<&mut impl Stream<Item = Result<B, E>>>,
) -> Result<Reply, ApiError> {
    let bytes_max = ITEM_BYTES_MAX as u64;
    body::declared(call.headers, bytes_max)?;
    let business_id = &call.caller().business_id;
    let reserved = waits.declared.unwrap_or(bytes_max) as usize;
    let _permit = rooms.admission.reserve(business_id, reserved)?;
    let bytes = body::read(body, bytes_max, waits.chunk).await?;
    let event = match mode {
        Mode::Structured(encoding) => structured(encoding, &bytes).map_err(broken)?,
        Mode::Binary => {
            let headers = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            parse_binary(headers, &bytes).map(Event::into_owned)
        }
    };
    let key = key.map(|text| {
        let mut key = Key::new(business_id, text);
        key.add(0, event.as_ref());
        (key.text().to_owned(), key.fingerprint())
    });
    let Event { metric_name, customer_id, amount, event_at, id } = event?;
    let series = SeriesKey {
        business_id: business_id.to_string(),
        customer_id: customer_id.map(Into::into),
        metric_name: metric_name.into(),
    };
    let handle = match rooms.control.resolve(&series) {
        Some(handle) => handle,
        None => templates::first(rooms, call, &series).await?,
    };
    let operation = handle.record.spec.operation;
    let blocks = rooms.control.blocks(&handle);
    let request = UpdateRequest { handle, blocks, amount, event_at, id, key, post: None };
    let updated = rooms.admission.update(&request).await;
    let updated = updated.map_err(|error| metrics::refused(&series, operation, error))?;
    let headers = metrics::rate_limit(&series, operation, &updated.decision);
    Ok(Reply { headers, ..Reply::no_content() })
}

/// The event that a body is.
fn structured(encoding: Encoding, bytes: &[u8]) -> Result<Result<Event<'static>, Rejection>, Broken> {
    let bounds = Bounds { inflated_bytes_max: super::INFLATED_BYTES_MAX, items_max: 1 };
    let mut batch = Batch::new(Format::CloudEvent, encoding, bounds);
    let mut event = None;
    let mut sink = |_, read: Result<Event<'_>, Rejection>| event = Some(read.map(Event::into_owned));
    batch.push(bytes, &mut sink)?;
    batch.finish(&mut sink)?;
    Ok(event.expect("a body that is not broken is one item"))
}
