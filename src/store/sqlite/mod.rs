//! The embedded store: one SQLite file, one writer, a few readers.
//!
//! WAL, so that readers (ours and the user's) never wait for the writer; `synchronous = FULL`, so that a commit is on
//! the disk when it returns. `rows` writes what emissions bring, `definitions`, `plans` and `slices` the projection, `history` reads,
//! `outbox` keeps messages.
//!
//! A connection that met an error is dropped and the next call opens a new one: what a failed statement or COMMIT left
//! behind is rolled back by SQLite itself. A COMMIT that failed for anything but a lock is ambiguous: its frames may be
//! in the WAL and a later recovery may find them whole.

mod audit;
mod definitions;
mod history;
mod outbox;
mod plans;
mod rows;
mod slices;
mod stripe;
mod templates;

pub use history::SqliteHistory;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dataflows::types::{Definition, Epoch, SeriesId, Span};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use super::migrations::{self, Migration};
use super::{ALL_SERIES, DEFINITIONS, Message, Outbox, Part, Progress, Store, StoreError, in_epochs};

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Memory for pages, in KiB (negative: that is how SQLite tells it from a count of pages).
const CACHE_KIB: i64 = -32_768;
/// The WAL file is cut back to this after a burst.
const WAL_BYTES_KEPT: i64 = 64 << 20;

/// Which journal fed the database when a store, or an outbox beside it, first wrote; unset before. Who finds another one there
/// has lost it.
type Journal = Arc<OnceLock<String>>;

/// The writing side of a SQLite file.
pub struct SqliteStore {
    path: PathBuf,
    /// None after an error.
    connection: Option<Connection>,
    journal: Journal,
}

impl SqliteStore {
    /// Opens or makes the file and brings its schema up to date. The directory must exist.
    pub fn open(path: impl Into<PathBuf>) -> Result<SqliteStore, StoreError> {
        let path = path.into();
        let connection = Some(connect(&path)?);
        Ok(SqliteStore { path, connection, journal: Journal::default() })
    }

    /// The outbox of this file, on a connection of its own.
    pub fn outbox(&self) -> Result<Box<dyn Outbox>, StoreError> {
        let (path, journal) = (self.path.clone(), self.journal.clone());
        let connection = Some(connect(&path)?);
        Ok(Box::new(outbox::SqliteOutbox(SqliteStore { path, connection, journal })))
    }

    /// Runs `work` on the connection, which is thrown away if it fails.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        let result = work(&mut connection)?;
        self.connection = Some(connection);
        Ok(result)
    }
}

impl Store for SqliteStore {
    fn progress(&mut self) -> Result<Progress, StoreError> {
        self.with(|connection| {
            let snapshot = connection.transaction().map_err(|error| refused(&error))?;
            read_progress(&snapshot).map_err(|error| refused(&error))
        })
    }

    fn commit(&mut self, part: &Part<'_>) -> Result<(), StoreError> {
        self.with(|connection| {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(|error| refused(&error))?;
            claim(&transaction, part.journal_id)?;
            apply(&transaction, part).map_err(|error| refused(&error))?;
            transaction.commit().map_err(|error| unsettled(&error))
        })?;
        self.journal.get_or_init(|| part.journal_id.to_owned());
        Ok(())
    }

    fn commit_messages(&mut self, upper: Epoch, messages: &[Message]) -> Result<(), StoreError> {
        let journal = self.journal.clone();
        self.with(|connection| {
            outbox::fenced(connection, &journal, |transaction| outbox::put(transaction, upper, messages))
        })
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let open = || -> rusqlite::Result<(Connection, String)> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", CACHE_KIB)?;
        connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok((connection, mode))
    };
    let (mut connection, mode) = open().map_err(|error| refused(&error))?;
    if mode != "wal" {
        return Err(StoreError::Fatal(format!(
            "{} cannot use a write-ahead log here: put the data directory on a local file system",
            path.display()
        )));
    }
    migrate(&mut connection, migrations::SQLITE)?;
    Ok(connection)
}

/// Applies what is missing of `known`, in one transaction with its record.
fn migrate(connection: &mut Connection, known: &[Migration]) -> Result<(), StoreError> {
    let refused = |error: rusqlite::Error| refused(&error);
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(refused)?;
    transaction
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_migrations (
                 version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at TEXT NOT NULL
             ) STRICT",
        )
        .map_err(refused)?;
    let applied: Vec<(u32, String)> = transaction
        .prepare("SELECT version, checksum FROM schema_migrations ORDER BY version")
        .and_then(|mut record| record.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .map_err(refused)?;
    for step in migrations::missing(known, &applied)? {
        transaction.execute_batch(step.sql).map_err(refused)?;
        transaction
            .execute(
                "INSERT INTO schema_migrations VALUES (?1, ?2, ?3, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
                params![step.version, step.name, step.checksum()],
            )
            .map_err(refused)?;
    }
    transaction.commit().map_err(refused)
}

/// Makes sure that the database is fed by this journal alone.
fn claim(transaction: &Transaction<'_>, journal_id: &str) -> Result<(), StoreError> {
    let owner = transaction
        .prepare_cached(
            "INSERT INTO writer VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET one = 1 RETURNING journal_id",
        )
        .and_then(|mut claim| claim.query_row([journal_id], |row| row.get::<_, String>(0)))
        .map_err(|error| refused(&error))?;
    if owner != journal_id {
        return Err(StoreError::Fatal(format!(
            "the database belongs to journal {owner} and this is journal {journal_id}: bring back the journal that \
             belongs to it, or move the database away to begin a new one"
        )));
    }
    Ok(())
}

fn apply(transaction: &Transaction<'_>, part: &Part<'_>) -> rusqlite::Result<()> {
    let definitions_done = progress_of(transaction, DEFINITIONS)?.map_or(0, |(epoch, _)| epoch);
    let class = part.rows.as_ref().map(|rows| rows.class.text());
    let done = class.map(|class| progress_of(transaction, class)).transpose()?.flatten();
    let due = part.due(definitions_done, done);
    for (epoch, index, definition) in in_epochs(due.definitions) {
        match definition {
            Definition::Audited(entry) => audit::put(transaction, epoch, index, entry)?,
            definition => definitions::project(transaction, definition)?,
        }
    }
    if let Some((epoch, _)) = due.definitions.last() {
        put_progress(transaction, DEFINITIONS, *epoch, ALL_SERIES)?;
    }
    if let Some((rows, after)) = due.rows {
        rows::write(transaction, rows, after)?;
        put_progress(transaction, rows.class.text(), rows.upper, rows.through)?;
    }
    Ok(())
}

fn progress_of(connection: &Connection, class: &str) -> rusqlite::Result<Option<(Epoch, SeriesId)>> {
    connection
        .prepare_cached("SELECT upper, through_series FROM sink_progress WHERE class = ?1")?
        .query_row([class], |row| Ok((epoch(row.get(0)?), SeriesId(row.get(1)?))))
        .optional()
}

fn put_progress(
    transaction: &Transaction<'_>,
    class: &str,
    upper: Epoch,
    through: SeriesId,
) -> rusqlite::Result<()> {
    let whole = if through == ALL_SERIES { upper } else { 0 };
    transaction
        .prepare_cached(
            "INSERT INTO sink_progress VALUES (?1, ?2, ?3, ?4) ON CONFLICT (class) DO UPDATE
             SET upper = excluded.upper, through_series = excluded.through_series,
                 whole_upper = max(whole_upper, excluded.whole_upper)",
        )?
        .execute(params![class, upper.cast_signed(), through.0, whole.cast_signed()])?;
    Ok(())
}

fn read_progress(connection: &Connection) -> rusqlite::Result<Progress> {
    let journal_id =
        connection.query_row("SELECT journal_id FROM writer", [], |row| row.get(0)).optional()?;
    let mut progress = Progress { journal_id, ..Progress::default() };
    progress.definitions = progress_of(connection, DEFINITIONS)?.map_or(0, |(epoch, _)| epoch);
    for class in Span::FLUSH {
        if let Some(done) = progress_of(connection, class.text())? {
            progress.classes.insert(class, done);
            let whole = connection
                .prepare_cached("SELECT whole_upper FROM sink_progress WHERE class = ?1")?
                .query_row([class.text()], |row| row.get(0))?;
            progress.whole.insert(class, epoch(whole));
        }
    }
    Ok(progress)
}

/// Epochs are counted from 1 and stay far below 2^63; the column is SQLite's signed integer.
fn epoch(column: i64) -> Epoch {
    column.cast_unsigned()
}

/// An error before COMMIT: nothing was changed.
fn refused(error: &rusqlite::Error) -> StoreError {
    use ErrorCode::*;
    match error.sqlite_error_code() {
        Some(
            DatabaseBusy
            | DatabaseLocked
            | OutOfMemory
            | OperationInterrupted
            | OperationAborted
            | SystemIoFailure
            | DiskFull
            | CannotOpen
            | FileLockingProtocolFailed
            | SchemaChanged,
        ) => StoreError::Unavailable(error.to_string()),
        Some(DatabaseCorrupt | NotADatabase) => StoreError::Fatal(format!(
            "the history database is damaged ({error}): restore it from a backup, or move it away to begin a new one"
        )),
        Some(ReadOnly | PermissionDenied) => StoreError::Fatal(format!(
            "the history database cannot be written ({error}): make the file and its directory writable for this user"
        )),
        _ => StoreError::Fatal(format!(
            "the history database does not fit this program ({error}): undo what was changed in it by hand, or move \
             it away to begin a new one"
        )),
    }
}

/// An error of COMMIT itself.
fn unsettled(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Unavailable(error.to_string())
        }
        _ => StoreError::Ambiguous(error.to_string()),
    }
}
