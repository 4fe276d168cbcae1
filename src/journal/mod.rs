//! The journal: the source of truth. Bytes go in, come out durable and in order, and are read back at the next start.
//!
//! ```text
//! append ─▶ queue ─▶ writer thread: one stamp, frames, one write, one fdatasync ─▶ Follower::durable
//!                        │ rolls into                                              (then receipts go out)
//!                        ▼
//!          segment-<first lsn>  segment-…   ◀─ prepared ahead by the keeper thread
//!          snapshot-<epoch>                 ◀─ SnapshotWriter, between epochs (Journal::barrier)
//! open ─▶ newest valid snapshot, chain behind it ─▶ Frames ─▶ Recovery::start
//! ```
//!
//! Invariants: what the follower is told is durable (with `Durability::Fsync`); frames are numbered without holes (`lsn`)
//! and chained by CRC; stamps go back only behind a `Clock` frame; a time frame T comes before the first epoch whose
//! stamp has reached T; after a failed write or fsync nothing is written any more. Damage is refused, a torn tail is
//! truncated; `tail` says how the two are told apart.
//!
//! What it does not do: know what the bytes mean, answer clients, decide when snapshots are taken.

mod disk;
mod error;
mod faults;
mod frame;
mod group;
mod handle;
mod keeper;
mod queue;
mod reader;
mod recovery;
mod segment;
mod snapshot;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use dataflows::types::{Epoch, Micros};

pub use error::{JournalError, OpenError, Rejected};
pub use handle::{Journal, Stats};
pub use reader::{Frame, Frames};
pub use recovery::{Recovery, open};
pub use snapshot::{SnapshotReader, SnapshotWriter};

/// What a frame is. Each frame is an epoch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Updates under one stamp: the payloads of consecutive appends, joined.
    Updates = 1,
    /// Definitions: the payload of one append.
    Definitions = 2,
    /// A whole second T has passed; T is the stamp. No payload.
    Time = 3,
    /// The clock was stepped; the stamp is the new time. Payload: the time expected instead (i64, microseconds, LE).
    Clock = 4,
    /// A start of the process: the payload of one append.
    Start = 5,
    /// A clean end. No payload.
    Seal = 6,
}

/// One entry for the journal.
#[derive(Clone, Debug)]
pub struct Append<T> {
    /// `Updates`, `Definitions` or `Start`; the others are the writer's own.
    pub kind: Kind,
    /// The payload, below 4 GiB. One that is greater than a segment gets a segment of its size.
    pub bytes: Vec<u8>,
    /// Handed to the follower with the outcome; never written.
    pub companion: T,
}

/// One epoch that is now durable.
#[derive(Debug)]
pub struct Durable<T> {
    /// Its number.
    pub epoch: Epoch,
    /// The number of its frame.
    pub lsn: u64,
    /// Arrival of everything in it; T for `Time`.
    pub stamp: Micros,
    /// What it is.
    pub kind: Kind,
    /// The companions of the appends in it, in order; none for the writer's own frames.
    pub companions: Vec<T>,
}

/// Behind which frame something stands: the end of the journal, a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last epoch; 0 before the first.
    pub epoch: Epoch,
    /// The last frame; 0 before the first.
    pub lsn: u64,
    /// The last stamp.
    pub stamp: Micros,
    /// The last T; not before it after a clock entry that went back.
    pub time: Micros,
}

/// Who is told what became of the appends. Called from the writer thread alone: it must be quick and never wait.
pub trait Follower<T>: Send {
    /// These epochs are durable. In order, without holes but `Seal`, the writer's own frames included.
    fn durable(&mut self, epochs: Vec<Durable<T>>);
    /// Everything up to `position` has been told, nothing behind it has: see `Journal::barrier`.
    fn barrier(&mut self, position: Position, companion: T);
    /// The outcome is unknown: the journal is poisoned. Called once, also without companions.
    fn failed(&mut self, companions: Vec<T>, why: &JournalError);
    /// Nothing of these is in the journal.
    fn rejected(&mut self, companions: Vec<T>, why: &JournalError);
    /// The earliest whole second at which a time frame is wanted though nothing arrives. Asked before each wait; call
    /// `Journal::wake` if it changes in between.
    fn due_at(&mut self) -> Option<Micros>;
}

/// Who measures. Called from the writer thread.
pub trait Observe: Send + Sync {
    /// One group was written: `bytes` of frames with `appends` in them, `sync` of which was the fsync.
    fn group(&self, bytes: usize, appends: usize, sync: Duration);
}

/// Nobody measures.
impl Observe for () {
    fn group(&self, _: usize, _: usize, _: Duration) {}
}

/// When an append counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After `fdatasync`: it survives a power cut.
    #[default]
    Fsync,
    /// After the write: it survives the process, not a power cut.
    Os,
}

/// How a journal is kept. `Options::new` has the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory, made if absent. Everything in it belongs to the journal.
    pub dir: PathBuf,
    /// Size of a segment, at least `Options::SEGMENT_BYTES_MIN`.
    pub segment_bytes: u64,
    /// How long a segment is kept though nobody needs it, by its stamps.
    pub retain: Duration,
    /// Above this many bytes of segments, `retain` no longer holds.
    pub quota_bytes: u64,
    /// When an append counts as durable.
    pub durability: Durability,
    /// Bytes that may wait; a single append may always.
    pub queue_bytes_max: usize,
    /// Appends that may wait.
    pub queue_items_max: usize,
    /// Bytes behind one fsync, roughly.
    pub group_bytes_max: usize,
    /// The longest wait between two looks at the clock while `Follower::due_at` is set: small for a clock that tests
    /// move.
    pub idle_wait_max: Duration,
}

impl Options {
    /// The least size of a segment.
    pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;

    /// The defaults for this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Options {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            retain: Duration::from_secs(72 * 3600),
            quota_bytes: 64 << 30,
            durability: Durability::Fsync,
            queue_bytes_max: 64 << 20,
            queue_items_max: 1 << 18,
            group_bytes_max: 4 << 20,
            idle_wait_max: Duration::from_secs(1),
        }
    }
}
