//! Chunks of loads over the real binary: each counts once, of any age, whoever sends it how often and whenever the service
//! is killed, by snapshots and by the journal behind them.

use std::thread;

use super::support::api::{Client, Outcome, amount, count, flag};
use super::support::server::{Launch, Server};

const CHUNKS: u64 = 40;
const ITEMS: u64 = 50;
/// Long before anything that a series takes by itself.
const OLD: &str = "2001-02-03T04:05:06Z";

fn chunk(client: &Client, load: &str, number: u64) -> Outcome {
    let item = |at: u64| {
        format!(r#"{{"metric_name": "calls", "value": {}, "timestamp": "{OLD}"}}"#, number * ITEMS + at)
    };
    let items: Vec<_> = (0..ITEMS).map(item).collect();
    let headers = [("Load-Id", load), ("Load-Chunk", &number.to_string())];
    client.call("POST", "/api/v1/events", &headers, &format!("[{}]", items.join(",")))
}

fn start(launch: &Launch) -> (Server, Client) {
    let server = launch.start();
    let client = Client::new(&server.base());
    (server, client)
}

/// Sends until the answer says that it is in.
fn deliver(launch: &Launch, server: &mut Server, client: &mut Client, number: u64) {
    while !matches!(chunk(client, "load", number), Outcome::Durable(_)) {
        (*server, *client) = start(launch);
    }
}

fn check(client: &Client, loads: u64) {
    let read = client.get("/api/v1/metrics/calls").body();
    let items = CHUNKS * ITEMS;
    assert_eq!(count(&read, "count"), Some(loads * items), "{read}");
    let sum = (loads * items * (items - 1) / 2) as i64;
    assert_eq!(amount(&read, "current_value"), Some(dataflows::types::Amount::from_units(sum)), "{read}");
}

#[test]
fn a_chunk_of_a_load_counts_once_through_kills_and_snapshots() {
    let folder = tempfile::tempdir().expect("a folder");
    let launch = Launch::dev(folder.path().join("data")).workers(2);
    let (mut server, mut client) = start(&launch);
    client.post("/api/v1/metrics", r#"{"metric_name": "calls"}"#).body();
    let too_old = client.call(
        "POST",
        "/api/v1/events",
        &[],
        &format!(r#"[{{"metric_name": "calls", "timestamp": "{OLD}"}}]"#),
    );
    assert!(too_old.body().contains("timestamp_out_of_range"), "only a load is taken at any age");
    for number in 0..CHUNKS {
        deliver(&launch, &mut server, &mut client, number);
        match number % 8 {
            // What is on the way may be in the journal or not.
            3 => {
                let (behind, next) = (Client::new(&server.base()), number + 1);
                let sending = thread::spawn(move || chunk(&behind, "load", next));
                server.kill();
                let _ = sending.join();
                (server, client) = start(&launch);
            }
            // With a snapshot.
            6 => {
                server.stop();
                (server, client) = start(&launch);
            }
            _ => {}
        }
    }
    check(&client, 1);
    for number in (0..CHUNKS).rev() {
        let again = chunk(&client, "load", number).body();
        assert!(flag(&again, "duplicate") && count(&again, "accepted") == Some(0), "{again}");
    }
    check(&client, 1);
    server.kill();
    (server, client) = start(&launch);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..CHUNKS).for_each(|number| drop(chunk(&client, "another", number).body())));
        }
    });
    check(&client, 2);
    server.kill();
    let (_server, client) = start(&launch.clone().workers(1));
    check(&client, 2);
}

#[test]
fn a_chunk_says_which_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Launch::dev(folder.path().join("data")).start();
    let client = Client::new(&server.base());
    let send = |headers: &[(&str, &str)]| client.call("POST", "/api/v1/events", headers, "[]");
    send(&[("Load-Id", "a")]).refused(400, "invalid_load");
    send(&[("Load-Chunk", "1")]).refused(400, "invalid_load");
    send(&[("Load-Id", "a"), ("Load-Chunk", "-1")]).refused(400, "invalid_load");
    send(&[("Load-Id", "a b"), ("Load-Chunk", "1")]).refused(400, "invalid_id");
    send(&[("Load-Id", "a"), ("Load-Chunk", "1"), ("Idempotency-Key", "k")])
        .refused(400, "invalid_combination");
    send(&[("Load-Id", "a"), ("Load-Chunk", "1")]).body();
}
