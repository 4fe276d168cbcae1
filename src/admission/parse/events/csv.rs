//! CSV (RFC 4180): a header that names the fields of an item in any order, then a row an item.
//!
//! A line break within quotes is data, also where nothing of ours may hold one: what a customer is called must never become
//! a row of its own. So a quote that does not close takes everything behind it along. An empty cell is an absent field.
//! Kept between chunks: the cells of one row.

use std::borrow::Cow;
use std::str::FromStr;

use csv_core::ReadRecordResult;
use dataflows::types::{Amount, AmountError};

use super::super::names::{self, SCOPES};
use super::reader::Out;
use super::{Broken, Event, ITEM_BYTES_MAX, Identity, Rejection, item};

/// One more than there are fields: a row with more cells than that is too long, however many there are.
const CELLS_MAX: usize = item::FIELDS.len() + 1;

pub struct Table {
    machine: csv_core::Reader,
    /// The place in `item::FIELDS` of each column; empty until the header has come.
    columns: Vec<usize>,
    /// The cells of the row that has begun, one behind the other. One byte more than a row may have.
    text: Vec<u8>,
    text_bytes: usize,
    /// Where the cells end.
    ends: [usize; CELLS_MAX],
    cells: usize,
    is_overlong: bool,
    /// Whether anything of a row has come.
    is_begun: bool,
}

impl Table {
    pub fn new() -> Self {
        Table {
            machine: csv_core::Reader::new(),
            columns: Vec::new(),
            text: Vec::new(),
            text_bytes: 0,
            ends: [0; CELLS_MAX],
            cells: 0,
            is_overlong: false,
            is_begun: false,
        }
    }

    pub fn push<S>(&mut self, mut bytes: &[u8], out: &mut Out<'_, S>) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        while !bytes.is_empty() {
            let (is_row, read) = self.step(bytes);
            self.is_begun |= bytes[..read].iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
            bytes = &bytes[read..];
            if is_row {
                self.end(out)?;
            }
        }
        Ok(())
    }

    pub fn finish<S>(&mut self, out: &mut Out<'_, S>) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        // A line break ends every row but one with an open quote.
        if self.is_begun {
            self.push(b"\n", out)?;
        }
        if self.columns.is_empty() {
            let detail = "the first line must be a header that names the columns";
            return Err(Broken::malformed(out.items(), "invalid_header", detail));
        }
        if self.is_begun {
            let detail = "a quote is opened and never closed: all that follows it is one cell";
            return out.give(Err(Rejection::new("malformed_csv", detail)));
        }
        Ok(())
    }

    /// Feeds the machine: whether a row has ended, and how many bytes were read.
    fn step(&mut self, bytes: &[u8]) -> (bool, usize) {
        if self.text.len() == self.text_bytes {
            // Most rows are short.
            self.text.resize((2 * self.text.len()).clamp(1_024, ITEM_BYTES_MAX + 1), 0);
        }
        let (result, read, written, ended) =
            self.machine.read_record(bytes, &mut self.text[self.text_bytes..], &mut self.ends[self.cells..]);
        (self.text_bytes, self.cells) = (self.text_bytes + written, self.cells + ended);
        // What is already too long is overwritten while its end is looked for.
        if self.text_bytes > ITEM_BYTES_MAX {
            (self.text_bytes, self.is_overlong) = (0, true);
        }
        if self.cells == CELLS_MAX && !matches!(result, ReadRecordResult::Record) {
            self.cells = CELLS_MAX - 1;
        }
        (matches!(result, ReadRecordResult::Record), read)
    }

    /// A row, or the header, has come.
    fn end<S>(&mut self, out: &mut Out<'_, S>) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        let given = if self.columns.is_empty() {
            self.columns =
                self.header().map_err(|detail| Broken::malformed(out.items(), "invalid_header", detail))?;
            Ok(())
        } else {
            out.give(self.row())
        };
        (self.text_bytes, self.cells) = (0, 0);
        (self.is_overlong, self.is_begun) = (false, false);
        given
    }

    /// A cell. None if it is not UTF-8.
    fn cell(&self, at: usize) -> Option<&str> {
        let from = if at == 0 { 0 } else { self.ends[at - 1] };
        std::str::from_utf8(&self.text[from..self.ends[at]]).ok()
    }

    /// What the columns are, or what is wrong with them.
    fn header(&self) -> Result<Vec<usize>, String> {
        if self.is_overlong || self.cells == CELLS_MAX {
            return Err(format!("the header has more columns than there are fields: {:?}", item::FIELDS));
        }
        let mut columns = Vec::with_capacity(self.cells);
        for at in 0..self.cells {
            let name = self.cell(at).ok_or("the header is not UTF-8")?;
            let field = item::FIELDS.iter().position(|field| *field == name).ok_or_else(|| {
                format!("column {at} of the header is none of the fields {:?}", item::FIELDS)
            })?;
            if columns.contains(&field) {
                return Err(format!("the header names {name} more than once"));
            }
            columns.push(field);
        }
        if !columns.contains(&0) {
            return Err(format!("the header must name {}", item::FIELDS[0]));
        }
        Ok(columns)
    }

    fn row(&self) -> Result<Event<'_>, Rejection> {
        if self.is_overlong {
            return Err(Rejection::too_large());
        }
        if self.cells != self.columns.len() {
            let (more, columns) = (self.cells > self.columns.len(), self.columns.len());
            let detail = format!(
                "the row has {} cells than the header, {columns}",
                if more { "more" } else { "fewer" }
            );
            return Err(Rejection::new("wrong_field_count", detail));
        }
        let mut fields = [None; item::FIELDS.len()];
        for (at, &field) in self.columns.iter().enumerate() {
            let not_utf8 = || format!("{} is not UTF-8", item::FIELDS[field]);
            let cell = self.cell(at).ok_or_else(|| Rejection::new("malformed_csv", not_utf8()))?;
            fields[field] = (!cell.is_empty()).then_some(cell);
        }
        event(fields)
    }
}

/// The event in the cells of a row, in the order of `item::FIELDS`.
fn event(fields: [Option<&str>; item::FIELDS.len()]) -> Result<Event<'_>, Rejection> {
    let [metric_name, customer_id, scope, value, timestamp, id] = fields;
    let metric_name =
        metric_name.ok_or_else(|| Rejection::new("missing_field", "metric_name is required"))?;
    names::check_metric_name("metric_name", metric_name)?;
    customer_id.map(|text| names::check_id("customer_id", text)).transpose()?;
    id.map(|text| names::check_id("id", text)).transpose()?;
    let scope = scope.map(|text| {
        let option = SCOPES.into_iter().find(|(word, _)| *word == text).map(|(_, scope)| scope);
        option.ok_or_else(|| Rejection::new("invalid_option", "scope is not one of the valid options"))
    });
    item::check_scope(scope.transpose()?, customer_id.is_some())?;
    let amount = value.map_or(Ok(Amount::from_units(1)), Amount::from_str).map_err(|error| match error {
        AmountError::Malformed => Rejection::new("wrong_type", "value must be written like a JSON number"),
        AmountError::OutOfRange => {
            Rejection::new("amount_out_of_range", "the magnitude of value is above 10^15")
        }
    })?;
    Ok(Event {
        metric_name: Cow::Borrowed(metric_name),
        customer_id: customer_id.map(Cow::Borrowed),
        amount,
        event_at: timestamp.map(|text| names::moment("timestamp", text)).transpose()?,
        id: id.map(|id| Identity::Plain(Cow::Borrowed(id))),
    })
}
