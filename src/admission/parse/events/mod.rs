//! `POST /api/v1/events`: many updates in one body, read as it comes.
//!
//! ```text
//!            ┌─ inflate ─┐   ┌──────────── reader ─────────────┐   ┌─ item | csv | cloudevent ─┐
//!  bytes ──▶ │ gzip zstd │──▶│ ends of items (lines, array, csv) │──▶│ one item, one Event        │──▶ sink(index, Ok | Err)
//!            └───────────┘   └────────── Broken ───────────────┘   └────────── Rejection ──────┘
//! ```
//! Invariants: a good item is given as `Event`, a bad one as `Rejection` under its place from 0, each once and in order,
//! whatever the chunks were; a bad item never stops the batch where the next one can still be found. Between two chunks
//! only the beginning of one item is kept (`ITEM_BYTES_MAX`). An item in the usual form costs no allocation. Nothing
//! recurses over the input. What needs the registry or the clock (absent series, ages) is decided behind this, as is
//! what shall happen to the items before a break.
//!
//! | format | an item | blank | resumes after a bad item |
//! |---|---|---|---|
//! | NDJSON | a line | blank lines are no items | at the next line |
//! | CSV | a row (RFC 4180) below a header | blank lines are no items | at the next row |
//! | JSON array, CloudEvents batch | an element | | at the next element, if the bad one was JSON; else the batch is broken |
//! | CloudEvent | the body | | |
//!
//! A byte order mark before everything else is skipped.
//!
//! | code of a rejection | what is wrong with the item |
//! |---|---|
//! | `malformed_json`, `malformed_csv`, `malformed_base64` | not what the format says; not UTF-8 |
//! | `item_too_large` | longer than `ITEM_BYTES_MAX` |
//! | `wrong_type`, `missing_field`, `unknown_field`, `repeated_field`, `nesting_too_deep` | its fields, as in every body |
//! | `invalid_name`, `invalid_id`, `invalid_time`, `invalid_option`, `invalid_text` | the syntax of one value |
//! | `amount_out_of_range` | above 10^15 |
//! | `invalid_combination` | `customer_id` with `scope: business`; `data` with `data_base64` |
//! | `wrong_field_count` | a row has more or fewer fields than the header |
//! | `unsupported_specversion` | a CloudEvent of another version than 1.0 |
//!
//! | code of a break | why nothing more can be read |
//! |---|---|
//! | `malformed_json`, `wrong_type` | the array is no array, or broken, or cut off |
//! | `invalid_header` | the first line of a CSV names no, unknown or repeated columns |
//! | `malformed_encoding`, `truncated_encoding` | the gzip or zstd stream is broken, or ends too early |
//! | `inflated_too_large` | more bytes than `Bounds::inflated_bytes_max` |
//! | `inflated_too_much` | more than `RATIO_MAX` bytes from one, beyond `RATIO_FREE_BYTES`: a bomb |
//! | `too_many_items` | more items than `Bounds::items_max` |

mod array;
mod binary;
mod cloudevent;
mod csv;
mod inflate;
mod item;
mod lines;
mod partial;
mod reader;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use dataflows::types::{Amount, Micros};
use thiserror::Error;

pub use binary::{is_binary, parse_binary};
pub use cloudevent::TEXT_BYTES_MAX;
pub use inflate::{RATIO_FREE_BYTES, RATIO_MAX, WINDOW_LOG_MAX};
pub use reader::Batch;

use super::Fault;

/// Longest item: what is kept of one whose end has not come. CloudEvents wants every intermediary to forward so much.
pub const ITEM_BYTES_MAX: usize = 65_536;
/// Longest explanation of a rejection; what an item says of itself is cut to fit.
const DETAIL_BYTES_MAX: usize = 400;

/// One event as a client sends it, borrowed from the batch unless it is written with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// `metric_name`, or the `type` of a CloudEvent.
    pub metric_name: Cow<'a, str>,
    /// `customer_id`, or the `subject` of a CloudEvent; none is the business's own series.
    pub customer_id: Option<Cow<'a, str>>,
    /// `value`, or `data.value`; 1 if it is absent.
    pub amount: Amount,
    /// `timestamp`, or `time`; none is the arrival.
    pub event_at: Option<Micros>,
    /// What makes a repeat of it one.
    pub id: Option<Identity<'a>>,
}

/// The identity of an event within its series. The kinds never equal each other, whatever their texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity<'a> {
    /// `id`: 1 to 255 printable ASCII characters without space and `/`.
    Plain(Cow<'a, str>),
    /// A CloudEvent's: both are text without control characters, of at most `TEXT_BYTES_MAX` bytes.
    CloudEvent {
        /// `source`.
        source: Cow<'a, str>,
        /// `id`, unique within its source.
        id: Cow<'a, str>,
    },
}

/// Why one item is not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{detail}")]
pub struct Rejection {
    /// Stable, `snake_case`.
    pub code: &'static str,
    /// A sentence for people that names the field, lowercase, without a full stop.
    pub detail: String,
}

/// Why a batch cannot be read on. The items before it have been given to the sink; nothing comes after it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{detail}")]
pub struct Broken {
    /// Malformed or too large.
    pub kind: BrokenKind,
    /// Stable, `snake_case`.
    pub code: &'static str,
    /// The place of the item at which it broke, which is also how many were given.
    pub items: u32,
    /// A sentence for people, lowercase, without a full stop.
    pub detail: String,
}

/// How a batch is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenKind {
    /// 400: not what the API describes.
    Malformed,
    /// 413: beyond a bound.
    TooLarge,
}

/// How the items of a body are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/x-ndjson`: a JSON object a line.
    Ndjson,
    /// `application/json`: an array of objects.
    JsonArray,
    /// `text/csv`: a header and rows.
    Csv,
    /// `application/cloudevents+json`: one CloudEvent.
    CloudEvent,
    /// `application/cloudevents-batch+json`: an array of CloudEvents.
    CloudEventBatch,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// It is not.
    Identity,
    /// `gzip`, one or more members.
    Gzip,
    /// `zstd`, one or more frames.
    Zstd,
}

/// What one batch may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes after decompression (of a body that is not compressed: bytes).
    pub inflated_bytes_max: u64,
    /// Items, good and bad.
    pub items_max: u32,
}

impl Event<'_> {
    /// The same without a batch to borrow from.
    pub fn into_owned(self) -> Event<'static> {
        Event {
            metric_name: owned(self.metric_name),
            customer_id: self.customer_id.map(owned),
            amount: self.amount,
            event_at: self.event_at,
            id: self.id.map(Identity::into_owned),
        }
    }
}

impl Identity<'_> {
    /// The same without a batch to borrow from.
    pub fn into_owned(self) -> Identity<'static> {
        match self {
            Identity::Plain(id) => Identity::Plain(owned(id)),
            Identity::CloudEvent { source, id } => {
                Identity::CloudEvent { source: owned(source), id: owned(id) }
            }
        }
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

impl Format {
    /// The format that a `Content-Type` names; its parameters say nothing more. None is 415.
    pub fn of(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim_ascii();
        let formats = [
            ("application/x-ndjson", Format::Ndjson),
            ("application/json", Format::JsonArray),
            ("text/csv", Format::Csv),
            ("application/cloudevents+json", Format::CloudEvent),
            ("application/cloudevents-batch+json", Format::CloudEventBatch),
        ];
        let named = formats.into_iter().find(|(name, _)| essence.eq_ignore_ascii_case(name));
        named.map(|(_, format)| format)
    }
}

impl Encoding {
    /// The encoding that a `Content-Encoding` names; several, one on the other, are not taken. None is 415.
    pub fn of(content_encoding: &str) -> Option<Self> {
        let encodings = [
            ("identity", Encoding::Identity),
            ("gzip", Encoding::Gzip),
            ("x-gzip", Encoding::Gzip),
            ("zstd", Encoding::Zstd),
        ];
        let name = content_encoding.trim_ascii();
        encodings
            .into_iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known))
            .map(|(_, encoding)| encoding)
    }
}

impl Rejection {
    fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > DETAIL_BYTES_MAX {
            detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
            detail.push('…');
        }
        Rejection { code, detail }
    }

    fn too_large() -> Self {
        Rejection::new("item_too_large", format!("the item is longer than {ITEM_BYTES_MAX} bytes"))
    }
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Self {
        match fault.field {
            Some(field) if !fault.detail.contains(&field) => {
                Rejection::new(fault.code, format!("{field}: {}", fault.detail))
            }
            _ => Rejection::new(fault.code, fault.detail),
        }
    }
}

impl Broken {
    fn malformed(items: u32, code: &'static str, detail: impl Into<String>) -> Self {
        Broken { kind: BrokenKind::Malformed, code, items, detail: detail.into() }
    }

    fn too_large(items: u32, code: &'static str, detail: impl Into<String>) -> Self {
        Broken { kind: BrokenKind::TooLarge, ..Broken::malformed(items, code, detail) }
    }
}
