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
//! Cost: `rooms` holds for each series how far the value of its newest live period may rise before there can be an edge, so
//! that an update of the newest window compares and subtracts 8 bytes. What is not known (0), falls, opens a window, or
//! belongs to another operation or operator than a sum or count that rises towards its limit, goes the slow path of meter.

use super::calendar::is_open;
use super::cells::Flags;
use super::meter::{Meter, Output};
use crate::types::{Amount, Crossing, EffectiveLimit, Micros, Shape, Tally};

/// What an update of a count adds.
const ONE: i64 = Amount::UNIT as i64;

/// Takes the rise of an update from the room there is; false, and nothing taken, if it may be an edge.
#[inline(always)]
pub(super) fn take_room(room: &mut i64, flags: Flags, amount: Amount) -> bool {
    let rise = if flags.has(Flags::COUNTS) { i128::from(ONE) } else { amount.0 };
    let is_quiet = rise >= 0 && rise < i128::from(*room);
    if is_quiet {
        *room -= rise as i64;
    }
    is_quiet
}

impl Meter {
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

    /// The room of a series whose value or limit has changed.
    pub(super) fn make_room(&mut self, slot: u32) {
        let flags = self.plain.flags(slot);
        if flags.is_plain() && flags.has(Flags::LIMITED) && flags.is_touched() {
            let room = self.plain.shape(slot).quiet_rise(&self.plain.current(slot));
            *self.plain.rooms.get_mut(slot) = room;
        }
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
