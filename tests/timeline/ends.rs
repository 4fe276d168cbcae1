//! A billing period whose end has passed while the service stood still: what it is asked first is of the new period, though no
//! time entry has been written yet.

use std::time::Duration;

use dataflows::types::{
    Action, Amount, CustomerDetails, Definition, Limit, MetricType, Micros, Operator, SeriesSpec,
    Subscription, SubscriptionItem, SubscriptionStanding,
};
use tracktags::admission::{AdmissionError, UpdateRequest};
use tracktags::clock::MockClock;
use tracktags::control::Origin;

use super::{NOON, config, define, start};

/// How far the clock jumps: over the moment when a known end is cut ahead, and over the end.
const JUMP: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_period_refuses_nothing_of_the_next_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(folder.path());
    let clock = MockClock::at(NOON);
    let (service, ..) = start(&config, &clock);
    let rooms = service.rooms(&config);
    let limit = Limit { value: Amount::from_units(5), operator: Operator::Gte, action: Action::Block };
    let spec =
        SeriesSpec { metric_type: MetricType::StripeBilling, limit: Some(limit), ..SeriesSpec::default() };
    let handle = define(&rooms, spec).await;
    let send = async |units: i64| {
        let (handle, amount) = (handle.clone(), Amount::from_units(units));
        let request =
            UpdateRequest { handle, blocks: true, amount, event_at: None, id: None, key: None, post: None };
        rooms.admission.update(&request).await
    };
    // What is refused, and what is not. A service that is left alone by a test that fails would never end.
    let mut seen = vec![(true, send(5).await.is_ok())];
    for period in 0..20 {
        let begins_at = Micros(NOON.0 + period * JUMP.as_micros() as i64);
        let end = Micros(begins_at.0 + JUMP.as_micros() as i64 / 2);
        let subscription = Subscription {
            business_id: "biz_demo".into(),
            subscription_id: "sub_1".into(),
            stripe_customer_id: "cus_1".into(),
            standing: SubscriptionStanding::Running,
            created_at: NOON,
            ends_at: None,
            said_at: begins_at,
            is_simulated: false,
            items: vec![SubscriptionItem { price_id: "price_1".into(), period: Some((begins_at, end)) }],
        };
        let described = Definition::CustomerDescribed {
            business_id: "biz_demo".into(),
            customer_id: "cust_123".into(),
            details: CustomerDetails {
                stripe_customer_id: Some("cus_1".into()),
                ..CustomerDetails::default()
            },
        };
        let definitions = vec![described, Definition::SubscriptionPut(subscription)];
        rooms.control.by(Origin::SERVER).define(definitions).await.expect("they are defined");
        let beyond = send(1).await;
        clock.advance(JUMP);
        seen.push((matches!(beyond, Err(AdmissionError::Refused(_))), send(5).await.is_ok()));
    }
    drop(rooms);
    tokio::task::spawn_blocking(move || service.stop(false)).await.expect("the service stops");
    assert_eq!(seen, vec![(true, true); seen.len()]);
}
