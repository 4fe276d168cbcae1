//! What the tests share: a database in a directory of its own, definitions, rows and emissions in few words, and a store
//! that fails to order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataflows::types::{
    Amount, Definition, Epoch, LiveState, Micros, Operation, Row, RowKind, SeriesId, SeriesKey, SeriesRecord,
    SeriesSpec, Span, Tally,
};
use tempfile::TempDir;
use tracktags::clock::MockClock;
use tracktags::engine::{Emission, Stored};
use tracktags::sinks::{HistorySink, Options, SinkHealth};
use tracktags::store::{
    ALL_SERIES, History, HistoryQuery, Part, PartRows, Progress, SqliteHistory, SqliteStore, Store,
    StoreError,
};

pub const JOURNAL: &str = "journal-1";
/// T of epoch 0; the T of an epoch is that many seconds later.
pub const T0: Micros = Micros::from_seconds(1_795_500_000);

/// A database file, and SQL on it as a user would run it.
pub struct Database(TempDir);

impl Database {
    pub fn new() -> Database {
        Database(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.0.path().join("history.db")
    }

    pub fn store(&self) -> SqliteStore {
        SqliteStore::open(self.path()).expect("the store opens")
    }

    pub fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).expect("the file opens")
    }

    /// Every row of a query, columns joined by `|`, `-` for NULL.
    pub fn lines(&self, query: &str) -> Vec<String> {
        let connection = self.sql();
        let mut statement = connection.prepare(query).expect("the query is valid");
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let cells = (0..columns).map(|column| {
                Ok(match row.get::<_, rusqlite::types::Value>(column)? {
                    rusqlite::types::Value::Null => "-".to_owned(),
                    rusqlite::types::Value::Integer(integer) => integer.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    other => format!("{other:?}"),
                })
            });
            Ok(cells.collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
        });
        rows.and_then(|rows| rows.collect()).expect("the query runs")
    }

    /// The whole history of a series: (start in seconds, sum, count, value), newest first.
    pub fn history(&self, series: u32) -> Vec<(i64, i64, u64, i64)> {
        let query =
            HistoryQuery { series: SeriesId(series), start: None, end: None, before: None, limit: 10_000 };
        let page = SqliteHistory::new(self.path()).rows(&query, Span::S15).expect("history is readable");
        let units = |amount: Amount| (amount.0 / Amount::UNIT) as i64;
        page.rows
            .iter()
            .map(|row| (row.window_start.seconds(), units(row.tally.sum), row.tally.count, units(row.value)))
            .collect()
    }
}

pub fn spec() -> SeriesSpec {
    SeriesSpec { flush_interval: Span::S5, ..SeriesSpec::default() }
}

/// `series` is created, with this description.
pub fn created_as(series: u32, spec: SeriesSpec) -> Definition {
    let key = SeriesKey {
        business_id: "biz_1".into(),
        customer_id: (series % 2 == 1).then(|| format!("cust_{series}")),
        metric_name: format!("metric_{series}"),
    };
    Definition::SeriesCreated(SeriesRecord { series: SeriesId(series), key, spec, created_at: T0 })
}

pub fn created(series: u32) -> Definition {
    created_as(series, spec())
}

pub fn deleted(series: u32) -> Definition {
    Definition::SeriesDeleted { series: SeriesId(series) }
}

/// The tally of updates of these whole amounts.
pub fn tally(amounts: &[i64]) -> Tally {
    amounts.iter().map(|&units| Tally::of(Amount::from_units(units))).fold(Tally::EMPTY, Tally::merge)
}

/// An absolute row of the five-second window that starts at `start` seconds.
pub fn row(series: u32, start: i64, amounts: &[i64], value: i64) -> Row {
    Row {
        series: SeriesId(series),
        window_start: Micros::from_seconds(start),
        window_end: Micros::from_seconds(start + 5),
        tally: tally(amounts),
        value: Amount::from_units(value),
        kind: RowKind::Absolute,
    }
}

/// A merge row of a SUM series with initial value 0.
pub fn merge(series: u32, start: i64, amounts: &[i64], value_follows: bool) -> Row {
    let sum = amounts.iter().sum();
    let kind = RowKind::Merge { operation: Operation::Sum, initial_value: Amount::ZERO, value_follows };
    Row { kind, ..row(series, start, amounts, sum) }
}

pub fn state(series: u32, amounts: &[i64]) -> LiveState {
    let tally = tally(amounts);
    LiveState { series: SeriesId(series), period_start: None, tally, value: tally.sum }
}

pub fn at(epoch: Epoch) -> Micros {
    Micros(T0.0 + epoch as i64 * Micros::PER_SECOND)
}

pub fn emission(class: Span, upper: Epoch, rows: Vec<Row>) -> Emission {
    Emission { class, upper, at: at(upper), rows, states: Vec::new(), cleaned: Vec::new(), after: None }
}

/// Cleaned series, and by how many seconds the windows had ended whose rows go.
pub fn ended_by(cleaned: &[(u32, i64)]) -> Vec<(SeriesId, Micros)> {
    cleaned.iter().map(|&(series, seconds)| (SeriesId(series), Micros::from_seconds(seconds))).collect()
}

/// Commits definitions alone.
pub fn define(store: &mut dyn Store, epoch: Epoch, definitions: Vec<Definition>) {
    let definitions: Vec<_> = definitions.into_iter().map(|definition| (epoch, definition)).collect();
    store
        .commit(&Part { journal_id: JOURNAL, definitions: &definitions, rows: None })
        .expect("definitions are committed");
}

/// Commits rows of class 15s through `through`.
pub fn put(store: &mut dyn Store, upper: Epoch, rows: &[Row], through: SeriesId) -> Result<(), StoreError> {
    put_all(store, upper, rows, &[], through)
}

pub fn put_all(
    store: &mut dyn Store,
    upper: Epoch,
    rows: &[Row],
    states: &[LiveState],
    through: SeriesId,
) -> Result<(), StoreError> {
    put_cleaned(store, upper, &[], rows, states, through)
}

/// As `put_all`, with series whose rows that had ended by so many seconds go first.
pub fn put_cleaned(
    store: &mut dyn Store,
    upper: Epoch,
    cleaned: &[(u32, i64)],
    rows: &[Row],
    states: &[LiveState],
    through: SeriesId,
) -> Result<(), StoreError> {
    let cleaned = &ended_by(cleaned)[..];
    let mut window_starts: Vec<_> = rows.iter().map(|row| row.window_start).collect();
    window_starts.sort_unstable();
    window_starts.dedup();
    let window_starts = &window_starts;
    let rows = Some(PartRows {
        class: Span::S15,
        upper,
        flushed_at: at(upper),
        window_starts,
        rows,
        states,
        cleaned,
        through,
    });
    store.commit(&Part { journal_id: JOURNAL, definitions: &[], rows })
}

pub fn put_whole(store: &mut dyn Store, upper: Epoch, rows: &[Row]) {
    put(store, upper, rows, ALL_SERIES).expect("rows are committed");
}

/// What a `Faulty` store does with one call of `commit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails, nothing changed.
    Unavailable,
    /// Says that it does not know; nothing changed.
    UnknownLost,
    /// Says that it does not know; committed.
    UnknownKept,
    /// Asks for a human, nothing changed.
    Fatal,
    /// None.
    Works,
}

/// A store that fails as its script says, one entry a commit; works behind the end of it.
pub struct Faulty {
    pub store: SqliteStore,
    pub script: VecDeque<Fault>,
    /// After a failure of any kind progress must be read before the next commit.
    pub unread: bool,
}

impl Faulty {
    pub fn new(store: SqliteStore, script: impl IntoIterator<Item = Fault>) -> Box<Faulty> {
        Box::new(Faulty { store, script: script.into_iter().collect(), unread: true })
    }
}

impl Store for Faulty {
    fn progress(&mut self) -> Result<Progress, StoreError> {
        self.unread = false;
        self.store.progress()
    }

    fn commit(&mut self, part: &Part<'_>) -> Result<(), StoreError> {
        assert!(!self.unread, "a commit behind a failure without reading progress");
        let fault = self.script.pop_front().unwrap_or(Fault::Works);
        self.unread = fault != Fault::Works;
        match fault {
            Fault::Unavailable => Err(StoreError::Unavailable("as ordered".into())),
            Fault::UnknownLost => Err(StoreError::Ambiguous("as ordered".into())),
            Fault::UnknownKept => {
                self.store.commit(part).and(Err(StoreError::Ambiguous("as ordered".into())))
            }
            Fault::Fatal => Err(StoreError::Fatal("as ordered".into())),
            Fault::Works => self.store.commit(part),
        }
    }
}

/// Remembers what it was told.
#[derive(Default)]
pub struct Told {
    pub stored: Mutex<Vec<(Span, Epoch)>>,
    pub definitions: Mutex<Vec<Epoch>>,
}

impl Stored for Told {
    fn stored(&self, class: Span, upper: Epoch) {
        self.stored.lock().expect("not poisoned").push((class, upper));
    }

    fn definitions_stored(&self, upper: Epoch) {
        self.definitions.lock().expect("not poisoned").push(upper);
    }
}

/// A sink with short pauses.
pub struct Running {
    pub sink: HistorySink,
    pub health: Arc<SinkHealth>,
    pub told: Arc<Told>,
}

pub fn run(store: Box<dyn Store>, change: impl FnOnce(&mut Options)) -> Running {
    let (health, told) = (Arc::new(SinkHealth::default()), Arc::new(Told::default()));
    let mut options = Options::new(JOURNAL.into());
    options.retry_min = Duration::from_micros(10);
    options.retry_max = Duration::from_micros(100);
    options.stop_timeout = Duration::from_secs(10);
    change(&mut options);
    let clock = Arc::new(MockClock::at(T0));
    let sink =
        HistorySink::start(store, told.clone(), clock, options, health.clone()).expect("a thread is granted");
    Running { sink, health, told }
}

/// Waits for another thread's doing, for at most ten seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("never: {what}");
}
