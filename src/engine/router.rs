//! The router: splits durable epochs by worker. Runs on the journal writer's thread behind each fsync, and at a start
//! over the frames behind the snapshot; both ways decide the same.
//!
//! Definitions change the registry here and nowhere else, so that it stands at a position of the journal. Time entries
//! decide here which batch classes are emitted: those with a boundary since the last time entry, or due since longer,
//! whose last emission the store has taken.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use super::batch::{self, BatchTicket, BatchUpdate, Waiting};
use super::{Message, RouterState, Shared, SnapshotTicket, StoredProgress, Ticket, Timed, UpdateTicket};
use crate::control::{ControlError, DefinitionTicket};
use crate::journal::{Durable, Follower, JournalError, Kind, Position, Rejected};
use dataflows::types::{
    ClassSet, Command, Definition, Epoch, EventId, Fact, Limited, Micros, SeriesId, Span, Update, Work,
};

/// What the store has: per class the epoch and the last series of it (see `store::Progress`).
pub type StoredClasses = BTreeMap<Span, (Epoch, SeriesId)>;

/// Told when the last worker has dropped it.
pub(crate) struct Completion {
    done: Option<Sender<Result<Limited, ControlError>>>,
    limited: Mutex<Limited>,
}

impl Completion {
    pub(super) fn new(done: Option<Sender<Result<Limited, ControlError>>>) -> Arc<Completion> {
        Arc::new(Completion { done, limited: Mutex::default() })
    }

    /// What one worker's share did to limits.
    pub(super) fn add(&self, limited: Limited) {
        *self.limited.lock().unwrap_or_else(PoisonError::into_inner) += limited;
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(done) = &self.done {
            let limited = *self.limited.get_mut().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits any more if the control thread has ended.
            let _ = done.send(Ok(limited));
        }
    }
}

/// One worker's share of an epoch of updates.
#[derive(Default)]
pub(crate) struct Share {
    pub(crate) updates: Vec<Update>,
    pub(crate) ids: Vec<(u32, EventId)>,
    pub(crate) waiting: Waiting,
}

/// See the header.
pub struct Router {
    shared: Arc<Shared>,
    shares: Vec<Share>,
    state: RouterState,
    /// When time changes something in the registry.
    timed_due_at: Option<Micros>,
}

impl Router {
    /// A router that goes on from a position.
    pub fn new(shared: Arc<Shared>, state: RouterState) -> Self {
        let shares = shared.queues.iter().map(|_| Share::default()).collect();
        let timed_due_at = shared.registry.read().unwrap_or_else(PoisonError::into_inner).timed_due_at();
        Router { shared, shares, state, timed_due_at }
    }

    /// Something was defined beside the journal: what the store had.
    pub fn defined_anew(&mut self) {
        self.timed_due_at =
            self.shared.registry.read().unwrap_or_else(PoisonError::into_inner).timed_due_at();
    }

    fn update(&mut self, ticket: UpdateTicket, stamp: Micros) {
        if let Some(keyed) = ticket.keyed {
            self.shared.ledger.keyed(keyed, stamp);
        }
        let share = &mut self.shares[ticket.series.worker(self.shared.queues.len())];
        let update = Update {
            slot: ticket.slot,
            item: share.waiting.alone.len() as u32,
            event_at: ticket.event_at.unwrap_or(stamp),
            amount: ticket.amount,
        };
        share.push(update, ticket.id);
        share.waiting.alone.push(ticket.reply);
    }

    fn batch(&mut self, ticket: BatchTicket, stamp: Micros) {
        if ticket.chunk.is_some_and(|chunk| !self.shared.loads.apply(chunk, stamp)) {
            // A client that has gone away does not want its answer.
            let _ = ticket.reply.send(Ok(None));
            return;
        }
        if let Some(keyed) = ticket.keyed {
            self.shared.ledger.keyed(keyed, stamp);
        }
        for (place, BatchUpdate { item, slot }) in (0..).zip(ticket.updates) {
            let share = &mut self.shares[item.series.worker(self.shared.queues.len())];
            let event_at = item.event_at.unwrap_or(stamp);
            let update = Update { slot, item: share.waiting.item_of(place), event_at, amount: item.amount };
            share.push(update, item.id);
        }
        batch::close(self.shares.iter_mut().map(|share| &mut share.waiting), ticket.reply);
    }

    /// Adds an update that nobody waits for.
    pub(crate) fn replay_update(&mut self, worker: usize, update: Update, id: Option<EventId>) {
        self.shares[worker].push(update, id);
    }

    /// Sends the shares of an epoch of updates.
    pub(crate) fn send_updates(&mut self, epoch: Epoch, stamp: Micros) {
        for (share, queue) in self.shares.iter_mut().zip(&self.shared.queues) {
            if !share.updates.is_empty() {
                let Share { updates, ids, waiting } = std::mem::take(share);
                queue.send(Message::Updates(Work::Updates { epoch, stamp, updates, ids }, waiting));
            }
        }
    }

    /// Applies a definition epoch to the registry and sends each worker its share.
    pub(crate) fn definitions(
        &mut self,
        epoch: Epoch,
        stamp: Micros,
        definitions: Arc<Vec<Definition>>,
        done: Option<Sender<Result<Limited, ControlError>>>,
    ) {
        let facts;
        let mut commands: Vec<Vec<Command>> = vec![Vec::new(); self.shared.queues.len()];
        {
            let mut registry = self.shared.registry.write().unwrap_or_else(PoisonError::into_inner);
            registry.set_now(self.state.last_time);
            for definition in definitions.iter() {
                if let Some((worker, command)) = registry.apply(definition) {
                    commands[worker].push(command);
                }
            }
            // An end that is near is cut before anything can be counted behind it.
            for (worker, command) in registry.end_periods(self.state.last_time) {
                commands[worker].push(command);
            }
            registry.queue_projection(epoch, definitions.clone());
            facts = registry.take_facts();
            self.timed_due_at = registry.timed_due_at();
        }
        if let Some(sink) = self.shared.sink.get() {
            sink.project(epoch, definitions.to_vec());
        }
        let completion = Completion::new(done);
        self.send_commands(epoch, stamp, commands, &completion);
        send_facts(&self.shared, epoch, stamp, facts, true, &completion);
    }

    fn send_commands(
        &self,
        epoch: Epoch,
        stamp: Micros,
        commands: Vec<Vec<Command>>,
        completion: &Arc<Completion>,
    ) {
        for (commands, queue) in commands.into_iter().zip(&self.shared.queues) {
            if !commands.is_empty() {
                queue.send(Message::Commands(Work::Commands { epoch, stamp, commands }, completion.clone()));
            }
        }
    }

    /// Subscriptions that have ended by a time entry lapse, a change of limits without a definition, and billing periods end.
    /// Most have nothing of the kind, and do not wait for who reads the registry.
    fn pass(&mut self, epoch: Epoch, at: Micros) {
        if self.timed_due_at.is_none_or(|due_at| due_at > at) {
            return;
        }
        let facts = {
            let mut registry = self.shared.registry.write().unwrap_or_else(PoisonError::into_inner);
            registry.pass(at);
            let mut commands: Vec<Vec<Command>> = vec![Vec::new(); self.shared.queues.len()];
            registry.end_periods(at).into_iter().for_each(|(worker, command)| commands[worker].push(command));
            self.timed_due_at = registry.timed_due_at();
            // Who sees in the registry that nothing is due asks the workers behind this.
            self.send_commands(epoch, at, commands, &Completion::new(None));
            registry.take_facts()
        };
        send_facts(&self.shared, epoch, at, facts, true, &Completion::new(None));
    }

    /// Sends a time entry. `stored` is what the store had at the start, for a replay.
    pub(crate) fn time(&mut self, epoch: Epoch, at: Micros, stored: &StoredProgress) {
        self.pass(epoch, at);
        let whole = stored.whole.iter().filter(|&(class, &upper)| {
            upper == epoch && stored.classes.get(class).is_none_or(|&(last, _)| last != epoch)
        });
        let mut known: Vec<_> = whole.map(|(&class, _)| (class, SeriesId(u32::MAX))).collect();
        let flush = self.shared.flush.load(Ordering::Acquire);
        let boundaries = if flush { ClassSet::ALL } else { boundaries(self.state.last_time, at) };
        let mut due = ClassSet(self.state.pending.0 | boundaries.0);
        self.state.last_time = at;
        for (&class, &(upper, through)) in &stored.classes {
            // What lies at or before the store's progress is not emitted again; at it, the store's part is known.
            if upper >= epoch {
                due.0 &= !(1 << class as u16);
            }
            if upper == epoch {
                known.push((class, through));
            }
        }
        // The sink wrote in the order of the epochs: nothing is emitted before the last one it came to.
        let settled = stored.classes.values().all(|&(upper, _)| upper < epoch);
        let emit = {
            let mut emissions = self.shared.emissions();
            for &(class, through) in known.iter().filter(|(_, through)| through.0 != u32::MAX) {
                emissions.begin_after(class, epoch, through);
            }
            match stored.doubt.and_then(|doubt| doubt.begun) {
                // Others of the same time entry may be in already: what was begun comes again all the same.
                Some((class, upper)) if upper == epoch => {
                    due.insert(class);
                    emissions.begin_again(class)
                }
                _ => emissions.begin(if settled { due } else { ClassSet::default() }),
            }
        };
        self.state.pending = ClassSet(due.0 & !emit.0);
        if flush && self.state.pending == ClassSet::default() {
            self.shared.flush.store(false, Ordering::Release);
        }
        for queue in &self.shared.queues {
            queue.send(Message::Time(Work::Time { epoch, at, emit, stored: known.clone() }));
        }
    }

    fn snapshot(&self, ticket: &SnapshotTicket, journal: Position) {
        for queue in &self.shared.queues {
            queue.send(Message::Snapshot(ticket.chunks.clone()));
        }
        // Definitions stand still until they have been encoded, time does not: this is what it has decided here.
        let timed = {
            let registry = self.shared.registry.read().unwrap_or_else(PoisonError::into_inner);
            Timed {
                lapsed: registry.lapses().lapsed(),
                ended: registry.subscriptions().ended_periods(),
                loads: self.shared.loads.export(),
            }
        };
        // Should nobody listen any more, the exports end by themselves: their channel is closed.
        let _ = ticket.reached.send((journal, self.state, timed));
    }
}

impl Share {
    fn push(&mut self, update: Update, id: Option<EventId>) {
        if let Some(id) = id {
            self.ids.push((self.updates.len() as u32, id));
        }
        self.updates.push(update);
    }
}

/// Hands the limits graph what has changed, if anything has: all workers hear of it, the first has the rows.
pub(super) fn send_facts(
    shared: &Shared,
    epoch: Epoch,
    stamp: Micros,
    mut facts: Vec<(Fact, isize)>,
    is_news: bool,
    completion: &Arc<Completion>,
) {
    if facts.is_empty() {
        return;
    }
    for queue in &shared.queues {
        let facts = std::mem::take(&mut facts);
        queue.send(Message::Commands(Work::Facts { epoch, stamp, facts, is_news }, completion.clone()));
    }
}

/// The classes with a boundary in `(from, to]`.
fn boundaries(from: Micros, to: Micros) -> ClassSet {
    let mut crossed = ClassSet::default();
    for class in Span::FLUSH {
        if to > from && class.window(to).start > from {
            crossed.insert(class);
        }
    }
    crossed
}

impl Follower<Ticket> for Router {
    fn durable(&mut self, epochs: Vec<Durable<Ticket>>) {
        for durable in epochs {
            let (epoch, stamp) = (durable.epoch, durable.stamp);
            match durable.kind {
                Kind::Time => self.time(epoch, stamp, &StoredProgress::default()),
                Kind::Updates | Kind::Definitions => {
                    for companion in durable.companions {
                        match companion {
                            Ticket::Update(ticket) => self.update(ticket, stamp),
                            Ticket::Batch(ticket) => self.batch(ticket, stamp),
                            Ticket::Definitions(DefinitionTicket { definitions, done }) => {
                                self.definitions(epoch, stamp, definitions, Some(done));
                            }
                            Ticket::Snapshot(_) => {}
                        }
                    }
                    self.send_updates(epoch, stamp);
                }
                Kind::Clock | Kind::Start | Kind::Seal => {}
            }
        }
    }

    fn barrier(&mut self, position: Position, companion: Ticket) {
        if let Ticket::Snapshot(ticket) = companion {
            self.snapshot(&ticket, position);
        }
    }

    fn failed(&mut self, companions: Vec<Ticket>, why: &JournalError) {
        tracing::error!(waiting = companions.len(), error = %why, "the journal failed: outcomes are unknown");
        for companion in companions {
            // A dropped reply is an unknown outcome.
            if let Ticket::Definitions(ticket) = companion {
                let _ = ticket.done.send(Err(ControlError::Unknown));
            }
        }
        self.shared.failed.notify_one();
    }

    fn rejected(&mut self, companions: Vec<Ticket>, why: &JournalError) {
        let why = if matches!(why, JournalError::DiskFull) { Rejected::DiskFull } else { Rejected::Draining };
        for companion in companions {
            match companion {
                Ticket::Update(ticket) => drop(ticket.reply.send(Err(why))),
                Ticket::Batch(ticket) => drop(ticket.reply.send(Err(why))),
                Ticket::Definitions(ticket) => drop(ticket.done.send(Err(why.into()))),
                Ticket::Snapshot(_) => {}
            }
        }
    }

    fn due_at(&mut self) -> Option<Micros> {
        let next_second = Micros(self.state.last_time.0 + Micros::PER_SECOND);
        if self.shared.flush.load(Ordering::Acquire) {
            return Some(next_second);
        }
        let timed = self.timed_due_at.map(|at| at.max(next_second));
        let due_at = self.shared.due_at().map(|due_at| {
            // A class that waits for the store must not write a time entry a second.
            let waiting =
                self.state.pending.0 != 0 && self.state.pending.0 & !self.shared.emissions().busy().0 == 0;
            let floor = if waiting { Span::S15.window(self.state.last_time).end } else { next_second };
            due_at.max(floor)
        });
        timed.into_iter().chain(due_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_due_when_its_boundary_has_been_passed() {
        let seconds = Micros::from_seconds;
        let due =
            |from, to| boundaries(seconds(from), seconds(to)).iter().map(Span::text).collect::<Vec<_>>();
        assert_eq!(due(1, 2), ["1s"]);
        assert_eq!(due(4, 5), ["1s", "5s"]);
        assert_eq!(due(29, 61), ["1s", "5s", "15s", "30s", "1m"]);
        assert_eq!(due(86_399, 86_400).len(), 11);
        assert!(due(10, 10).is_empty());
        assert!(due(10, 9).is_empty(), "the clock went back");
    }
}
