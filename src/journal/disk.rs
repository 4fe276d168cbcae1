//! What the journal has on the disk, and what of it may go.
//!
//! The oldest segment is removed when everything in it is behind the older of the two snapshots, behind the sinks'
//! progress, and older than `retain`; over the quota `retain` does not count. Nothing is removed before there are two
//! snapshots, and never the segment being written. Each removal is synced before the next, so that a power cut leaves
//! no hole.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dataflows::types::Epoch;

use super::error::{JournalError, OpenError, io_error, open_error};
use super::handle::Stats;
use super::keeper::Keeper;
use super::segment::{self, sync_dir};
use super::{Options, Position};

/// What file names of snapshots begin with; the epoch follows, twenty digits.
pub(super) const SNAPSHOT_PREFIX: &str = "snapshot-";
/// Snapshots kept.
const SNAPSHOTS: usize = 2;

/// A segment as the catalog knows it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub path: PathBuf,
    pub bytes: u64,
    /// The position before its first frame.
    pub start: Position,
}

/// The files, oldest first, and who still needs them.
pub(super) struct Catalog {
    pub segments: VecDeque<Entry>,
    /// The positions of the valid snapshots.
    pub snapshots: VecDeque<Position>,
    /// The last durable frame.
    pub position: Position,
    /// The sinks need nothing up to here.
    pub forgotten: Epoch,
}

/// The directory of an open journal.
pub(super) struct Disk {
    pub options: Options,
    pub journal_id: u128,
    pub keeper: Keeper,
    pub catalog: Mutex<Catalog>,
    /// Held as long as this lives.
    pub _lock: File,
}

/// The files whose name is `prefix` and twenty digits, by number.
pub(super) fn list(dir: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>, OpenError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(open_error("read", dir))? {
        let path = entry.map_err(open_error("read", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let digits = name.and_then(|name| name.strip_prefix(prefix)).filter(|digits| digits.len() == 20);
        if let Some(number) = digits.and_then(|digits| digits.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The name of a file, for messages.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

impl Disk {
    /// The catalog; nobody panics while holding it.
    pub fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there, as told to the outside.
    pub fn stats(&self) -> Stats {
        let catalog = self.catalog();
        Stats { segment_bytes: catalog.bytes(), segments: catalog.segments.len(), position: catalog.position }
    }

    /// The sinks' progress.
    pub fn forget(&self, epoch: Epoch) {
        let mut catalog = self.catalog();
        catalog.forgotten = catalog.forgotten.max(epoch);
        self.log_failure(catalog.retain(&self.options));
    }

    /// Another segment is being written.
    pub fn add_segment(&self, entry: Entry) {
        let mut catalog = self.catalog();
        catalog.segments.push_back(entry);
        self.log_failure(catalog.retain(&self.options));
    }

    /// A snapshot is durable: the older ones and what only they needed may go.
    pub fn add_snapshot(&self, position: Position) {
        let mut catalog = self.catalog();
        catalog.snapshots.retain(|kept| kept.epoch != position.epoch);
        catalog.snapshots.push_back(position);
        let kept = catalog.snapshots.len().saturating_sub(SNAPSHOTS);
        for old in catalog.snapshots.drain(..kept).collect::<Vec<_>>() {
            self.log_failure(remove(&self.options.dir, &snapshot_path(&self.options.dir, old.epoch)));
        }
        self.log_failure(catalog.retain(&self.options));
    }

    /// Files that cannot be removed cost room, nothing else.
    fn log_failure(&self, removed: Result<(), JournalError>) {
        if let Err(error) = removed {
            tracing::warn!(%error, "an old file of the journal stays");
        }
    }
}

/// Where the snapshot of this epoch lies.
pub(super) fn snapshot_path(dir: &Path, epoch: Epoch) -> PathBuf {
    dir.join(format!("{SNAPSHOT_PREFIX}{epoch:020}"))
}

fn remove(dir: &Path, path: &Path) -> Result<(), JournalError> {
    fs::remove_file(path).map_err(io_error("remove", path))?;
    sync_dir(dir).map_err(io_error("sync", dir))
}

impl Catalog {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|entry| entry.bytes).sum()
    }

    /// How many of the oldest segments nobody needs.
    fn spent(&self, options: &Options) -> usize {
        if self.snapshots.len() < SNAPSHOTS {
            return 0;
        }
        let older = self.snapshots[self.snapshots.len() - SNAPSHOTS].lsn;
        let retain_micros = i64::try_from(options.retain.as_micros()).unwrap_or(i64::MAX);
        let mut bytes = self.bytes();
        let ends = self.segments.iter().skip(1).map(|next| next.start);
        let spent = self.segments.iter().zip(ends).take_while(|(entry, end)| {
            let unneeded = end.lsn <= older && end.epoch <= self.forgotten;
            let expired = end.stamp.0.saturating_add(retain_micros) <= self.position.stamp.0;
            let goes = unneeded && (expired || bytes > options.quota_bytes);
            bytes -= entry.bytes;
            goes
        });
        spent.count()
    }

    fn retain(&mut self, options: &Options) -> Result<(), JournalError> {
        for _ in 0..self.spent(options) {
            remove(&options.dir, &self.segments[0].path)?;
            self.segments.pop_front();
        }
        Ok(())
    }
}

impl From<&segment::Found> for Entry {
    fn from(found: &segment::Found) -> Entry {
        Entry { path: found.path.clone(), bytes: found.bytes, start: found.header.chain.position }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataflows::types::Micros;

    use super::*;

    fn at(lsn: u64) -> Position {
        let stamp = Micros::from_seconds(lsn as i64);
        Position { epoch: lsn, lsn, stamp, time: stamp }
    }

    /// Five segments of ten bytes and ten frames, the last being written; one frame a second.
    fn catalog() -> Catalog {
        let segments = (0..5).map(|index| Entry { path: "x".into(), bytes: 10, start: at(index * 10) });
        Catalog {
            segments: segments.collect(),
            snapshots: [at(25), at(40)].into(),
            position: at(48),
            forgotten: 48,
        }
    }

    fn options(retain_secs: u64, quota_bytes: u64) -> Options {
        Options { retain: Duration::from_secs(retain_secs), quota_bytes, ..Options::new("x") }
    }

    #[test]
    fn segments_stay_until_the_older_snapshot_the_sinks_and_the_time_are_past_them() {
        assert_eq!(catalog().spent(&options(0, 1000)), 2, "the older snapshot needs the third");
        assert_eq!(catalog().spent(&options(38, 1000)), 1, "the second ended 28 seconds ago");
        assert_eq!(catalog().spent(&options(39, 1000)), 0);
        assert_eq!(Catalog { forgotten: 19, ..catalog() }.spent(&options(0, 1000)), 1);
        assert_eq!(Catalog { forgotten: 9, ..catalog() }.spent(&options(0, 1000)), 0);
        assert_eq!(Catalog { snapshots: [at(40)].into(), ..catalog() }.spent(&options(0, 1000)), 0);
    }

    #[test]
    fn over_the_quota_only_what_is_needed_stays() {
        assert_eq!(catalog().spent(&options(1000, 50)), 0);
        assert_eq!(catalog().spent(&options(1000, 49)), 1, "one is enough");
        assert_eq!(catalog().spent(&options(1000, 1)), 2);
        let everything_behind = Catalog { snapshots: [at(48), at(48)].into(), ..catalog() };
        assert_eq!(everything_behind.spent(&options(1000, 1)), 4, "never the one being written");
    }
}
