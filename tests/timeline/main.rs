//! The service on a clock that the test moves. Here the guide's timeline: flush every 5 s, batch every 30 s, six windows,
//! one write. In `cleanup` a series that nobody sends to, in `ends` a period that ends unseen, in `tenants`
//! two tenants that must not notice each other.
//!
//! The rooms are the service's own (journal, dataflow, SQLite), the first two without HTTP.

mod cleanup;
mod ends;
mod tenants;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataflows::types::{
    Amount, Business, Customer, Definition, MetricType, Micros, SeriesKey, SeriesSpec, Span,
};
use tracktags::admission::UpdateRequest;
use tracktags::app::{Service, Signals, journal_options};
use tracktags::clock::MockClock;
use tracktags::config::{Config, Options};
use tracktags::control::{Origin, SeriesHandle};
use tracktags::http::Rooms;
use tracktags::journal;
use tracktags::sinks::SinkHealth;
use tracktags::store::{HistoryQuery, HistoryRow};

/// How long the threads may take to do what the clock makes due.
const PATIENCE: Duration = Duration::from_secs(20);
/// 2026-11-24T12:00:00Z.
const NOON: Micros = Micros(1_795_521_600_000_000);

fn config(data_dir: &Path) -> Config {
    let options = Options { data_dir: Some(data_dir.into()), workers: Some(2), ..Options::default() };
    options.resolve().expect("the options are valid")
}

fn start(config: &Config, clock: &MockClock) -> (Service, Arc<SinkHealth>, Arc<Signals>) {
    let health = Arc::new(SinkHealth::default());
    let clock = Arc::new(clock.clone());
    let signals = Arc::new(Signals::new(clock.clone(), health.clone()));
    let recovery = journal::open(journal_options(config)).expect("the journal can be opened");
    let service = Service::start(config, recovery, clock, health.clone(), &signals, "tk_admin_0123456789");
    (service.expect("the service starts"), health, signals)
}

fn api_usage() -> SeriesSpec {
    SeriesSpec {
        metric_type: MetricType::StripeBilling,
        flush_interval: Span::S5,
        batch_interval: Span::S30,
        ..SeriesSpec::default()
    }
}

fn key() -> SeriesKey {
    SeriesKey {
        business_id: "biz_demo".into(),
        customer_id: Some("cust_123".into()),
        metric_name: "api_usage".into(),
    }
}

async fn send(rooms: &Rooms, handle: &SeriesHandle, units: i64) -> Amount {
    let (handle, amount) = (handle.clone(), Amount::from_units(units));
    let blocks = false;
    let request = UpdateRequest { handle, blocks, amount, event_at: None, id: None, key: None, post: None };
    rooms.admission.update(&request).await.expect("the update is taken").decision.current
}

/// The rows that the store has, newest first.
fn rows_of(rooms: &Rooms, handle: &SeriesHandle) -> Vec<HistoryRow> {
    let query = HistoryQuery { series: handle.series, start: None, end: None, before: None, limit: 10 };
    rooms.history.rows(&query, handle.record.spec.batch_interval).expect("the store answers").rows
}

async fn until(what: &str, mut question: impl FnMut() -> bool) {
    let began = Instant::now();
    while !question() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn define(rooms: &Rooms, spec: SeriesSpec) -> SeriesHandle {
    let business = Definition::BusinessPut(Business {
        business_id: "biz_demo".into(),
        business_name: "Demo".into(),
        email: "demo@example.com".into(),
        created_at: NOON,
    });
    let customer = Definition::CustomerPut(Customer {
        business_id: "biz_demo".into(),
        customer_id: "cust_123".into(),
        customer_name: "Demo".into(),
        created_at: NOON,
    });
    let edits = rooms.control.by(Origin::SERVER);
    edits.define(vec![business, customer]).await.expect("the customer is defined");
    edits.create_series(key(), spec).await.expect("the series is created").handle
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_windows_are_six_rows_in_one_transaction() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(folder.path());
    let clock = MockClock::at(NOON);
    let (service, health, _) = start(&config, &clock);
    let rooms = service.rooms(&config);
    let handle = define(&rooms, api_usage()).await;
    until("the definitions' own transaction", || health.definitions_waiting() == 0).await;
    let (transactions, rows) = (health.transactions(), health.rows());

    clock.advance(Duration::from_secs(1));
    for window in 0..6i64 {
        for _ in 0..2 {
            send(&rooms, &handle, 1 + window).await;
        }
        assert_eq!(health.transactions(), transactions, "nothing is written before the boundary");
        // From the 1st second of a window to that of the next; the last step stops short of the boundary at 30 s.
        clock.advance(if window < 5 { Duration::from_secs(5) } else { Duration::from_millis(3_900) });
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(health.transactions(), transactions, "the boundary has not come");

    clock.advance(Duration::from_millis(100));
    until("the batch", || health.transactions() > transactions).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!((health.transactions() - transactions, health.rows() - rows), (1, 6));

    let written: Vec<_> = rows_of(&rooms, &handle)
        .iter()
        .rev()
        .map(|row| (row.window_start, row.tally.sum, row.value))
        .collect();
    let at = |seconds: i64| Micros(NOON.0 + seconds * Micros::PER_SECOND);
    let units = Amount::from_units;
    let expected = [(0, 2, 2), (5, 4, 6), (10, 6, 12), (15, 8, 20), (20, 10, 30), (25, 12, 42)];
    assert_eq!(written, expected.map(|(start, sum, value)| (at(start), units(sum), units(value))));
    drop(rooms);
    tokio::task::spawn_blocking(move || service.stop(false)).await.expect("the service stops");
}
