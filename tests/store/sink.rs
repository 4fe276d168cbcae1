//! The history sink on a store that works: order, parts, definitions, figures, stop.

use std::sync::Arc;
use std::time::Duration;

use dataflows::types::{SeriesId, Span};
use tracktags::engine::{Emission, Sink};
use tracktags::store::{ALL_SERIES, Store};

use super::support::*;

/// Longer than any test: definitions then wait for an emission.
const NEVER: Duration = Duration::from_secs(3_600);

#[test]
fn definitions_ride_with_the_emission_behind_them_in_one_transaction() {
    on_every_store(|database| {
        let running = run(Box::new(database.store()), |options| options.definitions_delay = NEVER);
        running.sink.project(1, vec![created(1)]);
        running.sink.project(2, vec![created(2)]);
        assert_eq!(running.health.definitions_waiting(), 2);
        let rows = vec![row(1, 100, &[1], 1), row(2, 100, &[2], 2)];
        running.sink.take(Arc::new(emission(Span::S15, 5, rows)));
        eventually("the emission is stored", || running.told.stored.lock().expect("not poisoned").len() == 1);
        assert_eq!(*running.told.stored.lock().expect("not poisoned"), [(Span::S15, 5)]);
        assert_eq!(*running.told.definitions.lock().expect("not poisoned"), [2]);
        running.sink.stop();
        assert_eq!((database.history(1), database.history(2)), (vec![(100, 1, 1, 1)], vec![(100, 2, 1, 2)]));
        let health = &running.health;
        assert_eq!((health.transactions(), health.rows(), health.definitions_waiting()), (1, 2, 0));
        assert_eq!((health.reason(), health.lag_secs(at(9))), (None, 0.0));
    });
}

#[test]
fn definitions_go_alone_when_no_emission_comes() {
    on_every_store(|database| {
        let running =
            run(Box::new(database.store()), |options| options.definitions_delay = Duration::from_millis(20));
        running.sink.project(4, vec![created(1)]);
        eventually("the definitions are stored", || {
            running.told.definitions.lock().expect("not poisoned").len() == 1
        });
        assert_eq!(database.lines("SELECT series_id FROM series"), ["1"]);
        assert_eq!(*running.told.definitions.lock().expect("not poisoned"), [4]);
    });
}

#[test]
fn a_large_emission_is_cut_between_series_and_reported_once() {
    on_every_store(|database| {
        let running = run(Box::new(database.store()), |options| {
            (options.part_rows_max, options.definitions_delay) = (3, NEVER);
        });
        running.sink.project(1, (0..5).map(created).collect());
        let rows = (0..5).flat_map(|series| [row(series, 105, &[1], 1), row(series, 100, &[1], 1)]);
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        let states = (0..5).map(|series| state(series, &[1])).collect();
        running.sink.take(Arc::new(Emission { states, ..emission(Span::S15, 5, rows) }));
        running.sink.stop();
        assert_eq!(running.health.transactions(), 5, "two rows of a series, and three at most");
        assert_eq!(*running.told.stored.lock().expect("not poisoned"), [(Span::S15, 5)]);
        assert_eq!(database.lines("SELECT count(*) FROM metrics"), ["10"]);
        assert_eq!(database.lines("SELECT count(*) FROM series_state"), ["5"]);
        let flushed = "SELECT window_start, flushed_at FROM metrics GROUP BY window_start, flushed_at";
        assert_eq!(database.lines(flushed).len(), 2, "parts agree about flushed_at");
    });
}

#[test]
fn definitions_beyond_a_transaction_go_before_the_rows() {
    on_every_store(|database| {
        let running = run(Box::new(database.store()), |options| {
            (options.part_definitions_max, options.definitions_delay) = (4, NEVER);
        });
        // Epochs of 3, 3, 6 and 1: one transaction each, the last one with the rows.
        for (epoch, series) in [(1, 0..3), (2, 3..6), (3, 6..12), (4, 12..13)] {
            running.sink.project(epoch, series.map(created).collect());
        }
        running.sink.take(Arc::new(emission(Span::S15, 5, vec![row(12, 100, &[1], 1)])));
        running.sink.stop();
        assert_eq!(running.health.transactions(), 4);
        assert_eq!(*running.told.definitions.lock().expect("not poisoned"), [1, 2, 3, 4]);
        assert_eq!(database.history(12).len(), 1);
    });
}

#[test]
fn a_start_goes_on_where_the_store_is() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![created(1), created(2), created(3)]);
        let rows: Vec<_> = (1..4).map(|series| merge(series, 100, &[1], false)).collect();
        put(&mut store, 5, &rows[..1], SeriesId(1)).expect("committed");
        let running = run(Box::new(store), |_| ());
        // A replay brings definitions again, and what was in doubt.
        running.sink.project(1, vec![created(1), created(2), created(3)]);
        running
            .sink
            .take(Arc::new(Emission { after: Some(SeriesId(1)), ..emission(Span::S15, 5, rows.clone()) }));
        running.sink.take(Arc::new(emission(Span::S15, 5, rows)));
        running.sink.stop();
        for series in 1..4 {
            assert_eq!(database.history(series), [(100, 1, 1, 1)]);
        }
        assert_eq!(running.health.transactions(), 1);
        assert_eq!(*running.told.stored.lock().expect("not poisoned"), [(Span::S15, 5), (Span::S15, 5)]);
        assert_eq!(*running.told.definitions.lock().expect("not poisoned"), [1]);
    });
}

#[test]
fn stop_writes_what_was_taken_and_a_stopped_sink_takes_no_more() {
    on_every_store(|database| {
        let running = run(Box::new(database.store()), |options| options.definitions_delay = NEVER);
        running.sink.project(1, vec![created(1)]);
        running.sink.take(Arc::new(emission(Span::S15, 5, vec![row(1, 100, &[1], 1)])));
        running.sink.take(Arc::new(emission(Span::S30, 6, vec![row(1, 105, &[2], 3)])));
        running.sink.project(7, vec![created(7)]);
        running.sink.stop();
        assert_eq!(*running.told.stored.lock().expect("not poisoned"), [(Span::S15, 5), (Span::S30, 6)]);
        running.sink.take(Arc::new(emission(Span::S15, 8, vec![row(1, 110, &[4], 7)])));
        running.sink.stop();
        let flushed = "SELECT flushed_at FROM metrics ORDER BY window_start";
        // A millionth of their age, of 57 years, before the batches at 06:00:05 and 06:00:06.
        assert_eq!(database.lines(flushed), ["2026-11-24T05:30:09.500095Z", "2026-11-24T05:30:10.500099Z"]);
        let progress = database.store().progress().expect("readable");
        assert_eq!(progress.definitions, 7);
        assert_eq!(progress.classes[&Span::S30], (6, ALL_SERIES));
    });
}
