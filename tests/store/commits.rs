//! What a commit of the SQLite store leaves behind.

use dataflows::types::{Amount, Operation, RowKind, SeriesId, Span};
use tracktags::store::{ALL_SERIES, Part, Progress, SqliteStore, Store, StoreError};

use super::support::*;

const ROWS: &str = "SELECT * FROM metrics ORDER BY series_id, window_start";

#[test]
fn a_row_says_whose_it_is_and_what_was_counted() {
    on_every_store(|database| {
        let mut store = database.store();
        let mut tagged = spec();
        tagged.tags.insert("env".into(), "prod".into());
        define(&mut store, 1, vec![created(2), created_as(3, tagged)]);
        put_whole(&mut store, 5, &[row(2, 1_795_500_000, &[1, 2, 4], 70), row(3, 1_795_500_005, &[-5], -5)]);
        assert_eq!(
            database.lines(ROWS),
            [
                "2|2026-11-24T06:00:00.000000Z|2026-11-24T06:00:05.000000Z|biz_1|business|-|metric_2|checkpoint|SUM|\
                 70.0|7.0|3|1.0|4.0|2.333333333|{}|2026-11-24T06:00:04.999995Z",
                "3|2026-11-24T06:00:05.000000Z|2026-11-24T06:00:10.000000Z|biz_1|customer|cust_3|metric_3|checkpoint|\
                 SUM|-5.0|-5.0|1|-5.0|-5.0|-5.0|{\"env\":\"prod\"}|2026-11-24T06:00:05.000000Z",
            ]
        );
    });
}

#[test]
fn a_later_batch_replaces_a_row_and_a_repeated_one_changes_nothing() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![created(1)]);
        put_whole(&mut store, 5, &[row(1, 100, &[1], 1)]);
        put_whole(&mut store, 6, &[row(1, 100, &[1, 2], 3)]);
        let after = database.lines(ROWS);
        put_whole(&mut store, 6, &[row(1, 100, &[9], 9)]);
        put_whole(&mut store, 5, &[row(1, 100, &[1], 1)]);
        assert_eq!(database.lines(ROWS), after);
        assert_eq!(database.history(1), [(100, 3, 2, 3)]);
    });
}

#[test]
fn flushed_at_rises_with_window_start_across_the_series_of_a_batch() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![created(1), created(2)]);
        put_whole(
            &mut store,
            5,
            &[
                row(1, 100, &[1], 1),
                row(1, 110, &[1], 2),
                row(2, 95, &[1], 1),
                row(2, 105, &[1], 2),
                row(2, 110, &[1], 3),
            ],
        );
        let by_start =
            database.lines("SELECT window_start, flushed_at FROM metrics ORDER BY window_start, series_id");
        let by_flush =
            database.lines("SELECT window_start, flushed_at FROM metrics ORDER BY flushed_at, series_id");
        assert_eq!(by_start, by_flush);
        assert_eq!(database.lines("SELECT count(DISTINCT flushed_at) FROM metrics"), ["4"]);
    });
}

#[test]
fn a_merge_row_adds_to_what_is_there_or_begins_a_row() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![created(1)]);
        put_whole(&mut store, 5, &[row(1, 100, &[1, 2], 50), row(1, 105, &[4], 54)]);
        put_whole(
            &mut store,
            6,
            &[merge(1, 95, &[8], false), merge(1, 100, &[16], false), merge(1, 105, &[32], true)],
        );
        assert_eq!(database.history(1), [(105, 36, 2, 36), (100, 19, 3, 50), (95, 8, 1, 8)]);
        assert_eq!(database.lines("SELECT min, max FROM metrics WHERE count = 3"), ["1.0|16.0"]);
    });
}

#[test]
fn an_inserted_merge_row_is_read_with_the_initial_value() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![created(1)]);
        let initial_value = Amount::from_units(7);
        let kind = RowKind::Merge { operation: Operation::Count, initial_value, value_follows: true };
        let first = dataflows::types::Row { kind, ..merge(1, 100, &[5, 5], true) };
        put_whole(&mut store, 5, &[first]);
        assert_eq!(database.history(1), [(100, 10, 2, 9)]);
        put_whole(&mut store, 6, &[first]);
        assert_eq!(database.history(1), [(100, 20, 4, 11)]);
    });
}

#[test]
fn a_part_cut_elsewhere_merges_only_what_is_new() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![created(1), created(2), created(3)]);
        let rows = [merge(1, 100, &[1], false), merge(2, 100, &[1], false), merge(3, 100, &[1], false)];
        let states = [state(1, &[1]), state(2, &[1]), state(3, &[1])];
        put_all(&mut store, 5, &rows[..2], &states[..2], SeriesId(2)).expect("committed");
        assert_eq!(store.progress().expect("readable").classes[&Span::S15], (5, SeriesId(2)));
        put_all(&mut store, 5, &rows, &states, ALL_SERIES).expect("committed");
        put_all(&mut store, 5, &rows[1..], &states[1..], ALL_SERIES).expect("committed");
        for series in 1..=3 {
            assert_eq!(database.history(series), [(100, 1, 1, 1)]);
        }
        assert_eq!(database.lines("SELECT count(*) FROM series_state"), ["3"]);
    });
}

#[test]
fn a_deleted_series_writes_nothing_and_its_history_stays() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![created(1)]);
        put_all(&mut store, 5, &[row(1, 100, &[1], 1)], &[state(1, &[1])], ALL_SERIES).expect("committed");
        define(&mut store, 6, vec![deleted(1)]);
        put_all(
            &mut store,
            7,
            &[merge(1, 100, &[1], false), row(1, 105, &[2], 3), row(9, 105, &[2], 3)],
            &[state(1, &[3])],
            ALL_SERIES,
        )
        .expect("committed");
        assert_eq!(database.history(1), [(100, 1, 1, 1)]);
        assert_eq!(database.history(9), []);
        assert_eq!(database.lines("SELECT * FROM series_state"), [""; 0]);
        assert_eq!(database.lines("SELECT * FROM series"), [""; 0]);
        assert_eq!(store.progress().expect("readable").classes[&Span::S15], (7, ALL_SERIES));
    });
}

#[test]
fn definitions_that_are_in_are_not_applied_again() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![created(1)]);
        define(&mut store, 3, vec![deleted(1), created(2)]);
        // A replay begins further back; what was deleted since must not come back even for a moment.
        define(&mut store, 1, vec![created(1)]);
        assert_eq!(database.lines("SELECT series_id FROM series"), ["2"]);
        let definitions = [(1, created(1)), (3, deleted(1)), (3, created(2)), (4, created(4))];
        store
            .commit(&Part { journal_id: JOURNAL, definitions: &definitions, rows: None })
            .expect("committed");
        assert_eq!(database.lines("SELECT series_id FROM series"), ["2", "4"]);
        assert_eq!(store.progress().expect("readable").definitions, 4);
    });
}

#[test]
fn a_transaction_that_fails_leaves_nothing() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![created(1)]);
        let rows = [row(1, 100, &[1], 1), row(1, 105, &[1], 2)];
        let definitions = [(2, created(2))];
        let part = |rows| tracktags::store::PartRows {
            class: Span::S15,
            upper: 5,
            flushed_at: at(5),
            rows,
            states: &[],
            cleaned: &[],
            through: ALL_SERIES,
        };
        let part = Part { journal_id: JOURNAL, definitions: &definitions, rows: Some(part(&rows)) };
        let mut leaves_nothing = |table: &str| {
            assert!(matches!(store.commit(&part), Err(StoreError::Fatal(_))), "{table}");
            assert_eq!(database.history(1), [], "{table}");
            assert_eq!(database.lines("SELECT series_id FROM series"), ["1"], "{table}");
            database.allow(table);
        };
        // The third write fails: the definitions and the first row must go with it.
        database.refuse_rows_from("1970-01-01T00:01:41");
        leaves_nothing("metrics");
        // All is written when progress fails: of the rows, of the definitions.
        for class in ["15s", "definitions"] {
            database.refuse_progress_of(class);
            leaves_nothing("sink_progress");
        }
        store.commit(&part).expect("the store goes on by itself");
        assert_eq!(database.history(1).len(), 2);
    });
}

#[test]
fn progress_survives_reopening() {
    on_every_store(|database| {
        let progress = database.store().progress().expect("readable");
        assert_eq!(progress, Progress { journal_id: progress.journal_id.clone(), ..Progress::default() });
        let mut store = database.store();
        define(&mut store, 3, vec![created(1)]);
        put(&mut store, 5, &[row(1, 100, &[1], 1)], SeriesId(1)).expect("committed");
        drop(store);
        let progress = database.store().progress().expect("readable");
        assert_eq!(progress.journal_id.as_deref(), Some(JOURNAL));
        assert_eq!(progress.definitions, 3);
        assert_eq!(progress.classes.into_iter().collect::<Vec<_>>(), [(Span::S15, (5, SeriesId(1)))]);
    });
}

#[test]
fn another_journal_is_refused_with_advice() {
    let database = Database::new();
    let mut store = database.store();
    define(&mut store, 1, vec![created(1)]);
    let definitions = [(9, created(9))];
    let foreign = Part { journal_id: "journal-2", definitions: &definitions, rows: None };
    let Err(StoreError::Fatal(sentence)) = store.commit(&foreign) else { panic!("refused") };
    assert!(
        sentence.contains("journal-1")
            && sentence.contains("journal-2")
            && sentence.contains("move the database away")
    );
    assert_eq!(database.lines("SELECT series_id FROM series"), ["1"]);
}

#[test]
fn a_locked_database_is_unavailable_and_a_foreign_file_fatal() {
    let database = Database::new();
    let mut store = database.store();
    let other = database.sql();
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let part = Part { journal_id: JOURNAL, definitions: &[], rows: None };
    assert!(matches!(store.commit(&part), Err(StoreError::Unavailable(_))));
    other.execute_batch("ROLLBACK").expect("unlocked");
    assert_eq!(store.commit(&part), Ok(()));

    let foreign = Database::new();
    std::fs::write(foreign.path(), "this is a text file, and a rather long one at that ".repeat(50))
        .expect("written");
    assert!(matches!(SqliteStore::open(foreign.path()), Err(StoreError::Fatal(_))));
    let nowhere = foreign.path().join("no/such/directory.db");
    assert!(matches!(SqliteStore::open(nowhere), Err(StoreError::Unavailable(_))));
}

#[test]
fn a_database_of_a_newer_program_is_left_alone() {
    let database = Database::new();
    drop(database.store());
    let record =
        "INSERT INTO schema_migrations SELECT MAX(version) + 1, 'later', 'sum', '' FROM schema_migrations";
    database.sql().execute_batch(record).expect("recorded");
    let Err(StoreError::Fatal(sentence)) = SqliteStore::open(database.path()) else { panic!("refused") };
    let newer = database.lines("SELECT MAX(version) FROM schema_migrations").concat();
    assert!(sentence.contains(&format!("version {newer} ")) && sentence.contains("newer"), "{sentence}");
}
