//! Between the two forms of a series: the compact one of `cells` and the general one of `ledger`.
//!
//! `export` is total. `install` takes what `fits`: no cut, no merge, no class switching, no window that a cut
//! could still move (unless windows are periods), every start a whole second, every value where the compact rules would have put it.

use super::calendar::{Calendar, Period};
use super::cells::{Base, NONE, Past, Sums, moment, packed_seconds};
use super::older::Older;
use super::plain::{Plain, flags};
use super::tick::{LENGTHS_MICROS, Tick};
use crate::types::{
    Amount, ClassSet, MetricType, Micros, PeriodState, SeriesId, SeriesState, Shape, Tally, Window,
    WindowState,
};

/// As of when a series is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// The present.
    Now,
    /// The beginning of the snapshot that is running.
    Begun,
}

/// A series that has just been opened.
pub(crate) fn blank(series: SeriesId, shape: Shape) -> SeriesState {
    let (windows, periods, cuts, merges) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    SeriesState {
        series,
        shape,
        touched: false,
        windows,
        periods,
        cuts,
        merges,
        switching: None,
        quiet_since: None,
        cleanup: None,
    }
}

impl Plain {
    /// The slots that there may be series in.
    pub fn slots(&self) -> u32 {
        self.cells.len() as u32
    }

    /// Everything there is to know of a series, and which of its windows are part of an emission that may not be in the
    /// store yet; none unless it is kept here.
    pub fn export(&self, slot: u32, when: When, now: &Tick) -> Option<(SeriesState, Vec<bool>)> {
        let cell =
            self.cells.find(slot).map(|_| self.cell(slot, when)).filter(|cell| cell.flags.is_plain())?;
        let cold = if when == When::Now { self.cold.get(slot) } else { self.cold.frozen(slot) };
        let shape = *self.shapes.get(cold.shape);
        let mut state = blank(cold.series, shape);
        if !cell.flags.is_touched() {
            return Some((state, Vec::new()));
        }
        state.touched = true;
        let mut windows = self.older(slot, when);
        windows.push(Older { at: NONE, window: cell.window, sums: cell.sums, value: Amount::ZERO });
        let flight = now.flight(shape.batch);
        let mut in_flight = Vec::new();
        for (index, exported) in windows.iter().enumerate() {
            let is_sent =
                flight.is_under_way() && exported.sums.sent() == flight.emission % super::cells::EMISSIONS;
            let next = windows.get(index + 1).map(|next| moment(next.window));
            let start = moment(exported.window);
            let is_idle = !exported.sums.is_dirty() && !is_sent;
            let left = next.is_some() && is_idle && start < now.horizon(shape.flush);
            if left && shape.window_is_period() {
                continue;
            }
            let is_frozen = next.is_some() && !shape.window_is_period() && !exported.sums.follows();
            let before = state.windows.last().and_then(|elder| elder.value);
            state.windows.push(WindowState {
                start,
                end: Micros(start.0 + LENGTHS_MICROS[shape.flush as usize]),
                tally: exported.sums.tally(),
                value: is_frozen.then_some(exported.value),
                frozen_by: next,
                opened: state.windows.len() as u32,
                before: before.unwrap_or_else(|| shape.value(&Tally::EMPTY)),
                left,
                dirty: if exported.sums.is_dirty() { class_set(&shape) } else { ClassSet::default() },
            });
            in_flight.push(is_sent);
        }
        for window in &mut state.windows {
            window.frozen_by = window.frozen_by.filter(|_| window.value.is_some());
        }
        state.periods = self.export_periods(cell.base, cell.sums, &state, when);
        Some((state, in_flight))
    }

    fn cell(&self, slot: u32, when: When) -> &super::cells::Cell {
        if when == When::Now { self.cells.get(slot) } else { self.cells.frozen(slot) }
    }

    fn export_periods(&self, base: u32, newest: Sums, state: &SeriesState, when: When) -> Vec<PeriodState> {
        let shape = &state.shape;
        let calendar = Calendar { shape, cuts: &[] };
        let period_state = |at: Micros, tally: Tally| {
            let Period { start, end } = calendar.period(at);
            let own = state.windows.iter().rev().map(|window| window.start);
            let newest = own.filter(|&own| calendar.period(own).start == start).max();
            PeriodState { start, end, tally, newest }
        };
        if shape.window_is_period() {
            return state.windows.iter().map(|window| period_state(window.start, window.tally)).collect();
        }
        let base = match (base, when) {
            (NONE, _) => Base::default(),
            (base, When::Now) => *self.bases.items.get(base),
            (base, When::Begun) => *self.bases.items.frozen(base),
        };
        let base_sums = base.sums;
        let last = state.windows.last().map_or(Micros(0), |window| window.start);
        let mut periods = vec![period_state(last, base_sums.tally().merge(newest.tally()))];
        let mut link = base.past;
        while link != NONE {
            let past =
                if when == When::Now { self.pasts.items.get(link) } else { self.pasts.items.frozen(link) };
            periods.push(period_state(moment(past.start), past.sums.tally()));
            link = past.older;
        }
        periods.reverse();
        periods
    }

    /// Whether a series can be kept in the compact form.
    pub fn fits(state: &SeriesState, now: &Tick) -> bool {
        let is_ordinary = state.cuts.is_empty() && state.merges.is_empty() && state.switching.is_none();
        if !is_ordinary || !state.touched {
            return is_ordinary && state.windows.is_empty() && state.periods.is_empty();
        }
        let (shape, is_periodic) = (&state.shape, state.shape.window_is_period());
        let is_aligned = |window: &WindowState| {
            let bounds = Window { start: window.start, end: window.end };
            let is_own_class = window.dirty == ClassSet::default() || window.dirty == class_set(shape);
            packed_seconds(window.start).is_some()
                && shape.flush.window(window.start) == bounds
                && is_own_class
        };
        let newest = state.windows.last();
        state.windows.iter().all(is_aligned)
            && newest.is_some_and(|newest| !newest.left && (is_periodic || newest.start < now.high))
            && if is_periodic { periods_are_windows(state) } else { values_are_where_they_belong(state) }
    }

    /// Puts a series that fits into a slot that is vacant. `in_flight` is by window.
    pub fn install(&mut self, slot: u32, state: &SeriesState, in_flight: &[bool], now: &Tick) {
        self.open(slot, state.series, &state.shape);
        let shape = &state.shape;
        let (Some(newest), Some(live)) = (state.windows.last(), state.periods.last()) else { return };
        let flight = now.flight(shape.batch);
        let sums = |index: usize, window: &WindowState| {
            let mut sums = Sums::of(&window.tally);
            let is_sent = in_flight.get(index) == Some(&true);
            sums.mark_sent(if is_sent {
                flight.emission
            } else {
                flight.emission + super::cells::EMISSIONS / 2
            });
            if window.dirty != ClassSet::default() {
                sums.mark_dirty();
            }
            sums
        };
        let (mut base, mut flags) = (Base::default(), flags(shape));
        flags.touch();
        self.cells.get_mut(slot).flags = flags; // Where older windows go depends on them.
        let last = state.windows.len() - 1;
        for (index, window) in state.windows[..last].iter().enumerate() {
            let mut sums = sums(index, window);
            if window.value.is_none() {
                sums.mark_following();
            }
            flags.set_older_dirty(flags.older_dirty() + u32::from(sums.is_dirty()));
            self.push_newest(slot, seconds(window.start), sums, window.value.unwrap_or_default());
        }
        if !shape.window_is_period() {
            for past in &state.periods[..state.periods.len() - 1] {
                let (sums, start) = (Sums::of(&past.tally), past.start.map_or(0, seconds));
                base.past = self.pasts.insert(Past { sums, start, older: base.past });
            }
            base.sums = Sums::of(&without(&live.tally, &newest.tally));
            let is_needed = base.past != NONE || live.tally != newest.tally;
            self.cells.get_mut(slot).base = if is_needed { self.bases.insert(base) } else { NONE };
        }
        let cell = self.cells.get_mut(slot);
        (cell.sums, cell.window, cell.flags) = (sums(last, newest), seconds(newest.start), flags);
        self.touched += 1;
    }
}

fn class_set(shape: &Shape) -> ClassSet {
    let mut class = ClassSet::default();
    class.insert(shape.batch);
    class
}

fn seconds(start: Micros) -> u32 {
    packed_seconds(start).expect("only what fits is installed")
}

/// A tally that merged with `part` gives `whole`, of which it is a part. Where the extremes come from is not known; those
/// of the whole do.
fn without(whole: &Tally, part: &Tally) -> Tally {
    match whole.count - part.count {
        0 => Tally::EMPTY,
        count => Tally { sum: whole.sum - part.sum, count, ..*whole },
    }
}

/// Whether the updates of `part` may be some of those of `whole`.
fn is_part(part: &Tally, whole: &Tally) -> bool {
    part == whole || part.count < whole.count && part.min >= whole.min && part.max <= whole.max
}

fn periods_are_windows(state: &SeriesState) -> bool {
    let windows = state.windows.iter().filter(|window| !window.left);
    let matches = |(window, period): (&WindowState, &PeriodState)| {
        window.value.is_none() && period.start == Some(window.start) && period.tally == window.tally
    };
    windows.clone().count() == state.periods.len() && windows.zip(&state.periods).all(matches)
}

/// The newest window of each period follows it, the others are frozen; and the newest of all is of the newest period,
/// whose tally includes it.
fn values_are_where_they_belong(state: &SeriesState) -> bool {
    let calendar = Calendar { shape: &state.shape, cuts: &[] };
    let newest_of = |at: Micros| {
        let start = calendar.period(at).start;
        state.periods.iter().find(|period| period.start == start).map(|period| period.newest)
    };
    let follows = |window: &WindowState| match newest_of(window.start) {
        Some(newest) => (newest == Some(window.start)) == window.value.is_none(),
        None => window.left,
    };
    let is_current = state.windows.last().zip(state.periods.last()).is_some_and(|(window, period)| {
        period.newest == Some(window.start) && is_part(&window.tally, &period.tally)
    });
    let is_calendar = state.shape.metric_type == MetricType::Reset;
    let are_packed =
        state.periods.iter().all(|period| period.start.and_then(packed_seconds).is_some() == is_calendar);
    is_current && are_packed && state.windows.iter().all(follows)
}
