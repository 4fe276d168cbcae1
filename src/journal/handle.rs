//! The handle.
use std::sync::Arc;

use dataflows::types::Epoch;

use super::{Append, JournalError, Position, Rejected, SnapshotWriter};

/// The way in: cheap to clone, for any thread. Ends without a seal when the last clone is dropped; see `close`.
pub struct Journal<T> {
    shared: Arc<std::sync::Mutex<Vec<T>>>,
}

impl<T> Clone for Journal<T> {
    fn clone(&self) -> Self {
        Journal { shared: self.shared.clone() }
    }
}

/// What a journal holds on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all segments, preallocated ones in full.
    pub segment_bytes: u64,
    /// Segments.
    pub segments: usize,
    /// The last durable frame.
    pub position: Position,
}

impl<T: Send + 'static> Journal<T> {
    /// Takes an entry. The follower is told what became of it; if it is not taken it comes back with the reason.
    pub fn append(&self, append: Append<T>) -> Result<(), (Append<T>, Rejected)> {
        Err((append, Rejected::Draining))
    }

    /// Takes all of these, next to each other, or none.
    pub fn append_all(&self, appends: Vec<Append<T>>) -> Result<(), (Vec<Append<T>>, Rejected)> {
        Err((appends, Rejected::Draining))
    }

    /// Goes through the queue in its order and writes nothing: the follower gets it when everything before it is
    /// durable and told, and nothing behind it is. For snapshots.
    pub fn barrier(&self, companion: T) -> Result<(), (T, Rejected)> {
        Err((companion, Rejected::Draining))
    }

    /// `Follower::due_at` may have changed, or a test has moved the clock.
    pub fn wake(&self) {}

    /// Begins a snapshot of the state behind `position`, which a barrier gave. One at a time.
    pub fn begin_snapshot(&self, position: Position) -> Result<SnapshotWriter, JournalError> {
        let _ = position;
        unimplemented!()
    }

    /// The sinks need nothing up to `epoch`, itself included. Segments are kept until this, and two snapshots, are behind them.
    pub fn forget_before(&self, epoch: Epoch) {
        let _ = epoch;
    }

    /// What is on the disk.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    /// Takes no more, writes what waits and a seal, and ends the writer thread. Snapshots may still be taken. Again: the
    /// same answer.
    pub fn close(&self) -> Result<(), JournalError> {
        unimplemented!()
    }
}
