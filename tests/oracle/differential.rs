//! The second oracle: differential dataflow's own `count` and `reduce` over (series, window).
//!
//! Sum and count are exploded into the difference and counted; least and greatest are reduced. Both see the same updates
//! as meter, epoch by epoch, and share nothing with it but `Span::window`. There are no ids and no cuts, and every epoch
//! emits: a row that meter emits carries the tally that differential has for its window at that epoch, and differential
//! changes no window that meter does not emit.

use std::collections::{BTreeMap, BTreeSet};

use dataflows::reference::{Arrival, Change};
use dataflows::types::{
    Amount, ClassSet, Epoch, Micros, NO_REPLY, Operation, RowKind, SeriesId, Shape, Span, Tally,
};
use differential_dataflow::difference::{IsZero, Multiply, Semigroup};
use differential_dataflow::input::Input;
use differential_dataflow::operators::CountTotal;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::capture::{Capture, Extract};

use crate::life::{Snapshot, run};
use crate::plan::{amount, shape};
use crate::script::{Entry, Life, Progress, Step};

/// A window, as (series, start in microseconds).
type Key = (u32, i64);

/// Sum and count as a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct SumCount {
    sum_nanos: i128,
    count: i64,
}

impl IsZero for SumCount {
    fn is_zero(&self) -> bool {
        self.sum_nanos == 0 && self.count == 0
    }
}

impl Semigroup for SumCount {
    fn plus_equals(&mut self, other: &Self) {
        self.sum_nanos += other.sum_nanos;
        self.count += other.count;
    }
}

impl Multiply<isize> for SumCount {
    type Output = SumCount;
    fn multiply(self, times: &isize) -> SumCount {
        SumCount { sum_nanos: self.sum_nanos * *times as i128, count: self.count * *times as i64 }
    }
}

/// One update: series and event time, both in relation to others.
#[derive(Clone, Copy, Debug)]
struct Sent {
    series: u32,
    back_secs: i64,
    amount: Amount,
}

/// Windows that changed, and their new tally, by epoch.
type Changes = BTreeMap<Epoch, BTreeMap<Key, Tally>>;

/// What differential makes of (epoch, window, amount).
fn differential(updates: Vec<(Epoch, Key, i128)>) -> Changes {
    let (counted, reduced) = timely::execute_directly(move |worker| {
        let (mut input, counted, reduced) = worker.dataflow::<Epoch, _, _>(|graph| {
            let (input, updates) = graph.new_collection::<(Key, i128), isize>();
            let counted = updates
                .clone()
                .explode(|(key, sum_nanos)| Some((key, SumCount { sum_nanos, count: 1 })))
                .count_total()
                .consolidate();
            let extremes = updates.reduce(|_, amounts, output| {
                // The amounts of a key come in rising order.
                output.push(((*amounts[0].0, *amounts[amounts.len() - 1].0), 1isize));
            });
            (input, counted.inner.capture(), extremes.inner.capture())
        });
        for (epoch, key, nanos) in updates {
            input.advance_to(epoch);
            input.insert((key, nanos));
        }
        input.close();
        (counted, reduced)
    });
    let mut changes = Changes::new();
    let mut sums: BTreeMap<Key, SumCount> = BTreeMap::new();
    let mut extremes: BTreeMap<Key, (i128, i128)> = BTreeMap::new();
    let counted = by_epoch(counted.extract().into_iter().flat_map(|(_, updates)| updates));
    let reduced = by_epoch(reduced.extract().into_iter().flat_map(|(_, updates)| updates));
    let epochs: BTreeSet<Epoch> = counted.keys().chain(reduced.keys()).copied().collect();
    for epoch in epochs {
        let (counted, reduced) = (counted.get(&epoch), reduced.get(&epoch));
        sums.extend(counted.into_iter().flatten().copied());
        extremes.extend(reduced.into_iter().flatten().copied());
        let touched = counted.into_iter().flatten().map(|(key, _)| *key);
        let tally = |key: Key| {
            let (SumCount { sum_nanos, count }, (min, max)) = (sums[&key], extremes[&key]);
            (key, Tally { sum: Amount(sum_nanos), count: count as u64, min: Amount(min), max: Amount(max) })
        };
        changes.insert(epoch, touched.map(tally).collect());
    }
    changes
}

/// The records that each epoch added.
fn by_epoch<V>(updates: impl Iterator<Item = ((Key, V), Epoch, isize)>) -> BTreeMap<Epoch, Vec<(Key, V)>> {
    let mut added: BTreeMap<Epoch, Vec<(Key, V)>> = BTreeMap::new();
    for (record, epoch, _) in updates.filter(|(.., diff)| *diff > 0) {
        added.entry(epoch).or_default().push(record);
    }
    added
}

const BEGAN: i64 = 20_781 * 86_400 + 43_203;

/// What meter emits, an epoch of updates and a time entry a second. Nothing is acknowledged, so nothing leaves.
fn meter(shapes: &[Shape], epochs: &[Vec<Sent>], workers: usize) -> Changes {
    let changes =
        shapes.iter().zip(0..).map(|(&shape, number)| Change::Open(SeriesId(number), shape)).collect();
    let mut steps = vec![Step::Apply(1, Entry::Changes { stamp: Micros::from_seconds(BEGAN), changes })];
    let mut emit = ClassSet::default();
    Span::FLUSH.into_iter().for_each(|class| emit.insert(class));
    for (number, sendings) in (0..).zip(epochs) {
        let stamp = arrival(number);
        let arrivals = sendings.iter().map(|sent| Arrival {
            series: SeriesId(sent.series),
            item: NO_REPLY,
            event_at: event_at(number, sent),
            amount: sent.amount,
            id: None,
        });
        let updates = Entry::Updates { stamp, arrivals: arrivals.collect() };
        steps.push(Step::Apply(2 * number + 2, updates));
        let at = Micros::from_seconds(stamp.seconds());
        steps.push(Step::Apply(2 * number + 3, Entry::Time { at, emit, stored: Vec::new() }));
        steps.push(Step::Settle([stamp, stamp]));
    }
    let lived = run(&Life { workers, progress: Progress::new(), steps }, 3_600, &Snapshot::default());
    let mut changes = Changes::new();
    for (&(epoch, _), (rows, ..)) in lived.seen.iter().flat_map(|seen| &seen.emissions) {
        for row in rows {
            assert_eq!(row.kind, RowKind::Absolute, "nothing leaves");
            let key = (row.series.0, row.window_start.0);
            changes.entry(epoch - 1).or_default().insert(key, row.tally);
            assert_eq!(row.value, read(&shapes[row.series.0 as usize], &row.tally));
        }
    }
    changes
}

fn arrival(number: u64) -> Micros {
    Micros::from_seconds(BEGAN + number as i64)
}

/// Event times stay in the eight windows that are always in memory, whatever the flush interval.
fn event_at(number: u64, sent: &Sent) -> Micros {
    Micros::from_seconds(BEGAN + number as i64 - sent.back_secs)
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    // The row's value is the reading of the window's own tally where windows are live periods.
    let periodic = shape().prop_map(|shape| Shape {
        metric_type: dataflows::types::MetricType::Reset,
        reset: shape.flush,
        stored: true,
        max_event_age_secs: 86_400,
        cleanup_after_days: None,
        // What counts is what was sent: there are no refusals.
        limit: None,
        ..shape
    });
    vec(periodic, 3)
}

proptest! {
    #![proptest_config(crate::config())]

    #[test]
    fn every_epoch_matches_differential_dataflow(
        shapes in shapes(),
        epochs in vec(
            vec((0u32..3, -3i64..=7, amount()), 0..8).prop_map(|sendings| {
                sendings.into_iter().map(|(series, back_secs, amount)| Sent { series, back_secs, amount }).collect()
            }),
            1..12,
        ),
        workers in 1usize..=4,
    ) {
        let epochs: Vec<Vec<Sent>> = epochs;
        let updates = (0..).zip(&epochs).flat_map(|(number, sendings)| {
            let shapes = &shapes;
            sendings.iter().map(move |sent| {
                let window = shapes[sent.series as usize].flush.window(event_at(number, sent));
                (2 * number + 2, (sent.series, window.start.0), sent.amount.0)
            })
        });
        let expected = differential(updates.collect());
        prop_assert_eq!(meter(&shapes, &epochs, workers), expected);
    }
}

/// The value of a tally, spelled out.
fn read(shape: &Shape, tally: &Tally) -> Amount {
    match shape.operation {
        Operation::Sum => shape.initial_value + tally.sum,
        Operation::Count => shape.initial_value + Amount(i128::from(tally.count) * Amount::UNIT),
        Operation::Avg => tally.sum.mean(tally.count),
        Operation::Max => tally.max,
        Operation::Min => tally.min,
    }
}
