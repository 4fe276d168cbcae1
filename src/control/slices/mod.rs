//! Slices of usage: how much of each live period is billed, and which slices are on their way. In: definitions, in journal
//! order. Out: what is still to be billed (`cut`), what is still to be sent (the outbox), what became of it.
//!
//! ```text
//! usage of a period ─▶ cut: PeriodsBilled + SlicesCut ─▶ outbox: new ─▶ sending ─▶ acked | dead
//!                        (src/control/slices/share)          ▲   ▲         │
//!                                                            │   └─────────▼
//!                                                            └───────── unknown
//! ```
//! Invariants:
//! 1. Units of a period are those of its slices: both are decided in one epoch, and the next slice is counted from there.
//! 2. An identifier is of one slice, for ever: number and period are part of it and a number is given once.
//! 3. Slices of a customer's price leave in the order in which they were cut.
//!
//! Bounded: of slices that have arrived the last `ACKED_KEPT` are remembered, of dead ones `DEAD_KEPT`; periods as long as
//! anything of them could still be billed. The store keeps all. What this does not do: send.

mod cut;
mod share;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use dataflows::types::{
    BilledPeriod, Definition, MetricType, Micros, Operation, SeriesId, SeriesKey, SeriesRecord, SeriesSpec,
    Slice, SliceMove, SliceState,
};

use super::{ControlError, Registry, SeriesFilter};
pub use cut::{CutRequest, Late, PeriodUsage, SeriesUsage, Unbilled};
pub(super) use cut::{DRAFT_MICROS, cut};
pub use share::QUANTITY_MAX;
pub use view::{PeriodView, SeriesView};

/// Slices that have arrived and are remembered: reports of errors come within hours.
const ACKED_KEPT: usize = 100_000;
/// Dead slices that are remembered.
const DEAD_KEPT: usize = 100_000;
/// How long behind its end a period is remembered. Stripe takes nothing older than 35 days, and nothing is cut by then.
const PERIOD_KEPT_MICROS: i64 = 40 * 86_400 * Micros::PER_SECOND;
/// Live periods of a series: (start) in order.
type Periods = BTreeMap<Option<Micros>, BilledPeriod>;
/// A live period of a series.
type OfPeriod = (SeriesId, Option<Micros>);

/// A slice and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The slice.
    pub slice: Arc<Slice>,
    /// Its state.
    pub state: SliceState,
    /// When it came to it.
    pub at: Micros,
    /// Since when it may have arrived; none while it cannot have.
    pub sent_at: Option<Micros>,
    /// Why, where that is not plain.
    pub reason: Option<String>,
}

/// How many slices there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Neither arrived nor dead, unknown ones included.
    pub waiting: u64,
    /// Of those, the ones that may have arrived.
    pub unknown: u64,
    /// Dead ones that are remembered.
    pub dead: u64,
    /// Arrived since the start of the process.
    pub acked: u64,
}

/// See the header.
#[derive(Default)]
pub struct Slices {
    /// Series whose usage is billed.
    exported: BTreeSet<SeriesId>,
    /// Those of them whose live period may have ended since somebody asked.
    ended: BTreeSet<SeriesId>,
    periods: HashMap<SeriesId, Periods>,
    /// By the order in which they were cut.
    outbox: BTreeMap<u64, Kept>,
    places: HashMap<String, u64>,
    /// Those that are not known to have arrived.
    open: BTreeMap<OfPeriod, BTreeSet<u64>>,
    /// In the order in which they arrived, or died.
    acked: VecDeque<u64>,
    dead: VecDeque<u64>,
    next_place: u64,
    counts: Counts,
}

/// Whether usage of such a series is billed, given a customer and credentials.
pub(super) fn is_exported(record: &SeriesRecord) -> bool {
    is_billed(&record.key, &record.spec)
}

/// A customer's price bills one of its series.
pub(super) fn billed_alone(
    registry: &Registry,
    key: &SeriesKey,
    spec: &SeriesSpec,
) -> Result<(), ControlError> {
    if !is_billed(key, spec) {
        return Ok(());
    }
    let price = |spec: &SeriesSpec| spec.stripe.as_ref().and_then(|stripe| stripe.price_id.clone());
    let filter = SeriesFilter {
        business_id: key.business_id.clone(),
        customer_id: key.customer_id.clone(),
        ..SeriesFilter::default()
    };
    let kin = registry.list(&filter, None, usize::MAX);
    let mut others = kin.iter().map(|handle| &*handle.record).filter(|record| record.key != *key);
    let is_taken = others.any(|record| is_exported(record) && price(&record.spec) == price(spec));
    if is_taken { Err(ControlError::PriceTaken) } else { Ok(()) }
}

pub(super) fn is_billed(key: &SeriesKey, spec: &SeriesSpec) -> bool {
    key.customer_id.is_some()
        && spec.metric_type == MetricType::StripeBilling
        && matches!(spec.operation, Operation::Sum | Operation::Count)
        && spec.stripe.as_ref().is_some_and(|stripe| stripe.enabled && stripe.price_id.is_some())
}

impl Slices {
    /// A series is there, or described anew.
    pub(super) fn describe(&mut self, record: &SeriesRecord) {
        if is_exported(record) {
            self.exported.insert(record.series);
        } else {
            self.exported.remove(&record.series);
        }
    }

    /// A series goes. Its slices are sent all the same.
    pub(super) fn end_series(&mut self, series: SeriesId) {
        self.exported.remove(&series);
        self.ended.remove(&series);
        self.periods.remove(&series);
    }

    /// A tenant goes, and with it the credentials that its slices would be sent with.
    pub(super) fn end_business(&mut self, business_id: &str) {
        let gone = |kept: &Kept| kept.slice.business_id == business_id;
        let places: Vec<u64> =
            self.outbox.iter().filter(|(_, kept)| gone(kept)).map(|(place, _)| *place).collect();
        places.into_iter().for_each(|place| self.forget(place));
        let Slices { outbox, acked, dead, .. } = self;
        acked.retain(|place| outbox.contains_key(place));
        dead.retain(|place| outbox.contains_key(place));
    }

    /// The live period of a series may have ended: whoever cuts slices looks at it soon.
    pub(super) fn note_ended(&mut self, series: SeriesId) {
        if self.exported.contains(&series) {
            self.ended.insert(series);
        }
    }

    /// Applies a definition of slices.
    pub(super) fn apply(&mut self, definition: &Definition) {
        match definition {
            Definition::PeriodsBilled { series, periods } => self.bill(*series, periods),
            Definition::SlicesCut(slices) => slices.iter().for_each(|slice| self.put(slice)),
            Definition::SlicesMoved(moves) => moves.iter().for_each(|moved| self.moved(moved)),
            _ => {}
        }
    }

    fn bill(&mut self, series: SeriesId, periods: &[BilledPeriod]) {
        let known = self.periods.entry(series).or_default();
        known.extend(periods.iter().map(|period| (period.start, period.clone())));
        let Some(now) = periods.iter().map(|period| period.billed_at).max() else { return };
        let open = &self.open;
        known.retain(|start, period| {
            let is_recent = period.end.is_none_or(|end| end.0 > now.0 - PERIOD_KEPT_MICROS);
            is_recent || open.contains_key(&(series, *start))
        });
    }

    fn put(&mut self, slice: &Slice) {
        if self.places.contains_key(&slice.identifier) {
            return;
        }
        let (place, at) = (self.next_place, slice.cut_at);
        self.next_place += 1;
        self.places.insert(slice.identifier.clone(), place);
        self.open.entry((slice.series, slice.period_start)).or_default().insert(place);
        self.counts.waiting += 1;
        let kept =
            Kept { slice: Arc::new(slice.clone()), state: SliceState::New, at, sent_at: None, reason: None };
        self.outbox.insert(place, kept);
    }

    fn moved(&mut self, moved: &SliceMove) {
        let Some(&place) = self.places.get(&moved.identifier) else { return };
        let Some(kept) = self.outbox.get_mut(&place) else { return };
        let before = std::mem::replace(&mut kept.state, moved.state);
        (kept.at, kept.reason) = (moved.at, moved.reason.clone());
        kept.sent_at = match moved.state {
            SliceState::New => None,
            _ => kept.sent_at.or(Some(moved.at)),
        };
        let key = (kept.slice.series, kept.slice.period_start);
        self.count(before, -1);
        self.count(moved.state, 1);
        if before == moved.state {
            return;
        }
        match before {
            SliceState::Acked => self.acked.retain(|known| *known != place),
            SliceState::Dead => self.dead.retain(|known| *known != place),
            _ => {}
        }
        match moved.state {
            SliceState::Acked => {
                self.acked.push_back(place);
                self.close(key, place);
                self.counts.acked += 1;
            }
            SliceState::Dead => {
                self.dead.push_back(place);
                // A report may come for one that had arrived.
                self.open.entry(key).or_default().insert(place);
            }
            _ => drop(self.open.entry(key).or_default().insert(place)),
        }
        self.forget_old();
    }

    fn count(&mut self, state: SliceState, difference: i64) {
        let add = |count: &mut u64| *count = count.saturating_add_signed(difference);
        match state {
            SliceState::New | SliceState::Sending => add(&mut self.counts.waiting),
            SliceState::Unknown => {
                add(&mut self.counts.waiting);
                add(&mut self.counts.unknown);
            }
            SliceState::Dead => add(&mut self.counts.dead),
            SliceState::Acked => {}
        }
    }

    fn close(&mut self, key: OfPeriod, place: u64) {
        if let Some(open) = self.open.get_mut(&key) {
            open.remove(&place);
            if open.is_empty() {
                self.open.remove(&key);
            }
        }
    }

    fn forget_old(&mut self) {
        for (kept_max, is_dead) in [(ACKED_KEPT, false), (DEAD_KEPT, true)] {
            let queue = if is_dead { &mut self.dead } else { &mut self.acked };
            if queue.len() > kept_max
                && let Some(place) = queue.pop_front()
            {
                self.forget(place);
            }
        }
    }

    fn forget(&mut self, place: u64) {
        if let Some(kept) = self.outbox.remove(&place) {
            self.count(kept.state, -1);
            self.places.remove(&kept.slice.identifier);
            self.close((kept.slice.series, kept.slice.period_start), place);
        }
    }

    /// Series whose usage is billed, strictly behind `after`, at most `limit`.
    pub fn exported(&self, after: Option<SeriesId>, limit: usize) -> Vec<SeriesId> {
        let start = after.map_or(SeriesId(0), |after| SeriesId(after.0.saturating_add(1)));
        self.exported.range(start..).take(limit).copied().collect()
    }

    /// Series whose live period may have ended since the last call.
    pub(super) fn take_ended(&mut self) -> BTreeSet<SeriesId> {
        std::mem::take(&mut self.ended)
    }

    /// Whether there are any.
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Slices in the order in which they were cut, from a place on, that are not final; at most `limit`. And the place to go
    /// on from.
    pub fn waiting(&self, from: u64, limit: usize) -> (Vec<Kept>, u64) {
        let (mut found, mut next) = (Vec::new(), from);
        for (place, kept) in self.outbox.range(from..) {
            if found.len() == limit {
                return (found, next);
            }
            next = place + 1;
            if !kept.state.is_final() {
                found.push(kept.clone());
            }
        }
        (found, next)
    }

    /// The slice of that identifier, if it is remembered.
    pub fn of_identifier(&self, identifier: &str) -> Option<&Kept> {
        self.outbox.get(self.places.get(identifier)?)
    }

    /// Slices of a customer's price that have arrived, dated in `[from, until)`: their sum in whole units.
    pub fn acked_between(&self, slice: &Slice, from: Micros, until: Micros) -> i128 {
        let is_kin = |other: &Slice| {
            (&other.business_id, &other.stripe_customer_id, &other.price_id)
                == (&slice.business_id, &slice.stripe_customer_id, &slice.price_id)
        };
        let acked = self.acked.iter().filter_map(|place| self.outbox.get(place)).map(|kept| &kept.slice);
        let among = acked.filter(|other| is_kin(other) && (from..until).contains(&other.dated_at));
        among.map(|other| i128::from(other.quantity)).sum()
    }

    /// Live periods of a series of which something is billed, oldest first.
    pub fn periods(&self, series: SeriesId) -> impl Iterator<Item = &BilledPeriod> {
        self.periods.get(&series).into_iter().flat_map(BTreeMap::values)
    }

    /// What is billed of a live period, if anything ever was looked at.
    pub fn period(&self, series: SeriesId, start: Option<Micros>) -> Option<&BilledPeriod> {
        self.periods.get(&series)?.get(&start)
    }

    /// Slices of a live period that are not known to have arrived.
    pub fn open(&self, series: SeriesId, start: Option<Micros>) -> impl Iterator<Item = &Kept> {
        let places = self.open.get(&(series, start)).into_iter().flatten();
        places.filter_map(|place| self.outbox.get(place))
    }

    /// How many there are.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Definitions that bring all of it back.
    pub(super) fn export(&self) -> impl Iterator<Item = Definition> {
        let mut billed: Vec<_> = self.periods.iter().filter(|(_, periods)| !periods.is_empty()).collect();
        billed.sort_unstable_by_key(|(series, _)| **series);
        let billed = billed.into_iter().map(|(&series, periods)| Definition::PeriodsBilled {
            series,
            periods: periods.values().cloned().collect(),
        });
        let cut: Vec<Slice> = self.outbox.values().map(|kept| (*kept.slice).clone()).collect();
        // In the order in which they came to be final, so that the oldest are forgotten first again.
        let order = self.acked.iter().chain(&self.dead);
        let settled: BTreeSet<u64> = order.clone().copied().collect();
        let rest = self.outbox.keys().filter(|place| !settled.contains(place));
        let kept = order.chain(rest).filter_map(|place| self.outbox.get(place));
        let moves: Vec<SliceMove> = kept.flat_map(Kept::moves).collect();
        let cut = (!cut.is_empty()).then_some(Definition::SlicesCut(cut));
        billed.chain(cut).chain((!moves.is_empty()).then_some(Definition::SlicesMoved(moves)))
    }
}

impl Kept {
    /// What brings a slice that was cut to its state.
    pub fn moves(&self) -> Vec<SliceMove> {
        let identifier = || self.slice.identifier.clone();
        let sent = self.sent_at.map(|at| SliceMove {
            identifier: identifier(),
            state: SliceState::Sending,
            at,
            reason: None,
        });
        let is_new = self.state == SliceState::New && self.reason.is_none();
        let last = (!is_new).then(|| SliceMove {
            identifier: identifier(),
            state: self.state,
            at: self.at,
            reason: self.reason.clone(),
        });
        sent.into_iter().chain(last).collect()
    }
}
