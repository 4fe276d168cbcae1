//! What a cleanup leaves in the store: before rows, in parts, again.

use std::sync::Arc;

use dataflows::types::{SeriesId, Span};
use tracktags::engine::{Emission, Sink};
use tracktags::store::ALL_SERIES;

use super::support::*;

/// Three rows of series 1 to 3 each, and their states.
fn filled(database: &Database) -> AnyStore {
    let mut store = database.store();
    define(&mut store, 1, (1..=3).map(created).collect());
    let rows: Vec<_> =
        (1..=3).flat_map(|series| [100, 105, 110].map(|start| row(series, start, &[start], start))).collect();
    let states = [1, 2, 3].map(|series| state(series, &[1]));
    put_all(&mut store, 5, &rows, &states, ALL_SERIES).expect("committed");
    store
}

fn starts(database: &Database, series: u32) -> Vec<i64> {
    database.history(series).into_iter().map(|(start, ..)| start).collect()
}

fn states(database: &Database) -> Vec<String> {
    database.lines("SELECT series_id FROM series_state ORDER BY series_id")
}

#[test]
fn a_cleaned_series_keeps_its_younger_rows_and_its_definition() {
    on_every_store(|database| {
        let mut store = filled(database);
        put_cleaned(&mut store, 6, &[(2, 110)], &[], &[], ALL_SERIES).expect("committed");
        assert_eq!(starts(database, 2), [110], "a row that ends at the bound goes, the next stays");
        assert_eq!((starts(database, 1), starts(database, 3)), (vec![110, 105, 100], vec![110, 105, 100]));
        assert_eq!(states(database), ["1", "3"]);
        assert_eq!(database.lines("SELECT series_id FROM series"), ["1", "2", "3"]);
        assert_eq!(database.lines("SELECT current_value FROM usage_current WHERE series_id = 2"), ["0.0"]);
    });
}

#[test]
fn what_comes_with_a_cleanup_and_behind_it_stays() {
    on_every_store(|database| {
        let mut store = filled(database);
        let rows = [row(2, 100, &[7], 7), merge(2, 105, &[8], true)];
        put_cleaned(&mut store, 6, &[(2, 1_000)], &rows, &[state(2, &[7])], ALL_SERIES).expect("committed");
        assert_eq!(database.history(2), [(105, 8, 1, 8), (100, 7, 1, 7)], "the merge found no row");
        assert_eq!(states(database), ["1", "2", "3"]);
        put_all(&mut store, 7, &[row(2, 95, &[9], 9)], &[], ALL_SERIES).expect("committed");
        // Both come again, as they may behind an unknown outcome.
        put_cleaned(&mut store, 6, &[(2, 1_000)], &rows, &[], ALL_SERIES).expect("committed");
        assert_eq!(starts(database, 2), [105, 100, 95]);
    });
}

#[test]
fn a_cleanup_cut_elsewhere_deletes_nothing_twice() {
    on_every_store(|database| {
        let mut store = filled(database);
        let cleaned = [(1, 1_000), (3, 1_000)];
        let rows = [row(1, 100, &[1], 1), row(3, 100, &[3], 3)];
        put_cleaned(&mut store, 6, &cleaned[..1], &rows[..1], &[], SeriesId(1)).expect("committed");
        assert_eq!((starts(database, 1), starts(database, 3)), (vec![100], vec![110, 105, 100]));
        // Another class may write the series meanwhile.
        database.execute("UPDATE metrics SET value = 77.0 WHERE series_id = 1");
        put_cleaned(&mut store, 6, &cleaned, &rows, &[], ALL_SERIES).expect("committed");
        assert_eq!(database.lines("SELECT value FROM metrics WHERE series_id = 1"), ["77.0"]);
        assert_eq!(starts(database, 3), [100]);
    });
}

#[test]
fn the_rows_of_a_deleted_series_can_be_cleaned() {
    on_every_store(|database| {
        let mut store = filled(database);
        define(&mut store, 6, vec![deleted(2)]);
        put_cleaned(&mut store, 7, &[(2, 110)], &[], &[], ALL_SERIES).expect("committed");
        assert_eq!(starts(database, 2), [110]);
    });
}

#[test]
fn an_emission_of_cleanups_alone_is_cut_and_written() {
    on_every_store(|database| {
        let running = run(Box::new(filled(database)), |options| options.part_rows_max = 2);
        let cleaned = ended_by(&[(1, 105), (2, 110), (3, 1_000)]);
        running.sink.take(Arc::new(Emission { cleaned, ..emission(Span::S15, 6, Vec::new()) }));
        running.sink.stop();
        assert_eq!(starts(database, 1), [110, 105]);
        assert_eq!(starts(database, 2), [110]);
        assert!(starts(database, 3).is_empty() && states(database).is_empty());
        assert_eq!(running.health.transactions(), 3);
        assert_eq!(*running.told.stored.lock().expect("not poisoned"), [(Span::S15, 6)]);
    });
}
