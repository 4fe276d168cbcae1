//! The service's own metrics, in OpenMetrics text. Nothing here names a tenant.
//!
//! Counters and histograms are fed where things happen; gauges are set just before they are shown.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: u16,
}

/// Labels of an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Labels of what is in one of a few states.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// Everything that is shown.
pub struct Telemetry {
    registry: Registry,
    stripe_events: Family<OutcomeLabels, Counter>,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    updates: Family<OutcomeLabels, Gauge>,
    messages: Family<StateLabels, Gauge>,
    message_attempts: Family<OutcomeLabels, Gauge>,
    fsync_seconds: Histogram,
    group_updates: Histogram,
    journal_written_bytes: Counter,
    gauges: Gauges,
}

#[derive(Default)]
struct Gauges {
    journal_bytes: Gauge,
    sink_lag_seconds: Seconds,
    message_wait_seconds: Seconds,
    rows: Gauge,
    transactions: Gauge,
    series: Gauge,
    windows: Gauge,
    ids: Gauge,
    resident_bytes: Gauge,
    slices: Family<StateLabels, Gauge>,
    businesses_short: Gauge,
}

/// Figures that are read off when they are shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Updates counted, recognised as repeats, for deleted series, late among the counted, refused by a limit, and too
    /// late for one.
    pub updates: [u64; 6],
    /// Bytes of all journal segments.
    pub journal_bytes: u64,
    /// Age of the oldest emission that the store lacks.
    pub sink_lag_seconds: f64,
    /// Messages to webhooks that wait and that were given up.
    pub messages: [u64; 2],
    /// Attempts to send one that were taken and that failed.
    pub message_attempts: [u64; 2],
    /// Age of the oldest message that waits.
    pub message_wait_seconds: f64,
    /// Rows and transactions that the store has taken.
    pub rows: u64,
    /// See `rows`.
    pub transactions: u64,
    /// Live series, resident windows, remembered ids, bytes held by them.
    pub resident: [u64; 4],
    /// Slices of usage that wait, are unknown among those, are dead, and have arrived.
    pub slices: [u64; 4],
    /// Businesses that have four fifths of the series that they may have, or more.
    pub businesses_short: u64,
}

fn request_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.5, 12))
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tracktags");
        let requests = Family::new_with_constructor(request_seconds as fn() -> Histogram);
        let updates: Family<OutcomeLabels, Gauge> = Family::default();
        let messages: Family<StateLabels, Gauge> = Family::default();
        let message_attempts: Family<OutcomeLabels, Gauge> = Family::default();
        let fsync_seconds = Histogram::new(exponential_buckets(0.000_02, 2.0, 16));
        let group_updates = Histogram::new(exponential_buckets(1.0, 2.0, 16));
        let journal_written_bytes = Counter::default();
        let gauges = Gauges::default();
        registry.register("request_seconds", "Time from header to answer", requests.clone());
        registry.register("updates", "Updates since the start, by outcome", updates.clone());
        registry.register("webhook_messages", "Messages to webhooks, by state", messages.clone());
        let help = "Attempts to send a message since the start, by outcome";
        registry.register("webhook_attempts", help, message_attempts.clone());
        registry.register("journal_fsync_seconds", "One fsync of the journal", fsync_seconds.clone());
        registry.register("journal_group_appends", "Appends behind one fsync", group_updates.clone());
        registry.register("journal_written_bytes", "Bytes appended", journal_written_bytes.clone());
        let Gauges {
            journal_bytes,
            sink_lag_seconds,
            message_wait_seconds,
            rows,
            transactions,
            series,
            windows,
            ids,
            resident_bytes,
            slices,
            businesses_short,
        } = &gauges;
        registry.register("billing_slices", "Slices of billed usage, by state", slices.clone());
        for (name, help, gauge) in [
            ("sink_lag_seconds", "Age of the oldest batch not in the store", sink_lag_seconds),
            ("webhook_wait_seconds", "Age of the oldest message that waits", message_wait_seconds),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, gauge) in [
            ("journal_bytes", "Bytes of all journal segments", journal_bytes),
            ("store_rows", "Rows written since the start", rows),
            ("store_transactions", "Transactions committed since the start", transactions),
            ("series", "Live series", series),
            ("windows", "Windows in memory", windows),
            ("event_ids", "Event ids remembered", ids),
            ("resident_bytes", "Memory held by series, windows and ids", resident_bytes),
            (
                "businesses_short_of_series",
                "Businesses with 80 % of the series that they may have, or more",
                businesses_short,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        let stripe_events: Family<OutcomeLabels, Counter> = Family::default();
        registry.register(
            "stripe_events",
            "Events of Stripe since the start, by outcome",
            stripe_events.clone(),
        );
        Telemetry {
            registry,
            stripe_events,
            requests,
            updates,
            messages,
            message_attempts,
            fsync_seconds,
            group_updates,
            journal_written_bytes,
            gauges,
        }
    }
}

impl Telemetry {
    /// A request was answered.
    pub fn request(&self, route: &'static str, method: &'static str, status: u16, elapsed: Duration) {
        let labels = RequestLabels { route, method, status };
        self.requests.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// An event of Stripe came, and what became of it.
    pub fn stripe_event(&self, outcome: &'static str) {
        self.stripe_events.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// The journal has written a group.
    pub fn group(&self, bytes: usize, appends: usize, fsync: Duration) {
        self.journal_written_bytes.inc_by(bytes as u64);
        self.group_updates.observe(appends as f64);
        self.fsync_seconds.observe(fsync.as_secs_f64());
    }

    /// The text, with these figures.
    pub fn exposition(&self, reading: &Reading) -> String {
        let outcomes = ["admitted", "duplicate", "gone", "late", "refused", "too_late"];
        for (outcome, count) in outcomes.into_iter().zip(reading.updates) {
            self.updates.get_or_create(&OutcomeLabels { outcome }).set(count as i64);
        }
        for (state, count) in ["waiting", "dead"].into_iter().zip(reading.messages) {
            self.messages.get_or_create(&StateLabels { state }).set(count as i64);
        }
        for (outcome, count) in ["sent", "failed"].into_iter().zip(reading.message_attempts) {
            self.message_attempts.get_or_create(&OutcomeLabels { outcome }).set(count as i64);
        }
        self.gauges.sink_lag_seconds.set(reading.sink_lag_seconds);
        self.gauges.message_wait_seconds.set(reading.message_wait_seconds);
        let [series, windows, ids, resident_bytes] = reading.resident;
        for (gauge, figure) in [
            (&self.gauges.journal_bytes, reading.journal_bytes),
            (&self.gauges.rows, reading.rows),
            (&self.gauges.transactions, reading.transactions),
            (&self.gauges.series, series),
            (&self.gauges.windows, windows),
            (&self.gauges.ids, ids),
            (&self.gauges.resident_bytes, resident_bytes),
            (&self.gauges.businesses_short, reading.businesses_short),
        ] {
            gauge.set(figure as i64);
        }
        for (state, count) in ["waiting", "unknown", "dead", "sent"].into_iter().zip(reading.slices) {
            self.gauges.slices.get_or_create(&StateLabels { state }).set(count as i64);
        }
        let mut exposition = String::new();
        text::encode(&mut exposition, &self.registry).expect("writing to a string cannot fail");
        exposition
    }
}
