//! Plans, their limits and who is on them, and what a business binds its customer keys to: as tables, and read back by a
//! start on an empty journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use dataflows::types::{
    Action, Amount, Business, Customer, CustomerDetails, Definition, Epoch, Limit, LimitPeriod, MetricType,
    Micros, Operation, Operator, Plan, PlanLimit,
};
use proptest::prelude::*;
use proptest::{option, sample};
use tracktags::store::{Part, Store};

use super::support::*;

const PLANS: &str = "SELECT * FROM plans ORDER BY business_id, plan_id";
const LIMITS: &str = "SELECT * FROM plan_limits ORDER BY business_id, limit_id";
const BUSINESSES: &str = "SELECT business_id, proxy_targets FROM businesses ORDER BY business_id";
const CUSTOMERS: &str = "SELECT * FROM customers ORDER BY business_id, customer_id";
const ODD: &str = "quote ' \" back \\ tab \t new \n \u{1F4C8} \u{202e} $1 {schema} | --";

fn business(business_id: &str, created_at: Micros) -> Definition {
    let (business_id, business_name) = (business_id.to_owned(), "Acme".to_owned());
    Definition::BusinessPut(Business { business_id, business_name, email: "a@acme.test".into(), created_at })
}

fn business_ended(business_id: &str) -> Definition {
    Definition::BusinessDeleted { business_id: business_id.into() }
}

fn bound(business_id: &str, origins: BTreeSet<String>) -> Definition {
    Definition::ProxyTargetsPut { business_id: business_id.into(), origins }
}

fn plan(business_id: &str, plan_id: &str, plan_name: &str, price: Option<&str>) -> Definition {
    Definition::PlanPut(Plan {
        business_id: business_id.into(),
        plan_id: plan_id.into(),
        plan_name: plan_name.into(),
        stripe_price_id: price.map(str::to_owned),
        created_at: T0,
    })
}

fn plan_ended(business_id: &str, plan_id: &str) -> Definition {
    Definition::PlanDeleted { business_id: business_id.into(), plan_id: plan_id.into() }
}

/// A limit in which every field differs from the default.
fn full_limit(business_id: &str, limit_id: &str) -> PlanLimit {
    PlanLimit {
        business_id: business_id.into(),
        limit_id: limit_id.into(),
        plan_id: Some("plan_1".into()),
        metric_name: "calls".into(),
        limit: Limit { value: Amount(-2_500_000_000), operator: Operator::Lt, action: Action::AllowOverage },
        notify_at: vec![80, 100],
        webhook_url: Some("https://example.test/hook".into()),
        period: LimitPeriod::Week,
        metric_type: Some(MetricType::StripeBilling),
        operation: Operation::Max,
        created_at: at(60),
    }
}

/// A default of which only what must be is given.
fn plain_limit(business_id: &str, limit_id: &str) -> PlanLimit {
    PlanLimit {
        plan_id: None,
        limit: Limit {
            value: Amount::from_units(10),
            operator: Operator::default(),
            action: Action::default(),
        },
        notify_at: Vec::new(),
        webhook_url: None,
        period: LimitPeriod::default(),
        metric_type: None,
        operation: Operation::default(),
        ..full_limit(business_id, limit_id)
    }
}

fn limit_ended(business_id: &str, limit_id: &str) -> Definition {
    Definition::PlanLimitDeleted { business_id: business_id.into(), limit_id: limit_id.into() }
}

fn customer(business_id: &str, customer_id: &str, created_at: Micros) -> Definition {
    let (business_id, customer_id) = (business_id.to_owned(), customer_id.to_owned());
    Definition::CustomerPut(Customer { business_id, customer_id, customer_name: "C".into(), created_at })
}

fn described(business_id: &str, customer_id: &str, description: &str) -> Definition {
    let details = CustomerDetails { description: Some(description.into()), ..CustomerDetails::default() };
    Definition::CustomerDescribed {
        business_id: business_id.into(),
        customer_id: customer_id.into(),
        details,
    }
}

fn planned(business_id: &str, customer_id: &str, plan_id: Option<&str>) -> Definition {
    Definition::CustomerPlanned {
        business_id: business_id.into(),
        customer_id: customer_id.into(),
        plan_id: plan_id.map(str::to_owned),
    }
}

fn customer_ended(business_id: &str, customer_id: &str) -> Definition {
    Definition::CustomerDeleted { business_id: business_id.into(), customer_id: customer_id.into() }
}

#[test]
fn plans_and_their_limits_are_tables() {
    on_every_store(|database| {
        let mut store = database.store();
        let put = Definition::PlanLimitPut;
        let definitions = vec![
            plan("biz_1", "plan_1", "Pro", Some("price_1")),
            plan("biz_1", "plan_2", "Free", None),
            put(full_limit("biz_1", "lim_1")),
            put(plain_limit("biz_1", "lim_2")),
        ];
        define(&mut store, 1, definitions);
        let (t0, t60) = ("2026-11-24T06:00:00.000000Z", "2026-11-24T06:01:00.000000Z");
        assert_eq!(
            database.lines(PLANS),
            [format!("biz_1|plan_1|Pro|price_1|{t0}"), format!("biz_1|plan_2|Free|-|{t0}")]
        );
        assert_eq!(
            database.lines(LIMITS),
            [
                format!(
                    "biz_1|lim_1|plan_1|calls|-2.5|lt|allow_overage|[80,100]|https://example.test/hook|1w|\
                     stripe_billing|MAX|{t60}"
                ),
                format!("biz_1|lim_2|-|calls|10.0|gte|allow|[]|-|1mo|-|SUM|{t60}"),
            ]
        );
    });
}

#[test]
fn of_several_definitions_of_one_thing_in_a_stretch_the_last_counts() {
    on_every_store(|database| {
        let mut store = database.store();
        let raised = Limit { value: Amount::from_units(20), operator: Operator::Gt, action: Action::Block };
        let put = Definition::PlanLimitPut;
        let first = vec![
            plan("biz_1", "plan_1", "One", None),
            plan("biz_1", "plan_1", "Two", Some("price_2")),
            plan("biz_1", "gone", "Gone", None),
            plan_ended("biz_1", "gone"),
            put(full_limit("biz_1", "lim_1")),
            put(PlanLimit { limit: raised, ..plain_limit("biz_1", "lim_1") }),
            put(full_limit("biz_1", "gone")),
            limit_ended("biz_1", "gone"),
            customer("biz_1", "c", T0),
            planned("biz_1", "c", Some("plan_0")),
            planned("biz_1", "c", Some("plan_1")),
            customer("biz_1", "off", T0),
            planned("biz_1", "off", Some("plan_1")),
            planned("biz_1", "off", None),
        ];
        define(&mut store, 1, first);
        let (t0, t60) = ("2026-11-24T06:00:00.000000Z", "2026-11-24T06:01:00.000000Z");
        assert_eq!(database.lines(PLANS), [format!("biz_1|plan_1|Two|price_2|{t0}")]);
        let line = |id: &str| format!("biz_1|{id}|-|calls|20.0|gt|block|[]|-|1mo|-|SUM|{t60}");
        assert_eq!(database.lines(LIMITS), [line("lim_1")]);
        let customers = database.lines("SELECT customer_id, plan_id FROM customers ORDER BY customer_id");
        assert_eq!(customers, ["c|plan_1", "off|-"]);
        // What is deleted and comes again is new.
        let second = vec![
            limit_ended("biz_1", "lim_1"),
            plan_ended("biz_1", "plan_1"),
            plan("biz_1", "plan_1", "Three", None),
            put(PlanLimit { limit: raised, ..plain_limit("biz_1", "lim_2") }),
            planned("biz_1", "c", Some("plan_2")),
            customer_ended("biz_1", "c"),
            customer("biz_1", "c", T0),
        ];
        define(&mut store, 2, second);
        assert_eq!(database.lines(PLANS), [format!("biz_1|plan_1|Three|-|{t0}")]);
        assert_eq!(database.lines(LIMITS), [line("lim_2")]);
        let customers = database.lines("SELECT customer_id, plan_id FROM customers ORDER BY customer_id");
        assert_eq!(customers, ["c|-", "off|-"]);
    });
}

#[test]
fn what_else_is_said_of_a_customer_leaves_it_on_its_plan() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![customer("biz_1", "c", T0), planned("biz_1", "c", Some("plan_1"))]);
        define(&mut store, 2, vec![customer("biz_1", "c", at(60)), described("biz_1", "c", "d")]);
        let moved = "2026-11-24T06:01:00.000000Z";
        assert_eq!(database.lines(CUSTOMERS), [format!("biz_1|c|C|{moved}|-|d|-|-|-|plan_1")]);
        define(&mut store, 3, vec![planned("biz_1", "c", None), planned("biz_1", "unknown", Some("plan_1"))]);
        assert_eq!(database.lines(CUSTOMERS), [format!("biz_1|c|C|{moved}|-|d|-|-|-|-")]);
    });
}

#[test]
fn a_business_takes_plans_and_limits_along_and_a_plan_takes_nothing() {
    on_every_store(|database| {
        let mut store = database.store();
        let put = |business_id: &str| {
            vec![
                business(business_id, T0),
                bound(business_id, ["https://a.test".to_owned()].into()),
                plan(business_id, "plan_1", "Pro", None),
                Definition::PlanLimitPut(full_limit(business_id, "lim_1")),
                Definition::PlanLimitPut(plain_limit(business_id, "lim_2")),
                customer(business_id, "c", T0),
                planned(business_id, "c", Some("plan_1")),
            ]
        };
        define(&mut store, 1, [put("biz_1"), put("biz_2")].concat());
        // One that was there before, and one of the same stretch.
        define(
            &mut store,
            2,
            [vec![business_ended("biz_1")], put("biz_3"), vec![business_ended("biz_3")]].concat(),
        );
        for table in ["businesses", "plans", "customers"] {
            assert_eq!(database.lines(&format!("SELECT business_id FROM {table}")), ["biz_2"], "{table}");
        }
        let limits = "SELECT business_id, limit_id FROM plan_limits ORDER BY limit_id";
        assert_eq!(database.lines(limits), ["biz_2|lim_1", "biz_2|lim_2"]);
        define(&mut store, 3, vec![plan_ended("biz_2", "plan_1")]);
        assert_eq!(database.lines(PLANS), [""; 0]);
        assert_eq!(database.lines(limits), ["biz_2|lim_1", "biz_2|lim_2"], "deleted one by one");
        define(&mut store, 4, vec![limit_ended("biz_2", "lim_1"), limit_ended("biz_2", "lim_1")]);
        assert_eq!(database.lines(limits), ["biz_2|lim_2"]);
        // What comes again in the same stretch is bound to nothing and on no plan.
        let again = vec![business_ended("biz_2"), business("biz_2", T0), customer("biz_2", "c", T0)];
        define(&mut store, 5, [put("biz_2"), again].concat());
        assert_eq!(database.lines(BUSINESSES), ["biz_2|-"]);
        assert_eq!(database.lines("SELECT customer_id, plan_id FROM customers"), ["c|-"]);
        assert_eq!(database.lines(limits), [""; 0]);
    });
}

/// What is there, found naively: things by business and name.
#[derive(Default)]
struct Model {
    businesses: BTreeMap<String, (Business, BTreeSet<String>)>,
    plans: BTreeMap<(String, String), Plan>,
    limits: BTreeMap<(String, String), PlanLimit>,
    customers: BTreeMap<(String, String), (Customer, CustomerDetails, Option<String>)>,
}

impl Model {
    fn apply(&mut self, definition: Definition) {
        match definition {
            Definition::BusinessPut(business) => {
                let origins = self.businesses.remove(&business.business_id).map(|known| known.1);
                let business_id = business.business_id.clone();
                self.businesses.insert(business_id, (business, origins.unwrap_or_default()));
            }
            Definition::ProxyTargetsPut { business_id, origins } => {
                self.businesses.entry(business_id).and_modify(|known| known.1 = origins);
            }
            Definition::PlanPut(plan) => {
                self.plans.insert((plan.business_id.clone(), plan.plan_id.clone()), plan);
            }
            Definition::PlanLimitPut(limit) => {
                self.limits.insert((limit.business_id.clone(), limit.limit_id.clone()), limit);
            }
            Definition::CustomerPut(customer) => {
                let name = (customer.business_id.clone(), customer.customer_id.clone());
                let known = self.customers.remove(&name);
                let (details, plan_id) = known.map(|known| (known.1, known.2)).unwrap_or_default();
                self.customers.insert(name, (customer, details, plan_id));
            }
            Definition::CustomerDescribed { business_id, customer_id, details } => {
                self.customers.entry((business_id, customer_id)).and_modify(|known| known.1 = details);
            }
            Definition::CustomerPlanned { business_id, customer_id, plan_id } => {
                self.customers.entry((business_id, customer_id)).and_modify(|known| known.2 = plan_id);
            }
            Definition::PlanDeleted { business_id, plan_id } => {
                self.plans.remove(&(business_id, plan_id));
            }
            Definition::PlanLimitDeleted { business_id, limit_id } => {
                self.limits.remove(&(business_id, limit_id));
            }
            Definition::CustomerDeleted { business_id, customer_id } => {
                self.customers.remove(&(business_id, customer_id));
            }
            Definition::BusinessDeleted { business_id } => {
                self.businesses.remove(&business_id);
                self.plans.retain(|(of, _), _| *of != business_id);
                self.limits.retain(|(of, _), _| *of != business_id);
                self.customers.retain(|(of, _), _| *of != business_id);
            }
            other => panic!("not drawn here: {other:?}"),
        }
    }

    /// Whether a definition is about something that is there, or makes it.
    fn may(&self, definition: &Definition) -> bool {
        match definition {
            Definition::CustomerDescribed { business_id, customer_id, .. }
            | Definition::CustomerPlanned { business_id, customer_id, .. } => {
                self.customers.contains_key(&(business_id.clone(), customer_id.clone()))
            }
            Definition::ProxyTargetsPut { business_id, .. } => self.businesses.contains_key(business_id),
            _ => true,
        }
    }

    /// The definitions that make it, each kind in the order in which its things were made.
    fn definitions(self) -> Vec<Definition> {
        let mut businesses: Vec<_> = self.businesses.into_values().collect();
        let mut plans: Vec<_> = self.plans.into_values().collect();
        let mut limits: Vec<_> = self.limits.into_values().collect();
        let mut customers: Vec<_> = self.customers.into_values().collect();
        businesses.sort_by_key(|(business, _)| business.created_at);
        plans.sort_by_key(|plan| plan.created_at);
        limits.sort_by_key(|limit| limit.created_at);
        customers.sort_by_key(|(customer, ..)| customer.created_at);
        let customers = customers.into_iter().flat_map(|(customer, details, plan_id)| {
            let (business_id, customer_id) = (customer.business_id.clone(), customer.customer_id.clone());
            let planned = plan_id.as_deref().map(|plan| planned(&business_id, &customer_id, Some(plan)));
            let described = Definition::CustomerDescribed { business_id, customer_id, details };
            [Definition::CustomerPut(customer), described].into_iter().chain(planned)
        });
        let businesses = businesses.into_iter().flat_map(|(business, origins)| {
            let bound = (!origins.is_empty()).then(|| bound(&business.business_id, origins));
            [Definition::BusinessPut(business)].into_iter().chain(bound)
        });
        let plans = plans.into_iter().map(Definition::PlanPut);
        businesses
            .chain(plans)
            .chain(limits.into_iter().map(Definition::PlanLimitPut))
            .chain(customers)
            .collect()
    }

    fn business_lines(&self) -> Vec<String> {
        let line = |(business, origins): &(Business, BTreeSet<String>)| {
            let targets = (!origins.is_empty()).then(|| serde_json::json!(origins).to_string());
            format!("{}|{}", business.business_id, or_null(&targets))
        };
        self.businesses.values().map(line).collect()
    }

    fn plan_lines(&self) -> Vec<String> {
        let line = |plan: &Plan| {
            let Plan { business_id, plan_id, plan_name, stripe_price_id, created_at } = plan;
            [business_id, plan_id, plan_name, &or_null(stripe_price_id), &time(*created_at)]
                .map(String::as_str)
                .join("|")
        };
        self.plans.values().map(line).collect()
    }

    fn limit_lines(&self) -> Vec<String> {
        let line = |limit: &PlanLimit| {
            let word = |value: serde_json::Value| value.as_str().unwrap_or("-").to_owned();
            let parts = [
                limit.business_id.clone(),
                limit.limit_id.clone(),
                or_null(&limit.plan_id),
                limit.metric_name.clone(),
                limit.limit.value.to_string(),
                word(serde_json::json!(limit.limit.operator)),
                word(serde_json::json!(limit.limit.action)),
                serde_json::json!(limit.notify_at).to_string(),
                or_null(&limit.webhook_url),
                limit.period.text().to_owned(),
                word(serde_json::json!(limit.metric_type)),
                word(serde_json::json!(limit.operation)),
                time(limit.created_at),
            ];
            parts.join("|")
        };
        self.limits.values().map(line).collect()
    }

    fn customer_lines(&self) -> Vec<String> {
        let line = |(customer, details, plan_id): &(Customer, CustomerDetails, Option<String>)| {
            let Customer { business_id, customer_id, customer_name, created_at } = customer;
            let (description, plan_id) = (or_null(&details.description), or_null(plan_id));
            let created_at = time(*created_at);
            format!(
                "{business_id}|{customer_id}|{customer_name}|{created_at}|-|{description}|-|-|-|{plan_id}"
            )
        };
        self.customers.values().map(line).collect()
    }
}

fn or_null(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "-".into())
}

fn time(at: Micros) -> String {
    format!("{:.6}", jiff::Timestamp::from_microsecond(at.0).expect("a time of the tests"))
}

/// One definition; few names, so that definitions meet. Those that say when something was made still get their time.
fn definition() -> impl Strategy<Value = Definition> {
    let named = |prefix: &'static str, count: u8| (0..count).prop_map(move |id| format!("{prefix}_{id}"));
    let (of, plan_of) = (move || named("biz", 2), move || named("plan", 3));
    let text = || sample::select(vec!["", "a", ODD]).prop_map(str::to_owned);
    let plans = (of(), plan_of(), text(), option::of(text()));
    let customers = move || (of(), named("cust", 2));
    let origins = proptest::collection::btree_set("https://[a-c]\\.test", 0..3);
    prop_oneof![
        2 => of().prop_map(|of| business(&of, T0)),
        3 => (of(), origins).prop_map(|(of, origins)| bound(&of, origins)),
        1 => of().prop_map(|of| business_ended(&of)),
        4 => plans.prop_map(|(of, id, name, price)| plan(&of, &id, &name, price.as_deref())),
        2 => (of(), plan_of()).prop_map(|(of, id)| plan_ended(&of, &id)),
        6 => plan_limit(of(), named("lim", 4), option::of(plan_of()), text()).prop_map(Definition::PlanLimitPut),
        2 => (of(), named("lim", 4)).prop_map(|(of, id)| limit_ended(&of, &id)),
        4 => customers().prop_map(|(of, id)| customer(&of, &id, T0)),
        2 => (customers(), text()).prop_map(|((of, id), text)| described(&of, &id, &text)),
        4 => (customers(), option::weighted(0.7, plan_of()))
            .prop_map(|((of, id), plan)| planned(&of, &id, plan.as_deref())),
        2 => customers().prop_map(|(of, id)| customer_ended(&of, &id)),
    ]
}

fn plan_limit(
    business_id: impl Strategy<Value = String>,
    limit_id: impl Strategy<Value = String>,
    plan_id: impl Strategy<Value = Option<String>>,
    text: impl Strategy<Value = String>,
) -> impl Strategy<Value = PlanLimit> {
    use {Action::*, MetricType::*, Operation::*, Operator::*};
    let operators = sample::select(vec![Gte, Gt, Lte, Lt, Eq]);
    let actions = sample::select(vec![Allow, AllowOverage, Deny, Block, Webhook]);
    let limit = (any::<i128>(), 0u32..128, operators, actions);
    let periods = sample::select(LimitPeriod::ALL.map(|(period, _)| period).to_vec());
    let metric_types = option::of(sample::select(vec![Reset, Checkpoint, StripeBilling]));
    let operations = sample::select(vec![Sum, Count, Avg, Max, Min]);
    let notify_at = proptest::collection::vec(any::<u16>(), 0..4);
    let names = (business_id, limit_id, plan_id, text);
    (names, limit, periods, metric_types, operations, notify_at, any::<bool>()).prop_map(
        |(names, (nanos, shift, operator, action), period, metric_type, operation, notify_at, hooked)| {
            let (business_id, limit_id, plan_id, metric_name) = names;
            PlanLimit {
                business_id,
                limit_id,
                plan_id,
                webhook_url: hooked.then(|| metric_name.clone()),
                metric_name,
                limit: Limit { value: Amount(nanos >> shift), operator, action },
                notify_at,
                period,
                metric_type,
                operation,
                created_at: T0,
            }
        },
    )
}

/// Definitions with their epochs, a few an epoch, and none about what is not there. Everything was made at a time of its
/// own, so that there is one order.
fn history() -> impl Strategy<Value = Vec<(Epoch, Definition)>> {
    proptest::collection::vec((definition(), option::weighted(0.3, Just(()))), 0..50).prop_map(|drawn| {
        let (mut model, mut epoch, mut history) = (Model::default(), 1, Vec::new());
        for (index, (mut definition, cut)) in drawn.into_iter().enumerate() {
            let now = Micros(at(index as u64).0 + index as i64);
            match &mut definition {
                Definition::BusinessPut(business) => business.created_at = now,
                Definition::PlanPut(plan) => plan.created_at = now,
                Definition::PlanLimitPut(limit) => limit.created_at = now,
                Definition::CustomerPut(customer) => customer.created_at = now,
                _ => (),
            }
            if model.may(&definition) {
                model.apply(definition.clone());
                history.push((epoch, definition));
                epoch += u64::from(cut.is_some());
            }
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_defined_tables_and_what_a_start_reads_equal_the_model(history in history()) {
        static STORES: OnceLock<Vec<Database>> = OnceLock::new();
        let mut model = Model::default();
        history.iter().for_each(|(_, definition)| model.apply(definition.clone()));
        let tables =
            [model.business_lines(), model.plan_lines(), model.limit_lines(), model.customer_lines()];
        let (defined, queries) = (model.definitions(), [BUSINESSES, PLANS, LIMITS, CUSTOMERS]);
        for database in STORES.get_or_init(every_store) {
            database.lose_everything();
            let mut store = database.store();
            store.progress().expect("readable, once the tables are made");
            let mut commit = |definitions: &[(Epoch, Definition)]| {
                let part = Part { journal_id: JOURNAL, definitions, rows: None };
                store.commit(&part).expect("committed");
            };
            history.chunk_by(|(one, _), (next, _)| one == next).for_each(&mut commit);
            prop_assert_eq!(queries.map(|query| database.lines(query)), tables.clone());
            // As if the store had been given back its past: everything comes again, in one part.
            database.execute("UPDATE sink_progress SET upper = 0 WHERE class = 'definitions'");
            commit(&history);
            prop_assert_eq!(queries.map(|query| database.lines(query)), tables.clone());
            if let Some(content) = store.content() {
                prop_assert_eq!(content.definitions, defined.clone());
            }
        }
    }
}
