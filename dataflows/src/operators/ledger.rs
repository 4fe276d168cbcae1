//! One series in full generality: every window, every live period, every cut.
//!
//! `cells` keeps the many ordinary series compactly; a series to which something rare happens (a cut, a change of class,
//! an update for a window that has left) is kept here as long as that matters. The rules are those of semantics,
//! section 4:
//!
//! * A window's row carries its own tally and a value. The value follows the reading of its live period until the
//!   period's next window opens; then it is frozen at the reading of just before.
//! * A window opened late, below others of its period, takes the frozen value of its elder neighbour.
//! * A window has left once it is eight windows old and in the store. The newest that left stays behind as a husk, for
//!   that neighbour's value; all of them while a window of the future is there, which a cut may still rearrange.
//! * A cut moves the windows ahead of it to the new period; updates stay in the period that they were admitted to.

use super::calendar::{Calendar, Period, is_kept, is_open};
use super::plain::Plain;
use super::tick::Tick;
use crate::types::{
    Amount, ClassSet, Epoch, LiveState, MergeState, Micros, PeriodState, Row, RowKind, SeriesId, SeriesState,
    Shape, Span, Standing, Tally, Window, WindowState,
};

/// A window, and the emission of its row that may not be in the store yet.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The window.
    pub state: WindowState,
    /// The last emission of its row in each class.
    pub sent: Vec<(Span, Epoch)>,
}

/// One series. The `windows` of `state` are empty: they are in `entries`.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(super) state: SeriesState,
    pub(super) entries: Vec<Entry>,
}

impl Ledger {
    /// Takes over a series. `in_flight` says by window which rows are part of the last emission of the series' class.
    pub fn new(mut state: SeriesState, in_flight: &[bool], now: &Tick) -> Ledger {
        let emission = (state.shape.batch, now.flight(state.shape.batch).upper);
        let mut in_flight = in_flight.iter();
        let entries = std::mem::take(&mut state.windows).into_iter().map(|state| {
            let is_sent = in_flight.next() == Some(&true);
            Entry { state, sent: Vec::from_iter(is_sent.then_some(emission)) }
        });
        Ledger { entries: entries.collect(), state }
    }

    /// Everything there is to know of it. What was emitted and not acknowledged is dirty again.
    pub fn export(&self, now: &Tick) -> SeriesState {
        let windows = self.entries.iter().map(|entry| {
            let mut state = entry.state;
            entry.in_flight(now).for_each(|(class, _)| state.dirty.insert(class));
            state
        });
        SeriesState { windows: windows.collect(), ..self.state.clone() }
    }

    /// The series and what of it is in flight, if the compact form can express it.
    pub fn compact(&mut self, now: &Tick) -> Option<(SeriesState, Vec<bool>)> {
        if self.state.switching.is_some_and(|(_, until)| until <= now.high) {
            self.state.switching = None;
        }
        if !self.state.cuts.is_empty() || !self.state.merges.is_empty() || self.state.switching.is_some() {
            return None;
        }
        self.evict(now);
        let windows = self.entries.iter().map(|entry| entry.state).collect();
        let state = SeriesState { windows, ..self.state.clone() };
        let emission = (state.shape.batch, now.flight(state.shape.batch).upper);
        let is_own =
            self.entries.iter().flat_map(|entry| entry.in_flight(now)).all(|flight| flight == emission);
        let in_flight = self.entries.iter().map(|entry| entry.in_flight(now).next().is_some()).collect();
        (is_own && Plain::fits(&state, now)).then_some((state, in_flight))
    }

    /// The series.
    pub fn series(&self) -> SeriesId {
        self.state.series
    }

    /// How it counts.
    pub fn shape(&self) -> &Shape {
        &self.state.shape
    }

    /// Whether it has had an update.
    pub fn is_touched(&self) -> bool {
        self.state.touched
    }

    /// The end of its newest window, if it has one. (A cut may have ended the row before; the store need not know.)
    pub fn newest_end(&self) -> Option<Micros> {
        self.entries.last().map(|entry| self.state.shape.flush.window(entry.state.start).end)
    }

    /// Windows in memory, and bytes beside the struct itself.
    pub fn size(&self) -> (usize, usize) {
        let bytes = self.entries.capacity() * size_of::<Entry>()
            + self.state.periods.capacity() * size_of::<PeriodState>()
            + self.state.cuts.capacity() * size_of::<Micros>()
            + self.state.merges.capacity() * size_of::<MergeState>();
        (self.entries.len(), bytes)
    }

    pub(super) fn calendar(&self) -> Calendar<'_> {
        Calendar { shape: &self.state.shape, cuts: &self.state.cuts }
    }

    /// The class that collects changes made at a stamp; none for a series that is not stored.
    pub(super) fn class(&self, arrival: Micros) -> Option<Span> {
        let class = match self.state.switching {
            Some((old, until)) if arrival < until => old,
            _ => self.state.shape.batch,
        };
        self.state.shape.stored.then_some(class)
    }

    /// Adds an admitted update. Returns the class that has something to emit now.
    pub fn add(&mut self, event_at: Micros, amount: Amount, now: &Tick) -> Option<Span> {
        self.state.touched = true;
        self.evict(now);
        let class = self.class(now.arrival);
        let row = self.calendar().row(event_at);
        let has_aged = row.start < now.horizon(self.state.shape.flush);
        let period = self.period_for_update(event_at, has_aged, now);
        let position = self.find(row.start);
        let stays =
            position.is_ok_and(|index| !self.entries[index].state.left) || position.is_err() && !has_aged;
        if let (Err(at), Some(period)) = (position, period) {
            self.open_window(at, row, period, !stays);
        }
        let mut changed = false;
        match self.find(row.start) {
            Ok(index) if stays => {
                let window = &mut self.entries[index].state;
                window.tally = window.tally.merge(Tally::of(amount));
                changed = mark(window, class);
            }
            _ => {
                if let Some(class) = class {
                    self.add_difference(row, amount, class);
                    changed = true;
                }
            }
        }
        if let Some(period) = period {
            changed |= self.add_to_period(period, amount, class);
        }
        class.filter(|_| changed)
    }

    /// The period of an update, if its tally is kept: it is open, or the newest, or may still get windows.
    fn period_for_update(&mut self, event_at: Micros, has_aged: bool, now: &Tick) -> Option<usize> {
        let period = self.calendar().period(event_at);
        match self.state.periods.binary_search_by_key(&period.start, |known| known.start) {
            Ok(index) => Some(index),
            Err(index) => {
                let is_newest = self.newest_period(now).is_none_or(|newest| newest.start < period.start);
                let is_kept = is_newest || !has_aged || is_open(&self.state.shape, period, now.arrival);
                is_kept.then(|| {
                    self.open_period(index, period);
                    index
                })
            }
        }
    }

    pub(super) fn open_period(&mut self, index: usize, period: Period) {
        let Period { start, end } = period;
        self.state.periods.insert(index, PeriodState { start, end, tally: Tally::EMPTY, newest: None });
    }

    /// A window opens at `at` among the entries; if it has left before it was there, only a husk does.
    fn open_window(&mut self, at: usize, row: Window, period: usize, left: bool) {
        let owner = &self.state.periods[period];
        let before = self.state.shape.value(&owner.tally);
        let (value, frozen_by) = match owner.newest {
            Some(newest) if newest > row.start => self.inherited(at, owner.start),
            newest => {
                if let Some(elder) = newest.and_then(|newest| self.find(newest).ok()) {
                    let elder = &mut self.entries[elder].state;
                    (elder.value, elder.frozen_by) = (Some(before), Some(row.start));
                }
                self.state.periods[period].newest = Some(row.start);
                (None, None)
            }
        };
        let opened = self.entries.iter().map(|entry| entry.state.opened + 1).max().unwrap_or(0);
        let (Window { start, end }, tally, dirty) = (row, Tally::EMPTY, ClassSet::default());
        let state = WindowState { start, end, tally, value, frozen_by, opened, before, left, dirty };
        self.entries.insert(at, Entry { state, sent: Vec::new() });
    }

    /// The value of a window opened late at `at`: its elder neighbour's; without one, that of a period without updates.
    fn inherited(&self, at: usize, period: Option<Micros>) -> (Option<Amount>, Option<Micros>) {
        let is_kin = |entry: &&Entry| self.calendar().period(entry.state.start).start == period;
        match self.entries[..at].iter().rev().find(is_kin) {
            Some(elder) => (elder.state.value, elder.state.frozen_by),
            // Without elders the window that opened first would have frozen the value. Before it the period was empty,
            // unless a cut has taken the windows of still earlier updates to another period.
            None => {
                let first = self.entries.iter().filter(is_kin).min_by_key(|entry| entry.state.opened);
                let before = first.map_or(self.state.shape.value(&Tally::EMPTY), |first| first.state.before);
                (Some(before), first.map(|first| first.state.start))
            }
        }
    }

    fn add_difference(&mut self, row: Window, amount: Amount, class: Span) {
        let waiting = |merge: &&mut MergeState| {
            merge.start == row.start && merge.class == class && merge.upper.is_none()
        };
        match self.state.merges.iter_mut().find(waiting) {
            Some(merge) => merge.difference = merge.difference.merge(Tally::of(amount)),
            None => {
                let (Window { start, end }, difference) = (row, Tally::of(amount));
                self.state.merges.push(MergeState { start, end, difference, class, upper: None });
            }
        }
    }

    /// Adds to a period; its newest row is dirty if its value follows and changed.
    fn add_to_period(&mut self, period: usize, amount: Amount, class: Option<Span>) -> bool {
        let (shape, period) = (self.state.shape, &mut self.state.periods[period]);
        let before = shape.value(&period.tally);
        period.tally = period.tally.merge(Tally::of(amount));
        let (after, newest) = (shape.value(&period.tally), period.newest);
        let newest = newest.and_then(|newest| self.find(newest).ok());
        after != before && newest.is_some_and(|newest| mark(&mut self.entries[newest].state, class))
    }

    /// Lets go what is eight windows old and in the store, and the periods that nothing needs any more.
    pub(super) fn evict(&mut self, now: &Tick) {
        let horizon = now.horizon(self.state.shape.flush);
        let newest = self.entries.iter().rposition(|entry| !entry.state.left);
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let has_aged = entry.state.start < horizon && Some(index) != newest;
            let is_stored = entry.state.dirty == ClassSet::default() && entry.in_flight(now).next().is_none();
            entry.state.left |= has_aged && is_stored;
        }
        let has_future = self.entries.last().is_some_and(|entry| entry.state.start >= now.high);
        if !has_future {
            let husk = self.entries.iter().rposition(|entry| entry.state.left);
            let mut index = 0..;
            self.entries.retain(|entry| {
                let index = index.next();
                !entry.state.left || index == husk
            });
        }
        self.drop_periods(horizon, now);
    }

    fn drop_periods(&mut self, horizon: Micros, now: &Tick) {
        if self.state.periods.len() < 2 {
            return;
        }
        let calendar = Calendar { shape: &self.state.shape, cuts: &self.state.cuts };
        let owners: Vec<_> = (self.entries.iter().filter(|entry| !entry.state.left))
            .map(|entry| calendar.period(entry.state.start).start)
            .collect();
        let newest = self.newest_period(now).map(|period| period.start);
        self.state.periods.retain(|period| {
            let bounds = Period { start: period.start, end: period.end };
            newest.is_none_or(|newest| period.start >= newest)
                || owners.contains(&period.start)
                || period.end.is_none_or(|end| end > horizon)
                || is_kept(calendar.shape, bounds, now.arrival)
        });
    }

    fn newest_period(&self, now: &Tick) -> Option<&PeriodState> {
        let has_begun = |period: &&PeriodState| {
            period.tally.count > 0 || period.start.is_none_or(|start| start <= now.high)
        };
        self.state.periods.iter().rfind(has_begun)
    }

    pub(super) fn find(&self, start: Micros) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&start, |entry| entry.state.start)
    }

    /// The live period that contains a moment, and its tally as far as it is in memory: all of it while it is open.
    pub fn live_period(&self, at: Micros) -> (Period, Tally) {
        let period = self.calendar().period(at);
        let known = self.state.periods.iter().find(|known| known.start == period.start);
        (period, known.map_or(Tally::EMPTY, |known| known.tally))
    }

    /// What a reader sees at a moment.
    pub fn standing(&self, at: Micros) -> Standing {
        let ((period, tally), shape) = (self.live_period(at), &self.state.shape);
        Standing {
            value: shape.value(&tally),
            tally,
            period_start: period.start,
            period_end: period.end,
            breached: shape.is_breached(&tally),
            limit: shape.limit,
            limit_source: shape.limit_source,
            touched: self.state.touched,
            refused: 0,
        }
    }

    /// Whether the live period of an event is open at its arrival and past its limit.
    pub fn is_breached(&self, event_at: Micros, arrival: Micros) -> bool {
        let ((period, tally), shape) = (self.live_period(event_at), &self.state.shape);
        is_open(shape, period, arrival) && shape.is_breached(&tally)
    }

    /// Appends what a class has to emit. Returns whether there was something, and whether merges are among it.
    pub fn emit(&mut self, class: Span, upper: Epoch, rows: &mut Vec<Row>) -> (bool, bool) {
        let (first, shape, series) = (rows.len(), self.state.shape, self.state.series);
        for entry in self.entries.iter_mut().filter(|entry| entry.state.dirty.contains(class)) {
            let window = &mut entry.state;
            window.dirty.remove(class);
            entry.sent.retain(|(sent, _)| *sent != class);
            entry.sent.push((class, upper));
            let period = self.state.periods.iter().find(|period| period.newest == Some(window.start));
            let value =
                window.value.unwrap_or_else(|| shape.value(&period.map_or(window.tally, |own| own.tally)));
            let (window_start, window_end, tally) = (window.start, window.end, window.tally);
            rows.push(Row { series, window_start, window_end, tally, value, kind: RowKind::Absolute });
        }
        let absolute = rows.len();
        self.gather_merges(class, upper);
        let Shape { operation, initial_value, .. } = shape;
        let kind = RowKind::Merge { operation, initial_value, value_follows: shape.window_is_period() };
        for merge in self.state.merges.iter().filter(|merge| merge.class == class) {
            let (window_start, window_end, tally) = (merge.start, merge.end, merge.difference);
            rows.push(Row { series, window_start, window_end, tally, value: shape.value(&tally), kind });
        }
        let has_merges = rows.len() > absolute;
        if has_merges {
            rows[first..].sort_unstable_by_key(|row| row.window_start);
        }
        (rows.len() > first, has_merges)
    }

    /// All differences of a class become part of this emission: one a window, also after a restart in between.
    fn gather_merges(&mut self, class: Span, upper: Epoch) {
        let (mut gathered, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.state.merges).into_iter().partition(|merge| merge.class == class);
        gathered.sort_by_key(|merge| merge.start);
        self.state.merges = rest;
        for merge in gathered {
            let last =
                self.state.merges.last_mut().filter(|last| last.class == class && last.start == merge.start);
            match last {
                Some(last) => last.difference = last.difference.merge(merge.difference),
                None => self.state.merges.push(MergeState { upper: Some(upper), ..merge }),
            }
        }
    }

    /// All that a class has to emit is already in the store.
    pub fn mark_stored(&mut self, class: Span) {
        for entry in &mut self.entries {
            entry.state.dirty.remove(class);
            entry.sent.retain(|(sent, _)| *sent != class);
        }
        self.state.merges.retain(|merge| merge.class != class);
    }

    /// An emission is in the store. Returns whether merges of a later one are not.
    pub fn acknowledge(&mut self, class: Span, upper: Epoch) -> bool {
        self.state
            .merges
            .retain(|merge| merge.class != class || merge.upper.is_none_or(|emitted| emitted > upper));
        self.state.merges.iter().any(|merge| merge.class == class && merge.upper.is_some())
    }

    /// The newest live period: one ahead only if it has updates already.
    pub fn live_state(&self, now: &Tick) -> LiveState {
        let newest = self.newest_period(now);
        let (period_start, tally) =
            newest.map_or((None, Tally::EMPTY), |newest| (newest.start, newest.tally));
        LiveState { series: self.state.series, period_start, tally, value: self.state.shape.value(&tally) }
    }
}

impl Entry {
    /// The emissions of its row that may not be in the store yet.
    fn in_flight(&self, now: &Tick) -> impl Iterator<Item = (Span, Epoch)> {
        self.sent.iter().copied().filter(|&(class, upper)| upper > now.flight(class).acknowledged)
    }
}

/// Makes a row dirty; one that has left, or is not stored, never is. Returns whether it is.
pub(super) fn mark(window: &mut WindowState, class: Option<Span>) -> bool {
    match class {
        Some(class) if !window.left => {
            window.dirty.insert(class);
            true
        }
        _ => false,
    }
}
