//! Cleanup in the oracle: what a series that has been quiet for too long loses.
//!
//! | word | definition |
//! |---|---|
//! | quiet since | the arrival of the last update, or the change of the definition that brought `cleanup_after` if that is later |
//! | cleaned at T | quiet since `T - cleanup_after` or before: the list of updates and cuts is empty from then on |
//! | left behind | the rows of that list whose windows, cut or not, had not ended by `T - cleanup_after`: the store may not have heard of the cut |
//! | cleaned again | once the last of those has ended by `T - cleanup_after`, if no update has come since |

use std::collections::{BTreeMap, BTreeSet};

use super::series::Series;
use crate::types::{Epoch, LimitSource, MetricType, Micros, SeriesId, Shape, Span};

/// What has happened to a series in this respect. It outlives its updates.
#[derive(Clone, Debug, Default)]
pub(super) struct Cleaning {
    /// When the definition began to say that it is cleaned.
    wanted_since: Option<Micros>,
    /// The end of the newest window that the last cleanup left behind.
    left_end: Option<Micros>,
    /// Rows that the store may have or not, with their ends: left behind, and perhaps never emitted.
    left_behind: BTreeMap<Micros, Micros>,
    /// What the store is to be told.
    deletion: Option<Deletion>,
}

/// Rows that ended by then go.
#[derive(Clone, Debug)]
struct Deletion {
    ended_by: Micros,
    /// The classes that may bring it, and since when.
    classes: BTreeMap<Span, Micros>,
    /// The emission that has brought it.
    sent: Option<(Span, Epoch)>,
}

fn quiet_max_micros(shape: &Shape) -> Option<i64> {
    let of_plan = shape.limit.is_some() && shape.limit_source == LimitSource::Plan;
    let days =
        shape.cleanup_after_days.filter(|_| !of_plan && shape.metric_type != MetricType::StripeBilling);
    days.map(|days| i64::from(days) * 86_400 * Micros::PER_SECOND)
}

impl Series {
    /// The time entry T.
    pub(super) fn clean(&mut self, at: Micros) {
        let Some(quiet_max_micros) = quiet_max_micros(&self.shape) else { return };
        let ended_by = Micros(at.0 - quiet_max_micros);
        let cleaning = &self.cleaning;
        let is_quiet = match self.last_arrival() {
            Some(arrival) => {
                cleaning.wanted_since.is_none_or(|since| since <= ended_by) && arrival <= ended_by
            }
            None => cleaning.left_end.is_some_and(|end| end <= ended_by),
        };
        if !is_quiet {
            return;
        }
        let left: BTreeMap<Micros, Micros> =
            self.ends().into_iter().filter(|(_, end)| *end > ended_by).collect();
        let mut cleaning = std::mem::take(&mut self.cleaning);
        cleaning.left_end = left.values().copied().max();
        cleaning.left_behind.retain(|_, end| *end > ended_by);
        cleaning.left_behind.extend(left);
        let classes = BTreeMap::from([(self.shape.batch, at)]);
        cleaning.deletion = Some(Deletion { ended_by, classes, sent: None });
        if self.last_arrival().is_some() {
            let (was_always_stored, refused) = (self.was_always_stored, self.refused);
            *self = Series::new(self.id, self.shape);
            (self.was_always_stored, self.refused) = (was_always_stored, refused);
        }
        self.cleaning = cleaning;
    }

    /// The definition has changed.
    pub(super) fn want_cleanup(&mut self, before: &Shape, stamp: Micros) {
        let cleaning = &mut self.cleaning;
        match (quiet_max_micros(before), quiet_max_micros(&self.shape)) {
            (_, None) => cleaning.left_end = None,
            (None, Some(_)) => cleaning.wanted_since = Some(stamp),
            (Some(_), Some(_)) => {}
        }
        if let Some(deletion) = &mut cleaning.deletion {
            deletion.classes.entry(self.shape.batch).or_insert(stamp);
        }
    }
}

impl Cleaning {
    /// See `Reference::left_behind`.
    pub(super) fn left_behind(&self) -> BTreeSet<Micros> {
        self.left_behind.keys().copied().collect()
    }

    /// What an emission says.
    pub(super) fn emit(&mut self, series: SeriesId, class: Span, epoch: Epoch) -> Option<(SeriesId, Micros)> {
        let is_waiting =
            |deletion: &&mut Deletion| deletion.sent.is_none() && deletion.classes.contains_key(&class);
        let deletion = self.deletion.as_mut().filter(is_waiting)?;
        deletion.sent = Some((class, epoch));
        Some((series, deletion.ended_by))
    }

    /// What the class had to emit is in the store already.
    pub(super) fn mark_stored(&mut self, class: Span) {
        self.deletion.take_if(|deletion| deletion.classes.contains_key(&class));
    }

    /// The emissions of the class up to this epoch are in the store.
    pub(super) fn acknowledge(&mut self, class: Span, upper: Epoch) {
        self.deletion
            .take_if(|deletion| deletion.sent.is_some_and(|(of, epoch)| of == class && epoch <= upper));
    }

    /// What was on its way is to be emitted again, if it is not in the store.
    pub(super) fn restart(&mut self, is_stored: impl Fn(Span, Epoch) -> bool, at_some_time: Micros) {
        self.deletion.take_if(|deletion| deletion.sent.is_some_and(|(class, epoch)| is_stored(class, epoch)));
        if let Some(deletion) = self.deletion.as_mut().filter(|deletion| deletion.sent.is_some()) {
            deletion.sent = None;
            deletion.classes.values_mut().for_each(|since| *since = at_some_time);
        }
    }

    /// The first boundary at which something is to be emitted.
    pub(super) fn emits_at(&self) -> Option<Micros> {
        let waiting = self.deletion.iter().filter(|deletion| deletion.sent.is_none());
        waiting.flat_map(|deletion| &deletion.classes).map(|(class, since)| class.window(*since).end).min()
    }

    /// When the series is cleaned, if nobody sends.
    pub(super) fn due_at(&self, shape: &Shape, last_arrival: Option<Micros>) -> Option<Micros> {
        let quiet_since = match last_arrival {
            Some(arrival) => Some(arrival.max(self.wanted_since.unwrap_or(arrival))),
            None => self.left_end,
        };
        let due = Micros(quiet_since?.0 + quiet_max_micros(shape)?);
        Some(Micros::from_seconds(due.seconds_up()))
    }
}
