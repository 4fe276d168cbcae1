//! A journal with a follower that writes down what it is told, and can be made to wait.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use dataflows::types::Micros;
use tempfile::TempDir;
use tracktags::clock::{MockClock, Stamps};
use tracktags::journal::{
    Append, Durable, Follower, Journal, JournalError, Kind, Observe, OpenError, Options, Position, Recovery,
    open,
};

/// When the tests begin: a whole second.
pub const BEGIN: Micros = Micros::from_seconds(1_000_000);

/// A frame as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub epoch: u64,
    pub lsn: u64,
    pub stamp: Micros,
    pub kind: Kind,
    pub payload: Vec<u8>,
}

/// What a follower has been told.
#[derive(Default)]
pub struct Told {
    pub epochs: Vec<Durable<u64>>,
    pub barriers: Vec<(Position, u64)>,
    pub failed: Vec<u64>,
    pub rejected: Vec<u64>,
    /// (bytes, appends) of each group.
    pub groups: Vec<(usize, usize)>,
    pub due_at: Option<Micros>,
    /// The follower waits in `durable` while this is set.
    pub held: bool,
}

/// The shared half of a follower.
#[derive(Clone, Default)]
pub struct Book(Arc<(Mutex<Told>, Condvar)>);

impl Book {
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.0.0.lock().expect("no test panics while holding it")
    }

    /// Lets the follower wait in `durable`, or go on.
    pub fn hold(&self, held: bool) {
        self.told().held = held;
        self.0.1.notify_all();
    }

    /// Waits until what was told satisfies `enough`; fails after ten seconds.
    pub fn wait(&self, enough: impl Fn(&Told) -> bool) -> MutexGuard<'_, Told> {
        let unsatisfied = |told: &mut Told| !enough(told);
        let waited = self.0.1.wait_timeout_while(self.told(), Duration::from_secs(10), unsatisfied);
        let (told, timeout) = waited.expect("no test panics while holding it");
        assert!(!timeout.timed_out(), "not told: {:?} {:?}", told.epochs, told.rejected);
        told
    }

    fn write(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told());
        self.0.1.notify_all();
    }
}

impl Told {
    /// The companions of everything durable, in order.
    pub fn durable(&self) -> Vec<u64> {
        self.epochs.iter().flat_map(|epoch| epoch.companions.clone()).collect()
    }

    /// The frames of one kind.
    pub fn stamps(&self, kind: Kind) -> Vec<Micros> {
        self.epochs.iter().filter(|epoch| epoch.kind == kind).map(|epoch| epoch.stamp).collect()
    }
}

impl Follower<u64> for Book {
    fn durable(&mut self, epochs: Vec<Durable<u64>>) {
        self.write(|told| told.epochs.extend(epochs));
        let held = self.0.1.wait_while(self.told(), |told| told.held);
        drop(held.expect("no test panics while holding it"));
    }

    fn barrier(&mut self, position: Position, companion: u64) {
        self.write(|told| told.barriers.push((position, companion)));
    }

    fn failed(&mut self, companions: Vec<u64>, _: &JournalError) {
        self.write(|told| told.failed.extend(companions));
    }

    fn rejected(&mut self, companions: Vec<u64>, _: &JournalError) {
        self.write(|told| told.rejected.extend(companions));
    }

    fn due_at(&mut self) -> Option<Micros> {
        self.told().due_at
    }
}

impl Observe for Book {
    fn group(&self, bytes: usize, appends: usize, _: Duration) {
        self.write(|told| told.groups.push((bytes, appends)));
    }
}

/// A journal that runs on a clock that stands until it is moved.
pub struct Running {
    pub journal: Journal<u64>,
    pub book: Book,
    pub clock: MockClock,
}

/// Small segments, kept as long as they are needed.
pub fn options(dir: &Path) -> Options {
    Options {
        segment_bytes: Options::SEGMENT_BYTES_MIN,
        retain: Duration::ZERO,
        idle_wait_max: Duration::from_millis(20),
        ..Options::new(dir)
    }
}

pub fn recover(dir: &Path) -> Result<Recovery, OpenError> {
    open(options(dir))
}

/// Opens and starts.
pub fn run(dir: &Path) -> Running {
    start(recover(dir).expect("the journal opens"))
}

pub fn start(recovery: Recovery) -> Running {
    let (book, clock) = (Book::default(), MockClock::at(BEGIN));
    let stamps = Arc::new(Stamps::new(Arc::new(clock.clone()), recovery.last_stamp()));
    let journal = recovery.start(stamps, book.clone(), Arc::new(book.clone())).expect("the journal starts");
    Running { journal, book, clock }
}

pub fn updates(companion: u64, bytes: impl Into<Vec<u8>>) -> Append<u64> {
    Append { kind: Kind::Updates, bytes: bytes.into(), companion }
}

impl Running {
    /// Appends and waits until it is durable: a group of its own.
    pub fn append(&self, companion: u64, bytes: impl Into<Vec<u8>>) {
        self.journal.append(updates(companion, bytes)).map_err(|(_, why)| why).expect("taken");
        drop(self.book.wait(|told| told.durable().contains(&companion)));
    }

    /// The position of a barrier behind everything so far.
    pub fn barrier(&self) -> Position {
        let before = self.book.told().barriers.len();
        self.journal.barrier(0).map_err(|(_, why)| why).expect("taken");
        self.book.wait(|told| told.barriers.len() > before).barriers[before].0
    }

    /// Takes a snapshot of one section that holds `state`.
    pub fn snapshot(&self, state: &[u8]) {
        let mut writer = self.journal.begin_snapshot(self.barrier()).expect("begun");
        writer.section(7, state).expect("written");
        writer.finish().expect("finished");
    }
}

/// A directory with `count` groups of one update each, payload `update 1`, `update 2`, ..., as a crash leaves it.
pub fn crashed(count: u64) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    for number in 1..=count {
        running.append(number, format!("update {number}"));
    }
    dir
}

/// Everything behind the snapshot.
pub fn read(recovery: &Recovery) -> Vec<Read> {
    let mut frames = recovery.frames().expect("readable");
    let mut read = Vec::new();
    while let Some(frame) = frames.next_frame().expect("readable") {
        let payload = frame.payload.to_vec();
        read.push(Read { epoch: frame.epoch, lsn: frame.lsn, stamp: frame.stamp, kind: frame.kind, payload });
    }
    read
}

/// The payloads of the updates behind the snapshot.
pub fn payloads(recovery: &Recovery) -> Vec<String> {
    let updates = read(recovery).into_iter().filter(|frame| frame.kind == Kind::Updates);
    updates.map(|frame| String::from_utf8(frame.payload).expect("the tests write text")).collect()
}

/// The files whose name begins with `prefix`, in order.
pub fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path());
    let mut files: Vec<_> = entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    files.sort();
    files
}

/// The content of every file.
pub fn content(dir: &Path) -> HashMap<PathBuf, Vec<u8>> {
    files(dir, "").into_iter().map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
}
