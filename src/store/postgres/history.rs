//! Reading history: a few pooled connections, each page one statement in a short transaction, so that rows and progress are
//! of one moment.
//!
//! Pages are stretches of the primary key, read backwards: the cost is the rows shown, not the rows kept.

use std::future::Future;
use std::time::Duration;

use deadpool_postgres::{Pool, Runtime, Timeouts};
use tokio::runtime::Handle;
use tokio_postgres::types::{ToSql, Type};

use dataflows::types::{Epoch, Micros, SeriesId, Span};

use super::column;
use super::connect::Target;
use super::content::parsed;
use super::errors::refused;
use super::rows::tally_at;
use super::values::{At, Numeric};
use crate::store::records::EntryRow;
use crate::store::{AuditQuery, AuditRow, History, HistoryPage, HistoryQuery, HistoryRow, StoreError};

/// Connections at most; more readers wait for one.
const READERS_MAX: usize = 4;
/// How long a reader waits for a connection, and for its page.
const READER_TIMEOUT: Duration = Duration::from_secs(5);

/// What holds for a page: less time than we wait, and texts that do not depend on how the database is set up.
const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = '4s'; SET LOCAL lock_timeout = '2s'; \
                     SET LOCAL timezone = 'UTC'";

/// The reading side of a schema.
pub struct PostgresHistory {
    target: Target,
    pool: Pool,
    runtime: Handle,
}

impl PostgresHistory {
    /// Opens nothing yet. Connections live on `runtime`, whose own threads must not call.
    pub fn new(target: Target, runtime: Handle) -> Result<PostgresHistory, StoreError> {
        let pool = Pool::builder(target.manager())
            .max_size(READERS_MAX)
            .timeouts(Timeouts {
                wait: Some(READER_TIMEOUT),
                create: Some(READER_TIMEOUT),
                recycle: Some(READER_TIMEOUT),
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(PostgresHistory { target, pool, runtime })
    }

    fn query(
        &self,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let read = async {
            let client = within(self.pool.get()).await?.map_err(|error| match error {
                deadpool_postgres::PoolError::Backend(error) => refused(&error),
                error => StoreError::Unavailable(error.to_string()),
            })?;
            // Sent at once, one behind the other: the server ends what takes too long, whoever waits for it.
            let reading = async {
                tokio::join!(
                    client.batch_execute(BEGIN),
                    client.query_typed(sql, values),
                    client.batch_execute("COMMIT")
                )
            };
            match within(reading).await {
                Ok((Ok(()), Ok(rows), Ok(()))) => Ok(rows),
                Ok((Err(error), ..) | (_, Err(error), _) | (.., Err(error))) => Err(refused(&error)),
                Err(late) => {
                    // The answer is still on its way: nobody else may get it.
                    drop(deadpool_postgres::Object::take(client));
                    Err(late)
                }
            }
        };
        self.runtime.block_on(read)
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, StoreError> {
    let late = format!("no answer within {} s", READER_TIMEOUT.as_secs());
    tokio::time::timeout(READER_TIMEOUT, work).await.map_err(|_| StoreError::Unavailable(late))
}

const PAGE: &str = "
    SELECT upper, through_series, window_start, window_end, flushed_at, value, sum, count, min, max
    FROM (SELECT 1) AS one
    LEFT JOIN {schema}.sink_progress ON class = $1
    LEFT JOIN LATERAL (
        SELECT * FROM {schema}.metrics
        WHERE series_id = $2 AND window_start >= $3 AND window_start < $4
        ORDER BY window_start DESC LIMIT $5
    ) AS page ON true
    ORDER BY window_start DESC";

impl History for PostgresHistory {
    fn rows(&self, query: &HistoryQuery, class: Span) -> Result<HistoryPage, StoreError> {
        let end = [query.end, query.before].into_iter().flatten().min();
        let (start, end) = (At(query.start.unwrap_or(Micros(i64::MIN))), At(end.unwrap_or(Micros(i64::MAX))));
        let (series, class) = (i64::from(query.series.0), class.text());
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let values: [(&(dyn ToSql + Sync), Type); 5] = [
            (&class, Type::TEXT),
            (&series, Type::INT8),
            (&start, Type::TIMESTAMPTZ),
            (&end, Type::TIMESTAMPTZ),
            (&limit, Type::INT8),
        ];
        let found = self.query(&self.target.sql(PAGE), &values)?;
        let mut page = HistoryPage { rows: Vec::new(), progress: None };
        for row in &found {
            if let (Some(upper), Some(through)) =
                (column::<Option<i64>>(row, 0)?, column::<Option<i64>>(row, 1)?)
            {
                page.progress = Some((upper.cast_unsigned(), SeriesId(through as u32)));
            }
            // The one line of a page without rows.
            let Some(At(window_start)) = column(row, 2)? else { continue };
            let (At(window_end), At(flushed_at)) = (column(row, 3)?, column(row, 4)?);
            let (Numeric(value), tally) = (column(row, 5)?, tally_at(row, 6)?);
            let flushed_at = Some(flushed_at);
            page.rows.push(HistoryRow { window_start, window_end, tally, value, flushed_at });
        }
        Ok(page)
    }

    fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
        let (epoch, index) = query.before.unwrap_or((Epoch::MAX >> 1, u32::MAX));
        let (epoch, index) = (epoch.cast_signed(), i64::from(index));
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let whose = query.business_id.as_ref().map_or("", |_| "business_id = $4 AND ");
        let sql = format!(
            "SELECT row_to_json(kept)::text FROM {{schema}}.audit_log AS kept WHERE {whose} (epoch, entry) < ($1, $2)
             ORDER BY epoch DESC, entry DESC LIMIT $3"
        );
        let mut values: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&epoch, Type::INT8), (&index, Type::INT8), (&limit, Type::INT8)];
        values.extend(query.business_id.iter().map(|id| (id as &(dyn ToSql + Sync), Type::TEXT)));
        let rows = self.query(&self.target.sql(&sql), &values)?;
        rows.iter().map(|row| parsed(column(row, 0)?, EntryRow::row)).collect()
    }

    fn ready(&self) -> bool {
        self.query(&self.target.sql("SELECT count(*) FROM {schema}.writer"), &[]).is_ok()
    }
}
