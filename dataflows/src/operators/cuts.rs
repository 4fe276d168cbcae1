//! What rearranges a ledger: cuts, and changes of the definition.
//!
//! A cut at A ends the live period that contains A and begins another. Updates stay where they were admitted; windows
//! that had been opened ahead of A belong to the new period from now on, so that their values, and those of the windows
//! below A, are what they would be had the others never been of the same period.

use super::calendar::Period;
use super::ledger::{Entry, Ledger, mark};
use super::tick::Tick;
use crate::types::{Amount, ClassSet, Micros, PeriodState, Shape, Span, Tally};

/// How many cuts of a series are remembered: where an older one was no longer changes which row an event belongs to.
const CUTS_MAX: usize = 1_024;

impl Ledger {
    /// A new live period begins. Returns the class that has something to emit now: where no row tells the store of the
    /// period, the newest is written again, since states come with rows. So it is when a cut comes again that was ahead.
    pub fn cut(&mut self, at: Micros, now: &Tick) -> Option<Span> {
        let (before, is_new) = (self.live_state(now), !self.state.cuts.contains(&at));
        let changed = if is_new { self.begin_period(at, now) } else { None };
        let is_told = if is_new { self.live_state(now) == before } else { at > now.high };
        if is_told {
            return changed;
        }
        let class = self.class(now.arrival);
        let newest = self.entries.iter_mut().rfind(|entry| !entry.state.left);
        class.filter(|_| newest.is_some_and(|newest| mark(&mut newest.state, class))).or(changed)
    }

    fn begin_period(&mut self, at: Micros, now: &Tick) -> Option<Span> {
        self.evict(now);
        let (class, old) = (self.class(now.arrival), self.calendar().period(at));
        let kin: Vec<bool> = {
            let calendar = self.calendar();
            self.entries.iter().map(|entry| calendar.period(entry.state.start).start == old.start).collect()
        };
        let place = self.state.cuts.partition_point(|&cut| cut < at);
        self.state.cuts.insert(place, at);
        if self.state.cuts.len() > CUTS_MAX {
            self.state.cuts.remove(0);
        }
        let mut changed = self.split_row(at, class);
        let new = Period { start: Some(at), end: old.end };
        let Err(index) = self.state.periods.binary_search_by_key(&new.start, |known| known.start) else {
            return class.filter(|_| changed);
        };
        self.open_period(index, new);
        if old.start == new.start {
            return class.filter(|_| changed); // The cut is where a period began anyway.
        }
        let shape = self.state.shape;
        let old_tally = match self.state.periods.iter_mut().find(|known| known.start == old.start) {
            Some(known) => {
                known.end = Some(at);
                known.newest = None;
                known.tally
            }
            None => Tally::EMPTY,
        };
        let values: Vec<Amount> = self
            .entries
            .iter()
            .map(|entry| entry.state.value.unwrap_or_else(|| shape.value(&old_tally)))
            .collect();
        self.rearrange(&kin, at, old.start);
        for ((entry, before), _) in self.entries.iter_mut().zip(values).zip(kin).filter(|(_, kin)| *kin) {
            let tally = if entry.state.start < at { old_tally } else { Tally::EMPTY };
            let after = entry.state.value.unwrap_or_else(|| shape.value(&tally));
            changed |= after != before && mark(&mut entry.state, class);
        }
        class.filter(|_| changed)
    }

    /// A cut inside a row ends the row.
    fn split_row(&mut self, at: Micros, class: Option<Span>) -> bool {
        let cut = |entry: &&mut Entry| entry.state.start < at && at < entry.state.end;
        self.entries.iter_mut().find(cut).is_some_and(|entry| {
            entry.state.end = at;
            mark(&mut entry.state, class)
        })
    }

    /// Gives the windows of the old period on each side of a cut the values that they have now.
    fn rearrange(&mut self, kin: &[bool], at: Micros, old_start: Option<Micros>) {
        let shape = self.state.shape;
        let openings: Vec<(Micros, u32, Amount)> = (self.entries.iter().zip(kin))
            .filter(|(_, kin)| **kin)
            .map(|(entry, _)| (entry.state.start, entry.state.opened, entry.state.before))
            .collect();
        for (entry, _) in self.entries.iter_mut().zip(kin).filter(|(_, kin)| **kin) {
            let window = &mut entry.state;
            let is_ahead = window.start >= at;
            if is_ahead {
                window.before = shape.value(&Tally::EMPTY);
            }
            if !is_ahead && window.frozen_by.is_some_and(|by| by < at) {
                continue;
            }
            // What froze the value is the first window that opened above it on its own side of the cut.
            let above =
                openings.iter().filter(|(start, ..)| *start > window.start && (is_ahead || *start < at));
            let first = above.min_by_key(|(_, opened, _)| *opened);
            window.frozen_by = first.map(|(start, ..)| *start);
            window.value =
                first.map(|(.., before)| if is_ahead { shape.value(&Tally::EMPTY) } else { *before });
        }
        let newest_below = openings.iter().map(|(start, ..)| *start).filter(|start| *start < at).max();
        let newest_ahead = openings.iter().map(|(start, ..)| *start).filter(|start| *start >= at).max();
        for period in &mut self.state.periods {
            if period.start == old_start {
                period.newest = newest_below;
            } else if period.start == Some(at) {
                period.newest = newest_ahead;
            }
        }
    }

    /// The definition changed.
    pub fn reshape(&mut self, shape: Shape, now: &Tick) {
        let old = std::mem::replace(&mut self.state.shape, shape);
        if self.state.touched && shape.batch != old.batch {
            let class = match self.state.switching {
                Some((class, until)) if now.arrival < until => class,
                _ => old.batch,
            };
            self.state.switching = Some((class, class.window(now.arrival).end));
        }
        if !shape.stored {
            self.entries.iter_mut().for_each(|entry| entry.state.dirty = ClassSet::default());
            self.state.merges.clear();
        }
        let counts = |shape: &Shape| {
            (shape.operation, shape.metric_type, shape.flush, shape.reset, shape.initial_value)
        };
        if counts(&shape) != counts(&old) {
            self.recount(&old, now.arrival);
        }
    }

    /// An update slipped in before the intervals changed: the newest tally becomes that of the present period.
    fn recount(&mut self, old: &Shape, at: Micros) {
        let periods = std::mem::take(&mut self.state.periods);
        for entry in self.entries.iter_mut().filter(|entry| entry.state.value.is_none()) {
            let own = periods.iter().find(|period| period.newest == Some(entry.state.start));
            entry.state.value = own.map(|period| old.value(&period.tally));
        }
        let Some(newest) = periods.last() else { return };
        let at = if self.state.touched { at } else { self.state.cuts.last().copied().unwrap_or(at) };
        let Period { start, end } = self.calendar().period(at);
        self.state.periods.push(PeriodState { start, end, ..*newest });
        if let Some(Ok(index)) = newest.newest.map(|newest| self.find(newest)) {
            (self.entries[index].state.value, self.entries[index].state.frozen_by) = (None, None);
        }
    }
}
