//! What the room asks and sends when nothing goes wrong.

use std::sync::mpsc::channel;
use std::time::Duration;

use dataflows::types::Micros;
use tracktags::control::Plaintext;
use tracktags::stripe::{API_VERSION, Account, Biller, CallError, Outcome, Spawned, Stripe, Usage, reported};

use super::fake::account::Meter;
use super::fake::events;
use super::support::{CUSTOMER, EVENT, KEY, METER, NOW, World, outbound, slice};

#[tokio::test]
async fn a_price_leads_to_its_meter() {
    let world = World::new();
    let (stripe, account) = (&world.stripe, &world.account);
    let meter = stripe.meter_of(account, "price_1").await.expect("metered");
    assert_eq!((meter.id.as_str(), meter.event_name.as_str(), meter.unfit()), (METER, EVENT, None));
    assert_eq!((meter.customer_key.as_str(), meter.value_key.as_str()), ("stripe_customer_id", "value"));
    let flat = stripe.meter_of(account, "price_flat").await.expect_err("flat");
    assert!(
        matches!(&flat, CallError::Refused { status: None, reason } if reason.contains("meter")),
        "{flat}"
    );
    let nobody = stripe.price(account, "price_2").await.expect_err("no such price");
    assert!(matches!(nobody, CallError::Refused { status: Some(404), .. }), "{nobody}");
    for unfit in [
        Meter { event_time_window: Some("day".into()), ..Meter::sums(EVENT) },
        Meter { is_active: false, ..Meter::sums(EVENT) },
        Meter { aggregation: "last".into(), ..Meter::sums(EVENT) },
    ] {
        world.fake.put_meter(KEY, METER, unfit);
        assert!(stripe.meter_of(account, "price_1").await.expect("metered").unfit().is_some());
    }
}

#[tokio::test]
async fn a_tenants_price_leads_to_no_other_path() {
    let world = World::new();
    for id in ["price 1/ü?x#y%2e+", "../billing/meters/mtr_1", "a/../../b"] {
        world.fake.add_price(KEY, id, None);
        assert_eq!(world.stripe.price(&world.account, id).await.expect(id).meter, None);
    }
    for id in ["", ".", "..", &"x".repeat(256)] {
        let error = world.stripe.price(&world.account, id).await.expect_err(id);
        assert!(matches!(error, CallError::Refused { status: None, .. }), "{error}");
    }
    assert_eq!(world.fake.calls().len(), 3, "what is no id is not asked for");
}

#[tokio::test]
async fn a_slice_is_sent_once_and_counted_exactly() {
    let world = World::new();
    let slices = [slice(0, 999_999_999_999_999), slice(1, -1), slice(2, 0), slice(3, 25)];
    for usage in &slices {
        assert_eq!(world.send(usage).await, Outcome::Delivered);
    }
    assert_eq!(world.total(), 1_000_000_000_000_023);
    assert_eq!(world.counted().await, Ok(1_000_000_000_000_023));
    let call = &world.fake.calls()[3];
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/v1/billing/meter_events"));
    assert_eq!(call.idempotency_key.as_deref(), Some(slices[3].identifier.as_str()));
    let form: Vec<_> = call.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let at = NOW.to_string();
    let expected = [
        ("event_name", EVENT),
        ("identifier", slices[3].identifier.as_str()),
        ("payload[stripe_customer_id]", CUSTOMER),
        ("payload[value]", "25"),
        ("timestamp", at.as_str()),
    ];
    assert_eq!(form, expected);
    assert!(API_VERSION.ends_with(".basil"));
}

#[tokio::test]
async fn keys_of_a_meter_are_its_own() {
    let world = World::new();
    let own =
        Meter { customer_key: "who".into(), value_key: "how much".into(), ..Meter::sums("bytes & more") };
    world.fake.put_meter(KEY, "mtr_2", own);
    world.fake.add_price(KEY, "price_2", Some("mtr_2"));
    let meter = world.stripe.meter_of(&world.account, "price_2").await.expect("metered");
    let (event_name, customer_key, value_key) = (meter.event_name, meter.customer_key, meter.value_key);
    let usage = Usage { event_name, customer_key, value_key, ..slice(0, 7) };
    assert_eq!(world.send(&usage).await, Outcome::Delivered);
    assert_eq!(world.fake.total(KEY, "bytes & more", CUSTOMER, 0, i64::MAX), 7);
}

#[tokio::test]
async fn nothing_counted_is_zero_and_a_negative_total_bills_nothing() {
    let world = World::new();
    assert_eq!(world.counted().await, Ok(0));
    assert_eq!(world.send(&slice(0, -5)).await, Outcome::Delivered);
    assert_eq!(world.counted().await, Ok(-5));
    assert_eq!(world.fake.billed(KEY, EVENT, CUSTOMER, 0, i64::MAX), 0);
}

#[tokio::test]
async fn a_report_is_had_by_the_id_of_its_event() {
    let world = World::new();
    let identifier = slice(0, 1).identifier;
    let retried = format!("{identifier}-2");
    let names = [identifier.as_str(), retried.as_str()];
    let report =
        events::error_report("evt_1", "2026-10-06T12:00:00.5Z", METER, "timestamp_in_future", &names);
    world.fake.add_event(KEY, &report);
    world.fake.add_event(KEY, &events::event("evt_2", "invoice.created", NOW, serde_json::json!({})));
    world.fake.add_event(KEY, &{
        let mut thin = events::thin(&report);
        thin["id"] = "evt_3".into();
        thin
    });
    let report = world.stripe.error_report(&world.account, "evt_1").await.expect("a report");
    let slices: Vec<_> = report.samples.iter().map(|sample| reported(&sample.name)).collect();
    assert_eq!(slices, [Some(identifier.as_str()); 2], "both attempts are of one slice");
    for other in ["evt_2", "evt_3"] {
        let error = world.stripe.error_report(&world.account, other).await.expect_err(other);
        assert!(matches!(error, CallError::Again { .. }), "{error}");
    }
}

/// The way of a thread that must not wait.
#[test]
fn a_biller_tells_a_closure() {
    let world = World::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let biller: Box<dyn Biller> = Box::new(Spawned::new(world.stripe.clone(), runtime.handle().clone()));
    let (inbox, told) = channel();
    for at in 0..3 {
        let inbox = inbox.clone();
        let usage =
            Usage { customer: if at == 2 { "cus_2".into() } else { CUSTOMER.into() }, ..slice(at, 1) };
        biller.send(world.account.clone(), usage, Box::new(move |outcome| drop(inbox.send((at, outcome)))));
        // One at a time for a customer.
        let (told_at, outcome) = told.recv_timeout(Duration::from_secs(10)).expect("an outcome");
        assert_eq!((told_at, outcome), (at, Outcome::Delivered));
    }
    assert_eq!(world.total(), 2);
}

#[tokio::test]
async fn a_base_is_a_url_and_is_guarded() {
    let world = World::new();
    assert!(Stripe::new(outbound(Duration::from_secs(5)), "api.stripe.com").is_err());
    assert!(Stripe::new(outbound(Duration::from_secs(5)), "ftp://api.stripe.com").is_err());
    // A slash at the end is none.
    let base = format!("{}/", world.fake.base());
    let stripe = Stripe::new(outbound(Duration::from_secs(5)), &base).expect("a base");
    assert_eq!(stripe.send(&world.account, &slice(0, 1)).await, Outcome::Delivered);
    let elsewhere = Stripe::new(outbound(Duration::from_secs(5)), "http://127.0.0.2:9").expect("a base");
    let outcome = elsewhere.send(&world.account, &slice(0, 1)).await;
    assert!(matches!(outcome, Outcome::Again { .. }), "nothing was sent: {outcome:?}");
    // A key that no header can carry does not lead to a call either, and is not shown.
    let account = Account { secret_key: Plaintext("sk_test_canary\r\nx: y".into()), ..world.account.clone() };
    let outcome = world.stripe.send(&account, &slice(1, 1)).await;
    assert!(matches!(&outcome, Outcome::Again { reason, .. } if !reason.contains("canary")), "{outcome:?}");
    assert_eq!(world.fake.calls().len(), 1);
    assert_eq!(Micros::from_seconds(NOW), slice(0, 1).at);
}
