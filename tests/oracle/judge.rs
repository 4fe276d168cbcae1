//! Holds the lives of a script against the reference, step by step, and the store that they leave against the updates
//! that were admitted.

use std::collections::BTreeMap;
use std::fmt::Debug;

use dataflows::reference::Reference;
use dataflows::types::{BRIEF, Epoch, Micros, NO_REPLY, Outcome, SeriesId, Span};
use proptest::prelude::*;

use crate::life::{Lived, Seen, Snapshot, Told, apart, run};
use crate::plan::Plan;
use crate::script::{Entry, Life, Step, THROUGH_ALL, script};
use crate::store::Store;

/// Runs a plan; an error says where meter and reference part.
pub fn judge(plan: &Plan) -> Result<(), TestCaseError> {
    let mut court = Court::new(plan.dedup_horizon_secs);
    let mut snapshot = Snapshot::default();
    for (number, life) in script(plan).iter().enumerate() {
        let lived = run(life, plan.dedup_horizon_secs, &snapshot);
        court.begin(life);
        court.hear(number, life, &lived)?;
        snapshot = lived.snapshot;
    }
    court.compare_store()
}

/// The reference, and what it has said and not been compared yet.
struct Court {
    reference: Reference,
    /// As of the last snapshot.
    kept: Reference,
    store: Store,
    expected: Seen,
}

impl Court {
    fn new(dedup_horizon_secs: u32) -> Court {
        let reference = Reference::new(dedup_horizon_secs);
        Court { kept: reference.clone(), reference, store: Store::default(), expected: Seen::default() }
    }

    fn begin(&mut self, life: &Life) {
        self.store.lose_what_waits();
        self.reference = self.kept.clone();
        self.reference.restart(&|class: Span, epoch: Epoch, series: SeriesId| {
            let mark = life.progress.get(&class).copied().unwrap_or_default();
            epoch < mark.whole || mark.through(epoch).is_some_and(|through| series <= through)
        });
    }

    fn hear(&mut self, number: usize, life: &Life, lived: &Lived) -> Result<(), TestCaseError> {
        let mut seen = lived.seen.iter();
        for (at, step) in life.steps.iter().enumerate() {
            match step {
                Step::Apply(epoch, entry) => self.apply(*epoch, entry),
                Step::Acknowledge(class, upper) => {
                    self.reference.acknowledge(*class, *upper);
                    self.store.commit(*class, *upper, THROUGH_ALL);
                }
                Step::Store(class, upper, through) => self.store.commit(*class, *upper, *through),
                Step::Snapshot(_) => self.kept = self.reference.clone(),
                Step::Settle(moments) => {
                    let seen = seen.next().expect("a life shows something at each settling");
                    self.compare(seen, moments)
                        .map_err(|error| TestCaseError::fail(format!("life {number}, step {at}: {error}")))?;
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, epoch: Epoch, entry: &Entry) {
        self.apply_entry(epoch, entry);
        let crossings = self.reference.take_crossings().into_iter();
        let keyed = crossings.map(|it| ((epoch, apart(&it)), it));
        self.expected.crossings.extend(keyed);
    }

    fn apply_entry(&mut self, epoch: Epoch, entry: &Entry) {
        match entry {
            Entry::Updates { stamp, arrivals } => {
                for arrival in arrivals {
                    let decision = self.reference.update(*stamp, arrival);
                    if arrival.item < BRIEF {
                        self.expected.decisions.insert((epoch, arrival.item), decision);
                    } else if arrival.item != NO_REPLY && decision.outcome != Outcome::Admitted {
                        self.expected.verdicts.insert((epoch, arrival.item), decision.outcome);
                    }
                }
            }
            Entry::Changes { stamp, changes } => {
                changes.iter().for_each(|change| self.reference.change(*stamp, change));
            }
            Entry::Time { at, emit, stored } => {
                for emission in self.reference.time(epoch, *at, *emit, stored) {
                    let key = (epoch, emission.class);
                    self.store.send(&key, &emission);
                    let told: Told = (emission.rows, emission.states, emission.cleaned);
                    if told != Told::default() {
                        self.expected.emissions.insert(key, told);
                    }
                }
            }
        }
    }

    fn compare(&mut self, seen: &Seen, moments: &[Micros]) -> Result<(), TestCaseError> {
        let expected = std::mem::take(&mut self.expected);
        same("decisions", &seen.decisions, &expected.decisions)?;
        same("verdicts", &seen.verdicts, &expected.verdicts)?;
        same("crossings", &seen.crossings, &expected.crossings)?;
        same("rows", &seen.emissions, &expected.emissions)?;
        let reference = &self.reference;
        let read = |&at: &Micros| {
            let standing = move |series| reference.standing(series, at).map(|seen| ((series, at), seen));
            reference.open().filter_map(standing)
        };
        same("readings", &seen.standings, &moments.iter().flat_map(read).collect())?;
        // Meter may ask for a time entry too early, when what changed was deleted meanwhile; never too late.
        if let Some(due_at) = self.reference.due_at() {
            prop_assert!(
                seen.due_at.is_some_and(|seen| seen <= due_at),
                "due at {:?}, not {:?}",
                due_at,
                seen.due_at
            );
        }
        Ok(())
    }

    /// Once everything is in the store, a series that was always stored has exactly its admitted updates there.
    fn compare_store(&self) -> Result<(), TestCaseError> {
        for series in self.reference.open() {
            let Some(truth) = self.reference.rows(series) else { continue };
            let uncertain = self.reference.left_behind(series);
            let rows = self.store.rows.range((series, Micros(i64::MIN))..=(series, Micros(i64::MAX)));
            let rows = rows.filter(|((_, start), _)| !uncertain.contains(start));
            let stored = rows.clone().map(|(&(_, start), row)| (start, (row.end, row.tally))).collect();
            let rows_of_truth = truth.iter().filter(|(start, _)| !uncertain.contains(start));
            let rows_of_truth = rows_of_truth.map(|(&start, row)| (start, (row.end, row.tally))).collect();
            same("the store of a series", &stored, &rows_of_truth)?;
            for (&(_, start), row) in rows.filter(|(_, row)| !row.is_merged) {
                if let Some(value) = truth.get(&start).and_then(|row| row.value) {
                    prop_assert_eq!(row.value, value, "value of {:?} at {:?}", series, start);
                }
            }
        }
        Ok(())
    }
}

/// Fails with what differs, and only that.
fn same<K: Ord + Debug, V: PartialEq + Debug>(
    what: &str,
    seen: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
) -> Result<(), TestCaseError> {
    let differs = |key: &&K| seen.get(key) != expected.get(key);
    match seen.keys().chain(expected.keys()).find(differs) {
        None => Ok(()),
        Some(key) => Err(TestCaseError::fail(format!(
            "{what}: {key:?} is\n    {:?}, not\n    {:?}",
            seen.get(key),
            expected.get(key)
        ))),
    }
}
