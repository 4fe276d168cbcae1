//! What an ordinary series has to emit: its dirty windows as rows, oldest first.

use super::calendar::Calendar;
use super::cells::{Flags, Record, Sums, moment};
use super::plain::Plain;
use super::tick::{LENGTHS_MICROS, Tick};
use crate::types::{Amount, LiveState, Micros, Row, RowKind};

impl Plain {
    /// Appends the dirty rows of a series, which become part of this emission. Returns the newest live period, for
    /// `series_state`, if there were any.
    pub fn emit(&mut self, slot: u32, emission: u32, rows: &mut Vec<Row>) -> Option<LiveState> {
        let before = rows.len();
        let flags = self.cells.get(slot).flags;
        if flags.has(Flags::OLDER_DIRTY) {
            self.emit_records(slot, emission, rows);
            self.cells.get_mut(slot).flags.0 &= !Flags::OLDER_DIRTY;
        }
        let is_dirty = self.cells.get(slot).sums.is_dirty();
        if !is_dirty && rows.len() == before {
            return None;
        }
        let live = self.live_state(slot);
        if is_dirty {
            let cell = self.cells.get_mut(slot);
            cell.sums.mark_sent(emission);
            rows.push(row(self.cold.get(slot).series, cell.window, flags, &cell.sums, live.value));
        }
        Some(live)
    }

    #[inline(never)]
    fn emit_records(&mut self, slot: u32, emission: u32, rows: &mut Vec<Row>) {
        let (flags, series) = (self.cells.get(slot).flags, self.cold.get(slot).series);
        let dirty: Vec<u32> =
            self.ring(slot).filter(|&record| self.records.items.get(record).sums.is_dirty()).collect();
        for index in dirty {
            let record = *self.records.items.get(index);
            let value = self.value(slot, &record);
            rows.push(row(series, record.window, flags, &record.sums, value));
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
            self.let_leave(slot, now);
        }
    }
}

fn row(series: crate::types::SeriesId, window: u32, flags: Flags, sums: &Sums, value: Amount) -> Row {
    let window_start = moment(window);
    let window_end = Micros(window_start.0 + LENGTHS_MICROS[flags.flush()]);
    Row { series, window_start, window_end, tally: sums.tally(), value, kind: RowKind::Absolute }
}
