//! The delivery of webhook messages: one thread that reads the outbox, hands messages to `Post`, and writes down what became
//! of them.
//!
//! ```text
//! outbox ─▶ due, not under way ─▶ Post (concurrent, bounded) ─▶ results ─▶ sent | failed, tried again later | dead
//! ```
//! A message is tried until its receiver takes it: after 5 s, then twice as long each time up to an hour, for 24 hours;
//! then it is dead and waits for somebody to retry it, for another 24 hours from then. A crash in between sends it again under the same id: receivers know
//! an id that they have seen. Nothing waits for this: a receiver that is slow or gone holds up its own messages only, since
//! a business has at most `UNDER_WAY_PER_BUSINESS` under way. Nor does one business hide what others have behind its
//! messages: a look that does not come to the end of what is due takes, beside the first stretch, one further on, and the
//! next look the one behind that.
//!
//! What this does not do: make messages (the history sink does, in the order of the journal), or send them itself.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dataflows::types::Micros;

use super::{Counted, MessageHealth};
use crate::clock::Clock;
use crate::store::{Look, Message, Outbox, Place, StoreError};

/// Messages of one business under way.
pub const UNDER_WAY_PER_BUSINESS: usize = 4;
/// Messages under way.
pub const UNDER_WAY_MAX: usize = 64;
/// The first pause behind a failure; doubles.
pub const RETRY_MIN: Duration = Duration::from_secs(5);
/// The longest pause.
pub const RETRY_MAX: Duration = Duration::from_secs(3_600);
/// How long a message is tried.
pub const TRIED_FOR: Duration = Duration::from_secs(24 * 3_600);

/// Messages that one look at the outbox passes.
pub const PASSED_MAX: usize = 4_096;
/// Messages of one business that a look takes: those under way come first, and as many may follow.
const LOOKED_AT_PER_BUSINESS: usize = 2 * UNDER_WAY_PER_BUSINESS;
/// How long sent messages are remembered, so that a replay does not send them again.
const REMEMBERED_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Between two looks at an outbox that nobody has said anything about; also the longest pause behind one that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// The same while the first message of the outbox is under way, or waits for others of its business.
const LOOK_PAST: Duration = Duration::from_secs(1);
/// The same while what is due has not been looked through.
const LOOK_ON: Duration = Duration::from_millis(100);
/// The least pause between two counts of the outbox; each also waits for `COUNT_SHARE` times as long as the last one took.
const COUNT_PAUSE: Duration = Duration::from_secs(1);
/// What counting may take of the thread's time: one part in so many.
const COUNT_SHARE: u32 = 20;
/// The first pause behind an outbox that failed; doubles.
const STORE_PAUSE: Duration = Duration::from_secs(2);
/// How long a stop waits for a store that does not answer.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The receiver has taken it.
    Taken,
    /// It has not; why.
    Failed(String),
    /// It never will; why.
    Refused(String),
    /// Its business is gone: nobody is to hear of it.
    Ownerless,
}

/// Sends one message. Must not block; `done` is told once, with the id.
pub trait Post: Send + Sync {
    /// Sends it, signed as of now.
    fn send(&self, message: Message, done: Sender<Said>);
}

/// What the thread is told.
#[derive(Debug)]
pub enum Said {
    /// What became of the attempt of that id.
    Done(String, Delivery),
    /// There may be something new in the outbox.
    Look,
    /// The end.
    Stop,
}

/// The handle of the thread.
pub struct Webhooks {
    inbox: Sender<Said>,
    /// The second closes when the thread is done.
    thread: Mutex<Option<(JoinHandle<()>, Receiver<()>)>>,
}

impl Webhooks {
    /// Starts the thread. An error is the operating system's refusal of one.
    pub fn start(
        outbox: Box<dyn Outbox>,
        post: Arc<dyn Post>,
        clock: Arc<dyn Clock>,
        health: Arc<MessageHealth>,
    ) -> std::io::Result<Webhooks> {
        let (inbox, said) = channel();
        let worker = Worker {
            outbox,
            post,
            clock,
            health,
            inbox: inbox.clone(),
            under_way: HashMap::new(),
            passed: None,
            count_due: Duration::ZERO,
        };
        let (running, ended) = channel::<()>();
        let run = move || {
            let _running = running;
            worker.run(&said);
        };
        let thread = std::thread::Builder::new().name("webhooks".into()).spawn(run)?;
        Ok(Webhooks { inbox, thread: Mutex::new(Some((thread, ended))) })
    }

    /// There may be something new in the outbox.
    pub fn look(&self) {
        let _ = self.inbox.send(Said::Look);
    }

    /// Ends the thread, or leaves it alone if the store does not answer; what is under way is sent again by the next
    /// start. Also done on drop.
    pub fn stop(&self) {
        let _ = self.inbox.send(Said::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((thread, ended)) = thread {
            match ended.recv_timeout(STOP_TIMEOUT) {
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!("the outbox of webhook messages does not answer; it is left alone");
                }
                Ok(()) | Err(RecvTimeoutError::Disconnected) => drop(thread.join()),
            }
        }
    }
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Worker {
    outbox: Box<dyn Outbox>,
    post: Arc<dyn Post>,
    clock: Arc<dyn Clock>,
    health: Arc<MessageHealth>,
    inbox: Sender<Said>,
    under_way: HashMap<String, Message>,
    /// How far the looks have come that go on behind the first; none: they have come to the end.
    passed: Option<Place>,
    /// When the outbox may be counted again, by the monotonic clock.
    count_due: Duration,
}

impl Worker {
    fn run(mut self, said: &Receiver<Said>) {
        let mut forgotten_at = self.clock.monotonic();
        // Results that the store has not been told of yet: tried again until it takes them.
        let mut untold: Vec<(String, Delivery)> = Vec::new();
        let mut pause = Duration::ZERO;
        loop {
            let wait = match self.turn(&mut untold) {
                Ok(wait) => {
                    pause = Duration::ZERO;
                    wait
                }
                Err(error) => {
                    tracing::warn!(%error, "the outbox of webhook messages cannot be used; trying again");
                    pause = (pause * 2).clamp(STORE_PAUSE, LOOK_AGAIN);
                    pause
                }
            };
            if self.clock.monotonic().saturating_sub(forgotten_at) > RETRY_MAX {
                forgotten_at = self.clock.monotonic();
                let before = Micros(self.clock.wall().0 - REMEMBERED_FOR.as_micros() as i64);
                if let Err(error) = self.outbox.forget_sent(before) {
                    tracing::warn!(%error, "sent webhook messages cannot be forgotten");
                }
            }
            let mut next = match said.recv_timeout(wait.min(self.clock.look_again())) {
                Ok(next) => Some(next),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(word) = next {
                match word {
                    Said::Done(id, delivery) => untold.push((id, delivery)),
                    Said::Look => {}
                    Said::Stop => return,
                }
                next = said.try_recv().ok();
            }
        }
    }

    /// Tells the outbox what became of messages and sends those whose time has come; how long nothing is to do.
    fn turn(&mut self, untold: &mut Vec<(String, Delivery)>) -> Result<Duration, StoreError> {
        while let Some((id, delivery)) = untold.last() {
            if let Some(message) = self.under_way.get(id) {
                tell(&mut *self.outbox, message, delivery, self.clock.wall())?;
                if *delivery != Delivery::Ownerless {
                    self.health.attempted(*delivery == Delivery::Taken);
                }
                self.under_way.remove(id);
            }
            untold.pop();
        }
        let now = self.clock.wall();
        match self.send_due(now, None)? {
            None => self.passed = None,
            Some(end) if self.under_way.len() < UNDER_WAY_MAX => {
                let after = self.passed.take().map_or(end.clone(), |passed| passed.max(end));
                self.passed = self.send_due(now, Some(&after))?;
            }
            Some(_) => {}
        }
        let wait = match self.outbox.next_at()? {
            _ if self.passed.is_some() && self.under_way.len() < UNDER_WAY_MAX => LOOK_ON,
            None => LOOK_AGAIN,
            // It says so when it is done, but hides when the next one is due.
            Some(at) if at <= now => LOOK_PAST,
            Some(at) => Duration::from_micros((at.0 - now.0) as u64).min(LOOK_AGAIN),
        };
        Ok(self.count()?.map_or(wait, |pause| wait.min(pause)))
    }

    /// Sends those whose time has come, as far as one look goes and there is room; where it has ended, if not at the end.
    fn send_due(&mut self, now: Micros, after: Option<&Place>) -> Result<Option<Place>, StoreError> {
        let mut of_business: HashMap<String, usize> = HashMap::new();
        for message in self.under_way.values() {
            *of_business.entry(message.business_id.clone()).or_default() += 1;
        }
        let look = Look { now, after, passed_max: PASSED_MAX, of_business_max: LOOKED_AT_PER_BUSINESS };
        let due = self.outbox.due(&look)?;
        for message in due.messages {
            if self.under_way.len() >= UNDER_WAY_MAX {
                break;
            }
            let busy = of_business.entry(message.business_id.clone()).or_default();
            if self.under_way.contains_key(&message.id) || *busy >= UNDER_WAY_PER_BUSINESS {
                continue;
            }
            *busy += 1;
            self.under_way.insert(message.id.clone(), message.clone());
            self.post.send(message, self.inbox.clone());
        }
        Ok(due.end)
    }

    /// Counts the outbox, unless it is too early: then in how long.
    fn count(&mut self) -> Result<Option<Duration>, StoreError> {
        let begun = self.clock.monotonic();
        let early = self.count_due.saturating_sub(begun);
        if !early.is_zero() {
            return Ok(Some(early));
        }
        let ((waiting, dead), oldest) = (self.outbox.counts()?, self.outbox.oldest()?);
        self.health.count(Counted { waiting, dead, oldest });
        let now = self.clock.monotonic();
        self.count_due = now + COUNT_PAUSE.max((now - begun) * COUNT_SHARE);
        Ok(None)
    }
}

fn tell(
    outbox: &mut dyn Outbox,
    message: &Message,
    delivery: &Delivery,
    now: Micros,
) -> Result<(), StoreError> {
    match delivery {
        Delivery::Taken => outbox.sent(&message.id),
        Delivery::Failed(why) => {
            let attempts = message.attempts + 1;
            outbox.failed(&message.id, attempts, next_at(message.created_at, attempts, now), why)
        }
        Delivery::Refused(why) => outbox.failed(&message.id, message.attempts + 1, None, why),
        Delivery::Ownerless => outbox.drop_of(&message.business_id),
    }
}

/// When a message is tried again behind so many attempts; none once it has been tried for long enough.
fn next_at(created_at: Micros, attempts: u32, now: Micros) -> Option<Micros> {
    let doublings = attempts.saturating_sub(1).min(16);
    let pause = RETRY_MIN.saturating_mul(1 << doublings).min(RETRY_MAX);
    let next = Micros(now.0 + pause.as_micros() as i64);
    (next.0 - created_at.0 <= TRIED_FOR.as_micros() as i64).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_end_after_a_day() {
        let (mut now, mut attempts, mut pauses) = (Micros(0), 0, Vec::new());
        while let Some(next) = next_at(Micros(0), attempts + 1, now) {
            attempts += 1;
            pauses.push((next.0 - now.0) / Micros::PER_SECOND);
            now = next;
        }
        assert_eq!(&pauses[..11], [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600]);
        assert_eq!((pauses.iter().max(), pauses.len()), (Some(&3_600), 32));
        assert!(pauses.iter().sum::<i64>() <= 86_400);
    }
}
