//! The store as the sink leaves it: rows by primary key, written an emission at a time, what was cleaned before that.

use std::collections::BTreeMap;

use dataflows::reference::Emission;
use dataflows::types::{Amount, Epoch, Micros, Reading, Row, RowKind, SeriesId, Span, Tally};

/// A row of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub end: Micros,
    pub tally: Tally,
    pub value: Amount,
    /// Whether a difference was ever merged into it.
    pub is_merged: bool,
}

/// All rows, and the emissions that wait to be written.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub rows: BTreeMap<(SeriesId, Micros), Stored>,
    waiting: BTreeMap<(Epoch, Span), Emission>,
}

impl Store {
    /// An emission is on its way.
    pub fn send(&mut self, key: &(Epoch, Span), emission: &Emission) {
        self.waiting.insert(*key, emission.clone());
    }

    /// The transactions of an emission have succeeded for the series up to and including this one.
    pub fn commit(&mut self, class: Span, upper: Epoch, through: SeriesId) {
        let Some(emission) = self.waiting.remove(&(upper, class)) else { return };
        for (series, ended_by) in emission.cleaned.iter().filter(|(series, _)| *series <= through) {
            self.rows.retain(|(of, _), row| of != series || row.end > *ended_by);
        }
        emission.rows.iter().filter(|row| row.series <= through).for_each(|row| self.write(row));
    }

    /// A crash: what is on its way is lost.
    pub fn lose_what_waits(&mut self) {
        self.waiting.clear();
    }

    fn write(&mut self, row: &Row) {
        let &Row { series, window_start, window_end: end, tally, value, kind } = row;
        let known = self.rows.get(&(series, window_start)).copied();
        let new = match (kind, known) {
            (RowKind::Absolute, known) => {
                Stored { end, tally, value, is_merged: known.is_some_and(|known| known.is_merged) }
            }
            (RowKind::Merge { .. }, None) => Stored { end, tally, value, is_merged: true },
            (RowKind::Merge { operation, initial_value, value_follows }, Some(known)) => {
                let tally = known.tally.merge(tally);
                let followed = Reading { operation, initial_value }.value(&tally);
                let value = if value_follows { followed } else { known.value };
                Stored { tally, value, is_merged: true, ..known }
            }
        };
        self.rows.insert((series, window_start), new);
    }
}
