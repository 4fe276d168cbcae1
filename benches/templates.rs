//! The question: how fast are customers' series made from a template, and how long does the registry hold others up
//! meanwhile? Goal: 200,000 series a second through `create_from_template`, each batch durable in a journal on the disk,
//! known to the workers and read back as a handle.
//!
//! The rooms are the service's own, with SQLite as the store, which follows behind. Varied is whether the customers are
//! known. Beside it a thread looks a series up all the time, as every request does: the longest look is what a request may
//! wait.
//!
//! Run: `cargo bench --bench templates`.

#![allow(clippy::print_stdout)] // A bench prints its figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataflows::types::{Business, Customer, Definition, Micros, SeriesKey, SeriesSpec, Template};
use tracktags::app::{Service, Signals, journal_options};
use tracktags::clock::{Clock, SystemClock};
use tracktags::config::Options;
use tracktags::control::{BATCH_SERIES_MAX, Control, Origin};
use tracktags::journal;
use tracktags::sinks::SinkHealth;

const SERIES: usize = 200_000;
const BUSINESS: &str = "biz_bench";

fn key(customer: &str) -> SeriesKey {
    let (business_id, metric_name) = (BUSINESS.to_owned(), "calls".to_owned());
    SeriesKey { business_id, customer_id: Some(customer.to_owned()), metric_name }
}

fn business() -> Definition {
    Definition::BusinessPut(Business {
        business_id: BUSINESS.into(),
        business_name: "Bench".into(),
        email: "bench@example.com".into(),
        created_at: Micros(0),
    })
}

fn customer(customer_id: &str) -> Definition {
    Definition::CustomerPut(Customer {
        business_id: BUSINESS.into(),
        customer_id: customer_id.into(),
        customer_name: customer_id.into(),
        created_at: Micros(0),
    })
}

async fn define(control: &Control, customers: &[String]) {
    let edits = control.by(Origin::SERVER);
    edits.define(vec![business()]).await.expect("defined");
    for customers in customers.chunks(10_000) {
        edits.define(customers.iter().map(|id| customer(id)).collect()).await.expect("defined");
    }
    let template = Template {
        business_id: BUSINESS.into(),
        metric_name: "calls".into(),
        spec: SeriesSpec::default(),
        create_customers: true,
        created_at: Micros(0),
    };
    edits.put_template(template).await.expect("defined");
}

/// Looks up again and again until told to stop; the longest look.
fn look(control: &Control, stop: &AtomicBool) -> Duration {
    let (wanted, mut longest) = (key("absent"), Duration::ZERO);
    while !stop.load(Ordering::Acquire) {
        let began = Instant::now();
        control.resolve(&wanted);
        longest = longest.max(began.elapsed());
        std::thread::sleep(Duration::from_micros(200));
    }
    longest
}

fn run(known: bool) {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder on the disk");
    let options =
        Options { data_dir: Some(folder.path().join("data")), workers: Some(2), ..Options::default() };
    let config = options.resolve().expect("valid");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let health = Arc::new(SinkHealth::default());
    let signals = Arc::new(Signals::new(clock.clone(), health.clone()));
    let recovery = journal::open(journal_options(&config)).expect("the journal can be opened");
    let service = Service::start(&config, recovery, clock, health.clone(), &signals, "tk_admin_0123456789");
    let service = service.expect("the service starts");
    let control = service.rooms(&config).control;
    let customers: Vec<String> = (0..SERIES).map(|number| format!("cust_{number}")).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(define(&control, if known { &customers } else { &[] }));
    while health.definitions_waiting() > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let names: Vec<(&str, &str)> = customers.iter().map(|id| ("calls", id.as_str())).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let longest = scope.spawn(|| look(&control, &stop));
        let mut secs = 0.0;
        for (turn, names) in names.chunks(SERIES / 2).enumerate() {
            let began = Instant::now();
            let made = runtime.block_on(control.by(Origin::SERVER).create_from_template(BUSINESS, names));
            secs = began.elapsed().as_secs_f64();
            assert!(made.iter().all(Result::is_ok), "made");
            println!(
                "customers {}, turn {}: {} series in {secs:.3} s, {:.0} series/s",
                if known { "known" } else { "new" },
                turn + 1,
                names.len(),
                names.len() as f64 / secs
            );
        }
        let began = Instant::now();
        let found = runtime.block_on(control.by(Origin::SERVER).create_from_template(BUSINESS, &names));
        assert!(secs > 0.0 && found.iter().all(Result::is_ok), "there");
        println!("  again, all there: {:.0} names/s", names.len() as f64 / began.elapsed().as_secs_f64());
        stop.store(true, Ordering::Release);
        println!(
            "  longest look-up of another meanwhile: {:.1} ms",
            longest.join().expect("it looks").as_secs_f64() * 1e3
        );
    });
    let began = Instant::now();
    while health.definitions_waiting() > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("  the store had all of it {:.1} s later", began.elapsed().as_secs_f64());
    service.stop(false);
}

fn main() {
    println!("{SERIES} series in two turns, {BATCH_SERIES_MAX} a journal entry, 2 workers");
    run(true);
    run(false);
}
