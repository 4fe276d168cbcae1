//! Tenants over HTTP: the admin makes and ends them, and none sees another.

use std::fs;
use std::path::Path;

use super::support::SECRET_KEY;
use super::support::api::{Client, Outcome, amount, count, text};
use super::support::history;
use super::support::server::{Launch, Server};

const BUSINESSES: &str = "/api/v1/businesses";
const CALLS: &str = "/api/v1/metrics/calls";

/// A server, and the admin as a client without a key of a business.
pub struct Admin {
    server: Server,
    /// With the demo's key.
    pub client: Client,
    key: String,
}

impl Admin {
    /// Starts a server.
    pub fn start(data_dir: &Path) -> Admin {
        let launch = Launch::dev(data_dir)
            .workers(2)
            .environment("TRACKTAGS_SECRET_KEY", SECRET_KEY)
            .environment("TRACKTAGS_PROXY_ALLOW", "127.0.0.0/8");
        let server = launch.start();
        let client = Client::new(&server.base());
        let key = fs::read_to_string(data_dir.join("admin-key")).expect("the admin key is kept");
        Admin { server, client, key: key.trim().to_owned() }
    }

    /// Where it listens.
    pub fn base(&self) -> String {
        self.server.base()
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// SIGTERM, and the end of it.
    pub fn stop(self) {
        self.server.stop();
    }

    /// One request with the admin key alone.
    pub fn call(&self, method: &str, path: &str, body: &str) -> Outcome {
        self.client.with_key("none").call(method, path, &[("x-admin-key", &self.key)], body)
    }

    /// A new business: its id and one of its keys.
    pub fn business(&self, name: &str) -> (String, String) {
        let body = format!(r#"{{"business_name": "{name}", "email": "{name}@example.com"}}"#);
        let body = self.call("POST", BUSINESSES, &body).body();
        let business_id = text(&body, "business_id").expect("a new business has an id");
        let keys = format!("{BUSINESSES}/{business_id}/keys");
        let body = self.call("POST", &keys, r#"{"key_type": "business", "key_name": "main"}"#).body();
        (business_id, text(&body, "api_key").expect("a new key is shown"))
    }
}

#[test]
fn two_businesses_do_not_see_each_other_and_one_ends_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let admin = Admin::start(&data_dir);
    admin.call("POST", BUSINESSES, r#"{"business_name": "A"}"#).refused(400, "missing_field");
    admin.client.post(BUSINESSES, r#"{"business_name": "A", "email": "a"}"#).refused(401, "unauthorized");
    let tenants = [admin.business("a"), admin.business("b")];
    assert_ne!(tenants[0].0, tenants[1].0);
    for (number, (business_id, key)) in tenants.iter().enumerate() {
        let client = admin.client.with_key(key);
        client.post("/api/v1/metrics", r#"{"metric_name": "calls"}"#).body();
        client.put(CALLS, &format!(r#"{{"value": {}}}"#, number + 1)).body();
        let customers = format!("{BUSINESSES}/{business_id}/customers");
        client.post(&customers, r#"{"customer_id": "same", "name": "Same"}"#).body();
        let scope = "/api/v1/metrics?scope=customer&customer_id=same";
        client.post(scope, r#"{"metric_name": "calls"}"#).body();
        client.get(&format!("{BUSINESSES}/{business_id}")).refused(401, "unauthorized");
    }
    let foreign = format!("{BUSINESSES}/{}/customers", tenants[0].0);
    let b = admin.client.with_key(&tenants[1].1);
    b.post(&foreign, r#"{"customer_id": "x", "name": "X"}"#).refused(404, "business_not_found");

    // A crash, then one of them ends.
    admin.kill();
    let admin = Admin::start(&data_dir);
    let [a, b] = [&tenants[0].1, &tenants[1].1].map(|key| admin.client.with_key(key));
    assert_eq!(amount(&a.get(CALLS).body(), "current_value"), "1".parse().ok());
    let path = format!("{BUSINESSES}/{}", tenants[0].0);
    let body = admin.call("PUT", &path, r#"{"email": "new@example.com"}"#).body();
    assert_eq!(text(&body, "business_name").as_deref(), Some("a"));
    assert_eq!(text(&admin.call("GET", &path, "").body(), "email").as_deref(), Some("new@example.com"));
    admin.call("DELETE", &path, "").body();
    a.get(CALLS).refused(401, "unauthorized");
    for method in ["GET", "DELETE"] {
        admin.call(method, &path, "").refused(404, "business_not_found");
    }
    let keys = format!("{path}/keys");
    let new_key = r#"{"key_type": "business", "key_name": "late"}"#;
    admin.call("POST", &keys, new_key).refused(404, "business_not_found");
    assert_eq!(amount(&b.get(CALLS).body(), "current_value"), "2".parse().ok());
    assert_eq!(count(&b.get("/api/v1/metrics").body(), "count"), Some(2));

    // What is gone is gone for the snapshot of the stop and for the next start, too.
    admin.stop();
    assert_eq!(history::series(&data_dir), Ok(2), "the series of the other one");
    let admin = Admin::start(&data_dir);
    admin.client.with_key(&tenants[0].1).get(CALLS).refused(401, "unauthorized");
    admin.call("GET", &path, "").refused(404, "business_not_found");
    assert_eq!(count(&admin.client.with_key(&tenants[1].1).get("/api/v1/metrics").body(), "count"), Some(2));
    assert_eq!(count(&admin.client.get("/api/v1/metrics").body(), "count"), Some(0));
}
