//! Block: which updates a limit refuses (semantics, section 8), for every layout of a series.
//!
//! | in | out |
//! |---|---|
//! | an update, its event time, its id | `Duplicate`, else `TooLate`, else `Refused`, else `Admitted`: in this order |
//!
//! A worker applies updates one by one and owns its series, so each is judged by the value that all admitted ones before
//! it have led to: no race can pass the limit. A refusal changes no state: no window or period opens, the id stays
//! unknown, a watched series stays quiet; there is only a counter of this process, and only for who waits.
//!
//! An update is judged in the live period of its own event time, late or not. Stamps decide whether that is open, and
//! what is open is in memory with its whole tally.
//!
//! Cost: a series without such a limit pays nothing (`Flags::BLOCKS` shares a test with `WATCHED`); one with it goes the
//! slow path of meter with each update, looks its id up twice, and reads its shape, base and, for a late event, its past
//! periods.

use super::calendar::{Period, is_open};
use super::cells::Flags;
use super::meter::{Meter, Output};
use crate::types::{Amount, Decision, EventId, Micros, NO_REPLY, Outcome, Refusal, Tally, Update};

impl Meter {
    /// Whether an update of a series that is there counts, and notes it. The id of one that does is remembered.
    pub(super) fn judge(
        &mut self,
        update: &Update,
        flags: Flags,
        event_at: Micros,
        id: Option<EventId>,
        out: &mut Output,
    ) -> Outcome {
        let outcome = match self.blocks(update.slot, flags) {
            true if id.is_some_and(|id| self.ids.contains(id)) => Outcome::Duplicate,
            true => self.verdict(update.slot, event_at, update.amount, self.tick.arrival),
            false => Outcome::Admitted,
        };
        let outcome = match (outcome, id) {
            // For whom nothing was looked up yet this is the look-up.
            (Outcome::Admitted, Some(id)) if !self.ids.insert(id) => Outcome::Duplicate,
            (outcome, _) => outcome,
        };
        match outcome {
            Outcome::Duplicate => out.duplicates += 1,
            Outcome::Refused => {
                out.refused += 1;
                self.note_refusal(update);
            }
            Outcome::TooLate => out.too_late += 1,
            Outcome::Admitted | Outcome::Gone => {}
        }
        outcome
    }

    /// What would become of an update that arrived now, `at` or at the last stamp if that is later, should that be a
    /// refusal; none if it has to be tried. It sees every update that was applied, and so all that were acknowledged.
    pub fn refuse(&mut self, update: &Update, id: Option<EventId>, at: Micros) -> Option<Decision> {
        let (flags, at) = (self.plain.flags(update.slot), at.max(self.tick.arrival));
        if flags.is_closed() || !self.blocks(update.slot, flags) || id.is_some_and(|id| self.ids.contains(id))
        {
            return None;
        }
        let is_arrival_only = self.shape(update.slot).max_event_age_secs == 0;
        let event_at = if is_arrival_only { at } else { update.event_at };
        let outcome = self.verdict(update.slot, event_at, update.amount, at);
        if outcome == Outcome::Admitted {
            return None;
        }
        if outcome == Outcome::Refused {
            self.note_refusal(update);
        }
        Some(self.decide(update, event_at, outcome, at))
    }

    fn blocks(&self, slot: u32, flags: Flags) -> bool {
        match flags.is_plain() {
            true => flags.has(Flags::BLOCKS),
            false => self.shape(slot).blocks(),
        }
    }

    /// `Admitted`, `Refused` or `TooLate`.
    fn verdict(&self, slot: u32, event_at: Micros, amount: Amount, arrival: Micros) -> Outcome {
        let (period, tally) = self.live_period(slot, event_at);
        let shape = self.shape(slot);
        if !is_open(shape, period, arrival) {
            Outcome::TooLate
        } else if shape.admits(&tally, amount) {
            Outcome::Admitted
        } else {
            Outcome::Refused
        }
    }

    /// Why an update was refused; none without a limit.
    pub(super) fn refusal(
        &self,
        slot: u32,
        event_at: Micros,
        amount: Amount,
        arrival: Micros,
    ) -> Option<Refusal> {
        let (period, tally) = self.live_period(slot, event_at);
        let shape = self.shape(slot);
        Some(Refusal {
            value: shape.value(&tally),
            limit: shape.limit?.value,
            resets_at: period.end.filter(|end| *end > arrival),
            fits_anew: shape.admits(&Tally::EMPTY, amount),
        })
    }

    pub(super) fn live_period(&self, slot: u32, at: Micros) -> (Period, Tally) {
        match self.ledgers.get(&slot) {
            Some(ledger) => ledger.live_period(at),
            None => self.plain.live_period(slot, at),
        }
    }

    fn note_refusal(&mut self, update: &Update) {
        if update.item != NO_REPLY {
            *self.refused.entry(update.slot).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, Settings};
    use crate::types::{
        Action, Command, Limit, LimitSource, MetricType, Notify, Operation, Operator, SeriesId, Shape, Span,
        Work,
    };

    const TEN: Limit =
        Limit { value: Amount::from_units(10), operator: Operator::Gte, action: Action::Block };

    fn shape(flush: Span, reset: Span) -> Shape {
        Shape {
            operation: Operation::Sum,
            metric_type: MetricType::Reset,
            flush,
            reset,
            initial_value: Amount::ZERO,
            batch: Span::S15,
            stored: true,
            limit: Some(TEN),
            limit_source: LimitSource::Series,
            notify: Notify::NONE,
            max_event_age_secs: 3_600,
            cleanup_after_days: None,
        }
    }

    /// What becomes of amounts that arrive at those seconds, the event time being the arrival.
    fn outcomes(shape: Shape, sent: &[(i64, i64)]) -> Vec<Outcome> {
        let sent = sent.to_vec();
        timely::execute_directly(move |worker| {
            let mut driver = Driver::new(worker, &Settings { workers: 1, dedup_horizon_secs: 3_600 });
            let mut output = Output::default();
            let commands = vec![Command::Open { slot: 0, series: SeriesId(1), shape }];
            driver.submit(Work::Commands { epoch: 1, stamp: Micros(0), commands });
            for (epoch, (seconds, units)) in (2..).zip(sent) {
                let stamp = Micros::from_seconds(seconds);
                let update = Update { slot: 0, item: 0, event_at: stamp, amount: Amount::from_units(units) };
                driver.submit(Work::Updates { epoch, stamp, updates: vec![update], ids: Vec::new() });
                driver.step(worker, &mut output);
            }
            driver.close(worker);
            output.decisions.iter().map(|decision| decision.outcome).collect()
        })
    }

    #[test]
    fn a_clock_that_went_back_lifts_no_limit() {
        for (flush, reset) in [(Span::S1, Span::S1), (Span::S1, Span::S5)] {
            // By the greatest stamp the period of second 1,000 is closed long since.
            let sent = [(1_000, 9), (2_000, 10), (1_000, 1), (1_000, 1), (900, 10), (900, 1), (2_001, 10)];
            let outcomes = outcomes(shape(flush, reset), &sent);
            let back = &outcomes[4..6];
            assert_eq!(back, [Outcome::Admitted, Outcome::Refused], "{flush} {reset}: {outcomes:?}");
            assert_eq!(outcomes[1], Outcome::Admitted, "{flush} {reset}: {outcomes:?}");
            assert_eq!(outcomes[3], Outcome::Refused, "{flush} {reset}: {outcomes:?}");
        }
    }
}
