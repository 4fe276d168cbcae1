//! Power cuts: the data directory is on a disk of its own that forgets what was never synced. The auditor's log is in
//! this process, outside of that disk. The same loop must find each seeded bug, else it would prove nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::kills::settle_and_audit;
use super::support::api::{Client, Outcome};
use super::support::audit::{Fleet, Habits};
use super::support::disk::Disk;
use super::support::server::{Launch, Server};
use super::support::{Random, rounds};

const CLIENTS: usize = 16;
const DISK_MEBIBYTES: u64 = 512;
/// How long a segment of 1 MiB may take to fill.
const ROLL_LIMIT: Duration = Duration::from_secs(20);

fn launch(disk: &Disk, random: &mut Random) -> Launch {
    let launch = Launch::dev(disk.path().join("data")).workers(1 + random.below(2));
    launch.with(&["--segment-bytes", "1MiB", "--durability", "fsync"])
}

/// The segments of the journal that the next start will read.
fn segments(data_dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(data_dir.join("journal")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("segment-") && !name.contains(".tmp")).collect()
}

/// Waits, without sleeping, for the next segment. False if none comes.
fn await_roll(data_dir: &Path) -> bool {
    let (known, start) = (segments(data_dir), Instant::now());
    while start.elapsed() < ROLL_LIMIT {
        if segments(data_dir).difference(&known).next().is_some() {
            return true;
        }
        sleep(Duration::from_micros(50));
    }
    false
}

/// Fills segments quickly: one series is described anew, with 8 KB of custom metadata, again and again.
fn fill(base: &str, stop: &AtomicBool) {
    let client = Client::new(base);
    let custom = "x".repeat(8_000);
    let body = format!(r#"{{"metric_name": "filler", "metadata": {{"custom": {{"text": "{custom}"}}}}}}"#);
    if let refused @ Outcome::Rejected(400..=499, _) = client.post("/api/v1/metrics", &body) {
        panic!("the filler cannot be made: {refused:?}");
    }
    let mut change = 0;
    while !stop.load(Ordering::Relaxed) {
        change += 1;
        let body = format!(r#"{{"tags": {{"change": "{change}"}}}}"#);
        if !matches!(client.call("PATCH", "/api/v1/metrics/filler", &[], &body), Outcome::Durable(_)) {
            sleep(Duration::from_millis(5));
        }
    }
}

/// Load until the moment comes, then no power, then the process is gone, then power again.
fn load_and_cut(fleet: &mut Fleet, server: Server, disk: &mut Disk, moment: impl FnOnce(&Path)) {
    let base = server.base();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let filler = scope.spawn(|| fill(&base, &stop));
        fleet.load(&base, || {
            moment(server.data_dir());
            disk.cut();
            // Whatever it still says, it says without a disk: a moment for it to say too much.
            sleep(Duration::from_millis(30));
            server.kill();
        });
        stop.store(true, Ordering::Relaxed);
        filler.join().expect("the filler fills");
    });
    drop(server);
    disk.restore();
}

#[test]
fn after_power_cuts_every_acknowledged_update_is_counted_exactly_once() {
    let mut random = Random::seeded("cuts");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut disk = Disk::new(folder.path(), DISK_MEBIBYTES);
    let habits = Habits { audits: true, batches: &["1s", "1s", "5s"] };
    let mut fleet = Fleet::new(CLIENTS, habits, &mut random);
    let mut server = launch(&disk, &mut random).start();
    let (rounds, mut rolled) = (rounds(5, 20), 0);
    for round in 0..rounds {
        let (near_a_roll, wait) = (round % 2 == 1, random.millis(20, 1_000));
        load_and_cut(&mut fleet, server, &mut disk, |data_dir| {
            rolled += usize::from(near_a_roll && await_roll(data_dir));
            sleep(wait);
        });
        server = launch(&disk, &mut random).start();
        let roll = if near_a_roll { " after a roll" } else { "" };
        settle_and_audit(&mut fleet, &server, server.place(), &format!("cut {round}, {wait:?}{roll}"));
    }
    println!("{rounds} cuts, {} updates, {} unknown answers", fleet.acknowledged(), fleet.unknown());
    assert!(fleet.unknown() > 0, "no cut hit a call: the load is too small to prove anything");
    assert_eq!(rolled, rounds / 2, "no segment was filled within {ROLL_LIMIT:?}");
    drop(server);
}

#[cfg(feature = "seeded-bugs")]
mod seeded {
    use super::*;

    const TRIES_MAX: usize = 20;

    /// Cuts until something is found missing. Nothing but the journal syncs: batches are an hour apart.
    fn tries_until_caught(bug: &str, moment: impl Fn(&Path, &mut Random)) -> usize {
        let mut random = Random::seeded(bug);
        let folder = tempfile::tempdir().expect("a temporary folder");
        for attempt in 1..=TRIES_MAX {
            let mut disk = Disk::new(folder.path(), DISK_MEBIBYTES);
            let habits = Habits { audits: false, batches: &["1h"] };
            let mut fleet = Fleet::new(CLIENTS, habits, &mut random);
            let server = launch(&disk, &mut random).environment("TRACKTAGS_SEEDED_BUG", bug).start();
            load_and_cut(&mut fleet, server, &mut disk, |data_dir| moment(data_dir, &mut random));
            fleet.demand_nothing_wrong("before the cut nothing can be wrong");
            match launch(&disk, &mut random).try_start() {
                // A journal with a hole may also be refused. That is a loss that somebody noticed.
                Err(why) => {
                    println!("{bug}: caught by the start, try {attempt}: {why}");
                    return attempt;
                }
                Ok(server) => {
                    fleet.settle(&server.base());
                    fleet.audit_engine(&server.base());
                    if let Some(finding) = fleet.findings().first() {
                        println!("{bug}: caught by the auditor, try {attempt}: {finding}");
                        return attempt;
                    }
                }
            }
        }
        panic!("{bug}: not caught in {TRIES_MAX} tries: the power cuts prove nothing");
    }

    #[test]
    fn an_acknowledgement_before_the_fsync_is_caught() {
        tries_until_caught("ack-before-fsync", |_, random| sleep(random.millis(300, 1_000)));
    }

    #[test]
    fn a_rename_without_a_directory_fsync_is_caught() {
        tries_until_caught("rename-without-dir-fsync", |data_dir, random| {
            assert!(await_roll(data_dir), "no segment was filled within {ROLL_LIMIT:?}");
            // Long enough for some acknowledgements, too short for anybody else's sync.
            sleep(random.millis(0, 8));
        });
    }
}
