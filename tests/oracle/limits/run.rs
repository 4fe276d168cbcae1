//! Runs a history of limits on a number of workers, as the engine would: commands and updates go to the worker that owns
//! the series, facts to the first worker or to all in turn, and the answers of all are put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataflows::driver::{Driver, Output, Settings};
use dataflows::reference::{Arrival, Change};
use dataflows::types::{
    ClassSet, Command, Decision, Epoch, Fact, LimitSource, Micros, Notify, Place, SeriesId, SeriesState,
    Standing, Update, Work,
};
use timely::worker::Worker;

use crate::life::AbortOnPanic;

pub const DEDUP_HORIZON_SECS: u32 = 3_600;

/// One entry of the journal.
#[derive(Clone, Debug)]
pub struct Step {
    pub epoch: Epoch,
    pub stamp: Micros,
    pub entry: Entry,
}

/// What it says. No facts at all where nothing was handed to the graph.
#[derive(Clone, Debug)]
pub enum Entry {
    Definitions(Vec<Change>, Option<Vec<(Fact, isize)>>),
    Time(Option<Vec<(Fact, isize)>>),
    Updates(Vec<Arrival>),
}

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub workers: usize,
    /// How many steps are handed in before the workers run.
    pub pace: usize,
    /// Whether facts are spread over workers.
    pub is_spread: bool,
}

impl Manner {
    /// Whether the workers run behind a step of so many.
    pub fn settles(&self, step: usize, steps: usize) -> bool {
        (step + 1).is_multiple_of(self.pace) || step + 1 == steps
    }
}

/// Where a run begins: the states and facts of a snapshot.
#[derive(Clone, Debug)]
pub struct Start {
    pub epoch: Epoch,
    pub stamp: Micros,
    pub states: Vec<SeriesState>,
    pub facts: Vec<Fact>,
}

/// What became visible when the workers had run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Series whose limit became another, and those that are past it by that.
    pub limited: (u64, u64),
    pub decisions: BTreeMap<(Epoch, u32), Decision>,
    pub standings: BTreeMap<SeriesId, (Standing, Notify)>,
}

/// What a run showed, and the states as of the step it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Lived {
    pub seen: Vec<Seen>,
    pub states: Vec<SeriesState>,
}

/// Runs steps. With a start, the first thing that is seen is what that led to.
pub fn run(steps: &[Step], manner: Manner, start: Option<Start>, snapshot_behind: Option<usize>) -> Lived {
    let given = Arc::new((steps.to_vec(), start));
    let live = move |worker: &mut Worker| {
        let _abort = (manner.workers > 1).then_some(AbortOnPanic);
        let mut hand = Hand::new(worker, manner);
        let mut lived = Lived::default();
        if let Some(start) = &given.1 {
            hand.restore(start);
            lived.seen.push(hand.settle(worker, start.stamp));
        }
        for (at, step) in given.0.iter().enumerate() {
            hand.submit(step);
            if manner.settles(at, given.0.len()) {
                lived.seen.push(hand.settle(worker, step.stamp));
            }
            if snapshot_behind == Some(at) {
                lived.states = hand.states();
            }
        }
        hand.driver.close(worker);
        lived
    };
    if manner.workers == 1 {
        // On this thread, so that a panic is a failed case.
        return timely::execute_directly(live);
    }
    let guards = timely::execute(timely::Config::process(manner.workers), live);
    let shares = guards.expect("threads start").join().into_iter();
    shares.map(|share| share.expect("no worker panics")).reduce(join).expect("there is a worker")
}

fn join(mut one: Lived, other: Lived) -> Lived {
    for (into, from) in one.seen.iter_mut().zip(other.seen) {
        into.limited.0 += from.limited.0;
        into.limited.1 += from.limited.1;
        into.decisions.extend(from.decisions);
        into.standings.extend(from.standings);
    }
    one.states.extend(other.states);
    one
}

/// The engine's part of one worker. The slot of a series is its number divided by that of workers.
struct Hand {
    driver: Driver,
    index: usize,
    manner: Manner,
    /// Series that were ever here.
    slots: BTreeMap<SeriesId, u32>,
}

impl Hand {
    fn new(worker: &mut Worker, manner: Manner) -> Hand {
        let settings = Settings { workers: manner.workers, dedup_horizon_secs: DEDUP_HORIZON_SECS };
        let driver = Driver::new(worker, &settings);
        Hand { driver, index: worker.index(), manner, slots: BTreeMap::new() }
    }

    fn owns(&self, series: SeriesId) -> bool {
        series.worker(self.manner.workers) == self.index
    }

    fn slot(&mut self, series: SeriesId) -> u32 {
        let slot = series.0 / self.manner.workers as u32;
        self.slots.insert(series, slot);
        slot
    }

    /// What a snapshot keeps: not why a limit applies, nor where messages are sent.
    fn restore(&mut self, start: &Start) {
        for state in &start.states {
            if !self.owns(state.series) {
                continue;
            }
            let mut kept = state.clone();
            (kept.shape.limit_source, kept.shape.notify) = (LimitSource::Series, Notify::NONE);
            let slot = self.slot(state.series);
            self.driver.restore(slot, &kept);
        }
        let facts: Vec<_> = start.facts.iter().map(|&fact| (fact, 1)).collect();
        self.submit_facts(start.epoch, start.stamp, &facts);
    }

    fn submit(&mut self, step: &Step) {
        let (epoch, stamp) = (step.epoch, step.stamp);
        match &step.entry {
            Entry::Definitions(changes, facts) => {
                let commands: Vec<_> = changes.iter().filter_map(|change| self.command(change)).collect();
                if !commands.is_empty() {
                    self.driver.submit(Work::Commands { epoch, stamp, commands });
                }
                facts.iter().for_each(|facts| self.submit_facts(epoch, stamp, facts));
            }
            Entry::Time(facts) => {
                facts.iter().for_each(|facts| self.submit_facts(epoch, stamp, facts));
                let (emit, stored) = (ClassSet::default(), Vec::new());
                self.driver.submit(Work::Time { epoch, at: stamp, emit, stored });
            }
            Entry::Updates(arrivals) => {
                let own = arrivals.iter().filter(|arrival| self.owns(arrival.series));
                let update = |&Arrival { series, item, event_at, amount, .. }: &Arrival| Update {
                    slot: series.0 / self.manner.workers as u32,
                    item,
                    event_at,
                    amount,
                };
                let updates: Vec<_> = own.map(update).collect();
                if !updates.is_empty() {
                    self.driver.submit(Work::Updates { epoch, stamp, updates, ids: Vec::new() });
                }
            }
        }
    }

    fn submit_facts(&mut self, epoch: Epoch, stamp: Micros, facts: &[(Fact, isize)]) {
        let Manner { workers, is_spread, .. } = self.manner;
        let index = self.index;
        let is_here = |at: usize| if is_spread { at % workers == index } else { index == 0 };
        let here = facts.iter().enumerate().filter(|(at, _)| is_here(*at));
        let facts = here.map(|(_, &(fact, difference))| (placed(fact, workers), difference)).collect();
        self.driver.submit(Work::Facts { epoch, stamp, facts, is_news: true });
    }

    fn command(&mut self, change: &Change) -> Option<Command> {
        let (Change::Open(series, _)
        | Change::Reshape(series, _)
        | Change::Cut(series, _)
        | Change::Close(series)) = *change;
        if !self.owns(series) {
            return None;
        }
        let slot = self.slot(series);
        Some(match *change {
            Change::Open(series, shape) => Command::Open { slot, series, shape },
            Change::Reshape(_, shape) => Command::Reshape { slot, shape },
            Change::Cut(_, at) => Command::Cut { slot, at },
            Change::Close(_) => Command::Close { slot },
        })
    }

    fn settle(&mut self, worker: &mut Worker, at: Micros) -> Seen {
        let mut output = Output::default();
        self.driver.step(worker, &mut output);
        let limited = (output.limited.series, output.limited.breached);
        let mut seen = Seen { limited, ..Seen::default() };
        let mut decisions = output.decisions.into_iter();
        for (epoch, count) in output.groups {
            let group = decisions.by_ref().take(count);
            seen.decisions.extend(group.map(|decision| ((epoch, decision.item), decision)));
        }
        for (&series, &slot) in &self.slots {
            if let (Some(standing), Some(state)) = (self.driver.standing(slot, at), self.driver.state(slot)) {
                seen.standings.insert(series, (standing, state.shape.notify));
            }
        }
        seen
    }

    fn states(&self) -> Vec<SeriesState> {
        self.slots.values().filter_map(|&slot| self.driver.state(slot)).collect()
    }
}

/// The fact with the slot that the series has on so many workers.
fn placed(fact: Fact, workers: usize) -> Fact {
    let at = |place: Place| Place { slot: place.series.0 / workers as u32, ..place };
    match fact {
        Fact::Own { place, limit } => Fact::Own { place: at(place), limit },
        Fact::Inherits { place, customer, name } => Fact::Inherits { place: at(place), customer, name },
        other => other,
    }
}
