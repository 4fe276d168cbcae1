//! Slices of usage, as they are billed: what of a live period went to whom, when, and what became of it.

use serde::{Deserialize, Serialize};

use super::{Amount, Micros, SeriesId};

/// A part of a live period's usage, on its way to who bills it. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Its name at the biller; the same whenever the journal is read again.
    pub identifier: String,
    /// The series.
    pub series: SeriesId,
    /// The name of the series: a slice outlives it.
    pub business_id: String,
    /// See `business_id`.
    pub customer_id: String,
    /// See `business_id`.
    pub metric_name: String,
    /// The biller's id of the customer.
    pub stripe_customer_id: String,
    /// The biller's id of the price.
    pub price_id: String,
    /// First moment of the live period; none for the first of a series.
    pub period_start: Option<Micros>,
    /// From 0, within the period.
    pub number: u64,
    /// Whole units of `scale`. Below zero takes back.
    pub quantity: i64,
    /// What one of `quantity` stands for.
    pub scale: Amount,
    /// What of the period is in no slice yet, behind this one. Below zero where the end of the period was rounded up.
    pub remainder: Amount,
    /// The moment in the period that it is billed at, a whole second.
    pub dated_at: Micros,
    /// When it was cut.
    pub cut_at: Micros,
}

/// What becomes of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SliceState {
    /// Not sent, or known not to have arrived.
    New,
    /// May be on its way.
    Sending,
    /// Has arrived.
    Acked,
    /// May have arrived.
    Unknown,
    /// Never will arrive.
    Dead,
}

impl SliceState {
    /// The word for it.
    pub fn text(self) -> &'static str {
        match self {
            SliceState::New => "new",
            SliceState::Sending => "sending",
            SliceState::Acked => "acked",
            SliceState::Unknown => "unknown",
            SliceState::Dead => "dead",
        }
    }

    /// The state of that word.
    pub fn read(word: &str) -> Option<SliceState> {
        let all = [Self::New, Self::Sending, Self::Acked, Self::Unknown, Self::Dead];
        all.into_iter().find(|state| state.text() == word)
    }

    /// Whether nothing more happens to it by itself.
    pub fn is_final(self) -> bool {
        matches!(self, SliceState::Acked | SliceState::Dead)
    }
}

/// A slice has come to another state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceMove {
    /// Which slice.
    pub identifier: String,
    /// Its state now.
    pub state: SliceState,
    /// When that was.
    pub at: Micros,
    /// Why, where that is not plain.
    pub reason: Option<String>,
}

/// How much of a live period is billed. Absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BilledPeriod {
    /// First moment; none for the first period of a series.
    pub start: Option<Micros>,
    /// First moment behind it; none while open-ended.
    pub end: Option<Micros>,
    /// Usage that was there when it was looked at last, without `initial_value`.
    pub usage: Amount,
    /// Updates in that usage.
    pub updates: u64,
    /// Billable usage from before a cleanup, which `usage` no longer has.
    pub cleaned: Amount,
    /// What is free, where only what lies beyond is billed.
    pub free: Option<Amount>,
    /// The part of `usage` to be billed: all of it, or what lies beyond `free`.
    pub billable: Amount,
    /// Came from earlier periods whose invoice was final.
    pub carried_in: Amount,
    /// Went to a later period, since the invoice of this one was final.
    pub carried_out: Amount,
    /// In slices, whole units of `scale`.
    pub units: i128,
    /// What one of `units` stands for.
    pub scale: Amount,
    /// The number of the next slice.
    pub next_number: u64,
    /// When this was decided.
    pub billed_at: Micros,
}

impl BilledPeriod {
    /// All that is to be billed in it, in slices or not.
    pub fn due(&self) -> Amount {
        self.cleaned + self.billable + self.carried_in - self.carried_out
    }

    /// What of it is in no slice.
    pub fn remainder(&self) -> Amount {
        self.due() - Amount(self.units.wrapping_mul(self.scale.0))
    }
}
