//! How a sink is doing, for `/readyz`, `/metrics` and back-pressure: written by the sink's thread, read by anyone.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use dataflows::types::Micros;

/// No emission is waiting.
const NONE_WAITING: i64 = i64::MAX;

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

#[cfg(test)]
mod tests {
    use super::*;

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
