//! The writer thread: what waits becomes frames, one write, one fsync; then the follower is told.
//!
//! ```text
//! take all that waits ─▶ a stamp ─▶ [Clock] ─▶ [Time] ─▶ Updates joined · Definitions · Start ─▶ commit ─▶ durable()
//!                                                              no room: commit, roll ─────────┘
//! ```
//! What arrives during a commit is the next group. A barrier commits first. In each segment some room is left to the
//! writer's own frames; when the disk is full they go on into the reserve, appends do not. After a failed write or
//! fsync nothing is written any more: only a new start can tell what is on the disk.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dataflows::types::Micros;

use super::disk::{Disk, Entry as SegmentEntry};
use super::error::JournalError;
use super::frame::{Chain, HEAD_BYTES};
use super::group::Group;
use super::queue::{Entry, Phase, Queue};
use super::segment::{HEADER_BYTES, Header, Segment};
use super::{Append, Durability, Follower, Kind, Observe, faults};
use crate::clock::Stamps;

/// The writer's own frames of one group: clock, time, seal.
const OWN_BYTES: u64 = 3 * HEAD_BYTES as u64 + 8;

pub(super) struct Writer<T, F> {
    pub disk: Arc<Disk>,
    pub queue: Arc<Queue<T>>,
    pub stamps: Arc<Stamps>,
    pub follower: F,
    pub observe: Arc<dyn Observe>,
    pub segment: Segment,
    /// First lsn of the segment.
    pub first_lsn: u64,
    /// Behind the last frame that was written.
    pub committed: Chain,
    pub group: Group<T>,
    /// Those whom the poison has caught.
    pub unknown: Vec<T>,
    /// The last time frame found no room: no use to try again at once.
    pub stalled: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    Appends,
    Own,
}

impl<T, F: Follower<T>> Writer<T, F> {
    /// Writes until the journal is closed, abandoned or poisoned.
    pub fn run(mut self) -> Result<(), JournalError> {
        let mut taken = Vec::new();
        loop {
            let wait = self.wait().map(|wait| wait.min(self.stamps.clock().look_again()));
            let phase = self.queue.take(&mut taken, wait);
            let written = match phase {
                Phase::Abandoned | Phase::Poisoned => return Ok(()),
                Phase::Open if taken.is_empty() => self.tick(),
                Phase::Open => self.write(&mut taken),
                Phase::Closing => self.write(&mut taken).and_then(|()| self.seal()),
            };
            match written {
                Ok(()) if phase == Phase::Open => {}
                Ok(()) => return Ok(()),
                Err(why) => return Err(self.poison(why)),
            }
        }
    }

    /// How long to wait for an append; for ever if nothing is due.
    fn wait(&mut self) -> Option<Duration> {
        let longest = self.disk.options.idle_wait_max;
        let due = self.follower.due_at()?;
        if self.stalled {
            return Some(longest);
        }
        let next = self.committed.position.time.0.saturating_add(Micros::PER_SECOND);
        let micros = due.0.max(next).saturating_sub(self.stamps.now().0);
        Some(Duration::from_micros(micros.max(0) as u64).min(longest))
    }

    /// Nothing has arrived: a time frame, if one is due.
    fn tick(&mut self) -> Result<(), JournalError> {
        let second = Micros::from_seconds(self.stamps.now().seconds());
        if self.follower.due_at().is_none_or(|due| due > second || second <= self.committed.position.time) {
            return Ok(());
        }
        let begun = self.begin();
        self.stalled = begun.is_err();
        match begun {
            Err(poisoned @ JournalError::Poisoned { .. }) => Err(poisoned),
            _ => self.commit(),
        }
    }

    fn write(&mut self, taken: &mut Vec<Entry<T>>) -> Result<(), JournalError> {
        let mut entries = taken.drain(..);
        while let Some(entry) = entries.next() {
            let written = match entry {
                Entry::Append(append) => self.append(append),
                Entry::Barrier(companion) => self.barrier(companion),
            };
            if let Err(why) = written {
                self.unknown.extend(entries.map(Entry::companion));
                return Err(why);
            }
        }
        self.commit()
    }

    fn append(&mut self, append: Append<T>) -> Result<(), JournalError> {
        match self.admit(append.bytes.len()) {
            Ok(stamp) => self.group.append(append, stamp),
            Err(poisoned @ JournalError::Poisoned { .. }) => {
                self.unknown.push(append.companion);
                return Err(poisoned);
            }
            Err(why) => self.follower.rejected(vec![append.companion], &why),
        }
        Ok(())
    }

    /// The stamp of an append of this length, for which there now is room.
    fn admit(&mut self, length: usize) -> Result<Micros, JournalError> {
        if self.group.frames.len() >= self.disk.options.group_bytes_max {
            self.commit()?;
        }
        self.begin()?;
        self.make_room((HEAD_BYTES + length) as u64 + OWN_BYTES, Purpose::Appends)?;
        // If that took a roll, another group has begun.
        self.begin()
    }

    fn barrier(&mut self, companion: T) -> Result<(), JournalError> {
        // A snapshot must not outlive the frames before it.
        match self.commit().and_then(|()| self.sync()) {
            Ok(()) => self.follower.barrier(self.committed.position, companion),
            Err(why) => {
                self.unknown.push(companion);
                return Err(why);
            }
        }
        Ok(())
    }

    /// The clean end. Without room for it the next start treats the journal as one that crashed, which is safe.
    fn seal(&mut self) -> Result<(), JournalError> {
        self.sync()?;
        match self.make_room(HEAD_BYTES as u64, Purpose::Own) {
            Ok(()) => self.group.own(Kind::Seal, self.stamps.now(), &[]),
            Err(poisoned @ JournalError::Poisoned { .. }) => return Err(poisoned),
            Err(error) => tracing::warn!(%error, "the journal is closed without a seal"),
        }
        self.commit()?;
        self.sync()
    }

    /// Begins a group, unless it has begun: its stamp, and what has happened to time since the last one.
    fn begin(&mut self) -> Result<Micros, JournalError> {
        if let Some(stamp) = self.group.stamp {
            return Ok(stamp);
        }
        self.make_room(OWN_BYTES, Purpose::Own)?;
        let stamp = self.stamps.take();
        if let Some(expected) = stamp.stepped_from {
            tracing::warn!(from = expected.0, to = stamp.at.0, "the clock was stepped");
            self.group.own(Kind::Clock, stamp.at, &expected.0.to_le_bytes());
        }
        let second = Micros::from_seconds(stamp.at.seconds());
        if second > self.group.chain.position.time {
            self.group.own(Kind::Time, second, &[]);
        }
        self.group.stamp = Some(stamp.at);
        Ok(stamp.at)
    }

    /// Writes and syncs the group, then tells.
    fn commit(&mut self) -> Result<(), JournalError> {
        self.group.close();
        let bytes = self.group.frames.len();
        if bytes == 0 {
            self.group.stamp = None;
            return Ok(());
        }
        if let Err(source) = self.segment.file.write_all_at(&self.group.frames, self.segment.offset) {
            return self.undo(source);
        }
        let before = self.stamps.clock().monotonic();
        self.segment.offset += bytes as u64;
        self.committed = self.group.chain;
        if self.disk.options.durability == Durability::Fsync && !faults::acknowledge_before_fsync() {
            self.sync()?;
        }
        let took = self.stamps.clock().monotonic().saturating_sub(before);
        self.observe.group(bytes, self.group.appends, took);
        self.disk.catalog().position = self.committed.position;
        let epochs = std::mem::take(&mut self.group.epochs);
        self.group.reset(self.committed);
        if !epochs.is_empty() {
            self.follower.durable(epochs);
        }
        if self.segment.offset > self.segment.capacity / 2 {
            self.disk.keeper.want(self.disk.options.segment_bytes);
        }
        Ok(())
    }

    /// After a failed write: if the disk is full and the zeros can be brought back, nothing has happened.
    fn undo(&mut self, source: io::Error) -> Result<(), JournalError> {
        let zeros = vec![0; self.group.frames.len()];
        let restore = |segment: &Segment| {
            segment.file.write_all_at(&zeros, segment.offset)?;
            segment.file.sync_data()
        };
        if source.kind() != io::ErrorKind::StorageFull || restore(&self.segment).is_err() {
            return Err(poisoned(&self.segment.path)(source));
        }
        let companions = self.group.epochs.drain(..).flat_map(|epoch| epoch.companions).collect();
        self.group.reset(self.committed);
        self.follower.rejected(companions, &JournalError::DiskFull);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        if self.group.synced < self.committed.position.lsn {
            self.segment.file.sync_data().map_err(poisoned(&self.segment.path))?;
            self.group.synced = self.committed.position.lsn;
        }
        Ok(())
    }

    /// Makes sure that `bytes` more fit into the segment, if need be into the next one.
    fn make_room(&mut self, bytes: u64, purpose: Purpose) -> Result<(), JournalError> {
        if self.segment.room(self.group.frames.len()) >= bytes {
            return Ok(());
        }
        self.commit()?;
        let wanted = self.disk.options.segment_bytes.max(HEADER_BYTES + bytes + OWN_BYTES);
        let spare = match self.disk.keeper.take(wanted) {
            Err(error) if purpose == Purpose::Own => self.disk.keeper.take_reserve().ok_or(error)?,
            taken => taken?,
        };
        // Only the last segment may have a torn tail.
        self.sync()?;
        let header =
            Header { journal_id: self.disk.journal_id, chain: self.committed, previous: self.first_lsn };
        let begun = Segment::begin(&self.disk.options.dir, &spare.path, spare.file, &header);
        let segment = begun.map_err(poisoned(&spare.path))?;
        self.segment.close(header.first_lsn()).map_err(poisoned(&self.segment.path))?;
        (self.segment, self.first_lsn) = (segment, header.first_lsn());
        let (path, bytes) = (self.segment.path.clone(), self.segment.capacity);
        self.disk.add_segment(SegmentEntry { path, bytes, start: self.committed.position });
        Ok(())
    }

    /// Ends for good: whoever waits is told that the outcome is unknown.
    fn poison(&mut self, why: JournalError) -> JournalError {
        tracing::error!(error = %why, source = std::error::Error::source(&why), "the journal is poisoned");
        self.queue.enter(Phase::Poisoned);
        let mut companions: Vec<T> = self.group.epochs.drain(..).flat_map(|epoch| epoch.companions).collect();
        companions.append(&mut self.unknown);
        let mut waiting = Vec::new();
        self.queue.take(&mut waiting, Some(Duration::ZERO));
        companions.extend(waiting.into_iter().map(Entry::companion));
        self.follower.failed(companions, &why);
        why
    }
}

impl<T> Entry<T> {
    fn companion(self) -> T {
        match self {
            Entry::Append(append) => append.companion,
            Entry::Barrier(companion) => companion,
        }
    }
}

fn poisoned(path: &Path) -> impl FnOnce(io::Error) -> JournalError + '_ {
    move |source| JournalError::Poisoned { path: path.to_owned(), source: Arc::new(source) }
}
