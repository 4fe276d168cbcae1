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

    fn live_period(&self, slot: u32, at: Micros) -> (Period, Tally) {
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
