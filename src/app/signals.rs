//! What the service says about itself: readiness and metrics, put together from the rooms that know.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::control::{Control, Vault};
use crate::engine::{EngineCounters, Shared, Ticket};
use crate::http::{self, Readiness};
use crate::journal::{Journal, Observe};
use crate::sinks::{Counted, MessageHealth, SinkHealth};
use crate::telemetry::{Reading, Telemetry};

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

/// See the header.
pub struct Signals {
    clock: Arc<dyn Clock>,
    health: Arc<SinkHealth>,
    telemetry: Telemetry,
    stage: AtomicU8,
    rooms: OnceLock<Rooms>,
}

struct Rooms {
    shared: Arc<Shared>,
    journal: Journal<Ticket>,
    control: Control,
    vault: Arc<Vault>,
    messages: Arc<MessageHealth>,
}

impl Signals {
    /// Of a service that is starting.
    pub fn new(clock: Arc<dyn Clock>, health: Arc<SinkHealth>) -> Self {
        let telemetry = Telemetry::default();
        Signals { clock, health, telemetry, stage: STARTING.into(), rooms: OnceLock::new() }
    }

    /// The rooms whose figures are shown.
    pub(super) fn attach(
        &self,
        shared: Arc<Shared>,
        journal: Journal<Ticket>,
        control: Control,
        vault: Arc<Vault>,
        messages: Arc<MessageHealth>,
    ) {
        let _ = self.rooms.set(Rooms { shared, journal, control, vault, messages });
    }

    /// The service answers.
    pub(super) fn ready(&self) {
        self.stage.store(READY, Ordering::Release);
    }

    /// The service is stopping.
    pub(super) fn drain(&self) {
        self.stage.store(DRAINING, Ordering::Release);
    }

    /// What is degraded, in stable words.
    fn reasons(&self) -> Vec<String> {
        let Some(rooms) = self.rooms.get() else { return self.health.reason().into_iter().collect() };
        let is_unreadable = rooms.control.unreadable_secrets(&rooms.vault) > 0;
        let secrets = is_unreadable.then_some("secrets_unreadable");
        let dead = rooms.control.registry().slices().counts().dead > 0;
        let slices = dead.then_some("billing_slices_dead");
        let messages = rooms.messages.reasons(self.clock.wall());
        let others = secrets.into_iter().chain(messages).chain(slices);
        self.health.reason().into_iter().chain(others.map(str::to_owned)).collect()
    }

    fn reading(&self) -> Reading {
        let Some(Rooms { shared, journal, control, messages, .. }) = self.rooms.get() else {
            return Reading::default();
        };
        let Counted { waiting, dead, .. } = messages.counted();
        let (slices, short) = {
            let registry = control.registry();
            (registry.slices().counts(), registry.quota().short())
        };
        let counters = &shared.counters;
        let EngineCounters { admitted, duplicates, gone, late, refused, too_late, .. } = counters;
        let updates = [admitted, duplicates, gone, late, refused, too_late];
        let resident = counters.resident.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |index: usize| resident.iter().map(|numbers| numbers[index]).sum();
        Reading {
            updates: updates.map(|counter| counter.load(Ordering::Relaxed)),
            journal_bytes: journal.stats().segment_bytes,
            sink_lag_seconds: self.health.lag_secs(self.clock.wall()),
            messages: [waiting, dead],
            message_attempts: messages.attempts(),
            message_wait_seconds: messages.wait_secs(self.clock.wall()),
            rows: self.health.rows(),
            transactions: self.health.transactions(),
            resident: [sum(0), sum(1), sum(2), sum(3)],
            slices: [slices.waiting, slices.unknown, slices.dead, slices.acked],
            businesses_short: short as u64,
        }
    }
}

impl http::Signals for Signals {
    fn readiness(&self) -> Readiness {
        match self.stage.load(Ordering::Acquire) {
            STARTING => Readiness::Starting,
            READY => Readiness::Ready(self.reasons()),
            _ => Readiness::Draining,
        }
    }

    fn exposition(&self) -> String {
        self.telemetry.exposition(&self.reading())
    }

    fn answered(&self, method: &'static str, route: &'static str, status: u16, elapsed: Duration) {
        self.telemetry.request(route, method, status, elapsed);
    }

    fn stripe_event(&self, outcome: &'static str) {
        self.telemetry.stripe_event(outcome);
    }
}

impl Observe for Signals {
    fn group(&self, bytes: usize, appends: usize, sync: Duration) {
        self.telemetry.group(bytes, appends, sync);
    }
}
