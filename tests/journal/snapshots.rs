//! Snapshots, and what of the journal goes when they are there.

use std::fs;
use std::path::Path;

use dataflows::types::Epoch;
use tracktags::journal::{OpenError, Options, Recovery, open};

use super::support::{files, options, payloads, recover, run, start};

fn sections(recovery: &Recovery) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut reader = recovery.snapshot().expect("readable")?;
    let mut sections = Vec::new();
    while let Some((kind, bytes)) = reader.next_section().expect("readable") {
        sections.push((kind, bytes.to_vec()));
    }
    Some(sections)
}

/// Two snapshots, each with two updates before it, and two updates behind.
fn two_snapshots(dir: &Path) {
    let running = run(dir);
    for number in 1..=6 {
        running.append(number, format!("update {number}"));
        if number == 2 || number == 4 {
            running.snapshot(format!("state {number}").as_bytes());
        }
    }
}

#[test]
fn a_start_gets_the_newest_snapshot_and_the_frames_behind_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    two_snapshots(dir.path());
    let recovery = recover(dir.path()).expect("whole");
    assert_eq!(sections(&recovery), Some(vec![(7, b"state 4".to_vec())]));
    assert_eq!(payloads(&recovery), ["update 5", "update 6"]);
    let position = recovery.snapshot().expect("readable").expect("there").position();
    assert_eq!((position.lsn, position.epoch), (5, 5), "time and four updates");
}

#[test]
fn any_flipped_bit_or_cut_of_the_newest_makes_a_start_fall_back_to_the_older() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    two_snapshots(dir.path());
    let newest = files(dir.path(), "snapshot-")[1].clone();
    let whole = fs::read(&newest).expect("readable");
    let flipped = (0..whole.len() * 8).step_by(3).map(|bit| {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    // From here on nothing is written anew at each start.
    run(dir.path()).journal.close().expect("sealed");
    for (number, bytes) in flipped.chain(cut).enumerate() {
        fs::write(&newest, bytes).expect("written");
        let recovery = recover(dir.path()).unwrap_or_else(|refusal| panic!("{number}: {refusal}"));
        assert_eq!(sections(&recovery), Some(vec![(7, b"state 2".to_vec())]), "{number}");
        assert_eq!(payloads(&recovery), ["update 3", "update 4", "update 5", "update 6"]);
        assert!(!newest.exists(), "set aside");
    }
}

#[test]
fn without_any_valid_snapshot_the_whole_journal_is_read_if_it_is_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    two_snapshots(dir.path());
    for path in files(dir.path(), "snapshot-") {
        fs::write(path, "no snapshot").expect("written");
    }
    let recovery = recover(dir.path()).expect("the journal is whole");
    assert_eq!(sections(&recovery), None);
    assert_eq!(payloads(&recovery).len(), 6);
}

#[test]
fn a_snapshot_without_its_journal_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    two_snapshots(dir.path());
    let aside = tempfile::tempdir().expect("a temporary directory");
    let segment = files(dir.path(), "segment-")[0].clone();
    fs::copy(&segment, aside.path().join("segment")).expect("copied");
    fs::remove_file(&segment).expect("removed");
    let refusal = recover(dir.path()).err().expect("refused");
    assert!(matches!(refusal, OpenError::Missing { .. }), "{refusal}");
    // The same with a journal that ends before the snapshot.
    let file = fs::read(aside.path().join("segment")).expect("readable");
    fs::write(&segment, &file[..300]).expect("written");
    let refusal = recover(dir.path()).err().expect("refused");
    assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
}

#[test]
fn a_snapshot_that_is_not_finished_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    running.append(1, "x");
    let mut writer = running.journal.begin_snapshot(running.barrier()).expect("begun");
    writer.section(1, &[0; 1 << 20]).expect("written");
    drop(writer);
    assert!(files(dir.path(), "snapshot-").is_empty());
}

#[test]
fn a_snapshot_can_be_taken_after_the_close() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    running.append(1, "x");
    let position = running.barrier();
    running.journal.close().expect("closed");
    let mut writer = running.journal.begin_snapshot(position).expect("begun");
    writer.section(1, b"all").expect("written");
    writer.finish().expect("finished");
    drop(running);
    let recovery = recover(dir.path()).expect("whole");
    assert_eq!(sections(&recovery), Some(vec![(1, b"all".to_vec())]));
    assert!(payloads(&recovery).is_empty());
}

#[test]
fn two_snapshots_are_kept_and_the_segments_that_only_older_ones_need_go() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    for number in 1..=8 {
        running.append(number, vec![b'x'; 600_000]);
        running.snapshot(b"state");
    }
    assert_eq!(files(dir.path(), "snapshot-").len(), 2);
    assert_eq!(running.journal.stats().segments, 8, "no sink has said anything");
    running.journal.forget_before(4);
    assert_eq!(files(dir.path(), "segment-").len(), 8 - 3, "time and three updates are behind the sinks");
    running.journal.forget_before(Epoch::MAX);
    assert_eq!(
        files(dir.path(), "segment-").len(),
        1,
        "the older snapshot was taken at the end of the seventh"
    );
    assert_eq!(running.journal.stats().segments, 1);
    running.append(9, "y");
    drop(running);
    let newest = &files(dir.path(), "snapshot-")[1];
    let recovery = recover(dir.path()).expect("the chain begins later");
    assert_eq!(payloads(&recovery), ["y"]);
    drop(recovery);
    fs::write(newest, "no snapshot").expect("written");
    let recovery = recover(dir.path()).expect("what the older one needs is there");
    assert_eq!(payloads(&recovery).len(), 2);
    let running = start(recovery);
    running.append(10, "z");
}

#[test]
fn below_the_quota_segments_are_retained_for_their_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let retain = std::time::Duration::from_secs(100);
    let quota_bytes = 5 << 20;
    let options = Options { retain, quota_bytes, ..options(dir.path()) };
    let running = start(open(options).expect("opens"));
    running.journal.forget_before(Epoch::MAX);
    for number in 1..=5 {
        running.append(number, vec![b'x'; 600_000]);
        running.snapshot(b"state");
    }
    assert_eq!(running.journal.stats().segments, 5, "nothing is old enough");
    for number in 6..=8 {
        running.append(number, vec![b'x'; 600_000]);
        running.snapshot(b"state");
    }
    assert_eq!(running.journal.stats().segments, 5, "the quota goes before the time");
    running.clock.advance(retain);
    running.append(9, "y");
    running.snapshot(b"state");
    assert_eq!(running.journal.stats().segments, 1, "old enough");
}
