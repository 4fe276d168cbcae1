//! A batch from its first byte to its last: what is compressed becomes text, text becomes items, items get their places.

use super::array::Array;
use super::csv::Table;
use super::inflate::Inflate;
use super::lines::Lines;
use super::partial::Partial;
use super::{Bounds, Broken, Encoding, Event, Format, Rejection, cloudevent, item};

/// What some tools write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A body that is read as it comes. `sink` gets the place of each item from 0 and the item or why it is none; the event
/// borrows from the batch and the chunk, so it is copied or used before the next one.
///
/// ```
/// use tracktags::admission::parse::events::{Batch, Bounds, Encoding, Event, Format, Rejection};
/// let bounds = Bounds { inflated_bytes_max: 16_777_216, items_max: 1_000_000 };
/// let mut batch = Batch::new(Format::Ndjson, Encoding::Identity, bounds);
/// let mut codes = Vec::new();
/// let mut sink = |place: u32, event: Result<Event<'_>, Rejection>| {
///     codes.push((place, event.map_or_else(|rejection| rejection.code, |_| "good")));
/// };
/// batch.push(b"{\"metric_name\":\"calls\"}\n{\"metric_n", &mut sink).expect("it is not broken");
/// batch.push(b"ame\":\"a b\"}", &mut sink).expect("it is not broken");
/// batch.finish(&mut sink).expect("it is not broken");
/// assert_eq!(codes, [(0, "good"), (1, "invalid_name")]);
/// ```
pub struct Batch {
    inflate: Inflate,
    text: Text,
    items: u32,
    items_max: u32,
    broken: Option<Broken>,
}

/// The text of a batch.
struct Text {
    /// How much of a byte order mark has come; none once something else has.
    mark: Option<usize>,
    reader: Reader,
}

enum Reader {
    Lines(Lines),
    Array(Array),
    Table(Box<Table>),
    One(Partial),
}

/// Where items go.
pub struct Out<'a, S> {
    items: &'a mut u32,
    items_max: u32,
    sink: &'a mut S,
}

impl Batch {
    /// Nothing of a body.
    pub fn new(format: Format, encoding: Encoding, bounds: Bounds) -> Self {
        let reader = match format {
            Format::Ndjson => Reader::Lines(Lines::default()),
            Format::JsonArray => Reader::Array(Array::new(item::parse)),
            Format::Csv => Reader::Table(Box::new(Table::new())),
            Format::CloudEvent => Reader::One(Partial::default()),
            Format::CloudEventBatch => Reader::Array(Array::new(cloudevent::parse)),
        };
        Batch {
            inflate: Inflate::new(encoding, bounds.inflated_bytes_max),
            text: Text { mark: Some(0), reader },
            items: 0,
            items_max: bounds.items_max,
            broken: None,
        }
    }

    /// How many items have been given, good and bad.
    pub fn items(&self) -> u32 {
        self.items
    }

    /// Reads a chunk. Once the batch is broken it stays so, and says the same again.
    pub fn push<S>(&mut self, mut bytes: &[u8], sink: &mut S) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        while self.push_some(&mut bytes, sink)? {}
        Ok(())
    }

    /// Reads a chunk as far as one piece of its text goes, so that what a small chunk becomes need not be held at once;
    /// whether there is more of it.
    pub fn push_some<S>(&mut self, bytes: &mut &[u8], sink: &mut S) -> Result<bool, Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let mut out = Out { items: &mut self.items, items_max: self.items_max, sink };
        let text = &mut self.text;
        let pushed = self.inflate.push(bytes, &mut |piece| text.push(piece, &mut out));
        self.or_break(pushed.map_err(|stop| stop.into_broken(self.items)))
    }

    /// The body has ended: what needed no end of its own is given.
    pub fn finish<S>(&mut self, sink: &mut S) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        // What a truncated stream ends with is no whole item, whatever it looks like.
        let ended = self.inflate.finish().map_err(|stop| stop.into_broken(self.items));
        let mut out = Out { items: &mut self.items, items_max: self.items_max, sink };
        let finished = ended.and_then(|()| self.text.finish(&mut out));
        self.or_break(finished)
    }

    fn or_break<T>(&mut self, result: Result<T, Broken>) -> Result<T, Broken> {
        self.broken = result.as_ref().err().cloned();
        result
    }
}

impl Text {
    fn push<S>(&mut self, bytes: &[u8], out: &mut Out<'_, S>) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        let Some(come) = self.mark else { return self.reader.push(bytes, out) };
        let rest = &BYTE_ORDER_MARK[come..];
        let same = rest.iter().zip(bytes).take_while(|(wanted, byte)| wanted == byte).count();
        if same == rest.len() {
            self.mark = None;
            return self.reader.push(&bytes[same..], out);
        }
        if same == bytes.len() {
            self.mark = Some(come + same);
            return Ok(());
        }
        self.mark = None;
        self.reader.push(&BYTE_ORDER_MARK[..come], out)?;
        self.reader.push(bytes, out)
    }

    fn finish<S>(&mut self, out: &mut Out<'_, S>) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        let come = self.mark.take().unwrap_or_default();
        self.reader.push(&BYTE_ORDER_MARK[..come], out)?;
        match &mut self.reader {
            Reader::Lines(lines) => lines.finish(out),
            Reader::Array(array) => array.finish(out),
            Reader::Table(table) => table.finish(out),
            Reader::One(partial) => out.give(match partial.end(&[]) {
                Some(text) => cloudevent::parse(text),
                None => Err(Rejection::too_large()),
            }),
        }
    }
}

impl Reader {
    fn push<S>(&mut self, bytes: &[u8], out: &mut Out<'_, S>) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        match self {
            Reader::Lines(lines) => lines.push(bytes, out),
            Reader::Array(array) => array.push(bytes, out),
            Reader::Table(table) => table.push(bytes, out),
            Reader::One(partial) => {
                partial.keep(bytes);
                Ok(())
            }
        }
    }
}

impl<S> Out<'_, S> {
    /// How many items have been given.
    pub fn items(&self) -> u32 {
        *self.items
    }
}

impl<S> Out<'_, S>
where
    S: FnMut(u32, Result<Event<'_>, Rejection>),
{
    /// Gives an item its place.
    pub fn give(&mut self, event: Result<Event<'_>, Rejection>) -> Result<(), Broken> {
        if *self.items == self.items_max {
            let detail = format!("the batch has more than {} items", self.items_max);
            return Err(Broken::too_large(self.items_max, "too_many_items", detail));
        }
        (self.sink)(*self.items, event);
        *self.items += 1;
        Ok(())
    }
}
