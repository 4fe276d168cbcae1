//! Where time ends billing periods, given subscriptions; and that a snapshot in between makes no difference.

use proptest::prelude::*;
use proptest::{collection, option, sample};

use super::super::stripe::tests::{World, billed, minute, over, subscription};
use super::super::{decode, encode};
use super::*;

fn put(subscription: Subscription) -> [Definition; 1] {
    [Definition::SubscriptionPut(subscription)]
}

fn told(series: u32, boundary: i64) -> Definition {
    Definition::BillingPeriodEnded(BillingPeriodEnd { series: SeriesId(series), boundary: minute(boundary) })
}

fn final_until(series: u32, until: i64) -> Definition {
    Definition::BillingPeriodFinal(BillingPeriodFinal { series: SeriesId(series), until: minute(until) })
}

#[test]
fn a_known_end_is_cut_five_minutes_ahead_and_told_at_the_end() {
    let mut world = World::new();
    world.series(1, Some("price_1"));
    world.series(2, Some("price_2"));
    world.define(&put(subscription("sub_1", &[("price_1", 90, 110)])));
    assert_eq!(world.registry.timed_due_at(), Some(minute(105)));
    let micros = |minutes: i64, rest: i64| Micros(minute(minutes).0 + rest);
    assert_eq!(world.pass(micros(105, -1)), []);
    assert_eq!(world.pass(minute(105)), [(1, 110)]);
    assert_eq!(world.registry.subscriptions().last_end(SeriesId(1)), Some(minute(110)));
    assert_eq!(world.registry.timed_due_at(), Some(minute(110)));
    // The subscription's new period is often heard of before the old one has ended.
    world.define(&put(subscription("sub_1", &[("price_1", 110, 130)])));
    assert_eq!(world.pass(micros(110, -1)), []);
    assert_eq!(world.pass(minute(110)), [(1, 110)], "so that the store hears of the new period");
    assert_eq!(world.pass(minute(111)), []);
    assert_eq!(world.registry.timed_due_at(), Some(minute(125)));
    // The service was away meanwhile: once is enough.
    assert_eq!(world.pass(minute(200)), [(1, 130)]);
    assert_eq!((world.pass(minute(201)), world.registry.timed_due_at()), (vec![], None));
}

#[test]
fn an_end_that_moves_before_it_is_cut_is_cut_where_it_is_then() {
    let mut world = World::new();
    world.series(1, None);
    for end in [130, 110, 120] {
        world.define(&put(subscription("sub_1", &[("price_1", 90, end)])));
        assert_eq!(world.registry.timed_due_at(), Some(minute(end - 5)));
    }
    assert_eq!(world.pass(minute(114)), []);
    assert_eq!(world.pass(minute(115)), [(1, 120)]);
    // The same end again is nothing new; one that is no later has been cut already.
    for end in [120, 119] {
        world.define(&put(subscription("sub_1", &[("price_1", 90, end)])));
        assert_eq!(world.pass(minute(116)), []);
    }
    world.define(&put(subscription("sub_1", &[("price_9", 90, 130)])));
    assert_eq!(world.pass(minute(125)), [(1, 130)], "what the series follows has another price now");
}

#[test]
fn an_end_that_is_past_when_it_becomes_known_splits_nothing_even_when_the_clock_goes_back() {
    let mut world = World::new();
    world.series(1, None);
    let past = put(subscription("sub_1", &[("price_1", 90, 100)]));
    world.define(&past);
    assert_eq!(world.registry.timed_due_at(), None);
    assert_eq!(world.pass(minute(90)), []);
    world.define(&past);
    assert_eq!(world.registry.timed_due_at(), None, "that it was past has been decided");
    assert_eq!(world.pass(minute(101)), []);
    assert_eq!(world.registry.subscriptions().last_end(SeriesId(1)), None);
    // Less than five minutes ahead is not past.
    world.define(&put(subscription("sub_1", &[("price_1", 100, 102)])));
    assert_eq!(world.pass(minute(101)), [(1, 102)]);
}

#[test]
fn each_subscription_ends_the_series_of_its_own_prices() {
    let mut world = World::new();
    world.series(1, Some("price_1"));
    world.series(2, Some("price_2"));
    world.series(3, Some("price_3"));
    world.series(4, Some("price_9"));
    world.define(&put(subscription("sub_1", &[("price_1", 90, 110), ("price_2", 90, 112)])));
    world.define(&put(subscription("sub_2", &[("price_3", 90, 114)])));
    assert_eq!(world.pass(minute(105)), [(1, 110)]);
    assert_eq!(world.pass(minute(107)), [(2, 112)]);
    assert_eq!(world.pass(minute(109)), [(3, 114)]);
    assert_eq!(world.pass(minute(120)), [(1, 110), (2, 112), (3, 114)]);
}

#[test]
fn a_series_without_a_price_follows_the_newest_that_is_not_over() {
    let mut world = World::new();
    world.series(1, None);
    let newer = Subscription { created_at: minute(1), ..subscription("sub_1", &[("price_1", 90, 120)]) };
    world.define(&put(newer.clone()));
    world.define(&put(subscription("sub_2", &[("price_2", 90, 110)])));
    assert_eq!(world.pass(minute(110)), [], "the older one's end");
    assert_eq!(world.pass(minute(115)), [(1, 120)]);
    let older = |end| put(subscription("sub_2", &[("price_2", 110, end)]));
    world.define(&older(130));
    world.define(&put(over(newer, 120)));
    assert_eq!(world.pass(minute(125)), [(1, 130)], "the newer one is over");
    // Without a word on the periods of some, the first item that has one.
    let mut some = subscription("sub_2", &[("price_0", 0, 0), ("price_2", 130, 150)]);
    some.items[0].period = None;
    world.define(&put(some));
    assert_eq!(world.pass(minute(145)), [(1, 150)]);
}

#[test]
fn what_is_over_before_the_end_of_its_period_ends_none_and_at_the_end_it_does() {
    for (over_at, cuts) in [(109, vec![]), (110, vec![(1, 110)]), (111, vec![(1, 110)])] {
        let mut world = World::new();
        world.series(1, Some("price_1"));
        let known = subscription("sub_1", &[("price_1", 90, 110)]);
        world.define(&put(known.clone()));
        world.define(&put(over(known, over_at)));
        assert_eq!(world.pass(minute(105)), cuts, "over at {over_at}");
    }
}

#[test]
fn simulated_time_ends_nothing_by_itself() {
    let mut world = World::new();
    world.series(1, None);
    let simulated = subscription("sub_1", &[("price_1", 90, 110)]);
    world.define(&put(Subscription { is_simulated: true, ..simulated }));
    assert_eq!((world.registry.timed_due_at(), world.pass(minute(110))), (None, vec![]));
}

#[test]
fn nobody_is_billed_by_a_subscription_of_another_customer_or_business() {
    let mut world = World::new();
    world.series(1, None);
    world.define(&put(subscription("sub_1", &[("price_1", 90, 110)])));
    world.link(Some("cus_2"));
    assert_eq!(world.pass(minute(105)), []);
    world.link(Some("cus_1"));
    assert_eq!(world.registry.subscriptions.parties.len(), 1, "nobody is cus_2 any more");
    assert_eq!(world.pass(minute(110)), [(1, 110)], "it is theirs when the end comes");
    world.define(&put(subscription("sub_1", &[("price_1", 110, 130)])));
    world.define(&[Definition::BusinessDeleted { business_id: "biz_1".to_owned() }]);
    assert_eq!((world.pass(minute(130)), world.registry.timed_due_at()), (vec![], None));
    let left = &world.registry.subscriptions;
    assert!(left.known.is_empty() && left.parties.is_empty() && left.settled.is_empty());
    world.define(&[final_until(1, 100)]);
    world.define(&[Definition::SeriesDeleted { series: SeriesId(1) }]);
    assert!(world.registry.subscriptions.finals.is_empty());
}

#[test]
fn what_a_store_gives_back_has_begun_in_time() {
    let mut world = World::new();
    world.series(1, None);
    world.series(2, Some("price_9"));
    world.define(&put(subscription("sub_1", &[("price_1", 90, 110)])));
    world.registry.assume_periods(minute(100));
    let last_end = |series| world.registry.subscriptions().last_end(SeriesId(series));
    assert_eq!((last_end(1), last_end(2)), (Some(minute(90)), None));
}

/// A registry as a start finds it in a snapshot of this one.
fn restored(world: &World) -> World {
    let ended = world.registry.subscriptions().ended_periods();
    let ended = postcard::to_stdvec(&ended).expect("writing to memory cannot fail");
    let definitions = decode(&encode(&world.registry.export())).expect("this version's own");
    let mut again = World::new();
    again.registry = Registry::new(2, 0);
    again.pass(world.now);
    for definition in &definitions {
        again.registry.apply(definition);
    }
    again.registry.restore_ended_periods(postcard::from_bytes(&ended).expect("this version's own"));
    again
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // A few dozen of them.
enum Step {
    Put(Subscription),
    Define(Definition),
    Link(bool),
    /// So many half minutes later, or earlier.
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    use SubscriptionStanding::*;
    let item = (1..3u8, option::weighted(0.9, 100..130i64)).prop_map(|(price, end)| SubscriptionItem {
        price_id: format!("price_{price}"),
        period: end.map(|end| (minute(end - 20), minute(end))),
    });
    let standing = sample::select(vec![Running, Running, Running, Over, Undecided]);
    let ends_at = option::of((100..130i64).prop_map(minute));
    let items = collection::vec(item, 0..3).prop_map(|mut items| {
        items.dedup_by(|one, other| one.price_id == other.price_id);
        items
    });
    let subscription = (1..3i64, standing, ends_at, prop::bool::weighted(0.1), items).prop_map(
        |(id, standing, ends_at, is_simulated, items)| Subscription {
            standing,
            created_at: minute(id),
            ends_at,
            is_simulated,
            items,
            ..subscription(&format!("sub_{id}"), &[])
        },
    );
    let price = option::of((1..3u8).prop_map(|price| format!("price_{price}")));
    prop_oneof![
        6 => subscription.prop_map(Step::Put),
        2 => (1..4u32, price).prop_map(|(series, price)| Step::Define(billed(series, price.as_deref()))),
        1 => (1..4u32).prop_map(|series| Step::Define(Definition::SeriesDeleted { series: SeriesId(series) })),
        2 => (1..4u32, 100..130i64).prop_map(|(series, boundary)| Step::Define(told(series, boundary))),
        1 => (1..4u32, 100..130i64).prop_map(|(series, until)| Step::Define(final_until(series, until))),
        1 => any::<bool>().prop_map(Step::Link),
        8 => (0..20i64).prop_map(Step::Pass),
        1 => (-20..0i64).prop_map(Step::Pass),
    ]
}

/// Takes a step, if it may be taken; what it cuts.
fn take(world: &mut World, step: &Step) -> Vec<(u32, i64)> {
    let is_live = |series: SeriesId| world.registry.by_id(series).is_some();
    match step {
        Step::Put(subscription) => drop(world.define(&put(subscription.clone()))),
        Step::Define(Definition::SeriesCreated(record)) if is_live(record.series) => {}
        Step::Define(Definition::BillingPeriodEnded(end)) if !is_live(end.series) => {}
        Step::Define(Definition::BillingPeriodFinal(last)) if !is_live(last.series) => {}
        Step::Define(definition) => drop(world.define(std::slice::from_ref(definition))),
        Step::Link(is_linked) => world.link(is_linked.then_some("cus_1")),
        Step::Pass(halves) => return world.pass(Micros(world.now.0 + halves * minute(1).0 / 2)),
    }
    Vec::new()
}

proptest! {
    /// At any place, and with the clock going back: what has been decided stays so.
    #[test]
    fn a_start_from_a_snapshot_goes_on_as_if_there_had_been_none(
        steps in collection::vec(step(), 1..60),
        place in any::<sample::Index>(),
    ) {
        let mut world = World::new();
        let (before, behind) = steps.split_at(place.index(steps.len()));
        before.iter().for_each(|step| drop(take(&mut world, step)));
        let mut again = restored(&world);
        for step in behind {
            prop_assert_eq!(again.registry.timed_due_at(), world.registry.timed_due_at());
            let ends = |world: &World| {
                [1, 2, 3].map(|series| world.registry.subscriptions().last_end(SeriesId(series)))
            };
            prop_assert_eq!(ends(&again), ends(&world));
            prop_assert_eq!(&again.registry.subscriptions.finals, &world.registry.subscriptions.finals);
            prop_assert_eq!(take(&mut again, step), take(&mut world, step), "{:?}", step);
        }
    }
}
