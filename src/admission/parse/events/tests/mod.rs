//! What a batch is read as: `formats` and `hostile` are tables, `laws` compares with a naive model (`model`) and with other
//! ways of cutting the same bytes, `encodings` is about compressed bodies.

mod encodings;
mod formats;
mod hostile;
mod laws;
mod model;

use std::borrow::Cow;
use std::io::Write;

use super::*;

const BOUNDS: Bounds = Bounds { inflated_bytes_max: 16_777_216, items_max: 1_000_000 };
const FORMATS: [Format; 5] =
    [Format::Ndjson, Format::JsonArray, Format::Csv, Format::CloudEvent, Format::CloudEventBatch];

/// What became of a batch: each item or the code of its rejection, then the code of the break with its place.
#[derive(Debug, PartialEq)]
struct Seen {
    items: Vec<Result<Event<'static>, &'static str>>,
    end: Result<(), (&'static str, u32)>,
}

impl Seen {
    /// The codes; `ok` for a good item; that of a break last, with a `!`.
    fn codes(&self) -> Vec<String> {
        let items =
            self.items.iter().map(|item| item.as_ref().map_or_else(|code| *code, |_| "ok").to_owned());
        items.chain(self.end.err().map(|(code, _)| format!("{code}!"))).collect()
    }
}

fn read<'a>(format: Format, encoding: Encoding, chunks: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    read_within(format, encoding, BOUNDS, chunks)
}

fn read_within<'a>(
    format: Format,
    encoding: Encoding,
    bounds: Bounds,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Seen {
    let mut items = Vec::new();
    let mut sink = |place: u32, event: Result<Event<'_>, Rejection>| {
        assert_eq!(place as usize, items.len(), "places have no gap");
        items.push(event.map(owned).map_err(|rejection| {
            assert!(!rejection.detail.is_empty() && rejection.detail.len() < 500, "{rejection:?}");
            rejection.code
        }));
    };
    let mut batch = Batch::new(format, encoding, bounds);
    let pushed = chunks.into_iter().try_for_each(|chunk| batch.push(chunk, &mut sink));
    let end = pushed.and_then(|()| batch.finish(&mut sink));
    if let Err(broken) = &end {
        assert_eq!(batch.push(b"{", &mut sink).as_ref(), Err(broken), "it stays broken");
        assert_eq!(batch.items(), broken.items);
    }
    assert_eq!(batch.items() as usize, items.len());
    Seen { items, end: end.map_err(|broken| (broken.code, broken.items)) }
}

fn codes(format: Format, body: impl AsRef<[u8]>) -> Vec<String> {
    read(format, Encoding::Identity, [body.as_ref()]).codes()
}

fn owned(event: Event<'_>) -> Event<'static> {
    let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
    Event {
        metric_name: own(event.metric_name),
        customer_id: event.customer_id.map(own),
        amount: event.amount,
        event_at: event.event_at,
        id: event.id.map(|id| match id {
            Identity::Plain(id) => Identity::Plain(own(id)),
            Identity::CloudEvent { source, id } => Identity::CloudEvent { source: own(source), id: own(id) },
        }),
    }
}

fn event(metric_name: &'static str, customer_id: Option<&'static str>, nanos: i128) -> Event<'static> {
    let customer_id = customer_id.map(Cow::Borrowed);
    let metric_name = Cow::Borrowed(metric_name);
    Event { metric_name, customer_id, amount: Amount(nanos), event_at: None, id: None }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("in memory")
}
