//! Crossings: the edges of limits, found where a value changes (semantics, section 8).
//!
//! | in | out |
//! |---|---|
//! | an admitted update, the live period of its event time before and behind it | the edges between the two |
//! | another limit, the live period of now | the edges between the two limits |
//!
//! An edge is a function of the two tallies and the limit (`edges`): there is no state to lose, a replay finds the same.
//! A period that is no longer open has none, as it has no breach.
//!
//! Cost: `edges` holds for each series to what its newest window may count before there can be an edge, and the flags hold a
//! power of four below it: an update of a series that is far from its limit touches nothing but the cell, one that is nearer
//! reads 8 bytes more. What is not known, falls, or belongs to another operation or operator than a sum or count that rises
//! towards its limit, goes the slow path of meter with its tallies; so does one that opens or is behind the newest window of
//! a `reset` series, since that may be another period.

use super::calendar::is_open;
use super::cells::{Cell, Flags};
use super::meter::{Meter, Output};
use crate::types::{Amount, Crossing, EffectiveLimit, Micros, Shape, Tally};

/// The next edge of a series whose limit or value has changed since somebody looked.
pub(super) const UNKNOWN: i64 = i64::MIN;
/// There is none ahead.
const NEVER: i64 = i64::MAX;

/// Whether an update of the newest window can be no edge.
#[inline(never)]
pub(super) fn is_quiet(cell: &Cell, amount: Amount, edge: i64) -> bool {
    let counts = cell.flags.has(Flags::COUNTS);
    let is_rise = amount.0 >= 0 || counts;
    is_rise && edge != UNKNOWN && cell.sums.counted_with(amount, counts) < i128::from(edge)
}

/// An edge that is ahead: a great one is looked for again on the way.
fn packed(edge: i128) -> i64 {
    edge.clamp(i128::from(UNKNOWN), i128::from(NEVER) - 1) as i64
}

impl Meter {
    /// What an update that is no edge, whatever window it belongs to, will bring the newest window to if that is its own; none
    /// if it may be one.
    pub(super) fn quiet_before(&self, slot: u32, flags: Flags, amount: Amount) -> Option<i128> {
        if !flags.is_plain()
            || flags.has(Flags::BLOCKS)
            || flags.has(Flags::LIMITED) && !flags.has(Flags::ENDLESS)
        {
            return None;
        }
        let cell = self.plain.cells.get(slot);
        let is_quiet = !flags.has(Flags::LIMITED)
            || cell.is_far_with(amount)
            || is_quiet(cell, amount, *self.plain.edges.get(slot));
        is_quiet.then(|| cell.sums.counted_with(amount, flags.has(Flags::COUNTS)))
    }

    /// Such an update was added: what it did not bring to the newest window went to the rest of its period, where the edge is
    /// as far nearer.
    pub(super) fn keep_edge(&mut self, slot: u32, expected: i128) {
        let cell = self.plain.cells.get_mut(slot);
        if !cell.flags.is_plain() || !cell.flags.has(Flags::LIMITED) {
            return;
        }
        let elsewhere = expected - cell.sums.counted(cell.flags.has(Flags::COUNTS));
        if elsewhere != 0 {
            let edge = self.plain.edges.get_mut(slot);
            if *edge != NEVER {
                *edge = packed(i128::from(*edge) - elsewhere);
            }
            cell.set_quiet_below(*edge);
        }
    }

    /// The tally of the live period of an event, where edges are looked for.
    pub(super) fn watched_tally(&self, slot: u32, event_at: Micros) -> Option<Tally> {
        let shape = self.shape(slot);
        shape.limit?;
        let (period, tally) = self.live_period(slot, event_at);
        is_open(shape, period, self.tick.arrival).then_some(tally)
    }

    /// An update was admitted to a live period whose tally was `before`.
    pub(super) fn note_update(&mut self, slot: u32, event_at: Micros, before: &Tally, out: &mut Output) {
        let (period, after) = self.live_period(slot, event_at);
        let (shape, series) = (*self.shape(slot), self.series_in(slot));
        out.crossings.extend(shape.edges(before, &after).map(|edge| Crossing {
            series,
            period_start: period.start,
            period_end: period.end,
            count: after.count,
            edge,
            value: shape.value(&after),
            limit: shape.limit,
            at: self.tick.arrival,
        }));
    }

    /// Looks for the next edge of a series whose value or limit has changed.
    pub(super) fn find_edge(&mut self, slot: u32) {
        let flags = self.plain.flags(slot);
        if !flags.is_plain() || !flags.has(Flags::LIMITED) {
            return;
        }
        let rise = self.plain.shape(slot).quiet_rise(&self.plain.current(slot));
        let cell = self.plain.cells.get_mut(slot);
        let edge = match rise {
            0 => UNKNOWN,
            NEVER => NEVER,
            rise => packed(i128::from(rise) + cell.sums.counted(flags.has(Flags::COUNTS))),
        };
        cell.set_quiet_below(edge);
        *self.plain.edges.get_mut(slot) = edge;
    }

    /// Another effective limit. Nothing is news at a start, which only brings back what was.
    pub(super) fn limit(
        &mut self,
        slot: u32,
        limit: Option<EffectiveLimit>,
        is_news: bool,
        out: &mut Output,
    ) {
        let arrival = self.tick.arrival;
        let Some(standing) = self.standing(slot, arrival) else { return };
        let (before, series) = (*self.shape(slot), self.series_in(slot));
        let shape: Shape = before.limited(limit);
        if shape == before {
            return;
        }
        self.reshape(slot, shape);
        self.find_edge(slot);
        if !is_news {
            return;
        }
        let breached = shape.is_breached(&standing.tally);
        out.limited.series += 1;
        out.limited.breached += u64::from(breached && !standing.breached);
        out.crossings.extend(shape.edges_of_limit(&before, &standing.tally).map(|edge| Crossing {
            series,
            period_start: standing.period_start,
            period_end: standing.period_end,
            count: standing.tally.count,
            edge,
            value: standing.value,
            limit: shape.limit,
            at: arrival,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, Settings};
    use crate::types::{
        Action, Command, Edge, Limit, LimitSource, MetricType, NO_REPLY, Notify, Operation, Operator,
        SeriesId, Span, Update, Work,
    };
    use proptest::prelude::*;

    /// When the first update arrives.
    const NOON: i64 = 12 * 3_600;

    fn shape(operation: Operation, metric_type: MetricType, bound: i64, notify: &[u16]) -> Shape {
        let value = Amount::from_units(bound);
        Shape {
            operation,
            metric_type,
            flush: Span::M1,
            reset: Span::M1,
            initial_value: Amount::ZERO,
            batch: Span::S15,
            stored: true,
            limit: Some(Limit { value, operator: Operator::Gte, action: Action::Deny }),
            limit_source: LimitSource::Series,
            notify: Notify::new(notify),
            max_event_age_secs: 3_600,
            cleanup_after_days: None,
        }
    }

    /// The edges that a worker finds, update by update: (seconds since the last, seconds of age, amount).
    fn found(shape: Shape, sent: &[(i64, i64, Amount)]) -> Vec<Vec<Edge>> {
        let sent = sent.to_vec();
        timely::execute_directly(move |worker| {
            let mut driver = Driver::new(worker, &Settings { workers: 1, dedup_horizon_secs: 3_600 });
            let mut output = Output::default();
            let commands = vec![Command::Open { slot: 0, series: SeriesId(1), shape }];
            driver.submit(Work::Commands { epoch: 1, stamp: Micros::from_seconds(NOON), commands });
            let mut now = NOON;
            for (epoch, (passed, age, amount)) in (2..).zip(&sent) {
                now += passed;
                let (event_at, amount) = (Micros::from_seconds(now - age), *amount);
                let updates = vec![Update { slot: 0, item: NO_REPLY, event_at, amount }];
                driver.submit(Work::Updates {
                    epoch,
                    stamp: Micros::from_seconds(now),
                    updates,
                    ids: Vec::new(),
                });
                driver.step(worker, &mut output);
            }
            driver.close(worker);
            let mut edges = output.crossings.iter().map(|crossing| crossing.edge);
            let mut by_epoch = vec![Vec::new(); sent.len()];
            for (epoch, count) in &output.crossed {
                by_epoch[*epoch as usize - 2].extend(edges.by_ref().take(*count));
            }
            by_epoch
        })
    }

    /// The same by looking at every tally.
    fn expected(shape: Shape, sent: &[(i64, i64, Amount)]) -> Vec<Vec<Edge>> {
        let (mut tallies, mut now) = (std::collections::BTreeMap::new(), NOON);
        let edges = sent.iter().map(|(passed, age, amount)| {
            now += passed;
            let period = if shape.metric_type == MetricType::Reset { (now - age).div_euclid(60) } else { 0 };
            let tally = tallies.entry(period).or_insert(Tally::EMPTY);
            let before = std::mem::replace(tally, tally.merge(Tally::of(*amount)));
            shape.edges(&before, tally).collect()
        });
        edges.collect()
    }

    proptest! {
        #[test]
        fn no_edge_is_missed_however_near_or_far_it_is(
            operation in proptest::sample::select(vec![Operation::Sum, Operation::Count, Operation::Max]),
            metric_type in proptest::sample::select(vec![MetricType::Checkpoint, MetricType::Reset]),
            bound in 1..400i64,
            notify in proptest::collection::vec(1..130u16, 0..3),
            unit in proptest::sample::select(vec![Amount::UNIT, Amount::UNIT / 100]),
            sent in proptest::collection::vec((0..40i64, prop_oneof![3 => Just(0), 1 => 0..240i64], -3..20i64), 1..80),
        ) {
            let sent: Vec<_> = sent.into_iter().map(|(passed, age, units)| (passed, age, Amount(i128::from(units) * unit))).collect();
            let shape = shape(operation, metric_type, bound, &notify);
            prop_assert_eq!(found(shape, &sent), expected(shape, &sent));
        }
    }
}
