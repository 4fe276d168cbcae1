//! Cuts, flipped bits and missing files: a torn tail costs nothing that was acknowledged, damage is refused by name.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;
use tracktags::journal::{Kind, OpenError};

use super::support::{content, crashed, files, payloads, read, recover, run};

const HEADER_BYTES: u64 = 128;
const HEAD_BYTES: u64 = 48;

/// Where the frames lie in the only segment: offset of each, and the end.
fn offsets(dir: &Path) -> Vec<u64> {
    let lengths = read(&recover(dir).expect("whole")).into_iter().map(|frame| frame.payload.len() as u64);
    let mut offsets = vec![HEADER_BYTES];
    for length in lengths {
        offsets.push(offsets[offsets.len() - 1] + HEAD_BYTES + length);
    }
    offsets
}

fn numbered(count: u64) -> Vec<String> {
    (1..=count).map(|number| format!("update {number}")).collect()
}

fn copied(from: &TempDir) -> TempDir {
    let to = tempfile::tempdir().expect("a temporary directory");
    for path in files(from.path(), "segment-").into_iter().chain(files(from.path(), "snapshot-")) {
        fs::copy(&path, to.path().join(path.file_name().expect("a file"))).expect("copied");
    }
    to
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("writable");
    file.write_all_at(bytes, offset).expect("written");
}

fn flip(path: &Path, bit: u64) {
    let file = File::options().read(true).write(true).open(path).expect("writable");
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).expect("within the file");
    file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).expect("written");
}

fn refused(dir: &Path) -> OpenError {
    recover(dir).err().expect("refused")
}

#[test]
fn cut_at_any_byte_of_its_last_three_frames_it_starts_with_every_frame_before_the_cut() {
    let whole = crashed(5);
    let offsets = offsets(whole.path());
    let (segment, count) = (&files(whole.path(), "segment-")[0], offsets.len() - 1);
    let bytes = fs::read(segment).expect("readable");
    for cut in offsets[count - 3]..offsets[count] {
        let torn = tempfile::tempdir().expect("a temporary directory");
        let name = segment.file_name().expect("a file");
        fs::write(torn.path().join(name), &bytes[..cut as usize]).expect("written");
        let survivors = (2..=5).filter(|&number| offsets[number as usize + 1] <= cut).count() as u64 + 1;
        let recovery = recover(torn.path()).unwrap_or_else(|refusal| panic!("cut at {cut}: {refusal}"));
        assert_eq!(payloads(&recovery), numbered(survivors), "cut at {cut}");
        assert_eq!(recovery.position().lsn, survivors + 1, "the time frame and the updates");
    }
}

#[test]
fn behind_a_truncated_tail_it_goes_on_and_the_next_start_has_nothing_to_truncate() {
    let dir = crashed(4);
    let (segment, offsets) = (files(dir.path(), "segment-")[0].clone(), offsets(dir.path()));
    File::options().write(true).open(&segment).expect("writable").set_len(offsets[5] - 3).expect("cut");
    let running = run(dir.path());
    running.append(9, "update 4");
    running.journal.close().expect("sealed");
    drop(running);
    let before = fs::metadata(&segment).expect("there").ino();
    let recovery = recover(dir.path()).expect("whole");
    assert_eq!(payloads(&recovery), numbered(4));
    assert_eq!(read(&recovery).last().map(|frame| frame.kind), Some(Kind::Seal));
    assert_eq!(fs::metadata(&segment).expect("there").ino(), before, "a sealed segment is written on");
}

#[test]
fn the_last_segment_of_a_crash_is_written_anew_because_its_pages_may_never_have_reached_the_disk() {
    let dir = crashed(2);
    let segment = files(dir.path(), "segment-")[0].clone();
    let (before, bytes) =
        (fs::metadata(&segment).expect("there").ino(), fs::read(&segment).expect("readable"));
    drop(recover(dir.path()).expect("whole"));
    assert_ne!(fs::metadata(&segment).expect("there").ino(), before);
    assert_eq!(fs::read(&segment).expect("readable"), bytes);
}

#[test]
fn zeros_and_garbage_behind_the_last_frame_are_truncated() {
    for tail in [vec![0; 300], vec![0xa5; 300], vec![1; 1 << 19], b"\xff\xff\xff\x7f".repeat(100)] {
        let dir = crashed(3);
        let end = offsets(dir.path())[4];
        let segment = files(dir.path(), "segment-")[0].clone();
        overwrite(&segment, end, &tail);
        let recovery = recover(dir.path()).expect("a torn tail");
        assert_eq!(payloads(&recovery), numbered(3));
        let rest = &fs::read(&segment).expect("readable")[end as usize..];
        assert!(rest.iter().all(|&byte| byte == 0), "the tail is gone");
    }
}

#[test]
fn garbage_behind_a_seal_is_truncated_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    running.append(1, "update 1");
    running.journal.close().expect("sealed");
    drop(running);
    let end = offsets(dir.path())[3];
    overwrite(&files(dir.path(), "segment-")[0], end, &[0xa5; 100]);
    assert_eq!(payloads(&recover(dir.path()).expect("a torn tail")), numbered(1));
    assert_eq!(offsets(dir.path()).len(), 4, "time, update, seal");
}

#[test]
fn any_flipped_bit_of_a_frame_in_the_middle_is_refused_by_segment_offset_and_lsn() {
    let dir = crashed(5);
    let offsets = offsets(dir.path());
    let segment = files(dir.path(), "segment-")[0].clone();
    let before = content(dir.path());
    for bit in offsets[2] * 8..offsets[3] * 8 {
        flip(&segment, bit);
        match refused(dir.path()) {
            OpenError::Damaged { segment: name, offset, lsn, .. } => {
                assert_eq!((name.as_str(), offset, lsn), ("segment-00000000000000000001", offsets[2], 3));
            }
            other => panic!("bit {bit}: {other}"),
        }
        flip(&segment, bit);
    }
    assert_eq!(content(dir.path()), before, "a refusal touches nothing");
    assert_eq!(payloads(&recover(dir.path()).expect("whole again")), numbered(5));
}

#[test]
fn a_flipped_bit_anywhere_before_a_seal_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    running.append(1, "update 1");
    running.append(2, "update 2");
    running.journal.close().expect("sealed");
    drop(running);
    let (segment, offsets) = (files(dir.path(), "segment-")[0].clone(), offsets(dir.path()));
    for byte in HEADER_BYTES..offsets[3] {
        flip(&segment, byte * 8 + byte % 8);
        let frame = offsets.iter().rposition(|&offset| offset <= byte).expect("within a frame") as u64;
        match refused(dir.path()) {
            OpenError::Damaged { lsn, .. } => assert_eq!(lsn, frame + 1, "byte {byte}"),
            other => panic!("byte {byte}: {other}"),
        }
        flip(&segment, byte * 8 + byte % 8);
    }
}

/// Four segments of a few great frames.
fn long() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    for number in 1..=12 {
        running.append(number, vec![b'x'; 300_000]);
    }
    dir
}

#[test]
fn damage_in_an_earlier_segment_is_refused_even_at_its_last_frame() {
    let dir = long();
    let segment = files(dir.path(), "segment-")[1].clone();
    let bytes = fs::read(&segment).expect("readable");
    let last = bytes.iter().rposition(|&byte| byte != 0).expect("frames") as u64;
    flip(&segment, last * 8);
    let name = segment.file_name().expect("a file").to_string_lossy();
    let refusal = refused(dir.path()).to_string();
    assert!(refusal.contains(&*name) && refusal.contains("offset") && refusal.contains("lsn"), "{refusal}");
}

#[test]
fn a_missing_segment_is_refused_wherever_it_is_missing() {
    let whole = long();
    let count = files(whole.path(), "segment-").len();
    assert!(count >= 4);
    for missing in 0..count {
        let dir = copied(&whole);
        fs::remove_file(&files(dir.path(), "segment-")[missing]).expect("removed");
        let before = content(dir.path());
        let refusal = refused(dir.path());
        assert!(matches!(refusal, OpenError::Missing { .. }), "segment {missing}: {refusal}");
        let mut after = content(dir.path());
        after.remove(&dir.path().join("lock"));
        assert_eq!(after, before, "a refusal touches nothing");
    }
}

#[test]
fn a_segment_missing_in_the_middle_is_refused_though_the_one_before_was_never_marked_as_closed() {
    let dir = long();
    let segments = files(dir.path(), "segment-");
    overwrite(&segments[0], 80, &[0; 12]);
    assert!(recover(dir.path()).is_ok(), "a crash between the two steps of a roll");
    fs::remove_file(&segments[1]).expect("removed");
    let refusal = refused(dir.path());
    assert!(matches!(refusal, OpenError::Missing { .. }), "{refusal}");
}

#[test]
fn swapped_foreign_and_newer_segments_are_refused() {
    let (whole, dir) = (long(), long());
    let (own, other) = (files(dir.path(), "segment-"), files(whole.path(), "segment-"));
    let swap = || {
        fs::rename(&own[1], dir.path().join("aside")).expect("renamed");
        fs::rename(&own[2], &own[1]).expect("renamed");
        fs::rename(dir.path().join("aside"), &own[2]).expect("renamed");
    };
    swap();
    let refusal = refused(dir.path());
    assert!(matches!(refusal, OpenError::Damaged { offset: 0, .. }), "{refusal}");
    swap();
    assert!(recover(dir.path()).is_ok());
    fs::copy(&other[2], &own[2]).expect("copied");
    let refusal = refused(dir.path());
    assert!(matches!(refusal, OpenError::Foreign { .. }), "{refusal}");
}

#[test]
fn a_tail_torn_in_the_middle_of_a_segment_that_was_followed_is_damage() {
    let dir = long();
    let segment = &files(dir.path(), "segment-")[1];
    File::options().write(true).open(segment).expect("writable").set_len(700_000).expect("cut");
    let refusal = refused(dir.path());
    assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to the file: a start is refused, or reads the frames as they were up to some point.
    #[test]
    fn mangled_journals_are_refused_or_read_as_a_prefix(
        wounds in prop::collection::vec((128u64..700, any::<u8>()), 1..6), cut in prop::option::of(0u64..700),
    ) {
        let dir = crashed(8);
        let segment = files(dir.path(), "segment-")[0].clone();
        for (at, byte) in wounds {
            overwrite(&segment, at, &[byte]);
        }
        if let Some(cut) = cut {
            File::options().write(true).open(&segment).expect("writable").set_len(cut).expect("cut");
        }
        if let Ok(recovery) = recover(dir.path()) {
            let read = payloads(&recovery);
            prop_assert_eq!(&read, &numbered(read.len() as u64));
        }
    }
}
