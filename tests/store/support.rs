//! What the tests share: a database in a directory of its own, definitions, rows and emissions in few words, and a store
//! that fails to order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use dataflows::types::{
    Amount, Definition, Epoch, LiveState, Micros, Operation, Row, RowKind, SeriesId, SeriesKey, SeriesRecord,
    SeriesSpec, Span, Tally,
};
use tempfile::TempDir;
use tracktags::clock::MockClock;
use tracktags::engine::{Emission, Stored, StoredClasses};
use tracktags::sinks::{HistorySink, Options, SinkHealth};
use tracktags::store::{
    ALL_SERIES, Claim, Content, History, HistoryQuery, Message, Outbox, Part, PartRows, PostgresHistory,
    PostgresStore, Progress, SqliteHistory, SqliteStore, Store, StoreError, Target,
};

use super::support_postgres::Cluster;

pub const JOURNAL: &str = "journal-1";
/// T of epoch 0; the T of an epoch is that many seconds later.
pub const T0: Micros = Micros::from_seconds(1_795_500_000);

/// A database of a kind that the store can be in, and SQL on it as a user would run it.
pub struct Database(Backend);

enum Backend {
    Sqlite(TempDir),
    /// The URL may lead through PgBouncer.
    Postgres {
        cluster: Arc<Cluster>,
        url: String,
    },
}

/// The schema of a `Backend::Postgres`.
pub const SCHEMA: &str = "tracktags";

/// SQLite, PostgreSQL, and PostgreSQL behind PgBouncer in transaction mode, empty. Of the last two, which share a schema,
/// one at a time.
pub fn every_store() -> Vec<Database> {
    let mut cluster = Cluster::start();
    let bounced = cluster.bounced_url();
    let cluster = Arc::new(cluster);
    vec![Database::new(), Database::on(&cluster, cluster.url()), Database::on(&cluster, bounced)]
}

/// Runs a test on every store.
pub fn on_every_store(test: impl Fn(&Database)) {
    for database in every_store() {
        println!("on {}", database.name());
        database.lose_everything();
        test(&database);
    }
}

impl Database {
    /// An SQLite file in a directory of its own.
    pub fn new() -> Database {
        Database(Backend::Sqlite(tempfile::tempdir().expect("a temporary directory")))
    }

    /// An empty schema of a cluster.
    pub fn on(cluster: &Arc<Cluster>, url: String) -> Database {
        let database = Database::existing(cluster, &url);
        database.lose_everything();
        database
    }

    /// The schema of a cluster as it is.
    pub fn existing(cluster: &Arc<Cluster>, url: &str) -> Database {
        Database(Backend::Postgres { cluster: cluster.clone(), url: url.to_owned() })
    }

    fn name(&self) -> String {
        match &self.0 {
            Backend::Sqlite(_) => "SQLite".into(),
            Backend::Postgres { url, .. } => url.clone(),
        }
    }

    /// The file of SQLite.
    pub fn path(&self) -> std::path::PathBuf {
        match &self.0 {
            Backend::Sqlite(directory) => directory.path().join("history.db"),
            Backend::Postgres { .. } => panic!("PostgreSQL has no file"),
        }
    }

    pub fn store(&self) -> AnyStore {
        match &self.0 {
            Backend::Sqlite(_) => AnyStore::Sqlite(SqliteStore::open(self.path()).expect("the store opens")),
            Backend::Postgres { url, .. } => AnyStore::Postgres(Box::new(store_of(url, JOURNAL))),
        }
    }

    pub fn reader(&self) -> Box<dyn History> {
        match &self.0 {
            Backend::Sqlite(_) => Box::new(SqliteHistory::new(self.path())),
            Backend::Postgres { url, .. } => {
                static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
                let runtime = RUNTIME.get_or_init(|| {
                    let mut builder = tokio::runtime::Builder::new_multi_thread();
                    builder.worker_threads(1).enable_all().build().expect("a runtime")
                });
                let history = PostgresHistory::new(target(url), runtime.handle().clone());
                Box::new(history.expect("a pool"))
            }
        }
    }

    /// Runs statements as a user would.
    pub fn execute(&self, sql: &str) {
        match &self.0 {
            Backend::Sqlite(_) => self.sql().execute_batch(sql).expect("the statements run"),
            Backend::Postgres { .. } => self.client().batch_execute(sql).expect("the statements run"),
        }
    }

    /// A connection to the SQLite file.
    pub fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).expect("the file opens")
    }

    fn client(&self) -> postgres::Client {
        let Backend::Postgres { cluster, .. } = &self.0 else { panic!("SQLite has no server") };
        let mut client = cluster.connect();
        client.batch_execute(&format!("SET search_path = {SCHEMA}")).expect("a setting");
        client
    }

    /// The expression in SQL for a time column as seconds since 1970.
    pub fn seconds(&self, column: &str) -> String {
        match &self.0 {
            Backend::Sqlite(_) => format!("unixepoch({column})"),
            Backend::Postgres { .. } => format!("extract(epoch FROM {column})::bigint"),
        }
    }

    /// Makes every write of a row fail whose window starts later than that.
    pub fn refuse_rows_from(&self, start: &str) {
        let zone = if let Backend::Sqlite(_) = &self.0 { "" } else { "Z" };
        self.refuse("metrics", &format!("NEW.window_start > '{start}{zone}'"));
    }

    /// Makes every write of progress fail that is of this class.
    pub fn refuse_progress_of(&self, class: &str) {
        self.refuse("sink_progress", &format!("NEW.class = '{class}'"));
    }

    fn refuse(&self, table: &str, condition: &str) {
        let sqlite = "CREATE TRIGGER stop BEFORE INSERT ON TABLE WHEN CONDITION
            BEGIN SELECT RAISE(ABORT, 'no'); END";
        let postgres = "CREATE OR REPLACE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN RAISE division_by_zero USING MESSAGE = 'no'; END $$;
            CREATE TRIGGER stop BEFORE INSERT ON TABLE FOR EACH ROW WHEN (CONDITION) EXECUTE FUNCTION stop()";
        let sql = if let Backend::Sqlite(_) = &self.0 { sqlite } else { postgres };
        self.execute(&sql.replace("TABLE", table).replace("CONDITION", condition));
    }

    /// Undoes `refuse_rows_from` (`metrics`) or `refuse_progress_of` (`sink_progress`).
    pub fn allow(&self, table: &str) {
        let on = if let Backend::Sqlite(_) = &self.0 { String::new() } else { format!(" ON {table}") };
        self.execute(&format!("DROP TRIGGER stop{on}"));
    }

    /// Makes the database another's, whoever wrote it.
    pub fn give_away(&self) {
        self.execute(match &self.0 {
            Backend::Sqlite(_) => "UPDATE writer SET journal_id = 'journal-2'",
            Backend::Postgres { .. } => "UPDATE writer SET fence = fence + 1",
        });
    }

    /// What a failover to an empty copy does.
    pub fn lose_everything(&self) {
        match &self.0 {
            Backend::Sqlite(_) => {
                for name in ["history.db", "history.db-wal", "history.db-shm"] {
                    let _ = std::fs::remove_file(self.path().with_file_name(name));
                }
            }
            Backend::Postgres { .. } => {
                self.execute(&format!(
                    "SET client_min_messages = error; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"
                ));
            }
        }
    }

    /// Every row of a query, columns joined by `|`, `-` for NULL.
    pub fn lines(&self, query: &str) -> Vec<String> {
        if let Backend::Postgres { .. } = &self.0 {
            return super::support_postgres::lines(&mut self.client(), query);
        }
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
        let page = self.reader().rows(&query, Span::S15).expect("history is readable");
        let units = |amount: Amount| (amount.0 / Amount::UNIT) as i64;
        page.rows
            .iter()
            .map(|row| (row.window_start.seconds(), units(row.tally.sum), row.tally.count, units(row.value)))
            .collect()
    }
}

/// The schema of the tests behind a URL.
pub fn target(url: &str) -> Target {
    Target::new(url, SCHEMA).expect("a usable URL")
}

/// A store that is fed by a journal and takes nothing from anybody.
pub fn store_of(url: &str, journal: &str) -> PostgresStore {
    let claim = Claim { journal_id: journal.into(), take_over: false, adopt: false };
    PostgresStore::new(target(url), claim).expect("a runtime")
}

/// The writing side, of whatever kind.
pub enum AnyStore {
    Sqlite(SqliteStore),
    Postgres(Box<PostgresStore>),
}

impl AnyStore {
    fn inner(&mut self) -> &mut dyn Store {
        match self {
            AnyStore::Sqlite(store) => store,
            AnyStore::Postgres(store) => store.as_mut(),
        }
    }

    /// The outbox beside it.
    pub fn outbox(&self) -> Box<dyn Outbox> {
        let outbox = match self {
            AnyStore::Sqlite(store) => store.outbox(),
            AnyStore::Postgres(store) => store.outbox(),
        };
        outbox.expect("the outbox opens")
    }

    /// What a start on an empty journal reads; none where none starts from the store.
    pub fn content(&mut self) -> Option<Content> {
        match self {
            AnyStore::Sqlite(_) => None,
            AnyStore::Postgres(store) => Some(store.content(T0).expect("readable")),
        }
    }
}

impl Store for AnyStore {
    fn progress(&mut self) -> Result<Progress, StoreError> {
        self.inner().progress()
    }

    fn commit(&mut self, part: &Part<'_>) -> Result<(), StoreError> {
        self.inner().commit(part)
    }

    fn commit_messages(&mut self, upper: Epoch, messages: &[Message]) -> Result<(), StoreError> {
        self.inner().commit_messages(upper, messages)
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
    let rows =
        Some(PartRows { class: Span::S15, upper, flushed_at: at(upper), rows, states, cleaned, through });
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
    pub store: AnyStore,
    pub script: VecDeque<Fault>,
    /// After a failure of any kind progress must be read before the next commit.
    pub unread: bool,
}

impl Faulty {
    pub fn new(store: AnyStore, script: impl IntoIterator<Item = Fault>) -> Box<Faulty> {
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

    fn commit_messages(&mut self, upper: Epoch, messages: &[Message]) -> Result<(), StoreError> {
        self.store.commit_messages(upper, messages)
    }
}

/// Remembers what it was told.
#[derive(Default)]
pub struct Told {
    pub stored: Mutex<Vec<(Span, Epoch)>>,
    pub definitions: Mutex<Vec<Epoch>>,
    pub crossings: Mutex<Vec<Epoch>>,
    pub read: Mutex<Vec<StoredClasses>>,
}

impl Stored for Told {
    fn stored(&self, class: Span, upper: Epoch) {
        self.stored.lock().expect("not poisoned").push((class, upper));
    }

    fn progress_read(&self, classes: &StoredClasses, _: &BTreeMap<Span, Epoch>) {
        self.read.lock().expect("not poisoned").push(classes.clone());
    }

    fn crossings_stored(&self, upper: Epoch) {
        self.crossings.lock().expect("not poisoned").push(upper);
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
