//! The projection of slices: what of each live period is billed, which slices there are and what became of them. A part of
//! `definitions`, of which the rules hold. A slice outlives its series, but not its business.

use dataflows::types::{BilledPeriod, SeriesId, Slice, SliceMove};
use rusqlite::params;

use super::definitions::Run;
use crate::store::records::{BilledPeriodRow, MoveRow, SliceRow};

pub(super) fn bill(run: Run<'_>, series: SeriesId, period: &BilledPeriod) -> rusqlite::Result<()> {
    let row = BilledPeriodRow::new(series, period);
    run(
        "INSERT OR REPLACE INTO billing_periods
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            row.series_id,
            row.period_start,
            row.period_end,
            row.usage,
            row.updates,
            row.cleaned,
            row.free,
            row.billable,
            row.carried_in,
            row.carried_out,
            row.units,
            row.scale,
            row.next_number.cast_signed(),
            row.billed_at,
        ],
    )
}

pub(super) fn put(run: Run<'_>, slice: &Slice) -> rusqlite::Result<()> {
    let row = SliceRow::from(slice);
    run(
        "INSERT OR IGNORE INTO slices
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
        params![
            row.identifier,
            row.series_id,
            row.business_id,
            row.customer_id,
            row.metric_name,
            row.stripe_customer_id,
            row.price_id,
            row.period_start,
            row.number.cast_signed(),
            row.quantity,
            row.scale,
            row.remainder,
            row.dated_at,
            row.cut_at,
            row.moved.state,
            row.moved.state_at,
            row.moved.sent_at,
            row.moved.reason,
        ],
    )
}

pub(super) fn moved(run: Run<'_>, moved: &SliceMove) -> rusqlite::Result<()> {
    let row = MoveRow::from(moved);
    run(
        "UPDATE slices SET state = ?2, state_at = ?3, sent_at = iif(?4 IS NULL, NULL, coalesce(sent_at, ?4)), reason = ?5
         WHERE identifier = ?1",
        params![moved.identifier, row.state, row.state_at, row.sent_at, row.reason],
    )
}

pub(super) fn end_series(run: Run<'_>, series: SeriesId) -> rusqlite::Result<()> {
    run("DELETE FROM billing_periods WHERE series_id = ?1", params![series.0])
}

pub(super) fn end_business(run: Run<'_>, business_id: &str) -> rusqlite::Result<()> {
    run("DELETE FROM slices WHERE business_id = ?1", params![business_id])
}
