//! `POST /api/v1/events` over the real binary: random batches in every format through kills, limits that hold whatever the
//! batches are, and what a large one takes of the memory.

mod large;
mod limits;
mod model;
mod written;

use std::sync::Mutex;
use std::thread::{self, sleep};

use super::businesses::Admin;
use super::support::api::Client;
use super::support::server::{Launch, Server};
use super::support::{KEY, Random, rounds};
use model::Sender;

/// Connections of each business.
const SENDERS: usize = 3;
/// What every business has: sums of its own, and one of each customer that is made at its first event.
const OWN: [&str; 2] = ["calls", "bytes"];
const MADE: &str = "seats";

fn start(folder: &tempfile::TempDir, workers: usize) -> Server {
    Launch::dev(folder.path().join("data")).workers(workers).start()
}

fn define(client: &Client) {
    for name in OWN {
        client.post("/api/v1/metrics", &format!(r#"{{"metric_name": "{name}"}}"#)).body();
    }
    client.put(&format!("/api/v1/templates/{MADE}"), r#"{"create_customers": true}"#).body();
}

/// Compares every series with what the senders know of it.
fn audit(server: &Server, senders: &[Sender], when: &str) {
    let expected = model::expected(senders);
    assert!(!expected.is_empty(), "{when}: nothing has counted");
    for (key, series) in expected {
        let client = Client::new(&server.base()).with_key(&key);
        for ((metric_name, customer_id), (sum, count)) in series {
            let scope = customer_id.iter().map(|id| format!("?scope=customer&customer_id={id}"));
            let path = format!("/api/v1/metrics/{metric_name}{}", scope.collect::<String>());
            let read = client.get(&path).body();
            let [value, counted] = ["current_value", "count"].map(|name| model::number(&read, name));
            assert_eq!(
                (value, counted),
                (sum.to_string(), count.to_string()),
                "{when}: {path} of {key}: {read}"
            );
        }
    }
}

#[test]
fn batches_of_every_kind_count_once_through_kills() {
    let mut random = Random::seeded("events");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let admin = Admin::start(&folder.path().join("data"));
    define(&admin.client);
    let (_, other) = admin.business("Other");
    define(&admin.client.with_key(&other));
    admin.kill();
    let mut senders: Vec<_> = [KEY, &other]
        .iter()
        .flat_map(|key| (0..SENDERS).map(move |number| (key.to_string(), number)))
        .map(|(key, number)| Sender::new(key, number, random.fork()))
        .collect();
    let mut server = start(&folder, 1 + random.below(4));
    let rounds = rounds(4, 40);
    for round in 0..rounds {
        let base = Mutex::new(server.base());
        let is_over = Mutex::new(false);
        let moment = random.millis(200, 1_500);
        thread::scope(|scope| {
            for sender in &mut senders {
                scope.spawn(|| sender.work(&base, &is_over));
            }
            sleep(moment);
            server.kill();
            server = start(&folder, 1 + random.below(4));
            *base.lock().expect("no panic") = server.base();
            sleep(random.millis(100, 500));
            *is_over.lock().expect("no panic") = true;
        });
        audit(&server, &senders, &format!("round {round}, killed after {moment:?}"));
    }
    let unknown: usize = senders.iter().map(|sender| sender.unknown).sum();
    let (batches, items) = senders
        .iter()
        .fold((0, 0), |(batches, items), sender| (batches + sender.batches, items + sender.items));
    println!("{rounds} kills, {batches} batches of {items} items, {unknown} unknown answers");
    assert!(unknown > 0, "no kill hit a batch: the load is too small to prove anything");

    // What is sent again changes nothing, whoever has been killed in between.
    for workers in [1, 4] {
        senders.iter_mut().for_each(|sender| sender.repeat(&server.base()));
        audit(&server, &senders, "sent again");
        server.kill();
        server = start(&folder, workers);
        audit(&server, &senders, &format!("with {workers} workers"));
    }
    server.stop();
    let server = start(&folder, 2);
    senders.iter_mut().for_each(|sender| sender.repeat(&server.base()));
    audit(&server, &senders, "from a snapshot");
}
