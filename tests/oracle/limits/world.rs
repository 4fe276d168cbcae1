//! What proptest draws, and what it means: tenants with customers, plans, prices, limits and series, as facts.
//!
//! A drawn change that makes no sense in the world as it is, or that is not allowed there, changes nothing; so that any
//! part of a history is a history. Numbers of plans are given again, those of series are not.
//!
//! | | of business b |
//! |---|---|
//! | customers 0 to 5, plans 0 to 7, prices 0 to 3 | those whose number is b, modulo 2 |
//! | names | `b * METRICS + metric` |

use std::collections::{BTreeMap, BTreeSet};

use dataflows::reference::Change;
use dataflows::types::{
    Action, Amount, EffectiveLimit, Fact, Limit, LimitSource, MetricType, Notify, Operation, Operator, Place,
    SeriesId, Shape, Span,
};
use proptest::prelude::*;

pub const CUSTOMERS: u32 = 6;
const BUSINESSES: u32 = 2;
const PLANS: u32 = 8;
const PRICES: u32 = 4;
const METRICS: u32 = 2;

/// A series by name: business, customer, metric.
pub type Key = (u32, Option<u32>, u32);

/// A limit without its source.
pub type Terms = (Limit, Notify);

/// One change of the world.
#[derive(Clone, Debug)]
pub enum Draw {
    Open(Key, usize, Option<Terms>),
    Close(Key),
    Own(Key, Option<Terms>),
    /// The plan and the price of a customer that is there or not.
    Customer(u32, Option<u32>, Option<u32>),
    Lapsed(u32, bool),
    CustomerDeleted(u32),
    /// A plan with a price or none.
    Plan(u32, Option<u32>),
    PlanDeleted(u32),
    PlanLimit(u32, u32, Option<Terms>),
    Default(u32, u32, Option<Terms>),
}

fn terms() -> impl Strategy<Value = Terms> {
    let actions = prop_oneof![6 => Just(Action::Block), 1 => Just(Action::Deny), 1 => Just(Action::Allow), 1 => Just(Action::Webhook)];
    let operators = prop_oneof![6 => Just(Operator::Gte), 2 => Just(Operator::Gt), 1 => Just(Operator::Lte), 1 => Just(Operator::Eq)];
    let percentages =
        prop_oneof![Just(Notify::NONE), Just(Notify::new(&[80])), Just(Notify::new(&[50, 100]))];
    (0i64..5, operators, actions, percentages).prop_map(|(tens, operator, action, notify)| {
        (Limit { value: Amount::from_units(10 * tens), operator, action }, notify)
    })
}

fn key() -> impl Strategy<Value = Key> {
    let customers = prop_oneof![1 => Just(None), 6 => (0..CUSTOMERS).prop_map(Some)];
    (0..BUSINESSES, customers, 0..METRICS).prop_map(|(business, customer, metric)| {
        (customer.unwrap_or(business) % BUSINESSES, customer, metric)
    })
}

/// One change.
pub fn draw() -> impl Strategy<Value = Draw> {
    let few = || proptest::option::weighted(0.6, terms());
    let most = || proptest::option::weighted(0.75, terms());
    let plan = || 0..PLANS;
    prop_oneof![
        4 => (key(), 0..SHAPES.len(), few()).prop_map(|(key, shape, own)| Draw::Open(key, shape, own)),
        1 => key().prop_map(Draw::Close),
        2 => (key(), few()).prop_map(|(key, own)| Draw::Own(key, own)),
        4 => (0..CUSTOMERS, proptest::option::of(plan()), proptest::option::of(0..PRICES))
            .prop_map(|(customer, plan, price)| Draw::Customer(customer, plan, price)),
        3 => (0..CUSTOMERS, any::<bool>()).prop_map(|(customer, lapsed)| Draw::Lapsed(customer, lapsed)),
        1 => (0..CUSTOMERS).prop_map(Draw::CustomerDeleted),
        2 => (plan(), proptest::option::of(0..PRICES)).prop_map(|(plan, price)| Draw::Plan(plan, price)),
        1 => plan().prop_map(Draw::PlanDeleted),
        6 => (plan(), 0..METRICS, most()).prop_map(|(plan, metric, terms)| Draw::PlanLimit(plan, metric, terms)),
        3 => (0..BUSINESSES, 0..METRICS, most())
            .prop_map(|(business, metric, terms)| Draw::Default(business, metric, terms)),
    ]
}

/// What a history begins with, so that changes find somebody to touch: a plan a price, customers, their series and some
/// limits. Free plans and defaults come later, or not.
pub fn beginning() -> impl Strategy<Value = Vec<Draw>> {
    let plans = (2..2 + PRICES).map(|plan| Draw::Plan(plan, Some(plan - 2)));
    let customer = |customer| {
        let on = prop_oneof![
            Just((None, None)),
            (2..2 + PRICES).prop_map(|plan| (Some(plan), None)),
            (0..PRICES).prop_map(|price| (None, Some(price)))
        ];
        on.prop_map(move |(plan, price)| Draw::Customer(customer, plan, price))
    };
    let customers: Vec<_> = (0..CUSTOMERS).map(customer).collect();
    let open = |customer: u32| {
        (0..SHAPES.len(), 0..METRICS).prop_map(move |(shape, metric)| {
            Draw::Open((customer % BUSINESSES, Some(customer), metric), shape, None)
        })
    };
    let opens: Vec<_> = (0..CUSTOMERS).chain(0..CUSTOMERS).map(open).collect();
    let limit = (2..2 + PRICES, 0..METRICS, terms())
        .prop_map(|(plan, metric, terms)| Draw::PlanLimit(plan, metric, Some(terms)));
    let limits = proptest::collection::vec(limit, 2..10);
    (customers, opens, limits).prop_map(move |(customers, opens, limits)| {
        plans.clone().chain(customers).chain(opens).chain(limits).collect()
    })
}

const CHECKPOINT: Shape = Shape {
    operation: Operation::Sum,
    metric_type: MetricType::Checkpoint,
    flush: Span::H1,
    reset: Span::H1,
    initial_value: Amount::ZERO,
    batch: Span::H1,
    stored: false,
    limit: None,
    limit_source: LimitSource::Series,
    notify: Notify::NONE,
    max_event_age_secs: 3_600,
    cleanup_after_days: None,
};
const SHAPES: [Shape; 4] = [
    CHECKPOINT,
    Shape { metric_type: MetricType::Reset, flush: Span::M1, reset: Span::M1, ..CHECKPOINT },
    Shape { operation: Operation::Max, ..CHECKPOINT },
    Shape { operation: Operation::Avg, ..CHECKPOINT },
];

fn effective((limit, notify): Terms, source: LimitSource) -> EffectiveLimit {
    EffectiveLimit { limit, source, notify }
}

#[derive(Clone, Copy, Default)]
struct Customer {
    lapsed: bool,
    plan: Option<u32>,
    price: Option<u32>,
}

#[derive(Clone, Copy)]
struct Series {
    id: SeriesId,
    shape: Shape,
    own: Option<Terms>,
}

/// What is defined.
#[derive(Clone, Default)]
pub struct World {
    customers: BTreeMap<u32, Customer>,
    plans: BTreeMap<u32, Option<u32>>,
    plan_limits: BTreeMap<(u32, u32), Terms>,
    defaults: BTreeMap<(u32, u32), Terms>,
    series: BTreeMap<Key, Series>,
    next_series: u32,
}

impl World {
    /// Applies a change. Commands are as a definition makes them: without limits. One that reshapes has the series' own
    /// here, which meter is to leave alone.
    pub fn apply(&mut self, draw: &Draw, commands: &mut Vec<Change>) {
        match *draw {
            Draw::Open(key, shape, own) => self.open(key, SHAPES[shape], own, commands),
            Draw::Close(key) => commands.extend(self.series.remove(&key).map(|it| Change::Close(it.id))),
            Draw::Own(key, own) => {
                if let Some(series) = self.series.get_mut(&key) {
                    series.own = own;
                    let own = own.map(|own| effective(own, LimitSource::Series));
                    commands.push(Change::Reshape(series.id, series.shape.limited(own)));
                }
            }
            Draw::Customer(customer, plan, price) => {
                let plan = plan.map(|plan| plan / BUSINESSES * BUSINESSES + customer % BUSINESSES);
                let price = price.map(|price| price / BUSINESSES * BUSINESSES + customer % BUSINESSES);
                let plan = plan.filter(|plan| self.plans.contains_key(plan));
                let before = self.customers.entry(customer).or_default();
                *before = Customer { plan, price, ..*before };
            }
            Draw::Lapsed(customer, lapsed) => {
                self.customers.entry(customer).and_modify(|it| it.lapsed = lapsed);
            }
            Draw::CustomerDeleted(customer) => self.delete_customer(customer, commands),
            Draw::Plan(plan, price) => self.plan(plan, price),
            Draw::PlanDeleted(plan) => {
                if self.customers.values().all(|customer| customer.plan != Some(plan)) {
                    self.plans.remove(&plan);
                    self.plan_limits.retain(|(of, _), _| *of != plan);
                }
            }
            Draw::PlanLimit(plan, metric, terms) => {
                let key = (plan, plan % BUSINESSES * METRICS + metric);
                let terms = terms.filter(|_| self.plans.contains_key(&plan));
                put(&mut self.plan_limits, key, terms);
            }
            Draw::Default(business, metric, terms) => {
                put(&mut self.defaults, (business, business * METRICS + metric), terms);
            }
        }
    }

    fn open(&mut self, key: Key, shape: Shape, own: Option<Terms>, commands: &mut Vec<Change>) {
        let has_customer = key.1.is_none_or(|customer| self.customers.contains_key(&customer));
        if !has_customer || self.series.contains_key(&key) {
            return;
        }
        self.next_series += 1;
        let series = Series { id: SeriesId(self.next_series), shape, own };
        self.series.insert(key, series);
        commands.push(Change::Open(series.id, shape));
    }

    fn delete_customer(&mut self, gone: u32, commands: &mut Vec<Change>) {
        let of_customer = self.series.extract_if(.., |(_, customer, _), _| *customer == Some(gone));
        commands.extend(of_customer.map(|(_, series)| Change::Close(series.id)));
        self.customers.remove(&gone);
    }

    /// One plan a price, one without any a business.
    fn plan(&mut self, plan: u32, price: Option<u32>) {
        let business = plan % BUSINESSES;
        let price = price.map(|price| price / BUSINESSES * BUSINESSES + business);
        let is_same = |(&other, &of)| other % BUSINESSES == business && of == price;
        if !self.plans.contains_key(&plan) && !self.plans.iter().any(is_same) {
            self.plans.insert(plan, price);
        }
    }

    /// All of it, as facts. Slots are those of a single worker.
    pub fn facts(&self) -> BTreeSet<Fact> {
        let series = self.series.iter().filter_map(|(&(business, customer, metric), series)| {
            let place = Place { series: series.id, slot: series.id.0 };
            let own = series.own.map(|own| Fact::Own { place, limit: effective(own, LimitSource::Series) });
            let name = business * METRICS + metric;
            own.or_else(|| customer.map(|customer| Fact::Inherits { place, customer, name }))
        });
        let customers = self.customers.iter().map(|(&customer, &Customer { lapsed, plan, price })| {
            Fact::Customer { customer, business: customer % BUSINESSES, lapsed, plan, price }
        });
        let plans = self.plans.iter();
        let plans = plans.map(|(&plan, &price)| Fact::Plan { plan, business: plan % BUSINESSES, price });
        let plan_limits = self.plan_limits.iter().map(|(&(plan, name), &terms)| {
            let limit = effective(terms, LimitSource::Plan);
            Fact::PlanLimit { plan, name, limit }
        });
        let defaults = self.defaults.iter().map(|(&(business, name), &terms)| {
            let limit = effective(terms, LimitSource::Default);
            Fact::Default { business, name, limit }
        });
        series.chain(customers).chain(plans).chain(plan_limits).chain(defaults).collect()
    }
}

fn put<K: Ord>(map: &mut BTreeMap<K, Terms>, key: K, terms: Option<Terms>) {
    match terms {
        Some(terms) => drop(map.insert(key, terms)),
        None => drop(map.remove(&key)),
    }
}
