//! Slices against what was used: by example, and for any usage, ends of periods, moves of slices and restarts.

use std::collections::{BTreeMap, BTreeSet};

use dataflows::types::{
    Amount, BillingPeriodFinal, Business, Customer, CustomerDetails, Definition, MetricType, Micros,
    Operation, Sealed, SeriesId, SeriesKey, SeriesRecord, SeriesSpec, Slice, SliceMove, SliceState,
    StripeEvent, StripeIntegration, StripeKey, Subscription, SubscriptionItem, SubscriptionStanding, Tally,
};
use proptest::prelude::*;

use super::{CutRequest, Late, PeriodUsage, SeriesUsage};
use crate::control::change::Change;
use crate::control::{ControlError, Registry, StripeChange, StripeWhat};

const HOUR: i64 = 3_600;
const SERIES: SeriesId = SeriesId(1);

fn at(seconds: i64) -> Micros {
    Micros::from_seconds(1_790_000_000 + seconds)
}

fn amount(text: &str) -> Amount {
    text.parse().expect("a number")
}

fn key(metric_name: &str) -> SeriesKey {
    SeriesKey { business_id: "biz".into(), customer_id: Some("c".into()), metric_name: metric_name.into() }
}

fn spec(price_id: &str, change: impl FnOnce(&mut StripeIntegration)) -> SeriesSpec {
    let mut stripe = StripeIntegration {
        enabled: true,
        price_id: Some(price_id.into()),
        overage: false,
        overage_threshold: None,
        scale: None,
    };
    change(&mut stripe);
    SeriesSpec { metric_type: MetricType::StripeBilling, stripe: Some(stripe), ..SeriesSpec::default() }
}

fn name(business: &str, customer: &str, metric: &str, start: Micros, number: u64) -> String {
    format!("{business}/{customer}/{metric}/{}/{number}", start.0)
}

/// A registry with a series that is billed, and what its worker would say of it.
struct World {
    registry: Registry,
    /// All that was ever defined.
    journal: Vec<Definition>,
    periods: Vec<PeriodUsage>,
    late: Late,
    now: i64,
}

impl World {
    fn new(spec: SeriesSpec) -> World {
        let business_id = || "biz".to_owned();
        let (customer_id, created_at) = ("c".to_owned(), at(0));
        let details =
            CustomerDetails { stripe_customer_id: Some("cus".into()), ..CustomerDetails::default() };
        let sealed = || Sealed(vec![1]);
        let mut world = World {
            registry: Registry::new(1, 86_400),
            journal: Vec::new(),
            periods: vec![PeriodUsage { start: None, end: None, tally: Tally::EMPTY, used_until: None }],
            late: Late::NextPeriod,
            now: 0,
        };
        world.define(vec![
            Definition::BusinessPut(Business {
                business_id: business_id(),
                business_name: "B".into(),
                email: "b".into(),
                created_at,
            }),
            Definition::StripeKeyPut(StripeKey {
                business_id: business_id(),
                key_name: "main".into(),
                secret_key: sealed(),
                webhook_secret: sealed(),
                created_at,
            }),
            Definition::CustomerPut(Customer {
                business_id: business_id(),
                customer_id: customer_id.clone(),
                customer_name: "C".into(),
                created_at,
            }),
            Definition::CustomerDescribed { business_id: business_id(), customer_id, details },
            Definition::SeriesCreated(SeriesRecord { series: SERIES, key: key("m"), spec, created_at }),
        ]);
        world
    }

    fn define(&mut self, definitions: Vec<Definition>) {
        for definition in &definitions {
            self.registry.apply(definition);
        }
        self.journal.extend(definitions);
    }

    fn add(&mut self, period: usize, amount: Amount) {
        let period = &mut self.periods[period];
        period.tally = period.tally.merge(Tally::of(amount));
        period.used_until = Some(at(self.now));
    }

    /// The newest period ends now.
    fn end(&mut self) {
        self.now += 1;
        let boundary = at(self.now);
        let newest = self.periods.last_mut().expect("there is always one");
        newest.end = Some(boundary);
        self.periods.push(PeriodUsage {
            start: Some(boundary),
            end: None,
            tally: Tally::EMPTY,
            used_until: None,
        });
    }

    /// Cuts slices; those that are new.
    fn cut(&mut self) -> Vec<Slice> {
        let usage = vec![SeriesUsage { series: SERIES, periods: self.periods.clone() }];
        let change = Change::CutSlices(CutRequest { usage, late: self.late, identify: name });
        let decided = change.decide(&self.registry, &mut SeriesId(2), at(self.now)).expect("decided");
        let cut = decided.iter().flat_map(|definition| match definition {
            Definition::SlicesCut(slices) => slices.clone(),
            _ => Vec::new(),
        });
        let cut = cut.collect();
        self.define(decided);
        cut
    }

    fn quantities(&mut self) -> Vec<i64> {
        self.cut().iter().map(|slice| slice.quantity).collect()
    }

    fn moved(&mut self, identifier: &str, state: SliceState) {
        let moved = SliceMove { identifier: identifier.into(), state, at: at(self.now), reason: None };
        let change = Change::MoveSlices(vec![moved]);
        let decided = change.decide(&self.registry, &mut SeriesId(2), at(self.now)).expect("decided");
        self.define(decided);
    }

    /// A registry that begins from a snapshot of this one.
    fn restarted(&self) -> Registry {
        let mut registry = Registry::new(1, 86_400);
        for definition in self.registry.export() {
            registry.apply(&definition);
        }
        registry
    }
}

#[test]
fn each_unit_is_in_one_slice_and_the_end_is_rounded() {
    let mut world = World::new(spec("price", |stripe| stripe.scale = Some(amount("10"))));
    world.now = HOUR;
    world.add(0, amount("25.5"));
    let first = world.cut();
    assert_eq!(first.iter().map(|slice| (slice.number, slice.quantity)).collect::<Vec<_>>(), [(0, 2)]);
    assert_eq!(first[0].remainder, amount("5.5"));
    assert_eq!(
        (first[0].dated_at, first[0].identifier.as_str()),
        (at(HOUR - 1), &*name("biz", "c", "m", at(0), 0))
    );
    assert_eq!(world.quantities(), [0; 0], "nothing is new");
    world.add(0, amount("-20"));
    assert_eq!(world.quantities(), [-2], "taken back");
    world.add(0, amount("10"));
    world.end();
    assert_eq!(world.quantities(), [2], "15.5 is rounded");
    world.add(0, amount("-1"));
    world.add(1, amount("9"));
    assert_eq!(world.quantities(), [-1], "late usage of a draft: 14.5");
}

#[test]
fn what_comes_when_the_invoice_is_final_goes_into_the_next_period_or_is_held() {
    for (late, expected) in [(Late::NextPeriod, vec![5]), (Late::Hold, vec![])] {
        let mut world = World::new(spec("price", |_| {}));
        world.late = late;
        world.add(0, amount("10.25"));
        world.end();
        assert_eq!(world.quantities(), [10]);
        world.now += 2 * HOUR;
        world.add(0, amount("5"));
        let cut = world.cut();
        assert_eq!(cut.iter().map(|slice| slice.quantity).collect::<Vec<_>>(), expected, "{late:?}");
        assert!(cut.iter().all(|slice| slice.period_start == world.periods[1].start));
        assert_eq!(world.quantities(), [0; 0], "once");
        let handle = world.registry.by_id(SERIES).expect("it is there").clone();
        let view = world.registry.billed(&handle, &world.periods, at(world.now));
        let held = if late == Late::Hold { "5" } else { "0" };
        assert_eq!((view.periods[0].held, view.periods[0].is_final), (amount(held), true));
        let moved = if late == Late::Hold { "0" } else { "5" };
        assert_eq!(view.periods[1].period.carried_in, amount(moved));
    }
}

/// The service was away, or stood still, over the known end of a period: usage is billed before the worker has cut it there.
#[test]
fn what_is_cut_behind_a_known_end_that_no_worker_has_heard_of_is_of_the_period_before() {
    let end = 2 * HOUR + 100;
    for (later, whole, period_start) in [(60, vec![5], None), (9 * HOUR, vec![5], Some(at(end)))] {
        let mut world = World::new(spec("price", |_| {}));
        world.define(vec![Definition::SubscriptionPut(Subscription {
            business_id: "biz".into(),
            subscription_id: "sub".into(),
            stripe_customer_id: "cus".into(),
            standing: SubscriptionStanding::Running,
            created_at: at(0),
            ends_at: None,
            said_at: at(0),
            is_simulated: false,
            items: vec![SubscriptionItem { price_id: "price".into(), period: Some((at(0), at(end))) }],
        })]);
        world.now = end - 10;
        world.add(0, amount("4.9"));
        // Of a flush window that the end is in.
        world.periods[0].used_until = Some(at(3 * HOUR));
        world.now = end + later;
        let cut = world.cut();
        assert_eq!(cut.iter().map(|slice| slice.quantity).collect::<Vec<_>>(), whole);
        assert_eq!((cut[0].period_start, cut[0].dated_at < at(end)), (period_start, later == 60));
        world.registry.pass(at(world.now));
        world.registry.end_periods(at(world.now));
        assert_eq!(world.quantities(), [0; 0], "the worker has not heard yet");
        world.periods[0].end = Some(at(end));
        let new = PeriodUsage { start: Some(at(end)), end: None, tally: Tally::EMPTY, used_until: None };
        world.periods.push(new);
        assert_eq!(world.quantities(), [0; 0], "nothing is new");
        world.add(1, amount("1"));
        assert_eq!(world.quantities(), [1]);
    }
}

#[test]
fn an_invoice_that_is_final_early_sends_what_was_not_cut_into_the_next_period() {
    let mut world = World::new(spec("price", |_| {}));
    world.add(0, amount("10.25"));
    world.end();
    assert_eq!(world.quantities(), [10]);
    world.add(0, amount("3"));
    let until = at(world.now);
    world.define(vec![Definition::BillingPeriodFinal(BillingPeriodFinal { series: SERIES, until })]);
    world.now += 1;
    world.add(0, amount("4"));
    world.registry = world.restarted();
    let cut = world.cut();
    assert_eq!(cut.iter().map(|slice| slice.quantity).collect::<Vec<_>>(), [7]);
    assert_eq!(cut[0].period_start, Some(until), "its own is final, minutes behind its end");
    world.end();
    world.add(1, amount("2"));
    assert_eq!(world.quantities(), [2], "the next one is a draft");
}

#[test]
fn half_a_unit_that_is_late_is_not_carried_to_and_fro() {
    let mut world = World::new(spec("price", |stripe| stripe.scale = Some(amount("10"))));
    world.add(0, amount("14"));
    world.end();
    assert_eq!(world.quantities(), [1]);
    world.now += 2 * HOUR;
    // All of it would have been 1.5, which is 2: but one is billed, and of the half that is left none is.
    world.add(0, amount("1"));
    for _ in 0..3 {
        assert_eq!(world.quantities(), [0; 0]);
        let carried = world.registry.slices().period(SERIES, None).map(|period| period.carried_out);
        assert_eq!(carried, Some(Amount::ZERO));
    }
    world.add(0, amount("1"));
    assert_eq!((world.quantities(), world.quantities()), (vec![1], vec![]));
}

#[test]
fn what_an_ended_period_has_used_is_known_when_its_worker_has_let_it_go() {
    let mut world = World::new(spec("price", |stripe| stripe.scale = Some(amount("10"))));
    world.add(0, amount("11"));
    world.end();
    assert_eq!(world.quantities(), [1]);
    world.now += 2 * HOUR;
    world.add(0, amount("1"));
    assert_eq!(world.quantities(), [0; 0], "too little to be carried");
    world.periods.remove(0);
    let handle = world.registry.by_id(SERIES).expect("it is there");
    let view = world.registry.billed(handle, &world.periods, at(world.now));
    let ended = &view.periods[0].period;
    assert_eq!((ended.usage, ended.remainder()), (amount("12"), amount("2")));
}

#[test]
fn a_period_below_zero_bills_nothing_and_its_rest_is_carried() {
    let mut world = World::new(spec("price", |_| {}));
    world.add(0, amount("-7"));
    world.end();
    assert_eq!(world.quantities(), [0; 0]);
    world.now += 2 * HOUR;
    world.add(1, amount("10"));
    assert_eq!(world.quantities(), [3]);
}

#[test]
fn of_overage_only_what_lies_beyond_is_billed_and_another_plan_is_for_the_next_period() {
    let overage = |stripe: &mut StripeIntegration| {
        (stripe.overage, stripe.overage_threshold) = (true, Some(amount("100")));
    };
    let mut world = World::new(spec("price", overage));
    world.add(0, amount("99"));
    assert_eq!(world.quantities(), [0; 0]);
    world.add(0, amount("6"));
    assert_eq!(world.quantities(), [5]);
    world.end();
    assert_eq!(world.quantities(), [0; 0]);
    let cheaper =
        spec("price", |stripe| (stripe.overage, stripe.overage_threshold) = (true, Some(amount("10"))));
    world.define(vec![Definition::SeriesChanged { series: SERIES, spec: cheaper }]);
    world.add(1, amount("12"));
    assert_eq!(world.quantities(), [2], "the first period stays at 5");
    let no_threshold = spec("price", |stripe| stripe.overage = true);
    world.define(vec![Definition::SeriesChanged { series: SERIES, spec: no_threshold }]);
    world.add(1, amount("12"));
    assert_eq!(world.quantities(), [0; 0], "beyond what?");
}

#[test]
fn a_cleanup_takes_nothing_back() {
    let mut world = World::new(SeriesSpec { cleanup_after_days: Some(1), ..spec("price", |_| {}) });
    world.add(0, amount("30"));
    assert_eq!(world.quantities(), [30]);
    let periods = std::mem::take(&mut world.periods);
    world.now += 30 * HOUR;
    assert_eq!(world.quantities(), [0; 0], "the period is not in memory any more");
    world.periods = vec![PeriodUsage { tally: Tally::EMPTY, ..periods[0] }];
    world.add(0, amount("4"));
    assert_eq!(world.quantities(), [4]);
}

#[test]
fn an_open_period_is_not_owed_a_slice_for_every_hour_that_the_biller_is_away() {
    let mut world = World::new(spec("price", |_| {}));
    let mut cut = 0;
    for _ in 0..100 {
        world.now += HOUR;
        world.add(0, amount("1"));
        cut += world.cut().len();
    }
    assert_eq!(cut, 24);
    world.end();
    assert_eq!(world.quantities(), [76], "the rest goes at the end");
}

#[test]
fn a_business_takes_its_slices_along_and_a_series_does_not() {
    let mut world = World::new(spec("price", |_| {}));
    world.add(0, amount("3"));
    let identifier = world.cut().remove(0).identifier;
    world.define(vec![Definition::SeriesDeleted { series: SERIES }]);
    assert_eq!(world.quantities(), [0; 0]);
    assert_eq!(world.registry.slices().waiting(0, 10).0.len(), 1, "it is sent all the same");
    world.moved(&identifier, SliceState::Dead);
    assert_eq!(world.registry.slices().counts().dead, 1);
    world.define(vec![Definition::BusinessDeleted { business_id: "biz".into() }]);
    assert_eq!(world.registry.slices().counts(), super::Counts::default());
    assert!(world.registry.slices().of_identifier(&identifier).is_none());
}

#[test]
fn a_price_bills_one_metric_of_a_customer() {
    let world = World::new(spec("price", |_| {}));
    let create = |metric_name: &str, price: &str| {
        let change = Change::CreateSeries { key: key(metric_name), spec: spec(price, |_| {}) };
        change.decide(&world.registry, &mut SeriesId(2), at(0)).map(|decided| decided.len())
    };
    assert_eq!(create("other", "price"), Err(ControlError::PriceTaken));
    assert_eq!(create("other", "price_2"), Ok(1));
    assert_eq!(create("m", "price"), Ok(0), "it is there");
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// So much later, so much is used: in the newest period, or in the one before.
    Used(i64, i128, bool),
    Cut,
    End,
    /// The slice of that place comes to a state.
    Moved(usize, SliceState),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    use SliceState::{Acked, Dead, New, Sending, Unknown};
    let state = prop_oneof![Just(New), Just(Sending), Just(Acked), Just(Unknown), Just(Dead)];
    let amount = prop_oneof![
        6 => 0i128..5_000_000_000_000,
        1 => -4_000_000_000_000i128..0,
        1 => (0i128..1_000_000).prop_map(|units| units * 1_000_000_000_000_000_000),
    ];
    prop_oneof![
        8 => (0i64..4_000, amount, any::<bool>()).prop_map(|(later, amount, late)| Event::Used(later, amount, late)),
        4 => Just(Event::Cut),
        1 => Just(Event::End),
        2 => (any::<prop::sample::Index>(), state).prop_map(|(index, state)| Event::Moved(index.index(1_000), state)),
        1 => Just(Event::Restart),
    ]
}

proptest! {
    /// Slices of all periods and what is in none are what was used; no name is of two slices; a replay and a restart
    /// come to the same.
    #[test]
    fn slices_add_up_to_what_was_used(
        events in proptest::collection::vec(event(), 1..60),
        scale in prop_oneof![Just(Amount::UNIT), 1i128..3_000_000_000_000],
        count in any::<bool>(),
        hold in any::<bool>(),
    ) {
        let operation = if count { Operation::Count } else { Operation::Sum };
        let scale = Amount(scale);
        let mut world =
            World::new(SeriesSpec { operation, ..spec("price", |stripe| stripe.scale = Some(scale)) });
        world.late = if hold { Late::Hold } else { Late::NextPeriod };
        let mut slices: BTreeMap<String, Slice> = BTreeMap::new();
        for event in events {
            match event {
                Event::Used(later, amount, late) => {
                    world.now += later;
                    let newest = world.periods.len() - 1;
                    world.add(newest.saturating_sub(usize::from(late)), Amount(amount));
                }
                Event::Cut => {
                    for slice in world.cut() {
                        prop_assert!(slice.quantity != 0 && slice.quantity.abs() <= super::QUANTITY_MAX);
                        let known = slices.insert(slice.identifier.clone(), slice);
                        prop_assert!(known.is_none(), "a name twice: {known:?}");
                    }
                }
                Event::End => world.end(),
                Event::Moved(place, state) => {
                    let identifier = slices.keys().nth(place % slices.len().max(1)).cloned();
                    identifier.into_iter().for_each(|identifier| world.moved(&identifier, state));
                }
                Event::Restart => world.registry = world.restarted(),
            }
            let mut of_periods: BTreeMap<Option<Micros>, i128> = BTreeMap::new();
            for slice in slices.values() {
                *of_periods.entry(slice.period_start).or_default() += i128::from(slice.quantity);
            }
            for period in world.registry.slices().periods(SERIES) {
                prop_assert_eq!(period.units, of_periods.get(&period.start).copied().unwrap_or_default());
                prop_assert!(period.units >= 0);
            }
        }
        world.cut();
        let handle = world.registry.by_id(SERIES).expect("it is there").clone();
        let view = world.registry.billed(&handle, &world.periods, at(world.now));
        let used: i128 = world
            .periods
            .iter()
            .map(|it| if count { i128::from(it.tally.count) * Amount::UNIT } else { it.tally.sum.0 })
            .sum();
        let billed: i128 = view.periods.iter().map(|it| it.period.units * scale.0 + it.period.remainder().0).sum();
        prop_assert_eq!(billed, used);
        for it in &view.periods {
            prop_assert_eq!(it.exported + it.pending + it.dead, it.period.units);
        }
        let mut replayed = Registry::new(1, 86_400);
        for definition in &world.journal {
            replayed.apply(definition);
        }
        let states = |registry: &Registry| {
            let of = |identifier: &String| registry.slices().of_identifier(identifier).map(|kept| (kept.state, kept.sent_at));
            slices.keys().map(of).collect::<Vec<_>>()
        };
        prop_assert_eq!(states(&replayed), states(&world.registry));
        let ledger = |registry: &Registry| registry.slices().periods(SERIES).cloned().collect::<Vec<_>>();
        prop_assert_eq!(ledger(&replayed), ledger(&world.registry));
        let waiting = |registry: &Registry| {
            let (kept, _) = registry.slices().waiting(0, 10_000);
            kept.into_iter().map(|kept| kept.slice.identifier.clone()).collect::<Vec<_>>()
        };
        prop_assert_eq!(waiting(&replayed), waiting(&world.registry));
        let names: BTreeSet<_> = waiting(&world.registry).into_iter().collect();
        prop_assert_eq!(names.len(), waiting(&world.registry).len());
    }
}

#[test]
fn a_slice_that_stripe_has_not_counted_is_dead_and_nobody_elses_is() {
    let mut world = World::new(spec("price", |_| {}));
    world.add(0, amount("5"));
    let identifier = world.cut().remove(0).identifier;
    world.moved(&identifier, SliceState::Acked);
    let event = |id: &str| StripeEvent {
        business_id: "biz".into(),
        event_id: id.into(),
        event_type: "v1.billing.meter.error_report_triggered".into(),
        created_at: at(0),
        received_at: at(0),
        applied: false,
        reason: String::new(),
    };
    for (id, named, applied) in [("evt_1", "tt_of_nobody", false), ("evt_2", identifier.as_str(), true)] {
        let what = StripeWhat::Uncounted(vec![(named.to_owned(), "timestamp_too_far_in_past".to_owned())]);
        let change = Change::Stripe(StripeChange { event: event(id), what });
        let decided = change.decide(&world.registry, &mut SeriesId(2), at(world.now)).expect("decided");
        world.define(decided);
        assert_eq!(world.registry.stripe_events().get("biz", id).map(|event| event.applied), Some(applied));
    }
    assert_eq!(world.registry.slices().counts().dead, 1);
    // The answer to a further attempt comes behind the report.
    for state in [SliceState::Acked, SliceState::Unknown] {
        let moves =
            vec![SliceMove { identifier: identifier.clone(), state, at: at(world.now), reason: None }];
        let decided = Change::MoveSlices(moves).decide(&world.registry, &mut SeriesId(2), at(world.now));
        assert_eq!(decided, Ok(Vec::new()), "what is dead stays so");
    }
}
