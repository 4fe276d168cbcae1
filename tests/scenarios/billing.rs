//! An admin's reset of a customer's billing: a new live period of what the customer is billed by, of nothing else, for good.

use std::time::Duration;

use super::businesses::Admin;
use super::support::api::{Client, amount, count, text};
use super::support::until;

/// (customer, metric, type); the third metric is the business's own.
const SERIES: [(&str, &str, &str); 5] = [
    ("alice", "calls", "stripe_billing"),
    ("alice", "bytes", "stripe_billing"),
    ("alice", "seats", "checkpoint"),
    ("bob", "calls", "stripe_billing"),
    ("", "calls", "stripe_billing"),
];

fn query(customer_id: &str) -> String {
    if customer_id.is_empty() { String::new() } else { format!("?scope=customer&customer_id={customer_id}") }
}

fn path((customer_id, metric_name, _): (&str, &str, &str)) -> String {
    format!("/api/v1/metrics/{metric_name}{}", query(customer_id))
}

/// What each series reads.
fn readings(client: &Client) -> Vec<String> {
    let reading = |series| amount(&client.get(&path(series)).body(), "current_value").expect("an amount");
    SERIES.into_iter().map(|series| reading(series).to_string()).collect()
}

#[test]
fn a_reset_begins_a_new_period_of_what_the_customer_is_billed_by() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let admin = Admin::start(&data_dir);
    let (business_id, key) = admin.business("own");
    let client = admin.client.with_key(&key);
    let reset = |admin: &Admin, customer_id: &str| {
        admin.call("POST", &format!("/admin/v1/customers/{business_id}/{customer_id}/reset-billing"), "")
    };
    for customer_id in ["alice", "bob", "nobody"] {
        client.put(&format!("/api/v1/customers/{customer_id}"), r#"{"name": "N"}"#).body();
    }
    for (customer_id, metric_name, metric_type) in SERIES {
        let body = format!(
            r#"{{"metric_name": "{metric_name}", "metric_type": "{metric_type}", "initial_value": 1, "flush_interval": "1d"}}"#
        );
        client.post(&format!("/api/v1/metrics{}", query(customer_id)), &body).body();
    }
    let add = |client: &Client, body: &str| {
        for series in SERIES {
            client.put(&path(series), body).body();
        }
    };
    add(&client, r#"{"value": 7}"#);
    reset(&admin, "absent").refused(404, "customer_not_found");
    reset(&admin, "a%2Fb").refused(400, "invalid_id");
    let elsewhere = "/admin/v1/customers/biz_absent/alice/reset-billing";
    admin.call("POST", elsewhere, "").refused(404, "business_not_found");
    client.post(elsewhere, "").refused(401, "unauthorized");
    assert_eq!(readings(&client), ["8.0"; 5]);

    let body = reset(&admin, "alice").body();
    let said = ["status", "business_id", "customer_id"].map(|field| text(&body, field).expect("given"));
    assert_eq!(said, ["success", business_id.as_str(), "alice"]);
    assert_eq!(count(&body, "series"), Some(2));
    assert_eq!(readings(&client), ["1.0", "1.0", "8.0", "8.0", "8.0"]);
    assert_eq!(count(&reset(&admin, "nobody").body(), "series"), Some(0), "nothing to reset is no error");
    add(&client, r#"{"value": 2}"#);
    // What happened before the reset belongs to the period that is over.
    add(&client, r#"{"value": 100, "timestamp": "BEFORE"}"#.replace("BEFORE", &an_hour_ago()).as_str());
    let expected = ["3.0", "3.0", "110.0", "110.0", "110.0"];
    assert_eq!(readings(&client), expected);

    // The log has one entry: the reset that changed nothing has none.
    let resets = || {
        let log = client.get("/api/v1/audit-logs").body();
        let resets = log.matches("billing.reset").count();
        if resets == 1 && log.contains(r#""subject":"alice""#) { Ok(()) } else { Err(log) }
    };
    until(Duration::from_secs(10), resets).expect("the reset is in the log");
    let admin = {
        admin.kill();
        Admin::start(&data_dir)
    };
    let client = admin.client.with_key(&key);
    assert_eq!(readings(&client), expected);
    admin.stop();
    let admin = Admin::start(&data_dir);
    assert_eq!(readings(&admin.client.with_key(&key)), expected);
}

fn an_hour_ago() -> String {
    (jiff::Timestamp::now() - Duration::from_secs(3_600)).to_string()
}
