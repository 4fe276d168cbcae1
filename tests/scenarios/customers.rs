//! Customers over HTTP: what they are, what goes with them, and that crashes and restarts change nothing about it.

use std::time::Duration;

use super::support::api::{Client, Outcome, amount, count, text};
use super::support::history;
use super::support::server::Launch;
use super::support::until;

const CUSTOMERS: &str = "/api/v1/customers";
const ALICE: &str = "/api/v1/customers/alice";
const USAGE: &str = "/api/v1/metrics/calls?scope=customer&customer_id=alice";
const NEW_SERIES: &str =
    r#"{"metric_name": "calls", "metadata": {"integrations": {"supabase": {"batch_interval": "1s"}}}}"#;

fn metrics_of_alice(client: &Client) -> Outcome {
    client.post("/api/v1/metrics?scope=customer&customer_id=alice", NEW_SERIES)
}

#[test]
fn a_customer_is_defined_changed_and_deleted_with_its_series() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = Launch::dev(&data_dir).workers(2).start();
    let client = Client::new(&server.base());

    client.get(ALICE).refused(404, "customer_not_found");
    metrics_of_alice(&client).refused(404, "customer_not_found");
    client.post(CUSTOMERS, r#"{"customer_id": "alice"}"#).refused(400, "missing_field");
    client.post(CUSTOMERS, r#"{"customer_id": "a/b", "name": "A"}"#).refused(400, "invalid_id");
    let with_plan = r#"{"customer_id": "alice", "name": "A", "plan_id": "pln_1"}"#;
    client.post(CUSTOMERS, with_plan).refused(404, "plan_not_found");
    client.get(ALICE).refused(404, "customer_not_found");

    let alice = r#"{"customer_id": "alice", "name": "Alice \u00e9", "plan_id": "", "email": "a@example.com",
        "subscription_ends_at": "2030-01-01T01:00:00+01:00"}"#;
    let body = client.post(CUSTOMERS, alice).body();
    assert_eq!(text(&body, "status").as_deref(), Some("created"));
    client.post(CUSTOMERS, alice).refused(409, "customer_exists");
    metrics_of_alice(&client).body();
    client.put(USAGE, r#"{"value": 2.5}"#).body();

    let body = client.put(ALICE, r#"{"description": "first", "email": null}"#).body();
    assert_eq!(text(&body, "status").as_deref(), Some("updated"));
    client.put(ALICE, r#"{"customer_id": "bob"}"#).refused(400, "invalid_combination");
    client.put("/api/v1/customers/bob", "{}").refused(400, "missing_field");
    for neighbour in ["alic", "alice2"] {
        let scope = format!("scope=customer&customer_id={neighbour}");
        client.put(&format!("{CUSTOMERS}/{neighbour}"), r#"{"name": "N"}"#).body();
        client.post(&format!("/api/v1/metrics?{scope}"), NEW_SERIES).body();
    }

    // A crash, and a start with another number of workers.
    server.kill();
    let server = Launch::dev(&data_dir).workers(1).start();
    let client = Client::new(&server.base());
    let body = client.get(ALICE).body();
    let said =
        ["customer_name", "email", "description", "subscription_ends_at"].map(|field| text(&body, field));
    let wanted = [Some("Alice é"), None, Some("first"), Some("2030-01-01T00:00:00Z")];
    assert_eq!(said.each_ref().map(Option::as_deref), wanted, "{body}");
    assert_eq!(amount(&client.get(USAGE).body(), "current_value"), "2.5".parse().ok());
    let described = |data_dir: &std::path::Path| history::customer(data_dir, "alice");
    let row = until(Duration::from_secs(10), || described(&data_dir)?.ok_or("no row".to_owned()));
    assert_eq!(row.expect("the customer is in the store"), ("Alice é".to_owned(), Some("first".to_owned())));

    let body = client.delete(ALICE).body();
    assert_eq!(text(&body, "status").as_deref(), Some("deleted"));
    for outcome in [client.get(ALICE), client.delete(ALICE), client.get(USAGE), metrics_of_alice(&client)] {
        outcome.refused(404, "customer_not_found");
    }
    let left = client.get("/api/v1/metrics?scope=customer").body();
    assert_eq!(count(&left, "count"), Some(2), "{left}");
    // Somebody of the same id is somebody else.
    client.put(ALICE, r#"{"name": "Another"}"#).body();
    client.get(USAGE).refused(404, "metric_not_found");
    metrics_of_alice(&client).body();
    assert_eq!(amount(&client.get(USAGE).body(), "current_value"), "0".parse().ok());
    client.delete(ALICE).body();

    // The stop leaves a snapshot, and the next start reads what is gone from it.
    server.stop();
    let server = Launch::dev(&data_dir).workers(3).start();
    Client::new(&server.base()).get(USAGE).refused(404, "customer_not_found");
    assert_eq!(history::customer(&data_dir, "alice"), Ok(None));
}

#[test]
fn customers_are_listed_by_id_page_by_page() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Launch::dev(folder.path().join("data")).workers(1).start();
    let client = Client::new(&server.base());
    for id in ["c", "a", "b-2", "b", "cust:9"] {
        client.post(CUSTOMERS, &format!(r#"{{"customer_id": "{id}", "customer_name": "{id}"}}"#)).body();
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let body = client.get(&format!("{CUSTOMERS}?limit=2{cursor}")).body();
        let page: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let ids = page["customers"].as_array().expect("a list").iter();
        seen.extend(ids.map(|customer| customer["customer_id"].as_str().expect("an id").to_owned()));
        assert!(count(&body, "count").is_some_and(|count| count <= 2));
        match text(&body, "next_cursor") {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    // The sixth is the demo's own.
    assert_eq!(seen, ["a", "b", "b-2", "c", "cust:9", "cust_123"]);
}

#[test]
fn a_customer_that_is_deleted_while_series_are_made_leaves_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Launch::dev(folder.path().join("data")).workers(2).start();
    let client = Client::new(&server.base());
    for round in 0..20 {
        client.put(ALICE, r#"{"name": "Alice"}"#).body();
        std::thread::scope(|scope| {
            for maker in 0..4 {
                let client = client.clone();
                scope.spawn(move || {
                    let series = format!(r#"{{"metric_name": "m_{round}_{maker}"}}"#);
                    match client.post("/api/v1/metrics?scope=customer&customer_id=alice", &series) {
                        Outcome::Durable(_) => {}
                        Outcome::Rejected(status, body) => assert_eq!(status, 404, "{body}"),
                        Outcome::Unknown(why) => panic!("{why}"),
                    }
                });
            }
            client.delete(ALICE).body();
        });
        // Whoever came too late found no customer: a series of nobody would show here.
        let page = client.get("/api/v1/metrics?scope=customer&limit=1000").body();
        assert_eq!(count(&page, "count"), Some(0), "{page}");
    }
}
