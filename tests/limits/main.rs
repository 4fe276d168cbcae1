//! The limits graph against the registry: whatever is defined in whatever order, the limit that each worker holds a series to
//! is the one that the registry works out one series at a time; on any number of workers, and from a snapshot's export.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataflows::driver::{Driver, Output, Settings};
use dataflows::types::{
    Action, Amount, Business, Command, Customer, CustomerDetails, Definition, Epoch, Fact, Limit,
    LimitPeriod, LimitSource, Micros, Operation, Operator, Plan, PlanLimit, SeriesId, SeriesKey,
    SeriesRecord, SeriesSpec, Work,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tracktags::control::Registry;

/// What is drawn: small names, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Customer { business: u8, customer: u8, plan: Option<u8>, price: Option<u8>, ends_at: Option<i64> },
    CustomerEnds { business: u8, customer: u8 },
    Series { business: u8, customer: Option<u8>, metric: u8, own: Option<i64> },
    SeriesChanges { nth: usize, own: Option<i64> },
    SeriesEnds { nth: usize },
    Plan { business: u8, plan: u8, price: Option<u8> },
    PlanEnds { business: u8, plan: u8 },
    Limit { business: u8, plan: Option<u8>, metric: u8, value: i64 },
    LimitEnds { business: u8, plan: Option<u8>, metric: u8 },
    BusinessEnds { business: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let (business, small) = (0u8..2, 0u8..3);
    let maybe = || proptest::option::of(0u8..3);
    let own = || proptest::option::weighted(0.3, 0i64..50);
    let ends_at = proptest::option::of(0i64..60);
    prop_oneof![
        4 => (business.clone(), small.clone(), maybe(), maybe(), ends_at).prop_map(
            |(business, customer, plan, price, ends_at)| Step::Customer { business, customer, plan, price, ends_at }
        ),
        1 => (business.clone(), small.clone()).prop_map(|(business, customer)| Step::CustomerEnds { business, customer }),
        5 => (business.clone(), maybe(), small.clone(), own()).prop_map(
            |(business, customer, metric, own)| Step::Series { business, customer, metric, own }
        ),
        2 => (any::<usize>(), own()).prop_map(|(nth, own)| Step::SeriesChanges { nth, own }),
        1 => any::<usize>().prop_map(|nth| Step::SeriesEnds { nth }),
        3 => (business.clone(), small.clone(), maybe()).prop_map(|(business, plan, price)| Step::Plan { business, plan, price }),
        1 => (business.clone(), small.clone()).prop_map(|(business, plan)| Step::PlanEnds { business, plan }),
        4 => (business.clone(), maybe(), small.clone(), 0i64..50).prop_map(
            |(business, plan, metric, value)| Step::Limit { business, plan, metric, value }
        ),
        2 => (business.clone(), maybe(), small).prop_map(
            |(business, plan, metric)| Step::LimitEnds { business, plan, metric }
        ),
        1 => business.prop_map(|business| Step::BusinessEnds { business }),
    ]
}

fn name(prefix: &str, number: u8) -> String {
    format!("{prefix}_{number}")
}

fn limit(units: i64) -> Limit {
    Limit { value: Amount::from_units(units), operator: Operator::Gte, action: Action::Deny }
}

fn spec(own: Option<i64>) -> SeriesSpec {
    SeriesSpec { limit: own.map(limit), ..SeriesSpec::default() }
}

/// What control would journal of a step, if it takes it.
fn definitions(registry: &Registry, step: &Step) -> Vec<Definition> {
    let nth = |nth: usize| {
        let series: Vec<SeriesId> = registry.series().map(|handle| handle.series).collect();
        series.get(nth % series.len().max(1)).copied()
    };
    match step.clone() {
        Step::Customer { business, customer, plan, price, ends_at } => {
            let (business_id, customer_id) = (name("biz", business), name("cust", customer));
            if registry.business(&business_id).is_none() {
                return Vec::new();
            }
            let plan_id = plan.map(|plan| name("plan", plan));
            let plan_id = plan_id.filter(|plan_id| registry.plans().plan(&business_id, plan_id).is_some());
            let details = CustomerDetails {
                stripe_price_id: price.map(|price| name("price", price)),
                subscription_ends_at: ends_at.map(Micros::from_seconds),
                ..CustomerDetails::default()
            };
            let customer = Customer {
                business_id: business_id.clone(),
                customer_id: customer_id.clone(),
                customer_name: "C".to_owned(),
                created_at: Micros(0),
            };
            vec![
                Definition::CustomerPut(customer),
                Definition::CustomerPlanned {
                    business_id: business_id.clone(),
                    customer_id: customer_id.clone(),
                    plan_id,
                },
                Definition::CustomerDescribed { business_id, customer_id, details },
            ]
        }
        Step::CustomerEnds { business, customer } => {
            let (business_id, customer_id) = (name("biz", business), name("cust", customer));
            let own = |key: &SeriesKey| {
                key.business_id == business_id && key.customer_id.as_deref() == Some(&*customer_id)
            };
            let mut gone = ended(registry, own);
            gone.push(Definition::CustomerDeleted {
                business_id: business_id.clone(),
                customer_id: customer_id.clone(),
            });
            gone
        }
        Step::Series { business, customer, metric, own } => {
            let (business_id, metric_name) = (name("biz", business), name("metric", metric));
            let customer_id = customer.map(|customer| name("cust", customer));
            let is_there = match &customer_id {
                Some(customer_id) => registry.customer(&business_id, customer_id).is_some(),
                None => registry.business(&business_id).is_some(),
            };
            if !is_there || registry.find(&business_id, customer_id.as_deref(), &metric_name).is_some() {
                return Vec::new();
            }
            let key = SeriesKey { business_id, customer_id, metric_name };
            let series = registry.next_series();
            vec![Definition::SeriesCreated(SeriesRecord {
                series,
                key,
                spec: spec(own),
                created_at: Micros(0),
            })]
        }
        Step::SeriesChanges { nth: at, own } => {
            nth(at).map(|series| Definition::SeriesChanged { series, spec: spec(own) }).into_iter().collect()
        }
        Step::SeriesEnds { nth: at } => {
            nth(at).map(|series| Definition::SeriesDeleted { series }).into_iter().collect()
        }
        Step::Plan { business, plan, price } => {
            let (business_id, plan_id) = (name("biz", business), name("plan", plan));
            let stripe_price_id = price.map(|price| name("price", price));
            let plans = registry.plans();
            let other = match &stripe_price_id {
                Some(price) => plans.of_price(&business_id, price),
                None => plans.free(&business_id),
            };
            let is_taken = other.is_some_and(|other| other.plan_id != plan_id);
            if is_taken || registry.business(&business_id).is_none() {
                return Vec::new();
            }
            let (plan_name, created_at) = ("P".to_owned(), Micros(0));
            vec![Definition::PlanPut(Plan { business_id, plan_id, plan_name, stripe_price_id, created_at })]
        }
        Step::PlanEnds { business, plan } => {
            let (business_id, plan_id) = (name("biz", business), name("plan", plan));
            let is_on = registry
                .customers(&business_id, None)
                .any(|record| record.plan_id.as_ref() == Some(&plan_id));
            if is_on {
                return Vec::new();
            }
            let limits = registry.plans().limits_of(&business_id, &plan_id);
            let mut gone: Vec<_> = limits.map(gone).collect();
            gone.push(Definition::PlanDeleted { business_id: business_id.clone(), plan_id: plan_id.clone() });
            gone
        }
        Step::Limit { business, plan, metric, value } => {
            let (business_id, metric_name) = (name("biz", business), name("metric", metric));
            let plan_id = plan.map(|plan| name("plan", plan));
            let is_there = match &plan_id {
                Some(plan_id) => registry.plans().plan(&business_id, plan_id).is_some(),
                None => registry.business(&business_id).is_some(),
            };
            if !is_there {
                return Vec::new();
            }
            vec![Definition::PlanLimitPut(PlanLimit {
                business_id,
                limit_id: format!("lim_{plan:?}_{metric}"),
                plan_id,
                metric_name,
                limit: limit(value),
                notify_at: Vec::new(),
                webhook_url: None,
                period: LimitPeriod::Month,
                metric_type: None,
                operation: Operation::Sum,
                created_at: Micros(0),
            })]
        }
        Step::LimitEnds { business, plan, metric } => {
            let (business_id, limit_id) = (name("biz", business), format!("lim_{plan:?}_{metric}"));
            vec![Definition::PlanLimitDeleted { business_id, limit_id }]
        }
        Step::BusinessEnds { business } => {
            let business_id = name("biz", business);
            let mut gone = ended(registry, |key| key.business_id == business_id);
            gone.push(Definition::BusinessDeleted { business_id: business_id.clone() });
            gone.push(business_of(business));
            gone
        }
    }
}

fn gone(limit: &PlanLimit) -> Definition {
    let PlanLimit { business_id, limit_id, .. } = limit.clone();
    Definition::PlanLimitDeleted { business_id, limit_id }
}

fn ended(registry: &Registry, of: impl Fn(&SeriesKey) -> bool) -> Vec<Definition> {
    let series = registry.series().filter(|handle| of(&handle.record.key));
    series.map(|handle| Definition::SeriesDeleted { series: handle.series }).collect()
}

fn business_of(business: u8) -> Definition {
    Definition::BusinessPut(Business {
        business_id: name("biz", business),
        business_name: "B".to_owned(),
        email: "b@example.com".to_owned(),
        created_at: Micros(0),
    })
}

/// The limit of each series and why.
type Limits = BTreeMap<SeriesId, (Option<Limit>, LimitSource)>;

/// What a worker is handed in one epoch, and where series live behind it.
#[derive(Clone, Debug, Default)]
struct Entry {
    epoch: Epoch,
    at: Micros,
    commands: Vec<Vec<Command>>,
    facts: Vec<(Fact, isize)>,
    slots: Vec<(SeriesId, u32)>,
}

fn worked_out(registry: &Registry) -> Limits {
    let of = |handle| {
        let effective = registry.effective_limit(handle);
        (effective.map(|it| it.limit), effective.map_or(LimitSource::Series, |it| it.source))
    };
    registry.series().map(|handle| (handle.series, of(handle))).collect()
}

/// A history as the router would hand it to so many workers, and the limits that the registry works out behind each epoch.
fn history(epochs: &[(i64, Vec<Step>)], workers: usize) -> (Registry, Vec<Entry>, Vec<Limits>) {
    let mut registry = Registry::new(workers, 60);
    let (mut entries, mut expected) = (Vec::new(), Vec::new());
    let (mut now, mut epoch) = (0, 0);
    for (passed, steps) in std::iter::once(&(0, Vec::new())).chain(epochs) {
        now += passed;
        epoch += 1;
        let at = Micros::from_seconds(now);
        // A time entry comes before the definitions of its second.
        registry.pass(at);
        let lapsed = registry.take_facts();
        entries.push(entry(&registry, epoch, at, vec![Vec::new(); workers], lapsed));
        expected.push(worked_out(&registry));
        epoch += 1;
        let mut commands = vec![Vec::new(); workers];
        let mut apply = |registry: &mut Registry, definition: &Definition| {
            if let Some((worker, command)) = registry.apply(definition) {
                commands[worker].push(command);
            }
        };
        if epoch == 2 {
            (0..2).for_each(|business| apply(&mut registry, &business_of(business)));
        }
        for step in steps {
            for definition in definitions(&registry, step) {
                apply(&mut registry, &definition);
            }
        }
        let facts = registry.take_facts();
        entries.push(entry(&registry, epoch, at, commands, facts));
        expected.push(worked_out(&registry));
    }
    (registry, entries, expected)
}

fn entry(
    registry: &Registry,
    epoch: Epoch,
    at: Micros,
    commands: Vec<Vec<Command>>,
    facts: Vec<(Fact, isize)>,
) -> Entry {
    let slots = registry.series().map(|handle| (handle.series, handle.slot)).collect();
    Entry { epoch, at, commands, facts, slots }
}

/// What the workers hold series to behind each entry, and how many series each touched.
fn held(entries: Vec<Entry>, workers: usize) -> Vec<(Limits, u64)> {
    let entries = Arc::new(entries);
    let given = entries.clone();
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let settings = Settings { workers, dedup_horizon_secs: 3_600 };
        let mut driver = Driver::new(worker, &settings);
        let index = worker.index();
        let mut seen = Vec::new();
        for Entry { epoch, at, commands, facts, slots } in given.iter() {
            let (epoch, stamp, commands) = (*epoch, *at, commands[index].clone());
            if !commands.is_empty() {
                driver.submit(Work::Commands { epoch, stamp, commands });
            }
            if !facts.is_empty() {
                let facts = if index == 0 { facts.clone() } else { Vec::new() };
                driver.submit(Work::Facts { epoch, stamp, facts, is_news: true });
            }
            let mut output = Output::default();
            driver.step(worker, &mut output);
            let own = slots.iter().filter(|(series, _)| series.worker(workers) == index);
            let limits: Limits = own
                .filter_map(|&(series, slot)| {
                    let standing = driver.standing(slot, *at)?;
                    Some((series, (standing.limit, standing.limit_source)))
                })
                .collect();
            seen.push((limits, output.limited.series));
        }
        driver.close(worker);
        seen
    })
    .expect("threads start");
    let mut all: Vec<(Limits, u64)> = vec![Default::default(); entries.len()];
    for share in guards.join() {
        for (all, (limits, touched)) in all.iter_mut().zip(share.expect("no worker panics")) {
            all.0.extend(limits);
            all.1 += touched;
        }
    }
    all
}

fn config() -> ProptestConfig {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proptest-regressions/limits.txt");
    ProptestConfig {
        cases: 64,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn workers_hold_series_to_what_the_registry_works_out(
        epochs in proptest::collection::vec((0i64..15, proptest::collection::vec(step(), 0..6)), 1..14),
        workers in 1usize..=4,
    ) {
        let (mut registry, entries, expected) = history(&epochs, workers);
        let now = entries.last().expect("there is one").at;
        let seen = held(entries, workers);
        let mut before = Limits::new();
        for (at, ((limits, touched), expected)) in seen.iter().zip(&expected).enumerate() {
            prop_assert_eq!(limits, expected, "behind entry {}", at);
            // What differs was touched, and nothing more. A new series may begin with its limit, or be given it.
            let (known, new): (Vec<_>, Vec<_>) =
                expected.iter().partition(|(series, _)| before.contains_key(series));
            let differs = known.iter().filter(|(series, limit)| before.get(series) != Some(limit)).count() as u64;
            let inherited = |(_, (limit, source)): &&(_, &(Option<Limit>, LimitSource))| {
                limit.is_some() && *source != LimitSource::Series
            };
            let given = new.iter().filter(inherited).count() as u64;
            prop_assert!(
                (differs + given..=differs + new.len() as u64).contains(touched),
                "{} touched at entry {}, where {} of the known differ",
                touched,
                at,
                differs
            );
            before.clone_from(expected);
        }

        // What a snapshot keeps brings back the same, also on another number of workers.
        let workers = workers % 4 + 1;
        let mut again = Registry::new(workers, 60);
        again.pass(now);
        let mut commands = vec![Vec::new(); workers];
        for definition in registry.export() {
            if let Some((worker, command)) = again.apply(&definition) {
                commands[worker].push(command);
            }
        }
        again.restore_lapsed(registry.lapses().lapsed());
        prop_assert_eq!(&worked_out(&again), &worked_out(&registry));
        let facts = again.take_facts();
        let seen = held(vec![entry(&again, 1, now, commands, facts)], workers);
        prop_assert_eq!(&seen[0].0, &worked_out(&registry));
        prop_assert!(registry.take_facts().is_empty(), "a look changes nothing");
    }
}
