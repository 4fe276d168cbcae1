//! The ordinary series of one worker, in the layout of `cells`.
//!
//! In: updates, one at a time. Out: whether the series has something to emit. What this layout cannot express is refused
//! with `NeedsLedger` before anything has changed: an update for a window that has left, a window opened below one of
//! the future or in a past period, starts that are no whole seconds. Cuts and changes of the batch class never come here.
//!
//! The rules are those of `ledger`; here they are spread over the cases in which they are simple.

use super::calendar::{Calendar, Period, is_open};
use super::cells::{Base, Cell, Flags, NONE, Past, Record, Sums, moment, packed_seconds};
use super::chunks::{Chunks, Slab};
use super::cleanup::quiet_max_secs;
use super::convert::When;
use super::crossings::UNKNOWN;
use super::log::Log;
use super::older::{Logs, Older, has_left};
use super::shapes::Shapes;
use super::tick::{LENGTHS_MICROS, Tick};
use crate::prefetch::prefetch;
use crate::types::{Amount, MetricType, Micros, Operation, SeriesId, Shape, Standing, Tally};

/// How many series ahead an emission asks for.
const AHEAD: usize = 16;

/// What is not needed to apply an update to the newest window.
#[derive(Clone, Copy)]
pub(super) struct Cold {
    /// The series.
    pub series: SeriesId,
    /// The number of its shape.
    pub shape: u32,
}

impl Default for Cold {
    fn default() -> Self {
        Cold { series: SeriesId(u32::MAX), shape: 0 }
    }
}

/// The series cannot be kept in this layout any longer.
#[derive(Debug)]
pub(crate) struct NeedsLedger;

/// The ordinary series of one worker.
#[derive(Default)]
pub(crate) struct Plain {
    pub(super) cells: Chunks<Cell>,
    pub(super) cold: Chunks<Cold>,
    pub(super) records: Slab<Record>,
    pub(super) logs: Logs,
    pub(super) bases: Slab<Base>,
    pub(super) pasts: Slab<Past>,
    pub(super) shapes: Shapes,
    /// By slot: see `crossings`.
    pub(super) edges: Chunks<i64>,
    /// Number of series.
    open: usize,
    /// Number of series that have had an update.
    pub(super) touched: usize,
}

/// The live period of an event, seen from the newest window.
enum Owner {
    Current,
    Past(u32),
}

impl Plain {
    /// A series begins. The slot is not in use.
    pub fn open(&mut self, slot: u32, series: SeriesId, shape: &Shape) {
        self.cells.reach(slot);
        self.cold.reach(slot);
        self.edges.reach(slot);
        *self.edges.get_mut(slot) = UNKNOWN;
        *self.cold.get_mut(slot) = Cold { series, shape: self.shapes.acquire(shape) };
        *self.cells.get_mut(slot) = Cell { flags: flags(shape), ..Cell::default() };
        self.open += 1;
    }

    /// What is in a slot: closed beyond the last.
    #[inline(always)]
    pub fn flags(&self, slot: u32) -> Flags {
        self.cells.find(slot).map_or(Flags::CLOSED, |cell| cell.flags)
    }

    /// Leaves the slot to a ledger, or to nobody.
    pub fn vacate(&mut self, slot: u32, flags: Flags) {
        self.drop_older(slot);
        let cell = *self.cells.get(slot);
        if cell.base != NONE {
            let mut past = self.bases.items.get(cell.base).past;
            while past != NONE {
                self.pasts.remove(past);
                past = self.pasts.items.get(past).older;
            }
            self.bases.remove(cell.base);
        }
        self.touched -= usize::from(cell.flags.is_touched());
        if cell.flags.is_plain() {
            self.open -= 1;
            self.shapes.release(self.cold.get(slot).shape);
        }
        *self.cells.get_mut(slot) = Cell { flags, ..Cell::default() };
    }

    /// The end of its newest window, if it has one.
    pub fn newest_end(&self, slot: u32) -> Option<Micros> {
        let Cell { window, flags, .. } = self.cells.get(slot);
        flags.is_touched().then(|| Micros(moment(*window).0 + LENGTHS_MICROS[flags.flush()]))
    }

    /// The shape of a series.
    #[inline]
    pub fn shape(&self, slot: u32) -> &Shape {
        self.shapes.get(self.cold.get(slot).shape)
    }

    /// The definition changed; refused unless only limit, event age, storing or cleanup did, or the series never had an update.
    pub fn reshape(&mut self, slot: u32, shape: &Shape) -> Result<(), NeedsLedger> {
        let (old, cell) = (*self.shape(slot), *self.cells.get(slot));
        let kept = Shape {
            limit: old.limit,
            limit_source: old.limit_source,
            notify: old.notify,
            max_event_age_secs: old.max_event_age_secs,
            stored: old.stored,
            cleanup_after_days: old.cleanup_after_days,
            ..*shape
        };
        if cell.flags.is_touched() && kept != old {
            return Err(NeedsLedger);
        }
        let mut flags = flags(shape);
        if cell.flags.is_touched() {
            flags.touch();
            flags.set_older_dirty(cell.flags.older_dirty());
        }
        let number = self.shapes.acquire(shape);
        let before = std::mem::replace(&mut self.cold.get_mut(slot).shape, number);
        self.shapes.release(before);
        self.cells.get_mut(slot).flags = flags;
        *self.edges.get_mut(slot) = UNKNOWN;
        if !shape.stored {
            self.mark_stored(slot);
        }
        Ok(())
    }

    /// Adds an admitted update. Returns whether the series has something to emit.
    pub fn add(
        &mut self,
        slot: u32,
        event_at: Micros,
        amount: Amount,
        now: &Tick,
    ) -> Result<bool, NeedsLedger> {
        let cell = self.cells.get_mut(slot);
        if !cell.flags.is_touched() {
            return self.add_first(slot, event_at, amount, now);
        }
        let offset_micros = event_at.0 - moment(cell.window).0;
        if offset_micros < 0 {
            self.add_late(slot, event_at, amount, now)
        } else if offset_micros < LENGTHS_MICROS[cell.flags.flush()] {
            cell.sums.add(amount);
            Ok(mark_newest(cell))
        } else {
            self.roll(slot, event_at, amount, now)
        }
    }

    fn add_first(
        &mut self,
        slot: u32,
        event_at: Micros,
        amount: Amount,
        now: &Tick,
    ) -> Result<bool, NeedsLedger> {
        let start = window_start(event_at, self.cells.get(slot).flags.shape_flush(), now)?;
        self.touched += 1;
        let cell = self.cells.get_mut(slot);
        cell.flags.touch();
        (cell.window, cell.sums) = (start, Sums::of(&Tally::of(amount)));
        Ok(mark_newest(cell))
    }

    /// A newer window opens: the newest becomes a record.
    fn roll(&mut self, slot: u32, event_at: Micros, amount: Amount, now: &Tick) -> Result<bool, NeedsLedger> {
        let cell = *self.cells.get(slot);
        let start = window_start(event_at, cell.flags.flush(), now)?;
        let (mut sums, mut value) = (cell.sums, Amount::ZERO);
        if cell.flags.has(Flags::PERIODIC) {
            self.make_room(cell.flags, now);
        } else {
            self.leave_one(slot, now);
            (sums, value) = self.roll_period(slot, event_at, now)?;
        }
        self.push_newest(slot, cell.window, sums, value);
        let cell = self.cells.get_mut(slot);
        if sums.is_dirty() {
            cell.flags.set_older_dirty(cell.flags.older_dirty() + 1);
        }
        (cell.window, cell.sums) = (start, Sums::of(&Tally::of(amount)));
        Ok(mark_newest(cell))
    }

    /// Folds the newest window into its period and freezes its value; or, in a new period, leaves the period behind.
    /// Returns what becomes of the window.
    fn roll_period(
        &mut self,
        slot: u32,
        event_at: Micros,
        now: &Tick,
    ) -> Result<(Sums, Amount), NeedsLedger> {
        let cell = *self.cells.get(slot);
        // A week or month may begin before 1970.
        let start = self.shape(slot).reset.window(moment(cell.window)).start;
        let start = packed_seconds(start).ok_or(NeedsLedger)?;
        let value = self.shape(slot).value(&self.current(slot));
        let mut window = cell.sums;
        let index = self.base_of(slot);
        let mut base = *self.bases.items.get(index);
        let mut sums = base.sums;
        sums.merge(&Sums::of(&cell.sums.tally()));
        base.sums = sums;
        if !self.is_current(slot, event_at) {
            window.mark_following();
            base.past = self.pasts.insert(Past { sums, start, older: base.past });
            base.sums = Sums::default();
            base.past = self.close_pasts(slot, base.past, now);
        }
        *self.bases.items.get_mut(index) = base;
        Ok((window, value))
    }

    /// Forgets past periods that are not open and have no windows in memory; returns the newest.
    fn close_pasts(&mut self, slot: u32, newest: u32, now: &Tick) -> u32 {
        let shape = *self.shape(slot);
        let calendar = Calendar { shape: &shape, cuts: &[] };
        let flags = self.cells.get(slot).flags;
        let is_resident = |older: &Older| !has_left(older.window, &older.sums, flags, now);
        let resident =
            self.older(slot, When::Now).into_iter().find(is_resident).map(|older| moment(older.window));
        let (mut link, mut last) = (newest, NONE);
        while link != NONE {
            let past = *self.pasts.items.get(link);
            let period = calendar.period(moment(past.start));
            let has_windows = resident.zip(period.end).is_some_and(|(oldest, end)| oldest < end);
            if last != NONE && !has_windows && !is_open(&shape, period, now.arrival) {
                self.pasts.items.get_mut(last).older = NONE;
                while link != NONE {
                    self.pasts.remove(link);
                    link = self.pasts.items.get(link).older;
                }
                break;
            }
            (last, link) = (link, past.older);
        }
        newest
    }

    fn base_of(&mut self, slot: u32) -> u32 {
        match self.cells.get(slot).base {
            NONE => {
                let base = self.bases.insert(Base::default());
                self.cells.get_mut(slot).base = base;
                base
            }
            base => base,
        }
    }

    /// An update for a window before the newest.
    fn add_late(
        &mut self,
        slot: u32,
        event_at: Micros,
        amount: Amount,
        now: &Tick,
    ) -> Result<bool, NeedsLedger> {
        while self.leave_one(slot, now) {}
        let cell = *self.cells.get(slot);
        let start = packed_seconds(floor(event_at, cell.flags.flush())).ok_or(NeedsLedger)?;
        if let Some(found) = self.find_in_log(slot, start)
            && !has_left(start, &found.sums, cell.flags, now)
        {
            self.older_sums(slot, found.at).add(amount);
            self.mark_older(slot, found.at);
            return Ok(cell.flags.has(Flags::STORED));
        }
        let older = self.older(slot, When::Now);
        let position = older.binary_search_by_key(&start, |older| older.window);
        let is_resident = |at: &usize| !has_left(older[*at].window, &older[*at].sums, cell.flags, now);
        let found = position.ok().filter(is_resident).map(|found| older[found].at);
        let is_periodic = cell.flags.has(Flags::PERIODIC);
        let owner = if is_periodic { Owner::Current } else { self.owner(slot, event_at)? };
        let at = match (found, position) {
            (Some(at), _) => at,
            (None, Ok(_)) => return Err(NeedsLedger),
            (None, Err(position)) => {
                let is_simple =
                    is_periodic || matches!(owner, Owner::Current) && moment(cell.window) < now.high;
                if moment(start) < now.horizons[cell.flags.flush()] || !is_simple {
                    return Err(NeedsLedger);
                }
                let elder = position.checked_sub(1).map(|elder| older[elder]);
                let elder = elder.filter(|elder| !is_periodic && self.is_current(slot, moment(elder.window)));
                let value = elder.map_or_else(|| self.shape(slot).value(&Tally::EMPTY), |elder| elder.value);
                self.insert_older(slot, &older, position, start, value)
            }
        };
        self.older_sums(slot, at).add(amount);
        self.mark_older(slot, at);
        match owner {
            Owner::Current if is_periodic => {}
            Owner::Current => self.add_to_current(slot, amount),
            Owner::Past(past) => self.add_to_past(slot, past, amount, now),
        }
        Ok(cell.flags.has(Flags::STORED))
    }

    fn owner(&self, slot: u32, event_at: Micros) -> Result<Owner, NeedsLedger> {
        if self.is_current(slot, event_at) {
            return Ok(Owner::Current);
        }
        let start = packed_seconds(self.shape(slot).reset.window(event_at).start).ok_or(NeedsLedger)?;
        self.past(slot, start).map(Owner::Past).ok_or(NeedsLedger)
    }

    /// The past period that starts at a moment.
    fn past(&self, slot: u32, start: u32) -> Option<u32> {
        let base = self.cells.get(slot).base;
        let mut link = if base == NONE { NONE } else { self.bases.items.get(base).past };
        while link != NONE && self.pasts.items.get(link).start > start {
            link = self.pasts.items.get(link).older;
        }
        (link != NONE && self.pasts.items.get(link).start == start).then_some(link)
    }

    /// The past periods of a series, newest first.
    pub(super) fn pasts(&self, slot: u32) -> impl Iterator<Item = &Past> {
        let base = self.cells.get(slot).base;
        let mut link = if base == NONE { NONE } else { self.bases.items.get(base).past };
        std::iter::from_fn(move || {
            let past = (link != NONE).then(|| self.pasts.items.get(link))?;
            link = past.older;
            Some(past)
        })
    }

    /// Whether a moment is in the live period of the newest window.
    pub(super) fn is_current(&self, slot: u32, at: Micros) -> bool {
        let shape = self.shape(slot);
        let newest = moment(self.cells.get(slot).window);
        shape.metric_type != MetricType::Reset || shape.reset.window(newest).contains(at)
    }

    fn add_to_current(&mut self, slot: u32, amount: Amount) {
        let before = self.current(slot);
        let index = self.base_of(slot);
        let base = self.bases.items.get_mut(index);
        let mut sums = base.sums;
        sums.add(amount);
        base.sums = sums;
        let shape = self.shape(slot);
        if shape.value(&before) != shape.value(&self.current(slot)) {
            mark_newest(self.cells.get_mut(slot));
        }
    }

    fn add_to_past(&mut self, slot: u32, past: u32, amount: Amount, now: &Tick) {
        let sums = &mut self.pasts.items.get_mut(past).sums;
        let before = sums.tally();
        sums.add(amount);
        let (after, shape) = (sums.tally(), *self.shape(slot));
        let end = shape.reset.window(moment(self.pasts.items.get(past).start)).end;
        let flags = self.cells.get(slot).flags;
        let own = self.older(slot, When::Now).into_iter().take_while(|older| moment(older.window) < end);
        let newest = own.last().filter(|newest| newest.sums.follows());
        if let Some(newest) = newest.filter(|newest| !has_left(newest.window, &newest.sums, flags, now))
            && shape.value(&before) != shape.value(&after)
        {
            self.mark_older(slot, newest.at);
        }
    }

    fn mark_older(&mut self, slot: u32, at: u32) {
        let is_stored = self.cells.get(slot).flags.has(Flags::STORED);
        let sums = self.older_sums(slot, at);
        if is_stored && !sums.is_dirty() {
            sums.mark_dirty();
            let flags = &mut self.cells.get_mut(slot).flags;
            flags.set_older_dirty(flags.older_dirty() + 1);
        }
    }

    /// The tally of the newest window's live period.
    pub(super) fn current(&self, slot: u32) -> Tally {
        let cell = self.cells.get(slot);
        let base = if cell.base == NONE { Sums::default() } else { self.bases.items.get(cell.base).sums };
        base.tally().merge(cell.sums.tally())
    }

    /// The tally of the live period that contains a moment, as far as it is in memory.
    fn tally_at(&self, slot: u32, at: Micros) -> Tally {
        let cell = self.cells.get(slot);
        if !cell.flags.is_touched() {
            return Tally::EMPTY;
        }
        if self.is_current(slot, at) {
            return self.current(slot);
        }
        // A `reset` window: where a flush window is one, its record; else a past period.
        let start = packed_seconds(self.shape(slot).reset.window(at).start);
        let sums = match cell.flags.has(Flags::PERIODIC) {
            true => self
                .older(slot, When::Now)
                .into_iter()
                .find(|older| Some(older.window) == start)
                .map(|own| own.sums),
            false => {
                start.and_then(|start| self.past(slot, start)).map(|past| self.pasts.items.get(past).sums)
            }
        };
        sums.map_or(Tally::EMPTY, |sums| sums.tally())
    }

    /// What a reader sees at a moment.
    pub fn standing(&self, slot: u32, at: Micros) -> Standing {
        let (shape, (period, tally)) = (self.shape(slot), self.live_period(slot, at));
        Standing {
            value: shape.value(&tally),
            tally,
            period_start: period.start,
            period_end: period.end,
            breached: shape.is_breached(&tally),
            limit: shape.limit,
            limit_source: shape.limit_source,
            touched: self.cells.get(slot).flags.is_touched(),
            refused: 0,
        }
    }

    /// The live period that contains a moment, and its tally as far as it is in memory: all of it while it is open.
    pub fn live_period(&self, slot: u32, at: Micros) -> (Period, Tally) {
        (Calendar { shape: self.shape(slot), cuts: &[] }.period(at), self.tally_at(slot, at))
    }

    /// Whether the live period of an event is open at its arrival and past its limit.
    pub fn is_breached(&self, slot: u32, event_at: Micros, arrival: Micros) -> bool {
        let shape = self.shape(slot);
        let period = Calendar { shape, cuts: &[] }.period(event_at);
        shape.limit.is_some()
            && is_open(shape, period, arrival)
            && shape.is_breached(&self.tally_at(slot, event_at))
    }

    /// The series in a slot that is in use.
    pub fn series(&self, slot: u32) -> SeriesId {
        self.cold.get(slot).series
    }

    /// Asks for what an emission of the slots ahead will touch.
    #[inline(always)]
    pub fn look_ahead(&self, slots: &[u32], index: usize) {
        if let Some(&slot) = slots.get(index + AHEAD) {
            prefetch(self.cells.get(slot));
            prefetch(self.cold.get(slot));
        }
        if let Some(&slot) = slots.get(index + AHEAD / 2) {
            let cell = self.cells.get(slot);
            if cell.flags.older_dirty() > 0 {
                self.prefetch_older(cell, Micros(i64::MIN));
            }
            if cell.base != NONE {
                prefetch(self.bases.items.get(cell.base));
            }
        }
    }

    /// A snapshot begins.
    pub fn freeze(&mut self) {
        self.cells.freeze();
        self.cold.freeze();
        self.records.items.freeze();
        self.bases.items.freeze();
        self.pasts.items.freeze();
        self.logs.iter_mut().for_each(Log::freeze);
        self.shapes.freeze();
    }

    /// The snapshot has ended.
    pub fn thaw(&mut self) {
        self.cells.thaw();
        self.cold.thaw();
        self.records.items.thaw();
        self.bases.items.thaw();
        self.pasts.items.thaw();
        self.logs.iter_mut().for_each(Log::thaw);
        self.shapes.thaw();
    }

    /// Memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let cells = self.cells.resident_bytes() + self.edges.resident_bytes();
        let cold = self.cold.resident_bytes();
        let records = self.records.resident_bytes() + self.logs.resident_bytes();
        let periods = self.bases.resident_bytes() + self.pasts.resident_bytes();
        cells + cold + records + periods + self.shapes.resident_bytes()
    }

    /// Number of series in this layout.
    pub fn open_series(&self) -> usize {
        self.open
    }

    /// Number of windows in memory.
    pub fn windows(&self) -> usize {
        self.touched + self.records.len() + self.logs.len()
    }
}

/// The flags of a series that has had no update.
pub(super) fn flags(shape: &Shape) -> Flags {
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    Flags(
        Flags::PLAIN
            | (shape.batch as u32) << 4
            | Flags::of_flush(shape.flush as u32)
            | flag(shape.max_event_age_secs == 0, Flags::ARRIVAL_ONLY)
            | flag(shape.window_is_period(), Flags::PERIODIC)
            | flag(shape.stored, Flags::STORED)
            | flag(quiet_max_secs(shape).is_some(), Flags::WATCHED)
            | flag(shape.blocks(), Flags::BLOCKS)
            | flag(shape.limit.is_some() && !shape.blocks(), Flags::LIMITED)
            | flag(shape.operation == Operation::Count, Flags::COUNTS)
            | flag(shape.metric_type != MetricType::Reset, Flags::ENDLESS),
    )
}

/// The newest row has changed. Returns whether that is to be emitted.
pub(super) fn mark_newest(cell: &mut Cell) -> bool {
    let is_stored = cell.flags.has(Flags::STORED);
    if is_stored {
        cell.sums.mark_dirty();
    }
    is_stored
}

fn floor(at: Micros, flush: usize) -> Micros {
    let length_micros = LENGTHS_MICROS[flush];
    Micros(at.0.div_euclid(length_micros) * length_micros)
}

/// The start of a window that is opened now: not one that has left before it was there.
fn window_start(event_at: Micros, flush: usize, now: &Tick) -> Result<u32, NeedsLedger> {
    let start = floor(event_at, flush);
    let is_kept = start >= now.horizons[flush];
    packed_seconds(start).filter(|_| is_kept).ok_or(NeedsLedger)
}
