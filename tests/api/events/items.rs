//! What is answered of items: bad ones by their place, refused ones, repeats, and the two modes in which a batch is one thing.

use serde_json::json;

use super::gzip;
use super::world::{NDJSON, World};

const JSON: &str = "content-type: application/json";
const CSV: &str = "content-type: text/csv";
const EVENT: &str = "content-type: application/cloudevents+json";

#[test]
fn a_bad_item_is_told_by_its_place_and_the_others_count() {
    let world = World::start();
    let good = r#"{"metric_name": "m"}"#;
    let mut expected = 0;
    for (bad, code) in [
        (r#"{"metric_name": "m"#, "malformed_json"),
        ("[]", "wrong_type"),
        (r#"{"metric_name": "absent"}"#, "metric_not_found"),
        (r#"{"metric_name": "m", "customer_id": "nobody"}"#, "customer_not_found"),
        (r#"{"metric_name": "m", "value": 1e16}"#, "amount_out_of_range"),
        (r#"{"metric_name": "m", "value": "1"}"#, "wrong_type"),
        (r#"{"metric_name": "m", "colour": 1}"#, "unknown_field"),
        (r#"{"value": 1}"#, "missing_field"),
        (r#"{"metric_name": "m", "id": "a b"}"#, "invalid_id"),
        (r#"{"metric_name": "m", "timestamp": "2026-11-23T11:59:59Z"}"#, "timestamp_out_of_range"),
        (r#"{"metric_name": "m", "timestamp": "2026-11-24T12:05:01Z"}"#, "timestamp_out_of_range"),
        (r#"{"metric_name": "m", "timestamp": "noon"}"#, "invalid_time"),
    ] {
        let answer = world.lines(format!("{good}\n{bad}\n{good}\n"));
        assert_eq!((answer.counts(), answer.errors()), ([2, 0, 0, 1], vec![(1, code)]), "{bad}");
        expected += 2;
        if code != "malformed_json" {
            let answer = world.events("", &[JSON], format!("[{good},{good},{bad}]"));
            assert_eq!((answer.counts(), answer.errors()), ([2, 0, 0, 1], vec![(2, code)]), "{bad}");
            expected += 2;
        }
    }
    for (row, code) in [
        ("m,x", "wrong_type"),
        ("m,1e16", "amount_out_of_range"),
        ("m", "wrong_field_count"),
        ("absent,1", "metric_not_found"),
    ] {
        let answer = world.events("", &[CSV], format!("metric_name,value\nm,1\n{row}\nm,1"));
        assert_eq!((answer.counts(), answer.errors()), ([2, 0, 0, 1], vec![(1, code)]), "{row}");
        expected += 2;
    }
    // At the bounds of its age an event counts.
    let lines = ["2026-11-23T12:00:00Z", "2026-11-24T12:05:00Z"]
        .map(|at| format!(r#"{{"metric_name": "m", "timestamp": "{at}"}}"#));
    assert_eq!(world.lines(lines.join("\n")).counts(), [2, 0, 0, 0]);
    let read = world.call("GET", "/api/v1/metrics/m", &[], "");
    assert_eq!(read.json["count"], expected + 2, "{}", read.json);
}

#[test]
fn an_entry_an_item_stands_in_the_order_of_the_items() {
    let world = World::start();
    let template = world.call("PUT", "/api/v1/templates/seats", &[JSON], r#"{"create_customers": true}"#);
    assert_eq!(template.status, 201);
    let items = json!([
        {"metric_name": "capped", "value": 8, "id": "1"},
        {"metric_name": "seats", "customer_id": "new", "value": 1, "id": "1"},
        {"metric_name": "capped", "value": 3, "id": "2"},
        {"metric_name": "capped", "value": 8, "id": "1"},
        {"metric_name": "seats", "customer_id": "new", "value": 5, "id": "1"},
        {"metric_name": "absent"},
        {"metric_name": "capped", "value": -2, "id": "3"},
        {"metric_name": "capped", "value": 3, "id": "2"},
        {"metric_name": "capped", "value": 2},
        {"metric_name": "seats", "customer_id": "new", "value": 7},
    ]);
    let answer = world.events("?results=all", &[JSON], items.to_string());
    assert_eq!(answer.counts(), [5, 2, 2, 1], "{}", answer.json);
    let statuses = [
        "accepted",
        "accepted",
        "refused",
        "duplicate",
        "duplicate",
        "rejected",
        "accepted",
        "accepted",
        "refused",
        "accepted",
    ];
    let results: Vec<_> = statuses
        .iter()
        .enumerate()
        .map(|(index, status)| json!({"index": index, "status": status}))
        .collect();
    assert_eq!(answer.json["results"], json!(results));
    let over = "plan_limit_exceeded";
    assert_eq!(answer.errors(), [(2, over), (5, "metric_not_found"), (8, over)]);
    assert_eq!(world.value("capped"), 9, "a refusal is not remembered: behind the refund its repeat counts");
    let seats = world.call("GET", "/api/v1/metrics/seats?scope=customer&customer_id=new", &[], "");
    assert_eq!((seats.json["current_value"].as_f64(), &seats.json["count"]), (Some(8.0), &json!(2)));
    assert!(world.events("?results=errors", &[JSON], "[]").json.get("results").is_none());
    world.events("?results=some", &[JSON], "[]").refused(400, "invalid_option");
}

#[test]
fn of_an_atomic_batch_an_item_that_is_not_valid_rejects_all_and_a_refused_one_only_itself() {
    let world = World::start();
    for bad in
        ["x", r#"{"metric_name": "absent"}"#, r#"{"metric_name": "m", "timestamp": "2001-01-01T00:00:00Z"}"#]
    {
        let answer =
            world.events("?atomic=true", &[NDJSON], format!("{{\"metric_name\": \"m\"}}\n{bad}\n{bad}"));
        answer.refused(422, "batch_rejected");
        assert_eq!(answer.errors().iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
        assert!(answer.json.get("taken").is_none(), "{}", answer.json);
    }
    let answer = world.events("?atomic=true", &[JSON], r#"[{"metric_name": "m"}, {"metric_name": "m""#);
    answer.refused(400, "malformed_json");
    assert!(answer.json.get("taken").is_none(), "{}", answer.json);
    assert_eq!(world.settled("m"), 0, "nothing was recorded");
    let items = r#"[{"metric_name": "m"}, {"metric_name": "capped", "value": 11}, {"metric_name": "capped", "value": 10}]"#;
    let answer = world.events("?atomic=true", &[JSON], items);
    assert_eq!((answer.counts(), answer.errors()), ([2, 0, 1, 0], vec![(1, "plan_limit_exceeded")]));
    assert_eq!((world.value("m"), world.value("capped")), (1, 10));
}

#[test]
fn a_key_makes_a_batch_one_request_however_it_is_written() {
    let world = World::start();
    let key = "idempotency-key: \"k\"";
    let items = r#"[{"metric_name": "m", "value": 2}, {"metric_name": "m", "value": 2, "id": "a"}, {"metric_name": "no"}]"#;
    let first = world.events("", &[JSON, key], items);
    assert_eq!((first.counts(), first.errors()), ([2, 0, 0, 1], vec![(2, "metric_not_found")]));
    assert_eq!(world.events("", &[JSON, key], items).counts(), [0, 2, 0, 1]);
    let lines = "{\"value\": 2.0, \"metric_name\": \"m\"}\n{\"metric_name\": \"m\", \"value\": 2, \"id\": \"a\"}\n{\"metric_name\": \"no\"}";
    let again =
        world.events("?atomic=false", &[NDJSON, key, "content-encoding: gzip"], gzip(lines.as_bytes()));
    assert_eq!(again.counts(), [0, 2, 0, 1], "the same items");
    world.events("", &[JSON, key], items.replace("2}", "3}")).refused(422, "idempotency_key_reused");
    world
        .events("", &[JSON, key], r#"[{"metric_name": "m", "value": 2}]"#)
        .refused(422, "idempotency_key_reused");
    world
        .call("PUT", "/api/v1/metrics/m", &[JSON, key], r#"{"value": 2}"#)
        .refused(422, "idempotency_key_reused");
    world.events("", &[JSON, "idempotency-key: "], items).refused(400, "invalid_idempotency_key");
    // An id of its own counts also without the key, and the other items do not know each other.
    assert_eq!(world.events("", &[JSON], items).counts(), [1, 1, 0, 1]);
    assert_eq!(world.value("m"), 6);
}

#[test]
fn a_single_event_is_answered_as_an_update_is() {
    let world = World::start();
    let event = |more: &str| format!(r#"{{"specversion": "1.0", "type": "capped", "source": "/s", {more}}}"#);
    let one = |more: &str| world.events("", &[EVENT], event(more));
    assert_eq!(one(r#""id": "1", "data": {"value": "7.0"}"#).status, 204);
    let repeat = world.events("", &[EVENT, "content-encoding: gzip"], gzip(event(r#""id": "1""#).as_bytes()));
    assert_eq!((repeat.status, world.value("capped")), (204, 7), "a repeat");
    let refused = one(r#""id": "2", "data": {"value": 4}"#);
    refused.refused(429, "plan_limit_exceeded");
    let standing = ["current_value", "limit_value"].map(|name| refused.json[name].as_f64());
    assert_eq!((standing, refused.json.get("resets_at").is_some()), ([Some(7.0), Some(10.0)], true));
    assert!(refused.head.contains("ratelimit: \"capped\";r=3"), "{}", refused.head);
    for (more, status, code) in [
        (r#""id": "3", "subject": "nobody""#, 404, "customer_not_found"),
        (r#""id": """#, 400, "invalid_text"),
        (r#""id": "3", "data": {"value": 1e16}"#, 422, "amount_out_of_range"),
        (r#""id": "3", "time": "2001-01-01T00:00:00Z""#, 422, "timestamp_out_of_range"),
    ] {
        one(more).refused(status, code);
    }
    world.events("", &[EVENT], "").refused(400, "wrong_type");
    world
        .events("", &[EVENT], event(r#""id": "3""#).replace("capped", "absent"))
        .refused(404, "metric_not_found");
    let gzipped = gzip(event(r#""id": "3""#).as_bytes());
    let cut = &gzipped[..gzipped.len() - 1];
    world.events("", &[EVENT, "content-encoding: gzip"], cut).refused(400, "truncated_encoding");
    world.events("", &[EVENT], "x".repeat(65_537)).refused(413, "request_too_large");
    let load = [EVENT, "load-id: l", "load-chunk: 1"];
    world.events("", &load, event(r#""id": "3""#)).refused(400, "invalid_combination");

    let key = "idempotency-key: k";
    assert_eq!(world.events("", &[EVENT, key], event(r#""id": "4""#)).status, 204);
    assert_eq!(world.events("", &[EVENT, key], event(r#""id": "4""#)).status, 204);
    world.events("", &[EVENT, key], event(r#""id": "5""#)).refused(422, "idempotency_key_reused");
    assert_eq!(world.value("capped"), 8);

    let attributes = ["ce-specversion: 1.0", "ce-type: capped", "ce-source: /s", "ce-id: 6"];
    let binary = |more: &[&str], body: &str| world.events("", &[&attributes[..], more].concat(), body);
    assert_eq!(binary(&[JSON], r#"{"value": 2}"#).status, 204);
    assert_eq!(binary(&[], "").status, 204, "a repeat");
    binary(&["ce-id: 7"], "").refused(400, "repeated_field");
    binary(&[JSON], "{").refused(400, "malformed_json");
    binary(&["content-encoding: zstd"], "").refused(415, "unsupported_media_type");
    let others = [&attributes[..3], &["ce-id: 8"]].concat();
    world.events("", &others, "").refused(429, "plan_limit_exceeded");
    // What says that it is structured may have its attributes in headers, too.
    let twice = [&others[..], &[EVENT]].concat();
    assert_eq!(world.events("", &twice, event(r#""id": "9", "data": {"value": -10}"#)).status, 204);
    assert_eq!(world.value("capped"), 0);
}
