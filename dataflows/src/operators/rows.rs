//! What an ordinary series has to emit: its dirty windows as rows, oldest first.

use super::batch::{Live, PackedBatch, PackedRow};
use super::calendar::Calendar;
use super::cells::{Flags, NONE, moment};
use super::convert::When;
use super::older::Older;
use super::plain::Plain;
use super::tick::{LENGTHS_MICROS, Tick};
use crate::types::{Amount, LiveState, MetricType, Micros};

impl Plain {
    /// Appends the dirty rows of a series, which become part of this emission, and its newest live period if there were
    /// any.
    pub fn emit(&mut self, slot: u32, emission: u32, batch: &mut PackedBatch) {
        let flags = self.cells.get(slot).flags;
        let older_dirty = flags.older_dirty();
        if older_dirty > 0 {
            self.emit_older(slot, emission, batch);
        }
        let cell = self.cells.get_mut(slot);
        if !cell.sums.is_dirty() {
            if older_dirty > 0 {
                batch.states.push(self.live_state(slot));
            }
            return;
        }
        cell.sums.mark_sent(emission);
        let (sums, window, is_whole) = (cell.sums, cell.window, cell.base == NONE);
        let (shape, series) = (self.shape(slot), self.cold.get(slot).series);
        let live = match shape.metric_type {
            _ if flags.has(Flags::PERIODIC) => Live::Window,
            MetricType::Checkpoint | MetricType::StripeBilling if is_whole => Live::Unbounded,
            _ => Live::Unsaid,
        };
        let mut value = shape.value(&sums.tally());
        if live == Live::Unsaid {
            let state = self.live_state(slot);
            value = state.value;
            batch.states.push(state);
        }
        batch.push(PackedRow::new(series, sums, window, length_secs(flags), value, live));
    }

    #[inline(never)]
    fn emit_older(&mut self, slot: u32, emission: u32, batch: &mut PackedBatch) {
        let (flags, series) = (self.cells.get(slot).flags, self.cold.get(slot).series);
        for older in self.dirty_older(slot, flags.older_dirty()) {
            let value = self.value(slot, &older);
            batch.push(PackedRow::new(
                series,
                older.sums,
                older.window,
                length_secs(flags),
                value,
                Live::Unsaid,
            ));
            self.older_sums(slot, older.at).mark_sent(emission);
        }
        self.cells.get_mut(slot).flags.set_older_dirty(0);
    }

    /// The value of an older row.
    fn value(&self, slot: u32, older: &Older) -> Amount {
        let shape = self.shape(slot);
        if shape.window_is_period() {
            return shape.value(&older.sums.tally());
        }
        if !older.sums.follows() {
            return older.value;
        }
        let start = Calendar { shape, cuts: &[] }.period(moment(older.window)).start;
        let own = self.pasts(slot).find(|past| Some(moment(past.start)) == start);
        shape.value(&own.map_or(older.sums, |own| own.sums).tally())
    }

    /// The newest live period. The series has had an update.
    fn live_state(&self, slot: u32) -> LiveState {
        let (tally, shape) = (self.current(slot), self.shape(slot));
        let period = Calendar { shape, cuts: &[] }.period(moment(self.cells.get(slot).window));
        let series = self.cold.get(slot).series;
        LiveState { series, period_start: period.start, tally, value: shape.value(&tally) }
    }

    /// There is nothing to emit: it is in the store already, or never will be.
    pub fn mark_stored(&mut self, slot: u32) {
        for older in self.older(slot, When::Now) {
            self.older_sums(slot, older.at).mark_clean();
        }
        let cell = self.cells.get_mut(slot);
        cell.flags.set_older_dirty(0);
        cell.sums.mark_clean();
    }

    /// Frees what has left of a series that nobody sends to.
    pub fn sweep(&mut self, slot: u32, now: &Tick) {
        let flags = self.flags(slot);
        if flags.is_plain() && flags.is_touched() {
            while self.leave_one(slot, now) {}
        }
    }
}

fn length_secs(flags: Flags) -> u32 {
    (LENGTHS_MICROS[flags.flush()] / Micros::PER_SECOND) as u32
}
