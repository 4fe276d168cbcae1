//! What an ordinary series has to emit: its dirty windows as rows, oldest first.

use super::batch::{Live, PackedBatch, PackedRow};
use super::calendar::Calendar;
use super::cells::{Flags, NONE, Record, moment};
use super::plain::Plain;
use super::tick::{LENGTHS_MICROS, Tick};
use crate::types::{Amount, LiveState, MetricType, Micros};

impl Plain {
    /// Appends the dirty rows of a series, which become part of this emission, and its newest live period if there were
    /// any.
    pub fn emit(&mut self, slot: u32, emission: u32, batch: &mut PackedBatch) {
        let before = batch.packed.len();
        let flags = self.cells.get(slot).flags;
        if flags.has(Flags::OLDER_DIRTY) {
            self.emit_records(slot, emission, batch);
            self.cells.get_mut(slot).flags.0 &= !Flags::OLDER_DIRTY;
        }
        let cell = self.cells.get_mut(slot);
        if !cell.sums.is_dirty() {
            if batch.packed.len() > before {
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
        batch.packed.push(PackedRow::new(series, sums, window, length_secs(flags), value, live));
    }

    #[inline(never)]
    fn emit_records(&mut self, slot: u32, emission: u32, batch: &mut PackedBatch) {
        let (flags, series) = (self.cells.get(slot).flags, self.cold.get(slot).series);
        let dirty: Vec<u32> =
            self.ring(slot).filter(|&record| self.records.items.get(record).sums.is_dirty()).collect();
        for index in dirty {
            let record = *self.records.items.get(index);
            let value = self.value(slot, &record);
            let length_secs = length_secs(flags);
            batch.packed.push(PackedRow::new(
                series,
                record.sums,
                record.window,
                length_secs,
                value,
                Live::Unsaid,
            ));
            self.records.items.get_mut(index).sums.mark_sent(emission);
        }
    }

    /// The value of an older row.
    fn value(&self, slot: u32, record: &Record) -> Amount {
        let shape = self.shape(slot);
        if shape.window_is_period() {
            return shape.value(&record.sums.tally());
        }
        if !record.sums.follows() {
            return record.value();
        }
        let start = Calendar { shape, cuts: &[] }.period(moment(record.window)).start;
        let own = self.pasts(slot).find(|past| Some(moment(past.start)) == start);
        shape.value(&own.map_or(record.sums, |own| own.sums).tally())
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
        let ring: Vec<u32> = self.ring(slot).collect();
        for record in ring {
            self.records.items.get_mut(record).sums.mark_clean();
        }
        let cell = self.cells.get_mut(slot);
        cell.flags.0 &= !Flags::OLDER_DIRTY;
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
