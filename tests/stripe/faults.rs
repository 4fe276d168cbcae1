//! What goes wrong between us and Stripe: what is known behind it, and that a further attempt counts once.

use std::time::Duration;

use tracktags::stripe::{CallError, Outcome, Stripe, Usage};

use super::fake::Fault;
use super::support::{World, outbound, slice};

fn is_unknown(outcome: &Outcome, answered: bool) -> bool {
    matches!(outcome, Outcome::Unknown { is_answered, .. } if *is_answered == answered)
}

/// Sends until it is delivered or a duplicate, as an outbox does: another key behind an answer that would be repeated.
async fn sent_again(world: &World, mut usage: Usage) -> Outcome {
    for _ in 0..5 {
        match world.send(&usage).await {
            Outcome::Unknown { is_answered: true, .. } => usage.failures += 1,
            Outcome::Unknown { .. } | Outcome::Again { .. } => (),
            outcome => return outcome,
        }
    }
    panic!("never delivered")
}

#[tokio::test]
async fn a_lost_answer_leaves_it_unknown_and_the_next_attempt_gets_that_answer() {
    let world = World::new();
    world.fake.fault("/meter_events", Fault::LoseAnswer);
    assert!(is_unknown(&world.send(&slice(0, 5)).await, false));
    assert_eq!(world.total(), 5, "it was applied");
    assert_eq!(world.send(&slice(0, 5)).await, Outcome::Delivered);
    assert!(world.last_call().is_replayed);
    assert_eq!(world.total(), 5);
}

#[tokio::test]
async fn a_connection_that_breaks_before_leaves_it_unknown_too() {
    let world = World::new();
    world.fake.fault("/meter_events", Fault::DropBefore);
    assert!(is_unknown(&world.send(&slice(0, 5)).await, false));
    assert_eq!(world.total(), 0);
    assert_eq!(sent_again(&world, slice(0, 5)).await, Outcome::Delivered);
    assert_eq!(world.total(), 5);
}

#[tokio::test]
async fn behind_a_500_the_same_key_gets_the_same_500_and_another_one_the_truth() {
    for (fault, applied, end) in [
        (Fault::FailBefore(500), 0, Outcome::Delivered),
        (Fault::FailAfter(500), 5, Outcome::Duplicate),
        (Fault::FailAfter(503), 5, Outcome::Duplicate),
    ] {
        let world = World::new();
        world.fake.fault("/meter_events", fault);
        assert!(is_unknown(&world.send(&slice(0, 5)).await, true));
        assert_eq!(world.total(), applied);
        assert!(is_unknown(&world.send(&slice(0, 5)).await, true), "the same key");
        assert!(world.last_call().is_replayed);
        assert_eq!(world.send(&Usage { failures: 1, ..slice(0, 5) }).await, end);
        assert_eq!(world.total(), 5);
    }
}

#[tokio::test]
async fn too_many_requests_are_tried_again_when_stripe_says() {
    let world = World::new();
    world.fake.fault("/meter_events", Fault::too_many(7));
    let outcome = world.send(&slice(0, 5)).await;
    assert!(matches!(outcome, Outcome::Again { after: Some(after), .. } if after == Duration::from_secs(7)));
    assert_eq!(sent_again(&world, slice(0, 5)).await, Outcome::Delivered);
    assert_eq!(world.total(), 5);
}

#[tokio::test]
async fn an_answer_may_say_whether_to_try_again() {
    let world = World::new();
    let says = |status, should_retry: &str| {
        Fault::Says(status, vec![("stripe-should-retry", should_retry.to_owned())], String::new())
    };
    world.fake.fault("/meter_events", says(400, "true"));
    assert!(matches!(world.send(&slice(0, 5)).await, Outcome::Again { .. }));
    world.fake.fault("/meter_events", says(409, "false"));
    assert!(matches!(world.send(&slice(0, 5)).await, Outcome::Dead { status: Some(409), .. }));
    world.fake.fault("/meter_events", says(503, "false"));
    assert!(is_unknown(&world.send(&slice(0, 5)).await, true));
}

#[tokio::test]
async fn an_answer_that_comes_too_late_leaves_it_unknown() {
    let world = World::patient(Duration::from_millis(500));
    world.fake.fault("/meter_events", Fault::Delay(Duration::from_millis(1_000)));
    assert!(is_unknown(&world.send(&slice(0, 5)).await, false));
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(sent_again(&world, slice(0, 5)).await, Outcome::Delivered);
    assert_eq!(world.total(), 5);
}

#[tokio::test]
async fn somebody_else_who_answers_has_delivered_nothing() {
    let world = World::new();
    for body in ["<html>Please log in</html>", "", "{}", r#"{"identifier":"tt_other"}"#] {
        world.fake.fault("/meter_events", Fault::Says(200, Vec::new(), body.to_owned()));
        assert!(is_unknown(&world.send(&slice(0, 5)).await, true), "{body}");
    }
    world
        .fake
        .fault("/meter_events", Fault::Says(302, vec![("location", "/elsewhere".into())], String::new()));
    assert!(is_unknown(&world.send(&slice(0, 5)).await, true));
    assert_eq!((world.total(), world.fake.calls().len()), (0, 5), "no redirect was followed");
}

#[tokio::test]
async fn nobody_there_leaves_it_unknown() {
    let world = World::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("http://{}", nobody.local_addr().expect("bound"));
    drop(nobody);
    let stripe = Stripe::new(outbound(Duration::from_secs(5)), &base).expect("a base");
    assert!(is_unknown(&stripe.send(&world.account, &slice(0, 5)).await, false));
    let error = stripe.price(&world.account, "price_1").await.expect_err("nobody");
    assert!(matches!(error, CallError::Again { .. }), "{error}");
}

#[tokio::test]
async fn questions_are_asked_again() {
    let world = World::new();
    for fault in [
        Fault::DropBefore,
        Fault::LoseAnswer,
        Fault::FailBefore(500),
        Fault::too_many(2),
        Fault::Says(409, Vec::new(), String::new()),
        Fault::Says(200, Vec::new(), "<html>".to_owned()),
        Fault::Says(200, Vec::new(), r#"{"data": [{"aggregated_value": "1"}]}"#.to_owned()),
        Fault::Says(200, Vec::new(), r#"{"data": [], "has_more": true}"#.to_owned()),
    ] {
        world.fake.fault("/event_summaries", fault.clone());
        let error = world.counted().await.expect_err("a fault");
        assert!(matches!(error, CallError::Again { .. }), "{fault:?}: {error}");
        assert_eq!(world.counted().await, Ok(0));
    }
}

/// What Stripe takes and does not count shows in its total only.
#[tokio::test]
async fn an_event_that_is_swallowed_is_not_in_the_total() {
    let world = World::new();
    world.fake.fault("/meter_events", Fault::Swallow);
    assert_eq!(world.send(&slice(0, 5)).await, Outcome::Delivered);
    assert_eq!(world.counted().await, Ok(0));
    assert_eq!(world.send(&slice(1, 3)).await, Outcome::Delivered);
    assert_eq!(world.counted().await, Ok(3));
}

/// Whatever goes wrong, an outbox that keeps to the outcomes counts every slice once.
#[tokio::test]
async fn every_slice_counts_once_through_all_faults() {
    let world = World::patient(Duration::from_millis(800));
    let faults = [
        None,
        Some(Fault::DropBefore),
        Some(Fault::LoseAnswer),
        Some(Fault::FailBefore(500)),
        Some(Fault::FailAfter(500)),
        Some(Fault::too_many(0)),
        Some(Fault::Says(200, Vec::new(), "ok".to_owned())),
    ];
    let mut expected = 0;
    for (at, (first, second)) in
        faults.iter().flat_map(|first| faults.iter().map(move |second| (first, second))).enumerate()
    {
        for fault in [first, second].into_iter().flatten() {
            world.fake.fault("/meter_events", fault.clone());
        }
        let usage = slice(at as u64, 4_i64.pow(at as u32 % 20));
        expected += i128::from(usage.value);
        let outcome = sent_again(&world, usage.clone()).await;
        assert!(
            matches!(outcome, Outcome::Delivered | Outcome::Duplicate),
            "{first:?}, {second:?}: {outcome:?}"
        );
        assert_eq!(world.total(), expected, "{first:?}, {second:?}");
        // Faults that were not met do not meet the next one.
        while world.fake.faults_left() > 0 {
            world.send(&usage).await;
        }
        assert_eq!(world.total(), expected);
    }
}
