//! Batch: brings what meter emitted at a time entry into the order in which the store takes it.
//!
//! | in | out |
//! |---|---|
//! | the changed rows of one class, in slot order | the same in (series, window) order |
//!
//! Within one process a worker's share of a time entry is whole as soon as its meter has applied it, so it is handed on
//! at once; what another process owns would be held here until the frontier has passed the epoch. No state.

use crate::types::Batch;

/// Sorts the rows of a batch by (series, window), its states by series. Free when slots were given in series order.
pub(crate) fn order(batch: &mut Batch) {
    if !batch.rows.is_sorted_by_key(|row| (row.series, row.window_start)) {
        batch.rows.sort_unstable_by_key(|row| (row.series, row.window_start));
    }
    if !batch.states.is_sorted_by_key(|state| state.series) {
        batch.states.sort_unstable_by_key(|state| state.series);
    }
}
