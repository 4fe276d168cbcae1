//! The engine: durable epochs in, decisions, readings and emissions out.
//!
//! ```text
//! journal ─▶ router (on the writer's thread) ─▶ one queue a worker ─▶ Driver (timely) ─▶ replies to waiting requests
//!              │ definitions: Registry::apply                            ├─▶ readings, answered between epochs
//!              ▼                                                         └─▶ batches ─▶ emissions ─▶ Sink
//!            Sink::project
//! ```
//! Invariants: a worker gets its share of the epochs in journal order and whatever is sent behind an epoch sees it; at
//! most one emission of a batch class is on its way to the store; nothing here waits for I/O. The queues are bounded by
//! what admission and control let in: every message answers somebody who waits, but for time entries (one a second).

mod batch;
mod crossings;
mod emissions;
mod hydrate;
mod loads;
mod older;
mod replay;
mod router;
mod snapshot;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::Thread;

use dataflows::types::packed::{Keyed, LoadChunk};
use dataflows::types::{
    Amount, ClassSet, Crossing, Decision, Definition, Epoch, EventId, Micros, SeriesId, SeriesState, Span,
    Standing, Update, Work,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use crate::control::slices::PeriodUsage;
use crate::control::{DefinitionTicket, Registry, SeriesHandle};
use crate::journal::{Position, Rejected};

pub use batch::{Answer as BatchAnswer, BatchTicket, BatchUpdate};
pub use emissions::Emission;
pub use hydrate::hydrate;
pub use loads::LOADS_MAX;
pub use replay::{Doubt, ReplayError, Replayed, StoredProgress, replay};
pub use router::{Router, StoredClasses};
pub use snapshot::{Chunk, SnapshotError, Timed, take_snapshot};
pub use worker::Workers;

/// Where emissions and definitions go. Neither call blocks.
pub trait Sink: Send + Sync {
    /// The next emission; its class has none outstanding.
    fn take(&self, emission: Arc<Emission>);

    /// All definitions of one epoch, in rising order of epochs, each before the emissions behind it.
    fn project(&self, epoch: Epoch, definitions: Vec<Definition>);

    /// Crossings with their epochs, rising: with these, all of epochs below `upper`.
    fn cross(&self, upper: Epoch, crossings: Vec<(Epoch, Crossing)>);
}

/// Who wants to know that something is in the store. Called by the sink's thread behind the commit; must not block.
pub trait Stored: Send + Sync {
    /// The emission of this class is in, all of it.
    fn stored(&self, class: Span, upper: Epoch);

    /// Definitions up to and including this epoch are in.
    fn definitions_stored(&self, upper: Epoch);

    /// Crossings of epochs below this one are in.
    fn crossings_stored(&self, upper: Epoch);

    /// What was in doubt at the start has been read: per class the last epoch and series that are in, and the last
    /// epoch that is in whole.
    fn progress_read(&self, classes: &StoredClasses, whole: &BTreeMap<Span, Epoch>);
}

/// Who must know which keys and ids the journal holds: admission's tables.
pub trait Ledger: Send + Sync {
    /// A request with an `Idempotency-Key` is in the journal under that stamp.
    fn keyed(&self, keyed: Keyed, stamp: Micros);
    /// A remembered id of that series came back at a start, in that generation.
    fn remembered(&self, series: SeriesId, generation: u64);
    /// The keys to put into a snapshot, with the stamps they were remembered under.
    fn keys(&self) -> Vec<(Keyed, Micros)>;
}

/// What accompanies an append through the journal.
pub enum Ticket {
    /// One update.
    Update(UpdateTicket),
    /// Many, of one request.
    Batch(BatchTicket),
    /// A definition epoch.
    Definitions(DefinitionTicket),
    /// A position to take a snapshot at.
    Snapshot(SnapshotTicket),
}

/// One update on its way.
pub struct UpdateTicket {
    /// The series and its slot.
    pub series: SeriesId,
    /// See `series`.
    pub slot: u32,
    /// The event time; none is the arrival.
    pub event_at: Option<Micros>,
    /// The amount.
    pub amount: Amount,
    /// Its id.
    pub id: Option<EventId>,
    /// The key of its request.
    pub keyed: Option<Keyed>,
    /// Who waits. Dropped without an answer: the outcome is unknown; told `Err`: nothing was written.
    pub reply: oneshot::Sender<Result<Decision, Rejected>>,
}

/// Answered by the router when the journal has come to the barrier.
pub struct SnapshotTicket {
    /// Told the position, and what the router and the registry remember there beside definitions.
    pub reached: Sender<(Position, RouterState, Timed)>,
    /// Where the workers send their series, encoded.
    pub chunks: SyncSender<Chunk>,
}

/// What the router itself remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterState {
    /// The last time entry.
    pub last_time: Micros,
    /// Classes that are due but not yet emitted.
    pub pending: ClassSet,
}

/// How the engine is sized.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Timely workers.
    pub workers: usize,
    /// How long ids are remembered, in seconds.
    pub dedup_horizon_secs: u32,
}

/// What a worker is told.
pub(crate) enum Message {
    /// A share of an epoch of updates, and who waits for it.
    Updates(Work, batch::Waiting),
    /// A share of a definition epoch; the last worker that drops its copy completes it.
    Commands(Work, Arc<router::Completion>),
    /// A time entry.
    Time(Work),
    /// Readings of slots at a moment.
    Standings(Vec<u32>, Micros, oneshot::Sender<Vec<Option<Standing>>>),
    /// Whether an update that arrived now would be refused by its limit; then the answer.
    Refuse(Update, Option<EventId>, Micros, oneshot::Sender<Option<Decision>>),
    /// One series in full.
    State(u32, oneshot::Sender<Option<SeriesState>>),
    /// Live periods of slots.
    Periods(Vec<u32>, oneshot::Sender<Vec<Option<Vec<PeriodUsage>>>>),
    /// An emission is in the store, for the series up to and including the given one.
    Stored(Span, Epoch, SeriesId),
    /// Export everything as of now.
    Snapshot(SyncSender<Chunk>),
    /// A start: series and ids of a snapshot.
    Restore(Vec<(u32, SeriesState)>, Vec<(u64, EventId)>),
    /// A start: answered when everything before has been applied.
    Flush(Sender<()>),
    /// The end.
    Stop,
}

/// Sends to one worker and wakes it.
pub(crate) struct WorkerQueue {
    pub(crate) sender: Sender<Message>,
    pub(crate) thread: OnceLock<Thread>,
}

impl WorkerQueue {
    pub(crate) fn send(&self, message: Message) {
        // A closed queue means that the process is stopping: whoever waits for the answer sees it dropped.
        if self.sender.send(message).is_ok()
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// Counters that the service shows.
#[derive(Default)]
pub struct EngineCounters {
    /// Updates counted.
    pub admitted: AtomicU64,
    /// Updates recognised as repeats.
    pub duplicates: AtomicU64,
    /// Updates for deleted series.
    pub gone: AtomicU64,
    /// Updates whose window had ended.
    pub late: AtomicU64,
    /// Updates refused by a `block` limit, with and without the journal.
    pub refused: AtomicU64,
    /// Updates for a live period that was no longer open, of series with such a limit.
    pub too_late: AtomicU64,
    /// Resident windows of all workers, as of the last time entry.
    pub windows: AtomicU64,
    /// Per worker: live series, resident windows, remembered ids, resident bytes.
    pub resident: Mutex<Vec<[u64; 4]>>,
}

/// What router, workers and readers share.
pub struct Shared {
    pub(crate) registry: Arc<RwLock<Registry>>,
    pub(crate) queues: Vec<WorkerQueue>,
    pub(crate) emissions: Mutex<emissions::Emissions>,
    pub(crate) crossings: Mutex<crossings::Crossings>,
    /// When crossings want a time entry; `i64::MAX` never.
    pub(crate) crossing_due: AtomicI64,
    /// Per worker: when it next wants a time entry; `i64::MAX` never.
    pub(crate) due: Vec<AtomicI64>,
    pub(crate) loads: loads::Loads,
    pub(crate) sink: OnceLock<Arc<dyn Sink>>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) failed: Notify,
    /// The service is stopping: the next time entry emits every class.
    pub(crate) flush: AtomicBool,
    /// Tells the journal writer to look at the due times again.
    pub(crate) wake_journal: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// What the service shows.
    pub counters: EngineCounters,
}

impl Shared {
    /// Where emissions and definitions go from now on. A second call changes nothing.
    pub fn write_to(&self, sink: Arc<dyn Sink>) {
        let _ = self.sink.set(sink);
    }

    /// How the journal's writer is told to look at the due times again.
    pub fn wake_with(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake_journal.set(Box::new(wake));
    }

    /// Ends when the journal has failed: the process must end, too.
    pub async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Updates decided since the start, those of the replay included; refusals change nothing and are left out.
    pub fn updates(&self) -> u64 {
        let counters = [&self.counters.admitted, &self.counters.duplicates, &self.counters.gone];
        counters.into_iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn emissions(&self) -> std::sync::MutexGuard<'_, emissions::Emissions> {
        self.emissions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn crossings(&self) -> std::sync::MutexGuard<'_, crossings::Crossings> {
        self.crossings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a time entry that emits whatever has changed, whole batch intervals or not.
    pub fn flush(&self) {
        self.flush.store(true, Ordering::Release);
        self.wake_journal();
    }

    /// Whether nothing that was emitted, or asked for by `flush`, is still to come into the store.
    pub fn is_flushed(&self) -> bool {
        !self.flush.load(Ordering::Acquire) && self.emissions().busy() == ClassSet::default()
    }

    pub(crate) fn wake_journal(&self) {
        if let Some(wake) = self.wake_journal.get() {
            wake();
        }
    }

    /// Tells the workers what the store has.
    fn tell_stored(&self, classes: &StoredClasses, whole: &BTreeMap<Span, Epoch>) {
        for queue in &self.queues {
            for (&class, &upper) in whole {
                queue.send(Message::Stored(class, upper, SeriesId(u32::MAX)));
            }
            for (&class, &(upper, through)) in classes {
                queue.send(Message::Stored(class, upper, through));
            }
        }
    }

    /// The earliest moment at which a worker wants a time entry.
    pub(crate) fn due_at(&self) -> Option<Micros> {
        let due = self.due.iter().chain([&self.crossing_due]);
        let earliest = due.map(|due| due.load(Ordering::Acquire)).min();
        earliest.filter(|&at| at != i64::MAX).map(Micros)
    }
}

impl Stored for Shared {
    fn stored(&self, class: Span, upper: Epoch) {
        self.emissions().stored(class);
        for queue in &self.queues {
            queue.send(Message::Stored(class, upper, SeriesId(u32::MAX)));
        }
        self.wake_journal();
    }

    fn progress_read(&self, classes: &StoredClasses, whole: &BTreeMap<Span, Epoch>) {
        self.tell_stored(classes, whole);
        self.emissions().end_doubt();
        self.wake_journal();
    }

    fn definitions_stored(&self, upper: Epoch) {
        self.registry.write().unwrap_or_else(PoisonError::into_inner).set_projected(upper);
    }

    fn crossings_stored(&self, upper: Epoch) {
        self.crossings().stored(upper);
    }
}

/// Questions to the owning workers, answered between epochs: an answer sees whatever was acknowledged before.
#[derive(Clone)]
pub struct Queries(Arc<Shared>);

/// The workers are gone: the service is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

impl Queries {
    /// Whether a chunk of a load has been applied.
    pub fn has_chunk(&self, chunk: LoadChunk) -> bool {
        self.0.loads.has(chunk)
    }

    /// Whether another load would be one too many.
    pub fn is_full_for(&self, load: u128) -> bool {
        self.0.loads.is_full_for(load)
    }

    /// Questions to these workers.
    pub fn new(shared: Arc<Shared>) -> Self {
        Queries(shared)
    }

    /// Windows in memory, as of the last time entry.
    pub fn resident_windows(&self) -> u64 {
        self.0.counters.windows.load(Ordering::Relaxed)
    }

    /// Readings at `at`, one a handle; none for a series that has been deleted meanwhile.
    pub async fn standings(
        &self,
        handles: &[SeriesHandle],
        at: Micros,
    ) -> Result<Vec<Option<Standing>>, Stopped> {
        self.ask_slots(handles, |slots, reply| Message::Standings(slots, at, reply)).await
    }

    /// Asks each owning worker about its slots; the answers in the order of the handles.
    async fn ask_slots<T: Clone>(
        &self,
        handles: &[SeriesHandle],
        message: impl Fn(Vec<u32>, oneshot::Sender<Vec<Option<T>>>) -> Message,
    ) -> Result<Vec<Option<T>>, Stopped> {
        let workers = self.0.queues.len();
        let mut slots = vec![Vec::new(); workers];
        let mut positions = vec![Vec::new(); workers];
        for (position, handle) in handles.iter().enumerate() {
            let worker = handle.series.worker(workers);
            slots[worker].push(handle.slot);
            positions[worker].push(position);
        }
        let mut answers = Vec::new();
        for (worker, slots) in slots.into_iter().enumerate().filter(|(_, slots)| !slots.is_empty()) {
            let (reply, answer) = oneshot::channel();
            self.0.queues[worker].send(message(slots, reply));
            answers.push((worker, answer));
        }
        let mut found = vec![None; handles.len()];
        for (worker, answer) in answers {
            for (&position, answer) in positions[worker].iter().zip(answer.await.map_err(|_| Stopped)?) {
                found[position] = answer;
            }
        }
        Ok(found)
    }

    /// The answer to an update that would be refused by its limit if it arrived at `at`; none if it has to be journaled.
    /// The worker has applied whatever was acknowledged, definitions included, and knows the ids of admitted events.
    pub async fn refuse(
        &self,
        handle: &SeriesHandle,
        (event_at, amount): (Micros, Amount),
        id: Option<EventId>,
        at: Micros,
    ) -> Result<Option<Decision>, Stopped> {
        let (reply, answer) = oneshot::channel();
        let worker = handle.series.worker(self.0.queues.len());
        // Somebody waits: a refusal counts as one.
        let update = Update { slot: handle.slot, item: 0, event_at, amount };
        {
            let registry = self.0.registry.read().unwrap_or_else(PoisonError::into_inner);
            // A period or a plan ends by a time entry that has yet to be written: what holds then, the journal decides.
            if registry.timed_due_at().is_some_and(|due_at| due_at <= at) {
                return Ok(None);
            }
            self.0.queues[worker].send(Message::Refuse(update, id, at, reply));
        }
        answer.await.map_err(|_| Stopped)
    }

    /// The live periods in memory, oldest first, one list a handle; none for a series that has been deleted meanwhile.
    pub async fn periods(&self, handles: &[SeriesHandle]) -> Result<Vec<Option<Vec<PeriodUsage>>>, Stopped> {
        self.ask_slots(handles, Message::Periods).await
    }

    /// Everything the owning worker remembers of a series.
    pub async fn state(&self, handle: &SeriesHandle) -> Result<Option<SeriesState>, Stopped> {
        let (reply, answer) = oneshot::channel();
        let worker = handle.series.worker(self.0.queues.len());
        self.0.queues[worker].send(Message::State(handle.slot, reply));
        answer.await.map_err(|_| Stopped)
    }
}
