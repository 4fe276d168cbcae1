//! Templates over the real binary: a series at its first event, races for it, kills, a new machine, `--series-max`.

use std::sync::Barrier;
use std::time::Duration;

use dataflows::types::Amount;
use serde_json::Value;
use tracktags::http::routes::{Endpoint, ROUTES};

use super::openapi;
use super::support::api::{Client, Outcome, amount, count, flag, text};
use super::support::history::{self, Place};
use super::support::postgres::Cluster;
use super::support::server::{Launch, Server};
use super::support::until;

const CALLS: &str = "/api/v1/templates/calls";
/// As deep as it goes: what a series has that was made of it can only come from it.
const BODY: &str = r#"{"metric_type": "reset", "flush_interval": "1m", "reset_interval": "1d", "initial_value": 2,
    "limit_value": 10, "breach_action": "deny", "tags": {"team": "a"}, "create_customers": true,
    "metadata": {"integrations": {"postgres": {"batch_interval": "1s"}}, "custom": {"odd": 1.50}}}"#;

fn start(folder: &tempfile::TempDir) -> Server {
    Launch::dev(folder.path().join("data")).workers(2).start()
}

fn series(metric: &str, customer: &str) -> String {
    format!("/api/v1/metrics/{metric}?scope=customer&customer_id={customer}")
}

fn update(client: &Client, metric: &str, customer: &str, value: i64) -> Outcome {
    client.put(&series(metric, customer), &format!(r#"{{"value": {value}}}"#))
}

fn json(outcome: Outcome) -> Value {
    serde_json::from_str(&outcome.body()).expect("JSON")
}

fn value(client: &Client, metric: &str, customer: &str) -> Option<Amount> {
    amount(&client.get(&series(metric, customer)).body(), "current_value")
}

fn units(units: i64) -> Option<Amount> {
    Some(Amount::from_units(units))
}

/// The answer is as the document says.
fn described(endpoint: Endpoint, outcome: Outcome) -> Outcome {
    let route = ROUTES.iter().find(|route| route.endpoint == endpoint).expect("every endpoint has a route");
    openapi::describes(route, &outcome);
    outcome
}

fn check(client: &Client, body: &str) -> Outcome {
    described(Endpoint::Check, client.post("/api/v1/check", body))
}

#[test]
fn a_first_event_makes_its_customers_series_and_nothing_else_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&folder);
    let own = Client::new(&server.base());
    update(&own, "calls", "cust_123", 1).refused(404, "metric_not_found");
    own.get(CALLS).refused(404, "template_not_found");
    let put = json(described(Endpoint::TemplatePut, own.put(CALLS, BODY)));
    assert_eq!((&put["status"], &put["create_customers"]), (&"created".into(), &true.into()), "{put}");
    let read = json(described(Endpoint::TemplateRead, own.get(CALLS)));
    assert_eq!((&read["tags"]["team"], &read["reset_interval"]), (&"a".into(), &"1d".into()), "{read}");

    // Nothing is made by asking.
    let asked = json(check(&own, r#"{"metric_name": "calls", "customer_id": "new", "value": 8}"#));
    assert_eq!((&asked["allowed"], &asked["limit_source"]), (&true.into(), &"series".into()), "{asked}");
    assert_eq!(
        (asked["current_value"].as_f64(), asked["remaining"].as_f64()),
        (Some(2.0), Some(8.0)),
        "{asked}"
    );
    assert!(asked["resets_at"].is_string(), "{asked}");
    let asked = json(check(&own, r#"{"metric_name": "calls", "customer_id": "new", "value": 9}"#));
    assert_eq!(asked["allowed"], false, "{asked}");
    let many = r#"[{"metric_name": "calls", "customer_id": "new"}, {"metric_name": "calls"}]"#;
    let many = json(check(&own, many));
    assert_eq!((&many[0]["allowed"], &many[1]["code"]), (&true.into(), &"metric_not_found".into()), "{many}");
    own.get(&series("calls", "new")).refused(404, "customer_not_found");
    own.put("/api/v1/metrics/calls", r#"{"value": 1}"#).refused(404, "metric_not_found");
    assert_eq!(count(&own.get("/api/v1/metrics").body(), "count"), Some(0));

    // The first event makes series and customer; the series is the template's.
    let body = described(Endpoint::MetricUpdate, update(&own, "calls", "new", 5)).body();
    assert_eq!((amount(&body, "current_value"), flag(&body, "limit_breached")), (units(7), false), "{body}");
    let customer = own.get("/api/v1/customers/new").body();
    assert_eq!(text(&customer, "customer_name").as_deref(), Some("new"), "{customer}");
    update(&own, "calls", "cust_123", 9).body();
    let same = json(own.post(
        "/api/v1/metrics?scope=customer&customer_id=new",
        &BODY.replacen('{', r#"{"metric_name": "calls", "#, 1).replace(r#" "create_customers": true,"#, ""),
    ));
    assert_eq!((&same["status"], &same["differs"]), (&"exists".into(), &Value::Array(Vec::new())), "{same}");
    assert_eq!(same["metadata"]["custom"].to_string(), r#"{"odd":1.5}"#, "{same}");
    assert_eq!((value(&own, "calls", "new"), value(&own, "calls", "cust_123")), (units(7), units(11)));
    let asked = json(check(&own, r#"{"metric_name": "calls", "customer_id": "cust_123"}"#));
    assert_eq!(asked["allowed"], false, "the series decides once it is there: {asked}");

    // Another template changes nothing about them, and is what new ones are made of.
    let put = json(described(
        Endpoint::TemplatePut,
        own.put(CALLS, r#"{"operation": "COUNT", "metric_name": "calls"}"#),
    ));
    assert_eq!((&put["status"], &put["create_customers"]), (&"updated".into(), &false.into()), "{put}");
    assert_eq!(put["created_at"], read["created_at"], "{put}");
    update(&own, "calls", "newer", 1).refused(404, "customer_not_found");
    own.put("/api/v1/customers/newer", r#"{"name": "N"}"#).body();
    assert_eq!(amount(&update(&own, "calls", "newer", 9).body(), "current_value"), units(1));
    assert_eq!(amount(&update(&own, "calls", "new", 1).body(), "current_value"), units(8));
    described(Endpoint::TemplateDelete, own.delete(CALLS)).body();
    own.delete(CALLS).refused(404, "template_not_found");
    assert_eq!(amount(&update(&own, "calls", "newer", 9).body(), "current_value"), units(2));
    own.delete(&series("calls", "newer")).body();
    update(&own, "calls", "newer", 1).refused(404, "metric_not_found");
    own.put(CALLS, r#"{"metric_name": "other"}"#).refused(400, "invalid_combination");
    let large = format!(r#"{{"metadata": {{"custom": {{"a": "{}"}}}}}}"#, "a".repeat(1_100));
    own.put(CALLS, &large).refused(422, "template_too_large");
    own.put(CALLS, r#"{"webhook_url": "https://example.com/"}"#).refused(422, "webhook_secret_missing");
}

#[test]
fn a_customer_key_asks_about_its_own_customer_and_makes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&folder);
    let own = Client::new(&server.base());
    own.put(CALLS, r#"{"create_customers": true, "limit_value": 1, "breach_action": "deny"}"#).body();
    let keys = "/api/v1/businesses/biz_demo/customers/cust_123/keys";
    let key = own.post(keys, r#"{"key_type": "customer_api", "key_name": "k"}"#).body();
    let customer = own.with_key(&text(&key, "api_key").expect("shown once"));
    assert_eq!(json(check(&customer, r#"{"metric_name": "calls"}"#))["allowed"], true);
    customer
        .post("/api/v1/check", r#"{"metric_name": "calls", "customer_id": "new"}"#)
        .refused(404, "customer_not_found");
    update(&customer, "calls", "cust_123", 1).refused(403, "customer_key");
    update(&customer, "calls", "new", 1).refused(403, "customer_key");
    customer.put(CALLS, "{}").refused(403, "customer_key");
    // The proxy asks as check does. Private addresses are not allowed here: it gets as far as the guard.
    let call = r#"{"metric_name": "calls", "target_url": "http://127.0.0.1/"}"#;
    customer.post("/api/v1/proxy", call).refused(403, "target_not_allowed");
    let absent = call.replace("calls", "absent");
    customer.post("/api/v1/proxy", &absent).refused(404, "metric_not_found");
    assert_eq!(count(&own.get("/api/v1/metrics").body(), "count"), Some(0));
    update(&own, "calls", "cust_123", 1).body();
    assert_eq!(json(check(&customer, r#"{"metric_name": "calls"}"#))["allowed"], false);
    customer.post("/api/v1/proxy", call).refused(429, "plan_limit_exceeded");
}

/// Clients that send their first update for the same series at the same moment.
fn race(server: &Server, metric: &str, customer: &str, clients: usize) {
    let (barrier, base) = (Barrier::new(clients), server.base());
    std::thread::scope(|scope| {
        let racers: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let client = Client::new(&base);
                    barrier.wait();
                    update(&client, metric, customer, 1).body();
                })
            })
            .collect();
        racers.into_iter().for_each(|racer| racer.join().expect("every update is taken"));
    });
}

fn numbers(place: Place<'_>, wanted: usize) -> Vec<String> {
    let all = || match history::numbers(place) {
        Ok(found) if found.len() == wanted => Ok(found),
        other => Err(other),
    };
    until(Duration::from_secs(20), all).expect("the store has all series")
}

#[test]
fn sixteen_who_make_the_same_series_at_once_make_one_and_it_survives_kill_and_stop() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = start(&folder);
    let own = Client::new(&server.base());
    own.put(CALLS, r#"{"create_customers": true}"#).body();
    own.put("/api/v1/templates/seats", r#"{"create_customers": true, "operation": "MAX"}"#).body();
    let customers: Vec<String> = (0..8).map(|number| format!("racer_{number}")).collect();
    for customer in &customers {
        race(&server, "calls", customer, 16);
        update(&own, "seats", customer, 3).body();
    }
    let before = numbers(Place::Embedded(&data_dir), 16);
    // Acknowledged and not in the store: the journal has it.
    update(&own, "calls", "last", 4).body();
    server.kill();
    let expect = |server: &Server, calls: i64| {
        let own = Client::new(&server.base());
        for customer in &customers {
            assert_eq!(value(&own, "calls", customer), units(calls), "{customer}");
            assert_eq!(value(&own, "seats", customer), units(3), "{customer}");
        }
        assert_eq!(value(&own, "calls", "last"), units(4));
        let found = numbers(Place::Embedded(&data_dir), 17);
        assert_eq!(found[..16], before, "the same numbers");
        own
    };
    let server = start(&folder);
    let own = expect(&server, 16);
    for customer in &customers {
        update(&own, "calls", customer, 1).body();
    }
    // Now from a snapshot; and the templates are there to make more.
    server.stop();
    let server = start(&folder);
    let own = expect(&server, 17);
    assert_eq!(amount(&update(&own, "seats", "another", 2).body(), "current_value"), units(2));
}

#[test]
fn a_new_machine_has_templates_and_what_they_made() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let machine = |number: usize| {
        let launch = Launch::dev(folder.path().join(format!("machine-{number}"))).workers(2);
        launch.with(&["--database-url", &cluster.url(), "--take-over"]).start()
    };
    let server = machine(0);
    let own = Client::new(&server.base());
    own.put(CALLS, BODY).body();
    for customer in ["a", "b", "c"] {
        update(&own, "calls", customer, 3).body();
    }
    let template = own.get(CALLS).body();
    let before = numbers(Place::Postgres(&cluster), 3);
    let written = || {
        let rows = history::read(Place::Postgres(&cluster))?;
        if rows.len() == 3 { Ok(()) } else { Err(format!("{rows:?}")) }
    };
    until(Duration::from_secs(20), written).expect("the values are in the store");
    server.kill();
    let server = machine(1);
    let own = Client::new(&server.base());
    assert_eq!(own.get(CALLS).body(), template);
    assert_eq!(value(&own, "calls", "b"), units(5));
    assert_eq!(amount(&update(&own, "calls", "d", 1).body(), "current_value"), units(3));
    let after = numbers(Place::Postgres(&cluster), 4);
    assert_eq!(after[..3], before, "the same numbers, and a greater one for the new series");
}

#[test]
fn beyond_series_max_new_series_are_refused_and_the_service_says_that_room_is_short() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::dev(folder.path().join("data")).workers(2).with(&["--series-max", "5"]);
    let server = launch.start();
    let own = Client::new(&server.base());
    own.put(CALLS, r#"{"create_customers": true}"#).body();
    let short = |own: &Client| {
        let telemetry = own.get("/metrics").body();
        let line = telemetry.lines().find(|line| line.starts_with("tracktags_businesses_short_of_series "));
        line.and_then(|line| line.rsplit(' ').next().map(str::to_owned)).expect("shown")
    };
    for number in 0..3 {
        update(&own, "calls", &format!("c{number}"), 1).body();
    }
    assert_eq!(short(&own), "0");
    assert!(!server.errors().contains("series_max"), "{}", server.errors());
    update(&own, "calls", "c3", 1).body();
    assert_eq!(short(&own), "1");
    let said = || if server.errors().contains("series_max=5") { Ok(()) } else { Err(server.errors()) };
    until(Duration::from_secs(5), said).expect("the log says so");
    own.post("/api/v1/metrics", r#"{"metric_name": "own"}"#).body();
    let refused = described(Endpoint::MetricUpdate, update(&own, "calls", "c5", 1));
    refused.refused(422, "series_limit_exceeded");
    own.get("/api/v1/customers/c5").refused(404, "customer_not_found");
    own.post("/api/v1/metrics", r#"{"metric_name": "more"}"#).refused(422, "series_limit_exceeded");
    own.post("/api/v1/metrics", r#"{"metric_name": "own"}"#).body();
    for number in 0..4 {
        update(&own, "calls", &format!("c{number}"), 1).body();
    }
    assert_eq!(server.errors().matches("series_max=5").count(), 1, "once: {}", server.errors());
    // A lower limit takes nothing away; what goes makes room.
    server.stop();
    let server = Launch::dev(folder.path().join("data")).with(&["--series-max", "4"]).start();
    let own = Client::new(&server.base());
    assert_eq!((short(&own).as_str(), count(&own.get("/api/v1/metrics").body(), "count")), ("1", Some(5)));
    own.delete("/api/v1/metrics/own").body();
    update(&own, "calls", "c5", 1).refused(422, "series_limit_exceeded");
    own.delete(&series("calls", "c0")).body();
    update(&own, "calls", "c5", 1).body();
}
