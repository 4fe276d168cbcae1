//! Runs one life of a script on a number of workers, as the engine would: each worker gets its share of each entry, with
//! series mapped to slots, and the answers of all are put together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dataflows::driver::{Driver, Output, PackedBatch, Settings};
use dataflows::reference::{Arrival, Change};
use dataflows::types::{
    BRIEF, Batch, Command, Crossing, Decision, Edge, EffectiveLimit, Epoch, EventId, LiveState, Micros,
    NO_REPLY, Outcome, Row, SeriesId, SeriesState, Span, Standing, Update, Work,
};
use timely::worker::Worker;

use crate::script::{Entry, Life, Step};

/// What became visible at one `Settle`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Replies, by epoch and item.
    pub decisions: BTreeMap<(Epoch, u32), Decision>,
    pub verdicts: BTreeMap<(Epoch, u32), Outcome>,
    /// Each emission that says anything.
    pub emissions: BTreeMap<(Epoch, Span), Told>,
    /// What a reader sees.
    pub standings: BTreeMap<(SeriesId, Micros), Standing>,
    /// When a time entry is wanted.
    pub due_at: Option<Micros>,
    /// Edges, by epoch, series and what tells those of one series apart.
    pub crossings: BTreeMap<(Epoch, Apart), Crossing>,
}

/// Series, live period, updates of it, and edge of a crossing.
pub type Apart = (SeriesId, Option<Micros>, u64, Edge);

/// What tells the crossings of an epoch apart.
pub fn apart(crossing: &Crossing) -> Apart {
    (crossing.series, crossing.period_start, crossing.count, crossing.edge)
}

/// What an emission says: rows, states, cleaned series.
pub type Told = (Vec<Row>, Vec<LiveState>, Vec<(SeriesId, Micros)>);

/// What a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub states: BTreeMap<u32, SeriesState>,
    pub ids: BTreeMap<EventId, u64>,
}

/// What a life showed, and the snapshot that it left.
pub struct Lived {
    pub seen: Vec<Seen>,
    pub snapshot: Snapshot,
}

/// Runs a life that begins with a snapshot.
pub fn run(life: &Life, dedup_horizon_secs: u32, snapshot: &Snapshot) -> Lived {
    let settings = Settings { workers: life.workers, dedup_horizon_secs };
    let given = Arc::new((life.clone(), snapshot.clone()));
    if life.workers == 1 {
        // On this thread, so that a panic is a failed case.
        return timely::execute_directly(move |worker| live(worker, &settings, &given.0, &given.1));
    }
    let config = timely::Config::process(life.workers);
    let guards = timely::execute(config, move |worker| {
        let _abort = AbortOnPanic;
        live(worker, &settings, &given.0, &given.1)
    });
    let shares =
        guards.expect("threads start").join().into_iter().map(|share| share.expect("no worker panics"));
    shares.reduce(join).expect("there is a worker")
}

/// A worker that unwinds leaves its peers waiting for ever.
pub struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

fn join(mut one: Lived, other: Lived) -> Lived {
    for (into, from) in one.seen.iter_mut().zip(other.seen) {
        into.decisions.extend(from.decisions);
        into.verdicts.extend(from.verdicts);
        into.standings.extend(from.standings);
        into.crossings.extend(from.crossings);
        into.due_at = into.due_at.into_iter().chain(from.due_at).min();
        for (key, (rows, states, cleaned)) in from.emissions {
            let (all_rows, all_states, all_cleaned) = into.emissions.entry(key).or_default();
            all_rows.extend(rows);
            all_rows.sort();
            all_states.extend(states);
            all_states.sort();
            all_cleaned.extend(cleaned);
            all_cleaned.sort();
        }
    }
    one.snapshot.states.extend(other.snapshot.states);
    one.snapshot.ids.extend(other.snapshot.ids);
    one
}

fn live(worker: &mut Worker, settings: &Settings, life: &Life, snapshot: &Snapshot) -> Lived {
    let mut hand = Hand::new(worker, settings);
    hand.restore(life, snapshot);
    let mut lived = Lived { seen: Vec::new(), snapshot: Snapshot::default() };
    for step in &life.steps {
        match step {
            Step::Apply(epoch, entry) => hand.submit(*epoch, entry),
            Step::Settle(moments) => {
                lived.seen.push(hand.settle(worker, moments));
                hand.take_snapshot_along(&mut lived.snapshot);
            }
            Step::Acknowledge(class, upper) => hand.driver.acknowledge(*class, *upper),
            Step::Store(..) => {}
            Step::Snapshot(series_max) => {
                hand.finish_snapshot(&mut lived.snapshot);
                lived.snapshot = Snapshot::default();
                hand.driver.begin_snapshot();
                hand.snapshot_series_max = Some(*series_max);
            }
        }
    }
    hand.finish_snapshot(&mut lived.snapshot);
    hand.driver.close(worker);
    lived
}

/// The engine's part of one worker.
struct Hand {
    driver: Driver,
    index: usize,
    workers: usize,
    slots: HashMap<SeriesId, u32>,
    next_slot: u32,
    snapshot_series_max: Option<usize>,
    /// Moments of the time entries.
    times: HashMap<Epoch, Micros>,
    /// Whether something was submitted and has not been applied.
    is_behind: bool,
    /// What was to be expected of an update, just before it: by epoch and item, with whether it has an id.
    foreseen: HashMap<(Epoch, u32), (Option<Decision>, bool)>,
}

impl Hand {
    fn new(worker: &mut Worker, settings: &Settings) -> Hand {
        let driver = Driver::new(worker, settings);
        let (index, workers) = (worker.index(), settings.workers);
        let (slots, times) = (HashMap::new(), HashMap::new());
        let foreseen = HashMap::new();
        let (next_slot, snapshot_series_max, is_behind) = (0, None, false);
        Hand { driver, index, workers, slots, next_slot, snapshot_series_max, times, is_behind, foreseen }
    }

    fn owns(&self, series: SeriesId) -> bool {
        series.worker(self.workers) == self.index
    }

    /// The slot of a series; one that is not open gets a slot in which nothing is.
    fn slot(&mut self, series: SeriesId) -> u32 {
        let next = &mut self.next_slot;
        *self.slots.entry(series).or_insert_with(|| {
            *next += 1;
            *next - 1
        })
    }

    fn restore(&mut self, life: &Life, snapshot: &Snapshot) {
        let (index, workers) = (self.index, self.workers);
        for state in snapshot.states.values().filter(|state| state.series.worker(workers) == index) {
            let slot = self.slot(state.series);
            self.driver.restore(slot, state);
        }
        for (&id, &generation) in snapshot.ids.iter().filter(|(id, _)| id.series().worker(workers) == index) {
            self.driver.restore_id(generation, id);
        }
        for (&class, mark) in &life.progress {
            self.driver.acknowledge(class, mark.whole);
            if let Some((upper, through)) = mark.part {
                self.driver.acknowledge_through(class, upper, through);
            }
        }
    }

    fn submit(&mut self, epoch: Epoch, entry: &Entry) {
        let work = match entry {
            Entry::Updates { stamp, arrivals } => self.updates(epoch, *stamp, arrivals),
            Entry::Changes { stamp, changes } => {
                let commands: Vec<Command> =
                    changes.iter().flat_map(|change| self.commands(change)).collect();
                (!commands.is_empty()).then_some(Work::Commands { epoch, stamp: *stamp, commands })
            }
            Entry::Time { at, emit, stored } => {
                self.times.insert(epoch, *at);
                Some(Work::Time { epoch, at: *at, emit: *emit, stored: stored.clone() })
            }
        };
        if let Some(work) = work {
            self.driver.submit(work);
            self.is_behind = true;
        }
    }

    /// Asks what would be refused without the journal, before the first update of each series of an epoch.
    fn foresee(&mut self, epoch: Epoch, stamp: Micros, arrival: &Arrival) {
        let Arrival { series, item, event_at, amount, id } = *arrival;
        // Nobody waits for the answer, so that it is not counted as given.
        let update = Update { slot: self.slot(series), item: NO_REPLY, event_at, amount };
        let foreseen = self.driver.refuse(&update, id, stamp).map(|decision| Decision { item, ..decision });
        self.foreseen.insert((epoch, item), (foreseen, id.is_some()));
    }

    /// What is refused without the journal would have been refused the same way with it. An id may have been forgotten
    /// in between; else the worker knew what it would decide.
    fn check_foreseen(&mut self, decisions: &BTreeMap<(Epoch, u32), Decision>) {
        for (key, (foreseen, has_id)) in self.foreseen.drain() {
            let decision = decisions[&key];
            match foreseen {
                Some(foreseen) => assert_eq!(decision, foreseen),
                None => assert!(
                    has_id || !matches!(decision.outcome, Outcome::Refused | Outcome::TooLate),
                    "{decision:?} was to be foreseen"
                ),
            }
        }
    }

    fn updates(&mut self, epoch: Epoch, stamp: Micros, arrivals: &[Arrival]) -> Option<Work> {
        let (mut updates, mut ids) = (Vec::new(), Vec::new());
        let (index, workers) = (self.index, self.workers);
        let mut met = BTreeSet::new();
        for arrival in arrivals.iter().filter(|arrival| arrival.series.worker(workers) == index) {
            if met.insert(arrival.series) && !self.is_behind && arrival.item < BRIEF {
                self.foresee(epoch, stamp, arrival);
            }
            ids.extend(arrival.id.map(|id| (updates.len() as u32, id)));
            let Arrival { series, item, event_at, amount, .. } = *arrival;
            updates.push(Update { slot: self.slot(series), item, event_at, amount });
        }
        (!updates.is_empty()).then_some(Work::Updates { epoch, stamp, updates, ids })
    }

    fn commands(&mut self, change: &Change) -> Vec<Command> {
        let (Change::Open(series, _)
        | Change::Reshape(series, _)
        | Change::Cut(series, _)
        | Change::Close(series)) = *change;
        if !self.owns(series) {
            return Vec::new();
        }
        let slot = self.slot(series);
        match *change {
            Change::Open(_, shape) => vec![Command::Open { slot, series, shape }],
            Change::Reshape(_, shape) => {
                let effective =
                    |limit| EffectiveLimit { limit, source: shape.limit_source, notify: shape.notify };
                let limit = Command::Limit { slot, limit: shape.limit.map(effective), is_news: true };
                vec![Command::Reshape { slot, shape }, limit]
            }
            Change::Cut(_, at) => vec![Command::Cut { slot, at }],
            Change::Close(_) => vec![Command::Close { slot }],
        }
    }

    fn settle(&mut self, worker: &mut Worker, moments: &[Micros]) -> Seen {
        let mut output = Output::default();
        self.driver.step(worker, &mut output);
        self.is_behind = false;
        let mut seen = Seen { due_at: self.driver.due_at(), ..Seen::default() };
        let mut decisions = output.decisions.into_iter();
        for (epoch, count) in output.groups {
            let group = decisions.by_ref().take(count);
            seen.decisions.extend(group.map(|decision| ((epoch, decision.item), decision)));
        }
        assert_eq!(decisions.len(), 0, "every decision belongs to an epoch");
        let mut crossings = output.crossings.into_iter();
        for (epoch, count) in output.crossed {
            for crossing in crossings.by_ref().take(count) {
                let before = seen.crossings.insert((epoch, apart(&crossing)), crossing);
                assert_eq!(before, None, "crossings can be told apart");
            }
        }
        assert_eq!(crossings.len(), 0, "every crossing belongs to an epoch");
        self.check_foreseen(&seen.decisions);
        assert!(seen.decisions.keys().all(|(_, item)| *item < BRIEF));
        for verdict in output.verdicts {
            let before = seen.verdicts.insert((verdict.epoch, verdict.item), verdict.outcome);
            assert_eq!(before, None, "one verdict an update");
        }
        for batch in output.batches.into_iter().map(PackedBatch::unpack) {
            self.check(&batch);
            let told: Told = (batch.rows, batch.states, batch.cleaned);
            if told != Told::default() {
                let before = seen.emissions.insert((batch.upper, batch.class), told);
                assert_eq!(before, None, "one batch a class and epoch");
            }
        }
        for (&series, &slot) in &self.slots {
            for &at in moments {
                seen.standings
                    .extend(self.driver.standing(slot, at).map(|standing| ((series, at), standing)));
            }
        }
        seen
    }

    fn check(&self, batch: &Batch) {
        assert_eq!(batch.worker as usize, self.index);
        assert_eq!(Some(&batch.at), self.times.get(&batch.upper));
        assert!(batch.rows.is_sorted_by_key(|row| (row.series, row.window_start)));
        assert!(batch.states.is_sorted_by_key(|state| state.series));
        assert!(batch.rows.iter().all(|row| self.owns(row.series)));
        assert!(batch.cleaned.is_sorted_by(|one, other| one.0 < other.0));
    }

    fn take_snapshot_along(&mut self, into: &mut Snapshot) {
        if let Some(series_max) = self.snapshot_series_max {
            self.snapshot_some(series_max, 40, into);
        }
    }

    fn finish_snapshot(&mut self, into: &mut Snapshot) {
        if self.snapshot_series_max.take().is_some() {
            while !self.snapshot_some(usize::MAX, 64, into) {}
        }
    }

    fn snapshot_some(&mut self, series_max: usize, id_parts: usize, into: &mut Snapshot) -> bool {
        let states = &mut into.states;
        let has_series = self.driver.snapshot_step(series_max, &mut |state| {
            let before = states.insert(state.series.0, state.clone());
            assert_eq!(before, None, "a snapshot shows a series once");
        });
        let ids = &mut into.ids;
        let mut has_ids = false;
        for _ in 0..id_parts {
            has_ids = self.driver.snapshot_ids(&mut |generation, group| {
                ids.extend(group.iter().map(|&id| (id, generation)));
            });
        }
        has_series && has_ids
    }
}
