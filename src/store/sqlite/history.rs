//! Reading history: a few read-only connections, opened when first needed, each page in a transaction of its own, so that
//! rows and progress are of one moment.
//!
//! Pages are stretches of the clustered key, read backwards: the cost is the rows shown, not the rows kept.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dataflows::types::{Amount, Micros, Span, Tally};
use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, params};

use super::super::text::{read_amount, read_time, time};
use super::super::{AuditQuery, AuditRow, History, HistoryPage, HistoryQuery, HistoryRow, StoreError};
use super::{BUSY_TIMEOUT, audit, progress_of, refused};

/// Connections at most; more readers wait for one.
const READERS_MAX: usize = 4;
/// How long a reader waits for a connection.
const READER_TIMEOUT: Duration = Duration::from_secs(5);

/// The reading side of a SQLite file that a `SqliteStore` has opened before.
pub struct SqliteHistory {
    path: PathBuf,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    in_use: usize,
}

impl SqliteHistory {
    /// Opens nothing yet.
    pub fn new(path: impl Into<PathBuf>) -> SqliteHistory {
        SqliteHistory { path: path.into(), pool: Mutex::default(), returned: Condvar::new() }
    }

    /// Runs `read` on a connection of the pool. One that failed is not used again.
    fn with<T>(&self, read: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let place = self.place()?;
        let mut connection = match place.idle_connection() {
            Some(connection) => connection,
            None => self.connect().map_err(|error| refused(&error))?,
        };
        let result = read(&mut connection).map_err(|error| refused(&error))?;
        self.lock().idle.push(connection);
        Ok(result)
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }

    /// Waits until fewer than `READERS_MAX` are reading.
    fn place(&self) -> Result<Place<'_>, StoreError> {
        let (mut pool, waited) = self
            .returned
            .wait_timeout_while(self.lock(), READER_TIMEOUT, |pool| pool.in_use >= READERS_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(StoreError::Unavailable("all readers of the history database are busy".into()));
        }
        pool.in_use += 1;
        Ok(Place(self))
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to use one connection; given back on drop, whatever happened to the connection.
struct Place<'a>(&'a SqliteHistory);

impl Place<'_> {
    fn idle_connection(&self) -> Option<Connection> {
        self.0.lock().idle.pop()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().in_use -= 1;
        self.0.returned.notify_one();
    }
}

impl History for SqliteHistory {
    fn rows(&self, query: &HistoryQuery, class: Span) -> Result<HistoryPage, StoreError> {
        // Before and behind every time text.
        let start = query.start.map_or_else(String::new, time);
        let end = [query.end, query.before].into_iter().flatten().min().map_or_else(|| "~".into(), time);
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        self.with(|connection| {
            let snapshot = connection.transaction()?;
            let progress = progress_of(&snapshot, class.text())?;
            let rows = snapshot
                .prepare_cached(
                    "SELECT window_start, window_end, flushed_at, value, sum, count, min, max FROM metrics
                     WHERE series_id = ?1 AND window_start >= ?2 AND window_start < ?3
                     ORDER BY window_start DESC LIMIT ?4",
                )?
                .query_map(params![query.series.0, start, end, limit], history_row)?
                .collect::<rusqlite::Result<_>>()?;
            Ok(HistoryPage { rows, progress })
        })
    }

    fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
        self.with(|connection| audit::read(connection, query))
    }

    fn ready(&self) -> bool {
        self.with(|connection| connection.query_row("SELECT count(*) FROM writer", [], |_| Ok(()))).is_ok()
    }
}

fn history_row(columns: &rusqlite::Row<'_>) -> rusqlite::Result<HistoryRow> {
    Ok(HistoryRow {
        window_start: time_at(columns, 0)?,
        window_end: time_at(columns, 1)?,
        flushed_at: Some(time_at(columns, 2)?),
        value: amount_at(columns, 3)?,
        tally: tally_at(columns, 4)?,
    })
}

/// Reads (sum, count, min, max) from column `first` on.
pub(super) fn tally_at(columns: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Tally> {
    let sum = amount_at(columns, first)?;
    let count = columns.get::<_, i64>(first + 1)?.cast_unsigned();
    if count == 0 {
        return Ok(Tally { sum, ..Tally::EMPTY });
    }
    Ok(Tally { sum, count, min: amount_at(columns, first + 2)?, max: amount_at(columns, first + 3)? })
}

/// Reads an amount.
pub(super) fn amount_at(columns: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Amount> {
    read_amount(columns.get_ref(column)?.as_str()?).ok_or_else(|| foreign(column, "not a decimal amount"))
}

/// Reads a time.
pub(super) fn time_at(columns: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Micros> {
    read_time(columns.get_ref(column)?.as_str()?).ok_or_else(|| foreign(column, "not an RFC 3339 time"))
}

/// A text that this program does not write.
pub(super) fn foreign(column: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.into())
}
