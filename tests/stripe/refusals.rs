//! What Stripe refuses: every refusal of the fake, met by the room's calls, and by bare ones where the room would not send it.

use std::time::Duration;

use dataflows::types::Micros;
use tracktags::control::Plaintext;
use tracktags::stripe::{API_VERSION, Account, CallError, Outcome, Usage};
use ureq::Agent;

use super::fake::Fault;
use super::fake::account::Meter;
use super::support::{CUSTOMER, EVENT, KEY, NOW, World, dead, slice};

const DAY: i64 = 86_400;

/// A bare POST: status and body.
fn post(world: &World, path: &str, headers: &[(&str, &str)], form: &[(&str, &str)]) -> (u16, String) {
    let config =
        Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(10)));
    let agent: Agent = config.build().into();
    let mut request = agent.post(format!("{}{path}", world.fake.base()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let mut answer = request.send(body).expect("an answer");
    (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
}

const KEYED: [(&str, &str); 3] = [
    ("authorization", "Bearer sk_test_canary_0123456789"),
    ("stripe-version", API_VERSION),
    ("idempotency-key", "key_1"),
];

#[tokio::test]
async fn an_identifier_is_taken_once_in_24_hours() {
    let world = World::new();
    let again = |failures| Usage { failures, ..slice(0, 5) };
    assert_eq!(world.send(&again(0)).await, Outcome::Delivered);
    // The same key gets the same answer; another key is told that the event is there.
    assert_eq!(world.send(&again(0)).await, Outcome::Delivered);
    assert!(world.last_call().is_replayed);
    assert_eq!(world.send(&again(1)).await, Outcome::Duplicate);
    world.clock.advance(DAY - 1);
    assert_eq!(world.send(&again(2)).await, Outcome::Duplicate);
    assert_eq!(world.total(), 5);
    // Behind a day Stripe has forgotten: whoever sends it now bills it twice, which is why unknown ones are reconciled.
    world.clock.advance(1);
    assert_eq!(world.send(&again(0)).await, Outcome::Delivered);
    assert!(!world.last_call().is_replayed);
    assert_eq!((world.total(), world.fake.times(KEY, &slice(0, 5).identifier)), (10, 2));
}

#[tokio::test]
async fn times_are_within_35_days_back_and_5_minutes_ahead() {
    let world = World::new();
    for (offset, refusal) in [
        (-35 * DAY, None),
        (-35 * DAY - 1, Some("timestamp_too_far_in_past")),
        (300, None),
        (301, Some("timestamp_in_future")),
    ] {
        let usage = Usage { at: Micros::from_seconds(NOW + offset), ..slice(offset.unsigned_abs(), 1) };
        let outcome = world.send(&usage).await;
        match refusal {
            None => assert_eq!(outcome, Outcome::Delivered, "{offset}"),
            Some(code) => {
                let (status, reason) = dead(outcome);
                assert_eq!(status, Some(400), "{offset}");
                assert!(reason.contains(code), "{offset}: {reason}");
            }
        }
    }
    // A part of a second belongs to its second.
    let usage = Usage { at: Micros(Micros::from_seconds(NOW + 300).0 + 999_999), ..slice(9, 1) };
    assert_eq!(world.send(&usage).await, Outcome::Delivered);
}

#[tokio::test]
async fn who_is_not_there_is_dead() {
    let world = World::new();
    let customer = Usage { customer: "cus_nobody".into(), ..slice(0, 1) };
    let meter = Usage { event_name: "nothing".into(), ..slice(1, 1) };
    let key = Usage { customer_key: "who".into(), ..slice(2, 1) };
    world.fake.put_meter(KEY, "mtr_2", Meter { is_active: false, ..Meter::sums("archived") });
    let archived = Usage { event_name: "archived".into(), ..slice(3, 1) };
    for (usage, code) in [
        (customer, "meter_event_customer_not_found"),
        (meter, "no_meter"),
        (key, "meter_event_customer_not_found"),
        (archived, "archived_meter"),
    ] {
        let (status, reason) = dead(world.send(&usage).await);
        assert_eq!(status, Some(400));
        assert!(reason.contains(code), "{reason}");
    }
    assert_eq!(world.total(), 0);
}

#[tokio::test]
async fn a_key_that_stripe_does_not_know_is_dead_and_not_shown() {
    let world = World::new();
    let account = Account { secret_key: Plaintext("sk_test_canary_other".into()), ..world.account.clone() };
    let (status, reason) = dead(world.stripe.send(&account, &slice(0, 1)).await);
    assert_eq!(status, Some(401));
    assert!(reason.contains("Invalid API Key") && !reason.contains("canary"), "{reason}");
    let error = world.stripe.price(&account, "price_1").await.expect_err("no such key");
    assert!(matches!(&error, CallError::Refused { status: Some(401), reason } if !reason.contains("canary")));
    assert!(!format!("{account:?}").contains("canary"));
}

#[tokio::test]
async fn one_call_at_a_time_for_a_customer_and_a_meter() {
    let world = World::new();
    world.fake.add_meter(KEY, "mtr_2", "bytes");
    world.fake.fault("/meter_events", Fault::Delay(Duration::from_millis(700)));
    let (first, second, other) =
        (slice(0, 1), slice(1, 1), Usage { customer: "cus_2".into(), ..slice(2, 1) });
    let bytes = Usage { event_name: "bytes".into(), ..slice(3, 1) };
    let later = async {
        while world.fake.faults_left() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // While the first is under way: the same customer, another one, another meter, and the first again.
        (
            world.send(&second).await,
            world.send(&other).await,
            world.send(&bytes).await,
            world.send(&first).await,
        )
    };
    let (outcome, (second_outcome, other_outcome, bytes_outcome, same_outcome)) =
        tokio::join!(world.send(&first), later);
    assert_eq!([outcome, other_outcome, bytes_outcome], [const { Outcome::Delivered }; 3]);
    for (busy, status) in [(second_outcome, "429"), (same_outcome, "409")] {
        assert!(matches!(&busy, Outcome::Again { reason, .. } if reason.contains(status)), "{busy:?}");
    }
    assert_eq!(world.send(&second).await, Outcome::Delivered);
    assert_eq!(world.total(), 2);
}

#[tokio::test]
async fn a_rate_is_kept_by_the_second() {
    let world = World::new();
    world.fake.limit_rate(3);
    for at in 0..3 {
        assert_eq!(world.send(&slice(at, 1)).await, Outcome::Delivered);
    }
    assert!(matches!(world.send(&slice(3, 1)).await, Outcome::Again { .. }));
    world.clock.advance(1);
    assert_eq!(world.send(&slice(3, 1)).await, Outcome::Delivered);
}

/// The fake refuses what the room never sends.
#[test]
fn values_are_whole_numbers_of_at_most_15_digits() {
    let world = World::new();
    for (value, code) in [
        ("1.5", "meter_event_invalid_value"),
        ("", "meter_event_invalid_value"),
        ("-", "meter_event_invalid_value"),
        ("+1", "meter_event_invalid_value"),
        ("1e3", "meter_event_invalid_value"),
        ("1000000000000000", "meter_event_value_too_many_digits"),
        ("-1000000000000000", "meter_event_value_too_many_digits"),
    ] {
        let form = [
            ("event_name", EVENT),
            ("identifier", "a"),
            ("payload[stripe_customer_id]", CUSTOMER),
            ("payload[value]", value),
        ];
        let (status, body) = post(&world, "/v1/billing/meter_events", &KEYED, &form);
        assert!(status == 400 && body.contains(code), "{value}: {status} {body}");
    }
    assert_eq!(world.total(), 0);
}

#[test]
fn calls_carry_a_key_a_version_and_an_idempotency_key() {
    let world = World::new();
    let form = [
        ("event_name", EVENT),
        ("identifier", "a"),
        ("payload[stripe_customer_id]", CUSTOMER),
        ("payload[value]", "1"),
    ];
    for (missing, status) in [(0, 401), (1, 400), (2, 400)] {
        let headers: Vec<_> =
            KEYED.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, pair)| *pair).collect();
        assert_eq!(
            post(&world, "/v1/billing/meter_events", &headers, &form).0,
            status,
            "without {}",
            KEYED[missing].0
        );
    }
    assert_eq!(world.total(), 0);
    assert_eq!(post(&world, "/v1/billing/meter_events", &KEYED, &form).0, 200);
    // The same key with other parameters is a mistake.
    let mut other = form;
    other[3].1 = "2";
    let (status, body) = post(&world, "/v1/billing/meter_events", &KEYED, &other);
    assert!(status == 400 && body.contains("idempotency_error"), "{status} {body}");
    assert_eq!(world.total(), 1);
    assert_eq!(post(&world, "/v1/nothing", &KEYED[..2], &[]).0, 400);
    let other_key = [KEYED[0], KEYED[1], ("idempotency-key", "key_2")];
    assert_eq!(post(&world, "/v1/nothing", &other_key, &[]).0, 404);
}

#[tokio::test]
async fn an_event_is_cancelled_within_24_hours() {
    let world = World::new();
    let usage = slice(0, 5);
    assert_eq!(world.send(&usage).await, Outcome::Delivered);
    let cancel = |world: &World, key: &str| {
        let headers = [KEYED[0], KEYED[1], ("idempotency-key", key)];
        let form =
            [("event_name", EVENT), ("type", "cancel"), ("cancel[identifier]", usage.identifier.as_str())];
        post(world, "/v1/billing/meter_event_adjustments", &headers, &form).0
    };
    assert_eq!((cancel(&world, "c1"), world.total()), (200, 0));
    world.clock.advance(DAY);
    assert_eq!(cancel(&world, "c2"), 400);
}
