//! One subscription's events in any order: what is known behind the last of them is what it would be had they come as they
//! happened. What passes in between, a boundary above all, cannot be made up for and does not here.
//!
//! Not drawn, since no order of arrival tells it: two changes of one second; prices that change together with a status that
//! says nothing, and prices without a plan, whose customer keeps what an event before them said.

use dataflows::types::SubscriptionItem;
use proptest::prelude::*;
use proptest::{collection, option, sample};

use super::tests::{World, minute, subscription};
use super::*;

/// An event: the subscription as it is then, and whether it has just been made.
type Said = (Subscription, bool);

/// What happens next: so many seconds later, another status, price, end, and where the period goes to.
type Step = (i64, SubscriptionStanding, Option<u8>, Option<i64>, Option<i64>);

fn step() -> impl Strategy<Value = Step> {
    use SubscriptionStanding::*;
    (
        1..3i64,
        sample::select(vec![Running, Running, Running, Undecided, Over]),
        option::weighted(0.4, 1..3u8),
        option::weighted(0.3, 300..400i64),
        option::weighted(0.3, 300..400i64),
    )
}

/// The events of a subscription as they happen; the last may be its end.
fn life() -> impl Strategy<Value = Vec<Said>> {
    let first = sample::select(vec![SubscriptionStanding::Running, SubscriptionStanding::Undecided]);
    let steps = collection::vec(step(), 0..5);
    (first, steps, any::<bool>(), 0..2i64, any::<bool>()).prop_map(|(first, steps, ends, gap, at_once)| {
        let start = minute(99);
        let item = |price: u8, end: i64| SubscriptionItem {
            price_id: format!("price_{price}"),
            period: Some((start, minute(end))),
        };
        let made = Subscription {
            standing: first,
            said_at: start,
            created_at: start,
            items: vec![item(1, 350)],
            ..subscription("sub_1", &[])
        };
        let (mut price, mut end, mut said) = (1, 350, vec![(made.clone(), true)]);
        let later =
            |known: &Subscription, seconds: i64| Micros(known.said_at.0 + seconds * Micros::PER_SECOND);
        for (at, (seconds, standing, new_price, ends_at, new_end)) in steps.into_iter().enumerate() {
            let known = said.last().expect("it was made").0.clone();
            if standing == SubscriptionStanding::Running {
                price = new_price.unwrap_or(price);
            }
            end = new_end.unwrap_or(end);
            let said_at = later(&known, if at == 0 && at_once { 0 } else { seconds });
            let ends_at = match standing {
                SubscriptionStanding::Over => Some(said_at),
                _ => ends_at.map(minute),
            };
            let now = Subscription { standing, said_at, ends_at, items: vec![item(price, end)], ..known };
            said.push((now, false));
        }
        if ends {
            let known = said.last().expect("it was made").0.clone();
            let said_at = later(&known, gap);
            let standing = SubscriptionStanding::Over;
            said.push((Subscription { standing, said_at, ends_at: Some(said_at), ..known }, false));
        }
        said
    })
}

/// What is known behind the events: plan, price and expiry of the customer, the last boundary of each series, the next thing
/// that time will do, and the subscription.
fn known_behind(said: &[Said]) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut world = World::new();
    world.plan("small", "price_1");
    world.plan("great", "price_2");
    world.series(1, None);
    world.series(2, Some("price_1"));
    world.series(3, Some("price_2"));
    for (subscription, is_new) in said {
        world.subscription(subscription.clone(), *is_new);
    }
    let record = world.registry.customer("biz_1", "cust_1").expect("it is there");
    let ends = [1, 2, 3].map(|series| world.registry.subscriptions().last_end(SeriesId(series)));
    let known = world.registry.subscriptions().get("biz_1", "sub_1").cloned();
    (record.plan_id.clone(), record.details.clone(), ends, world.registry.timed_due_at(), known)
}

#[test]
fn a_change_that_comes_before_its_subscription_is_made_changes_nothing_of_it() {
    let made = Subscription { said_at: minute(99), ..subscription("sub_1", &[("price_1", 99, 350)]) };
    let changed = Subscription { said_at: minute(100), ..subscription("sub_1", &[("price_2", 99, 360)]) };
    let said = [(made, true), (changed, false)];
    let reversed: Vec<_> = said.iter().rev().cloned().collect();
    assert_eq!(known_behind(&said), known_behind(&reversed));
    let mut world = World::new();
    world.series(1, None);
    assert_eq!(world.subscription(said[1].0.clone(), false).0, [0; 0]);
    let (cuts, event) = world.subscription(said[0].0.clone(), true);
    assert_eq!((cuts, event.applied), (vec![1], true), "it begins the period all the same");
    assert_eq!(event.reason, "a later event about the subscription was applied before");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn events_of_a_subscription_come_to_the_same_in_any_order(
        (said, shuffled) in life().prop_flat_map(|said| {
            let shuffled = Just(said.clone()).prop_shuffle();
            (Just(said), shuffled)
        }),
    ) {
        prop_assert_eq!(known_behind(&shuffled), known_behind(&said), "{:#?}", shuffled);
    }
}
