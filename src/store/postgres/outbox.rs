//! The outbox in PostgreSQL: messages put in by the store's connection, and taken out by one of its own with the store's
//! fence. Ids are ordered by their bytes, whatever the collation of the database.

use dataflows::types::{Epoch, Micros};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::connect::Target;
use super::values::At;
use super::{PostgresStore, Session, column};
use crate::store::outbox::{DeadMessage, DueMessages, Look, MESSAGES, Message, Outbox, Place, kept};
use crate::store::{ALL_SERIES, StoreError};

/// Messages that one statement brings at most.
const STATEMENT_MESSAGES_MAX: usize = 1_000;

const PUT: &str = "
    INSERT INTO {schema}.messages
    SELECT *, 'waiting', NULL FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (message_id) DO NOTHING";
/// A stretch of the index of what waits, and of it the first ones of each business, and the last one of all.
const DUE: &str = "
    WITH passed AS MATERIALIZED (
        SELECT message_id, row_number() OVER (ORDER BY next_at, message_id) AS place,
               row_number() OVER (PARTITION BY business_id ORDER BY next_at, message_id) AS of_business
        FROM (SELECT message_id, business_id, next_at FROM {schema}.messages
              WHERE state = 'waiting' AND next_at <= $1
                AND (next_at, message_id) > (coalesce($2, '-infinity'::timestamptz), $3)
              ORDER BY next_at, message_id LIMIT $4) AS stretch)
    SELECT message_id, epoch, business_id, url, body, created_at, attempts, next_at, place, of_business
    FROM passed JOIN {schema}.messages USING (message_id)
    WHERE of_business <= $5 OR place = $4 ORDER BY place";
const NEXT: &str = "SELECT min(next_at) FROM {schema}.messages WHERE state = 'waiting'";
const SENT: &str = "
    UPDATE {schema}.messages SET state = 'sent', body = '', next_at = NULL, last_error = NULL
    WHERE message_id = $1 AND state <> 'sent'";
const FAILED: &str = "
    UPDATE {schema}.messages SET attempts = $2, next_at = $3, state = $4, last_error = $5
    WHERE message_id = $1 AND state = 'waiting'";
const DEAD: &str = "
    SELECT message_id, epoch, business_id, url, body, created_at, attempts, created_at, last_error
    FROM {schema}.messages WHERE state = 'dead' AND ($1 IS NULL OR message_id > $1)
    ORDER BY message_id LIMIT $2";
const RETRY: &str = "
    UPDATE {schema}.messages SET attempts = 0, created_at = $2, next_at = $2, state = 'waiting', last_error = NULL
    WHERE message_id = $1 AND state = 'dead'";
const COUNTS: &str = "
    SELECT (SELECT count(*) FROM {schema}.messages WHERE state = 'waiting'),
           (SELECT count(*) FROM {schema}.messages WHERE state = 'dead')";
const OLDEST: &str = "SELECT min(created_at) FROM {schema}.messages WHERE state = 'waiting'";
const DROP: &str = "DELETE FROM {schema}.messages WHERE business_id = $1";
const FORGET: &str = "DELETE FROM {schema}.messages WHERE state = 'sent' AND created_at < $1";

type Values<'a> = [(&'a (dyn ToSql + Sync), Type)];

impl Session {
    /// Brings the messages of epochs that are not in whole, and the progress of the class, inside a transaction.
    pub(super) async fn put_messages(
        &self,
        target: &Target,
        upper: Epoch,
        messages: &[Message],
    ) -> Result<(), StoreError> {
        let select = target.sql("SELECT upper FROM {schema}.sink_progress WHERE class = $1");
        let rows = self.query(&select, &[(&MESSAGES, Type::TEXT)]).await?;
        let present = rows.first().map_or(Ok(0), |row| column::<i64>(row, 0))?.cast_unsigned();
        let fresh: Vec<_> = messages.iter().filter(|message| message.epoch >= present).collect();
        for messages in fresh.chunks(STATEMENT_MESSAGES_MAX) {
            self.insert_messages(target, messages).await?;
        }
        self.put_progress(target, MESSAGES, upper.max(present), ALL_SERIES).await
    }

    async fn insert_messages(&self, target: &Target, messages: &[&Message]) -> Result<(), StoreError> {
        let texts =
            |text: fn(&Message) -> &str| messages.iter().map(|message| text(message)).collect::<Vec<_>>();
        let times = |time: fn(&Message) -> Micros| {
            messages.iter().map(|message| At(time(message))).collect::<Vec<_>>()
        };
        let epochs: Vec<_> = messages.iter().map(|message| message.epoch.cast_signed()).collect();
        let attempts: Vec<_> = messages.iter().map(|message| attempts(message.attempts)).collect();
        let values: &Values<'_> = &[
            (&texts(|message| &message.id), Type::TEXT_ARRAY),
            (&epochs, Type::INT8_ARRAY),
            (&texts(|message| &message.business_id), Type::TEXT_ARRAY),
            (&texts(|message| &message.url), Type::TEXT_ARRAY),
            (&texts(|message| &message.body), Type::TEXT_ARRAY),
            (&times(|message| message.created_at), Type::TIMESTAMPTZ_ARRAY),
            (&attempts, Type::INT4_ARRAY),
            (&times(|message| message.next_at), Type::TIMESTAMPTZ_ARRAY),
        ];
        self.run(&target.sql(PUT), values).await.map(drop)
    }
}

/// The delivery's side: a store that never claims the schema.
pub(super) struct PostgresOutbox(pub PostgresStore);

impl PostgresOutbox {
    /// Waits for the store to have claimed the schema, so that the claim is one.
    fn store(&mut self) -> Result<&mut PostgresStore, StoreError> {
        match self.0.fence.get() {
            Some(_) => Ok(&mut self.0),
            None => Err(StoreError::Unavailable("the schema has not been claimed yet".into())),
        }
    }

    fn read(&mut self, sql: &str, values: &Values<'_>) -> Result<Vec<Row>, StoreError> {
        self.store()?.with(async |target, session, _| session.query(&target.sql(sql), values).await)
    }

    /// The one moment that a statement asks for.
    fn moment(&mut self, sql: &str) -> Result<Option<Micros>, StoreError> {
        let rows = self.read(sql, &[])?;
        let moment = rows.first().map_or(Ok(None), |row| column::<Option<At>>(row, 0))?;
        Ok(moment.map(|At(moment)| moment))
    }

    /// Runs one statement in a transaction behind the fence; how many rows it changed.
    fn write(&mut self, sql: &str, values: &Values<'_>) -> Result<u64, StoreError> {
        self.store()?.with(async |target, session, fence| {
            session.begin(target, fence).await?;
            let changed = session.run(&target.sql(sql), values).await?;
            session.commit().await?;
            Ok(changed)
        })
    }
}

impl Outbox for PostgresOutbox {
    fn due(&mut self, look: &Look<'_>) -> Result<DueMessages, StoreError> {
        let (passed_max, of_business_max) = (rows_max(look.passed_max), rows_max(look.of_business_max));
        let rows = self.read(
            DUE,
            &[
                (&At(look.now), Type::TIMESTAMPTZ),
                (&look.after.map(|after| At(after.next_at)), Type::TIMESTAMPTZ),
                (&look.after.map_or("", |after| after.id.as_str()), Type::TEXT),
                (&passed_max, Type::INT8),
                (&of_business_max, Type::INT8),
            ],
        )?;
        let mut due = DueMessages::default();
        for row in &rows {
            let message = message(row)?;
            if column::<i64>(row, 8)? == passed_max {
                due.end = Some(Place { next_at: message.next_at, id: message.id.clone() });
            }
            if column::<i64>(row, 9)? <= of_business_max {
                due.messages.push(message);
            }
        }
        Ok(due)
    }

    fn next_at(&mut self) -> Result<Option<Micros>, StoreError> {
        self.moment(NEXT)
    }

    fn sent(&mut self, id: &str) -> Result<(), StoreError> {
        self.write(SENT, &[(&id, Type::TEXT)]).map(drop)
    }

    fn failed(
        &mut self,
        id: &str,
        attempts: u32,
        next_at: Option<Micros>,
        error: &str,
    ) -> Result<(), StoreError> {
        let state = if next_at.is_some() { "waiting" } else { "dead" };
        let values: &Values<'_> = &[
            (&id, Type::TEXT),
            (&self::attempts(attempts), Type::INT4),
            (&next_at.map(At), Type::TIMESTAMPTZ),
            (&state, Type::TEXT),
            (&kept(error), Type::TEXT),
        ];
        self.write(FAILED, values).map(drop)
    }

    fn dead(&mut self, after: Option<&str>, limit: usize) -> Result<Vec<DeadMessage>, StoreError> {
        let rows = self.read(DEAD, &[(&after, Type::TEXT), (&rows_max(limit), Type::INT8)])?;
        let dead = |row| Ok(DeadMessage { message: message(row)?, last_error: column(row, 8)? });
        rows.iter().map(dead).collect()
    }

    fn retry(&mut self, id: &str, now: Micros) -> Result<bool, StoreError> {
        let changed = self.write(RETRY, &[(&id, Type::TEXT), (&At(now), Type::TIMESTAMPTZ)])?;
        Ok(changed > 0)
    }

    fn counts(&mut self) -> Result<(u64, u64), StoreError> {
        let rows = self.read(COUNTS, &[])?;
        let count =
            |index| rows.first().map_or(Ok(0), |row| column::<i64>(row, index)).map(i64::cast_unsigned);
        Ok((count(0)?, count(1)?))
    }

    fn oldest(&mut self) -> Result<Option<Micros>, StoreError> {
        self.moment(OLDEST)
    }

    fn drop_of(&mut self, business_id: &str) -> Result<(), StoreError> {
        self.write(DROP, &[(&business_id, Type::TEXT)]).map(drop)
    }

    fn forget_sent(&mut self, before: Micros) -> Result<(), StoreError> {
        self.write(FORGET, &[(&At(before), Type::TIMESTAMPTZ)]).map(drop)
    }
}

fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn attempts(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn message(row: &Row) -> Result<Message, StoreError> {
    let (At(created_at), At(next_at)) = (column(row, 5)?, column(row, 7)?);
    Ok(Message {
        id: column(row, 0)?,
        epoch: column::<i64>(row, 1)?.cast_unsigned(),
        business_id: column(row, 2)?,
        url: column(row, 3)?,
        body: column(row, 4)?,
        created_at,
        attempts: column::<i32>(row, 6)?.cast_unsigned(),
        next_at,
    })
}
