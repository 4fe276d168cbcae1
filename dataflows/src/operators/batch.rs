//! Batch: what meter emits at a time entry, from one worker and one class.
//!
//! | in | out |
//! |---|---|
//! | the changed windows of one class, in slot order | the same as a `PackedBatch`; unpacked in (series, window) order |
//!
//! Emitting is on the hot path: a row leaves as 80 bytes, most of them a copy of the cell, and becomes a `Row` and a
//! `LiveState` (256 bytes) where it is used, on the sink's thread.
//!
//! Within one process a worker's share of a time entry is whole as soon as its meter has applied it, so it is handed on
//! at once; what another process owns would be held here until the frontier has passed the epoch. No state.

use super::cells::{Sums, moment};
use crate::types::{Amount, Batch, Epoch, LiveState, Micros, Row, RowKind, SeriesId, Span};

/// Rows in a block.
const BLOCK: usize = 1_024;

/// The changed rows of one class at one time entry, from one worker, to be unpacked where they are used.
#[derive(Clone, Debug, Default)]
pub struct PackedBatch {
    /// Which class; the batch interval of the series in it.
    pub class: Span,
    /// The epoch of the time entry: all changes before it are in.
    pub upper: Epoch,
    /// The time entry.
    pub at: Micros,
    /// The worker.
    pub worker: u32,
    /// Rows of ordinary series, in blocks of `BLOCK`: a large emission neither moves nor asks for pages of its own.
    pub(super) packed: Vec<Vec<PackedRow>>,
    /// Rows of the others.
    pub(super) rows: Vec<Row>,
    /// Live periods, but for those that are said by a packed row.
    pub(super) states: Vec<LiveState>,
    /// Cleaned series, and by when the windows had ended whose rows go.
    pub(super) cleaned: Vec<(SeriesId, Micros)>,
}

/// A row of an ordinary series: always absolute.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct PackedRow {
    sums: Sums,
    value_low: u64,
    value_high: i64,
    series: SeriesId,
    /// Start, in seconds.
    window: u32,
    length_secs: u32,
    live: Live,
}

/// What a row says about its series' newest live period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Live {
    /// Nothing.
    Unsaid,
    /// It is the window.
    Window,
    /// It has had no other window, and no beginning.
    Unbounded,
}

impl PackedRow {
    /// A row of `series`.
    #[inline(always)]
    pub fn new(
        series: SeriesId,
        sums: Sums,
        window: u32,
        length_secs: u32,
        value: Amount,
        live: Live,
    ) -> PackedRow {
        let (value_low, value_high) = (value.0 as u64, (value.0 >> 64) as i64);
        PackedRow { sums, value_low, value_high, series, window, length_secs, live }
    }

    fn value(&self) -> Amount {
        Amount(i128::from(self.value_high) << 64 | i128::from(self.value_low))
    }

    fn row(&self) -> Row {
        let window_start = moment(self.window);
        let window_end = moment(self.window + self.length_secs);
        let (series, tally, value) = (self.series, self.sums.tally(), self.value());
        Row { series, window_start, window_end, tally, value, kind: RowKind::Absolute }
    }

    fn live_state(&self) -> Option<LiveState> {
        let period_start = match self.live {
            Live::Unsaid => return None,
            Live::Window => Some(moment(self.window)),
            Live::Unbounded => None,
        };
        Some(LiveState { series: self.series, period_start, tally: self.sums.tally(), value: self.value() })
    }
}

impl PackedBatch {
    /// Appends a row of an ordinary series.
    #[inline(always)]
    pub(super) fn push(&mut self, row: PackedRow) {
        match self.packed.last_mut() {
            Some(block) if block.len() < BLOCK => block.push(row),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(row);
                self.packed.push(block);
            }
        }
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty() && self.rows.is_empty() && self.states.is_empty() && self.cleaned.is_empty()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.packed.iter().map(Vec::len).sum::<usize>() + self.rows.len()
    }

    /// The rows in (series, window) order, the states and the cleaned in series order. Sorting is all but free when slots were given
    /// in series order.
    pub fn unpack(self) -> Batch {
        let PackedBatch { class, upper, at, worker, packed, mut rows, mut states, mut cleaned } = self;
        rows.extend(packed.iter().flatten().map(PackedRow::row));
        rows.sort_by_key(|row| (row.series, row.window_start));
        states.extend(packed.iter().flatten().filter_map(PackedRow::live_state));
        states.sort_by_key(|state| state.series);
        cleaned.sort_unstable();
        Batch { class, upper, at, worker, rows, states, cleaned }
    }
}
