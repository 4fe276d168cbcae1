//! What a row leaves in the store, given what is there.
//!
//! | row | what is written |
//! |---|---|
//! | absolute | as it is: insert or replace |
//! | merge, no such row | the tally, with the reading of that tally as value |
//! | merge, row exists | both tallies merged; the value stays, or is the reading of the merged tally if it follows |
//!
//! Pure. Which rows are due is the caller's decision.

use dataflows::types::{Amount, Reading, Row, RowKind, Tally};

/// The numbers of a row of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// The window's own tally.
    pub tally: Tally,
    /// The reading of its live period.
    pub value: Amount,
}

/// See the header.
pub(super) fn written(row: &Row, stored: Option<&Stored>) -> Stored {
    let RowKind::Merge { operation, initial_value, value_follows } = row.kind else {
        return Stored { tally: row.tally, value: row.value };
    };
    let reading = Reading { operation, initial_value };
    match stored {
        None => Stored { tally: row.tally, value: reading.value(&row.tally) },
        Some(stored) => {
            let tally = stored.tally.merge(row.tally);
            Stored { tally, value: if value_follows { reading.value(&tally) } else { stored.value } }
        }
    }
}
