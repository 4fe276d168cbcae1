//! Time. `Clock` is the only source of it; `Stamps` turns it into arrival stamps (semantics, section 5).
//!
//! A stamp is the wall clock as long as that moves as the monotonic clock does. A step of more than five minutes either
//! way is believed only after it has held for 60 s of the monotonic clock: until then stamps advance by the monotonic
//! clock and time is `in_doubt`. A believed step is reported, so that the journal records it. Smaller steps back make
//! time stand still until the wall clock has caught up. What this does not do: signature tolerance, which uses the raw
//! wall clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataflows::types::Micros;

/// A step of the wall clock that is not believed at once, in microseconds.
const STEP_MICROS: i64 = 300 * Micros::PER_SECOND;
/// How long such a step must hold, in microseconds of the monotonic clock.
const HOLD_MICROS: i64 = 60 * Micros::PER_SECOND;

/// Wall and monotonic time.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn wall(&self) -> Micros;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Both at one moment: a clock that jumps must not jump between the two.
    fn both(&self) -> (Micros, Duration) {
        (self.wall(), self.monotonic())
    }
    /// How long who waits for a time may wait until it looks again: a clock that is moved by hand wakes nobody.
    fn look_again(&self) -> Duration {
        Duration::MAX
    }
}

/// The clock of this process: the machine's, or the one of a test that kills and starts processes, which share it.
pub fn of_process() -> Arc<dyn Clock> {
    #[cfg(feature = "seeded-bugs")]
    if let Some(path) = std::env::var_os("TRACKTAGS_TEST_CLOCK") {
        return Arc::new(FileClock(path.into()));
    }
    Arc::new(SystemClock::default())
}

/// A clock in a file that a test writes: wall and monotonic time, in microseconds, as text. The test puts another file in
/// its place, so that none is read half written.
#[cfg(feature = "seeded-bugs")]
struct FileClock(std::path::PathBuf);

#[cfg(feature = "seeded-bugs")]
impl Clock for FileClock {
    fn wall(&self) -> Micros {
        self.both().0
    }

    fn monotonic(&self) -> Duration {
        self.both().1
    }

    fn both(&self) -> (Micros, Duration) {
        let text = std::fs::read_to_string(&self.0).expect("the test keeps its clock");
        let mut numbers = text.split_whitespace().map(|number| number.parse().expect("microseconds"));
        let [wall, monotonic]: [i64; 2] = std::array::from_fn(|_| numbers.next().expect("two numbers"));
        (Micros(wall), Duration::from_micros(monotonic.unsigned_abs()))
    }

    fn look_again(&self) -> Duration {
        Duration::from_millis(5)
    }
}

/// The machine's clocks.
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock(Instant::now())
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Micros {
        // A clock before 1970 reads as 1970: the stamp rules then treat it as a step.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Micros(since.as_micros() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that tests move by hand. Clones share the time.
#[derive(Clone)]
pub struct MockClock(Arc<[AtomicI64; 2]>);

impl MockClock {
    /// A clock that stands at `wall`.
    pub fn at(wall: Micros) -> Self {
        MockClock(Arc::new([AtomicI64::new(wall.0), AtomicI64::new(0)]))
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        let micros = by.as_micros() as i64;
        self.0[0].fetch_add(micros, Ordering::SeqCst);
        self.0[1].fetch_add(micros, Ordering::SeqCst);
    }

    /// The wall clock is set; no time passes.
    pub fn step_to(&self, wall: Micros) {
        self.0[0].store(wall.0, Ordering::SeqCst);
    }
}

impl Clock for MockClock {
    fn wall(&self) -> Micros {
        Micros(self.0[0].load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0[1].load(Ordering::SeqCst) as u64)
    }
}

/// A reading of the stamp clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The time to use.
    pub at: Micros,
    /// Set when a step has just been believed: the time that was expected instead. The journal records it.
    pub stepped_from: Option<Micros>,
}

/// The arrival clock, shared by the journal writer, which alone takes stamps, and readers.
pub struct Stamps {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    /// The last stamp given, and the monotonic time then.
    last: Micros,
    last_monotonic: Duration,
    /// When the wall clock was first seen more than a step away.
    doubt_since: Option<Duration>,
}

impl Stamps {
    /// Time goes on from `last`, the last stamp of the journal; none for a new one. At a start a clock ahead is
    /// believed at once; one more than five minutes behind follows the 60 s rule.
    pub fn new(clock: Arc<dyn Clock>, last: Option<Micros>) -> Self {
        let (wall, last_monotonic) = clock.both();
        let last = last.map_or(wall, |last| last.max(wall));
        let state = Mutex::new(State { last, last_monotonic, doubt_since: None });
        Stamps { clock, state }
    }

    /// The next arrival stamp. For the journal writer alone.
    pub fn take(&self) -> Stamp {
        // Read with the state held: what another has read before is not taken for a step back.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, monotonic) = self.clock.both();
        let (stamp, doubt_since) = state.read(wall, monotonic);
        *state = State { last: stamp.at, last_monotonic: monotonic, doubt_since };
        stamp
    }

    /// Now, for readings, age checks and early refusals: never before the last stamp.
    pub fn now(&self) -> Micros {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, monotonic) = self.clock.both();
        let (stamp, doubt_since) = state.read(wall, monotonic);
        // A step is believed by `take` alone, but doubt begins when anyone first sees it.
        state.doubt_since = state.doubt_since.or(doubt_since);
        if stamp.stepped_from.is_some() { state.last } else { stamp.at.max(state.last) }
    }

    /// Whether the wall clock is being doubted: a timestamp out of range is then no proof of a wrong client.
    pub fn in_doubt(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).doubt_since.is_some()
    }

    /// The clock below.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

impl State {
    fn read(&self, wall: Micros, monotonic: Duration) -> (Stamp, Option<Duration>) {
        let passed = monotonic.saturating_sub(self.last_monotonic).as_micros() as i64;
        let expected = Micros(self.last.0 + passed);
        if (wall.0 - expected.0).abs() <= STEP_MICROS {
            return (Stamp { at: wall.max(self.last), stepped_from: None }, None);
        }
        let since = self.doubt_since.unwrap_or(monotonic);
        if monotonic.saturating_sub(since).as_micros() as i64 >= HOLD_MICROS {
            return (Stamp { at: wall, stepped_from: Some(expected) }, None);
        }
        (Stamp { at: expected, stepped_from: None }, Some(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600 * Micros::PER_SECOND;

    fn stamps() -> (MockClock, Stamps) {
        let clock = MockClock::at(Micros(HOUR * 1000));
        let stamps = Stamps::new(Arc::new(clock.clone()), None);
        (clock, stamps)
    }

    #[test]
    fn a_small_step_back_makes_time_stand_still() {
        let (clock, stamps) = stamps();
        let first = stamps.take().at;
        clock.step_to(Micros(first.0 - 1_000));
        assert_eq!(stamps.take(), Stamp { at: first, stepped_from: None });
        clock.advance(Duration::from_millis(2));
        assert_eq!(stamps.take().at, Micros(first.0 + 1_000));
    }

    #[test]
    fn a_great_step_is_believed_after_it_has_held_for_a_minute() {
        for step in [-2 * HOUR, 24 * HOUR] {
            let (clock, stamps) = stamps();
            let first = stamps.take().at;
            clock.step_to(Micros(first.0 + step));
            assert_eq!(stamps.take().at, first);
            assert!(stamps.in_doubt());
            clock.advance(Duration::from_secs(59));
            assert_eq!(stamps.take().at, Micros(first.0 + 59 * Micros::PER_SECOND));
            clock.advance(Duration::from_secs(1));
            let expected = Micros(first.0 + 60 * Micros::PER_SECOND);
            let believed = Micros(expected.0 + step);
            assert_eq!(
                stamps.now(),
                Micros(first.0 + 59 * Micros::PER_SECOND),
                "readers do not believe alone"
            );
            assert_eq!(stamps.take(), Stamp { at: believed, stepped_from: Some(expected) });
            assert!(!stamps.in_doubt());
            assert_eq!(stamps.now(), believed);
        }
    }

    #[test]
    fn a_step_that_is_taken_back_leaves_no_trace() {
        let (clock, stamps) = stamps();
        let first = stamps.take().at;
        clock.step_to(Micros(first.0 + 24 * HOUR));
        clock.advance(Duration::from_secs(30));
        stamps.take();
        clock.step_to(Micros(first.0 + 30 * Micros::PER_SECOND));
        assert_eq!(
            stamps.take(),
            Stamp { at: Micros(first.0 + 30 * Micros::PER_SECOND), stepped_from: None }
        );
        assert!(!stamps.in_doubt());
    }

    #[test]
    fn a_start_believes_a_clock_ahead_and_doubts_one_behind() {
        let clock = MockClock::at(Micros(HOUR * 1000));
        let ahead = Stamps::new(Arc::new(clock.clone()), Some(Micros(HOUR)));
        assert_eq!(ahead.take().at, Micros(HOUR * 1000));
        let behind = Stamps::new(Arc::new(clock), Some(Micros(HOUR * 2000)));
        assert_eq!(behind.take().at, Micros(HOUR * 2000));
        assert!(behind.in_doubt());
    }
    #[cfg(feature = "seeded-bugs")]
    #[test]
    fn a_clock_in_a_file_jumps_as_a_whole_and_outlives_who_reads_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("clock");
        let set = |hours: i64| {
            let (next, text) =
                (folder.path().join("next"), format!("{} {}\n", 1_000 * HOUR + hours * HOUR, hours * HOUR));
            std::fs::write(&next, text)
                .and_then(|()| std::fs::rename(&next, &path))
                .expect("a writable folder");
        };
        set(1);
        let stamps = Stamps::new(Arc::new(FileClock(path.clone())), None);
        assert_eq!(stamps.take().at, Micros(1_001 * HOUR));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while stamps.now() < Micros(1_199 * HOUR) {
                    assert!(!stamps.in_doubt(), "both clocks have moved");
                }
            });
            scope.spawn(|| (2..200).for_each(set));
            while !reader.is_finished() {
                let stamp = stamps.take();
                assert_eq!((stamp.stepped_from, stamps.in_doubt()), (None, false), "both clocks have moved");
            }
        });
        let next = Stamps::new(Arc::new(FileClock(path.clone())), Some(stamps.take().at));
        assert_eq!((next.take().at, next.in_doubt()), (Micros(1_199 * HOUR), false));
    }
}
