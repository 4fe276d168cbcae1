//! The outbox in SQLite: messages put in by the store's connection, and taken out by one of its own.

use dataflows::types::{Epoch, Micros};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::super::outbox::{DeadMessage, DueMessages, Look, MESSAGES, Message, Outbox, Place, kept};
use super::super::text::time;
use super::super::{ALL_SERIES, StoreError};
use super::history::time_at;
use super::{Journal, SqliteStore, epoch, progress_of, put_progress, refused, unsettled};

/// A stretch of the index of what waits, and of it the first ones of each business, and the last one of all.
const DUE: &str = "
    WITH passed AS MATERIALIZED (
        SELECT message_id, row_number() OVER (ORDER BY next_at, message_id) AS place,
               row_number() OVER (PARTITION BY business_id ORDER BY next_at, message_id) AS of_business
        FROM (SELECT message_id, business_id, next_at FROM messages
              WHERE state = 'waiting' AND next_at <= ?1 AND (next_at, message_id) > (?2, ?3)
              ORDER BY next_at, message_id LIMIT ?4))
    SELECT message_id, epoch, business_id, url, body, created_at, attempts, next_at, place, of_business
    FROM passed JOIN messages USING (message_id)
    WHERE of_business <= ?5 OR place = ?4 ORDER BY place";

/// Brings the messages of epochs that are not in whole, and the progress of the class.
pub(super) fn put(transaction: &Transaction<'_>, upper: Epoch, messages: &[Message]) -> rusqlite::Result<()> {
    let present = progress_of(transaction, MESSAGES)?.map_or(0, |(upper, _)| upper);
    let mut insert = transaction.prepare_cached(
        "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'waiting', NULL)
         ON CONFLICT (message_id) DO NOTHING",
    )?;
    for message in messages.iter().filter(|message| message.epoch >= present) {
        insert.execute(params![
            message.id,
            message.epoch.cast_signed(),
            message.business_id,
            message.url,
            message.body,
            time(message.created_at),
            message.attempts,
            time(message.next_at),
        ])?;
    }
    put_progress(transaction, MESSAGES, upper.max(present), ALL_SERIES)
}

/// The delivery's side: a store that never commits a part.
pub(super) struct SqliteOutbox(pub SqliteStore);

impl SqliteOutbox {
    fn read<T>(&mut self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        self.0.with(|connection| read(connection).map_err(|error| refused(&error)))
    }

    /// Runs one statement in a transaction that belongs to this store's journal; how many rows it changed.
    fn write(&mut self, sql: &str, values: impl rusqlite::Params) -> Result<usize, StoreError> {
        let journal = self.0.journal.clone();
        self.0.with(|connection| {
            fenced(connection, &journal, |transaction| transaction.prepare_cached(sql)?.execute(values))
        })
    }
}

/// Runs `work` in a transaction, unless another journal feeds the database by now.
pub(super) fn fenced<T>(
    connection: &mut Connection,
    journal: &Journal,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|error| refused(&error))?;
    let owner: Option<String> = transaction
        .prepare_cached("SELECT journal_id FROM writer")
        .and_then(|mut select| select.query_row([], |row| row.get(0)).optional())
        .map_err(|error| refused(&error))?;
    if let Some(owner) = owner
        && *journal.get_or_init(|| owner.clone()) != owner
    {
        return Err(StoreError::Fenced(format!(
            "the database belongs to journal {owner} now: this TrackTags takes nothing in and out of its outbox any \
             more. Stop the one that is too many"
        )));
    }
    let done = work(&transaction).map_err(|error| refused(&error))?;
    transaction.commit().map_err(|error| unsettled(&error))?;
    Ok(done)
}

impl Outbox for SqliteOutbox {
    fn due(&mut self, look: &Look<'_>) -> Result<DueMessages, StoreError> {
        let after = look.after.map(|after| time(after.next_at));
        let after = (after.as_deref().unwrap_or_default(), look.after.map_or("", |after| after.id.as_str()));
        let (passed_max, of_business_max) = (rows_max(look.passed_max), rows_max(look.of_business_max));
        self.read(|connection| {
            let mut select = connection.prepare_cached(DUE)?;
            let mut rows =
                select.query(params![time(look.now), after.0, after.1, passed_max, of_business_max])?;
            let mut due = DueMessages::default();
            while let Some(row) = rows.next()? {
                let message = message(row)?;
                if row.get::<_, i64>(8)? == passed_max {
                    due.end = Some(Place { next_at: message.next_at, id: message.id.clone() });
                }
                if row.get::<_, i64>(9)? <= of_business_max {
                    due.messages.push(message);
                }
            }
            Ok(due)
        })
    }

    fn next_at(&mut self) -> Result<Option<Micros>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT next_at FROM messages WHERE state = 'waiting' ORDER BY next_at, message_id LIMIT 1",
                )?
                .query_row([], |row| time_at(row, 0))
                .optional()
        })
    }

    fn sent(&mut self, id: &str) -> Result<(), StoreError> {
        self.write(
            "UPDATE messages SET state = 'sent', body = '', next_at = NULL, last_error = NULL
             WHERE message_id = ?1 AND state <> 'sent'",
            [id],
        )
        .map(drop)
    }

    fn failed(
        &mut self,
        id: &str,
        attempts: u32,
        next_at: Option<Micros>,
        error: &str,
    ) -> Result<(), StoreError> {
        let state = if next_at.is_some() { "waiting" } else { "dead" };
        self.write(
            "UPDATE messages SET attempts = ?2, next_at = ?3, state = ?4, last_error = ?5
             WHERE message_id = ?1 AND state = 'waiting'",
            params![id, attempts, next_at.map(time), state, kept(error)],
        )
        .map(drop)
    }

    fn dead(&mut self, after: Option<&str>, limit: usize) -> Result<Vec<DeadMessage>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT message_id, epoch, business_id, url, body, created_at, attempts, created_at, last_error
                     FROM messages WHERE state = 'dead' AND (?1 IS NULL OR message_id > ?1)
                     ORDER BY message_id LIMIT ?2",
                )?
                .query_map(params![after, rows_max(limit)], |row| {
                    Ok(DeadMessage { message: message(row)?, last_error: row.get(8)? })
                })?
                .collect()
        })
    }

    fn retry(&mut self, id: &str, now: Micros) -> Result<bool, StoreError> {
        self.write(
            "UPDATE messages SET attempts = 0, created_at = ?2, next_at = ?2, state = 'waiting', last_error = NULL
             WHERE message_id = ?1 AND state = 'dead'",
            params![id, time(now)],
        )
        .map(|changed| changed > 0)
    }

    fn counts(&mut self) -> Result<(u64, u64), StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT (SELECT count(*) FROM messages WHERE state = 'waiting'),
                            (SELECT count(*) FROM messages WHERE state = 'dead')",
                )?
                .query_row([], |row| {
                    Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
                })
        })
    }

    fn oldest(&mut self) -> Result<Option<Micros>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT created_at FROM messages WHERE state = 'waiting' ORDER BY created_at LIMIT 1",
                )?
                .query_row([], |row| time_at(row, 0))
                .optional()
        })
    }

    fn drop_of(&mut self, business_id: &str) -> Result<(), StoreError> {
        self.write("DELETE FROM messages WHERE business_id = ?1", [business_id]).map(drop)
    }

    fn forget_sent(&mut self, before: Micros) -> Result<(), StoreError> {
        self.write("DELETE FROM messages WHERE state = 'sent' AND created_at < ?1", [time(before)]).map(drop)
    }
}

fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn message(columns: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        id: columns.get(0)?,
        epoch: epoch(columns.get(1)?),
        business_id: columns.get(2)?,
        url: columns.get(3)?,
        body: columns.get(4)?,
        created_at: time_at(columns, 5)?,
        attempts: columns.get(6)?,
        next_at: time_at(columns, 7)?,
    })
}
