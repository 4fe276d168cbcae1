//! Makes a script of a plan: journal entries with stamps and epochs, time entries between them as the journal writes
//! them, what the sink does meanwhile, snapshots and restarts.
//!
//! A script is a sequence of *lives* of the service. A life begins with the last snapshot of the life before, replays
//! the entries behind it, and goes on. Nothing in a script depends on what meter answers.
//!
//! * A time entry comes before the first entry whose stamp has passed a whole second since the last one. It emits the
//!   classes with a boundary since their last emission, unless the sink is not ready or an emission is under way.
//! * The sink writes emissions one after the other, in the order of their epochs, whatever their class: a row whose
//!   class has changed may be under way twice.
//! * `progress` is what the store says of a class: the last whole emission, and through which series the next one got.
//!   The former must not be forgotten for the latter: a replay would merge again what it had brought. A replay does not
//!   emit before the greatest progress of all classes, and marks at each what is stored.

use std::collections::{BTreeMap, BTreeSet};

use dataflows::reference::{Arrival, Change};
use dataflows::types::{ClassSet, Epoch, Micros, SeriesId, Span};

use crate::happen::{Known, arrival, change, moved};
use crate::plan::{Event, Fate, Happening, Plan, Restart};

/// All series.
pub const THROUGH_ALL: SeriesId = SeriesId(u32::MAX);

/// What the journal holds.
#[derive(Clone, Debug)]
pub enum Entry {
    Updates { stamp: Micros, arrivals: Vec<Arrival> },
    Changes { stamp: Micros, changes: Vec<Change> },
    Time { at: Micros, emit: ClassSet, stored: Vec<(Span, SeriesId)> },
}

/// One step of a life.
#[derive(Clone, Debug)]
pub enum Step {
    Apply(Epoch, Entry),
    /// All that was applied takes effect; readings are taken at these moments.
    Settle([Micros; 2]),
    /// The emission is in the store, and meter hears of it.
    Acknowledge(Span, Epoch),
    /// The emission is in the store up to and including a series, and meter never hears of it.
    Store(Span, Epoch, SeriesId),
    /// A snapshot begins; so many series of it are taken at each later `Settle`.
    Snapshot(usize),
}

/// What the store has of a class: the last emission that is whole, and how far it got with the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    pub whole: Epoch,
    pub part: Option<(Epoch, SeriesId)>,
}

impl Mark {
    /// How far the store got with the emission of this epoch; none if it does not have to do with it.
    pub fn through(&self, epoch: Epoch) -> Option<SeriesId> {
        let part = self.part.filter(|(upper, _)| *upper == epoch).map(|(_, through)| through);
        part.or((epoch == self.whole).then_some(THROUGH_ALL))
    }

    /// The greatest epoch of which something is in the store.
    fn reach(&self) -> Epoch {
        self.part.map_or(self.whole, |(upper, _)| upper)
    }
}

/// What the store has of each class.
pub type Progress = BTreeMap<Span, Mark>;

/// From a start of the service to its end.
#[derive(Clone, Debug)]
pub struct Life {
    pub workers: usize,
    /// What the store says at the start.
    pub progress: Progress,
    pub steps: Vec<Step>,
}

/// Makes the script of a plan.
pub fn script(plan: &Plan) -> Vec<Life> {
    let mut writer = Writer::new(plan);
    writer.open_all(plan);
    for (number, event) in plan.events.iter().enumerate() {
        writer.write(number, event);
    }
    writer.finish();
    writer.lives
}

struct Writer {
    lives: Vec<Life>,
    known: Vec<Known>,
    journal: Vec<(Epoch, Entry)>,
    now: Micros,
    /// The last time entry, in seconds.
    ticked: i64,
    /// Classes with a boundary since their last emission.
    due: ClassSet,
    /// Emissions under way, and the event before which they are acknowledged.
    in_flight: BTreeMap<Span, (Epoch, usize)>,
    progress: Progress,
    /// The last epoch in the snapshot of this life, and the last time entry then.
    snapshot: Option<(Epoch, i64)>,
    settled: bool,
}

fn all_classes() -> ClassSet {
    let mut all = ClassSet::default();
    Span::FLUSH.into_iter().for_each(|class| all.insert(class));
    all
}

impl Writer {
    fn new(plan: &Plan) -> Writer {
        let first = Life { workers: plan.workers, progress: Progress::new(), steps: Vec::new() };
        Writer {
            lives: vec![first],
            known: Vec::new(),
            journal: Vec::new(),
            now: Micros::from_seconds(plan.began_at_secs),
            ticked: plan.began_at_secs,
            due: ClassSet::default(),
            in_flight: BTreeMap::new(),
            progress: Progress::new(),
            snapshot: None,
            settled: true,
        }
    }

    fn push(&mut self, step: Step) {
        self.lives.last_mut().expect("there is always a life").steps.push(step);
    }

    /// Appends to the journal.
    fn append(&mut self, entry: Entry) {
        let epoch = self.journal.last().map_or(1, |(last, _)| last + 1);
        self.journal.push((epoch, entry.clone()));
        self.apply(epoch, entry);
    }

    fn apply(&mut self, epoch: Epoch, entry: Entry) {
        self.settled = false;
        self.push(Step::Apply(epoch, entry));
    }

    fn settle(&mut self) {
        if !self.settled {
            let ahead_secs = [0, 1, 61, 86_400 * 3][self.journal.len() % 4];
            let later = Micros(self.now.0 + ahead_secs * Micros::PER_SECOND);
            self.push(Step::Settle([self.now, later]));
            self.settled = true;
        }
    }

    fn open_all(&mut self, plan: &Plan) {
        let opened = plan.shapes.iter().map(|&shape| Happening::Open(shape));
        let changes = opened.filter_map(|open| change(&mut self.known, &open, self.now)).collect();
        self.append(Entry::Changes { stamp: self.now, changes });
    }

    fn write(&mut self, number: usize, event: &Event) {
        self.hear_of_store(number);
        self.now = moved(self.now, event.advance, &self.known);
        self.tick(number, event);
        match &event.happening {
            Happening::Updates(planned) => {
                let items = planned.iter().enumerate();
                let arrivals = items.map(|(item, update)| arrival(&mut self.known, item, update, self.now));
                let arrivals = arrivals.collect();
                self.append(Entry::Updates { stamp: self.now, arrivals });
            }
            Happening::Snapshot(series_max) => self.begin_snapshot(*series_max),
            Happening::Restart(restart) => self.restart(restart),
            other => {
                if let Some(change) = change(&mut self.known, other, self.now) {
                    self.append(Entry::Changes { stamp: self.now, changes: vec![change] });
                }
            }
        }
        if !event.is_burst {
            self.settle();
        }
    }

    fn hear_of_store(&mut self, number: usize) {
        let heard = self.in_flight.iter().filter(|(_, (_, after))| *after <= number);
        let Some(last) = heard.map(|(&class, &(upper, _))| (upper, class)).max() else { return };
        for (upper, class) in self.in_order().into_iter().take_while(|emission| *emission <= last) {
            self.settle();
            self.push(Step::Acknowledge(class, upper));
            self.in_flight.remove(&class);
            self.progress.insert(class, Mark { whole: upper, part: None });
        }
    }

    /// The emissions under way, in the order in which the sink writes them.
    fn in_order(&self) -> BTreeSet<(Epoch, Span)> {
        self.in_flight.iter().map(|(&class, &(upper, _))| (upper, class)).collect()
    }

    /// The time entry that the clock asks for, if it does.
    fn tick(&mut self, number: usize, event: &Event) {
        let second = self.now.seconds();
        if second == self.ticked {
            return;
        }
        self.note_due(second);
        let is_ready = |class: &Span| !event.is_withheld || (*class as usize + number).is_multiple_of(2);
        let mut emit = ClassSet::default();
        let free = self.due.iter().filter(|class| !self.in_flight.contains_key(class)).filter(is_ready);
        free.for_each(|class| emit.insert(class));
        self.append(Entry::Time { at: Micros::from_seconds(second), emit, stored: Vec::new() });
        let upper = self.journal.len() as Epoch;
        for class in emit.iter() {
            self.due.remove(class);
            self.in_flight.insert(class, (upper, number + event.acknowledged_after));
        }
        self.hear_of_store(number);
    }

    fn note_due(&mut self, second: i64) {
        let last = Micros::from_seconds(self.ticked);
        let passed = |class: &Span| class.window(last).end <= Micros::from_seconds(second);
        Span::FLUSH.into_iter().filter(passed).for_each(|class| self.due.insert(class));
        self.ticked = second;
    }

    fn begin_snapshot(&mut self, series_max: usize) {
        self.settle();
        self.push(Step::Snapshot(series_max));
        self.snapshot = Some((self.journal.len() as Epoch, self.ticked));
    }

    fn restart(&mut self, restart: &Restart) {
        self.settle();
        if !restart.replays || self.snapshot.is_none() {
            self.begin_snapshot(usize::MAX);
        }
        let under_way = self.in_order();
        let whole = match restart.fate {
            Fate::Lost => 0,
            Fate::Stored { emissions, through } => {
                // Mostly the crash came amid the class of that very series.
                let class = self.known.get(through as usize - 1).map(Known::batch);
                let own = under_way.iter().position(|(_, under_way)| Some(*under_way) == class);
                own.filter(|_| emissions % 3 > 0).unwrap_or(emissions % (under_way.len() + 1))
            }
        };
        for (number, (upper, class)) in under_way.into_iter().enumerate() {
            let through = match restart.fate {
                Fate::Stored { .. } if number < whole => THROUGH_ALL,
                Fate::Stored { through, .. } if number == whole => SeriesId(through),
                _ => break,
            };
            self.push(Step::Store(class, upper, through));
            let mark = self.progress.entry(class).or_default();
            *mark = match through {
                THROUGH_ALL => Mark { whole: upper, part: None },
                through => Mark { part: Some((upper, through)), ..*mark },
            };
        }
        self.in_flight.clear();
        let progress = self.progress.clone();
        self.lives.push(Life { workers: restart.workers, progress, steps: Vec::new() });
        let Some((epoch, ticked)) = self.snapshot.take() else { return };
        (self.ticked, self.due) = (ticked, all_classes());
        let (now, replayed) = (self.now, self.journal[epoch as usize..].to_vec());
        for (epoch, entry) in replayed {
            self.replay(epoch, entry);
            self.settle();
        }
        self.now = now;
    }

    fn replay(&mut self, epoch: Epoch, entry: Entry) {
        let at = match &entry {
            Entry::Time { at, .. } => *at,
            Entry::Updates { stamp, .. } | Entry::Changes { stamp, .. } => *stamp,
        };
        self.now = at;
        if !matches!(entry, Entry::Time { .. }) {
            return self.apply(epoch, entry);
        }
        self.note_due(at.seconds());
        let (mut emit, mut stored) = (ClassSet::default(), Vec::new());
        let is_behind_store = self.progress.values().any(|mark| mark.reach() > epoch);
        for class in Span::FLUSH {
            match self.progress.get(&class).and_then(|mark| mark.through(epoch)) {
                Some(through) => stored.push((class, through)),
                None if self.due.contains(class) && !is_behind_store => emit.insert(class),
                None => continue,
            }
            self.due.remove(class);
        }
        let partly = stored.iter().filter(|(_, through)| *through != THROUGH_ALL).map(|(class, _)| *class);
        for class in emit.iter().chain(partly) {
            self.in_flight.insert(class, (epoch, 0));
        }
        self.apply(epoch, Entry::Time { at, emit, stored });
        self.hear_of_store(0);
    }

    /// Everything reaches the store.
    fn finish(&mut self) {
        self.hear_of_store(usize::MAX);
        self.now = Span::M1.window(self.now).end;
        self.ticked = self.now.seconds();
        self.append(Entry::Time { at: self.now, emit: all_classes(), stored: Vec::new() });
        let upper = self.journal.len() as Epoch;
        Span::FLUSH.into_iter().for_each(|class| {
            self.in_flight.insert(class, (upper, 0));
        });
        self.hear_of_store(0);
    }
}
