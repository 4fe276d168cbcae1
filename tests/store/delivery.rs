//! The delivery of messages: what is sent when, and what becomes of it, on an outbox in SQLite that may fail, with receivers
//! that answer as they are told and a clock that is moved by hand.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dataflows::types::Micros;
use tracktags::clock::{Clock, MockClock};
use tracktags::sinks::webhooks::{
    Delivery, PASSED_MAX, Post, RETRY_MAX, RETRY_MIN, Said, TRIED_FOR, UNDER_WAY_MAX, UNDER_WAY_PER_BUSINESS,
};
use tracktags::sinks::{Counted, MessageHealth, Webhooks};
use tracktags::store::{DeadMessage, DueMessages, Look, Message, Outbox, Store, StoreError};

use super::support::*;

const SECOND: Duration = Duration::from_secs(1);

/// Receivers that answer when they are told.
#[derive(Default)]
struct Receivers(Mutex<Vec<(Message, Sender<Said>)>>);

impl Post for Receivers {
    fn send(&self, message: Message, done: Sender<Said>) {
        self.0.lock().expect("not poisoned").push((message, done));
    }
}

/// An outbox that counts the turns of the delivery, each of which ends by counting, and fails while it is told to.
struct Watched {
    inner: Box<dyn Outbox>,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    turns: AtomicUsize,
    fails: AtomicBool,
    failures: AtomicUsize,
    forgotten: Mutex<Vec<Micros>>,
}

impl Watched {
    fn works(&self) -> Result<(), StoreError> {
        if !self.watch.fails.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.watch.failures.fetch_add(1, Ordering::Relaxed);
        Err(StoreError::Unavailable("as ordered".into()))
    }
}

impl Outbox for Watched {
    fn due(&mut self, look: &Look<'_>) -> Result<DueMessages, StoreError> {
        self.inner.due(look)
    }

    fn next_at(&mut self) -> Result<Option<Micros>, StoreError> {
        let next_at = self.inner.next_at();
        self.watch.turns.fetch_add(1, Ordering::Relaxed);
        next_at
    }

    fn sent(&mut self, id: &str) -> Result<(), StoreError> {
        self.works()?;
        self.inner.sent(id)
    }

    fn failed(
        &mut self,
        id: &str,
        attempts: u32,
        next_at: Option<Micros>,
        error: &str,
    ) -> Result<(), StoreError> {
        self.works()?;
        self.inner.failed(id, attempts, next_at, error)
    }

    fn dead(&mut self, after: Option<&str>, limit: usize) -> Result<Vec<DeadMessage>, StoreError> {
        self.inner.dead(after, limit)
    }

    fn retry(&mut self, id: &str, now: Micros) -> Result<bool, StoreError> {
        self.inner.retry(id, now)
    }

    fn counts(&mut self) -> Result<(u64, u64), StoreError> {
        self.inner.counts()
    }

    fn oldest(&mut self) -> Result<Option<Micros>, StoreError> {
        self.inner.oldest()
    }

    fn drop_of(&mut self, business_id: &str) -> Result<(), StoreError> {
        self.inner.drop_of(business_id)
    }

    fn forget_sent(&mut self, before: Micros) -> Result<(), StoreError> {
        self.watch.forgotten.lock().expect("not poisoned").push(before);
        self.inner.forget_sent(before)
    }
}

/// A delivery at work, beside the store that it delivers from.
struct Delivering {
    database: Database,
    store: AnyStore,
    webhooks: Webhooks,
    receivers: Arc<Receivers>,
    watch: Arc<Watch>,
    clock: MockClock,
    health: Arc<MessageHealth>,
}

impl Delivering {
    fn start() -> Delivering {
        let database = Database::new();
        let mut store = database.store();
        define(&mut store, 1, vec![created(1)]);
        let (receivers, watch) = (Arc::new(Receivers::default()), Arc::new(Watch::default()));
        let (clock, health) = (MockClock::at(T0), Arc::new(MessageHealth::default()));
        let outbox = Box::new(Watched { inner: store.outbox(), watch: watch.clone() });
        let webhooks = Webhooks::start(outbox, receivers.clone(), Arc::new(clock.clone()), health.clone());
        let webhooks = webhooks.expect("a thread is granted");
        Delivering { database, store, webhooks, receivers, watch, clock, health }
    }

    /// Messages that are due.
    fn commit(&mut self, messages: &[(&str, &str)]) {
        let now = self.clock.wall();
        let message = |(business_id, id): &(&str, &str)| Message {
            id: (*id).into(),
            epoch: 1,
            business_id: (*business_id).into(),
            url: "https://example.test/".into(),
            body: "{}".into(),
            created_at: now,
            attempts: 0,
            next_at: now,
        };
        let messages: Vec<_> = messages.iter().map(message).collect();
        self.store.commit_messages(1, &messages).expect("committed");
    }

    /// Waits until the delivery has done all that there is to do now; the ids that are under way.
    fn settled(&self) -> BTreeSet<String> {
        for _ in 0..2 {
            let turns = self.watch.turns.load(Ordering::Relaxed);
            self.webhooks.look();
            eventually("the delivery turns", || self.watch.turns.load(Ordering::Relaxed) > turns);
        }
        let under_way = self.receivers.0.lock().expect("not poisoned");
        under_way.iter().map(|(message, _)| message.id.clone()).collect()
    }

    fn are_under_way(&self, ids: &[&str]) {
        assert_eq!(self.settled(), ids.iter().map(|id| (*id).to_owned()).collect());
    }

    /// The receiver of a message says what became of it.
    fn answer(&self, id: &str, delivery: Delivery) {
        let mut under_way = self.receivers.0.lock().expect("not poisoned");
        let at = under_way.iter().position(|(message, _)| message.id == id).expect("it is under way");
        let (message, done) = under_way.remove(at);
        done.send(Said::Done(message.id, delivery)).expect("the delivery listens");
    }

    fn fail(&self, id: &str) {
        self.answer(id, Delivery::Failed("503".into()));
    }

    /// Moves the clock, and gives the delivery the time to see it.
    fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.settled();
    }

    fn states(&self) -> Vec<String> {
        self.database.lines("SELECT message_id, state, attempts FROM messages ORDER BY message_id")
    }

    fn counts(&self) -> (u64, u64) {
        self.pass(SECOND * 100);
        let Counted { waiting, dead, .. } = self.health.counted();
        (waiting, dead)
    }
}

#[test]
fn a_business_has_a_few_under_way_and_all_together_have_more() {
    let mut delivering = Delivering::start();
    delivering.commit(&[
        ("a", "a1"),
        ("a", "a2"),
        ("a", "a3"),
        ("a", "a4"),
        ("a", "a5"),
        ("a", "a6"),
        ("b", "b1"),
    ]);
    delivering.are_under_way(&["a1", "a2", "a3", "a4", "b1"]);
    delivering.answer("a2", Delivery::Taken);
    delivering.are_under_way(&["a1", "a3", "a4", "a5", "b1"]);
    delivering.answer("b1", Delivery::Taken);
    delivering.answer("a1", Delivery::Taken);
    delivering.are_under_way(&["a3", "a4", "a5", "a6"]);
    let states = delivering.states();
    assert_eq!(states[..3], ["a1|sent|0", "a2|sent|0", "a3|waiting|0"], "what was taken is not sent again");
    assert_eq!(states[6], "b1|sent|0");
    assert_eq!(UNDER_WAY_PER_BUSINESS, 4);

    let ids: Vec<_> = (0..UNDER_WAY_MAX + 9).map(|n| (format!("of {n}"), format!("m{n:03}"))).collect();
    let ids: Vec<_> = ids.iter().map(|(business_id, id)| (business_id.as_str(), id.as_str())).collect();
    delivering.commit(&ids);
    assert_eq!(delivering.settled().len(), UNDER_WAY_MAX);
    delivering.answer("m000", Delivery::Taken);
    assert_eq!(delivering.settled().len(), UNDER_WAY_MAX);
    assert_eq!(delivering.health.attempts(), [4, 0]);
}

#[test]
fn what_fails_is_tried_again_after_pauses_that_double_and_is_dead_after_a_day() {
    let mut delivering = Delivering::start();
    delivering.commit(&[("a", "id")]);
    let (begun, mut pauses) = (delivering.clock.wall(), vec![RETRY_MIN]);
    while delivering.settled().contains("id") {
        assert!(pauses.len() < 50, "it is tried for ever");
        delivering.fail("id");
        delivering.are_under_way(&[]);
        let pause = pauses[pauses.len() - 1];
        delivering.pass(pause - Duration::from_micros(1));
        delivering.are_under_way(&[]);
        delivering.pass(Duration::from_micros(1));
        pauses.push((pause * 2).min(RETRY_MAX));
    }
    let tried_for = Duration::from_micros((delivering.clock.wall().0 - begun.0) as u64);
    assert!(tried_for > TRIED_FOR && tried_for <= TRIED_FOR + RETRY_MAX, "{tried_for:?}");
    assert_eq!(delivering.states(), ["id|dead|33"]);
    assert_eq!(delivering.database.lines("SELECT last_error FROM messages"), ["503"]);
    assert_eq!((delivering.counts(), delivering.health.attempts()), ((0, 1), [0, 33]));
}

#[test]
fn what_is_retried_by_hand_is_tried_for_a_day_from_then_on() {
    let mut delivering = Delivering::start();
    delivering.commit(&[("a", "id")]);
    delivering.are_under_way(&["id"]);
    delivering.pass(TRIED_FOR * 3);
    delivering.fail("id");
    delivering.are_under_way(&[]);
    assert_eq!(delivering.states(), ["id|dead|1"]);
    let mut outbox = delivering.store.outbox();
    assert_eq!(outbox.retry("id", delivering.clock.wall()), Ok(true));
    // An hour until it fails, and another one until it is tried again.
    for attempt in 1..13 {
        delivering.are_under_way(&["id"]);
        delivering.pass(RETRY_MAX);
        delivering.fail("id");
        delivering.settled();
        assert_eq!(delivering.states(), [format!("id|waiting|{attempt}")]);
        delivering.pass(RETRY_MAX);
    }
    delivering.are_under_way(&["id"]);
    delivering.pass(RETRY_MAX);
    delivering.fail("id");
    delivering.are_under_way(&[]);
    assert_eq!(delivering.counts(), (0, 1));
}

#[test]
fn what_nobody_will_take_is_dead_at_once_and_what_has_no_business_any_more_goes_with_all_of_it() {
    let mut delivering = Delivering::start();
    delivering.commit(&[("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1")]);
    delivering.are_under_way(&["a1", "a2", "a3", "b1"]);
    delivering.answer("a1", Delivery::Refused("410".into()));
    delivering.answer("b1", Delivery::Refused("410".into()));
    delivering.are_under_way(&["a2", "a3"]);
    assert_eq!(delivering.states(), ["a1|dead|1", "a2|waiting|0", "a3|waiting|0", "b1|dead|1"]);
    assert_eq!(delivering.counts(), (2, 2));
    delivering.answer("a2", Delivery::Ownerless);
    delivering.are_under_way(&["a3"]);
    assert_eq!(delivering.states(), ["b1|dead|1"]);
    delivering.fail("a3");
    delivering.are_under_way(&[]);
    assert_eq!((delivering.counts(), delivering.health.attempts()), ((0, 1), [0, 3]));
}

#[test]
fn thousands_of_one_business_hide_no_message_of_another() {
    let mut delivering = Delivering::start();
    let loud: Vec<_> = (0..3 * PASSED_MAX + 7).map(|n| format!("{n:05}")).collect();
    let loud: Vec<_> = loud.iter().map(|id| ("loud", id.as_str())).collect();
    delivering.commit(&loud);
    delivering.clock.advance(SECOND);
    let of_loud: Vec<_> = loud.iter().take(UNDER_WAY_PER_BUSINESS).map(|(_, id)| *id).collect();
    delivering.are_under_way(&of_loud);
    // The receiver of the many never answers.
    for quiet in ["first", "second"] {
        delivering.commit(&[(quiet, quiet)]);
        let begun = Instant::now();
        while !delivering.settled().contains(quiet) {
            assert!(begun.elapsed() < 10 * SECOND, "{quiet} is not sent");
        }
        delivering.answer(quiet, Delivery::Taken);
        delivering.are_under_way(&of_loud);
    }
}

#[test]
fn a_result_that_cannot_be_written_down_is_kept_and_nothing_is_sent_twice_meanwhile() {
    let mut delivering = Delivering::start();
    delivering.commit(&[("a", "taken"), ("a", "failed")]);
    delivering.are_under_way(&["failed", "taken"]);
    delivering.watch.fails.store(true, Ordering::Relaxed);
    delivering.answer("taken", Delivery::Taken);
    delivering.fail("failed");
    eventually("the outbox fails", || delivering.watch.failures.load(Ordering::Relaxed) > 0);
    delivering.webhooks.look();
    eventually("it fails again", || delivering.watch.failures.load(Ordering::Relaxed) > 1);
    assert_eq!(delivering.states(), ["failed|waiting|0", "taken|waiting|0"]);
    assert!(delivering.receivers.0.lock().expect("not poisoned").is_empty(), "nothing is sent");
    delivering.watch.fails.store(false, Ordering::Relaxed);
    delivering.are_under_way(&[]);
    assert_eq!(delivering.states(), ["failed|waiting|1", "taken|sent|0"]);
}

#[test]
fn what_was_sent_is_forgotten_after_a_week() {
    let mut delivering = Delivering::start();
    delivering.commit(&[("a", "old")]);
    delivering.are_under_way(&["old"]);
    delivering.answer("old", Delivery::Taken);
    delivering.pass(SECOND * 3_600 * 24 * 6);
    delivering.commit(&[("a", "new")]);
    delivering.are_under_way(&["new"]);
    delivering.answer("new", Delivery::Taken);
    delivering.settled();
    assert_eq!(delivering.states(), ["new|sent|0", "old|sent|0"]);
    delivering.pass(SECOND * 3_600 * 25);
    delivering.settled();
    assert_eq!(delivering.states(), ["new|sent|0"]);
    let forgotten = delivering.watch.forgotten.lock().expect("not poisoned").clone();
    let week = (SECOND * 3_600 * 24 * 7).as_micros() as i64;
    assert_eq!(forgotten.last().copied(), Some(Micros(delivering.clock.wall().0 - week)));
    assert_eq!(forgotten.len(), 2, "once an hour at most");
}
