//! The older windows of an ordinary series: a ring of records from oldest to newest, entered at the newest.
//!
//! A roll puts one record behind the newest and takes one from the other end if it has left; that touches two records,
//! however long the ring is. Late updates walk it from the oldest.

use super::cells::{EMISSIONS, Flags, NONE, Record, moment};
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

    /// Frees the oldest record if it has left; returns whether it did. Where a window is not a period, the newest that
    /// left stays: a window opened late takes its value.
    pub(super) fn leave_one(&mut self, slot: u32, now: &Tick) -> bool {
        let cell = self.cells.get(slot);
        let (newest, is_periodic) = (cell.newest, cell.flags.has(Flags::PERIODIC));
        let Some(oldest) = self.oldest(newest) else { return false };
        if !self.has_left(slot, oldest, now) {
            return false;
        }
        let next = self.records.items.get(oldest).newer;
        if !is_periodic && (oldest == newest || !self.has_left(slot, next, now)) {
            return false;
        }
        self.pop_oldest(slot, newest, oldest);
        true
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
    let is_under_way = flight.is_under_way() && record.sums.sent() == flight.emission % EMISSIONS;
    !record.sums.is_dirty() && !is_under_way
}
