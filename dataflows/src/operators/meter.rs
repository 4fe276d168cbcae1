//! Meter: applies updates and definitions to the series of one worker, in epoch order.
//!
//! | in | out |
//! |---|---|
//! | `Work::Updates` | a `Decision` for each update that somebody waits for |
//! | `Work::Commands` | nothing; series open, change, are cut, close |
//! | `Work::Time` | series that are quiet for too long are cleaned; then a `PackedBatch` for each class that is due |
//!
//! Whether an update counts: not twice (`ids`), and not past a `block` limit (`block`). What it does to any limit: `crossings`.
//!
//! State: `cells` says what a series costs, `ids` what an id does. An update of the newest window touches one cache line,
//! asked for some updates ahead; one that opens a window touches two or three more.
//!
//! The state is a function of the works in epoch order and of the acknowledgements; the latter decide nothing but what
//! may leave memory. No I/O, no clock.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;

use super::batch::PackedBatch;
use super::cells::{Flags, moment};
use super::cleanup::{self, Cleanup};
use super::convert::When;
use super::crossings::is_quiet;
use super::dirty::DirtySet;
use super::ids::Ids;
use super::ledger::Ledger;
use super::plain::{Plain, mark_newest};
use super::snapshot::Snapshot;
use super::tick::{LENGTHS_MICROS, SPANS, Tick};
use crate::prefetch::prefetch;
use crate::types::{
    Amount, BRIEF, ClassSet, Command, Crossing, Decision, Epoch, EventId, Limited, Micros, NO_REPLY, Outcome,
    SeriesId, SeriesState, Shape, Span, Standing, Update, Verdict, Work,
};

/// How many updates ahead a cell is asked for, then what a late one or a new window will touch.
const CELL_AHEAD: usize = 24;
const OLDER_AHEAD: usize = 12;
/// How many series a time entry looks at for windows that have left.
const SWEEP: u32 = 2_048;
/// How many ledgers a time entry looks at for series that have become ordinary.
const COMPACT: usize = 64;

/// When what a snapshot brings back as dirty may have changed: it is due at once.
const LONG_AGO: Micros = Micros(i64::MIN / 2);

/// What the works of some epochs led to.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// One for each update that somebody waits for, in order.
    pub decisions: Vec<Decision>,
    /// Which epoch the decisions belong to: (epoch, number of decisions), in order; epochs without are left out.
    pub groups: Vec<(Epoch, usize)>,
    /// The changed rows of the classes that were due.
    pub batches: Vec<PackedBatch>,
    /// Updates counted.
    pub admitted: u64,
    /// Updates not counted because their id was remembered.
    pub duplicates: u64,
    /// Updates not counted because their series was deleted.
    pub gone: u64,
    /// Updates counted whose window had ended before they arrived.
    pub late: u64,
    /// Updates not counted because of a `block` limit.
    pub refused: u64,
    /// Updates not counted because their live period was no longer open and their series has such a limit.
    pub too_late: u64,
    /// What changed limits did.
    pub limited: Limited,
    /// Edges, in the order in which they were found.
    pub crossings: Vec<Crossing>,
    /// Which epoch they belong to, as `groups`.
    pub crossed: Vec<(Epoch, usize)>,
    /// One for each update that is one of many and was not admitted.
    pub verdicts: Vec<Verdict>,
}

impl Output {
    /// The crossings from an index on belong to an epoch.
    fn crossed_in(&mut self, epoch: Epoch, from: usize) {
        if self.crossings.len() > from {
            self.crossed.push((epoch, self.crossings.len() - from));
        }
    }

    fn tell(&mut self, epoch: Epoch, item: u32, outcome: Outcome) {
        if item != NO_REPLY && outcome != Outcome::Admitted {
            self.verdicts.push(Verdict { epoch, item, outcome });
        }
    }
}

/// The series of one worker.
pub(crate) struct Meter {
    worker: u32,
    pub(super) plain: Plain,
    pub(super) ledgers: HashMap<u32, Ledger, FixedState>,
    /// Slots that were given a ledger, to be looked at for whether they still need it.
    extraordinary: VecDeque<u32>,
    pub(super) ids: Ids,
    pub(super) classes: [DirtySet; SPANS],
    pub(super) cleanup: Cleanup,
    /// By slot: see `Standing::refused`.
    pub(super) refused: HashMap<u32, u64, FixedState>,
    pub(super) tick: Tick,
    works: u64,
    /// The next slot to be looked at for windows that have left.
    sweep: u32,
    pub(super) snapshot: Option<Snapshot>,
}

impl Meter {
    /// No series yet.
    pub fn new(worker: u32, dedup_horizon_secs: u32) -> Meter {
        Meter {
            worker,
            plain: Plain::default(),
            ledgers: HashMap::default(),
            extraordinary: VecDeque::new(),
            ids: Ids::new(dedup_horizon_secs),
            classes: Default::default(),
            cleanup: Cleanup::default(),
            refused: HashMap::default(),
            tick: Tick::default(),
            works: 0,
            sweep: 0,
            snapshot: None,
        }
    }

    /// How many works were applied.
    pub fn works(&self) -> u64 {
        self.works
    }

    /// Applies one work. What is due is handed to `emit`, as it is at this epoch.
    pub fn apply(&mut self, work: Work, out: &mut Output, emit: &mut dyn FnMut(PackedBatch)) {
        self.works += 1;
        match work {
            Work::Updates { epoch, stamp, updates, ids } => {
                self.advance(stamp);
                let (decided, crossed) = (out.decisions.len(), out.crossings.len());
                self.apply_updates(epoch, &updates, &ids, out);
                out.crossed_in(epoch, crossed);
                if out.decisions.len() > decided {
                    out.groups.push((epoch, out.decisions.len() - decided));
                }
            }
            Work::Commands { epoch, stamp, commands } => {
                self.advance(stamp);
                commands.into_iter().for_each(|command| self.apply_command(epoch, command, out));
            }
            // The driver makes commands of it.
            Work::Facts { .. } => {}
            Work::Time { epoch, at, emit: due, stored } => {
                self.advance(at);
                self.clean();
                for &(class, through) in &stored {
                    self.emit_class(epoch, class, Some(through), emit);
                }
                let is_done = |class: &Span| stored.iter().any(|(stored, _)| stored == class);
                for class in due.iter().filter(|class| !is_done(class)) {
                    self.emit_class(epoch, class, None, emit);
                }
                self.tidy();
            }
        }
    }

    fn advance(&mut self, stamp: Micros) {
        self.tick.advance(stamp);
        self.ids.advance(stamp);
    }

    fn apply_updates(&mut self, epoch: Epoch, updates: &[Update], ids: &[(u32, EventId)], out: &mut Output) {
        let arrival = self.tick.arrival;
        let mut ids = ids.iter().copied().peekable();
        let arrival_secs = cleanup::seconds(arrival);
        let (mut admitted, mut late) = (0, 0);
        for (index, update) in updates.iter().enumerate() {
            self.look_ahead(updates, index);
            let id = ids.next_if(|(at, _)| *at as usize == index).map(|(_, id)| id);
            if id.is_none()
                && let Some(cell) = self.plain.cells.find_mut(update.slot)
            {
                let event_at = if cell.flags.has(Flags::ARRIVAL_ONLY) { arrival } else { update.event_at };
                let length_micros = LENGTHS_MICROS[cell.flags.flush()];
                let end = moment(cell.window).0 + length_micros;
                if (end.wrapping_sub(event_at.0) as u64).wrapping_sub(1) < length_micros as u64 {
                    // One test for what is rare, as it was for `cleanup_after` alone: a series without a limit pays
                    // nothing for those that have one.
                    let flags = cell.flags;
                    if flags.has(Flags::WATCHED | Flags::BLOCKS | Flags::LIMITED)
                        && (flags.has(Flags::WATCHED | Flags::BLOCKS) || !cell.is_far_with(update.amount))
                    {
                        if flags.has(Flags::BLOCKS)
                            || flags.has(Flags::LIMITED)
                                && !is_quiet(cell, update.amount, *self.plain.edges.get(update.slot))
                        {
                            self.apply_update(epoch, update, None, out);
                            continue;
                        }
                        if flags.has(Flags::WATCHED) {
                            self.cleanup.note(update.slot, arrival_secs);
                        }
                    }
                    cell.sums.add(update.amount);
                    admitted += 1;
                    late += u64::from(end <= arrival.0);
                    if !cell.sums.is_dirty() && mark_newest(cell) {
                        self.classes[cell.flags.class()].insert(update.slot, arrival);
                    }
                    if update.item < BRIEF {
                        out.decisions.push(self.decide(update, event_at, Outcome::Admitted, arrival));
                    }
                    continue;
                }
            }
            self.apply_update(epoch, update, id, out);
        }
        out.admitted += admitted;
        out.late += late;
    }

    /// Asks for what the updates ahead will touch.
    #[inline(always)]
    fn look_ahead(&self, updates: &[Update], index: usize) {
        let Some(update) = updates.get(index + CELL_AHEAD) else { return };
        if let Some(cell) = self.plain.cells.find(update.slot) {
            prefetch(cell);
        }
        let update = &updates[index + OLDER_AHEAD];
        if let Some(cell) = self.plain.cells.find(update.slot) {
            let into_micros = update.event_at.0 - moment(cell.window).0;
            let rolls = into_micros >= LENGTHS_MICROS[cell.flags.flush()] && !cell.flags.has(Flags::PERIODIC);
            let is_other = into_micros < 0 || rolls;
            if is_other {
                self.plain.prefetch_older(cell, update.event_at);
            }
            if cell.flags.has(Flags::LIMITED) && (is_other || !cell.is_far_with(Amount::ZERO)) {
                prefetch(self.plain.edges.get(update.slot));
            }
            if cell.flags.has(Flags::WATCHED) {
                self.cleanup.prefetch(update.slot);
            }
        }
    }

    /// Any update, with or without an id.
    #[inline(never)]
    fn apply_update(&mut self, epoch: Epoch, update: &Update, id: Option<EventId>, out: &mut Output) {
        let (slot, arrival, flags) = (update.slot, self.tick.arrival, self.plain.flags(update.slot));
        if flags.is_closed() {
            out.gone += 1;
            if update.item < BRIEF {
                out.decisions.push(gone(update.item, arrival));
            } else {
                out.tell(epoch, update.item, Outcome::Gone);
            }
            return;
        }
        let (flush, is_arrival_only) = if flags.is_plain() {
            (flags.shape_flush(), flags.has(Flags::ARRIVAL_ONLY))
        } else {
            let shape = self.shape(slot);
            (shape.flush as usize, shape.max_event_age_secs == 0)
        };
        let event_at = if is_arrival_only { arrival } else { update.event_at };
        let outcome = self.judge(update, flags, event_at, id, out);
        if outcome == Outcome::Admitted {
            let quiet = self.quiet_before(slot, flags, update.amount);
            let before = if quiet.is_some() { None } else { self.watched_tally(slot, event_at) };
            if let Some(quiet_max_secs) = self.quiet_max_secs(slot) {
                self.note_arrival(slot, quiet_max_secs);
            }
            self.add(slot, flags, event_at, update.amount);
            if let Some(before) = before {
                self.note_update(slot, event_at, &before, out);
            }
            match quiet {
                Some(before) => self.keep_edge(slot, before),
                None => self.find_edge(slot),
            }
            out.admitted += 1;
            out.late += u64::from(is_late(event_at, flush, arrival));
        }
        if update.item < BRIEF {
            out.decisions.push(self.decide(update, event_at, outcome, arrival));
        } else {
            out.tell(epoch, update.item, outcome);
        }
    }

    pub(super) fn series_in(&self, slot: u32) -> SeriesId {
        self.ledgers.get(&slot).map_or_else(|| self.plain.series(slot), Ledger::series)
    }

    pub(super) fn shape(&self, slot: u32) -> &Shape {
        self.ledgers.get(&slot).map_or_else(|| self.plain.shape(slot), Ledger::shape)
    }

    fn add(&mut self, slot: u32, flags: Flags, event_at: Micros, amount: Amount) {
        if flags.is_plain() {
            match self.plain.add(slot, event_at, amount, &self.tick) {
                Ok(false) => return,
                Ok(true) => return self.classes[flags.class()].insert(slot, self.tick.arrival),
                Err(_) => self.give_ledger(slot),
            }
        }
        let class = self.ledgers.get_mut(&slot).and_then(|ledger| ledger.add(event_at, amount, &self.tick));
        if let Some(class) = class {
            self.classes[class as usize].insert(slot, self.tick.arrival);
        }
    }

    /// From now on the series is kept in full generality.
    fn give_ledger(&mut self, slot: u32) {
        if let Some((state, in_flight)) = self.plain.export(slot, When::Now, &self.tick) {
            self.plain.vacate(slot, Flags::LEDGER);
            self.ledgers.insert(slot, Ledger::new(state, &in_flight, &self.tick));
            self.extraordinary.push_back(slot);
        }
    }

    /// Takes the ledger away again if the series has become ordinary.
    fn take_ledger(&mut self, slot: u32) -> bool {
        let compact = self.ledgers.get_mut(&slot).and_then(|ledger| ledger.compact(&self.tick));
        if let Some((state, in_flight)) = &compact {
            self.ledgers.remove(&slot);
            self.plain.install(slot, state, in_flight, &self.tick);
        }
        compact.is_some()
    }

    pub(super) fn decide(
        &self,
        update: &Update,
        event_at: Micros,
        outcome: Outcome,
        arrival: Micros,
    ) -> Decision {
        let Update { slot, item, amount, .. } = *update;
        let (shape, breached, standing) = match self.ledgers.get(&slot) {
            Some(ledger) => (ledger.shape(), ledger.is_breached(event_at, arrival), ledger.standing(arrival)),
            None => {
                let plain = &self.plain;
                let breached = plain.is_breached(slot, event_at, arrival);
                (plain.shape(slot), breached, plain.standing(slot, arrival))
            }
        };
        let late = is_late(event_at, shape.flush as usize, arrival);
        let is_refused = outcome == Outcome::Refused;
        let refusal = is_refused.then(|| self.refusal(slot, event_at, amount, arrival)).flatten();
        let (current, held) = (standing.value, standing.held());
        Decision { item, outcome, late, breached, current, arrival, refusal, held }
    }

    fn apply_command(&mut self, epoch: Epoch, command: Command, out: &mut Output) {
        match command {
            Command::Open { slot, series, shape } => self.plain.open(slot, series, &shape),
            Command::Reshape { slot, shape } => {
                if !self.plain.flags(slot).is_closed() {
                    let Shape { limit, limit_source, notify, .. } = *self.shape(slot);
                    self.reshape(slot, Shape { limit, limit_source, notify, ..shape });
                }
            }
            Command::Limit { slot, limit, is_news } => {
                let found = out.crossings.len();
                self.limit(slot, limit, is_news, out);
                out.crossed_in(epoch, found);
            }
            Command::Cut { slot, at } => {
                let at = at.unwrap_or(self.tick.arrival);
                self.give_ledger(slot);
                let class = self.ledgers.get_mut(&slot).and_then(|ledger| ledger.cut(at, &self.tick));
                if let Some(class) = class {
                    self.classes[class as usize].insert(slot, self.tick.arrival);
                }
            }
            Command::Close { slot } => {
                self.ledgers.remove(&slot);
                if !self.plain.flags(slot).is_closed() {
                    self.plain.vacate(slot, Flags::CLOSED);
                }
                self.unwatch(slot);
                self.refused.remove(&slot);
            }
        }
    }

    pub(super) fn reshape(&mut self, slot: u32, shape: Shape) {
        let quiet_max_secs = self.quiet_max_secs(slot);
        if self.plain.flags(slot).is_plain() && self.plain.reshape(slot, &shape).is_err() {
            self.give_ledger(slot);
        }
        if let Some(ledger) = self.ledgers.get_mut(&slot) {
            ledger.reshape(shape, &self.tick);
        }
        self.rewatch(slot, quiet_max_secs);
    }

    /// Emits what changed in a class. With `stored` the series up to that one are in the store already: they are only
    /// marked, and nothing is handed on if that is all of them.
    fn emit_class(
        &mut self,
        upper: Epoch,
        class: Span,
        stored: Option<SeriesId>,
        emit: &mut dyn FnMut(PackedBatch),
    ) {
        let flight = &mut self.tick.flights[class as usize];
        (flight.emission, flight.upper) = (flight.emission.wrapping_add(1), upper);
        let emission = flight.emission;
        let slots = self.classes[class as usize].take();
        let (at, worker) = (self.tick.arrival, self.worker);
        let mut batch = PackedBatch { class, upper, at, worker, ..PackedBatch::default() };
        for (index, &slot) in slots.iter().enumerate() {
            self.plain.look_ahead(&slots, index);
            batch.cleaned.extend(self.cleanup.emit(slot, (class, upper), stored, &self.tick));
            let through = stored.unwrap_or(SeriesId(0));
            let flags = self.plain.flags(slot);
            if flags.is_plain() {
                if flags.class() != class as usize {
                    continue; // It was dirty here in an earlier shape.
                }
                if stored.is_some() && self.plain.series(slot) <= through {
                    self.plain.mark_stored(slot);
                } else {
                    self.plain.emit(slot, emission, &mut batch);
                }
            } else if let Some(ledger) = self.ledgers.get_mut(&slot) {
                if stored.is_some() && ledger.series() <= through {
                    ledger.mark_stored(class);
                    continue;
                }
                let (has_rows, has_merges) = ledger.emit(class, upper, &mut batch.rows);
                batch.states.extend(has_rows.then(|| ledger.live_state(&self.tick)));
                if has_merges {
                    self.classes[class as usize].merging.push(slot);
                }
            }
        }
        if stored == Some(SeriesId(u32::MAX)) {
            self.tick.flights[class as usize].acknowledged = upper;
        } else {
            emit(batch);
        }
    }

    /// An emission is in the store, for the series up to and including `through`.
    pub fn acknowledge(&mut self, class: Span, upper: Epoch, through: SeriesId) {
        if through == SeriesId(u32::MAX) {
            let flight = &mut self.tick.flights[class as usize];
            flight.acknowledged = flight.acknowledged.max(upper);
        }
        self.cleanup.acknowledge(class, upper, through);
        for slot in std::mem::take(&mut self.classes[class as usize].merging) {
            let Some(ledger) = self.ledgers.get_mut(&slot) else { continue };
            if ledger.series() > through || ledger.acknowledge(class, upper) {
                self.classes[class as usize].merging.push(slot);
            } else {
                self.take_ledger(slot);
            }
        }
    }

    /// A little housekeeping: frees what has left, and makes ledgers cells again.
    fn tidy(&mut self) {
        self.plain.retire_all(&self.tick);
        for _ in 0..SWEEP.min(self.plain.slots()) {
            self.sweep = if self.sweep + 1 < self.plain.slots() { self.sweep + 1 } else { 0 };
            self.plain.sweep(self.sweep, &self.tick);
        }
        for _ in 0..COMPACT.min(self.extraordinary.len()) {
            if let Some(slot) = self.extraordinary.pop_front()
                && self.ledgers.contains_key(&slot)
                && !self.take_ledger(slot)
            {
                self.extraordinary.push_back(slot);
            }
        }
    }

    /// What a reader sees of a series at a moment; none when it is closed.
    pub fn standing(&self, slot: u32, at: Micros) -> Option<Standing> {
        let standing = match self.plain.flags(slot) {
            flags if flags.is_closed() => return None,
            flags if flags.is_plain() => self.plain.standing(slot, at),
            _ => self.ledgers.get(&slot)?.standing(at),
        };
        Some(Standing { refused: self.refused.get(&slot).copied().unwrap_or(0), ..standing })
    }

    /// Everything there is to know of a series; none when it is closed.
    pub fn state(&self, slot: u32) -> Option<SeriesState> {
        if let Some(ledger) = self.ledgers.get(&slot) {
            return Some(self.cleanup.complete_now(slot, ledger.export(&self.tick)));
        }
        let (state, in_flight) = self.plain.export(slot, When::Now, &self.tick)?;
        let state = Ledger::new(state, &in_flight, &self.tick).export(&self.tick);
        Some(self.cleanup.complete_now(slot, state))
    }

    /// Puts a series of a snapshot into an unused slot.
    pub fn restore(&mut self, slot: u32, state: &SeriesState) {
        for window in &state.windows {
            for class in window.dirty.iter() {
                self.classes[class as usize].insert(slot, LONG_AGO);
            }
        }
        for merge in &state.merges {
            self.classes[merge.class as usize].insert(slot, LONG_AGO);
            self.classes[merge.class as usize].merging.push(slot);
        }
        self.plain.open(slot, state.series, &state.shape);
        self.plain.vacate(slot, Flags::LEDGER);
        self.ledgers.insert(slot, Ledger::new(state.clone(), &[], &self.tick));
        self.restore_cleanup(slot, state, LONG_AGO);
        if !self.take_ledger(slot) {
            self.extraordinary.push_back(slot);
        }
    }

    /// When the next time entry is wanted; none while nothing is dirty or watched.
    pub fn due_at(&self) -> Option<Micros> {
        let classes = Span::FLUSH.into_iter().filter_map(|class| self.classes[class as usize].due_at(class));
        classes.chain(self.cleanup.due_at()).min()
    }

    /// The classes in which something is dirty.
    pub fn dirty_classes(&self) -> ClassSet {
        let mut classes = ClassSet::default();
        let is_dirty = |class: &Span| self.classes[*class as usize].due_at(*class).is_some();
        Span::FLUSH.into_iter().filter(is_dirty).for_each(|class| classes.insert(class));
        classes
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
        self.plain.open_series() + self.ledgers.len()
    }

    /// Number of windows in memory.
    pub fn windows(&self) -> usize {
        self.plain.windows() + self.ledgers.values().map(|ledger| ledger.size().0).sum::<usize>()
    }

    /// Memory held, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let entry = size_of::<(u32, Ledger)>() + 1;
        let ledgers: usize = self.ledgers.values().map(|ledger| ledger.size().1 + entry).sum();
        let dirty: usize = self.classes.iter().map(DirtySet::resident_bytes).sum();
        self.plain.resident_bytes()
            + ledgers
            + dirty
            + self.ids.resident_bytes()
            + self.cleanup.resident_bytes()
            + self.refused.capacity() * (size_of::<(u32, u64)>() + 1)
    }
}

fn is_late(event_at: Micros, flush: usize, arrival: Micros) -> bool {
    let length_micros = LENGTHS_MICROS[flush];
    (event_at.0.div_euclid(length_micros) + 1) * length_micros <= arrival.0
}

fn gone(item: u32, arrival: Micros) -> Decision {
    let (outcome, current) = (Outcome::Gone, Amount::ZERO);
    Decision { item, outcome, late: false, breached: false, current, arrival, refusal: None, held: None }
}
