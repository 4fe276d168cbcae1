//! Stamps and time frames, on a clock that tests move.

use std::time::Duration;

use dataflows::types::Micros;
use tracktags::journal::Kind;

use super::support::{BEGIN, read, recover, run, start};

const fn after(micros: i64) -> Micros {
    Micros(BEGIN.0 + micros)
}

#[test]
fn a_time_frame_comes_before_the_first_update_of_a_second_and_only_then() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    for (number, millis) in (1..).zip([0, 400, 400, 400, 0, 5_900]) {
        running.clock.advance(Duration::from_millis(millis));
        running.append(number, "x");
    }
    let told = running.book.told();
    let seen: Vec<_> = told.epochs.iter().map(|epoch| (epoch.kind, epoch.stamp)).collect();
    let expected = [
        (Kind::Time, BEGIN),
        (Kind::Updates, BEGIN),
        (Kind::Updates, after(400_000)),
        (Kind::Updates, after(800_000)),
        (Kind::Time, after(1_000_000)),
        (Kind::Updates, after(1_200_000)),
        (Kind::Updates, after(1_200_000)),
        (Kind::Time, after(7_000_000)),
        (Kind::Updates, after(7_100_000)),
    ];
    assert_eq!(seen, expected);
    assert!(told.epochs.iter().all(|epoch| (epoch.kind == Kind::Time) == epoch.companions.is_empty()));
}

#[test]
fn idle_a_time_frame_comes_when_it_is_due_and_not_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    running.append(1, "x");
    running.book.told().due_at = Some(after(5_000_000));
    running.journal.wake();
    running.clock.advance(Duration::from_millis(4_999));
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(running.book.told().stamps(Kind::Time), [BEGIN]);
    running.clock.advance(Duration::from_millis(2_500));
    // Nobody wakes it: it looks at the clock by itself.
    let times = running.book.wait(|told| told.stamps(Kind::Time).len() > 1).stamps(Kind::Time);
    assert_eq!(times, [BEGIN, after(7_000_000)]);
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(running.book.told().stamps(Kind::Time).len(), 2, "once a second at most, though still due");
    running.clock.advance(Duration::from_secs(1));
    drop(running.book.wait(|told| told.stamps(Kind::Time).len() == 3));
}

#[test]
fn a_believed_step_of_the_clock_is_a_frame_and_time_goes_on_from_there() {
    let hour = 3_600 * Micros::PER_SECOND;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    running.append(1, "x");
    running.clock.step_to(after(-2 * hour));
    running.append(2, "x");
    running.clock.advance(Duration::from_millis(60_500));
    running.append(3, "x");
    running.clock.advance(Duration::from_millis(400));
    running.append(4, "x");
    running.clock.advance(Duration::from_millis(200));
    running.append(5, "x");
    let seen: Vec<_> = running.book.told().epochs.iter().map(|epoch| (epoch.kind, epoch.stamp)).collect();
    let back = |micros| after(micros - 2 * hour);
    let expected = [
        (Kind::Time, BEGIN),
        (Kind::Updates, BEGIN),
        (Kind::Updates, BEGIN),
        (Kind::Clock, back(60_500_000)),
        (Kind::Updates, back(60_500_000)),
        (Kind::Updates, back(60_900_000)),
        (Kind::Time, back(61_000_000)),
        (Kind::Updates, back(61_100_000)),
    ];
    assert_eq!(seen, expected);
    let position = running.journal.stats().position;
    drop(running);
    let recovery = recover(dir.path()).expect("whole");
    assert_eq!(recovery.position(), position, "a start knows the same T");
    assert_eq!(read(&recovery)[3].payload, after(60_500_000).0.to_le_bytes(), "what was expected instead");
}

#[test]
fn a_start_goes_on_from_the_last_time_frame() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let running = run(dir.path());
    running.clock.advance(Duration::from_millis(1_200));
    running.append(1, "x");
    drop(running);
    let recovery = recover(dir.path()).expect("whole");
    assert_eq!(recovery.last_stamp(), Some(after(1_200_000)));
    assert_eq!(recovery.position().time, after(1_000_000));
    // The clock of the second run stands at BEGIN again: it is behind the last stamp.
    let running = start(recovery);
    running.append(2, "x");
    let seen: Vec<_> = running.book.told().epochs.iter().map(|epoch| (epoch.kind, epoch.stamp)).collect();
    assert_eq!(seen, [(Kind::Updates, after(1_200_000))]);
}
