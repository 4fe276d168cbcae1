//! PostgreSQL as the store: one schema in a database that users already have, Supabase's included.
//!
//! `connect` gets there, `migrate` makes the tables, `rows`, `definitions` and `plans` write, `history` and `content` read,
//! `outbox` keeps messages,
//! `values` is the wire format, `errors` what a failure means. Every statement is typed and unnamed and every setting is of one transaction,
//! so that a pooler in transaction mode may sit in between.
//!
//! Invariants:
//! 1. **One writer.** Each start of a service raises the fence in `writer`; each transaction begins by updating that row
//!    where the fence is its own, which also holds off a transaction of ours that was given up and is still under way.
//!    Whoever finds another fence writes no more, for good.
//! 2. What a part brings is decided by the progress read behind that update: a commit whose answer was lost is found done.
//! 3. Every wait ends: the server's at the time-outs that each transaction sets, ours a little later.
//!
//! What is not done: asking whether a commit of unknown outcome happened; reading progress does.

mod connect;
mod content;
mod definitions;
mod errors;
mod history;
mod migrate;
mod outbox;
mod plans;
mod rows;
mod slices;
mod stripe;
mod templates;
mod values;

pub use connect::Target;
pub use history::PostgresHistory;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dataflows::types::{Epoch, Micros, SeriesId, Span};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Row};

use self::errors::{refused, unsettled};
use super::outbox::MESSAGES;
use super::{
    ALL_SERIES, Content, DEFINITIONS, Due, Message, Outbox, Part, Progress, Store, StoreError, migrations,
};

/// How long one transaction may take before its connection is given up.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a definition more may take, since an epoch of them is never divided.
const DEFINITION_TIMEOUT: Duration = Duration::from_millis(1);
/// How long it may take to continue what another journal has written.
const CONTENT_TIMEOUT: Duration = Duration::from_secs(600);
/// Rows of cleaned series that one transaction deletes at most; what is left takes more of them.
const CLEAN_ROWS_MAX: i64 = 100_000;
/// What holds inside a transaction: no statement, lock or pause of ours may hold others up for long, and a commit is on
/// the disk when it returns.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '50s'; SET LOCAL lock_timeout = '10s'; \
                     SET LOCAL idle_in_transaction_session_timeout = '30s'; SET LOCAL synchronous_commit = on";
/// Moves all entries of the audit log below epoch 1, where a new journal begins, in their order; no two meet on the way.
const AGE_ENTRIES: &str = "
    UPDATE {schema}.audit_log SET epoch = epoch - shift
    FROM (SELECT max(epoch) - least(min(epoch), 0) + 1 AS shift FROM {schema}.audit_log) AS all_entries";
/// For what is done once and may take its time.
const UNHURRIED: &str = "SET LOCAL statement_timeout = '10min'";
/// A writer whose heartbeat is older than this has stopped.
const HEARTBEAT_TIMEOUT_SECS: f64 = 60.0;

/// On whose behalf a store is written.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The journal that feeds it.
    pub journal_id: String,
    /// Take the schema from another service although it is active.
    pub take_over: bool,
    /// Continue what another journal has written: this one is empty.
    pub adopt: bool,
}

/// The writing side of a schema. Connects when first used, and again behind every error.
pub struct PostgresStore {
    target: Target,
    claim: Claim,
    /// This start's fence, once the schema has been claimed; shared with the outboxes of this store.
    fence: Arc<OnceLock<i64>>,
    /// Why nothing is written any more.
    lost: Option<StoreError>,
    /// How long the next transaction may take.
    patience: Duration,
    runtime: Runtime,
    session: Option<Session>,
}

struct Session {
    client: Client,
    connection: JoinHandle<()>,
    /// COMMIT has been sent.
    committing: bool,
}

impl PostgresStore {
    /// Does not connect yet. An error is the operating system's.
    pub fn new(target: Target, claim: Claim) -> std::io::Result<PostgresStore> {
        PostgresStore::behind(Arc::default(), target, claim)
    }

    fn behind(fence: Arc<OnceLock<i64>>, target: Target, claim: Claim) -> std::io::Result<PostgresStore> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(PostgresStore {
            target,
            claim,
            fence,
            lost: None,
            patience: TRANSACTION_TIMEOUT,
            runtime,
            session: None,
        })
    }

    /// Brings the schema up to date and writes nothing else; its version.
    pub fn migrate(target: &Target) -> Result<u32, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        runtime.block_on(async {
            let (mut client, _connection) = target.connect().await?;
            migrate::migrate(&mut client, target, migrations::POSTGRES).await
        })
    }

    /// Progress, if the database gives it within `limit`.
    pub fn progress_within(&mut self, limit: Duration) -> Result<Progress, StoreError> {
        self.patience = limit;
        self.progress()
    }

    /// What a start on an empty journal needs. Claims the schema.
    pub fn content(&mut self, now: Micros) -> Result<Content, StoreError> {
        self.patience = CONTENT_TIMEOUT;
        self.with(async |target, session, _| {
            session.begin_reading().await?;
            let content = content::read(session, target, now).await?;
            session.commit().await?;
            Ok(content)
        })
    }

    /// The outbox of this schema, on a connection of its own and behind this store's fence: not available until the store has
    /// claimed the schema. Does not connect yet.
    pub fn outbox(&self) -> Result<Box<dyn Outbox>, StoreError> {
        let beside = PostgresStore::behind(self.fence.clone(), self.target.clone(), self.claim.clone());
        let beside = beside.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Box::new(outbox::PostgresOutbox(beside)))
    }

    /// Runs `work` on a connection that holds the claim; the connection is closed if it fails or takes too long.
    fn with<T>(
        &mut self,
        work: impl AsyncFnOnce(&Target, &mut Session, Fence<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let patience = std::mem::replace(&mut self.patience, TRANSACTION_TIMEOUT);
        let PostgresStore { target, claim, fence, runtime, session, .. } = self;
        let transaction = async {
            if session.is_none() {
                let (mut client, connection) = target.connect().await?;
                migrate::migrate(&mut client, target, migrations::POSTGRES).await?;
                *session = Some(Session { client, connection, committing: false });
            }
            let session = session.as_mut().expect("made above");
            let number = match fence.get() {
                Some(number) => *number,
                None => {
                    let claimed = session.claim(target, claim).await?;
                    *fence.get_or_init(|| claimed)
                }
            };
            work(target, session, Fence { number, claim }).await
        };
        let outcome = runtime.block_on(async { tokio::time::timeout(patience, transaction).await });
        let outcome = outcome.unwrap_or_else(|_| {
            let silent = format!("no answer within {} s", patience.as_secs());
            let committing = self.session.as_ref().is_some_and(|session| session.committing);
            Err(if committing { StoreError::Ambiguous(silent) } else { StoreError::Unavailable(silent) })
        });
        if outcome.is_err()
            && let Some(session) = self.session.take()
        {
            // The socket closes now, so that the server lets go of whatever the transaction holds.
            drop(session.client);
            session.connection.abort();
            let _ = self.runtime.block_on(session.connection);
        }
        if let Err(StoreError::Fenced(_)) = &outcome {
            self.lost = outcome.as_ref().err().cloned();
        }
        outcome
    }
}

/// What each transaction must find in `writer`.
#[derive(Clone, Copy)]
struct Fence<'a> {
    number: i64,
    claim: &'a Claim,
}

impl Store for PostgresStore {
    fn progress(&mut self) -> Result<Progress, StoreError> {
        self.with(async |target, session, fence| {
            let sql =
                target.sql("SELECT class, upper, through_series, whole_upper FROM {schema}.sink_progress");
            let rows = session.query(&sql, &[]).await?;
            let mut progress =
                Progress { journal_id: Some(fence.claim.journal_id.clone()), ..Progress::default() };
            for row in &rows {
                let class: &str = column(row, 0)?;
                if class == DEFINITIONS {
                    progress.definitions = column::<i64>(row, 1)?.cast_unsigned();
                } else if let Some(class) = Span::FLUSH.into_iter().find(|span| span.text() == class) {
                    progress.classes.insert(class, reached(row)?);
                    progress.whole.insert(class, column::<i64>(row, 3)?.cast_unsigned());
                }
            }
            Ok(progress)
        })
    }

    fn commit(&mut self, part: &Part<'_>) -> Result<(), StoreError> {
        // What is cleaned must be gone before the part's own rows are there; when it goes does not matter.
        while part.rows.as_ref().is_some_and(|rows| !rows.cleaned.is_empty()) {
            let cleaned = self.with(async |target, session, fence| {
                session.begin(target, fence).await?;
                let due = session.due(target, part).await?;
                let cleaned = match due.rows {
                    Some((rows, after)) => rows::clean(session, target, rows, after, CLEAN_ROWS_MAX).await?,
                    None => 0,
                };
                session.commit().await?;
                Ok(cleaned)
            })?;
            if cleaned < CLEAN_ROWS_MAX {
                break;
            }
        }
        self.patience = TRANSACTION_TIMEOUT + DEFINITION_TIMEOUT * part.definitions.len() as u32;
        self.with(async |target, session, fence| {
            session.begin(target, fence).await?;
            session.apply(target, part).await?;
            session.commit().await
        })
    }

    fn commit_messages(&mut self, upper: Epoch, messages: &[Message]) -> Result<(), StoreError> {
        self.with(async |target, session, fence| {
            session.begin(target, fence).await?;
            session.put_messages(target, upper, messages).await?;
            session.commit().await
        })
    }

    fn heartbeat(&mut self) -> Result<(), StoreError> {
        self.with(async |target, session, fence| {
            session.begin(target, fence).await?;
            session.commit().await
        })
    }
}

impl Session {
    async fn query(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, StoreError> {
        self.client.query_typed(sql, values).await.map_err(|error| refused(&error))
    }

    async fn run(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<u64, StoreError> {
        self.client.execute_typed(sql, values).await.map_err(|error| refused(&error))
    }

    /// Begins a transaction whose texts do not depend on how the database is set up.
    async fn begin_reading(&self) -> Result<(), StoreError> {
        let begin = "BEGIN READ ONLY; SET LOCAL timezone = 'UTC'";
        self.client.batch_execute(begin).await.map_err(|error| refused(&error))
    }

    async fn begin_unfenced(&self) -> Result<(), StoreError> {
        self.client.batch_execute(BEGIN).await.map_err(|error| refused(&error))
    }

    /// Begins a transaction that no other writer can be in.
    async fn begin(&self, target: &Target, fence: Fence<'_>) -> Result<(), StoreError> {
        self.begin_unfenced().await?;
        let sql = target.sql(
            "UPDATE {schema}.writer SET heartbeat_at = clock_timestamp() WHERE fence = $1 AND journal_id = $2",
        );
        let values: [(&(dyn ToSql + Sync), Type); 2] =
            [(&fence.number, Type::INT8), (&fence.claim.journal_id, Type::TEXT)];
        if self.run(&sql, &values).await? == 1 {
            return Ok(());
        }
        Err(StoreError::Fenced(format!(
            "another TrackTags has taken over schema {} of the database: this one writes no more history; updates go on \
             and stay in the journal. Stop the one that is too many",
            target.schema()
        )))
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        self.committing = true;
        let committed = self.client.batch_execute("COMMIT").await.map_err(|error| unsettled(&error));
        self.committing = false;
        committed
    }

    /// Makes the schema this start's own; its fence.
    async fn claim(&mut self, target: &Target, claim: &Claim) -> Result<i64, StoreError> {
        self.begin_unfenced().await?;
        // Two first starts at once: one inserts, the other waits for it.
        let insert =
            target.sql("INSERT INTO {schema}.writer VALUES (1, $1, 0, 'epoch') ON CONFLICT (one) DO NOTHING");
        self.run(&insert, &[(&claim.journal_id, Type::TEXT)]).await?;
        let select = target.sql(
            "SELECT journal_id, extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 FROM {schema}.writer
             FOR UPDATE",
        );
        let rows = self.query(&select, &[]).await?;
        let row = rows.first().ok_or_else(|| {
            StoreError::Unavailable("the row of its writer was deleted while it was read".into())
        })?;
        let (owner, age_secs): (&str, f64) = (column(row, 0)?, column(row, 1)?);
        if owner != claim.journal_id {
            require_adoptable(target, claim, owner, age_secs)?;
            // Epochs of the other journal mean nothing here: what is there lies before the first of this one.
            self.client.batch_execute(UNHURRIED).await.map_err(|error| refused(&error))?;
            self.run(&target.sql("DELETE FROM {schema}.sink_progress"), &[]).await?;
            for class in Span::FLUSH.map(Span::text).into_iter().chain([MESSAGES]) {
                self.put_progress(target, class, 0, ALL_SERIES).await?;
            }
            self.run(&target.sql(AGE_ENTRIES), &[]).await?;
            tracing::info!(journal = owner, "the database is continued by this journal");
        }
        let update = target.sql(
            "UPDATE {schema}.writer SET journal_id = $1, fence = fence + 1, heartbeat_at = clock_timestamp()
             RETURNING fence",
        );
        let rows = self.query(&update, &[(&claim.journal_id, Type::TEXT)]).await?;
        let fence = rows.first().map_or(Ok(0), |row| column(row, 0))?;
        self.commit().await?;
        Ok(fence)
    }

    /// What of a part is not in yet, inside a transaction.
    async fn due<'a>(&self, target: &Target, part: &'a Part<'a>) -> Result<Due<'a>, StoreError> {
        let class = part.rows.as_ref().map_or(DEFINITIONS, |rows| rows.class.text());
        let select = target.sql(
            "SELECT class, upper, through_series FROM {schema}.sink_progress WHERE class IN ('definitions', $1)",
        );
        let (mut done, mut definitions_done) = (None, 0);
        for row in &self.query(&select, &[(&class, Type::TEXT)]).await? {
            match column::<&str>(row, 0)? {
                DEFINITIONS => definitions_done = reached(row)?.0,
                _ => done = Some(reached(row)?),
            }
        }
        Ok(part.due(definitions_done, done))
    }

    /// Brings what is not in yet, inside a transaction.
    async fn apply(&self, target: &Target, part: &Part<'_>) -> Result<(), StoreError> {
        let due = self.due(target, part).await?;
        definitions::project(self, target, due.definitions).await?;
        if let Some((epoch, _)) = due.definitions.last() {
            self.put_progress(target, DEFINITIONS, *epoch, ALL_SERIES).await?;
        }
        if let Some((rows, after)) = due.rows {
            rows::write(self, target, rows, after).await?;
            self.put_progress(target, rows.class.text(), rows.upper, rows.through).await?;
        }
        Ok(())
    }

    async fn put_progress(
        &self,
        target: &Target,
        class: &str,
        upper: Epoch,
        through: SeriesId,
    ) -> Result<(), StoreError> {
        let sql = target.sql(
            "INSERT INTO {schema}.sink_progress AS known VALUES ($1, $2, $3, $4) ON CONFLICT (class) DO UPDATE
             SET upper = excluded.upper, through_series = excluded.through_series,
                 whole_upper = greatest(known.whole_upper, excluded.whole_upper)",
        );
        let whole = if through == ALL_SERIES { upper } else { 0 };
        let (upper, through, whole) = (upper.cast_signed(), i64::from(through.0), whole.cast_signed());
        let values: [(&(dyn ToSql + Sync), Type); 4] =
            [(&class, Type::TEXT), (&upper, Type::INT8), (&through, Type::INT8), (&whole, Type::INT8)];
        self.run(&sql, &values).await.map(drop)
    }
}

/// Reads a column. One that is not what this program writes was changed by hand.
fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, StoreError> {
    row.try_get(index).map_err(|error| refused(&error))
}

/// Reads (upper, through_series) behind the class.
fn reached(row: &Row) -> Result<(Epoch, SeriesId), StoreError> {
    Ok((column::<i64>(row, 1)?.cast_unsigned(), SeriesId(column::<i64>(row, 2)? as u32)))
}

fn require_adoptable(target: &Target, claim: &Claim, owner: &str, age_secs: f64) -> Result<(), StoreError> {
    let schema = target.schema();
    if !claim.adopt {
        return Err(StoreError::Fatal(format!(
            "schema {schema} of the database belongs to journal {owner} and this is journal {}: start with an empty \
             --data-dir to continue what is in the database, or choose another --database-schema",
            claim.journal_id
        )));
    }
    if age_secs < HEARTBEAT_TIMEOUT_SECS && !claim.take_over {
        return Err(StoreError::Fatal(format!(
            "another TrackTags wrote to schema {schema} of the database {:.0} s ago: stop it, wait a minute, or start with \
             --take-over",
            age_secs.max(0.0)
        )));
    }
    Ok(())
}
