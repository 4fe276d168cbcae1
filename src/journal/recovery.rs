//! Opening a journal: what a start does before it answers anything.
//!
//! ```text
//! lock ─▶ headers of all segments ─▶ newest valid snapshot ─▶ chain behind it, to the last frame ─▶ tail (`tail`)
//!                     damage, holes, unknown versions: refused, nothing has been changed
//! ─▶ last frame no seal: copy the last segment up to there, sync, rename over it ─▶ Recovery
//! ```
//! The copy is what truncates a torn tail, and it is needed without one: after a failed fsync the page cache may hold
//! frames that the disk does not, and no later fsync of that file would write them.
//!
//! Segments before the one that holds the snapshot's position are checked by their headers alone.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataflows::types::Micros;

use super::disk::{self, SNAPSHOT_PREFIX, file_name, snapshot_path};
use super::error::{OpenError, open_error};
use super::frame::{Chain, salt};
use super::keeper::{clear_unfinished, remove_reserve};
use super::reader::Frames;
use super::segment::{Found, HEADER_BYTES, Header, PREFIX, Segment, inspect, sync_dir, zeroed};
use super::tail::{Tail, judge};
use super::{Follower, Journal, Kind, Observe, Options, Position, SnapshotReader, handle};
use crate::clock::Stamps;

/// A journal that has been opened and is not yet written to.
pub struct Recovery {
    pub(super) options: Options,
    pub(super) lock: File,
    pub(super) segments: Vec<Found>,
    /// Positions of the valid snapshots, oldest first.
    pub(super) snapshots: Vec<Position>,
    /// The end.
    pub(super) chain: Chain,
    /// The last segment, to be written on.
    pub(super) segment: Segment,
}

/// Locks the directory, finds the newest valid snapshot, checks the chain behind it, truncates a torn tail. A directory
/// without a journal gets a new one. Panics if `segment_bytes` is below its least.
pub fn open(options: Options) -> Result<Recovery, OpenError> {
    assert!(options.segment_bytes >= Options::SEGMENT_BYTES_MIN, "segments have a least size");
    let dir = options.dir.clone();
    make_dir(&dir)?;
    let lock = lock(&dir)?;
    let segments = segments(&dir)?;
    let snapshots = snapshots(&dir, segments.first().map(|found| found.header.journal_id))?;
    if segments.is_empty() {
        if let Some((_, path)) = disk::list(&dir, SNAPSHOT_PREFIX)?.pop() {
            return Err(OpenError::Missing { beside: file_name(&path), lsn: 1 });
        }
        return birth(options, lock);
    }
    let end = verify(&segments, snapshots.valid.last())?;
    snapshots.set_aside_damaged()?;
    clear_unfinished(&dir).map_err(open_error("clear", &dir))?;
    let mut recovery = Recovery {
        lock,
        segment: Segment { offset: end.offset, ..continue_at(&segments[segments.len() - 1])? },
        segments,
        snapshots: snapshots.valid,
        chain: end.chain,
        options,
    };
    if !end.sealed || end.torn_bytes > 0 {
        recovery.rewrite_tail(end.torn_bytes)?;
    }
    Ok(recovery)
}

impl Recovery {
    /// The journal's own random number, written at its birth.
    pub fn journal_id(&self) -> u128 {
        self.segments[0].header.journal_id
    }

    /// The end of the journal.
    pub fn position(&self) -> Position {
        self.chain.position
    }

    /// The last stamp, for `Stamps::new`; none in a new journal.
    pub fn last_stamp(&self) -> Option<Micros> {
        (self.chain.position.lsn > 0).then_some(self.chain.position.stamp)
    }

    /// Whether nothing has ever been recorded: no snapshot, no update, no definition.
    pub fn is_empty(&self) -> Result<bool, OpenError> {
        if !self.snapshots.is_empty() {
            return Ok(false);
        }
        let mut frames = self.frames()?;
        while let Some(frame) = frames.next_frame()? {
            if matches!(frame.kind, Kind::Updates | Kind::Definitions) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the snapshot to start from, if there is one.
    pub fn snapshot(&self) -> Result<Option<SnapshotReader>, OpenError> {
        let newest = self.snapshots.last();
        newest.map(|newest| SnapshotReader::open(&snapshot_path(&self.options.dir, newest.epoch))).transpose()
    }

    /// Reads what lies behind the snapshot.
    pub fn frames(&self) -> Result<Frames, OpenError> {
        let after = self.snapshots.last().map_or(0, |newest| newest.lsn);
        let behind = needed(&self.segments, after)?;
        Frames::open(behind.to_vec(), after, Some(self.chain.position))
    }

    /// Starts the writer thread.
    pub fn start<T: Send + 'static>(
        self,
        stamps: Arc<Stamps>,
        follower: impl Follower<T> + 'static,
        observe: Arc<dyn Observe>,
    ) -> Result<Journal<T>, OpenError> {
        let dir = self.options.dir.clone();
        handle::start(self, stamps, follower, observe).map_err(open_error("start the threads for", &dir))
    }

    /// Copies the last segment up to the last frame into a new file and puts that in its place.
    fn rewrite_tail(&mut self, torn_bytes: usize) -> Result<(), OpenError> {
        let dir = &self.options.dir;
        let last = self.segments.last_mut().expect("there is a segment to continue");
        let bytes = self.options.segment_bytes.max(self.segment.offset);
        let copied = copy(dir, last, self.segment.offset, bytes).or_else(|error| {
            if error.kind() == io::ErrorKind::StorageFull && remove_reserve(dir) {
                copy(dir, last, self.segment.offset, bytes)
            } else {
                Err(error)
            }
        });
        self.segment.file = copied.map_err(open_error("copy", &last.path))?;
        (self.segment.capacity, last.bytes) = (bytes, bytes);
        let mut copy = Frames::open(vec![last.clone()], u64::MAX, Some(self.chain.position))?;
        while copy.next_frame()?.is_some() {}
        let (segment, offset, lsn) = (&last.name, self.segment.offset, self.chain.position.lsn);
        if torn_bytes > 0 {
            tracing::warn!(
                segment,
                offset,
                lsn,
                torn_bytes,
                "a torn tail behind the last frame was truncated"
            );
        } else {
            tracing::info!(
                segment,
                offset,
                lsn,
                "the journal was not closed: its last segment was written anew"
            );
        }
        Ok(())
    }
}

fn copy(dir: &Path, last: &Found, end: u64, bytes: u64) -> io::Result<File> {
    let temporary = dir.join("copy.tmp");
    let file = zeroed(&temporary, bytes)?;
    let copied = (|| {
        let mut source = File::open(&last.path)?;
        // The header anew: it must not carry a closing mark.
        file.write_all_at(&last.header.encode(), 0)?;
        let mut buffer = vec![0; 1 << 20];
        let mut at = source.seek(SeekFrom::Start(HEADER_BYTES))?;
        while at < end {
            let length = buffer.len().min((end - at) as usize);
            source.read_exact(&mut buffer[..length])?;
            file.write_all_at(&buffer[..length], at)?;
            at += length as u64;
        }
        file.sync_all()?;
        fs::rename(&temporary, &last.path)?;
        sync_dir(dir)
    })();
    match copied {
        Ok(()) => Ok(file),
        // Best effort: the next start clears it.
        Err(error) => fs::remove_file(&temporary).map_or(Ok(()), Ok).and(Err(error)),
    }
}

fn make_dir(dir: &Path) -> Result<(), OpenError> {
    if !dir.is_dir() {
        fs::create_dir_all(dir).map_err(open_error("create", dir))?;
        if let Some(parent) = dir.parent().filter(|parent| parent.is_dir()) {
            sync_dir(parent).map_err(open_error("sync", parent))?;
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(open_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(open_error("lock", &path)(source)),
    }
}

/// The segments, each named after its first frame, each the successor of the one before it.
fn segments(dir: &Path) -> Result<Vec<Found>, OpenError> {
    let mut segments: Vec<Found> = Vec::new();
    for (first_lsn, path) in disk::list(dir, PREFIX)? {
        let found = inspect(&path, file_name(&path), first_lsn)?;
        if let Some(before) = segments.last() {
            if before.header.journal_id != found.header.journal_id {
                return Err(OpenError::Foreign { file: found.name });
            }
            let first_of_before = before.header.first_lsn();
            if found.header.previous != first_of_before || before.next.is_some_and(|next| next != first_lsn) {
                let lsn = before.next.unwrap_or(found.header.previous);
                return Err(OpenError::Missing { beside: found.name, lsn });
            }
        }
        segments.push(found);
    }
    if let Some(lsn) = segments.last().and_then(|last| last.next) {
        let beside = segments.pop().map(|last| last.name).unwrap_or_default();
        return Err(OpenError::Missing { beside, lsn });
    }
    Ok(segments)
}

struct Snapshots {
    valid: Vec<Position>,
    damaged: Vec<PathBuf>,
}

/// The snapshots, oldest first. A bad one is no reason to refuse as long as the frames behind an older one are there.
fn snapshots(dir: &Path, journal_id: Option<u128>) -> Result<Snapshots, OpenError> {
    let mut snapshots = Snapshots { valid: Vec::new(), damaged: Vec::new() };
    for (_, path) in disk::list(dir, SNAPSHOT_PREFIX)? {
        let read = SnapshotReader::open(&path).and_then(|reader| {
            if journal_id.is_some_and(|id| id != reader.journal_id()) {
                return Err(OpenError::Foreign { file: file_name(&path) });
            }
            let position = reader.position();
            reader.check().map(|()| position)
        });
        match read {
            Ok(position) => snapshots.valid.push(position),
            Err(error @ OpenError::Damaged { .. }) => {
                tracing::warn!(%error, "a snapshot is not used");
                snapshots.damaged.push(path);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(snapshots)
}

impl Snapshots {
    /// Out of the way of the next ones, and there for whoever wants to look.
    fn set_aside_damaged(&self) -> Result<(), OpenError> {
        for path in &self.damaged {
            fs::rename(path, path.with_extension("damaged")).map_err(open_error("rename", path))?;
        }
        Ok(())
    }
}

/// The segments with what lies behind `after`.
fn needed(segments: &[Found], after: u64) -> Result<&[Found], OpenError> {
    let first = segments.iter().rposition(|found| found.header.chain.position.lsn <= after);
    let missing = || OpenError::Missing { beside: segments[0].name.clone(), lsn: after + 1 };
    first.map(|first| &segments[first..]).ok_or_else(missing)
}

struct End {
    chain: Chain,
    offset: u64,
    sealed: bool,
    torn_bytes: usize,
}

/// Reads everything behind the snapshot and judges what lies behind the last frame.
fn verify(segments: &[Found], snapshot: Option<&Position>) -> Result<End, OpenError> {
    let after = snapshot.map_or(0, |position| position.lsn);
    let mut frames = Frames::open(needed(segments, after)?.to_vec(), u64::MAX, None)?;
    while frames.next_frame()?.is_some() {}
    let (_, offset, chain) = frames.reached();
    let last = &segments[segments.len() - 1];
    let mut rest = Vec::new();
    let mut file = File::open(&last.path).map_err(open_error("read", &last.path))?;
    let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_to_end(&mut rest));
    read.map_err(open_error("read", &last.path))?;
    let torn_bytes = match judge(&rest, offset, &chain) {
        Tail::Clean => 0,
        Tail::Torn => rest.len() - rest.iter().rev().take_while(|&&byte| byte == 0).count(),
        Tail::Damaged => return Err(frames.refuse(frames.why())),
    };
    if chain.position.lsn < after {
        return Err(frames.refuse("a snapshot is behind frames that are not there"));
    }
    Ok(End { chain, offset, sealed: frames.last_kind() == Some(Kind::Seal), torn_bytes })
}

fn continue_at(last: &Found) -> Result<Segment, OpenError> {
    let file = File::options().read(true).write(true).open(&last.path);
    let file = file.map_err(open_error("open", &last.path))?;
    Ok(Segment { file, path: last.path.clone(), offset: HEADER_BYTES, capacity: last.bytes })
}

fn birth(options: Options, lock: File) -> Result<Recovery, OpenError> {
    let dir = &options.dir;
    clear_unfinished(dir).map_err(open_error("clear", dir))?;
    let mut random = [0; 16];
    let filled = getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()));
    filled.map_err(open_error("draw a random id for", dir))?;
    let journal_id = u128::from_le_bytes(random);
    let chain = Chain { salt: salt(journal_id), position: Position::default(), crc: 0 };
    let header = Header { journal_id, chain, previous: 0 };
    let spare = dir.join("first.tmp");
    let begun =
        zeroed(&spare, options.segment_bytes).and_then(|file| Segment::begin(dir, &spare, file, &header));
    let segment = begun.map_err(open_error("create", &spare))?;
    let (path, name) = (segment.path.clone(), header.file_name());
    let found = Found { path, name, header, bytes: segment.capacity, next: None };
    Ok(Recovery { options, lock, segments: vec![found], snapshots: Vec::new(), chain, segment })
}
