//! Keys over HTTP: what they open, for how long, and that they are kept nowhere.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::support::api::{Client, count, text};
use super::support::server::{Launch, Server};
use super::support::{KEY, is_kept, until};

const KEYS: &str = "/api/v1/businesses/biz_demo/keys";
const SECOND: &str = "/api/v1/businesses/biz_demo/keys/business/second";
const CUSTOMER_KEYS: &str = "/api/v1/businesses/biz_demo/customers/cust_123/keys";
const METRICS: &str = "/api/v1/metrics";
const CALLS: &str = "/api/v1/metrics/calls?scope=customer&customer_id=cust_123";

fn start(data_dir: &Path) -> (Server, Client) {
    let server = Launch::dev(data_dir).workers(1).start();
    let client = Client::new(&server.base());
    (server, client)
}

fn asked(key_type: &str, key_name: &str, more: &str) -> String {
    format!(r#"{{"key_type": "{key_type}", "key_name": "{key_name}"{more}}}"#)
}

/// The key in an answer.
fn made(body: &str) -> String {
    text(body, "api_key").expect("a new key is shown")
}

fn in_seconds(seconds: u64) -> String {
    let at = SystemTime::now() + Duration::from_secs(seconds);
    let since = at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let at = jiff::Timestamp::from_second(since.as_secs() as i64).expect("in range");
    format!(r#", "expires_at": "{at}""#)
}

#[test]
fn a_key_is_rotated_and_works_no_more_once_deleted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let (server, client) = start(&data_dir);
    let body = client.post(KEYS, &asked("business", "second", "")).body();
    let second = client.with_key(&made(&body));
    client.post(KEYS, &asked("business", "second", "")).refused(409, "key_exists");
    client.post(KEYS, &asked("business", "third", "")).refused(409, "key_limit_reached");
    assert_eq!(text(&client.get(SECOND).body(), "last_used_at"), None);
    second.get(METRICS).body();
    assert!(text(&client.get(SECOND).body(), "last_used_at").is_some());

    // A crash changes nothing about it, and the key itself is nowhere.
    server.kill();
    assert!(is_kept(&data_dir, KEY.as_bytes()), "the search finds the demo's key in its file");
    assert!(!is_kept(&data_dir, made(&body).as_bytes()));
    let said = server.output() + &server.errors();
    assert!(!said.contains(&made(&body)));
    let (server, client) = start(&data_dir);
    let second = client.with_key(&made(&body));
    let listed = second.get(KEYS).body();
    assert_eq!(count(&listed, "count"), Some(2), "{listed}");
    assert!(!listed.contains(&made(&body)));

    // It may delete itself, and is gone for good.
    second.delete(SECOND).body();
    second.get(METRICS).refused(401, "unauthorized");
    client.delete(SECOND).refused(404, "key_not_found");
    client.post(KEYS, &asked("business", "third", "")).body();
    server.kill();
    let (_server, client) = start(&data_dir);
    client.with_key(&made(&body)).get(METRICS).refused(401, "unauthorized");
    assert_eq!(count(&client.get(KEYS).body(), "count"), Some(2));
}

#[test]
fn a_stop_keeps_when_a_key_was_last_used() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let (server, client) = start(&data_dir);
    let second = made(&client.post(KEYS, &asked("business", "second", "")).body());
    client.with_key(&second).get(METRICS).body();
    let used_at = text(&client.get(SECOND).body(), "last_used_at");
    assert!(used_at.is_some());
    server.stop();
    let (_server, client) = start(&data_dir);
    assert_eq!(text(&client.get(SECOND).body(), "last_used_at"), used_at);
}

#[test]
fn no_key_makes_one_that_may_do_more_or_lives_longer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_server, client) = start(&folder.path().join("data"));
    client.post(KEYS, &asked("customer_api", "s", "")).refused(400, "invalid_option");
    client.post(KEYS, &asked("business", "s", r#", "scopes": ["all"]"#)).refused(400, "invalid_option");
    client.post(KEYS, &asked("business", "s", r#", "scopes": []"#)).refused(400, "invalid_option");
    client.post(KEYS, &asked("business", "s", &in_seconds(0))).refused(422, "expired");

    let soon = in_seconds(3);
    let more = format!(r#", "scopes": ["manage", "read"]{soon}"#);
    let short = client.with_key(&made(&client.post(KEYS, &asked("business", "short", &more)).body()));
    short.get(METRICS).body();
    short.post(METRICS, r#"{"metric_name": "calls"}"#).body();
    short.put("/api/v1/metrics/calls", r#"{"value": 1}"#).refused(403, "insufficient_scope");
    let of_customer = |more: &str| short.post(CUSTOMER_KEYS, &asked("customer_api", "c", more));
    of_customer(&soon).refused(403, "insufficient_scope");
    of_customer(r#", "scopes": ["read"]"#).refused(403, "later_expiry");
    of_customer(r#", "scopes": ["manage"]"#).refused(422, "customer_key");
    of_customer(&format!(r#", "scopes": ["read"]{soon}"#)).body();

    let expired = until(Duration::from_secs(10), || match short.get(METRICS) {
        super::support::api::Outcome::Rejected(401, _) => Ok(()),
        other => Err(other),
    });
    expired.expect("the key expires");
    let reader = asked("business", "reader", r#", "scopes": ["read"]"#);
    let reader = client.with_key(&made(&client.post(KEYS, &reader).body()));
    assert_eq!(count(&reader.get(KEYS).body(), "count"), Some(2));
    reader.delete(&SECOND.replace("second", "dev")).refused(403, "insufficient_scope");
    // Itself it may end, whatever else it may do.
    reader.delete(&SECOND.replace("second", "reader")).body();
    reader.get(KEYS).refused(401, "unauthorized");
    // An expired one is not in the way.
    assert_eq!(count(&client.get(KEYS).body(), "count"), Some(1));
    client.post(KEYS, &asked("business", "short", "")).body();
}

#[test]
fn a_customer_key_sees_its_customer_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let (server, client) = start(&data_dir);
    let definition = r#"{"metric_name": "calls"}"#;
    client.post(&format!("{METRICS}?scope=customer&customer_id=cust_123"), definition).body();
    client.put("/api/v1/customers/other", r#"{"name": "Other"}"#).body();
    client.post(&format!("{METRICS}?scope=customer&customer_id=other"), definition).body();
    let nobody = "/api/v1/businesses/biz_demo/customers/nobody/keys";
    client.post(nobody, &asked("customer_api", "c", "")).refused(404, "customer_not_found");
    let key = made(&client.post(CUSTOMER_KEYS, &asked("customer_api", "c", "")).body());
    assert!(key.starts_with("tk_cust_"), "{key}");

    let own = client.with_key(&key);
    own.get(CALLS).body();
    own.get(&CALLS.replace("cust_123", "other")).refused(404, "customer_not_found");
    own.get("/api/v1/metrics/calls").refused(403, "customer_key");
    own.put(CALLS, r#"{"value": 1}"#).refused(403, "customer_key");
    for path in [KEYS, CUSTOMER_KEYS, "/api/v1/customers"] {
        own.get(path).refused(403, "customer_key");
    }
    assert_eq!(count(&own.get(METRICS).body(), "count"), Some(1));

    server.kill();
    let (_server, client) = start(&data_dir);
    let own = client.with_key(&key);
    own.get(CALLS).body();
    assert_eq!(count(&client.get(CUSTOMER_KEYS).body(), "count"), Some(1));
    client.delete("/api/v1/customers/cust_123").body();
    own.get(CALLS).refused(401, "unauthorized");
    client.get(CUSTOMER_KEYS).refused(404, "customer_not_found");
}

#[test]
fn the_admin_key_opens_every_business_and_others_only_their_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let (_server, client) = start(&data_dir);
    let admin_key = fs::read_to_string(data_dir.join("admin-key")).expect("the admin key is kept");
    let as_admin =
        |path: &str, key: &str| client.with_key("none").call("GET", path, &[("x-admin-key", key)], "");
    let listed = as_admin(KEYS, admin_key.trim()).body();
    assert_eq!(count(&listed, "count"), Some(1));
    as_admin(KEYS, "tk_admin_wrong").refused(401, "unauthorized");
    as_admin(METRICS, admin_key.trim()).refused(401, "unauthorized");
    let elsewhere = KEYS.replace("biz_demo", "biz_other");
    as_admin(&elsewhere, admin_key.trim()).refused(404, "business_not_found");
    client.get(&elsewhere).refused(404, "business_not_found");
    client.with_key("none").get(KEYS).refused(401, "unauthorized");
}
