//! What is billed of a series, for who asks: its live periods as they are now, with their slices by what became of them.

use std::collections::BTreeMap;

use dataflows::types::{Amount, BilledPeriod, Micros, SliceState};

use super::cut::{Cutting, PeriodUsage, Terms, Unbilled};
use super::share::{rounded, units};
use super::{Kept, is_exported};
use crate::control::{Registry, SeriesHandle};

/// A live period and what is billed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeriodView {
    /// What there is to bill, as of now.
    pub period: BilledPeriod,
    /// Whether its invoice takes nothing more.
    pub is_final: bool,
    /// Units in slices that have arrived.
    pub exported: i128,
    /// Units in slices that wait, or may have arrived.
    pub pending: i128,
    /// Units in slices that never will arrive.
    pub dead: i128,
    /// What is in no slice and, since the invoice is final, in none of this period any more.
    pub held: Amount,
}

/// All that is billed of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesView {
    /// Oldest first.
    pub periods: Vec<PeriodView>,
    /// Slices that are not known to have arrived, in the order in which they were cut.
    pub slices: Vec<Kept>,
    /// Why nothing is billed, if nothing is.
    pub unbilled: Option<Unbilled>,
}

impl SeriesView {
    /// Whether usage waits that will be billed: in slices, or whole units in none. What nobody is billed for is not owed.
    pub fn is_owed(&self) -> bool {
        let is_owed = |it: &PeriodView| {
            let period = &it.period;
            it.pending != 0
                || !it.is_final && units(period.due(), period.scale, period.end.is_some()) != period.units
        };
        self.unbilled.is_none() && self.periods.iter().any(is_owed)
    }
}

impl Registry {
    /// Whether usage of a series is to be billed.
    pub fn is_exported(&self, handle: &SeriesHandle) -> bool {
        is_exported(&handle.record)
    }

    /// What is billed of a series whose live periods in memory are these.
    pub fn billed(&self, handle: &SeriesHandle, usage: &[PeriodUsage], now: Micros) -> SeriesView {
        let (terms, unbilled) = match self.terms(handle) {
            Ok(terms) => (terms, None),
            Err(why) => (Terms::unknown(handle), Some(why)),
        };
        let looking = Cutting::new(self, handle, terms, now);
        let known = self.slices().periods(handle.series).map(|period| (period.start, period.clone()));
        let mut periods: BTreeMap<_, _> = known.collect();
        let usage = self.as_of(now, handle, usage);
        for usage in usage.iter().filter(|usage| usage.start.is_none_or(|start| start <= now)) {
            let period = looking.looked_at(usage, usage.end.is_some_and(|end| end <= now));
            periods.insert(period.start, period);
        }
        let slices: Vec<Kept> =
            periods.keys().flat_map(|start| self.slices().open(handle.series, *start)).cloned().collect();
        let periods = periods.into_values().map(|period| {
            let in_slices = |is_it: fn(SliceState) -> bool| -> i128 {
                let open = self.slices().open(handle.series, period.start);
                open.filter(|kept| is_it(kept.state)).map(|kept| i128::from(kept.slice.quantity)).sum()
            };
            let (pending, dead) =
                (in_slices(|state| !state.is_final()), in_slices(|state| state == SliceState::Dead));
            let is_final = period.end.is_some_and(|end| self.is_finalized(handle.series, end, now));
            let rest = rounded(period.remainder(), period.scale);
            let held = if is_final { Amount(rest.saturating_mul(period.scale.0)) } else { Amount::ZERO };
            PeriodView { exported: period.units - pending - dead, pending, dead, is_final, held, period }
        });
        SeriesView { periods: periods.collect(), slices, unbilled }
    }
}
