//! The start on an empty journal against a store that has content: series as of their last batch.
//!
//! In: what the store has, read by whoever starts the service. Out: registry and workers as a snapshot would have left
//! them, with nothing to emit. The journal knows nothing of it until a snapshot is taken, which must be before anything
//! is answered.

use std::sync::PoisonError;

use dataflows::hydration::hydrated;
use dataflows::types::{Definition, LiveState, Micros, Row, SeriesId, SeriesState};

use super::Shared;
use super::replay::{feed_limits, restore_states};
use crate::control::SeriesHandle;

/// Rebuilds registry and workers from definitions in order, newest live periods in series order, and the last rows of each
/// series in (series, window) order. `next_series` is the first number that no series has had.
pub fn hydrate(
    shared: &Shared,
    definitions: &[Definition],
    next_series: SeriesId,
    states: &[LiveState],
    rows: &[Row],
    now: Micros,
) {
    let mut registry = shared.registry.write().unwrap_or_else(PoisonError::into_inner);
    registry.continue_from(next_series);
    registry.pass(now);
    for definition in definitions {
        registry.apply(definition);
    }
    registry.assume_periods(now);
    let state = |handle: &SeriesHandle| {
        let series = handle.series;
        let live = states.binary_search_by_key(&series, |state| state.series).ok();
        let rows = &rows[rows.partition_point(|row| row.series < series)..];
        let rows = &rows[..rows.partition_point(|row| row.series == series)];
        hydrated(series, registry.shape(handle), live.map(|index| &states[index]), rows, now)
    };
    let states: Vec<SeriesState> = registry.series().map(state).collect();
    drop(registry);
    restore_states(shared, states);
    feed_limits(shared, 0, now);
}
