//! Rows of `billing_periods` and `slices`, both ways. A period without a beginning starts at '-infinity', which both dialects
//! order before every time.

use dataflows::types::{BilledPeriod, Definition, Micros, SeriesId, Slice, SliceMove, SliceState};
use serde::{Deserialize, Serialize};

use super::optional;
use crate::store::text::{read_amount, read_time, time};

/// Where a period begins that has no beginning.
const NO_START: &str = "-infinity";

/// `billing_periods`. Amounts and counts are text, since JSON readers make floats of numbers.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct BilledPeriodRow {
    pub series_id: u32,
    pub period_start: String,
    pub period_end: Option<String>,
    pub usage: String,
    pub updates: String,
    pub cleaned: String,
    pub free: Option<String>,
    pub billable: String,
    pub carried_in: String,
    pub carried_out: String,
    pub units: String,
    pub scale: String,
    pub next_number: u64,
    pub billed_at: String,
}

/// `slices`, as one is cut.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct SliceRow {
    pub identifier: String,
    pub series_id: u32,
    pub business_id: String,
    pub customer_id: String,
    pub metric_name: String,
    pub stripe_customer_id: String,
    pub price_id: String,
    pub period_start: String,
    pub number: u64,
    pub quantity: i64,
    pub scale: String,
    pub remainder: String,
    pub dated_at: String,
    pub cut_at: String,
    #[serde(flatten)]
    pub moved: MoveRow,
}

/// The columns of `slices` that say what has become of one.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct MoveRow {
    pub state: String,
    pub state_at: String,
    pub sent_at: Option<String>,
    pub reason: Option<String>,
}

fn start_text(start: Option<Micros>) -> String {
    start.map_or_else(|| NO_START.to_owned(), time)
}

fn read_start(text: &str) -> Option<Option<Micros>> {
    if text == NO_START { Some(None) } else { read_time(text).map(Some) }
}

impl BilledPeriodRow {
    pub fn new(series: SeriesId, period: &BilledPeriod) -> Self {
        BilledPeriodRow {
            series_id: series.0,
            period_start: start_text(period.start),
            period_end: period.end.map(time),
            usage: period.usage.to_string(),
            updates: period.updates.to_string(),
            cleaned: period.cleaned.to_string(),
            free: period.free.map(|free| free.to_string()),
            billable: period.billable.to_string(),
            carried_in: period.carried_in.to_string(),
            carried_out: period.carried_out.to_string(),
            units: period.units.to_string(),
            scale: period.scale.to_string(),
            next_number: period.next_number,
            billed_at: time(period.billed_at),
        }
    }

    /// None for what this program does not write; the same below.
    pub fn definition(self) -> Option<Definition> {
        let period = BilledPeriod {
            start: read_start(&self.period_start)?,
            end: optional(self.period_end, read_time)?,
            usage: read_amount(&self.usage)?,
            updates: self.updates.parse().ok()?,
            cleaned: read_amount(&self.cleaned)?,
            free: optional(self.free, read_amount)?,
            billable: read_amount(&self.billable)?,
            carried_in: read_amount(&self.carried_in)?,
            carried_out: read_amount(&self.carried_out)?,
            units: self.units.parse().ok()?,
            scale: read_amount(&self.scale)?,
            next_number: self.next_number,
            billed_at: read_time(&self.billed_at)?,
        };
        Some(Definition::PeriodsBilled { series: SeriesId(self.series_id), periods: vec![period] })
    }
}

impl From<&Slice> for SliceRow {
    fn from(slice: &Slice) -> Self {
        SliceRow {
            identifier: slice.identifier.clone(),
            series_id: slice.series.0,
            business_id: slice.business_id.clone(),
            customer_id: slice.customer_id.clone(),
            metric_name: slice.metric_name.clone(),
            stripe_customer_id: slice.stripe_customer_id.clone(),
            price_id: slice.price_id.clone(),
            period_start: start_text(slice.period_start),
            number: slice.number,
            quantity: slice.quantity,
            scale: slice.scale.to_string(),
            remainder: slice.remainder.to_string(),
            dated_at: time(slice.dated_at),
            cut_at: time(slice.cut_at),
            moved: MoveRow {
                state: SliceState::New.text().to_owned(),
                state_at: time(slice.cut_at),
                sent_at: None,
                reason: None,
            },
        }
    }
}

impl SliceRow {
    /// The slice, and what brings it to its state.
    pub fn definitions(self) -> Option<Vec<Definition>> {
        let slice = Slice {
            identifier: self.identifier.clone(),
            series: SeriesId(self.series_id),
            business_id: self.business_id,
            customer_id: self.customer_id,
            metric_name: self.metric_name,
            stripe_customer_id: self.stripe_customer_id,
            price_id: self.price_id,
            period_start: read_start(&self.period_start)?,
            number: self.number,
            quantity: self.quantity,
            scale: read_amount(&self.scale)?,
            remainder: read_amount(&self.remainder)?,
            dated_at: read_time(&self.dated_at)?,
            cut_at: read_time(&self.cut_at)?,
        };
        let MoveRow { state, state_at, sent_at, reason } = self.moved;
        let moved = |state, at, reason| SliceMove { identifier: self.identifier.clone(), state, at, reason };
        let (state, at) = (SliceState::read(&state)?, read_time(&state_at)?);
        let sent = optional(sent_at, read_time)?.map(|at| moved(SliceState::Sending, at, None));
        let is_new = state == SliceState::New && reason.is_none();
        let moves: Vec<_> = sent.into_iter().chain((!is_new).then(|| moved(state, at, reason))).collect();
        let moves = (!moves.is_empty()).then_some(Definition::SlicesMoved(moves));
        Some([Definition::SlicesCut(vec![slice])].into_iter().chain(moves).collect())
    }
}

impl From<&SliceMove> for MoveRow {
    fn from(moved: &SliceMove) -> Self {
        MoveRow {
            state: moved.state.text().to_owned(),
            state_at: time(moved.at),
            // Of one that was sent before, the first time counts.
            sent_at: (moved.state != SliceState::New).then(|| time(moved.at)),
            reason: moved.reason.clone(),
        }
    }
}
