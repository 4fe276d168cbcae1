//! SIGTERM under load, and what the next start makes of what it left.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::kills::settle_and_audit;
use super::support::Random;
use super::support::audit::{Fleet, Habits};
use super::support::history::Place;
use super::support::server::{Launch, STOP_LIMIT};

/// One series in three would not be in the store for an hour.
const HABITS: Habits = Habits { audits: true, batches: &["1s", "5s", "1h"] };

fn newest_snapshot(data_dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(data_dir.join("journal")).expect("the journal is there").flatten();
    let files = entries.map(|entry| entry.path());
    let snapshots =
        files.filter(|file| file.file_name().is_some_and(|it| it.to_string_lossy().starts_with("snapshot-")));
    let taken_at = |file: &PathBuf| file.metadata().and_then(|it| it.modified()).ok();
    snapshots.max_by_key(taken_at).expect("a stop leaves a snapshot")
}

fn flip_a_byte_in_the_middle(file: &Path) {
    let mut bytes = std::fs::read(file).expect("the snapshot is readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(file, bytes).expect("the snapshot is writable");
}

#[test]
fn stopped_under_load_it_loses_nothing_and_the_store_is_complete() {
    let mut random = Random::seeded("stop under load");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let mut fleet = Fleet::new(16, HABITS, &mut random);
    let server = Launch::dev(&data_dir).workers(2).start();
    let base = server.base();
    let ended = fleet.load(&base, || {
        sleep(Duration::from_millis(1_500));
        server.terminate();
        server.ended_within(STOP_LIMIT)
    });
    assert!(ended.status.success(), "{:?}\n{}", ended.status, ended.errors);
    println!("stopped after {:?}, {} updates", ended.took, fleet.acknowledged());

    let server = Launch::dev(&data_dir).workers(2).start();
    settle_without_store(&mut fleet, &server.base());
    // Quiet now: the stop flushes the last batch, whatever its interval.
    server.stop();
    fleet.audit_store(Place::Embedded(&data_dir), Duration::ZERO);
    fleet.demand_nothing_wrong("the store after a stop");
}

fn settle_without_store(fleet: &mut Fleet, base: &str) {
    fleet.settle(base);
    fleet.audit_engine(base);
    fleet.demand_nothing_wrong("after the stop");
}

#[test]
fn another_number_of_workers_reads_the_same_values_from_the_snapshot() {
    let mut random = Random::seeded("workers");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let habits = Habits { audits: true, batches: &["1s"] };
    let mut fleet = Fleet::new(8, habits, &mut random);
    for workers in [1, 3, 2] {
        let server = Launch::dev(&data_dir).workers(workers).start();
        fleet.settle(&server.base());
        fleet.audit_engine(&server.base());
        fleet.demand_nothing_wrong(&format!("read by {workers} workers"));
        fleet.load(&server.base(), || sleep(Duration::from_millis(700)));
        settle_and_audit(&mut fleet, &server, server.place(), &format!("{workers} workers"));
        server.stop();
    }
}

#[test]
fn a_start_reads_the_snapshot_and_falls_back_from_a_damaged_one() {
    let mut random = Random::seeded("snapshot");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let habits = Habits { audits: true, batches: &["1s"] };
    let mut fleet = Fleet::new(4, habits, &mut random);
    for _ in 0..2 {
        let server = Launch::dev(&data_dir).start();
        fleet.load(&server.base(), || sleep(Duration::from_millis(300)));
        fleet.settle(&server.base());
        server.stop();
    }
    let snapshot = newest_snapshot(&data_dir);
    flip_a_byte_in_the_middle(&snapshot);
    let server = Launch::dev(&data_dir).start();
    settle_and_audit(&mut fleet, &server, server.place(), "after the older snapshot");
    // Who does not read snapshots does not complain of one.
    let ended = server.stop();
    let name = snapshot.file_name().expect("a file").to_string_lossy();
    assert!(
        ended.errors.contains(&*name) || ended.output.contains(&*name),
        "{name} was not read\n{}",
        ended.errors
    );
}
