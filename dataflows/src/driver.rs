//! The door to the dataflow: synchronous, one per timely worker, shared by service, oracle tests and benches.
//!
//! In: works in rising epochs, acknowledgements of emissions, reads. Out: decisions and batches. A driver and its worker
//! live on one thread; reads are answered between steps and see every epoch that was stepped.
//!
//! It does not wait, park or wake: its owner does. The exception are facts, which all workers must pass together.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use differential_dataflow::consolidation::consolidate;
use timely::worker::Worker;

use crate::graph::{self, Ends, Shared};
pub use crate::operators::batch::PackedBatch;
use crate::operators::limits::Changed;
use crate::operators::meter::Meter;
pub use crate::operators::meter::Output;
use crate::types::{
    ClassSet, Command, Decision, Epoch, EventId, Fact, Micros, SeriesId, SeriesState, Span, Standing, Update,
    Work,
};

/// What the dataflow must know before it begins.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of workers, over all of which series are spread.
    pub workers: usize,
    /// How long event ids are remembered, in seconds of arrival time; at least 1.
    pub dedup_horizon_secs: u32,
}

/// How long a worker sleeps at most while others have yet to pass an epoch of facts: they wake it.
const OTHERS_PAUSE: Duration = Duration::from_millis(1);

/// How many facts enter between two steps: the graph sorts what it has meanwhile, and reuses its buffers.
const FACTS_MAX: usize = 65_536;
/// How many changed limits meter is handed at a time.
const COMMANDS_MAX: usize = 4_096;

/// One worker's end of the dataflow.
pub struct Driver {
    ends: Ends,
    shared: Rc<RefCell<Shared>>,
    /// The last epoch that was handed in.
    submitted: Epoch,
    /// Works in the graph that meter has not applied.
    under_way: u64,
    /// Works behind an epoch of facts, which go on when its limits are known.
    waiting: VecDeque<Work>,
    /// The epoch of facts that the limits have yet to pass, its stamp, and whether it is news.
    limiting: Option<(Epoch, Micros, bool)>,
    /// Its facts, which have yet to enter the graph.
    facts: Vec<(Fact, isize)>,
}

impl Driver {
    /// Builds the graph on this worker. All workers of the process must do so.
    pub fn new(worker: &mut Worker, settings: &Settings) -> Driver {
        let meter = Meter::new(worker.index() as u32, settings.dedup_horizon_secs);
        let (output, limited) = (Output::default(), Vec::new());
        let shared = Rc::new(RefCell::new(Shared { meter, output, emitting: 0, limited }));
        let ends = graph::build(worker, &shared);
        Driver {
            ends,
            shared,
            submitted: 0,
            under_way: 0,
            waiting: VecDeque::new(),
            limiting: None,
            facts: Vec::new(),
        }
    }

    /// Hands in this worker's share of an epoch. Panics unless epochs rise; facts may share theirs with the commands
    /// before and the time entry behind them.
    pub fn submit(&mut self, work: Work) {
        let epoch = work.epoch();
        assert!(epoch >= self.submitted, "epoch {epoch} behind {}", self.submitted);
        self.submitted = epoch;
        match self.limiting {
            Some(_) => self.waiting.push_back(work),
            None => self.enter(work),
        }
    }

    fn enter(&mut self, work: Work) {
        match work {
            Work::Facts { epoch, stamp, facts, is_news } => {
                self.facts = facts;
                self.limiting = Some((epoch, stamp, is_news));
            }
            work => {
                // See the header of `graph`: updates are no new time.
                if !matches!(work, Work::Updates { .. }) {
                    self.ends.works.advance_to(work.epoch());
                }
                self.under_way += 1;
                self.ends.works.send(work);
                self.ends.works.flush();
            }
        }
    }

    /// Runs until everything submitted has been applied on this worker; appends what it led to. With facts among it,
    /// it waits until all workers have come to them.
    pub fn step(&mut self, worker: &mut Worker, out: &mut Output) {
        loop {
            while !self.is_idle() {
                worker.step();
            }
            let Some((epoch, stamp, is_news)) = self.limiting else { break };
            self.pass(worker, epoch);
            for changed in self.limited(epoch).chunks(COMMANDS_MAX) {
                let command = |((place, limit), difference): &(Changed, isize)| Command::Limit {
                    slot: place.slot,
                    limit: (*difference > 0).then_some(**limit),
                    is_news,
                };
                let commands = changed.iter().map(command).collect();
                self.enter(Work::Commands { epoch, stamp, commands });
                while !self.is_idle() {
                    worker.step();
                }
            }
            self.limiting = None;
            while self.limiting.is_none()
                && let Some(work) = self.waiting.pop_front()
            {
                self.enter(work);
            }
        }
        let output = &mut self.shared.borrow_mut().output;
        out.decisions.append(&mut output.decisions);
        out.groups.append(&mut output.groups);
        out.batches.append(&mut output.batches);
        for (total, part) in [
            (&mut out.admitted, &mut output.admitted),
            (&mut out.duplicates, &mut output.duplicates),
            (&mut out.gone, &mut output.gone),
            (&mut out.late, &mut output.late),
            (&mut out.refused, &mut output.refused),
            (&mut out.too_late, &mut output.too_late),
        ] {
            *total += std::mem::take(part);
        }
        out.limited += std::mem::take(&mut output.limited);
        out.crossings.append(&mut output.crossings);
        out.crossed.append(&mut output.crossed);
        out.verdicts.append(&mut output.verdicts);
    }

    /// Hands in the facts of an epoch and waits until all workers have passed it.
    fn pass(&mut self, worker: &mut Worker, epoch: Epoch) {
        let mut facts = std::mem::take(&mut self.facts).into_iter().peekable();
        while facts.peek().is_some() {
            self.ends.facts.enter(epoch, facts.by_ref().take(FACTS_MAX));
            worker.step();
        }
        self.ends.facts.pass(epoch);
        while self.ends.limits.less_equal(&epoch) {
            worker.step_or_park(Some(OTHERS_PAUSE));
        }
    }

    /// What an epoch of facts has changed, all workers having passed it: a row a series, in the order of their numbers,
    /// with the new limit and 1, or the last one and -1.
    fn limited(&mut self, epoch: Epoch) -> Vec<(Changed, isize)> {
        let limited = &mut self.shared.borrow_mut().limited;
        // A start has a row a series: no room for as many is kept.
        let (passed, ahead) = std::mem::take(limited).into_iter().partition(|(_, of, _)| *of <= epoch);
        *limited = ahead;
        let passed: Vec<(Changed, Epoch, isize)> = passed;
        let mut changed: Vec<_> = passed.into_iter().map(|(row, _, difference)| (row, difference)).collect();
        consolidate(&mut changed);
        // What is taken away stands before or behind what is put in its place.
        changed.dedup_by(|next, kept| {
            let is_same = next.0.0 == kept.0.0;
            if is_same && next.1 > 0 {
                std::mem::swap(next, kept);
            }
            is_same
        });
        changed
    }

    fn is_idle(&self) -> bool {
        let shared = self.shared.borrow();
        shared.meter.works() >= self.under_way && shared.emitting == 0
    }

    /// The emission of a class at an epoch is in the store. After a restart: the stored progress, before any work.
    pub fn acknowledge(&mut self, class: Span, upper: Epoch) {
        self.acknowledge_through(class, upper, SeriesId(u32::MAX));
    }

    /// The emission of a class at an epoch is in the store for the series up to and including `through`.
    pub fn acknowledge_through(&mut self, class: Span, upper: Epoch, through: SeriesId) {
        self.shared.borrow_mut().meter.acknowledge(class, upper, through);
    }

    /// What would become of an update that arrived at a moment, should that be a refusal by a `block` limit, which is
    /// then counted; none if it has to be submitted. A repeat of an admitted event is none.
    pub fn refuse(&mut self, update: &Update, id: Option<EventId>, at: Micros) -> Option<Decision> {
        self.shared.borrow_mut().meter.refuse(update, id, at)
    }

    /// What a reader sees of a series at a moment; none when it is closed.
    pub fn standing(&self, slot: u32, at: Micros) -> Option<Standing> {
        self.shared.borrow().meter.standing(slot, at)
    }

    /// Everything there is to know of a series; none when it is closed.
    pub fn state(&self, slot: u32) -> Option<SeriesState> {
        self.shared.borrow().meter.state(slot)
    }

    /// Puts a series of a snapshot into an unused slot.
    pub fn restore(&mut self, slot: u32, state: &SeriesState) {
        self.shared.borrow_mut().meter.restore(slot, state);
    }

    /// The earliest whole second at which a time entry is wanted: the next boundary of a class in which something is
    /// dirty, or the moment to look whether a series is to be cleaned; none without either.
    pub fn due_at(&self) -> Option<Micros> {
        self.shared.borrow().meter.due_at()
    }

    /// The classes in which something is dirty.
    pub fn dirty_classes(&self) -> ClassSet {
        self.shared.borrow().meter.dirty_classes()
    }

    /// Begins a snapshot of the state as of all applied epochs; updates go on meanwhile.
    pub fn begin_snapshot(&mut self) {
        self.shared.borrow_mut().meter.begin_snapshot();
    }

    /// Shows the snapshot up to `series_max` more series; true when it has seen all. `each` must not call the driver.
    pub fn snapshot_step(&mut self, series_max: usize, each: &mut dyn FnMut(&SeriesState)) -> bool {
        self.shared.borrow_mut().meter.snapshot_step(series_max, each)
    }

    /// Shows the snapshot one part in 256 of the ids, as (generation, ids); true when it has seen all.
    pub fn snapshot_ids(&mut self, each: &mut dyn FnMut(u64, &[EventId])) -> bool {
        self.shared.borrow_mut().meter.snapshot_ids(each)
    }

    /// Puts back an id of a snapshot.
    pub fn restore_id(&mut self, generation: u64, id: EventId) {
        self.shared.borrow_mut().meter.restore_id(generation, id);
    }

    /// Number of ids in memory.
    pub fn ids(&self) -> usize {
        self.shared.borrow().meter.ids()
    }

    /// Number of open series.
    pub fn series(&self) -> usize {
        self.shared.borrow().meter.series()
    }

    /// Number of windows in memory.
    pub fn windows(&self) -> usize {
        self.shared.borrow().meter.windows()
    }

    /// Memory held by series and ids, in bytes.
    pub fn resident_bytes(&self) -> usize {
        self.shared.borrow().meter.resident_bytes()
    }

    /// Ends the input and runs until all workers have ended theirs.
    pub fn close(self, worker: &mut Worker) {
        let Ends { works, probe, facts, limits } = self.ends;
        works.close();
        drop(facts);
        worker.step_or_park_while(None, || !(probe.done() && limits.done()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Amount, LimitSource, MetricType, Notify, Operation, Outcome, RowKind, Shape, Tally};

    const EVERY_5_SECONDS: Shape = Shape {
        operation: Operation::Sum,
        metric_type: MetricType::Checkpoint,
        flush: Span::S5,
        reset: Span::S5,
        initial_value: Amount::ZERO,
        batch: Span::S30,
        stored: true,
        limit: None,
        limit_source: LimitSource::Series,
        notify: Notify::NONE,
        max_event_age_secs: 3_600,
        cleanup_after_days: None,
    };

    /// Runs works on one worker, acknowledging each batch at once, and returns what they led to.
    fn run(works: Vec<Work>) -> Output {
        timely::execute_directly(move |worker| {
            let mut driver = Driver::new(worker, &Settings { workers: 1, dedup_horizon_secs: 3_600 });
            let (mut all, mut fetched) = (Output::default(), 0);
            for work in works {
                driver.submit(work);
                driver.step(worker, &mut all);
                for batch in &all.batches[fetched..] {
                    driver.acknowledge(batch.class, batch.upper);
                }
                fetched = all.batches.len();
            }
            driver.close(worker);
            all
        })
    }

    fn open(shape: Shape) -> Work {
        let commands = vec![Command::Open { slot: 0, series: SeriesId(1), shape }];
        Work::Commands { epoch: 1, stamp: Micros(0), commands }
    }

    fn update(epoch: Epoch, arrival_secs: i64, event_secs: i64, units: i64) -> Work {
        let (stamp, event_at) = (Micros::from_seconds(arrival_secs), Micros::from_seconds(event_secs));
        let updates =
            vec![Update { slot: 0, item: epoch as u32, event_at, amount: Amount::from_units(units) }];
        Work::Updates { epoch, stamp, updates, ids: Vec::new() }
    }

    fn time(epoch: Epoch, at_secs: i64, class: Span) -> Work {
        let mut emit = ClassSet::default();
        emit.insert(class);
        Work::Time { epoch, at: Micros::from_seconds(at_secs), emit, stored: Vec::new() }
    }

    fn values(batch: PackedBatch) -> Vec<(i64, i128)> {
        batch
            .unpack()
            .rows
            .iter()
            .map(|row| (row.window_start.seconds(), row.value.0 / Amount::UNIT))
            .collect()
    }

    #[test]
    fn six_windows_are_one_batch() {
        let mut works = vec![open(EVERY_5_SECONDS)];
        works.extend((0..6).map(|window| update(window as u64 + 2, 5 * window, 5 * window, 1)));
        works.push(time(8, 30, Span::S30));
        works.push(time(9, 60, Span::S30));
        let mut out = run(works);
        assert_eq!(
            out.decisions.iter().map(|decision| decision.current.0 / Amount::UNIT).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6]
        );
        assert_eq!(values(out.batches.remove(0)), [(0, 1), (5, 2), (10, 3), (15, 4), (20, 5), (25, 6)]);
        assert!(out.batches[0].is_empty());
    }

    #[test]
    fn an_update_for_a_window_that_has_left_is_a_merge() {
        let mut works =
            vec![open(EVERY_5_SECONDS), update(2, 0, 0, 1), update(3, 45, 45, 1), time(4, 60, Span::S30)];
        works.extend([update(5, 61, 3, 10), time(6, 90, Span::S30)]);
        let rows = run(works).batches.remove(1).unpack().rows;
        assert!(matches!(rows[0].kind, RowKind::Merge { value_follows: false, .. }));
        assert_eq!((rows[0].window_start.seconds(), rows[0].tally), (0, Tally::of(Amount::from_units(10))));
        assert_eq!(rows[1].kind, RowKind::Absolute);
        assert_eq!((rows[1].window_start.seconds(), rows[1].value), (45, Amount::from_units(12)));
    }

    #[test]
    fn a_deleted_series_is_gone_and_writes_no_row() {
        let close = Work::Commands { epoch: 3, stamp: Micros(0), commands: vec![Command::Close { slot: 0 }] };
        let out = run(vec![
            open(EVERY_5_SECONDS),
            update(2, 0, 0, 1),
            close,
            update(4, 0, 0, 1),
            time(5, 30, Span::S30),
        ]);
        assert_eq!(out.decisions[1].outcome, Outcome::Gone);
        assert_eq!((out.admitted, out.gone), (1, 1));
        assert!(out.batches[0].is_empty());
    }
}
