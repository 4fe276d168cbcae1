//! Snapshots: what the engine puts into the journal's snapshot file, and how a worker exports its series without a stall.
//!
//! | section | content (postcard) |
//! |---|---|
//! | 1 head | `Head`: one |
//! | 2 definitions | `Vec<Definition>` that build the registry: one |
//! | 3 unprojected | `Vec<(Epoch, Vec<Definition>)>` that the store lacked: one |
//! | 4 | as 7, of earlier versions: see `older` |
//! | 5 ids | `(generation, Vec<EventId>)`: many |
//! | 6 keys | `Vec<(key hash, fingerprint, stamp)>`: one |
//! | 7 series | `SeriesState`, one behind the other: many |
//! | 8 used | `Vec<(hash of an API key, when it was last used)>`: one |
//! | 9 lapsed | `Vec<(business, customer)>` whose subscription has ended: one, if there are any |
//! | 10 crossings | `Vec<(Epoch, Crossing)>` that the store lacked: one, if there are any |
//! | 11 ended | `EndedPeriods`, the billing periods that have ended: one, if there are any |
//! | 12 loads | `Vec<(hash, ranges of chunks, stamp of the last one)>`: one, if there are any |
//!
//! Definitions stand still (control's gate) from the barrier until they have been copied; workers export copy-on-write
//! in steps between epochs. Windows whose emission the store has not acknowledged count as changed, so that nothing on
//! its way to the store need be kept. A section whose content changes gets a new number, so that an earlier program
//! refuses it.

use std::sync::mpsc::{self, SyncSender, TrySendError};

use dataflows::driver::Driver;
use dataflows::types::{Definition, Epoch, EventId, SeriesId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{RouterState, Shared, SnapshotTicket, Ticket};
use crate::control::{Control, EndedPeriods, Who};
use crate::journal::{Journal, JournalError, Rejected};

/// Section numbers; see the header.
pub(super) mod section {
    pub const HEAD: u8 = 1;
    pub const DEFINITIONS: u8 = 2;
    pub const UNPROJECTED: u8 = 3;
    pub const SERIES_WITHOUT_CLEANUP: u8 = 4;
    pub const IDS: u8 = 5;
    pub const KEYS: u8 = 6;
    pub const SERIES: u8 = 7;
    pub const USED: u8 = 8;
    pub const LAPSED: u8 = 9;
    pub const CROSSINGS: u8 = 10;
    pub const ENDED: u8 = 11;
    pub const LOADS: u8 = 12;
}

/// Series in one step of an export.
const STEP_SERIES: usize = 512;
/// Chunks between the workers and the writer of the snapshot.
const CHUNKS_MAX: usize = 16;

/// The first section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub router: RouterState,
    pub next_series: SeriesId,
    /// The store had all definitions up to and including this epoch.
    pub projected: Epoch,
}

/// What has been decided beside the registry's definitions by the barrier.
pub struct Timed {
    /// Who has lapsed.
    pub lapsed: Vec<Who>,
    /// Which billing periods have ended.
    pub ended: EndedPeriods,
    /// Which chunks of loads have been applied.
    pub(super) loads: Vec<super::loads::Kept>,
}

/// A piece of a worker's export.
pub enum Chunk {
    /// A section and its content.
    Section(u8, Vec<u8>),
    /// The worker has exported everything.
    Done,
}

/// Why no snapshot was taken. The journal is whole without it.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The journal takes no barrier.
    #[error("the journal takes no snapshot")]
    Rejected(#[from] Rejected),
    /// The file could not be written.
    #[error("the snapshot could not be written")]
    Journal(#[from] JournalError),
    /// The engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
}

impl From<mpsc::RecvError> for SnapshotError {
    fn from(_: mpsc::RecvError) -> Self {
        SnapshotError::Stopped
    }
}

/// Takes a snapshot at the present end of the journal. Blocking; one at a time.
pub fn take_snapshot(
    journal: &Journal<Ticket>,
    control: &Control,
    shared: &Shared,
) -> Result<(), SnapshotError> {
    let gate = control.gate();
    let (reached, position) = mpsc::channel();
    let (chunks, exported) = mpsc::sync_channel(CHUNKS_MAX);
    journal
        .barrier(Ticket::Snapshot(SnapshotTicket { reached, chunks }))
        .map_err(|(_, rejected)| rejected)?;
    let (position, router, Timed { lapsed, ended, loads }) = position.recv()?;
    let mut writer = journal.begin_snapshot(position)?;
    let (head, definitions, unprojected) = {
        let registry = control.registry();
        let head = Head { router, next_series: registry.next_series(), projected: registry.projected() };
        let unprojected: Vec<(Epoch, Vec<Definition>)> =
            registry.unprojected().map(|(epoch, definitions)| (*epoch, definitions.to_vec())).collect();
        (head, registry.export(), unprojected)
    };
    drop(gate);
    writer.section(section::HEAD, &encode(&head))?;
    writer.section(section::DEFINITIONS, &encode(&definitions))?;
    if !lapsed.is_empty() {
        writer.section(section::LAPSED, &encode(&lapsed))?;
    }
    if !ended.is_empty() {
        writer.section(section::ENDED, &encode(&ended))?;
    }
    if !loads.is_empty() {
        writer.section(section::LOADS, &encode(&loads))?;
    }
    writer.section(section::UNPROJECTED, &encode(&unprojected))?;
    let mut exporting = shared.queues.len();
    while exporting > 0 {
        match exported.recv()? {
            Chunk::Section(kind, bytes) => writer.section(kind, &bytes)?,
            Chunk::Done => exporting -= 1,
        }
    }
    // What workers found behind the position is found again behind it.
    let crossings = shared.crossings().held(position.epoch);
    if !crossings.is_empty() {
        writer.section(section::CROSSINGS, &encode(&crossings))?;
    }
    let keys: Vec<_> = shared
        .ledger
        .keys()
        .into_iter()
        .map(|(keyed, stamp)| (keyed.key_hash, keyed.fingerprint, stamp))
        .collect();
    writer.section(section::KEYS, &encode(&keys))?;
    let used = control.registry().used();
    writer.section(section::USED, &encode(&used))?;
    Ok(writer.finish()?)
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("writing to memory cannot fail, and every length is known")
}

/// One worker's export under way.
pub(super) struct Export {
    chunks: SyncSender<Chunk>,
    /// What the reader had no room for.
    waiting: Option<Chunk>,
    stage: Stage,
}

enum Stage {
    Series,
    Ids,
    Done,
}

impl Export {
    /// Begins; the driver has begun its snapshot.
    pub(super) fn new(chunks: SyncSender<Chunk>) -> Self {
        Export { chunks, waiting: None, stage: Stage::Series }
    }

    /// Goes on until the reader has no room, one step at most; true at the end.
    pub(super) fn step(&mut self, driver: &mut Driver) -> bool {
        let chunk = match self.waiting.take() {
            Some(chunk) => chunk,
            None => self.next(driver),
        };
        let last = matches!(chunk, Chunk::Done);
        match self.chunks.try_send(chunk) {
            Ok(()) => last,
            Err(TrySendError::Full(chunk)) => {
                self.waiting = Some(chunk);
                false
            }
            Err(TrySendError::Disconnected(_)) => {
                // Nobody writes this snapshot any more: the driver must not go on copying for it.
                while !matches!(self.next(driver), Chunk::Done) {}
                true
            }
        }
    }

    fn next(&mut self, driver: &mut Driver) -> Chunk {
        match self.stage {
            Stage::Series => {
                let mut bytes = Vec::new();
                let done = driver.snapshot_step(STEP_SERIES, &mut |state| bytes.extend(encode(state)));
                if done {
                    self.stage = Stage::Ids;
                }
                Chunk::Section(section::SERIES, bytes)
            }
            Stage::Ids => {
                let mut parts: Vec<(u64, Vec<EventId>)> = Vec::new();
                let done = driver.snapshot_ids(&mut |generation, ids| parts.push((generation, ids.to_vec())));
                if done {
                    self.stage = Stage::Done;
                }
                Chunk::Section(section::IDS, encode(&parts))
            }
            Stage::Done => Chunk::Done,
        }
    }
}
