//! `block` in histories: that they refuse often enough to prove something, and by hand what the text says.

use std::collections::BTreeMap;

use dataflows::reference::{Arrival, Change, Reference};
use dataflows::types::{
    Action, Amount, EventId, Limit, LimitSource, MetricType, Micros, Notify, Operation, Operator, Outcome,
    SeriesId, Shape, Span,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::plan::{Kind, plan};
use crate::script::{Entry, Step, script};

const SERIES: SeriesId = SeriesId(1);
const TEN: Limit = Limit { value: Amount::from_units(10), operator: Operator::Gte, action: Action::Block };
const MINUTES: Shape = Shape {
    operation: Operation::Sum,
    metric_type: MetricType::Reset,
    flush: Span::M1,
    reset: Span::M1,
    initial_value: Amount::ZERO,
    batch: Span::S15,
    stored: true,
    limit: Some(TEN),
    limit_source: LimitSource::Series,
    notify: Notify::NONE,
    max_event_age_secs: 86_400,
    cleanup_after_days: None,
};

const fn at(seconds: i64) -> Micros {
    Micros::from_seconds(seconds)
}

/// Outcome and reading now of an update: arrival, event, units, id.
fn send(reference: &mut Reference, (arrival, event, units, id): (i64, i64, i64, u128)) -> (Outcome, i64) {
    let id = (id > 0).then(|| EventId::new(id << 96, SERIES));
    let amount = Amount::from_units(units);
    let sent = Arrival { series: SERIES, item: 0, event_at: at(event), amount, id };
    let decision = reference.update(at(arrival), &sent);
    (decision.outcome, (decision.current.0 / Amount::UNIT) as i64)
}

#[test]
fn a_limit_of_ten_admits_ten_in_each_live_period() {
    let mut reference = Reference::new(3_600);
    reference.change(at(0), &Change::Open(SERIES, MINUTES));
    let told: Vec<_> = [
        (600, 600, 7, 1),
        (601, 601, 4, 2),
        (602, 602, 3, 3),
        (603, 603, 1, 4),
        // A repeat of what was admitted, and of what was refused.
        (604, 604, 7, 1),
        (605, 605, -5, 0),
        (606, 606, 4, 2),
        // Late, into a minute of its own; and into one that is closed.
        (607, 540, 11, 0),
        (607, 540, 10, 0),
        (1_019, 599, 1, 0),
        (1_020, 539, 1, 0),
        (1_020, 600, 2, 0),
        (1_020, 600, 1, 0),
    ]
    .map(|sent| send(&mut reference, sent))
    .into();
    let expected = [
        (Outcome::Admitted, 7),
        (Outcome::Refused, 7),
        (Outcome::Admitted, 10),
        (Outcome::Refused, 10),
        (Outcome::Duplicate, 10),
        (Outcome::Admitted, 5),
        (Outcome::Admitted, 9),
        (Outcome::Refused, 9),
        (Outcome::Admitted, 9),
        (Outcome::Refused, 0),
        (Outcome::TooLate, 0),
        (Outcome::Refused, 0),
        (Outcome::Admitted, 0),
    ];
    assert_eq!(told, expected);
    let standing = reference.standing(SERIES, at(600)).expect("it is open");
    assert_eq!((standing.value, standing.breached, standing.refused), (Amount::from_units(10), true, 5));
}

#[test]
fn histories_refuse_often() {
    let mut runner = TestRunner::deterministic();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..400 {
        let plan = plan(Kind::Uninterrupted).new_tree(&mut runner).expect("a plan").current();
        let mut reference = Reference::new(plan.dedup_horizon_secs);
        for step in script(&plan).remove(0).steps {
            match step {
                Step::Apply(_, Entry::Changes { stamp, changes }) => {
                    changes.iter().for_each(|change| reference.change(stamp, change));
                }
                Step::Apply(_, Entry::Updates { stamp, arrivals }) => {
                    for arrival in arrivals {
                        let outcome = reference.update(stamp, &arrival).outcome;
                        let name = match outcome {
                            Outcome::Refused => "refused",
                            Outcome::TooLate => "too late",
                            Outcome::Duplicate => "duplicate",
                            Outcome::Admitted => "admitted",
                            Outcome::Gone => "gone",
                        };
                        *counts.entry(name).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
    }
    let all: usize = counts.values().sum();
    assert!(counts["refused"] * 20 > all, "{counts:?}");
    assert!(counts["too late"] * 150 > all, "{counts:?}");
    assert!(counts["admitted"] * 2 > all, "{counts:?}");
}
