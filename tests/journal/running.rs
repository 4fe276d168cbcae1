//! What a running journal tells its follower, and what is there after it.

use std::time::Duration;

use tracktags::journal::{Append, Kind, OpenError, Options, Rejected, open};

use super::support::{Running, crashed, files, options, payloads, read, recover, run, start, updates};

fn definitions(companion: u64, bytes: &str) -> Append<u64> {
    Append { kind: Kind::Definitions, bytes: bytes.into(), companion }
}

/// Lets the follower wait behind a first group, so that what is appended now becomes one group.
fn while_held(running: &Running, appends: Vec<Append<u64>>) {
    running.book.hold(true);
    running.append(1, "first");
    for append in appends {
        running.journal.append(append).map_err(|(_, why)| why).expect("taken");
    }
    running.book.hold(false);
}

#[test]
fn what_was_appended_is_told_in_order_and_read_back_after_a_close() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    for number in 1..=3 {
        running.append(number, format!("update {number}"));
    }
    running.journal.close().expect("closed");
    assert_eq!(running.book.told().durable(), [1, 2, 3]);
    let position = running.journal.stats().position;
    drop(running);
    let recovery = recover(dir.path()).expect("whole");
    assert_eq!(payloads(&recovery), ["update 1", "update 2", "update 3"]);
    let kinds: Vec<_> = read(&recovery).into_iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [Kind::Time, Kind::Updates, Kind::Updates, Kind::Updates, Kind::Seal]);
    assert_eq!(recovery.position(), position);
}

#[test]
fn what_waits_is_one_group_and_consecutive_updates_of_it_are_one_epoch() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    let appends = vec![
        updates(2, "a"),
        updates(3, "b"),
        definitions(4, "c"),
        definitions(5, "d"),
        updates(6, "e"),
        Append { kind: Kind::Start, bytes: b"f".into(), companion: 7 },
        updates(8, "g"),
    ];
    while_held(&running, appends);
    let told = running.book.wait(|told| told.durable().len() == 8);
    let epochs: Vec<_> =
        told.epochs[2..].iter().map(|epoch| (epoch.kind, epoch.companions.clone())).collect();
    let expected = [
        (Kind::Updates, vec![2, 3]),
        (Kind::Definitions, vec![4]),
        (Kind::Definitions, vec![5]),
        (Kind::Updates, vec![6]),
        (Kind::Start, vec![7]),
        (Kind::Updates, vec![8]),
    ];
    assert_eq!(epochs, expected);
    assert_eq!(told.groups.iter().map(|group| group.1).collect::<Vec<_>>(), [1, 7], "two fsyncs");
    let numbers: Vec<_> = told.epochs.iter().map(|epoch| (epoch.epoch, epoch.lsn)).collect();
    assert_eq!(numbers, (1..=8).map(|number| (number, number)).collect::<Vec<_>>());
    drop(told);
    drop(running);
    let read = read(&recover(dir.path()).expect("whole"));
    assert_eq!(read[2].payload, b"ab");
    assert_eq!(read[7].payload, b"g");
}

#[test]
fn a_group_is_bounded_in_bytes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = start(open(Options { group_bytes_max: 1000, ..options(dir.path()) }).expect("opens"));
    while_held(&running, (2..=11).map(|number| updates(number, [0; 400])).collect());
    let told = running.book.wait(|told| told.durable().len() == 11);
    assert_eq!(told.groups.iter().map(|group| group.1).collect::<Vec<_>>(), [1, 3, 3, 3, 1]);
}

#[test]
fn a_full_queue_gives_the_append_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = start(open(Options { queue_items_max: 2, ..options(dir.path()) }).expect("opens"));
    running.book.hold(true);
    running.append(1, "first");
    assert!(running.journal.append_all(vec![updates(2, "a"), updates(3, "b")]).is_ok());
    let (append, why) = running.journal.append(updates(4, "c")).expect_err("full");
    assert_eq!((append.companion, append.bytes, why), (4, b"c".to_vec(), Rejected::Full));
    running.book.hold(false);
    drop(running.book.wait(|told| told.durable() == [1, 2, 3]));
    running.append(5, "there is room again");
}

#[test]
fn a_barrier_is_told_between_what_was_before_it_and_what_was_behind_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    running.book.hold(true);
    running.append(1, "first");
    assert!(running.journal.append(updates(2, "a")).is_ok());
    assert!(running.journal.barrier(77).is_ok());
    assert!(running.journal.append(updates(3, "b")).is_ok());
    running.book.hold(false);
    let told = running.book.wait(|told| told.durable().len() == 3);
    let (position, companion) = told.barriers[0];
    assert_eq!((position.lsn, position.epoch, companion), (3, 3, 77), "time, first, a");
    assert_eq!((position.stamp, position.time), (told.epochs[1].stamp, told.epochs[0].stamp));
    assert_eq!(told.epochs[3].companions, [3]);
}

#[test]
fn close_writes_what_waits_and_takes_no_more() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    while_held(&running, (2..=50).map(|number| updates(number, "x")).collect());
    running.journal.close().expect("closed");
    running.journal.close().expect("closed again");
    assert_eq!(running.book.told().durable(), (1..=50).collect::<Vec<_>>());
    assert_eq!(running.journal.append(updates(51, "x")).map_err(|(_, why)| why), Err(Rejected::Draining));
}

#[test]
fn segments_roll_and_a_frame_greater_than_a_segment_gets_one_of_its_size() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    let sizes = [400_000, 400_000, 400_000, 3_000_000, 1, 1_048_000, 2_000_000, 400_000];
    for (number, size) in (1..).zip(sizes) {
        running.append(number, vec![b'x'; size]);
    }
    assert!(running.journal.stats().segments >= 6);
    let bytes = running.journal.stats().segment_bytes;
    assert_eq!(
        bytes,
        files(dir.path(), "segment-").iter().map(|path| path.metadata().expect("there").len()).sum::<u64>()
    );
    drop(running);
    let recovery = recover(dir.path()).expect("whole");
    assert_eq!(payloads(&recovery).iter().map(String::len).collect::<Vec<_>>(), sizes);
    let running = start(recovery);
    running.append(9, "and on");
    drop(running);
    assert_eq!(payloads(&recover(dir.path()).expect("whole")).len(), 9);
}

#[test]
fn one_process_has_the_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    let refusal = recover(dir.path()).err().expect("locked");
    assert!(matches!(refusal, OpenError::Locked { .. }), "{refusal}");
    drop(running);
    assert!(recover(dir.path()).is_ok());
}

#[test]
fn a_crash_loses_nothing_durable_and_a_crash_of_the_start_neither() {
    let dir = crashed(20);
    for _ in 0..3 {
        assert_eq!(payloads(&recover(dir.path()).expect("whole")).len(), 20);
    }
    let running = run(dir.path());
    running.append(21, "update 21");
    drop(running);
    std::fs::write(dir.path().join("copy.tmp"), "a start that died").expect("written");
    assert_eq!(payloads(&recover(dir.path()).expect("whole")).len(), 21);
    assert!(files(dir.path(), "copy").is_empty());
}

#[test]
fn many_threads_append_and_each_entry_is_durable_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let journal = running.journal.clone();
            scope.spawn(move || {
                for number in 0..500 {
                    assert!(journal.append(updates(thread * 1000 + number, "x")).is_ok());
                }
            });
        }
    });
    running.journal.close().expect("closed");
    let durable = running.book.told().durable();
    for thread in 0..8 {
        let own: Vec<_> = durable.iter().filter(|&&companion| companion / 1000 == thread).collect();
        assert!(own.len() == 500 && own.is_sorted(), "in the order of each thread");
    }
    drop(running);
    assert_eq!(payloads(&recover(dir.path()).expect("whole")).concat().len(), 4000);
}

#[test]
fn an_idle_journal_without_anything_due_writes_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    running.clock.advance(Duration::from_secs(3600));
    running.journal.wake();
    running.journal.close().expect("closed");
    drop(running);
    let kinds: Vec<_> = read(&recover(dir.path()).expect("whole")).iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [Kind::Seal]);
}
