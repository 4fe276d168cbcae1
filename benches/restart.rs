//! The question: how long does a start take with 1 M series in the snapshot and 5 M updates behind it, with the same and
//! with another number of workers? Goal: ready in less than 10 s (issue figure; an idle machine).
//!
//! The data directory is made by the rooms themselves: definitions through the control thread and a snapshot, then updates
//! packed as admission packs them, through the journal's own writer. The start is the real binary's, until `/readyz` is 200.
//!
//! Run: `cargo build --release --bin tracktags && cargo bench --bench restart`.

#![allow(clippy::print_stdout)] // A bench prints its figures.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataflows::types::packed::{Item, pack};
use dataflows::types::{
    Amount, Business, Definition, Epoch, Micros, SeriesId, SeriesKey, SeriesRecord, SeriesSpec,
};
use tracktags::app::{Service, Signals, journal_options};
use tracktags::clock::{Clock, Stamps, SystemClock};
use tracktags::config::{Config, Options};
use tracktags::control::Origin;
use tracktags::journal::{self, Append, Durable, Follower, JournalError, Kind, Position};
use tracktags::sinks::SinkHealth;

const SERIES: u32 = 1_000_000;
const UPDATES: u32 = 5_000_000;
const UPDATES_AN_APPEND: u32 = 1_000;
const BUSINESS: &str = "biz_bench";

struct Silent;

impl Follower<()> for Silent {
    fn durable(&mut self, _: Vec<Durable<()>>) {}
    fn barrier(&mut self, _: Position, (): ()) {}
    fn failed(&mut self, _: Vec<()>, why: &JournalError) {
        panic!("{why}");
    }
    fn rejected(&mut self, _: Vec<()>, why: &JournalError) {
        panic!("{why}");
    }
    fn due_at(&mut self) -> Option<Micros> {
        None
    }
}

fn record(series: u32) -> Definition {
    let key = SeriesKey {
        business_id: BUSINESS.into(),
        customer_id: None,
        metric_name: format!("metric_{series}"),
    };
    let spec = SeriesSpec::default();
    Definition::SeriesCreated(SeriesRecord { series: SeriesId(series), key, spec, created_at: Micros(0) })
}

fn define_series(config: &Config) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let health = Arc::new(SinkHealth::default());
    let signals = Arc::new(Signals::new(clock.clone(), health.clone()));
    let recovery = journal::open(journal_options(config)).expect("the journal can be opened");
    let service = Service::start(config, recovery, clock, health.clone(), &signals, "tk_admin_0123456789");
    let service = service.expect("the service starts");
    let control = service.rooms(config).control;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let business = Business {
        business_id: BUSINESS.into(),
        business_name: "Bench".into(),
        email: "bench@example.com".into(),
        created_at: Micros(0),
    };
    runtime.block_on(async {
        control.by(Origin::SERVER).define(vec![Definition::BusinessPut(business)]).await.expect("defined");
        for first in (1..=SERIES).step_by(10_000) {
            let definitions = (first..first + 10_000).map(record).collect();
            control.by(Origin::SERVER).define(definitions).await.expect("defined");
        }
    });
    while health.definitions_waiting() > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    service.stop(false);
}

fn append_updates(config: &Config) {
    let recovery = journal::open(journal_options(config)).expect("the journal can be opened");
    let stamps = Arc::new(Stamps::new(Arc::new(SystemClock::default()), recovery.last_stamp()));
    let journal = recovery.start(stamps, Silent, Arc::new(())).expect("the journal starts");
    journal.forget_before(0 as Epoch);
    for append in 0..UPDATES / UPDATES_AN_APPEND {
        let items: Vec<Item> = (0..UPDATES_AN_APPEND)
            .map(|item| {
                let number = u64::from(append * UPDATES_AN_APPEND + item);
                // A full cycle over the series in an order that no cache likes.
                let series = SeriesId((number * 7_368_787 % u64::from(SERIES)) as u32 + 1);
                Item { series, event_at: None, amount: Amount::from_units(1), id: None }
            })
            .collect();
        let mut bytes = Vec::new();
        pack(&mut bytes, None, &items);
        let mut waiting = Append { kind: Kind::Updates, bytes, companion: () };
        while let Err((back, _)) = journal.append(waiting) {
            waiting = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    journal.close().expect("the journal is sealed");
}

/// Seconds from the start of the process to readiness, and its resident MiB then.
fn start(binary: &Path, data_dir: &Path, workers: usize) -> (f64, u64) {
    let began = Instant::now();
    let mut server = Command::new(binary)
        .args(["serve", "--listen", "127.0.0.1:0", "--workers", &workers.to_string(), "--data-dir"])
        .arg(data_dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("cargo build --release --bin tracktags comes first");
    let mut line = String::new();
    let output = server.stdout.take().expect("piped");
    BufReader::new(output).read_line(&mut line).expect("the address is announced");
    let url = format!("{}/readyz", line.trim().trim_start_matches("listening on "));
    while ureq::get(&url).call().is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let elapsed = began.elapsed().as_secs_f64();
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0);
    // Killed, so that the next start finds the same journal.
    server.kill().expect("it runs");
    server.wait().expect("it ran");
    (elapsed, kib / 1024)
}

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder on the disk");
    let options =
        Options { data_dir: Some(folder.path().join("data")), workers: Some(2), ..Options::default() };
    let config = options.resolve().expect("valid");
    println!("{SERIES} series, {UPDATES} updates of {UPDATES_AN_APPEND} an append behind the snapshot");
    let began = Instant::now();
    define_series(&config);
    println!("defined and stopped in {:.1} s", began.elapsed().as_secs_f64());
    append_updates(&config);
    let binary = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/release/tracktags");
    println!("workers  ready after s  resident MiB");
    for workers in [2, 1, 2, 3, 2, 4] {
        let (seconds, resident) = start(&binary, &config.data_dir, workers);
        println!("{workers:7} {seconds:14.2} {resident:13}");
    }
}
