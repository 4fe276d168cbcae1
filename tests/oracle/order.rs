//! What must not matter: the number of workers, and for tallies the order of the updates.

use std::collections::BTreeMap;

use dataflows::reference::{Arrival, Change};
use dataflows::types::{Amount, Micros, NO_REPLY, SeriesId, SeriesState, Shape, Tally};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::life::{Seen, Snapshot, run};
use crate::plan::{Kind, Plan, amount, plan, shape};
use crate::script::{Entry, Life, Progress, Step, script};

/// Everything that a history shows on this number of workers. (What is still in memory may differ: it is freed a little
/// at a time.)
fn shown(plan: &Plan, workers: usize) -> Vec<Seen> {
    let mut life = script(plan).remove(0);
    life.workers = workers;
    run(&life, plan.dedup_horizon_secs, &Snapshot::default()).seen
}

/// Tallies by series and window, wherever they are.
fn tallies(states: &BTreeMap<u32, SeriesState>) -> BTreeMap<(SeriesId, Micros), Tally> {
    let mut tallies: BTreeMap<_, Tally> = BTreeMap::new();
    for state in states.values() {
        let windows = state.windows.iter().map(|window| (window.start, window.tally));
        let merges = state.merges.iter().map(|merge| (merge.start, merge.difference));
        for (start, tally) in windows.chain(merges) {
            let known = tallies.entry((state.series, start)).or_default();
            *known = known.merge(tally);
        }
    }
    tallies.retain(|_, tally| *tally != Tally::EMPTY);
    tallies
}

/// One amount, as (series, seconds back, amount).
type Sent = (u32, i64, Amount);

const NOW: Micros = Micros::from_seconds(20_781 * 86_400 + 43_203);

/// Applies amounts, a few an epoch, all at one arrival, and without an emission: so that all stays in memory.
fn settled(shapes: &[Shape], updates: &[Sent], an_epoch: usize, workers: usize) -> Snapshot {
    let series = |index: u32| SeriesId(index % shapes.len() as u32 + 1);
    let opened = shapes.iter().zip(1..).map(|(&shape, number)| Change::Open(SeriesId(number), shape));
    let mut steps = vec![Step::Apply(1, Entry::Changes { stamp: NOW, changes: opened.collect() })];
    for (chunk, epoch) in updates.chunks(an_epoch).zip(2..) {
        let arrivals = chunk.iter().map(|&(index, back_secs, amount)| {
            let event_at = Micros(NOW.0 - back_secs * Micros::PER_SECOND);
            Arrival { series: series(index), item: NO_REPLY, event_at, amount, id: None }
        });
        steps.push(Step::Apply(epoch, Entry::Updates { stamp: NOW, arrivals: arrivals.collect() }));
    }
    steps.push(Step::Settle([NOW, NOW]));
    steps.push(Step::Snapshot(usize::MAX));
    run(&Life { workers, progress: Progress::new(), steps }, 3_600, &Snapshot::default()).snapshot
}

proptest! {
    #![proptest_config(crate::config())]

    #[test]
    fn nothing_depends_on_the_number_of_workers(plan in plan(Kind::Uninterrupted), workers in 2usize..=4) {
        prop_assert_eq!(shown(&plan, 1), shown(&plan, workers));
    }

    #[test]
    fn tallies_do_not_depend_on_the_order_of_updates(
        shapes in vec(shape().prop_map(|shape| Shape { stored: true, limit: None, ..shape }), 1..4),
        (updates, shuffled) in vec((0u32..4, -100i64..100, amount()), 1..60)
            .prop_flat_map(|updates| (Just(updates.clone()), Just(updates).prop_shuffle())),
        an_epoch in 1usize..8,
        workers in 1usize..=4,
    ) {
        let (straight, mixed) = (settled(&shapes, &updates, an_epoch, 1), settled(&shapes, &shuffled, 3, workers));
        prop_assert_eq!(tallies(&straight.states), tallies(&mixed.states));
    }
}
