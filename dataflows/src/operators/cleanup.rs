//! Cleanup: a series with `cleanup_after` that nobody has sent to for that long begins afresh, and its old rows go.
//!
//! | in | out |
//! |---|---|
//! | the arrival of each admitted update | nothing: it is noted |
//! | a time entry T | series quiet since `T - cleanup_after` or longer are as when they were opened: no live period, windows, cuts, or rows still to be emitted (one that never reached the store is as old as those that did). Ids stay: their horizon is their own |
//! | an emission | (series, `T - cleanup_after`): rows whose window had ended by then are deleted, and the live period with them, before the emission's own rows are written |
//!
//! ```text
//!   quiet[slot]: since 4 · due 4          calendar: a heap of (due 4, slot 4), one valid entry a watched series
//!                │        └── equal ──────────▶ when it comes, `since` is looked at: clean, or come again later
//!                └── all that an update writes
//! ```
//! The entry of the calendar does not move with each update: it comes once every `cleanup_after` and arms itself anew, so
//! a series with cleanup costs a second cache line an update (asked for ahead) and 16 bytes, one without a branch that is
//! never taken. All that falls due in one second is done in one time entry.
//!
//! A row younger than the bound stays; when it has aged and still nobody has sent, a second cleanup takes it: `since` is
//! then the end of the newest window. Which emission brings a cleanup: the next one of a class that may bring rows behind
//! it, so that it deletes none of them. Stamps only rise here: a clock that goes back puts no cleanup forward.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use foldhash::fast::FixedState;

use super::cells::Flags;
use super::chunks::Chunks;
use super::convert::When;
use super::ledger::Ledger;
use super::meter::Meter;
use super::tick::Tick;
use crate::prefetch::prefetch;
use crate::types::{
    ClassSet, CleanupState, Epoch, LimitSource, MetricType, Micros, SeriesId, SeriesState, Shape, Span,
};

const DAY_SECS: u32 = 86_400;

/// How many seconds a series may be quiet; none if it is never cleaned. The usage of a `stripe_billing` series is kept
/// until it has been exported, which nothing does yet: such a series is never cleaned; nor is one that a plan limits, or
/// who is quiet for long enough could use its plan again.
pub(crate) fn quiet_max_secs(shape: &Shape) -> Option<u32> {
    let is_of_plan = shape.limit.is_some() && shape.limit_source == LimitSource::Plan;
    let is_kept = is_of_plan || shape.metric_type == MetricType::StripeBilling;
    let days = shape.cleanup_after_days.filter(|_| !is_kept);
    days.map(|days| u32::from(days).saturating_mul(DAY_SECS))
}

/// A moment, rounded up; 0 is no moment.
#[inline(always)]
pub(super) fn seconds(at: Micros) -> u32 {
    at.seconds_up().clamp(1, i64::from(u32::MAX)) as u32
}

/// What is kept of a watched series, in seconds; 0 is none.
#[derive(Clone, Copy, Default)]
struct Quiet {
    /// See `SeriesState::quiet_since`.
    since: u32,
    /// Its valid entry in the calendar.
    due: u32,
}

/// A cleanup that the store does not have yet.
#[derive(Clone, Copy)]
struct Pending {
    series: SeriesId,
    state: CleanupState,
}

/// The cleanups of a snapshot, by slot.
pub(super) type Cleanups = HashMap<u32, CleanupState, FixedState>;

/// Which series of one worker are quiet, and what the store must be told of it.
#[derive(Default)]
pub(crate) struct Cleanup {
    quiet: Chunks<Quiet>,
    calendar: BinaryHeap<Reverse<(u32, u32)>>,
    /// By slot: at most one a series, however long the store is down.
    pending: HashMap<u32, Pending, FixedState>,
}

impl Cleanup {
    /// Asks for what an update of a watched series will touch.
    #[inline(always)]
    pub fn prefetch(&self, slot: u32) {
        self.quiet.find(slot).into_iter().for_each(prefetch);
    }

    /// An update of a watched series that has had others.
    #[inline(always)]
    pub fn note(&mut self, slot: u32, arrival_secs: u32) {
        if let Some(quiet) = self.quiet.find_mut(slot) {
            quiet.since = quiet.since.max(arrival_secs);
        }
    }

    /// The series is quiet since then, and may be for so long.
    fn watch(&mut self, slot: u32, since: u32, quiet_max_secs: u32) {
        self.quiet.reach(slot);
        self.quiet.get_mut(slot).since = since;
        self.arm(slot, since.saturating_add(quiet_max_secs));
    }

    /// There is nothing to clean.
    fn forget(&mut self, slot: u32) {
        if let Some(quiet) = self.quiet.find_mut(slot) {
            *quiet = Quiet::default();
        }
    }

    /// The calendar comes to the series at that second or before.
    fn arm(&mut self, slot: u32, due: u32) {
        let quiet = self.quiet.get_mut(slot);
        if quiet.due == 0 || due < quiet.due {
            quiet.due = due;
            self.calendar.push(Reverse((due, slot)));
        }
    }

    /// The next series that the calendar has come to.
    fn take_due(&mut self, now: u32) -> Option<u32> {
        while let Some(&Reverse((due, slot))) = self.calendar.peek().filter(|Reverse((due, _))| *due <= now) {
            self.calendar.pop();
            let quiet = self.quiet.get_mut(slot);
            if quiet.due == due {
                quiet.due = 0;
                return Some(slot);
            }
        }
        None
    }

    fn since(&self, slot: u32) -> u32 {
        self.quiet.find(slot).map_or(0, |quiet| quiet.since)
    }

    /// When a time entry is wanted; perhaps too early, never too late.
    pub fn due_at(&self) -> Option<Micros> {
        self.calendar.peek().map(|Reverse((due, _))| Micros::from_seconds(i64::from(*due)))
    }

    /// Rows of a series may come in another class from now on.
    fn follow(&mut self, slot: u32, class: Span) -> bool {
        let pending = self.pending.get_mut(&slot);
        pending.map(|pending| pending.state.classes.insert(class)).is_some()
    }

    /// What an emission says of a series that has something to emit in it. With `stored` the series up to that one are in
    /// the store already.
    pub fn emit(
        &mut self,
        slot: u32,
        emission: (Span, Epoch),
        stored: Option<SeriesId>,
        now: &Tick,
    ) -> Option<(SeriesId, Micros)> {
        let Pending { series, state } =
            self.pending.get_mut(&slot).filter(|pending| pending.state.classes.contains(emission.0))?;
        if stored.is_some_and(|through| *series <= through) {
            self.pending.remove(&slot);
            return None;
        }
        // Of another class: emissions reach the store in the order of their epochs. Before a restart: it was lost.
        if state.sent.is_some_and(|(class, upper)| now.flight(class).upper == upper) {
            return None;
        }
        state.sent = Some(emission);
        Some((*series, state.ended_by))
    }

    /// An emission is in the store, for the series up to and including `through`.
    pub fn acknowledge(&mut self, class: Span, upper: Epoch, through: SeriesId) {
        self.pending.retain(|_, Pending { series, state }| {
            *series > through || state.sent.is_none_or(|(of, sent)| of != class || sent > upper)
        });
    }

    /// A snapshot begins.
    pub fn freeze(&mut self) -> Cleanups {
        self.quiet.freeze();
        self.pending.iter().map(|(&slot, pending)| (slot, pending.state)).collect()
    }

    /// The snapshot has ended.
    pub fn thaw(&mut self) {
        self.quiet.thaw();
    }

    /// Adds to an exported series what is kept of it here.
    fn complete(&self, slot: u32, when: When, cleanup: Option<CleanupState>, state: &mut SeriesState) {
        let quiet = self.quiet.find(slot).filter(|_| quiet_max_secs(&state.shape).is_some());
        let quiet = quiet.map(|now| if when == When::Now { now } else { self.quiet.frozen(slot) });
        let since = quiet.map(|quiet| quiet.since).filter(|&since| since != 0);
        state.quiet_since = since.map(|since| Micros::from_seconds(i64::from(since)));
        state.cleanup = cleanup;
    }

    /// As `complete`, as of now.
    pub fn complete_now(&self, slot: u32, mut state: SeriesState) -> SeriesState {
        let cleanup = self.pending.get(&slot).map(|pending| pending.state);
        self.complete(slot, When::Now, cleanup, &mut state);
        state
    }

    /// As `complete`, as of the beginning of the snapshot whose cleanups these are.
    pub fn complete_begun(&self, slot: u32, cleanups: &Cleanups, state: &mut SeriesState) {
        self.complete(slot, When::Begun, cleanups.get(&slot).copied(), state);
    }

    /// Memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        self.quiet.resident_bytes()
            + self.calendar.capacity() * size_of::<(u32, u32)>()
            + self.pending.capacity() * (size_of::<(u32, Pending)>() + 1)
    }
}

impl Meter {
    /// How long the series may be quiet; none if it is never cleaned, or closed.
    pub(super) fn quiet_max_secs(&self, slot: u32) -> Option<u32> {
        match self.plain.flags(slot) {
            flags if flags.is_closed() || flags.is_plain() && !flags.has(Flags::WATCHED) => None,
            _ => quiet_max_secs(self.shape(slot)),
        }
    }

    fn is_touched(&self, slot: u32) -> bool {
        self.ledgers.get(&slot).map_or(self.plain.flags(slot).is_touched(), Ledger::is_touched)
    }

    /// An update of a watched series is about to be added.
    pub(super) fn note_arrival(&mut self, slot: u32, quiet_max_secs: u32) {
        let arrival = seconds(self.tick.arrival);
        // Before its first update what may be left of the series are rows: these do not keep it from being quiet.
        let before = if self.is_touched(slot) { self.cleanup.since(slot) } else { 0 };
        self.cleanup.watch(slot, arrival.max(before), quiet_max_secs);
    }

    /// The definition has changed; `before` is how long the series could be quiet before that. A series that was not
    /// watched is as if updated at the change.
    pub(super) fn rewatch(&mut self, slot: u32, before: Option<u32>) {
        let since = match before {
            None if self.is_touched(slot) => seconds(self.tick.arrival),
            None => 0,
            Some(_) => self.cleanup.since(slot),
        };
        match self.quiet_max_secs(slot).filter(|_| since != 0) {
            Some(quiet_max_secs) => self.cleanup.watch(slot, since, quiet_max_secs),
            None => self.cleanup.forget(slot),
        }
        let class = if self.plain.flags(slot).is_closed() { return } else { self.shape(slot).batch };
        if self.cleanup.follow(slot, class) {
            self.classes[class as usize].insert(slot, self.tick.arrival);
        }
    }

    /// The series is gone.
    pub(super) fn unwatch(&mut self, slot: u32) {
        self.cleanup.forget(slot);
        self.cleanup.pending.remove(&slot);
    }

    /// The time entry: what is quiet for long enough begins afresh.
    pub(super) fn clean(&mut self) {
        let now = seconds(self.tick.arrival);
        while let Some(slot) = self.cleanup.take_due(now) {
            let Some(quiet_max_secs) = self.quiet_max_secs(slot) else { continue };
            let due = self.cleanup.since(slot).saturating_add(quiet_max_secs);
            if due > now {
                self.cleanup.arm(slot, due);
            } else {
                self.clean_series(slot, quiet_max_secs);
            }
        }
    }

    fn clean_series(&mut self, slot: u32, quiet_max_secs: u32) {
        let ended_by = Micros(self.tick.arrival.0 - i64::from(quiet_max_secs) * Micros::PER_SECOND);
        let shape = *self.shape(slot);
        let (series, newest_end) = match self.ledgers.get(&slot) {
            Some(ledger) => (ledger.series(), ledger.newest_end()),
            None => (self.plain.series(slot), self.plain.newest_end(slot)),
        };
        if self.is_touched(slot) {
            if self.ledgers.remove(&slot).is_none() {
                self.plain.vacate(slot, Flags::CLOSED);
            }
            self.plain.open(slot, series, &shape);
        }
        match newest_end.filter(|end| *end > ended_by) {
            Some(end) => self.cleanup.watch(slot, seconds(end), quiet_max_secs),
            None => self.cleanup.forget(slot),
        }
        let mut classes = ClassSet::default();
        classes.insert(shape.batch);
        let state = CleanupState { ended_by, classes, sent: None };
        self.cleanup.pending.insert(slot, Pending { series, state });
        self.classes[shape.batch as usize].insert(slot, self.tick.arrival);
    }

    /// Puts back what a snapshot says of a series that has been put into a slot.
    pub(super) fn restore_cleanup(&mut self, slot: u32, state: &SeriesState, changed_at: Micros) {
        if let (Some(since), Some(quiet_max_secs)) = (state.quiet_since, quiet_max_secs(&state.shape)) {
            self.cleanup.watch(slot, seconds(since), quiet_max_secs);
        }
        if let Some(cleanup) = state.cleanup {
            self.cleanup.pending.insert(slot, Pending { series: state.series, state: cleanup });
            for class in cleanup.classes.iter() {
                self.classes[class as usize].insert(slot, changed_at);
            }
        }
    }
}
