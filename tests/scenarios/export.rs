//! Usage that is billed, over the real binary and a Stripe of our own: it arrives once, whatever Stripe does and whenever the
//! service is killed; what cannot be billed is said.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::api::Client;
use super::support::postgres::Cluster;
use super::support::server::{Launch, Server};
use super::support::stripe::account::Meter;
use super::support::stripe::{Call, FakeStripe, Fault};
use super::support::{SECRET_KEY, rounds, until};

/// How long what goes out may take: failures are behind pauses that double.
const LIMIT: Duration = Duration::from_secs(60);
const ACCOUNT: &str = "sk_test_0123456789abcdef";
const EVENT: &str = "api_calls";
const EVENTS: &str = "/meter_events";
const CUSTOMERS: usize = 3;

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A Stripe with one account, a meter and customers.
fn stripe() -> FakeStripe {
    let stripe = FakeStripe::start(now);
    stripe.add_account(ACCOUNT);
    stripe.add_meter(ACCOUNT, "mtr_1", EVENT);
    stripe.add_price(ACCOUNT, "price_1", Some("mtr_1"));
    (0..CUSTOMERS).for_each(|customer| stripe.add_customer(ACCOUNT, &format!("cus_{customer}")));
    stripe
}

fn launch(data_dir: &Path, base: &str, arguments: &[&str]) -> Launch {
    Launch::dev(data_dir)
        .workers(2)
        .with(&["--stripe-api-base", base, "--stripe-export-interval", "1s", "--proxy-allow", "127.0.0.0/8"])
        .with(arguments)
        .environment("TRACKTAGS_SECRET_KEY", SECRET_KEY)
}

fn start(launch: &Launch) -> (Server, Client) {
    let server = launch.start();
    let client = Client::new(&server.base());
    (server, client)
}

/// Credentials, customers, and a series for each.
fn define(client: &Client, stripe: &Value) {
    let credentials = json!({"secret_key": ACCOUNT, "webhook_secret": "whsec_0123456789abcdef"});
    let key = json!({"key_type": "stripe", "key_name": "main", "credentials": credentials});
    client.post("/api/v1/businesses/biz_demo/keys", &key.to_string()).body();
    for customer in 0..CUSTOMERS {
        let body = json!({"name": "C", "stripe_customer_id": format!("cus_{customer}")});
        client.put(&format!("/api/v1/customers/c{customer}"), &body.to_string()).body();
        series(client, customer, "calls", stripe).body();
    }
}

fn series(
    client: &Client,
    customer: usize,
    metric_name: &str,
    stripe: &Value,
) -> super::support::api::Outcome {
    let body = json!({
        "metric_name": metric_name, "metric_type": "stripe_billing", "flush_interval": "1s",
        "metadata": {"integrations": {"stripe": stripe}},
    });
    client.post(&format!("/api/v1/metrics?scope=customer&customer_id=c{customer}"), &body.to_string())
}

fn add(client: &Client, customer: usize, value: &str) {
    let path = format!("/api/v1/metrics/calls?scope=customer&customer_id=c{customer}");
    client.put(&path, &format!(r#"{{"value": {value}}}"#)).body();
}

fn total(stripe: &FakeStripe, customer: usize) -> i128 {
    stripe.total(ACCOUNT, EVENT, &format!("cus_{customer}"), 0, i64::MAX)
}

/// Waits until Stripe has these totals.
fn arrives(stripe: &FakeStripe, expected: &[i128]) {
    let totals = || (0..expected.len()).map(|customer| total(stripe, customer)).collect::<Vec<_>>();
    let all = || if totals() == expected { Ok(()) } else { Err(totals()) };
    until(LIMIT, all)
        .unwrap_or_else(|seen| panic!("{seen:?} instead of {expected:?}: {:#?}", stripe.calls()));
}

/// No name was ever taken twice, and no two calls for a customer met.
fn is_clean(stripe: &FakeStripe) {
    let calls = stripe.calls();
    let names: BTreeSet<_> = calls.iter().filter_map(|call| call.form.get("identifier")).collect();
    for name in names {
        assert!(stripe.times(ACCOUNT, name) <= 1, "{name} counts twice");
    }
}

/// A few of everything that can happen to a call.
fn trouble(stripe: &FakeStripe, round: usize) {
    let faults = [
        Fault::LoseAnswer,
        Fault::FailAfter(500),
        Fault::FailBefore(503),
        Fault::too_many(1),
        Fault::DropBefore,
        Fault::Says(409, vec![], r#"{"error": {"code": "lock_timeout"}}"#.into()),
        Fault::Delay(Duration::from_millis(300)),
        Fault::LoseAnswer,
    ];
    for fault in 0..4 {
        stripe.fault(EVENTS, faults[(round * 3 + fault) % faults.len()].clone());
    }
}

/// Adds, with trouble at Stripe and kills in between, until all has arrived; what was added.
fn usage_arrives_once(stripe: &FakeStripe, launch: &Launch) -> [i128; CUSTOMERS] {
    let (mut server, mut client) = start(launch);
    define(&client, &json!({"price_id": "price_1"}));
    let mut expected = [0_i128; CUSTOMERS];
    for round in 0..rounds(4, 20) {
        trouble(stripe, round);
        for step in 0..6 {
            let customer = (round + step) % CUSTOMERS;
            add(&client, customer, &(step + 1).to_string());
            expected[customer] += step as i128 + 1;
            std::thread::sleep(Duration::from_millis(60 * (round as u64 % 5)));
        }
        server.kill();
        (server, client) = start(launch);
    }
    arrives(stripe, &expected);
    std::thread::sleep(Duration::from_secs(3));
    arrives(stripe, &expected);
    is_clean(stripe);
    let calls = stripe.calls();
    let age = |call: &&Call| call.form["timestamp"].parse::<i64>().expect("seconds") - call.at;
    let events = calls.iter().filter(|call| call.path.ends_with(EVENTS));
    assert!(events.clone().all(|call| (-120..=0).contains(&age(&call))), "{calls:#?}");
    println!("{} calls for {} units", events.count(), expected.iter().sum::<i128>());
    server.stop();
    expected
}

#[test]
fn usage_arrives_once_whatever_stripe_does_and_whenever_the_service_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stripe = stripe();
    usage_arrives_once(&stripe, &launch(&folder.path().join("data"), &stripe.base(), &[]));
}

#[test]
fn usage_arrives_once_beside_postgres_and_a_new_machine_goes_on_from_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (stripe, cluster) = (stripe(), Cluster::start());
    let url = cluster.url();
    let arguments = ["--database-url", url.as_str()];
    let mut expected =
        usage_arrives_once(&stripe, &launch(&folder.path().join("data"), &stripe.base(), &arguments));
    let arguments = [&arguments[..], &["--take-over"]].concat();
    let (server, client) = start(&launch(&folder.path().join("other"), &stripe.base(), &arguments));
    std::thread::sleep(Duration::from_secs(3));
    arrives(&stripe, &expected);
    add(&client, 0, "40");
    expected[0] += 40;
    arrives(&stripe, &expected);
    is_clean(&stripe);
    server.stop();
}

#[test]
fn stripe_is_away_and_nothing_else_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stripe = stripe();
    // A port where nobody listens.
    let away = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let launch = |base: &str| launch(&folder.path().join("data"), base, &[]);
    let (server, client) = start(&launch(&format!("http://{away}")));
    define(&client, &json!({"price_id": "price_1"}));
    for _ in 0..20 {
        let before = Instant::now();
        add(&client, 0, "1");
        assert!(before.elapsed() < Duration::from_secs(3), "an update took {:?}", before.elapsed());
        std::thread::sleep(Duration::from_millis(150));
    }
    let pending = || Some(period(&client, 0)["pending"].clone()).filter(|pending| *pending == 20).ok_or(());
    until(LIMIT, pending).expect("it waits in slices");
    server.stop();
    let (server, client) = start(&launch(&stripe.base()));
    arrives(&stripe, &[20]);
    let numbers: Vec<_> =
        stripe.calls().into_iter().filter_map(|call| call.form.get("timestamp").cloned()).collect();
    assert!(numbers.len() > 1 && numbers.is_sorted(), "in order: {numbers:?}");
    let exported = || Some(period(&client, 0)).filter(|period| period["exported"] == 20).ok_or(());
    let period = until(LIMIT, exported).expect("that is shown");
    assert_eq!((&period["pending"], &period["usage"]), (&json!(0), &json!(20.0)), "{period}");
    server.stop();
}

/// What is billed of a customer's only series.
fn billing(client: &Client, customer: usize) -> Value {
    let body = client.get(&format!("/api/v1/billing/c{customer}")).body();
    let page: Value = serde_json::from_str(&body).expect("JSON");
    page["series"][0].clone()
}

fn period(client: &Client, customer: usize) -> Value {
    billing(client, customer)["periods"][0].clone()
}

#[test]
fn a_period_that_ends_is_rounded_and_billed_inside_and_what_comes_late_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stripe = stripe();
    let (server, client) =
        start(&launch(&folder.path().join("data"), &stripe.base(), &["--stripe-late", "hold"]));
    define(&client, &json!({"price_id": "price_1", "scale": 10}));
    add(&client, 0, "37.5");
    arrives(&stripe, &[3]);
    add(&client, 1, "12");
    let delete = |query: &str| {
        client.call("DELETE", &format!("/api/v1/metrics/calls?scope=customer&customer_id=c1{query}"), &[], "")
    };
    delete("").refused(409, "unexported_usage");
    arrives(&stripe, &[3, 1]);
    let deleted = || match delete("") {
        super::support::api::Outcome::Durable(_) => Ok(()),
        other => Err(other),
    };
    until(LIMIT, deleted).expect("nothing is owed any more");
    let shown = || Some(period(&client, 0)).filter(|it| it["exported"] == 3).ok_or(());
    let open = until(LIMIT, shown).expect("that is shown");
    assert_eq!((&open["remainder"], &open["end"], &open["scale"]), (&json!(7.5), &Value::Null, &json!(10.0)));
    std::thread::sleep(Duration::from_secs(2));
    let key = fs::read_to_string(server.data_dir().join("admin-key")).expect("the admin key is kept");
    let reset = "/admin/v1/customers/biz_demo/c0/reset-billing";
    client.with_key("none").call("POST", reset, &[("x-admin-key", key.trim())], "").body();
    add(&client, 0, "21");
    arrives(&stripe, &[6, 1]);
    let both = || Some(billing(&client, 0)).filter(|it| it["periods"][1]["exported"] == 4).ok_or(());
    let both = until(LIMIT, both).expect("two periods");
    let end =
        both["periods"][1]["end"].as_str().expect("it has ended").parse::<jiff::Timestamp>().expect("a time");
    assert_eq!(both["periods"][1]["remainder"], json!(-2.5), "{both}");
    let of_customer =
        |call: &Call| call.form.get("payload[stripe_customer_id]").is_some_and(|id| id == "cus_0");
    let calls = stripe.calls();
    let dates =
        calls.iter().filter(|call| of_customer(call)).map(|call| call.form["timestamp"].parse::<i64>());
    let dates: Vec<i64> = dates.map(|at| at.expect("seconds")).collect();
    assert_eq!(dates.iter().filter(|at| **at < end.as_second()).count(), 2, "{dates:?} around {end}");
    assert_eq!(both["slices"], json!([]), "{both}");
    server.stop();
}

#[test]
fn what_cannot_be_billed_is_said_and_waits_or_is_dead() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stripe = stripe();
    stripe.put_meter(
        ACCOUNT,
        "mtr_day",
        Meter { event_time_window: Some("day".into()), ..Meter::sums("by_day") },
    );
    stripe.add_price(ACCOUNT, "price_day", Some("mtr_day"));
    let (server, client) = start(&launch(&folder.path().join("data"), &stripe.base(), &[]));
    define(&client, &json!({"price_id": "price_1"}));
    series(&client, 0, "again", &json!({"price_id": "price_1"})).refused(422, "price_taken");
    let max = json!({"metric_name": "most", "metric_type": "stripe_billing", "operation": "MAX",
                     "metadata": {"integrations": {"stripe": {"price_id": "price_2"}}}});
    client
        .post("/api/v1/metrics?scope=customer&customer_id=c0", &max.to_string())
        .refused(422, "invalid_combination");

    client.put("/api/v1/customers/c9", r#"{"name": "Nine"}"#).body();
    series(&client, 9, "calls", &json!({"price_id": "price_1"})).body();
    add(&client, 9, "5");
    assert!(billing(&client, 9)["waits_for"].as_str().is_some_and(|why| why.contains("stripe_customer_id")));
    // Somebody whom this Stripe does not know.
    client.put("/api/v1/customers/c9", r#"{"stripe_customer_id": "cus_absent"}"#).body();
    let dead = || Some(billing(&client, 9)).filter(|it| it["periods"][0]["dead"] == 5).ok_or(());
    let dead = until(LIMIT, dead).expect("it is dead");
    let slice = &dead["slices"][0];
    assert_eq!((&slice["state"], &slice["quantity"]), (&json!("dead"), &json!(5)), "{dead}");
    assert!(slice["reason"].as_str().is_some_and(|why| why.contains("No such customer")), "{dead}");
    let ready = client.get("/readyz").body();
    assert!(ready.contains("billing_slices_dead") && ready.contains("degraded"), "{ready}");
    let metrics = client.get("/metrics").body();
    assert!(metrics.contains(r#"tracktags_billing_slices{state="dead"} 1"#), "{metrics}");

    series(&client, 1, "by_day", &json!({"price_id": "price_day"})).body();
    client.put("/api/v1/metrics/by_day?scope=customer&customer_id=c1", r#"{"value": 3}"#).body();
    let waits = || {
        let waits = Some(billing(&client, 1))
            .filter(|it| it["metric_name"] == "by_day" && it["waits_for"].is_string());
        waits.ok_or(())
    };
    let waits = until(LIMIT, waits).expect("it is said");
    assert!(waits["waits_for"].as_str().is_some_and(|why| why.contains("event_time_window")), "{waits}");
    assert_eq!(
        (&waits["periods"][0]["pending"], &waits["slices"][0]["state"]),
        (&json!(3), &json!("new")),
        "{waits}"
    );
    client.get("/api/v1/billing/absent").refused(404, "customer_not_found");
    server.stop();
}
