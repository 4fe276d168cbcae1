//! Usage that is billed, over the real binary and a Stripe of our own: it arrives once, whatever Stripe does and whenever the
//! service is killed, in the period whose invoice still takes it; what cannot be billed is said.

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
use super::support::stripe::events::Version::Basil;
use super::support::stripe::events::{error_report, event, invoice, subscription, thin};
use super::support::stripe::webhooks::{Delivery, Endpoint};
use super::support::stripe::{Call, FakeStripe, Fault};
use super::support::{SECRET_KEY, rounds, until};

/// How long what goes out may take: failures are behind pauses that double.
const LIMIT: Duration = Duration::from_secs(60);
const ACCOUNT: &str = "sk_test_0123456789abcdef";
const SECRET: &str = "whsec_0123456789abcdef";
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
    let credentials = json!({"secret_key": ACCOUNT, "webhook_secret": SECRET});
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

/// Usage at a moment, in unix seconds.
fn add_at(client: &Client, customer: usize, value: i64, at: i64) {
    let path = format!("/api/v1/metrics/calls?scope=customer&customer_id=c{customer}");
    let at = jiff::Timestamp::from_second(at).expect("a moment of the test").to_string();
    client.put(&path, &json!({"value": value, "timestamp": at}).to_string()).body();
}

/// Tells the service of an event; whether it was applied, and why.
fn tell(server: &Server, event: &Value) -> (bool, String) {
    let url = format!("{}/api/v1/webhooks/stripe/biz_demo", server.base());
    let answered = Endpoint::new(&url, &[SECRET], now).deliver(event, Delivery::Plain).remove(0);
    assert_eq!(answered.status, 200, "{}", answered.body);
    let body: Value = serde_json::from_str(&answered.body).expect("JSON");
    (body["applied"] == true, body["reason"].as_str().unwrap_or_default().to_owned())
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

/// Nothing is still to come: what was sent before one unit more for each customer has come before it, since a customer's
/// slices come in order.
fn nothing_else_arrives(client: &Client, stripe: &FakeStripe, expected: &mut [i128; CUSTOMERS]) {
    for (customer, expected) in expected.iter_mut().enumerate() {
        add(client, customer, "1");
        *expected += 1;
    }
    arrives(stripe, expected);
    let settled = |customer| {
        let period = period(client, customer);
        let is_settled =
            period["exported"].as_i64() == Some(expected[customer] as i64) && period["pending"] == 0;
        if is_settled { Ok(()) } else { Err(period) }
    };
    (0..CUSTOMERS).for_each(|customer| until(LIMIT, || settled(customer)).expect("all of it has arrived"));
    arrives(stripe, expected);
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
    nothing_else_arrives(&client, stripe, &mut expected);
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
    add(&client, 0, "40");
    expected[0] += 40;
    // One that comes twice comes before it.
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
    // The period has a whole second behind its last slice, which the next one can be dated in.
    let last = stripe.calls().iter().filter_map(|call| call.form.get("timestamp")?.parse::<i64>().ok()).max();
    let is_behind = || if Some(now()) > last.map(|last| last + 1) { Ok(()) } else { Err(()) };
    until(LIMIT, is_behind).expect("time passes");
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
fn a_draft_takes_what_comes_late_and_a_final_invoice_leaves_it_to_the_next_period() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stripe = stripe();
    let launch = launch(&folder.path().join("data"), &stripe.base(), &[]);
    let (server, client) = start(&launch);
    define(&client, &json!({"price_id": "price_1"}));
    let (begin, end) = (now() - 60, now() + 3);
    let made = subscription(Basil, ("sub_1", "cus_0", "active"), begin, &[("price_1", begin, end)]);
    assert!(tell(&server, &event("evt_s", "customer.subscription.updated", begin, made)).0);
    add(&client, 0, "5");
    let is_behind = || if now() > end { Ok(()) } else { Err(()) };
    until(LIMIT, is_behind).expect("time passes");
    arrives(&stripe, &[5]);
    let of_period = || stripe.total(ACCOUNT, EVENT, "cus_0", 0, end);
    let bill = |kind: &str| {
        // Lines that the event does not hold, of which one has the price.
        let mut made = invoice(Basil, ("in_1", "cus_0", "sub_1", "subscription_cycle"), end, &[]);
        made["lines"]["has_more"] = json!(true);
        event(&format!("evt_{kind}"), &format!("invoice.{kind}"), end, made)
    };
    let (applied, reason) = tell(&server, &bill("created"));
    assert!(applied && reason.ends_with("1 ended at a known boundary"), "{reason}");
    add_at(&client, 0, 3, end - 1);
    arrives(&stripe, &[8]);
    assert_eq!(of_period(), 8, "a draft takes it");
    let (applied, reason) = tell(&server, &bill("finalized"));
    assert!(applied && reason.ends_with("what comes for them now is late"), "{reason}");
    server.kill();
    let (server, client) = start(&launch);
    add_at(&client, 0, 4, end - 1);
    arrives(&stripe, &[12]);
    assert_eq!(of_period(), 8, "nothing is sent to where nobody bills it");
    server.stop();
    let (server, client) = start(&launch);
    add_at(&client, 0, 2, end - 1);
    arrives(&stripe, &[14]);
    let shown = || Some(billing(&client, 0)).filter(|it| it["periods"][0]["exported"] == 6).ok_or(());
    let shown = until(LIMIT, shown).expect("that is shown");
    let (next, last) = (&shown["periods"][0], &shown["periods"][1]);
    assert_eq!((&last["is_final"], &last["exported"]), (&json!(true), &json!(8)), "{shown}");
    assert_eq!((&last["moved_amount"], &next["late_amount"]), (&json!(6.0), &json!(6.0)), "{shown}");
    assert_eq!((&next["is_final"], of_period()), (&json!(false), 8), "{shown}");
    server.stop();
}

#[test]
fn a_report_that_an_event_only_names_is_had_though_the_service_is_killed_in_between() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stripe = stripe();
    let launch = launch(&folder.path().join("data"), &stripe.base(), &[]);
    let (server, client) = start(&launch);
    define(&client, &json!({"price_id": "price_1"}));
    add(&client, 0, "5");
    add(&client, 1, "7");
    arrives(&stripe, &[5, 7]);
    let exported = |client: &Client, customer: usize, units: i64| {
        let shown = || Some(period(client, customer)).filter(|it| it["exported"] == units).ok_or(());
        until(LIMIT, shown).expect("it has arrived")
    };
    exported(&client, 0, 5);
    exported(&client, 1, 7);
    let calls = stripe.calls();
    let of_customer =
        |call: &&Call| call.form.get("payload[stripe_customer_id]").is_some_and(|id| id == "cus_0");
    let name =
        calls.iter().find(of_customer).and_then(|call| call.form.get("identifier")).expect("it was sent");
    let at = jiff::Timestamp::now().to_string();
    let report = error_report("evt_r", &at, "mtr_1", "timestamp_too_far_in_past", &[name, "tt_of_others"]);
    let (applied, reason) = tell(&server, &thin(&report));
    assert_eq!((applied, reason.as_str()), (false, "its report is asked for"));
    assert_eq!(tell(&server, &thin(&report)).1, "the event was read before");
    let asked = || {
        if stripe.calls().iter().any(|call| call.path.contains("/v2/core/events")) { Ok(()) } else { Err(()) }
    };
    until(LIMIT, asked).expect("it is asked for, and is not there yet");
    server.kill();
    stripe.add_event(ACCOUNT, &report);
    stripe.fault("/v2/core/events", Fault::FailBefore(500));
    let (server, client) = start(&launch);
    let dead = || Some(billing(&client, 0)).filter(|it| it["periods"][0]["dead"] == 5).ok_or(());
    let dead = until(LIMIT, dead).expect("it is dead");
    let reason = dead["slices"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("timestamp_too_far_in_past"), "{dead}");
    exported(&client, 1, 7);
    let told = || {
        let listed: Value = serde_json::from_str(&client.get("/api/v1/stripe/events").body()).expect("JSON");
        let first = listed["events"][0].clone();
        if first["applied"] == true && listed["count"] == 1 { Ok(first) } else { Err(listed) }
    };
    let told = until(LIMIT, told).expect("the event says so");
    assert_eq!(told["reason"], "slices that are dead now: 1", "{told}");
    server.kill();
    let asks = || stripe.calls().iter().filter(|call| call.path.contains("/v2/core/events")).count();
    let before = asks();
    let (server, client) = start(&launch);
    // The thread that would ask has sent this by then.
    add(&client, 2, "1");
    arrives(&stripe, &[5, 7, 1]);
    assert_eq!((asks(), period(&client, 0)["dead"].clone()), (before, json!(5)), "once is enough");
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
    for operation in ["MAX", "MIN", "AVG"] {
        let unfit = json!({"metric_name": "most", "metric_type": "stripe_billing", "operation": operation,
                           "metadata": {"integrations": {"stripe": {"price_id": "price_2"}}}});
        client
            .post("/api/v1/metrics?scope=customer&customer_id=c0", &unfit.to_string())
            .refused(422, "invalid_combination");
    }

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
