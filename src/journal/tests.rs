//! Failing disks, from inside: the segment is swapped for a device that takes writes and cannot sync, or takes none.

use std::fs::File;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataflows::types::Micros;

use super::*;
use crate::clock::{MockClock, Stamps};

/// What the follower was told: durable, failed or rejected.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Durable(Vec<u32>),
    Failed(Vec<u32>, String),
    Rejected(Vec<u32>),
}

struct Reporter {
    told: Sender<Told>,
    /// One message lets one group pass.
    gate: Arc<Mutex<Receiver<()>>>,
}

impl Follower<u32> for Reporter {
    fn durable(&mut self, epochs: Vec<Durable<u32>>) {
        let companions = epochs.into_iter().flat_map(|epoch| epoch.companions).collect();
        self.told.send(Told::Durable(companions)).expect("the test listens");
        let gate = self.gate.lock().expect("used by one thread");
        gate.recv_timeout(Duration::from_secs(10)).expect("the test lets it pass");
    }

    fn barrier(&mut self, _: Position, _: u32) {}

    fn failed(&mut self, companions: Vec<u32>, why: &JournalError) {
        self.told.send(Told::Failed(companions, why.to_string())).expect("the test listens");
    }

    fn rejected(&mut self, companions: Vec<u32>, _: &JournalError) {
        self.told.send(Told::Rejected(companions)).expect("the test listens");
    }

    fn due_at(&mut self) -> Option<Micros> {
        None
    }
}

/// A journal whose segment is `device`, what its follower is told, and the gate.
fn on(device: &str, durability: Durability) -> (tempfile::TempDir, Journal<u32>, Receiver<Told>, Sender<()>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options =
        Options { segment_bytes: Options::SEGMENT_BYTES_MIN, durability, ..Options::new(dir.path()) };
    let mut recovery = open(options).expect("a new journal");
    recovery.segment.file = File::options().write(true).open(device).expect("a device");
    let stamps = Arc::new(Stamps::new(Arc::new(MockClock::at(Micros::from_seconds(9))), None));
    let ((told, hear), (pass, gate)) = (channel(), channel());
    let follower = Reporter { told, gate: Arc::new(Mutex::new(gate)) };
    let journal = recovery.start(stamps, follower, Arc::new(())).expect("started");
    (dir, journal, hear, pass)
}

fn append(journal: &Journal<u32>, companion: u32) -> Option<Rejected> {
    let append = Append { kind: Kind::Updates, bytes: b"x".to_vec(), companion };
    journal.append(append).err().map(|(_, why)| why)
}

fn heard(hear: &Receiver<Told>) -> Told {
    hear.recv_timeout(Duration::from_secs(10)).expect("the follower is told")
}

#[test]
fn a_failed_fsync_poisons_the_journal_for_the_group_and_for_whoever_waits() {
    // /dev/null takes every write and refuses to sync. The first group passes because it is not synced.
    let (_dir, journal, hear, pass) = on("/dev/null", Durability::Os);
    assert_eq!(append(&journal, 1), None);
    assert_eq!(heard(&hear), Told::Durable(vec![1]));
    assert_eq!(append(&journal, 2), None);
    journal.barrier(3).expect("taken");
    assert_eq!(append(&journal, 4), None);
    pass.send(()).expect("the follower waits");
    assert_eq!(heard(&hear), Told::Durable(vec![2]));
    assert_eq!(append(&journal, 5), None);
    pass.send(()).expect("the follower waits");
    let Told::Failed(companions, why) = heard(&hear) else { panic!("the barrier's sync fails") };
    assert_eq!(companions, [3, 4, 5], "the barrier, the one behind it, the one in the queue");
    assert!(why.contains("segment-00000000000000000001"), "{why}");
    assert_eq!(append(&journal, 6), Some(Rejected::Poisoned));
    assert!(matches!(journal.close(), Err(JournalError::Poisoned { .. })));
    assert!(hear.try_recv().is_err(), "nobody is told twice, and no seal is tried");
}

#[test]
fn nothing_is_acknowledged_when_the_first_fsync_fails() {
    let (_dir, journal, hear, _pass) = on("/dev/null", Durability::Fsync);
    assert_eq!(append(&journal, 1), None);
    assert!(matches!(heard(&hear), Told::Failed(companions, _) if companions == [1]));
    assert!(matches!(journal.close(), Err(JournalError::Poisoned { .. })));
}

#[test]
fn a_write_that_finds_no_room_and_cannot_be_undone_is_unknown_and_not_rejected() {
    let (_dir, journal, hear, _pass) = on("/dev/full", Durability::Fsync);
    assert_eq!(append(&journal, 1), None);
    assert!(matches!(heard(&hear), Told::Failed(companions, _) if companions == [1]));
}

#[test]
fn a_follower_that_panics_takes_the_journal_with_it() {
    let (_dir, journal, hear, pass) = on("/dev/null", Durability::Os);
    drop(pass);
    assert_eq!(append(&journal, 1), None);
    assert_eq!(heard(&hear), Told::Durable(vec![1]));
    let closed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| journal.close()));
    assert!(closed.is_err());
    assert_eq!(append(&journal, 2), Some(Rejected::Poisoned));
}
