//! Worked examples of semantics, section 4, by hand: they hold the reference itself to the text.

use dataflows::reference::{Arrival, Change, Reference};
use dataflows::types::{
    Amount, ClassSet, Epoch, EventId, LimitSource, MetricType, Micros, Notify, Operation, Outcome, Row,
    RowKind, SeriesId, Shape, Span,
};

const SERIES: SeriesId = SeriesId(1);
/// Minute windows in an hour's period that begins at second 3,600.
const HOURLY: Shape = Shape {
    operation: Operation::Sum,
    metric_type: MetricType::Reset,
    flush: Span::M1,
    reset: Span::H1,
    initial_value: Amount::from_units(100),
    batch: Span::S15,
    stored: true,
    limit: None,
    limit_source: LimitSource::Series,
    notify: Notify::NONE,
    max_event_age_secs: 86_400,
    cleanup_after_days: None,
};

/// A row: start, end, sum, value, is merged.
type Told = (i64, i64, i64, i64, bool);

/// A story of one series; times in seconds, amounts in units.
struct Story {
    reference: Reference,
    epoch: Epoch,
    now: i64,
}

impl Story {
    fn of(shape: Shape) -> Story {
        let mut reference = Reference::new(80);
        reference.change(at(0), &Change::Open(SERIES, shape));
        Story { reference, epoch: 0, now: 0 }
    }

    fn send(&mut self, arrival: i64, event: i64, units: i64) -> (Outcome, bool, i64) {
        self.send_with_id(arrival, event, units, None)
    }

    fn send_with_id(
        &mut self,
        arrival: i64,
        event: i64,
        units: i64,
        id: Option<u128>,
    ) -> (Outcome, bool, i64) {
        let id = id.map(|id| EventId::new(id << 96, SERIES));
        let (event_at, amount) = (at(event), Amount::from_units(units));
        self.now = arrival;
        let sent = Arrival { series: SERIES, item: 0, event_at, amount, id };
        let decision = self.reference.update(at(arrival), &sent);
        (decision.outcome, decision.late, units_of(decision.current))
    }

    fn cut(&mut self, arrival: i64) {
        self.reference.change(at(arrival), &Change::Cut(SERIES, None));
    }

    /// Emits what changed and acknowledges it.
    fn emit(&mut self) -> Vec<Told> {
        self.emit_at(self.now).0
    }

    /// The same at a time entry, with the bounds up to which cleaned rows go.
    fn emit_at(&mut self, now: i64) -> (Vec<Told>, Vec<i64>) {
        (self.epoch, self.now) = (self.epoch + 1, now);
        let mut due = ClassSet::default();
        due.insert(Span::S15);
        let emissions = self.reference.time(self.epoch, at(self.now), due, &[]);
        self.reference.acknowledge(Span::S15, self.epoch);
        let rows = emissions.iter().flat_map(|emission| &emission.rows).map(told).collect();
        let cleaned = emissions.iter().flat_map(|emission| &emission.cleaned);
        (rows, cleaned.map(|(_, ended_by)| ended_by.seconds()).collect())
    }
}

fn told(row: &Row) -> Told {
    let (start, end) = (row.window_start.seconds(), row.window_end.seconds());
    (start, end, units_of(row.tally.sum), units_of(row.value), row.kind != RowKind::Absolute)
}

const fn at(seconds: i64) -> Micros {
    Micros::from_seconds(seconds)
}

fn units_of(amount: Amount) -> i64 {
    (amount.0 / Amount::UNIT) as i64
}

#[test]
fn a_row_keeps_the_reading_of_when_the_next_window_opened() {
    let mut story = Story::of(HOURLY);
    assert_eq!(story.send(3_610, 3_610, 1), (Outcome::Admitted, false, 101));
    story.send(3_670, 3_670, 2);
    assert_eq!(story.emit(), [(3_600, 3_660, 1, 101, false), (3_660, 3_720, 2, 103, false)]);
    // A late update changes its own tally, the period, and the value of the newest row; nothing else.
    assert_eq!(story.send(3_671, 3_659, 10), (Outcome::Admitted, true, 113));
    assert_eq!(story.emit(), [(3_600, 3_660, 11, 101, false), (3_660, 3_720, 2, 113, false)]);
    assert_eq!(story.emit(), []);
}

#[test]
fn a_window_opened_late_takes_the_value_of_its_elder() {
    let mut story = Story::of(HOURLY);
    story.send(3_610, 3_610, 1);
    story.send(3_800, 3_800, 2);
    story.send(3_800, 3_700, 5);
    let rows = story.emit();
    assert_eq!(
        rows,
        [(3_600, 3_660, 1, 101, false), (3_660, 3_720, 5, 101, false), (3_780, 3_840, 2, 108, false)]
    );
}

#[test]
fn a_reset_metric_reads_its_initial_value_after_its_window() {
    let mut story = Story::of(HOURLY);
    story.send(7_199, 7_199, 1);
    let value =
        |second| story.reference.standing(SERIES, at(second)).map(|standing| units_of(standing.value));
    assert_eq!((value(7_199), value(7_200)), (Some(101), Some(100)));
}

#[test]
fn an_admin_reset_splits_the_window_and_leaves_what_was_admitted_behind() {
    let mut story = Story::of(HOURLY);
    story.send(3_610, 3_610, 1);
    story.send(3_610, 3_650, 2);
    story.cut(3_630);
    // The same event time as before, but behind the cut.
    assert_eq!(story.send(3_640, 3_650, 4), (Outcome::Admitted, false, 104));
    assert_eq!(story.send(3_640, 3_629, 8), (Outcome::Admitted, false, 104));
    assert_eq!(story.emit(), [(3_600, 3_630, 11, 111, false), (3_630, 3_660, 4, 104, false)]);
}

#[test]
fn a_window_that_has_left_gets_a_difference() {
    let mut story = Story::of(HOURLY);
    story.send(3_610, 3_610, 1);
    story.send(4_100, 4_100, 2);
    story.emit();
    // Window 3,600 is eight windows old at 4,080 and in the store; the period goes on.
    assert_eq!(story.send(4_101, 3_611, 4), (Outcome::Admitted, true, 107));
    assert_eq!(story.emit(), [(3_600, 3_660, 4, 104, true), (4_080, 4_140, 2, 107, false)]);
}

#[test]
fn an_id_is_remembered_for_at_least_the_horizon() {
    let mut story = Story::of(HOURLY);
    assert_eq!(story.send_with_id(3_609, 3_609, 1, Some(7)).0, Outcome::Admitted);
    assert_eq!(story.send_with_id(3_689, 3_689, 1, Some(7)).0, Outcome::Duplicate);
    assert_eq!(story.send_with_id(3_690, 3_690, 1, Some(7)).0, Outcome::Admitted);
}

const DAY: i64 = 86_400;

fn cleaned_daily(metric_type: MetricType) -> Story {
    let shape = Shape { metric_type, reset: Span::M1, cleanup_after_days: Some(1), ..HOURLY };
    let mut story = Story::of(shape);
    story.send_with_id(3_610, 3_610, 1, Some(7));
    story.send(3_670, 3_650, 2);
    story.send(3_670, 3_670, 4);
    story.emit();
    story
}

#[test]
fn a_series_quiet_for_cleanup_after_begins_afresh() {
    let mut story = cleaned_daily(MetricType::Checkpoint);
    // The bound is the arrival of the last update: of its two windows the first had ended by then, at 3,660.
    assert_eq!(story.emit_at(3_669 + DAY), (vec![], vec![]));
    assert_eq!(story.emit_at(3_670 + DAY), (vec![], vec![3_670]));
    assert_eq!(story.emit_at(3_671 + DAY), (vec![], vec![]));
    assert_eq!(story.send(3_672 + DAY, 3_672 + DAY, 8), (Outcome::Admitted, false, 108));
    assert_eq!(story.emit(), [(3_660 + DAY, 3_720 + DAY, 8, 108, false)]);
}

#[test]
fn the_row_that_was_too_young_goes_when_it_has_aged() {
    let mut story = cleaned_daily(MetricType::Checkpoint);
    assert_eq!(story.emit_at(3_670 + DAY).1, [3_670]);
    assert_eq!(story.emit_at(3_719 + DAY).1, []);
    assert_eq!(story.emit_at(3_725 + DAY).1, [3_725]);
    assert_eq!(story.emit_at(9_999 + 9 * DAY).1, []);
}

#[test]
fn a_late_event_behind_a_cleanup_is_the_first_of_its_window() {
    let mut story = cleaned_daily(MetricType::Reset);
    story.emit_at(3_670 + DAY);
    assert_eq!(story.send(3_671 + DAY, 3_671, 16), (Outcome::Admitted, true, 100));
    assert_eq!(
        story.emit(),
        [(3_660, 3_720, 16, 116, true)],
        "what has left before it was there is a difference"
    );
}

#[test]
fn what_stripe_has_yet_to_be_told_is_never_cleaned() {
    let mut story = cleaned_daily(MetricType::StripeBilling);
    assert_eq!(story.emit_at(9_999 + 9 * DAY).1, []);
    assert_eq!(story.send(10_000 + 9 * DAY, 10_000 + 9 * DAY, 1).2, 108);
}
