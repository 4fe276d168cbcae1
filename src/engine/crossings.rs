//! Crossings on their way from the workers to the store.
//!
//! ```text
//! workers ─▶ found ── every worker has come to a time entry ─▶ handed to the sink ── committed ─▶ gone
//! ```
//! A snapshot keeps what is not in the store yet. A replay finds the same again; the store knows up to which epoch it has
//! them, and takes none twice. At most `HELD_MAX` are held: beyond, while the store is out of reach, new ones are let go, with a
//! line in the log. No number depends on them.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use dataflows::driver::Output;
use dataflows::types::{Crossing, Epoch, Micros};

use super::Shared;

/// Crossings that may wait for the store: about 200 bytes each.
const HELD_MAX: usize = 200_000;

/// See the header.
#[derive(Default)]
pub struct Crossings {
    /// By worker: the last time entry that it has come to.
    passed: Vec<Epoch>,
    /// In no order.
    found: Vec<(Epoch, Crossing)>,
    /// Rising by epoch.
    handed: VecDeque<(Epoch, Crossing)>,
    dropped: u64,
}

impl Crossings {
    pub(super) fn new(workers: usize) -> Crossings {
        Crossings { passed: vec![0; workers], ..Crossings::default() }
    }

    fn find(&mut self, output: &mut Output) {
        let mut crossings = output.crossings.drain(..);
        for (epoch, count) in output.crossed.drain(..) {
            for crossing in crossings.by_ref().take(count) {
                if self.found.len() + self.handed.len() < HELD_MAX {
                    self.found.push((epoch, crossing));
                } else {
                    self.dropped += 1;
                    if self.dropped.is_power_of_two() {
                        tracing::error!(
                            dropped = self.dropped,
                            "messages about limits are lost: the store takes none"
                        );
                    }
                }
            }
        }
    }

    /// A worker has come to a time entry: what all have found by then, in order, if that is anything.
    fn pass(&mut self, worker: usize, epoch: Epoch) -> Option<(Epoch, Vec<(Epoch, Crossing)>)> {
        self.passed[worker] = epoch;
        let reached = self.passed.iter().copied().min()?;
        if self.found.iter().all(|(found, _)| *found > reached) {
            return None;
        }
        let (mut ready, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.found).into_iter().partition(|(found, _)| *found <= reached);
        self.found = rest;
        ready.sort_unstable_by_key(|(epoch, it)| (*epoch, it.series, it.period_start, it.count, it.edge));
        self.handed.extend(ready.iter().copied());
        Some((reached + 1, ready))
    }

    /// The store has all of epochs below `upper`.
    pub(super) fn stored(&mut self, upper: Epoch) {
        while self.handed.front().is_some_and(|(epoch, _)| *epoch < upper) {
            self.handed.pop_front();
        }
    }

    /// What the store lacks of epochs up to and including this one.
    pub(super) fn held(&self, epoch: Epoch) -> Vec<(Epoch, Crossing)> {
        let all = self.handed.iter().chain(&self.found);
        all.filter(|(found, _)| *found <= epoch).copied().collect()
    }
}

impl Shared {
    /// Takes what a worker has found; a time entry is then due at the next second.
    pub(super) fn found(&self, output: &mut Output) {
        let Some(last) = output.crossings.last() else { return };
        let due_at = Micros::from_seconds(last.at.seconds() + 1);
        self.crossings().find(output);
        if self.crossing_due.swap(due_at.0, Ordering::AcqRel) > due_at.0 {
            self.wake_journal();
        }
    }

    /// What a snapshot held: wanted at once.
    pub(super) fn restore_crossings(&self, held: Vec<(Epoch, Crossing)>) {
        self.crossings().found.extend(held);
        self.crossing_due.store(0, Ordering::Release);
    }

    /// A worker has applied a time entry.
    pub(super) fn passed(&self, worker: usize, epoch: Epoch) {
        let mut crossings = self.crossings();
        let handed = crossings.pass(worker, epoch);
        if crossings.found.is_empty() {
            self.crossing_due.store(i64::MAX, Ordering::Release);
        }
        // The sink gets them in the order of the epochs: under the lock that orders them.
        if let (Some((upper, ready)), Some(sink)) = (handed, self.sink.get()) {
            sink.cross(upper, ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, RwLock};

    use dataflows::types::packed::Keyed;
    use dataflows::types::{Amount, Edge, SeriesId};

    use super::super::{EngineOptions, Ledger, Workers};
    use super::*;
    use crate::control::Registry;

    fn output(epochs: &[Epoch]) -> Output {
        let crossing = |series| Crossing {
            series: SeriesId(series),
            period_start: None,
            period_end: None,
            count: 1,
            edge: Edge::Breached,
            value: Amount::ZERO,
            limit: None,
            at: Micros(0),
        };
        Output {
            crossings: (0..epochs.len() as u32).rev().map(crossing).collect(),
            crossed: epochs.iter().map(|epoch| (*epoch, 1)).collect(),
            ..Output::default()
        }
    }

    #[test]
    fn they_are_handed_over_once_all_workers_have_come_so_far_and_kept_until_they_are_stored() {
        let mut crossings = Crossings::new(2);
        crossings.find(&mut output(&[7, 5, 3]));
        assert!(crossings.pass(0, 5).is_none(), "the other may find more");
        let (upper, ready) = crossings.pass(1, 6).expect("both have come to 5");
        let epochs = |held: &[(Epoch, Crossing)]| held.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>();
        assert_eq!((upper, epochs(&ready)), (6, vec![3, 5]));
        assert!(crossings.pass(0, 6).is_none(), "nothing new");
        assert_eq!(epochs(&crossings.held(6)), [3, 5]);
        assert_eq!(epochs(&crossings.held(9)), [3, 5, 7]);
        crossings.stored(5);
        assert_eq!(epochs(&crossings.held(9)), [5, 7]);
        assert!(crossings.pass(0, 9).is_none());
        assert_eq!(crossings.pass(1, 9).map(|(upper, ready)| (upper, epochs(&ready))), Some((10, vec![7])));
    }

    struct Nobody;

    impl Ledger for Nobody {
        fn keyed(&self, _: Keyed, _: Micros) {}

        fn remembered(&self, _: SeriesId, _: u64) {}

        fn keys(&self) -> Vec<(Keyed, Micros)> {
            Vec::new()
        }
    }

    #[test]
    fn a_time_entry_is_due_while_any_wait_and_not_behind() {
        let options = EngineOptions { workers: 2, dedup_horizon_secs: 0 };
        let registry = Arc::new(RwLock::new(Registry::new(2, 3_600)));
        let (workers, shared) = Workers::start(&options, registry, Arc::new(Nobody)).expect("threads");
        let mut due = vec![shared.due_at()];
        shared.found(&mut output(&[7]));
        shared.found(&mut output(&[]));
        due.push(shared.due_at());
        shared.passed(0, 9);
        shared.passed(1, 6);
        due.push(shared.due_at());
        shared.passed(1, 7);
        due.push(shared.due_at());
        let held = shared.crossings().held(7);
        shared.restore_crossings(held);
        due.push(shared.due_at());
        shared.passed(1, 8);
        due.push(shared.due_at());
        let held = shared.crossings().held(8).len();
        workers.stop();
        // At the next second, until both have come so far; of what a snapshot had at once.
        let (second, at_once) = (Some(Micros::from_seconds(1)), Some(Micros(0)));
        assert_eq!(due, [None, second, second, None, at_once, None]);
        assert_eq!(held, 2);
    }

    #[test]
    fn they_are_bounded() {
        let mut crossings = Crossings::new(1);
        for _ in 0..HELD_MAX / 4 + 5 {
            crossings.find(&mut output(&[1, 1, 1, 1]));
        }
        assert_eq!((crossings.found.len(), crossings.dropped), (HELD_MAX, 20));
    }
}
