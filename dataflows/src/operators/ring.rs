//! The older windows of an ordinary series: a ring of records from oldest to newest, entered at the newest.
//!
//! A roll puts one record behind the newest and takes those from the other end that have left; both touch two records at
//! most, however long the ring is. Late updates walk it from the oldest.

use super::cells::{NONE, Record, moment};
use super::plain::Plain;
use super::tick::Tick;

impl Plain {
    /// The records of a series, oldest first.
    pub(super) fn ring(&self, slot: u32) -> impl Iterator<Item = u32> {
        let newest = self.cells.get(slot).newest;
        let mut next = self.oldest(newest);
        std::iter::from_fn(move || {
            let index = next?;
            next = (index != newest).then(|| self.records.items.get(index).newer);
            Some(index)
        })
    }

    fn oldest(&self, newest: u32) -> Option<u32> {
        (newest != NONE).then(|| self.records.items.get(newest).newer)
    }

    /// Adds a record that is newer than all others.
    pub(super) fn push_newest(&mut self, slot: u32, record: Record) {
        let newest = self.cells.get(slot).newest;
        let index = self.insert_after(newest, record);
        self.cells.get_mut(slot).newest = index;
    }

    /// Adds a record behind the given one, or as the oldest.
    pub(super) fn insert_record(&mut self, slot: u32, elder: Option<u32>, record: Record) {
        let newest = self.cells.get(slot).newest;
        match elder {
            // Behind the newest is before the oldest.
            None if newest != NONE => drop(self.insert_after(newest, record)),
            Some(elder) if elder != newest => drop(self.insert_after(elder, record)),
            _ => self.push_newest(slot, record),
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

    fn pop_oldest(&mut self, slot: u32, newest: u32, oldest: u32) {
        if oldest == newest {
            self.cells.get_mut(slot).newest = NONE;
        } else {
            let next = self.records.items.get(oldest).newer;
            self.records.items.get_mut(newest).newer = next;
        }
        self.records.remove(oldest);
    }

    /// Whether a record is eight windows old and in the store.
    pub(super) fn has_left(&self, slot: u32, record: u32, now: &Tick) -> bool {
        let (flags, record) = (self.cells.get(slot).flags, self.records.items.get(record));
        moment(record.window) < now.horizons[flags.flush()] && is_in_store(record, flags.class(), now)
    }

    /// Frees the oldest records as far as they have left. Where a window is not a period, the newest that left stays: a
    /// window opened late takes its value.
    pub(super) fn let_leave(&mut self, slot: u32, now: &Tick) {
        loop {
            let cell = self.cells.get(slot);
            let (newest, flags) = (cell.newest, cell.flags);
            let Some(oldest) = self.oldest(newest) else { return };
            if !self.has_left(slot, oldest, now) {
                return;
            }
            if !flags.has(super::cells::Flags::PERIODIC) {
                let next = self.records.items.get(oldest).newer;
                if oldest == newest || !self.has_left(slot, next, now) {
                    return;
                }
            }
            self.pop_oldest(slot, newest, oldest);
        }
    }

    /// The record that starts at a moment, and the last one before it.
    pub(super) fn locate(&self, slot: u32, window: u32) -> (Option<u32>, Option<u32>) {
        let mut elder = None;
        for index in self.ring(slot) {
            match self.records.items.get(index).window.cmp(&window) {
                std::cmp::Ordering::Less => elder = Some(index),
                std::cmp::Ordering::Equal => return (Some(index), elder),
                std::cmp::Ordering::Greater => break,
            }
        }
        (None, elder)
    }
}

/// Whether the store has the row as it is. A number of emissions comes round again after 2^14: a row that old might be
/// kept for one emission more than need be.
fn is_in_store(record: &Record, class: usize, now: &Tick) -> bool {
    let flight = &now.flights[class];
    let is_under_way =
        flight.is_under_way() && record.sums.sent() == flight.emission % super::cells::EMISSIONS;
    !record.sums.is_dirty() && !is_under_way
}
