//! The oracle: what every decision, reading and row must be, recomputed from scratch by the definitions.
//!
//! In: the entries of a journal in order, by `SeriesId` (no slots, no workers, no graph). Out: decisions, readings, and
//! the rows of each emission. It is naive on purpose: a series is the list of its admitted updates and its cuts, and
//! whatever is asked is found by scanning that list (`series`). What cannot be derived, because it is about the store
//! and not about the updates (which row changed since it was last emitted, which emission is in the store), is kept as
//! plain sets. Which limit a series has is found in the facts (`limits`).
//!
//! It shares only the vocabulary and the algebra (`types`, `amount`, `tally`, `window`) with the operators, and no
//! trick: every answer costs a walk over the history, so it is for tests alone.
//!
//! Assumes what admission sees to: stamps do not go back, an event is at most `max_event_age` old and five minutes
//! ahead, and intervals, operation and initial value change only before the first update.

mod block;
mod cleanup;
mod crossings;
mod limits;
mod series;

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{
    Amount, ClassSet, Crossing, Decision, Epoch, EventId, LiveState, Micros, NO_REPLY, Outcome, Row,
    SeriesId, Shape, Span, Standing, Tally,
};
pub use limits::Relations;
use series::Series;

/// One update, as it was journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The series.
    pub series: SeriesId,
    /// Index of the reply, or `NO_REPLY`.
    pub item: u32,
    /// The event time.
    pub event_at: Micros,
    /// The amount.
    pub amount: Amount,
    /// The id, if it carries one.
    pub id: Option<EventId>,
}

/// One change of a definition, as far as values are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A series begins.
    Open(SeriesId, Shape),
    /// It counts in another way from now on.
    Reshape(SeriesId, Shape),
    /// A new live period begins, at the stamp or at another moment.
    Cut(SeriesId, Option<Micros>),
    /// A series ends.
    Close(SeriesId),
}

/// The changed rows of one class at one time entry, of all series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// Which class.
    pub class: Span,
    /// Changed windows, in (series, window) order.
    pub rows: Vec<Row>,
    /// Newest live periods of the series with changed windows, in series order.
    pub states: Vec<LiveState>,
    /// Cleaned series, in series order: rows whose window had ended by then go before the others are written.
    pub cleaned: Vec<(SeriesId, Micros)>,
}

/// What a row must say once everything is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truth {
    /// First moment behind the window.
    pub end: Micros,
    /// All updates of the window.
    pub tally: Tally,
    /// None where it depends on how the row was written: absolute or merged.
    pub value: Option<Amount>,
}

/// All series, and the remembered ids.
#[derive(Clone, Debug)]
pub struct Reference {
    dedup_horizon_secs: u32,
    series: BTreeMap<SeriesId, Series>,
    /// The generation in which each id was admitted.
    ids: BTreeMap<EventId, i64>,
    /// Edges that have not been fetched.
    crossings: Vec<Crossing>,
}

impl Reference {
    /// No series and no ids. The horizon is in seconds and at least 1.
    pub fn new(dedup_horizon_secs: u32) -> Reference {
        let (series, ids, crossings) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Reference { dedup_horizon_secs, series, ids, crossings }
    }

    /// Decides and applies one update that arrived at `stamp`.
    pub fn update(&mut self, stamp: Micros, arrival: &Arrival) -> Decision {
        let item = arrival.item;
        let generation = self.generation(stamp);
        let Some(series) = self.series.get_mut(&arrival.series) else {
            let (outcome, current) = (Outcome::Gone, Amount::ZERO);
            let (late, breached, refusal, held) = (false, false, None, None);
            return Decision { item, outcome, late, breached, current, arrival: stamp, refusal, held };
        };
        let event_at = if series.shape.max_event_age_secs == 0 { stamp } else { arrival.event_at };
        let known = arrival.id.and_then(|id| self.ids.get(&id)).is_some_and(|since| generation - since <= 8);
        let outcome = if known { Outcome::Duplicate } else { series.judge(stamp, event_at, arrival.amount) };
        match outcome {
            Outcome::Admitted => {
                let before = series.seen(event_at, stamp);
                series.admit(stamp, event_at, arrival.amount);
                self.crossings.extend(series.crossings(before, event_at, stamp, false));
                self.ids.extend(arrival.id.map(|id| (id, generation)));
            }
            Outcome::Refused if item != NO_REPLY => series.refused += 1,
            _ => {}
        }
        let is_refused = outcome == Outcome::Refused;
        Decision {
            item,
            outcome,
            late: series.shape.flush.window(event_at).end <= stamp,
            breached: series.is_breached(event_at, stamp),
            current: series.standing(stamp).value,
            arrival: stamp,
            refusal: is_refused.then(|| series.refusal(stamp, event_at, arrival.amount)).flatten(),
            held: series.standing(stamp).held(),
        }
    }

    /// The edges found since the last call, in order.
    pub fn take_crossings(&mut self) -> Vec<Crossing> {
        std::mem::take(&mut self.crossings)
    }

    /// Ids are remembered by eighths of the horizon.
    fn generation(&self, stamp: Micros) -> i64 {
        stamp.0.div_euclid(i64::from(self.dedup_horizon_secs) * Micros::PER_SECOND / 8)
    }

    /// Applies a change of a definition journaled at `stamp`.
    pub fn change(&mut self, stamp: Micros, change: &Change) {
        match *change {
            Change::Open(series, shape) => {
                self.series.insert(series, Series::new(series, shape));
            }
            Change::Reshape(series, shape) => {
                if let Some(series) = self.series.get_mut(&series) {
                    // The description first, under the limit that there was: it never had an update if that says more.
                    let Shape { limit, limit_source, notify, .. } = series.shape;
                    series.reshape(stamp, Shape { limit, limit_source, notify, ..shape });
                    let before = series.seen(stamp, stamp);
                    let is_other = series.limited(shape, stamp);
                    if is_other {
                        self.crossings.extend(series.crossings(before, stamp, stamp, true));
                    }
                }
            }
            Change::Cut(series, at) => {
                if let Some(series) = self.series.get_mut(&series) {
                    series.cut(at.unwrap_or(stamp), stamp);
                }
            }
            Change::Close(series) => {
                self.series.remove(&series);
            }
        }
    }

    /// The time entry of this epoch, at T: cleans what is quiet for too long, then what each class emits, shortest interval first. In a class of `stored` the series
    /// up to the given one are in the store already, the others emit.
    pub fn time(
        &mut self,
        epoch: Epoch,
        at: Micros,
        emit: ClassSet,
        stored: &[(Span, SeriesId)],
    ) -> Vec<Emission> {
        self.series.values_mut().for_each(|series| series.clean(at));
        let mut emissions = Vec::new();
        for class in Span::FLUSH {
            let through = stored.iter().find(|(stored, _)| *stored == class).map(|(_, through)| *through);
            if !emit.contains(class) && through.is_none() {
                continue;
            }
            let (mut rows, mut states, mut cleaned) = (Vec::new(), Vec::new(), Vec::new());
            for (&id, series) in &mut self.series {
                if through.is_some_and(|through| id <= through) {
                    series.mark_stored(class);
                    continue;
                }
                cleaned.extend(series.cleaning.emit(id, class, epoch));
                let changed = series.emit(class, epoch);
                states.extend((!changed.is_empty()).then(|| series.live_state(at)));
                rows.extend(changed);
            }
            emissions.push(Emission { class, rows, states, cleaned });
        }
        emissions
    }

    /// The emissions of a class up to this epoch are in the store.
    pub fn acknowledge(&mut self, class: Span, upper: Epoch) {
        self.series.values_mut().for_each(|series| series.acknowledge(class, upper));
    }

    /// A restart: what was emitted and not acknowledged is to be emitted again, except for merges that reached the store
    /// all the same, as `is_stored` knows of (class, epoch, series).
    pub fn restart(&mut self, is_stored: &dyn Fn(Span, Epoch, SeriesId) -> bool) {
        self.series.values_mut().for_each(|series| series.restart(is_stored));
    }

    /// What a reader sees at a moment that is not before the last stamp; none for a series that is not there.
    pub fn standing(&self, series: SeriesId, at: Micros) -> Option<Standing> {
        self.series.get(&series).map(|series| series.standing(at))
    }

    /// The series that are there.
    pub fn open(&self) -> impl Iterator<Item = SeriesId> {
        self.series.keys().copied()
    }

    /// Windows of which the store may have a row or not: what a cleanup found too young and later updates have not
    /// written again.
    pub fn left_behind(&self, series: SeriesId) -> BTreeSet<Micros> {
        self.series.get(&series).map(|series| series.cleaning.left_behind()).unwrap_or_default()
    }

    /// What the store must hold of a series in the end, by window. None if it was not always stored.
    pub fn rows(&self, series: SeriesId) -> Option<BTreeMap<Micros, Truth>> {
        self.series.get(&series).filter(|series| series.was_always_stored).map(Series::rows)
    }

    /// When the next time entry is wanted: the first boundary of a class after the first change it has yet to emit, or
    /// the first cleanup.
    pub fn due_at(&self) -> Option<Micros> {
        self.series.values().filter_map(Series::due_at).min()
    }
}
