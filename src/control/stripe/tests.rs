//! Events of Stripe against a registry: what they end, whom they move to which plan, what they say. And the registry that the
//! tests of `subscriptions` use too.

use dataflows::types::{
    Business, Command, Customer, CustomerDetails, MetricType, Plan, SeriesKey, SeriesRecord, SeriesSpec,
    StripeIntegration, SubscriptionItem,
};

use super::super::{ReportChange, decode as decoded, encode};
use super::*;

/// A moment, in minutes.
pub(in crate::control) const fn minute(minutes: i64) -> Micros {
    Micros::from_seconds(minutes * 60)
}

/// A registry with a business and a customer of Stripe's, as the router leads it.
pub(in crate::control) struct World {
    pub registry: Registry,
    /// The last time entry.
    pub now: Micros,
    events: u32,
}

impl World {
    pub fn new() -> World {
        let mut world = World { registry: Registry::new(2, 0), now: Micros(0), events: 0 };
        world.pass(minute(100));
        let (business_name, email, created_at) = ("B".to_owned(), "b".to_owned(), Micros(0));
        world.define(&[
            Definition::BusinessPut(Business {
                business_id: "biz_1".to_owned(),
                business_name,
                email,
                created_at,
            }),
            Definition::CustomerPut(Customer {
                business_id: "biz_1".to_owned(),
                customer_id: "cust_1".to_owned(),
                customer_name: "C".to_owned(),
                created_at,
            }),
        ]);
        world.link(Some("cus_1"));
        world
    }

    /// Applies an epoch, through the journal's bytes; the series that it cuts.
    pub fn define(&mut self, definitions: &[Definition]) -> Vec<u32> {
        let journaled = decoded(&encode(definitions)).expect("this version's own");
        self.registry.set_now(self.now);
        let commands = journaled.iter().filter_map(|definition| self.registry.apply(definition));
        let commands: Vec<_> = commands.collect();
        self.cuts(commands).into_iter().map(|(series, _)| series).collect()
    }

    /// A time entry; the series that it cuts, and where, in minutes.
    pub fn pass(&mut self, at: Micros) -> Vec<(u32, i64)> {
        self.now = at;
        self.registry.pass(at);
        let commands = self.registry.end_periods(at);
        let minutes = |at: Option<Micros>| at.expect("time says where").0 / minute(1).0;
        self.cuts(commands).into_iter().map(|(series, at)| (series, minutes(at))).collect()
    }

    fn cuts(&self, commands: Vec<(usize, Command)>) -> Vec<(u32, Option<Micros>)> {
        let series = |worker, slot| {
            let is_it = |it: &&SeriesHandle| it.slot == slot && it.series.worker(2) == worker;
            self.registry.series().find(is_it).expect("only live series are cut").series.0
        };
        let cut = |(worker, command)| match command {
            Command::Cut { slot, at } => Some((series(worker, slot), at)),
            _ => None,
        };
        let mut cuts: Vec<_> = commands.into_iter().filter_map(cut).collect();
        cuts.sort_unstable();
        cuts
    }

    /// Says which of Stripe's customers ours is.
    pub fn link(&mut self, stripe_id: Option<&str>) {
        let known = self.registry.customer("biz_1", "cust_1").map(|known| known.details.clone());
        let details =
            CustomerDetails { stripe_customer_id: stripe_id.map(str::to_owned), ..known.unwrap_or_default() };
        let (business_id, customer_id) = ("biz_1".to_owned(), "cust_1".to_owned());
        self.define(&[Definition::CustomerDescribed { business_id, customer_id, details }]);
    }

    /// A series that the customer is billed by.
    pub fn series(&mut self, series: u32, price_id: Option<&str>) {
        self.define(&[billed(series, price_id)]);
    }

    /// An event; the series that it cuts, and what was kept of it.
    pub fn event(&mut self, what: StripeWhat) -> (Vec<u32>, StripeEvent) {
        self.events += 1;
        self.event_of(&format!("evt_{}", self.events), what)
    }

    fn event_of(&mut self, id: &str, what: StripeWhat) -> (Vec<u32>, StripeEvent) {
        let event = StripeEvent {
            business_id: "biz_1".to_owned(),
            event_id: id.to_owned(),
            event_type: "e".to_owned(),
            created_at: self.now,
            received_at: Micros(0),
            applied: false,
            reason: String::new(),
        };
        let change = StripeChange { event, what };
        let next = &mut self.registry.next_series();
        let definitions = decide(&self.registry, change, next, self.now).expect("decided");
        let cuts = self.define(&definitions);
        let kept = self.registry.stripe_events().get("biz_1", id).expect("it was kept");
        (cuts, kept.clone())
    }

    pub fn subscription(&mut self, subscription: Subscription, is_new: bool) -> (Vec<u32>, StripeEvent) {
        self.event(StripeWhat::Subscription { subscription, is_new })
    }

    fn invoice(&mut self, subscription: Option<&str>, boundary: i64) -> (Vec<u32>, StripeEvent) {
        self.event(StripeWhat::Invoice(invoice(subscription, Concerns::All, boundary)))
    }

    fn checkout(&mut self, customer_id: &str, stripe_id: &str) -> (Vec<u32>, StripeEvent) {
        self.event(StripeWhat::Checkout {
            customer_id: Some(customer_id.to_owned()),
            stripe_customer_id: Some(stripe_id.to_owned()),
        })
    }

    pub fn plan(&mut self, plan: &str, price: &str) {
        let (plan_id, plan_name) = (plan.to_owned(), plan.to_owned());
        let (business_id, stripe_price_id) = ("biz_1".to_owned(), Some(price.to_owned()));
        let plan = Plan { business_id, plan_id, plan_name, stripe_price_id, created_at: Micros(0) };
        self.define(&[Definition::PlanPut(plan)]);
    }

    /// The customer's plan and price, and when its subscription ends, in minutes.
    fn customer(&self) -> (Option<&str>, Option<&str>, Option<i64>) {
        let known = self.registry.customer("biz_1", "cust_1").expect("it is there");
        let ends_at = known.details.subscription_ends_at.map(|at| at.0 / minute(1).0);
        (known.plan_id.as_deref(), known.details.stripe_price_id.as_deref(), ends_at)
    }
}

pub(in crate::control) fn billed(series: u32, price_id: Option<&str>) -> Definition {
    let stripe = StripeIntegration {
        enabled: true,
        price_id: price_id.map(str::to_owned),
        overage: false,
        overage_threshold: None,
        scale: None,
    };
    let spec =
        SeriesSpec { metric_type: MetricType::StripeBilling, stripe: Some(stripe), ..SeriesSpec::default() };
    let key = SeriesKey {
        business_id: "biz_1".to_owned(),
        customer_id: Some("cust_1".to_owned()),
        metric_name: format!("m_{series}"),
    };
    Definition::SeriesCreated(SeriesRecord { series: SeriesId(series), key, spec, created_at: Micros(0) })
}

/// A subscription that runs, with prices and their periods in minutes.
pub(in crate::control) fn subscription(id: &str, prices: &[(&str, i64, i64)]) -> Subscription {
    let item = |&(price_id, start, end): &(&str, i64, i64)| SubscriptionItem {
        price_id: price_id.to_owned(),
        period: Some((minute(start), minute(end))),
    };
    Subscription {
        business_id: "biz_1".to_owned(),
        subscription_id: id.to_owned(),
        stripe_customer_id: "cus_1".to_owned(),
        standing: SubscriptionStanding::Running,
        created_at: minute(0),
        ends_at: None,
        said_at: minute(0),
        is_simulated: false,
        items: prices.iter().map(item).collect(),
    }
}

/// The same, over since then.
pub(in crate::control) fn over(subscription: Subscription, at: i64) -> Subscription {
    Subscription { standing: SubscriptionStanding::Over, ends_at: Some(minute(at)), ..subscription }
}

fn invoice(subscription: Option<&str>, concerns: Concerns, boundary: i64) -> BillingInvoice {
    BillingInvoice {
        stripe_customer_id: Some("cus_1".to_owned()),
        subscription_id: subscription.map(str::to_owned),
        concerns,
        boundary: minute(boundary),
        takes: Takes::Draft(None),
    }
}

/// The same, final.
fn finalized(subscription: Option<&str>, boundary: i64) -> BillingInvoice {
    BillingInvoice { takes: Takes::Nothing, ..invoice(subscription, Concerns::All, boundary) }
}

const NONE: [u32; 0] = [];

#[test]
fn an_invoice_ends_a_period_whose_end_was_not_known_once() {
    let mut world = World::new();
    world.series(1, None);
    world.series(2, Some("price_1"));
    let (cuts, event) = world.invoice(Some("sub_1"), 99);
    assert_eq!((&cuts[..], event.applied), (&[1, 2][..], true));
    assert_eq!(event.reason, "periods of series: 2 ended now");
    assert_eq!(event.received_at, world.now);
    let (cuts, event) = world.invoice(Some("sub_1"), 99);
    assert_eq!((&cuts[..], event.applied), (&NONE[..], true), "finalized: the same boundary");
    assert_eq!(event.reason, "periods of series: 2 ended at a known boundary");
    assert_eq!(world.invoice(Some("sub_1"), 98).0, NONE, "one that comes late ends nothing");
    assert_eq!(world.invoice(Some("sub_1"), 100).0, [1, 2]);
}

#[test]
fn an_invoice_confirms_the_end_that_a_subscription_told_before_and_behind_it() {
    let mut world = World::new();
    world.series(2, None);
    world.subscription(subscription("sub_1", &[("price_1", 90, 110)]), false);
    assert_eq!(world.invoice(Some("sub_1"), 110).0, NONE, "it will end by itself");
    assert_eq!(world.pass(minute(106)), [(2, 110)]);
    // One that comes between the cut and the end of which the store hears.
    world.series(3, None);
    assert_eq!(world.invoice(Some("sub_1"), 110).0, NONE);
    assert_eq!(world.pass(minute(110)), [(2, 110), (3, 110)]);
    assert_eq!(world.invoice(Some("sub_1"), 110).0, NONE, "it has ended");
    // An invoice of another end than the known one is news.
    assert_eq!(world.invoice(Some("sub_1"), 111).0, [2, 3]);
}

#[test]
fn what_an_event_has_ended_time_does_not_end_again() {
    let mut world = World::new();
    world.series(2, None);
    // Our clock is behind Stripe's.
    assert_eq!(world.invoice(Some("sub_1"), 102).0, [2]);
    world.subscription(subscription("sub_1", &[("price_1", 90, 102)]), false);
    assert_eq!(world.pass(minute(102)), []);
    world.subscription(subscription("sub_1", &[("price_1", 102, 120)]), false);
    assert_eq!(world.pass(minute(120)), [(2, 120)]);
}

#[test]
fn an_invoice_ends_only_what_it_concerns() {
    let mut world = World::new();
    world.series(1, Some("price_1"));
    world.series(2, Some("price_2"));
    world.series(3, Some("price_3"));
    world.subscription(subscription("sub_1", &[("price_1", 80, 300)]), false);
    world.subscription(subscription("sub_2", &[("price_2", 80, 300)]), false);
    let mut ends = |what: BillingInvoice| {
        let (cuts, event) = world.event(StripeWhat::Invoice(what));
        (cuts, event.applied, event.reason)
    };
    let unfollowing = ends(invoice(None, Concerns::Unfollowing, 97));
    assert_eq!(unfollowing.0, [3]);
    assert_eq!(unfollowing.2, "periods of series: 1 ended now, 2 are not of this invoice");
    let of_first = ends(invoice(Some("sub_1"), Concerns::Unfollowing, 98));
    assert_eq!((of_first.0, of_first.1), (vec![], false), "it does not have the price of what follows none");
    assert_eq!(ends(invoice(Some("sub_1"), Concerns::All, 98)).0, [1]);
    assert_eq!(ends(invoice(Some("sub_9"), Concerns::All, 98)).0, [3], "nobody told what it has");
    assert_eq!(ends(invoice(None, Concerns::All, 99)).0, [1, 2, 3]);
    let nothing = ends(invoice(Some("sub_1"), Concerns::Nothing, 100));
    assert_eq!((nothing.0, nothing.1), (vec![], false));
    let nobody = BillingInvoice { stripe_customer_id: None, ..invoice(None, Concerns::All, 100) };
    assert_eq!(ends(nobody), (vec![], false, "the invoice has no customer".to_owned()));
    let stranger = Some("cus_2".to_owned());
    let strange = ends(BillingInvoice { stripe_customer_id: stranger, ..invoice(None, Concerns::All, 100) });
    assert_eq!((strange.0, strange.1), (vec![], false));
}

#[test]
fn a_final_invoice_makes_its_period_final_wherever_it_was_cut() {
    let mut world = World::new();
    world.series(1, None);
    world.series(2, Some("price_1"));
    world.series(3, Some("price_2"));
    world.subscription(subscription("sub_1", &[("price_1", 90, 110)]), false);
    world.subscription(subscription("sub_2", &[("price_2", 90, 110)]), false);
    let is_final = |world: &World, series: u32, end: Micros, now: i64| {
        world.registry.is_finalized(SeriesId(series), end, minute(now))
    };
    world.pass(minute(110));
    world.event(StripeWhat::Invoice(invoice(Some("sub_1"), Concerns::All, 110)));
    assert!((1..=3).all(|series| !is_final(&world, series, minute(110), 112)), "a draft");
    world.now = minute(112);
    let (_, event) = world.event(StripeWhat::Invoice(finalized(Some("sub_1"), 110)));
    assert!(event.applied && event.reason.ends_with("what comes for them now is late"), "{}", event.reason);
    let finals = |world: &World| [1, 2, 3].map(|series| is_final(world, series, minute(110), 112));
    assert_eq!(
        finals(&world),
        [false, true, false],
        "the others are of the newer subscription, or of another"
    );
    let behind = Micros(minute(110).0 + 1);
    assert!(!is_final(&world, 2, behind, 112), "what ends later is of the next invoice");
    // Without an event an hour decides, and that does not depend on what was said of others.
    assert!(!is_final(&world, 3, minute(110), 169) && is_final(&world, 3, minute(110), 170));
    world.event(StripeWhat::Invoice(finalized(Some("sub_1"), 90)));
    assert!(is_final(&world, 2, minute(110), 112), "an older one takes nothing back");
}

#[test]
fn a_final_invoice_of_an_unknown_end_makes_final_what_it_has_cut_itself() {
    let is_final = |world: &World, end: Micros| world.registry.is_finalized(SeriesId(1), end, world.now);
    // Cut when the draft came; when the final one comes, all of that is final and nothing else.
    let mut world = World::new();
    world.series(1, None);
    assert_eq!(world.invoice(None, 99).0, [1]);
    let cut_at = world.now;
    world.now = minute(105);
    assert!(!is_final(&world, cut_at));
    assert_eq!(world.event(StripeWhat::Invoice(finalized(None, 99))).0, NONE);
    assert!(is_final(&world, cut_at) && is_final(&world, minute(105)) && !is_final(&world, minute(106)));
    // The final one comes alone: the cut is made where its entry arrives, which is a little behind the decision.
    assert_eq!(world.event(StripeWhat::Invoice(finalized(None, 104))).0, [1]);
    assert!(is_final(&world, Micros(world.now.0 + 9_000_000)) && !is_final(&world, minute(106)));
    // The draft comes more than an hour late.
    let late = BillingInvoice { takes: Takes::Draft(Some(minute(110))), ..finalized(None, 110) };
    world.now = Micros(minute(170).0 - 1);
    world.event(StripeWhat::Invoice(BillingInvoice { boundary: minute(109), ..late.clone() }));
    assert!(!is_final(&world, world.now));
    world.now = minute(170);
    world.event(StripeWhat::Invoice(late));
    assert!(is_final(&world, world.now));
    // What is said of a time that is simulated, or of no usage, is final when an event says so, or never.
    let mut world = World::new();
    world.series(1, None);
    let ahead = BillingInvoice { boundary: minute(9_000), ..finalized(None, 0) };
    for takes in [Takes::NoUsage, Takes::Draft(None), Takes::Nothing] {
        world.event(StripeWhat::Invoice(BillingInvoice { takes, ..ahead.clone() }));
        assert_eq!(is_final(&world, world.now), takes == Takes::Nothing, "{takes:?}");
    }
    assert!(!is_final(&world, minute(8_000 - 59)), "a time that is simulated is not ours");
}

#[test]
fn a_report_that_is_only_named_is_awaited_until_it_is_there() {
    let mut world = World::new();
    let found = |found: Result<reports::Samples, String>| ReportChange {
        business_id: "biz_1".to_owned(),
        event_id: "evt_1".to_owned(),
        found,
    };
    let settle = |world: &mut World, change: ReportChange| {
        let definitions = reports::settle(&world.registry, change, minute(200));
        world.define(&definitions);
        definitions.len()
    };
    assert_eq!(settle(&mut world, found(Ok(Vec::new()))), 0, "nobody awaits it");
    let (_, event) = world.event(StripeWhat::UncountedUnsaid);
    assert_eq!((event.applied, event.reason.as_str()), (false, "its report is asked for"));
    let awaited = |world: &World| world.registry.stripe_events().awaited().count();
    assert_eq!(awaited(&world), 1);
    let mut again = Registry::new(1, 0);
    for definition in &world.registry.export() {
        again.apply(definition);
    }
    assert_eq!(again.stripe_events().awaited().collect::<Vec<_>>(), [("biz_1", "evt_1")]);
    assert_eq!(settle(&mut world, found(Err("gone".to_owned()))), 1);
    assert_eq!(settle(&mut world, found(Ok(Vec::new()))), 0, "once");
    let known = world.registry.stripe_events().get("biz_1", "evt_1").expect("kept");
    assert_eq!((awaited(&world), known.reason.as_str()), (0, "Stripe gives no report: gone"));
    assert_eq!(known.received_at, event.received_at);
    assert_eq!(world.registry.stripe_events().list("biz_1", None, 9).len(), 1, "one event, read twice");
    for _ in 0..1_000 {
        world.event(StripeWhat::UncountedUnsaid);
    }
    let change = StripeChange { event, what: StripeWhat::UncountedUnsaid };
    let change =
        StripeChange { event: StripeEvent { event_id: "evt_more".to_owned(), ..change.event }, ..change };
    let decided = decide(&world.registry, change, &mut SeriesId(1), world.now);
    assert_eq!(decided, Err(ControlError::Overloaded), "Stripe comes again");
    world.define(&[Definition::BusinessDeleted { business_id: "biz_1".to_owned() }]);
    assert_eq!(awaited(&world), 0);
}

#[test]
fn an_event_that_was_read_or_is_older_than_the_last_changes_nothing() {
    let mut world = World::new();
    world.plan("pro", "price_1");
    world.plan("small", "price_2");
    let said = |at: i64, price: &str| Subscription {
        said_at: minute(at),
        ..subscription("sub_1", &[(price, 90, 110)])
    };
    assert!(world.subscription(said(5, "price_1"), false).1.applied);
    let (cuts, event) = world.subscription(said(4, "price_2"), true);
    assert_eq!((&cuts[..], event.applied), (&NONE[..], false));
    assert_eq!(event.reason, "a later event about the subscription was applied before");
    assert_eq!(world.customer().0, Some("pro"));
    world.subscription(said(5, "price_2"), false);
    assert_eq!(world.customer().0, Some("small"), "of one second, the one that comes later");
    let again = StripeWhat::Subscription { subscription: said(6, "price_1"), is_new: false };
    let event = world.event_of("evt_1", again);
    assert_eq!((world.customer().0, event.1.reason.as_str()), (Some("small"), ""), "evt_1 was read");
    let unknown = Registry::new(1, 0);
    let change = StripeChange { event: event.1, what: StripeWhat::Other };
    let refused = decide(&unknown, change, &mut SeriesId(1), minute(0));
    assert_eq!(refused, Err(ControlError::NoSuchBusiness));
}

#[test]
fn a_new_subscription_begins_a_period_once_whether_it_or_its_invoice_comes_first() {
    for invoice_first in [false, true] {
        let mut world = World::new();
        world.series(1, Some("price_1"));
        world.series(2, Some("price_2"));
        world.series(3, None);
        let new = subscription("sub_1", &[("price_1", 99, 200)]);
        let mut cuts = Vec::new();
        if invoice_first {
            cuts.extend(world.invoice(Some("sub_1"), 99).0);
            assert_eq!(cuts, [1, 2, 3], "nothing is known of the subscription");
            cuts.retain(|series| *series != 2);
        }
        cuts.extend(world.subscription(new, true).0);
        assert_eq!(cuts, [1, 3]);
        let (again, event) = world.invoice(Some("sub_1"), 99);
        assert_eq!((&again[..], event.applied), (&NONE[..], true));
        // An older one begins what has its price; what follows no price of its own goes on.
        let older = Subscription { created_at: minute(-1), ..subscription("sub_0", &[("price_2", 99, 200)]) };
        let of_price = if invoice_first { &NONE[..] } else { &[2] };
        assert_eq!(world.subscription(older, true).0, of_price);
        let newer = Subscription { created_at: minute(1), ..subscription("sub_2", &[("price_3", 100, 200)]) };
        assert_eq!(world.subscription(newer, true).0, [3]);
    }
}

#[test]
fn a_checkout_links_the_customer_and_what_was_said_before_counts() {
    let mut world = World::new();
    world.link(None);
    world.plan("pro", "price_1");
    world.series(1, None);
    let new = Subscription { ends_at: Some(minute(150)), ..subscription("sub_1", &[("price_1", 99, 200)]) };
    let (cuts, event) = world.subscription(new, true);
    assert_eq!((&cuts[..], event.applied, world.customer()), (&NONE[..], false, (None, None, None)));
    let (cuts, event) = world.checkout("cust_1", "cus_1");
    assert_eq!((&cuts[..], event.applied), (&[1][..], true), "the period begins now");
    assert_eq!(world.customer(), (Some("pro"), Some("price_1"), Some(150)));
    assert_eq!(world.checkout("cust_1", "cus_1").0, NONE, "nothing is new");
    assert_eq!(world.invoice(Some("sub_1"), 99).0, NONE, "the invoice confirms the beginning");
    assert!(!world.checkout("cust_2", "cus_1").1.applied);
    let (_, event) = world.event(StripeWhat::Checkout { customer_id: None, stripe_customer_id: None });
    assert!(!event.applied && event.reason.contains("client_reference_id"), "{}", event.reason);
    assert_eq!(world.event(StripeWhat::Other).1.reason, "nothing here follows from it");
}

#[test]
fn the_expiry_follows_a_cancellation_set_and_unset() {
    let mut world = World::new();
    let ending = |at: Option<i64>| Subscription { ends_at: at.map(minute), ..subscription("sub_1", &[]) };
    for at in [Some(150), None, Some(120), Some(130)] {
        assert!(world.subscription(ending(at), false).1.applied);
        assert_eq!(world.customer().2, at);
    }
    let undecided = |at| Subscription { standing: SubscriptionStanding::Undecided, ..ending(at) };
    world.subscription(undecided(None), false);
    assert_eq!(world.customer().2, Some(130), "paused changes nothing");
    // It was deleted without a word of when: then it was when that happened.
    let deleted = Subscription { ends_at: None, said_at: minute(101), ..over(ending(None), 0) };
    world.subscription(deleted, false);
    assert_eq!(world.customer().2, Some(101));
    world.pass(minute(101));
    assert!(world.registry.has_lapsed(world.registry.customer("biz_1", "cust_1").expect("there")));
}

#[test]
fn a_customer_does_not_expire_while_another_subscription_runs() {
    let mut world = World::new();
    world.plan("pro", "price_1");
    world.plan("small", "price_2");
    let first = subscription("sub_1", &[("price_1", 90, 110)]);
    let second = Subscription { created_at: minute(1), ..subscription("sub_2", &[("price_2", 90, 110)]) };
    world.subscription(first.clone(), true);
    // The second is decided to end; the first runs on.
    world.subscription(Subscription { ends_at: Some(minute(120)), ..second.clone() }, true);
    assert_eq!(world.customer(), (Some("small"), Some("price_2"), None));
    world.subscription(Subscription { ends_at: Some(minute(130)), ..first.clone() }, false);
    assert_eq!(world.customer().2, Some(130), "the last end of them");
    let (_, event) = world.subscription(over(second, 120), false);
    assert_eq!(event.reason, "another subscription of the customer runs on");
    assert_eq!(world.customer(), (Some("pro"), Some("price_1"), Some(130)), "it has the plan of that one");
    world.subscription(over(first, 115), false);
    assert_eq!(world.customer(), (Some("pro"), Some("price_1"), Some(120)), "the last of them");
}

#[test]
fn no_price_with_a_plan_or_several_leave_the_customer_where_it_is_and_say_so() {
    let mut world = World::new();
    world.plan("pro", "price_1");
    world.plan("small", "price_2");
    let with = |prices: &[&str]| {
        let prices: Vec<_> = prices.iter().map(|price| (*price, 90, 110)).collect();
        subscription("sub_1", &prices)
    };
    let (_, event) = world.subscription(with(&["price_9", "price_1"]), false);
    assert_eq!((world.customer(), event.reason.as_str()), ((Some("pro"), Some("price_1"), None), ""));
    let (_, event) = world.subscription(with(&["price_9"]), false);
    assert_eq!(world.customer().0, Some("pro"));
    assert_eq!(event.reason, "no price of the subscription has a plan: the customer's was kept");
    let (_, event) = world.subscription(with(&["price_1", "price_2"]), false);
    assert_eq!(world.customer().0, Some("pro"));
    assert_eq!(event.reason, "several prices of the subscription have plans: the customer's was kept");
}
