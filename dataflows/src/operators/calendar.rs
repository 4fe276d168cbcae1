//! Which row and which live period a moment belongs to: a pure function of the shape and the cuts of a series.
//!
//! * A *row* is a flush window, or the part of one on one side of a cut.
//! * A *period* lies between two neighbouring boundaries: cuts, and for `reset` the starts of `reset` windows. Its start
//!   is its identity.

use crate::types::{MetricType, Micros, Shape, Span, Window};

/// How many windows back memory and decisions reach, the present one included.
const WINDOWS_KEPT: u32 = 8;
/// How far ahead of its arrival an event may be, in microseconds.
const AHEAD_MAX_MICROS: i64 = 5 * 60 * Micros::PER_SECOND;
/// How long behind its last update the tally of a billing period is kept, in microseconds: twice as long as whoever bills may
/// take to look at it again.
const BILLED_MICROS: i64 = 2 * 86_400 * Micros::PER_SECOND;

/// The bounds of a live period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    /// First moment; none for the first period of a series whose type has no calendar.
    pub start: Option<Micros>,
    /// First moment behind it; none while open-ended.
    pub end: Option<Micros>,
}

/// The boundaries of one series.
#[derive(Clone, Copy)]
pub(crate) struct Calendar<'a> {
    /// How it counts.
    pub shape: &'a Shape,
    /// Its cuts, rising.
    pub cuts: &'a [Micros],
}

impl Calendar<'_> {
    /// The row that an event at this moment belongs to.
    pub fn row(&self, at: Micros) -> Window {
        let window = self.shape.flush.window(at);
        let (last, next) = self.cuts_around(at);
        Window {
            start: last.map_or(window.start, |cut| cut.max(window.start)),
            end: next.map_or(window.end, |cut| cut.min(window.end)),
        }
    }

    /// The live period that contains this moment.
    pub fn period(&self, at: Micros) -> Period {
        let (last, next) = self.cuts_around(at);
        if self.shape.metric_type != MetricType::Reset {
            return Period { start: last, end: next };
        }
        let window = self.shape.reset.window(at);
        Period {
            start: Some(last.map_or(window.start, |cut| cut.max(window.start))),
            end: Some(next.map_or(window.end, |cut| cut.min(window.end))),
        }
    }

    /// The last cut at or before a moment and the first behind it.
    fn cuts_around(&self, at: Micros) -> (Option<Micros>, Option<Micros>) {
        let behind = self.cuts.partition_point(|&cut| cut <= at);
        (behind.checked_sub(1).map(|last| self.cuts[last]), self.cuts.get(behind).copied())
    }
}

/// Whether a live period still takes part in decisions about updates that arrive at `arrival`.
pub(crate) fn is_open(shape: &Shape, period: Period, arrival: Micros) -> bool {
    match (shape.metric_type, period.start, period.end) {
        (MetricType::Reset, Some(start), _) => {
            shape.reset.window(start).start >= shape.reset.back(arrival, WINDOWS_KEPT - 1).start
        }
        (_, _, None) => true,
        (_, _, Some(end)) => last_update(shape, end).0 >= arrival.0,
    }
}

/// Whether the tally of a live period is kept, whatever is in memory of its windows: it is open, or what came last of it may
/// not have been billed.
pub(crate) fn is_kept(shape: &Shape, period: Period, arrival: Micros) -> bool {
    let is_billed = |end| last_update(shape, end).0 + BILLED_MICROS < arrival.0;
    let is_owed = shape.metric_type == MetricType::StripeBilling && !period.end.is_some_and(is_billed);
    is_owed || is_open(shape, period, arrival)
}

/// When the last update may arrive of a period that ended then.
fn last_update(shape: &Shape, end: Micros) -> Micros {
    let age_max_micros = i64::from(shape.max_event_age_secs) * Micros::PER_SECOND;
    Micros(end.0 + age_max_micros + AHEAD_MAX_MICROS)
}

/// Rows that start before this moment are eight windows old.
pub(crate) fn horizon(flush: Span, now: Micros) -> Micros {
    flush.back(now, WINDOWS_KEPT - 1).start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Amount, LimitSource, Notify, Operation};

    fn shape(metric_type: MetricType, reset: Span) -> Shape {
        Shape {
            operation: Operation::Sum,
            metric_type,
            flush: Span::M1,
            reset,
            initial_value: Amount::ZERO,
            batch: Span::S15,
            stored: true,
            limit: None,
            limit_source: LimitSource::Series,
            notify: Notify::NONE,
            max_event_age_secs: 3600,
            cleanup_after_days: None,
        }
    }

    const fn at(seconds: i64) -> Micros {
        Micros::from_seconds(seconds)
    }

    #[test]
    fn a_cut_splits_its_flush_window_and_its_period() {
        let shape = shape(MetricType::Reset, Span::H1);
        let cuts = [at(3_630)];
        let calendar = Calendar { shape: &shape, cuts: &cuts };
        assert_eq!(calendar.row(at(3_629)), Window { start: at(3_600), end: at(3_630) });
        assert_eq!(calendar.row(at(3_630)), Window { start: at(3_630), end: at(3_660) });
        assert_eq!(calendar.row(at(3_660)), Window { start: at(3_660), end: at(3_720) });
        assert_eq!(calendar.period(at(3_600)), Period { start: Some(at(3_600)), end: Some(at(3_630)) });
        assert_eq!(calendar.period(at(3_700)), Period { start: Some(at(3_630)), end: Some(at(7_200)) });
        assert_eq!(calendar.period(at(7_200)), Period { start: Some(at(7_200)), end: Some(at(10_800)) });
    }

    #[test]
    fn without_a_calendar_only_cuts_bound_a_period() {
        let shape = shape(MetricType::Checkpoint, Span::M1);
        let calendar = Calendar { shape: &shape, cuts: &[] };
        assert_eq!(calendar.period(at(5)), Period { start: None, end: None });
        let cuts = [at(10), at(20)];
        let calendar = Calendar { shape: &shape, cuts: &cuts };
        assert_eq!(calendar.period(at(9)), Period { start: None, end: Some(at(10)) });
        assert_eq!(calendar.period(at(10)), Period { start: Some(at(10)), end: Some(at(20)) });
        assert_eq!(calendar.period(at(20)), Period { start: Some(at(20)), end: None });
    }

    #[test]
    fn a_period_is_open_among_the_last_eight_or_while_events_may_still_come() {
        let reset = shape(MetricType::Reset, Span::H1);
        let period = Period { start: Some(at(0)), end: Some(at(3_600)) };
        assert!(is_open(&reset, period, at(8 * 3_600 - 1)));
        assert!(!is_open(&reset, period, at(8 * 3_600)));
        let ended = Period { start: None, end: Some(at(0)) };
        let checkpoint = shape(MetricType::Checkpoint, Span::M1);
        assert!(is_open(&checkpoint, ended, at(3_600 + 300)));
        assert!(!is_open(&checkpoint, ended, at(3_600 + 301)));
        assert!(is_open(&checkpoint, Period { start: None, end: None }, at(1 << 40)));
    }

    #[test]
    fn a_billing_period_is_kept_for_who_bills_what_came_last_of_it() {
        let ended = Period { start: None, end: Some(at(0)) };
        for (metric_type, last) in
            [(MetricType::StripeBilling, 3_600 + 300 + 2 * 86_400), (MetricType::Checkpoint, 3_600 + 300)]
        {
            let shape = shape(metric_type, Span::M1);
            assert!(is_kept(&shape, ended, at(last)));
            assert!(!is_kept(&shape, ended, at(last + 1)));
            assert!(!is_open(&shape, ended, at(3_600 + 301)), "nothing more is decided by it");
        }
    }
}
