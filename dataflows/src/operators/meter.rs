//! Meter: applies updates and definitions to the series of one worker, in epoch order.
//!
//! | in | out |
//! |---|---|
//! | `Work::Updates` | a `Decision` for each update that somebody waits for |
//! | `Work::Commands` | nothing; series open, change, are cut, close |
//! | `Work::Time` | an `Emission` for each class that is due |
//!
//! The state is a function of the works in epoch order and of the acknowledgements; the latter only decide what may leave
//! memory. No I/O, no clock.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::dirty::DirtySet;
use super::ids::Ids;
use super::ledger::{Ledger, Now};
use crate::types::{
    Amount, Batch, ClassSet, Command, Decision, Epoch, EventId, Micros, NO_REPLY, Outcome, SeriesId,
    SeriesState, Shape, Span, Standing, Update, Work,
};

/// What the works of some epochs led to.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// One for each update that somebody waits for, in order.
    pub decisions: Vec<Decision>,
    /// Which epoch the decisions belong to: (epoch, number of decisions), in order; epochs without are left out.
    pub groups: Vec<(Epoch, usize)>,
    /// The changed rows of the classes that were due.
    pub batches: Vec<Batch>,
    /// Updates counted.
    pub admitted: u64,
    /// Updates not counted because their id was remembered.
    pub duplicates: u64,
    /// Updates not counted because their series was deleted.
    pub gone: u64,
    /// Updates counted whose window had ended before they arrived.
    pub late: u64,
}

/// The series of one worker.
pub struct Meter {
    worker: u32,
    ledgers: HashMap<u32, Ledger, FixedState>,
    ids: Ids,
    classes: [DirtySet; Span::FLUSH.len()],
    /// The greatest stamp so far.
    high: Micros,
    /// The last epoch that was applied.
    applied: Epoch,
    snapshot: Vec<SeriesState>,
}

impl Meter {
    /// No series yet.
    pub fn new(worker: u32, dedup_horizon_secs: u32) -> Meter {
        Meter {
            worker,
            ledgers: HashMap::default(),
            ids: Ids::new(dedup_horizon_secs),
            classes: Default::default(),
            high: Micros(i64::MIN),
            applied: 0,
            snapshot: Vec::new(),
        }
    }

    /// The last epoch that was applied.
    pub fn applied(&self) -> Epoch {
        self.applied
    }

    /// Applies one work. What is due is handed to `emit`, as it is at this epoch.
    pub fn apply(&mut self, work: Work, out: &mut Output, emit: &mut dyn FnMut(Batch)) {
        self.applied = work.epoch();
        match work {
            Work::Updates { epoch, stamp, updates, ids } => {
                self.advance(stamp);
                let decided = out.decisions.len();
                self.apply_updates(stamp, &updates, &ids, out);
                if out.decisions.len() > decided {
                    out.groups.push((epoch, out.decisions.len() - decided));
                }
            }
            Work::Commands { stamp, commands, .. } => {
                self.advance(stamp);
                commands.into_iter().for_each(|command| self.apply_command(stamp, command));
            }
            Work::Time { epoch, at, emit: due, stored } => {
                self.advance(at);
                for &(class, through) in &stored {
                    self.emit_class(epoch, at, class, Some(through), emit);
                }
                let done = |class: &Span| stored.iter().any(|(stored, _)| stored == class);
                for class in due.iter().filter(|class| !done(class)) {
                    self.emit_class(epoch, at, class, None, emit);
                }
            }
        }
    }

    fn advance(&mut self, stamp: Micros) {
        self.high = self.high.max(stamp);
        self.ids.advance(stamp);
    }

    fn apply_updates(&mut self, stamp: Micros, updates: &[Update], ids: &[(u32, EventId)], out: &mut Output) {
        let mut ids = ids.iter().peekable();
        for (index, update) in updates.iter().enumerate() {
            let id = ids.next_if(|(at, _)| *at as usize == index).map(|&(_, id)| id);
            self.apply_update(stamp, update, id, out);
        }
    }

    fn apply_update(&mut self, arrival: Micros, update: &Update, id: Option<EventId>, out: &mut Output) {
        let slot = update.slot;
        let Some(ledger) = self.ledgers.get_mut(&slot) else {
            out.gone += 1;
            if update.item != NO_REPLY {
                out.decisions.push(gone(update.item, arrival));
            }
            return;
        };
        let shape = *ledger.shape();
        let event_at = if shape.max_event_age_secs == 0 { arrival } else { update.event_at };
        let late = shape.flush.window(event_at).end <= arrival;
        let is_new = id.is_none_or(|id| self.ids.insert(id));
        if is_new {
            let classes = &self.classes;
            let acknowledged = |class: Span| classes[class as usize].acknowledged;
            let now = Now { arrival, high: self.high, acknowledged: &acknowledged };
            if let Some(class) = ledger.add(event_at, update.amount, &now) {
                self.classes[class as usize].insert(slot, arrival);
            }
            out.admitted += 1;
            out.late += u64::from(late);
        } else {
            out.duplicates += 1;
        }
        if update.item != NO_REPLY {
            let outcome = if is_new { Outcome::Admitted } else { Outcome::Duplicate };
            let (breached, current) = (ledger.is_breached(event_at, arrival), ledger.standing(arrival).value);
            out.decisions.push(Decision { item: update.item, outcome, late, breached, current, arrival });
        }
    }

    fn apply_command(&mut self, stamp: Micros, command: Command) {
        let classes = &self.classes;
        let acknowledged = |class: Span| classes[class as usize].acknowledged;
        let now = Now { arrival: stamp, high: self.high, acknowledged: &acknowledged };
        match command {
            Command::Open { slot, series, shape } => {
                self.ledgers.insert(slot, Ledger::new(blank(series, shape)));
            }
            Command::Reshape { slot, shape } => {
                if let Some(ledger) = self.ledgers.get_mut(&slot) {
                    ledger.reshape(shape, &now);
                }
            }
            Command::Cut { slot } => {
                let class = self.ledgers.get_mut(&slot).and_then(|ledger| ledger.cut(&now));
                if let Some(class) = class {
                    self.classes[class as usize].insert(slot, stamp);
                }
            }
            Command::Close { slot } => {
                self.ledgers.remove(&slot);
            }
        }
    }

    /// Emits what changed in a class. With `stored` the series up to that one are in the store already: they are only
    /// marked, and nothing is handed on if that is all of them.
    fn emit_class(
        &mut self,
        upper: Epoch,
        at: Micros,
        class: Span,
        stored: Option<SeriesId>,
        emit: &mut dyn FnMut(Batch),
    ) {
        let mut batch = Batch { class, upper, at, worker: self.worker, ..Batch::default() };
        for slot in self.classes[class as usize].take() {
            let Some(ledger) = self.ledgers.get_mut(&slot) else { continue };
            let live = ledger.live_state();
            if stored.is_some_and(|through| live.series <= through) {
                ledger.mark_stored(class);
                continue;
            }
            let (has_rows, has_merges) = ledger.emit(class, upper, &mut batch.rows);
            if has_rows {
                batch.states.push(live);
            }
            if has_merges {
                self.classes[class as usize].merging.push(slot);
            }
        }
        if stored != Some(SeriesId(u32::MAX)) {
            emit(batch);
        }
    }

    /// An emission is in the store, for the series up to and including `through`.
    pub fn acknowledge(&mut self, class: Span, upper: Epoch, through: SeriesId) {
        let dirty = &mut self.classes[class as usize];
        if through == SeriesId(u32::MAX) {
            dirty.acknowledged = dirty.acknowledged.max(upper);
        }
        for slot in std::mem::take(&mut dirty.merging) {
            if let Some(ledger) = self.ledgers.get_mut(&slot) {
                if ledger.live_state().series > through || ledger.acknowledge(class, upper) {
                    self.classes[class as usize].merging.push(slot);
                }
            }
        }
    }

    /// What a reader sees of a series at a moment; none when it is closed.
    pub fn standing(&self, slot: u32, at: Micros) -> Option<Standing> {
        self.ledgers.get(&slot).map(|ledger| ledger.standing(at))
    }

    /// Everything there is to know of a series; none when it is closed.
    pub fn state(&self, slot: u32) -> Option<SeriesState> {
        self.ledgers
            .get(&slot)
            .map(|ledger| ledger.export(&|class| self.classes[class as usize].acknowledged))
    }

    /// Puts a series of a snapshot into an unused slot.
    pub fn restore(&mut self, slot: u32, state: &SeriesState) {
        for class in Span::FLUSH {
            let set = &mut self.classes[class as usize];
            let is_merging = state.merges.iter().any(|merge| merge.class == class);
            if is_merging || state.windows.iter().any(|window| window.dirty.contains(class)) {
                set.insert(slot, self.high.max(Micros(0)));
            }
            if is_merging {
                set.merging.push(slot);
            }
        }
        self.ledgers.insert(slot, Ledger::new(state.clone()));
    }

    /// When the next time entry is wanted; none while nothing is dirty.
    pub fn due_at(&self) -> Option<Micros> {
        Span::FLUSH.into_iter().filter_map(|class| self.classes[class as usize].due_at(class)).min()
    }

    /// The classes in which something is dirty.
    pub fn dirty_classes(&self) -> ClassSet {
        let mut classes = ClassSet::default();
        let dirty = |class: &Span| self.classes[*class as usize].due_at(*class).is_some();
        Span::FLUSH.into_iter().filter(dirty).for_each(|class| classes.insert(class));
        classes
    }

    /// Begins a snapshot of the state as it is now.
    pub fn begin_snapshot(&mut self) {
        self.snapshot = self.ledgers.keys().filter_map(|&slot| self.state(slot)).collect();
        self.ids.begin_walk();
    }

    /// Shows the snapshot some more series; true when it has seen all.
    pub fn snapshot_step(&mut self, series_max: usize, each: &mut dyn FnMut(&SeriesState)) -> bool {
        let rest = self.snapshot.len().saturating_sub(series_max);
        self.snapshot.drain(rest..).for_each(|state| each(&state));
        self.snapshot.is_empty()
    }

    /// Shows the snapshot some more ids, grouped by generation; true when it has seen all.
    pub fn snapshot_ids(&mut self, each: &mut dyn FnMut(u64, &[EventId])) -> bool {
        self.ids.walk(each)
    }

    /// Puts back an id of a snapshot.
    pub fn restore_id(&mut self, generation: u64, id: EventId) {
        self.ids.restore(generation, id);
    }

    /// Number of ids in memory.
    pub fn ids(&self) -> usize {
        self.ids.len()
    }

    /// Number of open series.
    pub fn series(&self) -> usize {
        self.ledgers.len()
    }

    /// Number of windows in memory.
    pub fn windows(&self) -> usize {
        self.ledgers.values().map(|ledger| ledger.size().0).sum()
    }

    /// Memory held, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let entry = size_of::<(u32, Ledger)>() + 1;
        let ledgers: usize = self.ledgers.values().map(|ledger| ledger.size().1 + entry).sum();
        let dirty: usize = self.classes.iter().map(DirtySet::resident_bytes).sum();
        ledgers + dirty + self.ids.resident_bytes()
    }
}

/// A series that has just been opened.
fn blank(series: SeriesId, shape: Shape) -> SeriesState {
    let (windows, periods, cuts, merges) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    SeriesState { series, shape, touched: false, windows, periods, cuts, merges, switching: None }
}

fn gone(item: u32, arrival: Micros) -> Decision {
    Decision { item, outcome: Outcome::Gone, late: false, breached: false, current: Amount::ZERO, arrival }
}
