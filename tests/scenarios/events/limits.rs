//! A limit that blocks, and batches: however they race, the value never passes it; what was refused is counted item by item.

use std::thread;

use serde_json::Value;

use super::super::support::api::Client;
use super::super::support::{Random, rounds};
use super::start;

const LIMIT: u64 = 1_000;

/// What became of the items of a batch, by their places.
fn statuses(client: &Client, items: &[i64]) -> Vec<String> {
    let lines: Vec<_> =
        items.iter().map(|value| format!(r#"{{"metric_name": "capped", "value": {value}}}"#)).collect();
    let body = client.post("/api/v1/events?results=all", &format!("[{}]", lines.join(","))).body();
    let json: Value = serde_json::from_str(&body).expect("JSON");
    let results = json["results"].as_array().expect("an entry an item");
    let status = |(place, result): (usize, &Value)| {
        assert_eq!(result["index"], place, "{body}");
        result["status"].as_str().expect("a status").to_owned()
    };
    let statuses: Vec<_> = results.iter().enumerate().map(status).collect();
    for name in ["accepted", "refused"] {
        let counted = statuses.iter().filter(|status| *status == name).count();
        assert_eq!(json[name], counted, "{body}");
    }
    let explained = json["errors"].as_array().expect("errors").iter().map(|error| &error["index"]);
    let refused = (0..).zip(&statuses).filter(|(_, status)| *status == "refused").map(|(place, _)| place);
    assert!(explained.map(|index| index.as_u64().expect("an index")).eq(refused), "{body}");
    statuses
}

fn value(client: &Client, name: &str) -> u64 {
    let json: Value = serde_json::from_str(&client.get("/api/v1/metrics/capped").body()).expect("JSON");
    json[name].as_f64().expect("a number") as u64
}

fn define(client: &Client) {
    let body = format!(r#"{{"metric_name": "capped", "limit_value": {LIMIT}, "breach_action": "block"}}"#);
    client.post("/api/v1/metrics", &body).body();
}

#[test]
fn item_by_item_a_batch_is_admitted_as_single_updates_are() {
    let mut random = Random::seeded("events, limits");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut server = start(&folder, 2);
    define(&Client::new(&server.base()));
    let (mut at, mut refused, mut refunded_behind) = (0i64, 0, 0);
    for round in 0..rounds(60, 1_000) {
        let client = Client::new(&server.base());
        let items: Vec<i64> = (0..1 + random.below(40))
            .map(|_| if random.one_in(4) { -(random.below(300) as i64) } else { random.below(200) as i64 })
            .collect();
        let mut was_refused = false;
        for (item, status) in items.iter().zip(statuses(&client, &items)) {
            let is_admitted = *item <= 0 || at + item <= LIMIT as i64;
            assert_eq!(
                status,
                if is_admitted { "accepted" } else { "refused" },
                "{at} and {item} in {items:?}"
            );
            refunded_behind += u64::from(was_refused && is_admitted);
            was_refused |= !is_admitted;
            refused += u64::from(!is_admitted);
            at += if is_admitted { *item } else { 0 };
        }
        let json: Value = serde_json::from_str(&client.get("/api/v1/metrics/capped").body()).expect("JSON");
        assert_eq!(json["current_value"].as_f64(), Some(at as f64), "round {round}: {json}");
        if random.one_in(20) {
            server.kill();
            server = start(&folder, 1 + random.below(4));
        }
    }
    assert!(
        refused > 20 && refunded_behind > 20,
        "{refused} and {refunded_behind} are too few to say anything"
    );
}

#[test]
fn however_batches_race_they_come_to_the_limit_and_not_past_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&folder, 4);
    let client = Client::new(&server.base());
    define(&client);
    let (senders, batches, items) = (8, 10, vec![1; 50]);
    let send = || {
        let own = Client::new(&server.base());
        (0..batches).flat_map(|_| statuses(&own, &items)).filter(|status| status == "accepted").count()
    };
    let accepted: usize = thread::scope(|scope| {
        let senders: Vec<_> = (0..senders).map(|_| scope.spawn(send)).collect();
        senders.into_iter().map(|sender| sender.join().expect("every batch is answered")).sum()
    });
    assert_eq!(
        (accepted as u64, value(&client, "current_value"), value(&client, "count")),
        (LIMIT, LIMIT, LIMIT)
    );
    assert_eq!(value(&client, "refused"), senders * batches * 50 - LIMIT);
    server.kill();
    let server = start(&folder, 1);
    assert_eq!(value(&Client::new(&server.base()), "current_value"), LIMIT, "a replay refuses the same");
}
