//! A disk that is full refuses appends and nothing else, and heals when there is room. Needs root for a tmpfs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dataflows::types::Epoch;
use tracktags::journal::{Kind, Rejected};

use super::support::{BEGIN, Running, payloads, read, recover, run, updates};

struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    #[allow(clippy::print_stderr)]
    fn mount(bytes: &str) -> Option<Tmpfs> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let size = format!("size={bytes}");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        if status.is_ok_and(|output| output.status.success()) {
            return Some(Tmpfs(dir));
        }
        eprintln!("skipped: mounting a tmpfs needs root");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A lazy unmount: nothing is left of it when the last file is closed.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Appends until nothing more is taken; how many were.
fn fill(running: &Running) -> u64 {
    for number in 1..100 {
        running.journal.append(updates(number, vec![b'x'; 100_000])).map_err(|(_, why)| why).expect("taken");
        let told = running.book.wait(|told| told.durable().len() + told.rejected.len() == number as usize);
        if !told.rejected.is_empty() {
            assert_eq!(told.rejected, [number], "the first one that does not fit");
            assert_eq!(told.durable(), (1..number).collect::<Vec<_>>());
            return number - 1;
        }
    }
    panic!("the disk is never full");
}

/// Appends until it is taken again.
fn heal(running: &Running, companion: u64) {
    let begun = Instant::now();
    while let Err((_, why)) = running.journal.append(updates(companion, "there is room")) {
        assert_eq!(why, Rejected::DiskFull);
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not heal");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(running.book.wait(|told| told.durable().contains(&companion)));
}

#[test]
fn a_full_disk_refuses_appends_lets_time_go_on_and_heals_when_there_is_room() {
    let Some(disk) = Tmpfs::mount("8m") else { return };
    let running = run(&disk.path().join("journal"));
    fs::write(disk.path().join("ballast"), vec![1; 3 << 20]).expect("written");
    let accepted = fill(&running);
    assert!((20..60).contains(&accepted), "some segments of ten: {accepted}");
    let refused = running.journal.append(updates(1000, "even a small one"));
    assert_eq!(refused.map_err(|(_, why)| why), Err(Rejected::DiskFull));

    // More time frames than the segment has room for: they go on into the reserve.
    let segments = running.journal.stats().segments;
    running.book.told().due_at = Some(BEGIN);
    let mut seconds = 0;
    while running.journal.stats().segments == segments {
        seconds += 1;
        running.clock.advance(Duration::from_secs(1));
        running.journal.wake();
        drop(running.book.wait(|told| told.stamps(Kind::Time).len() == 1 + seconds));
        assert!(seconds < 3000, "the reserve is never used");
    }
    assert!(running.journal.append(updates(1001, "still no room")).is_err());

    fs::remove_file(disk.path().join("ballast")).expect("removed");
    heal(&running, 2000);
    running.journal.close().expect("closed");
    drop(running);
    let recovery = recover(&disk.path().join("journal")).expect("whole");
    assert_eq!(payloads(&recovery).len() as u64, accepted + 1);
    assert_eq!(
        read(&recovery).len() as u64,
        accepted + seconds as u64 + 3,
        "the first second, the last update, a seal"
    );
}

#[test]
fn on_a_full_disk_a_snapshot_has_the_room_of_the_reserve_and_frees_segments() {
    let Some(disk) = Tmpfs::mount("7300k") else { return };
    // Seven files of one MiB, and less behind them than a snapshot needs.
    let running = run(&disk.path().join("journal"));
    running.journal.forget_before(Epoch::MAX);
    running.snapshot(b"the older one");
    fill(&running);
    running.snapshot(&[1; 300_000]);
    assert!(running.journal.append(updates(1000, "the older snapshot needs every segment")).is_err());
    // A snapshot at the same position would only replace that one.
    running.book.told().due_at = Some(BEGIN);
    running.clock.advance(Duration::from_secs(1));
    running.journal.wake();
    drop(running.book.wait(|told| told.stamps(Kind::Time).len() == 2));
    running.snapshot(&[2; 300_000]);
    heal(&running, 2000);
    drop(running);
    let recovery = recover(&disk.path().join("journal")).expect("whole");
    assert_eq!(payloads(&recovery), ["there is room"], "behind the snapshot");
}
