//! What waits for the writer: a bounded queue that is swapped out whole. The writer is woken only if it sleeps.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Append, Options, Rejected};

/// How often the writer yields for a group that grows.
const YIELDS_MAX: u32 = 16;

/// One thing in the queue.
pub(super) enum Entry<T> {
    Append(Append<T>),
    Barrier(T),
}

/// How the journal stands. Only ever goes on to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Open,
    /// Nothing more is taken; what waits is written, then a seal.
    Closing,
    /// Every handle is gone: the writer stops where it is.
    Abandoned,
    Poisoned,
}

pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    bytes_max: usize,
    items_max: usize,
}

struct State<T> {
    entries: Vec<Entry<T>>,
    bytes: usize,
    phase: Phase,
    /// The writer sleeps.
    asleep: bool,
    /// It shall look at the time, whatever is in the queue.
    woken: bool,
}

impl<T> Queue<T> {
    pub fn new(options: &Options) -> Self {
        let state = State { entries: Vec::new(), bytes: 0, phase: Phase::Open, asleep: false, woken: false };
        Queue {
            state: Mutex::new(state),
            filled: Condvar::new(),
            bytes_max: options.queue_bytes_max,
            items_max: options.queue_items_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one append, if there is room.
    pub fn push(&self, append: Append<T>) -> Result<(), (Append<T>, Rejected)> {
        let mut state = self.lock();
        match self.room(&state, append.bytes.len(), 1) {
            Ok(()) => {
                state.bytes += append.bytes.len();
                state.entries.push(Entry::Append(append));
                self.notify(state);
                Ok(())
            }
            Err(why) => Err((append, why)),
        }
    }

    /// Takes all or none.
    pub fn push_all(&self, appends: Vec<Append<T>>) -> Result<(), (Vec<Append<T>>, Rejected)> {
        let bytes = appends.iter().map(|append| append.bytes.len()).sum();
        let mut state = self.lock();
        match self.room(&state, bytes, appends.len()) {
            Ok(()) => {
                state.bytes += bytes;
                state.entries.extend(appends.into_iter().map(Entry::Append));
                self.notify(state);
                Ok(())
            }
            Err(why) => Err((appends, why)),
        }
    }

    /// Takes a barrier, which needs no room.
    pub fn push_barrier(&self, companion: T) -> Result<(), (T, Rejected)> {
        let mut state = self.lock();
        match state.phase.refusal() {
            None => {
                state.entries.push(Entry::Barrier(companion));
                self.notify(state);
                Ok(())
            }
            Some(why) => Err((companion, why)),
        }
    }

    fn room(&self, state: &State<T>, bytes: usize, items: usize) -> Result<(), Rejected> {
        if let Some(why) = state.phase.refusal() {
            return Err(why);
        }
        let fits = state.bytes + bytes <= self.bytes_max && state.entries.len() + items <= self.items_max;
        // Something greater than the queue must not wait for ever.
        if fits || state.entries.is_empty() { Ok(()) } else { Err(Rejected::Full) }
    }

    fn notify(&self, mut state: MutexGuard<'_, State<T>>) {
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.filled.notify_one();
        }
    }

    /// Makes `take` return.
    pub fn wake(&self) {
        let mut state = self.lock();
        state.woken = true;
        self.notify(state);
    }

    /// Goes on to `phase`, unless it is past it.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.lock();
        state.phase = state.phase.max(phase);
        self.notify(state);
    }

    /// Swaps everything that waits into `taken`, which is empty; waits at most `wait` for something, for ever if none,
    /// or until woken.
    pub fn take(&self, taken: &mut Vec<Entry<T>>, wait: Option<Duration>) -> Phase {
        let mut state = self.lock();
        if state.entries.is_empty() && state.phase == Phase::Open && !state.woken {
            state = match wait {
                Some(Duration::ZERO) => state,
                Some(wait) => self.sleep_at_most(state, wait),
                None => self.sleep(state),
            };
        }
        state = self.gather(state);
        state.woken = false;
        state.bytes = 0;
        std::mem::swap(&mut state.entries, taken);
        state.phase
    }

    /// Lets others run while that makes the group grow. On a busy machine more then share one fsync; on an idle one a
    /// yield comes back at once.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        for _ in 0..YIELDS_MAX {
            let waiting = state.entries.len();
            if waiting == 0 {
                break;
            }
            drop(state);
            std::thread::yield_now();
            state = self.lock();
            if state.entries.len() == waiting {
                break;
            }
        }
        state
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        state.asleep = true;
        let awake = |state: &mut State<T>| state.asleep;
        self.filled.wait_while(state, awake).unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep_at_most<'a>(
        &self,
        mut state: MutexGuard<'a, State<T>>,
        wait: Duration,
    ) -> MutexGuard<'a, State<T>> {
        state.asleep = true;
        let awake = |state: &mut State<T>| state.asleep;
        let slept = self.filled.wait_timeout_while(state, wait, awake);
        let mut state = slept.unwrap_or_else(PoisonError::into_inner).0;
        state.asleep = false;
        state
    }
}

impl Phase {
    fn refusal(self) -> Option<Rejected> {
        match self {
            Phase::Open => None,
            Phase::Closing | Phase::Abandoned => Some(Rejected::Draining),
            Phase::Poisoned => Some(Rejected::Poisoned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn queue(bytes_max: usize, items_max: usize) -> Queue<u32> {
        let options = Options { queue_bytes_max: bytes_max, queue_items_max: items_max, ..Options::new("x") };
        Queue::new(&options)
    }

    fn append(length: usize) -> Append<u32> {
        Append { kind: Kind::Updates, bytes: vec![0; length], companion: 0 }
    }

    fn why<A>(outcome: Result<(), (A, Rejected)>) -> Option<Rejected> {
        outcome.err().map(|(_, why)| why)
    }

    #[test]
    fn bytes_and_items_are_bounded_and_a_giant_is_taken_alone() {
        let queue = queue(100, 3);
        assert_eq!(why(queue.push(append(1000))), None);
        assert_eq!(why(queue.push(append(1))), Some(Rejected::Full));
        let mut taken = Vec::new();
        queue.take(&mut taken, None);
        assert_eq!(why(queue.push_all(vec![append(1), append(1)])), None);
        assert_eq!(why(queue.push_all(vec![append(1), append(1)])), Some(Rejected::Full));
        assert_eq!(why(queue.push(append(99))), Some(Rejected::Full));
        assert_eq!(why(queue.push(append(98))), None);
        assert_eq!(why(queue.push(append(0))), Some(Rejected::Full));
        assert_eq!(why(queue.push_barrier(1)), None, "a barrier is no load");
    }

    #[test]
    fn a_closed_or_poisoned_queue_says_so_and_never_opens_again() {
        let queue = queue(100, 3);
        queue.enter(Phase::Closing);
        assert_eq!(why(queue.push(append(1))), Some(Rejected::Draining));
        queue.enter(Phase::Poisoned);
        queue.enter(Phase::Closing);
        assert_eq!(why(queue.push_barrier(1)), Some(Rejected::Poisoned));
        assert_eq!(queue.take(&mut Vec::new(), None), Phase::Poisoned);
    }

    #[test]
    fn a_wake_before_the_sleep_is_not_lost() {
        let queue = queue(100, 3);
        queue.wake();
        assert_eq!(queue.take(&mut Vec::new(), None), Phase::Open);
        let ended = queue.take(&mut Vec::new(), Some(Duration::from_millis(1)));
        assert_eq!(ended, Phase::Open);
    }
}
