//! The handle: the way into a running journal, from any thread.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use dataflows::types::Epoch;

use super::disk::{Catalog, Disk};
use super::group::Group;
use super::keeper::Keeper;
use super::queue::{Phase, Queue};
use super::recovery::Recovery;
use super::writer::Writer;
use super::{Append, Follower, JournalError, Observe, Position, Rejected, SnapshotWriter};
use crate::clock::Stamps;

/// The way in: cheap to clone, for any thread. When the last clone is dropped without `close` the writer stops where
/// it is, as if the process had died: without a seal, what waits is dropped.
pub struct Journal<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    queue: Arc<Queue<T>>,
    disk: Arc<Disk>,
    writer: Mutex<Option<JoinHandle<Result<(), JournalError>>>>,
    outcome: OnceLock<Result<(), JournalError>>,
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

impl<T> Clone for Journal<T> {
    fn clone(&self) -> Self {
        Journal { inner: self.inner.clone() }
    }
}

/// Starts keeper and writer behind what was recovered.
pub(super) fn start<T: Send + 'static>(
    recovery: Recovery,
    stamps: Arc<Stamps>,
    follower: impl Follower<T> + 'static,
    observe: Arc<dyn Observe>,
) -> io::Result<Journal<T>> {
    let journal_id = recovery.journal_id();
    let Recovery { options, lock, segments, snapshots, chain, segment } = recovery;
    let keeper = Keeper::start(&options.dir, options.segment_bytes)?;
    let queue = Arc::new(Queue::new(&options));
    let first_lsn = segments[segments.len() - 1].header.first_lsn();
    let catalog = Mutex::new(Catalog {
        segments: segments.iter().map(Into::into).collect(),
        snapshots: snapshots.into(),
        position: chain.position,
        forgotten: 0,
    });
    let disk = Arc::new(Disk { options, journal_id, keeper, catalog, _lock: lock });
    let writer = Writer {
        disk: disk.clone(),
        queue: queue.clone(),
        stamps,
        follower,
        observe,
        segment,
        first_lsn,
        committed: chain,
        group: Group::new(chain),
        unknown: Vec::new(),
        stalled: false,
    };
    let guard = PoisonOnPanic(queue.clone());
    let thread = thread::Builder::new().name("journal-writer".into()).spawn(move || {
        let _guard = guard;
        writer.run()
    })?;
    let writer = Mutex::new(Some(thread));
    Ok(Journal { inner: Arc::new(Inner { queue, disk, writer, outcome: OnceLock::new() }) })
}

impl<T: Send + 'static> Journal<T> {
    /// Takes an entry. The follower is told what became of it; if it is not taken it comes back with the reason.
    pub fn append(&self, append: Append<T>) -> Result<(), (Append<T>, Rejected)> {
        if self.inner.disk.keeper.disk_full() {
            return Err((append, Rejected::DiskFull));
        }
        self.inner.queue.push(append)
    }

    /// Takes all of these, next to each other, or none. They are as many outcomes, not one: only each is atomic.
    pub fn append_all(&self, appends: Vec<Append<T>>) -> Result<(), (Vec<Append<T>>, Rejected)> {
        if self.inner.disk.keeper.disk_full() {
            return Err((appends, Rejected::DiskFull));
        }
        self.inner.queue.push_all(appends)
    }

    /// Goes through the queue in its order and writes nothing: the follower gets it when everything before it is
    /// durable and told, and nothing behind it is. For snapshots.
    pub fn barrier(&self, companion: T) -> Result<(), (T, Rejected)> {
        self.inner.queue.push_barrier(companion)
    }

    /// `Follower::due_at` may have changed, or a test has moved the clock.
    pub fn wake(&self) {
        self.inner.queue.wake();
    }

    /// Begins a snapshot of the state behind `position`, which a barrier gave. One at a time.
    pub fn begin_snapshot(&self, position: Position) -> Result<SnapshotWriter, JournalError> {
        SnapshotWriter::begin(self.inner.disk.clone(), position)
    }

    /// The sinks need nothing up to `epoch`, itself included. Segments are kept until this and two snapshots are past
    /// them, so without sinks say `Epoch::MAX` once.
    pub fn forget_before(&self, epoch: Epoch) {
        self.inner.disk.forget(epoch);
    }

    /// What is on the disk.
    pub fn stats(&self) -> Stats {
        self.inner.disk.stats()
    }

    /// Takes no more, writes what waits and a seal, and ends the writer thread. Snapshots may still be taken. Again:
    /// the same answer. Panics if the writer thread has.
    pub fn close(&self) -> Result<(), JournalError> {
        self.inner.queue.enter(Phase::Closing);
        let mut writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = writer.take() {
            let outcome = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // Set here alone, under the lock.
            let _ = self.inner.outcome.set(outcome);
        }
        self.inner.outcome.get().cloned().unwrap_or(Ok(()))
    }
}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        self.queue.enter(Phase::Abandoned);
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // A follower may hold the last clone: the writer cannot wait for itself.
        if let Some(thread) = writer.filter(|thread| thread.thread().id() != thread::current().id()) {
            // A panic has been printed, and here is nobody to tell.
            let _ = thread.join();
        }
    }
}

/// A follower that panics takes the writer with it: nobody may wait for answers then.
struct PoisonOnPanic<T>(Arc<Queue<T>>);

impl<T> Drop for PoisonOnPanic<T> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.enter(Phase::Poisoned);
        }
    }
}
