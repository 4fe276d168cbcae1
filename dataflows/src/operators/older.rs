//! The older windows of an ordinary series, in one of two forms.
//!
//! * Where a window is a period its older windows are entries of a `log`: a roll writes one cache line in sequence.
//! * Otherwise they are a ring of records from oldest to newest, entered at the newest: a window opened late needs the
//!   frozen value of the one before it, so the newest that has left stays. A roll puts one record behind the newest and
//!   takes one from the other end if it has left; that touches two records, however long the ring is.

use super::cells::{Cell, EMISSIONS, Flags, NONE, Record, Sums, moment};
use super::convert::When;
use super::log::{Log, LogEntry};
use super::plain::Plain;
use super::tick::{LENGTHS_MICROS, SPANS, Tick};
use crate::prefetch::prefetch;
use crate::types::{Amount, Micros};

/// How many series a call takes out of the way of one log.
const MOVED_MAX: usize = 1_024;

/// An older window.
#[derive(Clone, Copy)]
pub(super) struct Older {
    /// Where it is: an index of the log or of the slab.
    pub at: u32,
    /// Its start, in seconds.
    pub window: u32,
    /// Its tally and marks.
    pub sums: Sums,
    /// The frozen value of its row. Means nothing where a window is a period, or if it follows.
    pub value: Amount,
}

/// The logs, by flush interval and batch class; most are never used.
#[derive(Default)]
pub(super) struct Logs(Vec<Log>);

impl Logs {
    fn number(flags: Flags) -> usize {
        flags.flush() * SPANS + flags.class()
    }

    fn of(&self, flags: Flags) -> Option<&Log> {
        self.0.get(Logs::number(flags))
    }

    fn of_mut(&mut self, flags: Flags) -> &mut Log {
        let number = Logs::number(flags);
        if self.0.len() <= number {
            self.0.resize_with(number + 1, Log::default);
        }
        &mut self.0[number]
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Log> {
        self.0.iter_mut()
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.0.iter().map(Log::len).sum()
    }

    /// Memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        self.0.iter().map(Log::resident_bytes).sum::<usize>() + self.0.capacity() * size_of::<Log>()
    }
}

impl Plain {
    /// The older windows of a series, oldest first.
    pub(super) fn older(&self, slot: u32, when: When) -> Vec<Older> {
        let cell = if when == When::Now { self.cells.get(slot) } else { self.cells.frozen(slot) };
        if cell.newest == NONE {
            return Vec::new();
        }
        if cell.flags.has(Flags::PERIODIC) { self.in_log(cell, slot, when) } else { self.in_ring(cell, when) }
    }

    /// The dirty ones among them, `count` of which there are (the greatest: that many or more).
    pub(super) fn dirty_older(&self, slot: u32, count: u32) -> Vec<Older> {
        let cell = self.cells.get(slot);
        let mut older = match self.logs.of(cell.flags).filter(|_| cell.flags.has(Flags::PERIODIC)) {
            Some(log) if count < Flags::OLDER_DIRTY_MAX => newest_dirty(log, cell.newest, slot, count),
            _ => self.older(slot, When::Now),
        };
        older.retain(|older| older.sums.is_dirty());
        older
    }

    fn in_log(&self, cell: &Cell, slot: u32, when: When) -> Vec<Older> {
        let Some(log) = self.logs.of(cell.flags) else { return Vec::new() };
        let (mut found, mut at) = (Vec::new(), cell.newest);
        let get = |at: u32| if when == When::Now { log.get(at, slot) } else { log.get_frozen(at, slot) };
        while let Some(entry) = get(at) {
            found.push(Older { at, window: entry.window, sums: entry.sums, value: Amount::ZERO });
            at = entry.older;
        }
        found.reverse();
        found
    }

    fn in_ring(&self, cell: &Cell, when: When) -> Vec<Older> {
        let records = &self.records.items;
        let get = |at: u32| if when == When::Now { *records.get(at) } else { *records.frozen(at) };
        let (mut found, mut at) = (Vec::new(), get(cell.newest).newer);
        loop {
            let record = get(at);
            found.push(Older { at, window: record.window, sums: record.sums, value: record.value() });
            if at == cell.newest {
                return found;
            }
            at = record.newer;
        }
    }

    /// Where the older window that starts at a moment is, if windows are periods: most late updates are for one of the
    /// newest.
    pub(super) fn find_in_log(&self, slot: u32, window: u32) -> Option<Older> {
        let Cell { newest, flags, .. } = *self.cells.get(slot);
        let log = self.logs.of(flags).filter(|_| flags.has(Flags::PERIODIC))?;
        let mut at = newest;
        loop {
            let entry = log.get(at, slot)?;
            if entry.window <= window {
                let found = Older { at, window, sums: entry.sums, value: Amount::ZERO };
                return (entry.window == window).then_some(found);
            }
            at = entry.older;
        }
    }

    /// Asks for what an update will touch that is not for the newest window.
    pub(super) fn prefetch_older(&self, cell: &Cell, event_at: Micros) {
        if cell.flags.has(Flags::PERIODIC) {
            self.logs.of(cell.flags).into_iter().for_each(|log| log.prefetch(cell.newest));
            return;
        }
        let offset_micros = event_at.0.saturating_sub(moment(cell.window).0);
        if offset_micros < 0 || offset_micros >= LENGTHS_MICROS[cell.flags.flush()] {
            self.records.items.find(cell.newest).into_iter().for_each(prefetch);
            self.bases.items.find(cell.base).into_iter().for_each(prefetch);
        }
    }

    /// The tally and marks of an older window, to be written to.
    pub(super) fn older_sums(&mut self, slot: u32, at: u32) -> &mut Sums {
        let flags = self.cells.get(slot).flags;
        match flags.has(Flags::PERIODIC) {
            true => &mut self.logs.of_mut(flags).get_mut(at).sums,
            false => &mut self.records.items.get_mut(at).sums,
        }
    }

    /// Adds a window that is newer than all others but the one in the cell.
    #[inline]
    pub(super) fn push_newest(&mut self, slot: u32, window: u32, sums: Sums, value: Amount) {
        let Cell { newest, flags, .. } = *self.cells.get(slot);
        let at = match flags.has(Flags::PERIODIC) {
            true => self.logs.of_mut(flags).push(LogEntry { sums, window, older: newest, slot }),
            false => self.insert_after(newest, Record::new(sums, window, value)),
        };
        self.cells.get_mut(slot).newest = at;
    }

    /// Adds a window that was opened late: `older` are the older windows of the series, `position` is its place. Returns
    /// where it is.
    pub(super) fn insert_older(
        &mut self,
        slot: u32,
        older: &[Older],
        position: usize,
        window: u32,
        value: Amount,
    ) -> u32 {
        let Cell { newest, flags, .. } = *self.cells.get(slot);
        let sums = Sums::default();
        if flags.has(Flags::PERIODIC) {
            let elder = position.checked_sub(1).map_or(NONE, |elder| older[elder].at);
            self.cells.get_mut(slot).newest = elder;
            self.push_newest(slot, window, sums, value);
            let at = self.cells.get(slot).newest;
            self.write_again(slot, &older[position..]);
            return at;
        }
        match position.checked_sub(1).map(|elder| older[elder].at) {
            // Behind the newest is before the oldest.
            None if newest != NONE => self.insert_after(newest, Record::new(sums, window, value)),
            Some(elder) if elder != newest => self.insert_after(elder, Record::new(sums, window, value)),
            _ => {
                self.push_newest(slot, window, sums, value);
                self.cells.get(slot).newest
            }
        }
    }

    fn write_again(&mut self, slot: u32, windows: &[Older]) {
        let flags = self.cells.get(slot).flags;
        for window in windows {
            self.logs.of_mut(flags).kill(window.at);
            self.push_newest(slot, window.window, window.sums, window.value);
        }
    }

    fn insert_after(&mut self, elder: u32, record: Record) -> u32 {
        let index = self.records.insert(record);
        let newer = match elder {
            NONE => index,
            _ => std::mem::replace(&mut self.records.items.get_mut(elder).newer, index),
        };
        self.records.items.get_mut(index).newer = newer;
        index
    }

    /// Forgets all older windows.
    pub(super) fn drop_older(&mut self, slot: u32) {
        let flags = self.cells.get(slot).flags;
        for window in self.older(slot, When::Now) {
            match flags.has(Flags::PERIODIC) {
                true => self.logs.of_mut(flags).kill(window.at),
                false => self.records.remove(window.at),
            }
        }
        self.cells.get_mut(slot).newest = NONE;
    }

    /// Frees the oldest record of a ring if it and the next have left; returns whether it did.
    pub(super) fn leave_one(&mut self, slot: u32, now: &Tick) -> bool {
        let Cell { newest, flags, .. } = *self.cells.get(slot);
        if newest == NONE || flags.has(Flags::PERIODIC) {
            return false;
        }
        let oldest = self.records.items.get(newest).newer;
        let record = *self.records.items.get(oldest);
        if oldest == newest || !has_left(record.window, &record.sums, flags, now) {
            return false;
        }
        let next = *self.records.items.get(record.newer);
        if !has_left(next.window, &next.sums, flags, now) {
            return false;
        }
        self.records.items.get_mut(newest).newer = record.newer;
        self.records.remove(oldest);
        true
    }

    /// Gives back what has left the log of these series, if it is about to grow.
    #[inline]
    pub(super) fn make_room(&mut self, flags: Flags, now: &Tick) {
        if self.logs.of_mut(flags).is_full() {
            self.retire(flags, now);
        }
    }

    /// Gives back what has left all logs.
    pub fn retire_all(&mut self, now: &Tick) {
        for number in 0..self.logs.0.len() {
            self.retire(Flags::of_log(number / SPANS, number % SPANS), now);
        }
    }

    fn retire(&mut self, flags: Flags, now: &Tick) {
        for _ in 0..MOVED_MAX {
            let log = self.logs.of_mut(flags);
            let Some(slot) = log.retire(|entry| has_left(entry.window, &entry.sums, flags, now)) else {
                return;
            };
            let windows = self.older(slot, When::Now);
            self.cells.get_mut(slot).newest = NONE;
            self.write_again(slot, &windows);
        }
    }
}

/// The entries of a series from the newest back to the last of `count` dirty ones, oldest first.
fn newest_dirty(log: &Log, newest: u32, slot: u32, count: u32) -> Vec<Older> {
    let (mut found, mut at, mut left) = (Vec::new(), newest, count);
    while let Some(entry) = log.get(at, slot).filter(|_| left > 0) {
        left -= u32::from(entry.sums.is_dirty());
        found.push(Older { at, window: entry.window, sums: entry.sums, value: Amount::ZERO });
        at = entry.older;
    }
    found.reverse();
    found
}

/// Whether a window is eight windows old and its row, as it is, in the store. A number of emissions comes round again
/// after 2^14: a row that old might be kept for one emission more than need be.
pub(super) fn has_left(window: u32, sums: &Sums, flags: Flags, now: &Tick) -> bool {
    let flight = &now.flights[flags.class()];
    let is_under_way = flight.is_under_way() && sums.sent() == flight.emission % EMISSIONS;
    moment(window) < now.horizons[flags.flush()] && !sums.is_dirty() && !is_under_way
}
