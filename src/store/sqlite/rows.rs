//! Rows and live periods of one part, deleted and written inside the caller's transaction.
//!
//! What a merge row leaves behind is worked out by `merge::written`, as for every dialect.
//!
//! What is cleaned goes first, whether the series is still defined or not.
//!
//! Every write is an `INSERT ... SELECT ... FROM series`: names come from the definitions, and a series that is not there
//! writes nothing. Which rows are due is the caller's decision; this file does not look at progress.

use dataflows::types::{LiveState, Micros, Row, RowKind, SeriesId, Tally};
use rusqlite::{CachedStatement, OptionalExtension, Transaction, params};

use super::super::PartRows;
use super::super::merge::{self, Stored};
use super::super::text::{put_amount, put_time};
use super::history::{amount_at, tally_at};

const PUT_ROW: &str = "
    INSERT INTO metrics
    SELECT series_id, ?2, ?3, business_id, scope, customer_id, metric_name, metric_type, operation,
        ?4, ?5, ?6, ?7, ?8, ?9, tags, ?10
    FROM series WHERE series_id = ?1
    ON CONFLICT (series_id, window_start) DO UPDATE SET
        window_end = excluded.window_end, metric_type = excluded.metric_type, operation = excluded.operation,
        value = excluded.value, sum = excluded.sum, count = excluded.count, min = excluded.min, max = excluded.max,
        avg = excluded.avg, tags = excluded.tags, flushed_at = excluded.flushed_at";

const GET_ROW: &str =
    "SELECT value, sum, count, min, max FROM metrics WHERE series_id = ?1 AND window_start = ?2";

const PUT_STATE: &str = "
    INSERT INTO series_state
    SELECT series_id, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM series WHERE series_id = ?1
    ON CONFLICT (series_id) DO UPDATE SET
        period_start = excluded.period_start, value = excluded.value, sum = excluded.sum, count = excluded.count,
        min = excluded.min, max = excluded.max, updated_at = excluded.updated_at";

const CLEAN_ROWS: &str =
    "DELETE FROM metrics WHERE series_id = ?1 AND window_start < ?2 AND window_end <= ?2";

const CLEAN_STATE: &str = "DELETE FROM series_state WHERE series_id = ?1";

/// Deletes what is cleaned, and writes the rows and states, of the series behind `after` (none: of all).
pub(super) fn write(
    transaction: &Transaction<'_>,
    part: &PartRows<'_>,
    after: Option<SeriesId>,
) -> rusqlite::Result<()> {
    clean(transaction, part.cleaned, after)?;
    let mut writer = Writer {
        put: transaction.prepare_cached(PUT_ROW)?,
        get: transaction.prepare_cached(GET_ROW)?,
        part,
        texts: Texts::default(),
    };
    let first = part.rows.partition_point(|row| Some(row.series) <= after);
    for row in &part.rows[first..] {
        writer.write(row)?;
    }
    let mut put = transaction.prepare_cached(PUT_STATE)?;
    let first = part.states.partition_point(|state| Some(state.series) <= after);
    put_time(&mut writer.texts.flushed_at, part.flushed_at);
    for state in &part.states[first..] {
        put_state(&mut put, state, &mut writer.texts)?;
    }
    Ok(())
}

fn clean(
    transaction: &Transaction<'_>,
    cleaned: &[(SeriesId, Micros)],
    after: Option<SeriesId>,
) -> rusqlite::Result<()> {
    let (mut rows, mut state) =
        (transaction.prepare_cached(CLEAN_ROWS)?, transaction.prepare_cached(CLEAN_STATE)?);
    let mut text = String::new();
    let first = cleaned.partition_point(|(series, _)| Some(*series) <= after);
    for (series, ended_by) in &cleaned[first..] {
        put_time(&mut text, *ended_by);
        rows.execute(params![series.0, text])?;
        state.execute([series.0])?;
    }
    Ok(())
}

struct Writer<'a> {
    put: CachedStatement<'a>,
    get: CachedStatement<'a>,
    part: &'a PartRows<'a>,
    texts: Texts,
}

/// Buffers of the text columns, used again for every row.
#[derive(Default)]
struct Texts {
    window_start: String,
    window_end: String,
    value: String,
    sum: String,
    min: String,
    max: String,
    avg: String,
    flushed_at: String,
}

impl Writer<'_> {
    fn write(&mut self, row: &Row) -> rusqlite::Result<()> {
        put_time(&mut self.texts.window_start, row.window_start);
        let stored = if row.kind == RowKind::Absolute { None } else { self.stored(row.series)? };
        let Stored { tally, value } = merge::written(row, stored.as_ref());
        let texts = &mut self.texts;
        put_time(&mut texts.flushed_at, self.part.row_flushed_at(row));
        put_time(&mut texts.window_end, row.window_end);
        put_amount(&mut texts.value, value);
        texts.put_tally(&tally);
        let some = tally.count > 0;
        self.put.execute(params![
            row.series.0,
            texts.window_start,
            texts.window_end,
            texts.value,
            texts.sum,
            tally.count.cast_signed(),
            some.then_some(&texts.min),
            some.then_some(&texts.max),
            some.then_some(&texts.avg),
            texts.flushed_at,
        ])?;
        Ok(())
    }

    /// What is there of the window whose start is in the texts.
    fn stored(&mut self, series: SeriesId) -> rusqlite::Result<Option<Stored>> {
        self.get
            .query_row(params![series.0, self.texts.window_start], |columns| {
                Ok(Stored { value: amount_at(columns, 0)?, tally: tally_at(columns, 1)? })
            })
            .optional()
    }
}

impl Texts {
    fn put_tally(&mut self, tally: &Tally) {
        put_amount(&mut self.sum, tally.sum);
        if let Some(mean) = tally.mean() {
            put_amount(&mut self.min, tally.min);
            put_amount(&mut self.max, tally.max);
            put_amount(&mut self.avg, mean);
        }
    }
}

fn put_state(put: &mut CachedStatement<'_>, state: &LiveState, texts: &mut Texts) -> rusqlite::Result<()> {
    if let Some(start) = state.period_start {
        put_time(&mut texts.window_start, start);
    }
    put_amount(&mut texts.value, state.value);
    texts.put_tally(&state.tally);
    let some = state.tally.count > 0;
    put.execute(params![
        state.series.0,
        state.period_start.map(|_| &texts.window_start),
        texts.value,
        texts.sum,
        state.tally.count.cast_signed(),
        some.then_some(&texts.min),
        some.then_some(&texts.max),
        texts.flushed_at,
    ])?;
    Ok(())
}
