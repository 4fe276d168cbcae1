//! Slices in the projection: what of each live period is billed, which slices there are and what became of them. A part of
//! what `definitions` works out and writes, of which the rules hold. A slice outlives its series, but not its business.

use std::collections::BTreeMap;

use dataflows::types::{BilledPeriod, Micros, SeriesId, Slice, SliceMove};
use serde::Serialize;

use super::definitions::put;
use super::{Session, Target};
use crate::store::StoreError;
use crate::store::records::{BilledPeriodRow, MoveRow, SliceRow};

const PUT_PERIODS: &str = "
    INSERT INTO {schema}.billing_periods
    SELECT * FROM json_populate_recordset(NULL::{schema}.billing_periods, $1::text::json)
    ON CONFLICT (series_id, period_start) DO UPDATE
    SET period_end = excluded.period_end, usage = excluded.usage, updates = excluded.updates,
        cleaned = excluded.cleaned, free = excluded.free, billable = excluded.billable,
        carried_in = excluded.carried_in, carried_out = excluded.carried_out, units = excluded.units,
        scale = excluded.scale, next_number = excluded.next_number, billed_at = excluded.billed_at";

const PUT_SLICES: &str = "
    INSERT INTO {schema}.slices
    SELECT * FROM json_populate_recordset(NULL::{schema}.slices, $1::text::json)
    ON CONFLICT (identifier) DO NOTHING";

/// `number` says whether `sent_at` begins anew: the slice's own is not written here.
const MOVE_SLICES: &str = "
    UPDATE {schema}.slices AS known
    SET state = new.state, state_at = new.state_at, reason = new.reason,
        sent_at = CASE WHEN new.number = 0 THEN coalesce(known.sent_at, new.sent_at) ELSE new.sent_at END
    FROM json_populate_recordset(NULL::{schema}.slices, $1::text::json) AS new
    WHERE known.identifier = new.identifier";

/// What has become of a slice that was there before.
#[derive(Serialize)]
struct Moved<'a> {
    identifier: &'a str,
    /// 1 if it was not sent in between, so that `sent_at` begins anew.
    number: u8,
    #[serde(flatten)]
    row: MoveRow,
}

/// What a stretch of definitions leaves behind of slices.
#[derive(Default)]
pub(super) struct LeftSlices<'a> {
    periods: BTreeMap<(SeriesId, Option<Micros>), BilledPeriodRow>,
    slices: BTreeMap<&'a str, SliceRow>,
    moved: BTreeMap<&'a str, Moved<'a>>,
}

impl<'a> LeftSlices<'a> {
    pub fn bill(&mut self, series: SeriesId, period: &BilledPeriod) {
        self.periods.insert((series, period.start), BilledPeriodRow::new(series, period));
    }

    pub fn put(&mut self, slice: &'a Slice) {
        self.slices.entry(&slice.identifier).or_insert_with(|| slice.into());
    }

    /// One of this stretch may be there already, when it comes again: its moves are written in any case.
    pub fn moved(&mut self, moved: &'a SliceMove) {
        let mut row = MoveRow::from(moved);
        let before = self.moved.remove(moved.identifier.as_str());
        let is_anew = row.sent_at.is_none() || before.as_ref().is_some_and(|before| before.number == 1);
        if row.sent_at.is_some() {
            row.sent_at = before.and_then(|before| before.row.sent_at).or(row.sent_at);
        }
        let identifier = moved.identifier.as_str();
        self.moved.insert(identifier, Moved { identifier, number: u8::from(is_anew), row });
    }

    pub fn end_series(&mut self, series: SeriesId) {
        self.periods.retain(|(of, _), _| *of != series);
    }

    /// What was there before is deleted with the rest of the business.
    pub fn end_business(&mut self, business_id: &str) {
        self.slices.retain(|_, slice| slice.business_id != business_id);
    }

    pub async fn put_all(self, session: &Session, target: &Target) -> Result<(), StoreError> {
        put(session, target, PUT_PERIODS, self.periods.into_values()).await?;
        put(session, target, PUT_SLICES, self.slices.into_values()).await?;
        put(session, target, MOVE_SLICES, self.moved.into_values()).await
    }
}
