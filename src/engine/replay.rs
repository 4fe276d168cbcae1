//! The start: snapshot, then the frames behind it, through the same router as live epochs.
//!
//! What the store has already is not emitted again (`router::StoredClasses`). Updates of series that a later frame had
//! already seen deleted change nothing and are skipped. The workers run beside the reader; every `FLUSH_UPDATES` updates
//! it waits for them, so that a long journal does not pile up in their queues.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, PoisonError};

use dataflows::types::packed::{self, Keyed};
use dataflows::types::{
    Crossing, Definition, Epoch, EventId, Micros, NO_REPLY, SeriesId, SeriesSpec, SeriesState, Span, Update,
};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::older::WithoutCleanup;
use super::router::{Completion, Router, StoredClasses, send_facts};
use super::snapshot::{Head, section};
use super::{Message, RouterState, Shared};
use crate::control::{self, EndedPeriods, Who};
use crate::journal::{Frame, Kind, OpenError, Recovery, SnapshotReader};

/// Updates between two waits for the workers.
const FLUSH_UPDATES: usize = 1 << 19;
/// Frames between two waits for the workers.
const FLUSH_FRAMES: usize = 1 << 14;
/// `slots` of a series that is not live.
const NOT_LIVE: u32 = u32::MAX;

/// What the store had when the process started.
#[derive(Clone, Debug, Default)]
pub struct StoredProgress {
    /// Definitions of epochs up to and including this.
    pub definitions: Epoch,
    /// Emissions.
    pub classes: StoredClasses,
    /// The last emission of each class that is in whole.
    pub whole: BTreeMap<Span, Epoch>,
    /// How far the store may have come beyond that; none when what is said here was read from it.
    pub doubt: Option<Doubt>,
    /// The store has lost what was in it, as a failover does: what memory has must reach it again.
    pub lost: bool,
}

/// The store could not be asked: what is known of it was noted when it last could. Nothing is emitted until it has been
/// asked, but for what may already be in it in part, which must be emitted just as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// The emission that the sink began last.
    pub begun: Option<(Span, Epoch)>,
}

impl StoredProgress {
    /// Whether the store has nothing of this journal.
    pub fn is_new(&self) -> bool {
        self.definitions == 0 && self.classes.is_empty() && self.doubt.is_none()
    }

    /// Whether every window of a class in memory must reach the store, whatever was said of it before.
    fn lacks_windows(&self, class: Span) -> bool {
        self.lost || !self.classes.contains_key(&class)
    }
}

/// Why the state could not be rebuilt.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// A frame or section whose checksum is right has content that this version cannot read.
    #[error("epoch {epoch} of the journal has content that this program does not know: start a newer one")]
    Unknown {
        /// Which.
        epoch: Epoch,
    },
    /// A worker has ended.
    #[error("the engine has stopped")]
    Stopped,
}

/// What a start has done.
pub struct Replayed {
    /// Goes on where the journal ends.
    pub router: Router,
    /// Frames behind the snapshot.
    pub frames: u64,
    /// Updates in them.
    pub updates: u64,
}

/// Rebuilds registry, workers and ledger. The sink must be in place: what the store lacks is handed to it.
pub fn replay(
    recovery: &Recovery,
    shared: &Arc<Shared>,
    stored: &StoredProgress,
) -> Result<Replayed, ReplayError> {
    if stored.doubt.is_some() {
        shared.emissions().begin_in_doubt();
    }
    let mut state = RouterState::default();
    if let Some(mut snapshot) = recovery.snapshot()? {
        state = restore(&mut snapshot, shared, stored)?;
        feed_limits(shared, snapshot.position().epoch, state.last_time);
    }
    shared.tell_stored(&stored.classes, &stored.whole);
    let mut replay = Replay {
        shared,
        stored,
        replayed: Replayed { router: Router::new(shared.clone(), state), frames: 0, updates: 0 },
        slots: Vec::new(),
        unflushed: 0,
    };
    replay.learn_slots();
    let mut frames = recovery.frames()?;
    while let Some(frame) = frames.next_frame()? {
        replay.frame(&frame)?;
    }
    flush(shared)?;
    shared.emissions().end_replay();
    Ok(replay.replayed)
}

struct Replay<'a> {
    shared: &'a Arc<Shared>,
    stored: &'a StoredProgress,
    replayed: Replayed,
    /// Slot by series number.
    slots: Vec<u32>,
    unflushed: usize,
}

impl Replay<'_> {
    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), ReplayError> {
        let unknown = ReplayError::Unknown { epoch: frame.epoch };
        match frame.kind {
            Kind::Updates => {
                self.updates(frame).map_err(|_| unknown)?;
                self.replayed.router.send_updates(frame.epoch, frame.stamp);
            }
            Kind::Definitions => {
                let definitions = control::decode(frame.payload).map_err(|_| unknown)?;
                let definitions = Arc::new(definitions);
                self.replayed.router.definitions(frame.epoch, frame.stamp, definitions.clone(), None);
                self.learn(&definitions);
            }
            Kind::Time => self.replayed.router.time(frame.epoch, frame.stamp, self.stored),
            Kind::Clock | Kind::Start | Kind::Seal => {}
        }
        self.replayed.frames += 1;
        self.unflushed += FLUSH_UPDATES / FLUSH_FRAMES;
        if self.unflushed >= FLUSH_UPDATES {
            self.unflushed = 0;
            flush(self.shared)?;
        }
        Ok(())
    }

    fn updates(&mut self, frame: &Frame<'_>) -> Result<(), packed::Malformed> {
        let workers = self.shared.queues.len();
        let ledger = &self.shared.ledger;
        let (router, slots) = (&mut self.replayed.router, &self.slots);
        let mut count = 0;
        let on_key = |keyed: Keyed| ledger.keyed(keyed, frame.stamp);
        let on_chunk = |chunk| self.shared.loads.apply(chunk, frame.stamp);
        packed::unpack(frame.payload, on_key, on_chunk, |item| {
            let slot = slots.get(item.series.0 as usize).copied().unwrap_or(NOT_LIVE);
            if slot != NOT_LIVE {
                let event_at = item.event_at.unwrap_or(frame.stamp);
                let update = Update { slot, item: NO_REPLY, event_at, amount: item.amount };
                router.replay_update(item.series.worker(workers), update, item.id);
            }
            count += 1;
        })?;
        self.replayed.updates += count;
        self.unflushed += count as usize;
        Ok(())
    }

    fn learn_slots(&mut self) {
        let registry = self.shared.registry.read().unwrap_or_else(PoisonError::into_inner);
        for handle in registry.series() {
            set_slot(&mut self.slots, handle.series, handle.slot);
        }
    }

    fn learn(&mut self, definitions: &[Definition]) {
        let registry = self.shared.registry.read().unwrap_or_else(PoisonError::into_inner);
        for definition in definitions {
            let series = match definition {
                Definition::SeriesCreated(record) => record.series,
                Definition::SeriesDeleted { series } => *series,
                _ => continue,
            };
            let slot = registry.by_id(series).map_or(NOT_LIVE, |handle| handle.slot);
            set_slot(&mut self.slots, series, slot);
        }
    }
}

fn set_slot(slots: &mut Vec<u32>, series: SeriesId, slot: u32) {
    let index = series.0 as usize;
    if slots.len() <= index {
        slots.resize(index + 1, NOT_LIVE);
    }
    slots[index] = slot;
}

/// Hands the limits graph everything that was defined without an epoch of its own: by a snapshot, or by the store.
pub(super) fn feed_limits(shared: &Shared, epoch: Epoch, stamp: Micros) {
    let facts = shared.registry.write().unwrap_or_else(PoisonError::into_inner).take_facts();
    send_facts(shared, epoch, stamp, facts, false, &Completion::new(None));
}

/// Waits until the workers have done what they were sent.
fn flush(shared: &Shared) -> Result<(), ReplayError> {
    let (done, flushed) = mpsc::channel();
    for queue in &shared.queues {
        queue.send(Message::Flush(done.clone()));
    }
    drop(done);
    for _ in &shared.queues {
        flushed.recv().map_err(|_| ReplayError::Stopped)?;
    }
    Ok(())
}

/// Loads a snapshot; the router's state in it.
fn restore(
    snapshot: &mut SnapshotReader,
    shared: &Shared,
    stored: &StoredProgress,
) -> Result<RouterState, ReplayError> {
    let epoch = snapshot.position().epoch;
    let unknown = || ReplayError::Unknown { epoch };
    let mut state = RouterState::default();
    let mut projected = 0;
    while let Some((kind, bytes)) = snapshot.next_section()? {
        match kind {
            section::HEAD => {
                let head: Head = decode(bytes).ok_or_else(unknown)?;
                let mut registry = shared.registry.write().unwrap_or_else(PoisonError::into_inner);
                registry.continue_from(head.next_series);
                registry.set_projected(stored.definitions);
                registry.pass(head.router.last_time);
                (state, projected) = (head.router, head.projected);
            }
            section::DEFINITIONS => {
                let definitions: Vec<Definition> = decode(bytes).ok_or_else(unknown)?;
                let mut registry = shared.registry.write().unwrap_or_else(PoisonError::into_inner);
                for definition in &definitions {
                    registry.apply(definition);
                }
                drop(registry);
                // A store that lacks what the snapshot's store had (a new one, say) gets everything.
                if stored.definitions < projected {
                    project(shared, projected, definitions);
                }
            }
            section::CROSSINGS => {
                let held: Vec<(Epoch, Crossing)> = decode(bytes).ok_or_else(unknown)?;
                shared.restore_crossings(held);
            }
            section::LAPSED => {
                let lapsed: Vec<Who> = decode(bytes).ok_or_else(unknown)?;
                shared.registry.write().unwrap_or_else(PoisonError::into_inner).restore_lapsed(lapsed);
            }
            section::ENDED => {
                let ended: EndedPeriods = decode(bytes).ok_or_else(unknown)?;
                let mut registry = shared.registry.write().unwrap_or_else(PoisonError::into_inner);
                registry.restore_ended_periods(ended);
            }
            section::LOADS => shared.loads.restore(decode(bytes).ok_or_else(unknown)?),
            section::UNPROJECTED => {
                let unprojected: Vec<(Epoch, Vec<Definition>)> = decode(bytes).ok_or_else(unknown)?;
                for (epoch, definitions) in unprojected {
                    project(shared, epoch, definitions);
                }
            }
            section::SERIES => {
                restore_series(shared, bytes, stored, |state: &SeriesState| state.series, |state, _| state)
                    .ok_or_else(unknown)?;
            }
            section::SERIES_WITHOUT_CLEANUP => {
                let read = |older: WithoutCleanup, spec: &SeriesSpec| older.read(spec, state.last_time);
                restore_series(shared, bytes, stored, WithoutCleanup::series, read).ok_or_else(unknown)?;
            }
            section::IDS => restore_ids(shared, decode(bytes).ok_or_else(unknown)?),
            section::KEYS => {
                let keys: Vec<(u128, u128, Micros)> = decode(bytes).ok_or_else(unknown)?;
                for (key_hash, fingerprint, stamp) in keys {
                    shared.ledger.keyed(Keyed { key_hash, fingerprint }, stamp);
                }
            }
            section::USED => {
                let used: Vec<([u8; 32], Micros)> = decode(bytes).ok_or_else(unknown)?;
                shared.registry.read().unwrap_or_else(PoisonError::into_inner).set_used(&used);
            }
            _ => return Err(unknown()),
        }
    }
    Ok(state)
}

fn project(shared: &Shared, epoch: Epoch, definitions: Vec<Definition>) {
    let mut registry = shared.registry.write().unwrap_or_else(PoisonError::into_inner);
    registry.queue_projection(epoch, Arc::new(definitions.clone()));
    drop(registry);
    if let Some(sink) = shared.sink.get() {
        sink.project(epoch, definitions);
    }
}

/// Loads a section of series, each written as a `T`.
fn restore_series<T: DeserializeOwned>(
    shared: &Shared,
    mut bytes: &[u8],
    stored: &StoredProgress,
    series: impl Fn(&T) -> SeriesId,
    read: impl Fn(T, &SeriesSpec) -> SeriesState,
) -> Option<()> {
    let mut states = Vec::new();
    let registry = shared.registry.read().unwrap_or_else(PoisonError::into_inner);
    while !bytes.is_empty() {
        let (written, rest) = postcard::take_from_bytes::<T>(bytes).ok()?;
        bytes = rest;
        let Some(handle) = registry.by_id(series(&written)) else { continue };
        let mut state = read(written, &handle.record.spec);
        let batch = state.shape.batch;
        if state.shape.stored && stored.lacks_windows(batch) {
            let resident = state.windows.iter_mut().filter(|window| !window.left);
            resident.for_each(|window| window.dirty.insert(batch));
        }
        states.push(state);
    }
    drop(registry);
    restore_states(shared, states);
    Some(())
}

/// Gives live series to the workers that own them.
pub(super) fn restore_states(shared: &Shared, states: Vec<SeriesState>) {
    let workers = shared.queues.len();
    let mut shares = vec![Vec::new(); workers];
    let registry = shared.registry.read().unwrap_or_else(PoisonError::into_inner);
    for state in states {
        if let Some(handle) = registry.by_id(state.series) {
            shares[state.series.worker(workers)].push((handle.slot, state));
        }
    }
    for (share, queue) in shares.into_iter().zip(&shared.queues) {
        queue.send(Message::Restore(share, Vec::new()));
    }
}

fn restore_ids(shared: &Shared, parts: Vec<(u64, Vec<EventId>)>) {
    let workers = shared.queues.len();
    let mut shares = vec![Vec::new(); workers];
    for (generation, ids) in parts {
        for id in ids {
            shares[id.series().worker(workers)].push((generation, id));
        }
    }
    for (share, queue) in shares.into_iter().zip(&shared.queues) {
        queue.send(Message::Restore(Vec::new(), share));
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}
