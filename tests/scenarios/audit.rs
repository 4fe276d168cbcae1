//! The audit log over HTTP: every change has one entry with who made it, across crashes, and each business reads its own.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::businesses::Admin;
use super::support::api::{Client, text};
use super::support::server::Launch;
use super::support::until;

pub const OWN: &str = "/api/v1/audit-logs";
const ALL: &str = "/admin/v1/audit-logs";

/// The entries of a page, newest first.
pub fn entries(body: &str) -> Vec<Value> {
    let page: Value = serde_json::from_str(body).expect("JSON");
    let entries = page["audit_logs"].as_array().expect("a list").clone();
    assert_eq!(page["count"].as_u64(), Some(entries.len() as u64));
    entries
}

/// Actor, action and subject of each entry, oldest first.
fn lines(body: &str) -> Vec<String> {
    let line = |entry: &Value| {
        ["actor", "actor_type", "action", "subject"]
            .map(|field| entry[field].as_str().expect("text"))
            .join(" ")
    };
    entries(body).iter().rev().map(line).collect()
}

/// The log of a client once it has so many entries.
pub fn log(client: &Client, wanted: usize) -> String {
    let read = || {
        let body = client.get(OWN).body();
        if entries(&body).len() == wanted { Ok(body) } else { Err(body) }
    };
    until(Duration::from_secs(10), read).unwrap_or_else(|body| panic!("{wanted} entries expected: {body}"))
}

/// Pages of `limit` entries, one behind the other.
pub fn paged(path: &str, limit: usize, get: impl Fn(&str) -> String) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let body = get(&format!("{path}limit={limit}{cursor}"));
        let page = entries(&body);
        assert!(page.len() <= limit);
        all.extend(page);
        match text(&body, "next_cursor") {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[test]
fn every_change_has_one_entry_and_each_business_reads_its_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let admin = Admin::start(&data_dir);
    let (own_id, own_key) = admin.business("own");
    let (foreign_id, foreign_key) = admin.business("foreign");
    let [own, foreign] = [&own_key, &foreign_key].map(|key| admin.client.with_key(key));
    let business = format!("/api/v1/businesses/{own_id}");
    let secret = "sk_live_canary_of_the_log";
    admin.call("PUT", &business, r#"{"email": "new@example.com"}"#).body();
    own.put("/api/v1/customers/alice", r#"{"name": "Alice"}"#).body();
    own.put("/api/v1/customers/alice", r#"{"description": "canary"}"#).body();
    own.put("/api/v1/customers/alice", r#"{"description": "canary"}"#).body();
    own.post("/api/v1/customers", r#"{"customer_id": "alice", "name": "A"}"#).refused(409, "customer_exists");
    own.post("/api/v1/metrics", r#"{"metric_name": "calls"}"#).body();
    own.post("/api/v1/metrics", r#"{"metric_name": "calls", "initial_value": 5}"#).body();
    own.post("/api/v1/metrics?scope=customer&customer_id=alice", r#"{"metric_name": "calls"}"#).body();
    own.put("/api/v1/metrics/calls", r#"{"value": 1}"#).body();
    own.call("PATCH", "/api/v1/metrics/calls", &[], r#"{"tags": {"canary": "canary"}}"#).body();
    own.delete("/api/v1/metrics/calls").body();
    let keys = format!("{business}/keys");
    let credentials = format!(r#"{{"secret_key": "{secret}", "webhook_secret": "whsec_canary"}}"#);
    let stripe = format!(r#"{{"key_type": "stripe", "key_name": "live", "credentials": {credentials}}}"#);
    own.post(&keys, &stripe).body();
    own.put(&format!("{business}/webhook"), r#"{"url": "https://example.com/canary"}"#).body();
    // The second says the same in another spelling.
    for targets in ["https://canary.example", "https://CANARY.example:443"] {
        let targets = format!(r#"{{"proxy_targets": ["{targets}"]}}"#);
        own.put(&format!("{business}/proxy_targets"), &targets).body();
    }
    own.delete(&format!("{keys}/stripe/live")).body();
    for template in
        [r#"{"create_customers": true}"#, r#"{"create_customers": true}"#, r#"{"tags": {"canary": "x"}}"#]
    {
        own.put("/api/v1/templates/seats", template).body();
    }
    for customer in ["alice", "alice"] {
        own.put(&format!("/api/v1/metrics/seats?scope=customer&customer_id={customer}"), r#"{"value": 1}"#)
            .body();
    }
    own.delete("/api/v1/templates/seats").body();
    let of_customer = format!("{business}/customers/alice/keys");
    own.post(&of_customer, r#"{"key_type": "customer_api", "key_name": "c"}"#).body();
    own.delete(&format!("{of_customer}/c")).body();
    own.delete("/api/v1/customers/alice").body();
    let expected = [
        format!("admin admin business.create {own_id}"),
        "admin admin key.create business/main".to_owned(),
        format!("admin admin business.change {own_id}"),
        "key:main business customer.create alice".to_owned(),
        "key:main business customer.change alice".to_owned(),
        "key:main business series.create calls".to_owned(),
        "key:main business series.create alice/calls".to_owned(),
        "key:main business series.change calls".to_owned(),
        "key:main business series.delete calls".to_owned(),
        "key:main business key.create stripe/live".to_owned(),
        "key:main business webhook.rotate webhook".to_owned(),
        "key:main business proxy_targets.change proxy_targets".to_owned(),
        "key:main business key.delete stripe/live".to_owned(),
        "key:main business template.create seats".to_owned(),
        "key:main business template.change seats".to_owned(),
        "key:main business template.apply alice/seats".to_owned(),
        "key:main business template.delete seats".to_owned(),
        "key:main business key.create customer_api/alice/c".to_owned(),
        "key:main business key.delete customer_api/alice/c".to_owned(),
        "key:main business customer.delete alice".to_owned(),
    ];
    let body = log(&own, expected.len());
    assert_eq!(lines(&body), expected);
    let newest = &entries(&body)[0];
    assert!(newest["request_id"].as_str().is_some_and(|id| id.starts_with("req_")), "{newest}");
    assert!(newest["at"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{newest}");
    assert!(!body.contains("canary"), "a value shows: {body}");
    assert!(!log(&foreign, 2).contains(&own_id), "another business shows");

    // The same page by page, and for the admin by business and for all.
    assert_eq!(paged(&format!("{OWN}?"), 2, |path| own.get(path).body()), entries(&body));
    let of_all = paged(&format!("{ALL}?"), 3, |path| admin.call("GET", path, "").body());
    // Own, foreign, and what the start made for the demo.
    assert_eq!(of_all.len(), expected.len() + 2 + 1);
    let demo = &of_all.last().expect("not empty");
    assert_eq!((demo["actor"].as_str(), demo["request_id"].as_str()), (Some("server"), None), "{demo}");
    let of_one = |id: &str| admin.call("GET", &format!("{ALL}?business_id={id}"), "").body();
    assert_eq!(entries(&of_one(&own_id)), entries(&body));
    assert_eq!(lines(&of_one(&foreign_id)).len(), 2);
    assert_eq!(lines(&of_one("biz_absent")), [""; 0]);
    own.get(&format!("{OWN}?business_id={foreign_id}")).refused(400, "unknown_parameter");
    own.get(&format!("{OWN}?cursor=1")).refused(400, "invalid_cursor");
    admin.call("GET", &format!("{ALL}?business_id=%00"), "").refused(400, "invalid_id");
    own.get(ALL).refused(401, "unauthorized");

    // A business that is gone has left its log.
    admin.call("DELETE", &business, "").body();
    let deleted = || match lines(&of_one(&own_id)).last().is_some_and(|line| line.contains("business.delete"))
    {
        true => Ok(()),
        false => Err(of_one(&own_id)),
    };
    until(Duration::from_secs(10), deleted).expect("the deletion is in the log");
}

#[test]
fn an_entry_that_was_journaled_is_there_once_after_crashes_and_restarts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let launch = Launch::dev(&data_dir).workers(1);
    let mut expected = vec!["server server server.start 3 definitions".to_owned()];
    for round in 0..3 {
        let server = launch.start();
        let client = Client::new(&server.base());
        for name in ["a", "b"] {
            let body = format!(r#"{{"metric_name": "{name}_{round}"}}"#);
            client.post("/api/v1/metrics", &body).body();
            expected.push(format!("key:dev business series.create {name}_{round}"));
        }
        // At once: the store has not heard of it yet. Then a stop, behind which the snapshot has what the store lacks.
        match round {
            1 => drop(server.stop()),
            _ => server.kill(),
        }
    }
    let forgetful =
        r#"{"metric_name": "f", "metadata": {"integrations": {"supabase": {"restore_on_startup": false}}}}"#;
    let server = launch.start();
    assert_eq!(lines(&log(&Client::new(&server.base()), expected.len())), expected);
    Client::new(&server.base()).post("/api/v1/metrics", forgetful).body();
    server.stop();
    let server = launch.start();
    expected.extend(
        ["key:dev business series.create f", "server server server.start 1 definition"].map(str::to_owned),
    );
    assert_eq!(lines(&log(&Client::new(&server.base()), expected.len())), expected);
}

#[test]
fn without_the_database_the_log_is_unavailable_and_changes_go_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let server = Launch::dev(&data_dir).workers(1).start();
    let client = Client::new(&server.base());
    fs::remove_file(data_dir.join("history.db")).expect("the database is there");
    client.get(OWN).refused(503, "database_unavailable");
    client.post("/api/v1/metrics", r#"{"metric_name": "calls"}"#).body();
}
