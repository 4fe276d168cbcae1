//! How the sinks are doing, for `/readyz`, `/metrics` and back-pressure: written by their threads, read by anyone.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dataflows::types::Micros;

/// No emission is waiting.
const NONE_WAITING: i64 = i64::MAX;
/// How long a message to a webhook may wait before `/readyz` says so: it has been tried ten times by then.
pub const MESSAGE_LATE_AFTER: Duration = Duration::from_secs(3_600);

/// Figures of one sink since the start of the process.
pub struct SinkHealth {
    reason: Mutex<Option<String>>,
    waiting_since: AtomicI64,
    definitions_waiting: AtomicU64,
    rows: AtomicU64,
    transactions: AtomicU64,
    failures: AtomicU64,
}

impl Default for SinkHealth {
    fn default() -> Self {
        SinkHealth {
            reason: Mutex::default(),
            waiting_since: AtomicI64::new(NONE_WAITING),
            definitions_waiting: AtomicU64::default(),
            rows: AtomicU64::default(),
            transactions: AtomicU64::default(),
            failures: AtomicU64::default(),
        }
    }
}

impl SinkHealth {
    /// Why the sink is degraded; none while it writes.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Age of the oldest emission that is not in the store, in seconds.
    pub fn lag_secs(&self, now: Micros) -> f64 {
        match self.waiting_since.load(Relaxed) {
            NONE_WAITING => 0.0,
            since => now.0.saturating_sub(since).max(0) as f64 / Micros::PER_SECOND as f64,
        }
    }

    /// Definitions taken and not in the store.
    pub fn definitions_waiting(&self) -> u64 {
        self.definitions_waiting.load(Relaxed)
    }

    /// Rows committed, those of series deleted meanwhile included.
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Transactions committed.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Relaxed)
    }

    /// Calls of the store that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    pub(super) fn definitions_taken(&self, count: usize) {
        self.definitions_waiting.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn definitions_left(&self, count: usize) {
        self.definitions_waiting.fetch_sub(count as u64, Relaxed);
    }

    pub(super) fn waits_since(&self, at: Option<Micros>) {
        self.waiting_since.store(at.map_or(NONE_WAITING, |at| at.0), Relaxed);
    }

    pub(super) fn committed(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Relaxed);
        self.transactions.fetch_add(1, Relaxed);
    }

    /// The store answers again.
    pub(super) fn recovered(&self) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn failed(&self, reason: String) {
        self.failures.fetch_add(1, Relaxed);
        self.degraded(reason);
    }

    /// The sink does not write, for this reason.
    pub(super) fn degraded(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }
}

/// Messages in the outbox at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Those that wait for an attempt.
    pub waiting: u64,
    /// Those that were given up.
    pub dead: u64,
    /// When the oldest of those that wait was made.
    pub oldest: Option<Micros>,
}

/// Figures of the messages to webhooks: what the outbox held when it was counted last, and attempts since the start of the
/// process.
#[derive(Default)]
pub struct MessageHealth {
    counted: Mutex<Counted>,
    sent: AtomicU64,
    failed: AtomicU64,
}

impl MessageHealth {
    /// What the outbox held when it was counted last.
    pub fn counted(&self) -> Counted {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Age of the oldest message that waits, in seconds.
    pub fn wait_secs(&self, now: Micros) -> f64 {
        let age = |oldest: Micros| now.0.saturating_sub(oldest.0).max(0) as f64 / Micros::PER_SECOND as f64;
        self.counted().oldest.map_or(0.0, age)
    }

    /// Attempts that receivers have taken, and those that have failed.
    pub fn attempts(&self) -> [u64; 2] {
        [self.sent.load(Relaxed), self.failed.load(Relaxed)]
    }

    /// Why the delivery is degraded, in stable words; nothing if all is well.
    pub fn reasons(&self, now: Micros) -> Vec<&'static str> {
        let dead = (self.counted().dead > 0).then_some("webhook_messages_dead");
        let late = self.wait_secs(now) > MESSAGE_LATE_AFTER.as_secs_f64();
        dead.into_iter().chain(late.then_some("webhook_messages_late")).collect()
    }

    pub(super) fn count(&self, counted: Counted) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = counted;
    }

    pub(super) fn attempted(&self, was_taken: bool) {
        let counter = if was_taken { &self.sent } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delivery_is_degraded_by_dead_messages_and_by_one_that_waits_for_longer_than_an_hour() {
        let health = MessageHealth::default();
        let now = Micros::from_seconds(10_000);
        assert_eq!((health.reasons(now), health.wait_secs(now)), (vec![], 0.0));
        let waits = |secs: i64| Counted { waiting: 1, oldest: Some(Micros(now.0 - secs)), dead: 0 };
        health.count(waits(3_600 * Micros::PER_SECOND));
        assert_eq!((health.reasons(now), health.wait_secs(now)), (vec![], 3_600.0));
        health.count(waits(3_600 * Micros::PER_SECOND + 1));
        assert_eq!(health.reasons(now), ["webhook_messages_late"]);
        health.count(Counted { dead: 1, ..health.counted() });
        assert_eq!(health.reasons(now), ["webhook_messages_dead", "webhook_messages_late"]);
        health.count(Counted { dead: 1, ..Counted::default() });
        assert_eq!(health.reasons(now), ["webhook_messages_dead"]);
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_waiting_emission() {
        let health = SinkHealth::default();
        assert_eq!(health.lag_secs(Micros::from_seconds(100)), 0.0);
        health.waits_since(Some(Micros::from_seconds(97)));
        assert_eq!(health.lag_secs(Micros::from_seconds(100)), 3.0);
        assert_eq!(health.lag_secs(Micros::from_seconds(90)), 0.0, "a clock that went back");
        health.waits_since(None);
        assert_eq!(health.lag_secs(Micros::from_seconds(100)), 0.0);
    }
}
