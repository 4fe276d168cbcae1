//! What Stripe tells and what follows from it: signed events to the real binary, kills in between. The time is the machine's.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::businesses::Admin;
use super::secrets::stripe as credentials;
use super::support::api::{Client, amount, count, text};
use super::support::stripe::events::Version::{Basil, Older};
use super::support::stripe::events::{checkout, event, invoice, subscription};
use super::support::stripe::webhooks::{Delivery, Endpoint};
use super::support::until;

const SECRET: &str = "whsec_of_the_scenario";
const KEYS: &str = "/api/v1/businesses/biz_demo/keys";

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// A service with credentials for Stripe and a customer `cust_1`, which is `cus_1` at Stripe.
struct Scene {
    admin: Admin,
    stripe: Endpoint,
}

impl Scene {
    fn start(data_dir: &Path) -> Scene {
        let admin = Admin::start(data_dir);
        let stripe =
            Endpoint::new(&format!("{}/api/v1/webhooks/stripe/biz_demo", admin.base()), &[SECRET], now);
        Scene { admin, stripe }
    }

    fn first(data_dir: &Path) -> Scene {
        let scene = Scene::start(data_dir);
        scene.client().post(KEYS, &credentials("test", "sk_test_1", SECRET)).body();
        scene.customer("cust_1", Some("cus_1"));
        scene
    }

    /// SIGKILL, and a start.
    fn again(self, data_dir: &Path) -> Scene {
        self.admin.kill();
        drop(self);
        Scene::start(data_dir)
    }

    fn client(&self) -> &Client {
        &self.admin.client
    }

    fn customer(&self, id: &str, stripe_id: Option<&str>) {
        let body = json!({"customer_id": id, "name": id, "stripe_customer_id": stripe_id}).to_string();
        self.client().post("/api/v1/customers", &body).body();
    }

    fn metric(&self, customer: &str, name: &str, kind: &str, initial: i64, price: Option<&str>) {
        let stripe = price.map(|price| json!({"price_id": price}));
        let body = json!({
            "metric_name": name, "metric_type": kind, "flush_interval": "5s", "initial_value": initial,
            "metadata": {"integrations": {"stripe": stripe}},
        });
        self.client().post(&path("", customer), &body.to_string()).body();
    }

    fn add(&self, customer: &str, name: &str, value: i64) {
        self.add_at(customer, name, value, None);
    }

    fn add_at(&self, customer: &str, name: &str, value: i64, at: Option<i64>) {
        let body = match at {
            Some(at) => {
                json!({"value": value, "timestamp": humantime::format_rfc3339(UNIX_EPOCH + Duration::from_secs(at as u64)).to_string()})
            }
            None => json!({"value": value}),
        };
        self.client().put(&path(&format!("/{name}"), customer), &body.to_string()).body();
    }

    fn value(&self, customer: &str, name: &str) -> String {
        let body = self.client().get(&path(&format!("/{name}"), customer)).body();
        amount(&body, "current_value").expect("a value").to_string()
    }

    /// Delivers an event; whether it was applied, and why.
    fn tell(&self, event: &Value) -> (bool, String) {
        let answered = self.stripe.deliver(event, Delivery::Plain).remove(0);
        assert_eq!(answered.status, 200, "{}", answered.body);
        let body: Value = serde_json::from_str(&answered.body).expect("JSON");
        assert_eq!(body["received"], true);
        let reason = body["reason"].as_str().unwrap_or_default().to_owned();
        (body["applied"].as_bool().expect("said"), reason)
    }

    fn record(&self, customer: &str) -> Value {
        let body = self.client().get(&format!("/api/v1/customers/{customer}")).body();
        serde_json::from_str(&body).expect("JSON")
    }
}

fn path(rest: &str, customer: &str) -> String {
    format!("/api/v1/metrics{rest}?scope=customer&customer_id={customer}")
}

/// An invoice as an integration of the seed's time gets it: nothing of it is known.
fn bare_invoice(id: &str, customer: &str) -> Value {
    let made =
        invoice(Older, (&format!("in_{id}"), customer, "sub_unheard_of", "subscription_cycle"), now(), &[]);
    event(&format!("evt_{id}"), "invoice.created", now(), made)
}

#[test]
fn an_invoice_alone_resets_the_billing_metrics_of_its_customer_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let scene = Scene::first(&data_dir);
    scene.customer("cust_2", Some("cus_2"));
    for customer in ["cust_1", "cust_2"] {
        scene.metric(customer, "billed", "stripe_billing", 3, None);
        scene.metric(customer, "priced", "stripe_billing", 0, Some("price_1"));
        scene.metric(customer, "kept", "checkpoint", 0, None);
        ["billed", "priced", "kept"].iter().for_each(|name| scene.add(customer, name, 5));
    }
    let made = bare_invoice("1", "cus_1");
    let (applied, reason) = scene.tell(&made);
    assert!(applied, "{reason}");
    let values =
        |scene: &Scene, customer| ["billed", "priced", "kept"].map(|name| scene.value(customer, name));
    assert_eq!(values(&scene, "cust_1"), ["3.0", "0.0", "5.0"]);
    assert_eq!(values(&scene, "cust_2"), ["8.0", "5.0", "5.0"]);
    scene.add("cust_1", "billed", 2);
    assert_eq!(scene.tell(&made), (false, "the event was read before".to_owned()));
    let mut finalized = made.clone();
    (finalized["id"], finalized["type"]) = (json!("evt_1f"), json!("invoice.finalized"));
    let (confirmed, reason) = scene.tell(&finalized);
    assert!(confirmed && reason.contains("known boundary"), "the same boundary ends once: {reason}");
    assert_eq!(values(&scene, "cust_1"), ["5.0", "0.0", "5.0"]);
    let scene = scene.again(&data_dir);
    assert_eq!(scene.tell(&made), (false, "the event was read before".to_owned()));
    assert_eq!(values(&scene, "cust_1"), ["5.0", "0.0", "5.0"]);
    let (applied, reason) = scene.tell(&bare_invoice("2", "cus_nobody"));
    assert!(!applied && reason.contains("no customer"), "{reason}");
    let listed = scene.client().get("/api/v1/stripe/events").body();
    assert_eq!(count(&listed, "count"), Some(3), "{listed}");
    scene.admin.stop();
}

#[test]
fn what_is_not_signed_changes_nothing_and_does_not_burn_the_id_of_what_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene::first(&folder.path().join("data"));
    scene.metric("cust_1", "billed", "stripe_billing", 0, None);
    scene.add("cust_1", "billed", 5);
    let made = bare_invoice("1", "cus_1");
    let forged = [
        Delivery::WrongSecret,
        Delivery::SignedAt(-301),
        Delivery::SignedAt(302),
        Delivery::Unsigned,
        Delivery::Tampered,
    ];
    let mut refusals = Vec::new();
    for forged in forged {
        refusals.extend(scene.stripe.deliver(&made, forged));
    }
    let absent =
        Endpoint::new(&format!("{}/api/v1/webhooks/stripe/biz_absent", scene.admin.base()), &[SECRET], now);
    refusals.extend(absent.deliver(&made, Delivery::Plain));
    for refusal in &refusals {
        assert_eq!((refusal.status, text(&refusal.body, "code").as_deref()), (400, Some("bad_signature")));
        assert_eq!(text(&refusal.body, "detail"), text(&refusals[0].body, "detail"));
    }
    let listed = scene.client().get("/api/v1/stripe/events").body();
    assert_eq!((count(&listed, "count"), scene.value("cust_1", "billed")), (Some(0), "5.0".to_owned()));
    assert!(scene.tell(&made).0);
    assert_eq!(scene.value("cust_1", "billed"), "0.0");
    let mut other = bare_invoice("live", "cus_1");
    other["livemode"] = json!(true);
    assert!(!scene.tell(&other).0);
    let unread = event("evt_unread", "customer.created", now(), json!({"id": "cus_1", "object": "customer"}));
    assert!(!scene.tell(&unread).0);
    let mut lie = bare_invoice("lie", "cus_1");
    lie["data"]["object"]["created"] = json!(-1);
    let mut nameless = bare_invoice("nameless", "cus_1");
    nameless["id"] = json!(null);
    let mut great = bare_invoice("great", "cus_1");
    great["padding"] = json!("x".repeat(10_000_000));
    for (bad, status) in [(lie, 400), (nameless, 400), (great, 413)] {
        let answered = scene.stripe.deliver(&bad, Delivery::Plain).remove(0);
        assert_eq!(answered.status, status, "{}", answered.body);
    }
    let exposition = scene.client().get("/metrics").body();
    for outcome in ["applied", "bad_signature", "other_livemode", "unknown_type", "malformed"] {
        assert!(
            exposition.contains(&format!(r#"tracktags_stripe_events_total{{outcome="{outcome}"}}"#)),
            "{outcome}"
        );
    }
    scene.admin.stop();
}

/// Connections that have said how long an event is, and say nothing of it.
fn flood(base: &str, business_id: &str, connections: usize) -> Vec<TcpStream> {
    let address = base.strip_prefix("http://").expect("an address");
    let opened = (0..connections).map(|_| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let head = format!(
            "POST /api/v1/webhooks/stripe/{business_id} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: 986895\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream
    });
    opened.collect()
}

#[test]
fn a_flood_of_bodies_that_nobody_signed_stops_no_other_business_and_no_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene::first(&folder.path().join("data"));
    let base = scene.admin.base();
    let (business_id, key) = scene.admin.business("b");
    let keys = format!("/api/v1/businesses/{business_id}/keys");
    scene.client().with_key(&key).post(&keys, &credentials("test", "sk_test_2", SECRET)).body();
    let other = Endpoint::new(&format!("{base}/api/v1/webhooks/stripe/{business_id}"), &[SECRET], now);
    let told = |endpoint: &Endpoint, id: &str| {
        endpoint.deliver(&bare_invoice(id, "cus_1"), Delivery::Plain).remove(0).status
    };
    // The 64 MiB for one business's are 68 of them, and four bytes; who comes while an event is read is refused.
    let held = [flood(&base, "biz_demo", 100), flood(&base, "biz_absent", 100)];
    let is_full = || if told(&scene.stripe, "full") == 503 { Ok(()) } else { Err(()) };
    until(Duration::from_secs(5), is_full).expect("the flooded one is told to come again");
    assert_eq!(told(&other, "1"), 200);
    scene.metric("cust_1", "billed", "stripe_billing", 0, None);
    scene.add("cust_1", "billed", 5);
    drop(held);
    let is_over = || if told(&scene.stripe, "2") == 200 { Ok(()) } else { Err(()) };
    until(Duration::from_secs(20), is_over).expect("Stripe comes again");
    scene.admin.stop();
}

#[test]
fn a_known_end_splits_usage_exactly_there_and_its_invoice_only_confirms() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let scene = Scene::first(&data_dir);
    scene.metric("cust_1", "billed", "stripe_billing", 0, None);
    scene.metric("cust_1", "priced", "stripe_billing", 0, Some("price_1"));
    scene.metric("cust_1", "other", "stripe_billing", 0, Some("price_2"));
    let names = ["billed", "priced", "other"];
    names.iter().for_each(|name| scene.add("cust_1", name, 7));
    let (start, end) = (now(), now() + 6);
    let made = subscription(Basil, ("sub_1", "cus_1", "active"), start, &[("price_1", start, end)]);
    let (applied, reason) = scene.tell(&event("evt_s", "customer.subscription.created", start, made));
    assert!(applied, "{reason}");
    let values = |scene: &Scene| names.map(|name| scene.value("cust_1", name));
    assert_eq!(values(&scene), ["0.0", "0.0", "7.0"], "a subscription begins a period of what it has");
    names.iter().for_each(|name| scene.add("cust_1", name, 5));
    // It is for the period that has not begun: the boundary is known.
    names.iter().for_each(|name| scene.add_at("cust_1", name, 1, Some(end)));
    let scene = scene.again(&data_dir);
    assert_eq!(values(&scene), ["5.0", "5.0", "13.0"]);
    let is_behind = || if now() > end { Ok(()) } else { Err(()) };
    until(Duration::from_secs(20), is_behind).expect("time passes");
    assert_eq!(values(&scene), ["1.0", "1.0", "13.0"]);
    names.iter().for_each(|name| scene.add_at("cust_1", name, 2, Some(end - 1)));
    assert_eq!(values(&scene), ["1.0", "1.0", "15.0"], "late usage belongs to the period before");
    let lines = [("price_1", start, end)];
    let made = invoice(Basil, ("in_1", "cus_1", "sub_1", "subscription_cycle"), end, &lines);
    let (applied, reason) = scene.tell(&event("evt_i", "invoice.created", end, made));
    assert!(applied && reason.contains("2 ended at a known boundary"), "{reason}");
    assert_eq!(values(&scene), ["1.0", "1.0", "15.0"]);
    // The next invoice of a subscription whose renewal nobody told.
    let made = invoice(Basil, ("in_2", "cus_1", "sub_1", "subscription_cycle"), now() + 1, &lines);
    let (applied, reason) = scene.tell(&event("evt_i2", "invoice.created", now(), made));
    assert!(applied && reason.contains("2 ended now"), "{reason}");
    assert_eq!(values(&scene), ["0.0", "0.0", "15.0"]);
    let scene = scene.again(&data_dir);
    assert_eq!(values(&scene), ["0.0", "0.0", "15.0"]);
    let history = scene.client().get(&path("/billed/history", "cust_1")).body();
    let points: Value = serde_json::from_str(&history).expect("JSON");
    let sums = points["points"]
        .as_array()
        .expect("points")
        .iter()
        .map(|point| point["sum"].as_f64().expect("a sum"));
    assert!((sums.sum::<f64>() - 15.0).abs() < f64::EPSILON, "nothing is lost or doubled: {history}");
    scene.admin.stop();
}

#[test]
fn a_subscription_sets_plan_price_and_expiry_and_an_older_event_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let scene = Scene::first(&data_dir);
    scene.customer("cust_2", None);
    let plan = |name: &str, price: &str| {
        let body = json!({"plan_name": name, "stripe_price_id": price}).to_string();
        text(&scene.client().post("/api/v1/plans", &body).body(), "id").expect("a plan has an id")
    };
    let (small, great) = (plan("small", "price_small"), plan("great", "price_great"));
    let body = json!({"metric_name": "calls", "limit_value": 10, "plan_id": small}).to_string();
    scene.client().post("/api/v1/plan_limits", &body).body();
    let told = |id: &str, at: i64, status: &str, price: &str, change: &dyn Fn(&mut Value)| {
        let mut made =
            subscription(Basil, ("sub_1", "cus_1", status), 1_000, &[(price, now(), now() + 86_400)]);
        change(&mut made);
        scene.tell(&event(id, "customer.subscription.updated", at, made))
    };
    assert!(told("evt_1", 100, "active", "price_small", &|_| {}).0);
    let record = scene.record("cust_1");
    assert_eq!((&record["plan_id"], &record["stripe_price_id"]), (&json!(small), &json!("price_small")));
    assert_eq!(scene.value("cust_1", "calls"), "0.0", "the plan's limit needs a series");
    assert!(told("evt_3", 300, "active", "price_great", &|made| made["cancel_at"] = json!(now() + 3_600)).0);
    let (applied, reason) = told("evt_2", 200, "active", "price_small", &|_| {});
    assert!(!applied && reason.contains("later event"), "{reason}");
    let record = scene.record("cust_1");
    assert_eq!(record["plan_id"], json!(great));
    assert!(record["subscription_ends_at"].is_string(), "{record}");
    assert!(told("evt_4", 400, "active", "price_great", &|_| {}).0);
    assert!(scene.record("cust_1")["subscription_ends_at"].is_null(), "cancel_at was taken back");
    assert!(told("evt_5", 500, "paused", "price_small", &|_| {}).0);
    assert_eq!(scene.record("cust_1")["plan_id"], json!(great), "a pause changes nothing");
    assert!(told("evt_6", 600, "canceled", "price_great", &|made| made["ended_at"] = json!(now() - 1)).0);
    assert!(scene.record("cust_1")["subscription_ends_at"].is_string());
    // Somebody who subscribes on a page of Stripe: the subscription may be told first.
    let made =
        subscription(Older, ("sub_2", "cus_2", "active"), now(), &[("price_small", now(), now() + 86_400)]);
    assert!(!scene.tell(&event("evt_7", "customer.subscription.created", now(), made)).0);
    let done = event("evt_8", "checkout.session.completed", now(), checkout("cs_1", "cust_2", "cus_2"));
    assert!(scene.tell(&done).0);
    let record = scene.record("cust_2");
    assert_eq!((&record["stripe_customer_id"], &record["plan_id"]), (&json!("cus_2"), &json!(small)));
    let scene = scene.again(&data_dir);
    assert_eq!(scene.record("cust_2")["plan_id"], json!(small));
    scene.admin.stop();
}
