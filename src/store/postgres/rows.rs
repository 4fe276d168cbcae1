//! Rows and live periods of one part, deleted and written inside the caller's transaction: one statement each, whatever their number.
//!
//! Columns travel as arrays and come apart by `unnest`, which is as fast as binary COPY and needs no table of its own.
//! Names come from the definitions by a join, so that a series that is not there writes nothing. What a merge row leaves
//! behind is worked out by `MergeRow::onto`, as for every dialect: the rows it concerns are read first, in one statement.

use std::collections::HashMap;

use dataflows::types::{LiveState, Micros, Row, RowKind, SeriesId, Tally};
use tokio_postgres::types::{ToSql, Type};

use super::values::{At, Numeric};
use super::{Session, Target, column};
use crate::store::merge::{self, Stored};
use crate::store::{PartRows, StoreError};

const PUT_ROWS: &str = "
    INSERT INTO {schema}.metrics (series_id, window_start, window_end, business_id, scope, customer_id, metric_name,
        metric_type, operation, value, sum, count, min, max, avg, tags, flushed_at)
    SELECT series_id, window_start, window_end, business_id, scope, customer_id, metric_name,
        metric_type, operation, value, sum, count, min, max, avg, tags, flushed_at
    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        AS part (series_id, window_start, window_end, value, sum, count, min, max, avg, flushed_at)
    JOIN {schema}.series USING (series_id)
    ON CONFLICT (series_id, window_start) DO UPDATE SET
        window_end = excluded.window_end, metric_type = excluded.metric_type, operation = excluded.operation,
        value = excluded.value, sum = excluded.sum, count = excluded.count, min = excluded.min, max = excluded.max,
        avg = excluded.avg, tags = excluded.tags, flushed_at = excluded.flushed_at";

const GET_ROWS: &str = "
    SELECT series_id, window_start, value, sum, count, min, max
    FROM unnest($1, $2) AS wanted (series_id, window_start) JOIN {schema}.metrics USING (series_id, window_start)";

const PUT_STATES: &str = "
    INSERT INTO {schema}.series_state (series_id, period_start, value, sum, count, min, max, updated_at)
    SELECT series_id, period_start, value, sum, count, min, max, $8
    FROM unnest($1, $2, $3, $4, $5, $6, $7) AS part (series_id, period_start, value, sum, count, min, max)
    WHERE EXISTS (SELECT 1 FROM {schema}.series WHERE series.series_id = part.series_id)
    ON CONFLICT (series_id) DO UPDATE SET
        period_start = excluded.period_start, value = excluded.value, sum = excluded.sum, count = excluded.count,
        min = excluded.min, max = excluded.max, updated_at = excluded.updated_at";

const CLEAN_ROWS: &str = "
    DELETE FROM {schema}.metrics WHERE ctid IN (
        SELECT metrics.ctid FROM unnest($1, $2) AS cleaned (series_id, ended_by)
        JOIN {schema}.metrics USING (series_id)
        WHERE window_start < ended_by AND window_end <= ended_by LIMIT $3)";

const CLEAN_STATES: &str = "DELETE FROM {schema}.series_state WHERE series_id = ANY($1)";

/// Deletes rows of cleaned series behind `after` (none: of all), at most so many; how many. Their states go when no rows
/// are left.
pub(super) async fn clean(
    session: &Session,
    target: &Target,
    part: &PartRows<'_>,
    after: Option<SeriesId>,
    rows_max: i64,
) -> Result<i64, StoreError> {
    let cleaned = &part.cleaned[part.cleaned.partition_point(|(series, _)| Some(*series) <= after)..];
    let series: Vec<i64> = cleaned.iter().map(|(series, _)| series.0.into()).collect();
    let ended_by: Vec<At> = cleaned.iter().map(|(_, ended_by)| At(*ended_by)).collect();
    let values: [(&(dyn ToSql + Sync), Type); 3] =
        [(&series, Type::INT8_ARRAY), (&ended_by, Type::TIMESTAMPTZ_ARRAY), (&rows_max, Type::INT8)];
    let gone = session.run(&target.sql(CLEAN_ROWS), &values).await?.cast_signed();
    if gone < rows_max {
        session.run(&target.sql(CLEAN_STATES), &values[..1]).await?;
    }
    Ok(gone)
}

/// Writes the rows and states of the series behind `after` (none: of all). What is cleaned is gone.
pub(super) async fn write(
    session: &Session,
    target: &Target,
    part: &PartRows<'_>,
    after: Option<SeriesId>,
) -> Result<(), StoreError> {
    let rows = &part.rows[part.rows.partition_point(|row| Some(row.series) <= after)..];
    if !rows.is_empty() {
        let stored = stored(session, target, rows).await?;
        put_rows(session, target, part, rows, &stored).await?;
    }
    let states = &part.states[part.states.partition_point(|state| Some(state.series) <= after)..];
    if !states.is_empty() {
        put_states(session, target, part.flushed_at, states).await?;
    }
    Ok(())
}

type StoredRows = HashMap<(SeriesId, Micros), Stored>;

/// What is there of the windows that merge rows are for.
async fn stored(session: &Session, target: &Target, rows: &[Row]) -> Result<StoredRows, StoreError> {
    let merges = || rows.iter().filter(|row| row.kind != RowKind::Absolute);
    let series: Vec<i64> = merges().map(|row| row.series.0.into()).collect();
    if series.is_empty() {
        return Ok(StoredRows::new());
    }
    let starts: Vec<At> = merges().map(|row| At(row.window_start)).collect();
    let values: [(&(dyn ToSql + Sync), Type); 2] =
        [(&series, Type::INT8_ARRAY), (&starts, Type::TIMESTAMPTZ_ARRAY)];
    let found = session.query(&target.sql(GET_ROWS), &values).await?;
    let rows = found.iter().map(|row| {
        let (series, At(start), Numeric(value)) = (column::<i64>(row, 0)?, column(row, 1)?, column(row, 2)?);
        Ok(((SeriesId(series as u32), start), Stored { value, tally: tally_at(row, 3)? }))
    });
    rows.collect()
}

/// Reads (sum, count, min, max) from column `first` on.
pub(super) fn tally_at(row: &tokio_postgres::Row, first: usize) -> Result<Tally, StoreError> {
    let (Numeric(sum), count) = (column(row, first)?, column::<i64>(row, first + 1)?.cast_unsigned());
    Ok(match (column(row, first + 2)?, column(row, first + 3)?) {
        (Some(Numeric(min)), Some(Numeric(max))) if count > 0 => Tally { sum, count, min, max },
        _ => Tally { sum, ..Tally::EMPTY },
    })
}

/// Columns that rows and states share.
#[derive(Default)]
struct Tallies {
    series: Vec<i64>,
    value: Vec<Numeric>,
    sum: Vec<Numeric>,
    count: Vec<i64>,
    min: Vec<Option<Numeric>>,
    max: Vec<Option<Numeric>>,
}

impl Tallies {
    fn push(&mut self, series: SeriesId, value: dataflows::types::Amount, tally: &Tally) {
        let some = |amount| (tally.count > 0).then_some(Numeric(amount));
        self.series.push(series.0.into());
        self.value.push(Numeric(value));
        self.sum.push(Numeric(tally.sum));
        self.count.push(tally.count.cast_signed());
        self.min.push(some(tally.min));
        self.max.push(some(tally.max));
    }
}

async fn put_rows(
    session: &Session,
    target: &Target,
    part: &PartRows<'_>,
    rows: &[Row],
    stored: &StoredRows,
) -> Result<(), StoreError> {
    let mut columns = Tallies::default();
    let (mut starts, mut ends, mut means, mut flushed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let Stored { tally, value } = merge::written(row, stored.get(&(row.series, row.window_start)));
        columns.push(row.series, value, &tally);
        starts.push(At(row.window_start));
        ends.push(At(row.window_end));
        means.push(tally.mean().map(Numeric));
        flushed.push(At(part.row_flushed_at(row)));
    }
    let Tallies { series, value, sum, count, min, max } = &columns;
    let values: [(&(dyn ToSql + Sync), Type); 10] = [
        (series, Type::INT8_ARRAY),
        (&starts, Type::TIMESTAMPTZ_ARRAY),
        (&ends, Type::TIMESTAMPTZ_ARRAY),
        (value, Type::NUMERIC_ARRAY),
        (sum, Type::NUMERIC_ARRAY),
        (count, Type::INT8_ARRAY),
        (min, Type::NUMERIC_ARRAY),
        (max, Type::NUMERIC_ARRAY),
        (&means, Type::NUMERIC_ARRAY),
        (&flushed, Type::TIMESTAMPTZ_ARRAY),
    ];
    session.run(&target.sql(PUT_ROWS), &values).await.map(drop)
}

async fn put_states(
    session: &Session,
    target: &Target,
    flushed_at: Micros,
    states: &[LiveState],
) -> Result<(), StoreError> {
    let (mut columns, mut starts) = (Tallies::default(), Vec::new());
    for state in states {
        columns.push(state.series, state.value, &state.tally);
        starts.push(state.period_start.map(At));
    }
    let Tallies { series, value, sum, count, min, max } = &columns;
    let values: [(&(dyn ToSql + Sync), Type); 8] = [
        (series, Type::INT8_ARRAY),
        (&starts, Type::TIMESTAMPTZ_ARRAY),
        (value, Type::NUMERIC_ARRAY),
        (sum, Type::NUMERIC_ARRAY),
        (count, Type::INT8_ARRAY),
        (min, Type::NUMERIC_ARRAY),
        (max, Type::NUMERIC_ARRAY),
        (&At(flushed_at), Type::TIMESTAMPTZ),
    ];
    session.run(&target.sql(PUT_STATES), &values).await.map(drop)
}
