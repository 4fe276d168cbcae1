//! Templates: by rule, and through the control thread with a journal that applies what it is given.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, RwLock};

use dataflows::types::{
    Action, Amount, Business, Customer, Definition, Limit, Limited, MetricType, Micros, Operator, Plan,
    PlanLimit, SeriesId, SeriesKey, SeriesSpec, Span, StripeIntegration, Template,
};

use super::{BATCH_SERIES_MAX, SHARED_SERIES_MAX, Wanted};
use crate::clock::{MockClock, Stamps};
use crate::control::change::Change;
use crate::control::{Control, ControlError, Origin, Registry, SeriesHandle, decode};

const BIZ: &str = "biz_1";
const NOW: Micros = Micros::from_seconds(1_790_000_000);

fn template(metric_name: &str, create_customers: bool) -> Template {
    let (business_id, metric_name) = (BIZ.to_owned(), metric_name.to_owned());
    Template { business_id, metric_name, spec: SeriesSpec::default(), create_customers, created_at: NOW }
}

fn business(business_id: &str) -> Definition {
    let (business_id, business_name) = (business_id.to_owned(), "B".to_owned());
    Definition::BusinessPut(Business { business_id, business_name, email: "b".into(), created_at: NOW })
}

fn customer(customer_id: &str) -> Definition {
    let (customer_id, customer_name) = (customer_id.to_owned(), "C".to_owned());
    Definition::CustomerPut(Customer { business_id: BIZ.into(), customer_id, customer_name, created_at: NOW })
}

fn registry(definitions: &[Definition]) -> Registry {
    let mut registry = Registry::new(2, 3_600);
    registry.apply(&business(BIZ));
    apply(&mut registry, definitions);
    registry
}

fn apply(registry: &mut Registry, definitions: &[Definition]) {
    for definition in definitions {
        registry.apply(definition);
    }
}

fn wanted(names: &[(&str, &str)]) -> Wanted {
    let series = names.iter().map(|(metric, customer)| ((*metric).to_owned(), (*customer).to_owned()));
    Wanted { business_id: BIZ.into(), series: series.collect(), taken: 0 }
}

/// What is made: customers, then series with their numbers.
fn decided(registry: &Registry, wanted: Wanted) -> Vec<String> {
    let mut next_series = registry.next_series();
    let decided = wanted.decide(registry, &mut next_series, NOW).expect("decided");
    let told = decided.iter().map(|definition| match definition {
        Definition::CustomerPut(customer) => customer.customer_id.clone(),
        Definition::SeriesCreated(record) => {
            let customer_id = record.key.customer_id.as_deref().expect("of a customer");
            format!("{} {customer_id}/{}", record.series.0, record.key.metric_name)
        }
        other => panic!("not made from templates: {other:?}"),
    });
    told.collect()
}

#[test]
fn series_are_made_once_and_customers_only_where_the_template_says_so() {
    let put = |name: &str, create_customers| Definition::TemplatePut(template(name, create_customers));
    let registry = registry(&[customer("old"), put("calls", true), put("seats", false)]);
    let names = [
        ("calls", "old"),
        ("calls", "new"),
        ("calls", "old"),
        ("seats", "old"),
        ("seats", "newer"),
        ("absent", "old"),
    ];
    let made = ["new", "1 old/calls", "2 new/calls", "3 old/seats"];
    assert_eq!(decided(&registry, wanted(&names)), made);
    // Its other template does not make the customer, and does not mind that this one does.
    assert_eq!(decided(&registry, wanted(&[("seats", "new"), ("calls", "new")])), ["new", "1 new/calls"]);
    assert_eq!(decided(&registry, wanted(&[("absent", "old")])), [""; 0]);
}

#[test]
fn what_there_is_room_for_is_made() {
    let put = Definition::TemplatePut(template("calls", true));
    let registry = registry(&[put]).with_series_max(3);
    let mut three = wanted(&[("calls", "a"), ("calls", "b"), ("calls", "c"), ("calls", "d")]);
    let made = ["a", "b", "c", "1 a/calls", "2 b/calls", "3 c/calls"];
    assert_eq!(decided(&registry, three.clone()), made, "and no customer without a series");
    three.taken = 2;
    assert_eq!(decided(&registry, three.clone()), ["a", "1 a/calls"]);
    three.taken = 9;
    assert_eq!(decided(&registry, three), [""; 0]);
}

#[test]
fn a_price_bills_one_series_of_a_customer_in_one_request_too() {
    let billed = |name: &str| {
        let price_id = Some("price_1".to_owned());
        let stripe = StripeIntegration {
            enabled: true,
            price_id,
            overage: false,
            overage_threshold: None,
            scale: None,
        };
        let metric_type = MetricType::StripeBilling;
        let spec = SeriesSpec { metric_type, stripe: Some(stripe), ..SeriesSpec::default() };
        Definition::TemplatePut(Template { spec, ..template(name, true) })
    };
    let registry = registry(&[billed("calls"), billed("seats")]);
    let names = [("calls", "a"), ("seats", "a"), ("seats", "b")];
    assert_eq!(decided(&registry, wanted(&names)), ["a", "b", "1 a/calls", "2 b/seats"]);
}

#[test]
fn a_template_is_what_was_put_last_and_goes_with_the_business() {
    let mut registry = registry(&[]);
    let put = |registry: &mut Registry, template: Template, at: i64| {
        let change = Change::PutTemplate(Template { created_at: Micros(at), ..template });
        let decided = change.decide(registry, &mut SeriesId(1), Micros(at)).expect("decided");
        let journaled = decode(&crate::control::encode(&decided)).expect("this version's own");
        assert_eq!(journaled, decided);
        apply(registry, &journaled);
        decided.len()
    };
    let sum = |create_customers| template("calls", create_customers);
    assert_eq!(put(&mut registry, sum(false), 1), 1);
    assert_eq!(put(&mut registry, sum(false), 2), 0, "a repetition changes nothing");
    assert_eq!(put(&mut registry, sum(true), 3), 1);
    let kept = registry.templates().get(BIZ, "calls").expect("there");
    assert_eq!((kept.create_customers, kept.created_at), (true, Micros(1)));
    let mut again = Registry::new(1, 0);
    apply(&mut again, &registry.export());
    assert_eq!(again.templates().get(BIZ, "calls"), Some(kept));
    let delete = |registry: &Registry| {
        let (business_id, metric_name) = (BIZ.to_owned(), "calls".to_owned());
        Change::DeleteTemplate { business_id, metric_name }.decide(registry, &mut SeriesId(1), NOW)
    };
    let deleted = delete(&again).expect("there");
    apply(&mut again, &deleted);
    assert_eq!(delete(&again), Err(ControlError::NoSuchTemplate));
    registry.apply(&Definition::BusinessDeleted { business_id: BIZ.into() });
    assert_eq!(registry.templates().get(BIZ, "calls"), None);
    let orphan = Change::PutTemplate(template("calls", true)).decide(&registry, &mut SeriesId(1), NOW);
    assert_eq!(orphan, Err(ControlError::NoSuchBusiness));
}

#[test]
fn changes_about_one_customer_wait_for_each_other_and_others_do_not() {
    let mut subjects = std::collections::HashSet::new();
    assert!(wanted(&[("calls", "a"), ("seats", "a"), ("calls", "b")]).claim(&mut subjects));
    assert!(!wanted(&[("calls", "c"), ("calls", "b")]).claim(&mut subjects));
    assert!(wanted(&[("calls", "c")]).claim(&mut subjects), "what was put off claims nothing");
    let many = vec![("calls", "z"); SHARED_SERIES_MAX + 1];
    assert!(wanted(&many).stands_alone() && !wanted(&many[1..]).stands_alone());
}

/// A control thread, and the series in each epoch that it journaled.
fn control(registry: Registry) -> (Control, Arc<Mutex<Vec<usize>>>) {
    let registry = Arc::new(RwLock::new(registry));
    let epochs = Arc::new(Mutex::new(Vec::new()));
    let (applied, seen) = (registry.clone(), epochs.clone());
    let append = move |bytes: Vec<u8>, ticket: crate::control::DefinitionTicket| {
        let definitions = decode(&bytes).expect("this version's own");
        let mut registry = applied.write().expect("nobody panics");
        apply(&mut registry, &definitions);
        let series = definitions.iter().filter(|it| matches!(it, Definition::SeriesCreated(_)));
        seen.lock().expect("nobody panics").push(series.count());
        ticket.done.send(Ok(Limited::default())).expect("the control thread waits");
        Ok(())
    };
    let stamps = Arc::new(Stamps::new(Arc::new(MockClock::at(NOW)), None));
    let (control, _) = Control::start(registry, stamps, "admin", Box::new(append)).expect("it starts");
    (control, epochs)
}

fn names(customers: &[String]) -> Vec<(&str, &str)> {
    customers.iter().map(|customer| ("calls", customer.as_str())).collect()
}

fn customers(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("c{number}")).collect()
}

fn ids(made: &[Result<SeriesHandle, ControlError>]) -> Vec<Result<SeriesId, ControlError>> {
    made.iter().map(|made| made.as_ref().map(|handle| handle.series).map_err(|error| *error)).collect()
}

#[tokio::test]
async fn many_series_are_one_entry_of_the_journal_for_each_batch() {
    let customers = customers(BATCH_SERIES_MAX + 10);
    let known: Vec<Definition> = customers.iter().map(|id| customer(id)).collect();
    let template = Definition::TemplatePut(template("calls", false));
    let (control, epochs) = control(registry(&[known, vec![template]].concat()));
    let names = names(&customers);
    let made = ids(&control.by(Origin::SERVER).create_from_template(BIZ, &names).await);
    let distinct: BTreeSet<_> = made.iter().map(|made| made.expect("made")).collect();
    assert_eq!((made.len(), distinct.len()), (names.len(), names.len()));
    assert_eq!(*epochs.lock().expect("nobody panics"), [BATCH_SERIES_MAX, 10]);
    assert_eq!(ids(&control.by(Origin::SERVER).create_from_template(BIZ, &names).await), made);
    assert_eq!(epochs.lock().expect("nobody panics").len(), 2, "what is there is found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_wants_the_same_series_at_once_gets_the_same() {
    let (control, epochs) = control(registry(&[Definition::TemplatePut(template("calls", true))]));
    // Small and large requests that overlap.
    let customers = Arc::new(customers(3 * SHARED_SERIES_MAX));
    let racers = (0..32usize).map(|racer| {
        let (control, customers) = (control.clone(), customers.clone());
        tokio::spawn(async move {
            let share = if racer % 2 == 0 { &customers[..] } else { &customers[racer % 8..racer % 8 + 3] };
            let made = control.by(Origin::SERVER).create_from_template(BIZ, &names(share)).await;
            share.iter().cloned().zip(ids(&made)).collect::<Vec<_>>()
        })
    });
    let mut seen = std::collections::BTreeMap::new();
    for racer in racers.collect::<Vec<_>>() {
        for (customer, made) in racer.await.expect("no panic") {
            let made = made.expect("made");
            assert_eq!(*seen.entry(customer).or_insert(made), made, "one series of a name");
        }
    }
    assert_eq!(epochs.lock().expect("nobody panics").iter().sum::<usize>(), customers.len());
    assert_eq!(control.registry().series().count(), customers.len());
}

#[tokio::test]
async fn beyond_series_max_new_ones_are_refused_and_the_rest_is_not() {
    let definitions = [customer("old"), Definition::TemplatePut(template("calls", true))];
    let (control, _) = control(registry(&definitions).with_series_max(3));
    let edits = control.by(Origin::SERVER);
    let limit = Err(ControlError::SeriesLimit { max: 3 });
    let own = |metric: &str| SeriesKey {
        business_id: BIZ.into(),
        customer_id: None,
        metric_name: metric.to_owned(),
    };
    edits.create_series(own("one"), SeriesSpec::default()).await.expect("room");
    let customers = customers(3);
    let made = ids(&edits.create_from_template(BIZ, &names(&customers)).await);
    assert_eq!(made, [Ok(SeriesId(2)), Ok(SeriesId(3)), limit]);
    assert_eq!(control.registry().customers(BIZ, None).count(), 3, "none without a series");
    let refused = edits.create_series(own("two"), SeriesSpec::default()).await.map(|created| created.existed);
    assert_eq!(refused, Err(ControlError::SeriesLimit { max: 3 }));
    assert!(edits.create_series(own("one"), SeriesSpec::default()).await.expect("there").existed);
    assert_eq!(ids(&edits.create_from_template(BIZ, &[("calls", "c1"), ("calls", "c2")]).await)[0], made[1]);
    // A limit that needs a series of each customer is refused whole, by its dry run too.
    let plan = Plan {
        business_id: BIZ.into(),
        plan_id: "plan_1".into(),
        plan_name: "P".into(),
        stripe_price_id: None,
        created_at: NOW,
    };
    edits.create_plan(plan).await.expect("made");
    let mut record = control.customer(BIZ, "old").expect("there");
    record.plan_id = Some("plan_1".to_owned());
    edits.put_customer(record, false).await.expect("no series is needed yet");
    let needs = PlanLimit {
        business_id: BIZ.into(),
        limit_id: "lim_1".into(),
        plan_id: Some("plan_1".into()),
        metric_name: "seats".into(),
        limit: Limit { value: Amount::ZERO, operator: Operator::Gte, action: Action::Deny },
        notify_at: Vec::new(),
        webhook_url: None,
        period: Default::default(),
        metric_type: None,
        operation: Default::default(),
        created_at: NOW,
    };
    let dry = control.effects(&crate::control::LimitEdit::Create(needs.clone())).map(drop);
    assert_eq!(dry, Err(ControlError::SeriesLimit { max: 3 }));
    assert_eq!(edits.put_plan_limit(needs, false).await, Err(ControlError::SeriesLimit { max: 3 }));
    // What goes makes room.
    edits.delete_series(&own("one")).await.expect("there");
    assert_eq!(ids(&edits.create_from_template(BIZ, &names(&customers)).await)[2], Ok(SeriesId(4)));
    assert_eq!(control.registry().quota().series(BIZ), 3);
}

#[tokio::test]
async fn what_is_refused_takes_no_number_from_what_shares_its_epoch() {
    let (control, _) = control(registry(&[business("biz_2")]).with_series_max(1));
    let edits = control.by(Origin::SERVER);
    let key = |business_id: &str, metric: &str| SeriesKey {
        business_id: business_id.to_owned(),
        customer_id: None,
        metric_name: metric.to_owned(),
    };
    let create = async |business_id: &str, metric: &str| {
        let created = edits.create_series(key(business_id, metric), SeriesSpec::default()).await;
        created.map(|created| created.handle.series)
    };
    // What comes while the gate is closed is decided together.
    let gate = control.gate();
    let open = async move { drop(gate) };
    let (put, one, two, three, ()) = tokio::join!(
        edits.put_template(template("calls", true)),
        create(BIZ, "one"),
        create(BIZ, "two"),
        create("biz_2", "three"),
        open
    );
    let refused = Err(ControlError::SeriesLimit { max: 1 });
    assert_eq!((put, one, two, three), (Ok(()), Ok(SeriesId(1)), refused, Ok(SeriesId(2))));
}

#[tokio::test]
async fn each_name_is_answered_for_itself() {
    let definitions = [
        customer("old"),
        Definition::TemplatePut(template("calls", true)),
        Definition::TemplatePut(template("seats", false)),
    ];
    let (control, epochs) = control(registry(&definitions));
    let edits = control.by(Origin::SERVER);
    let names = [("seats", "new"), ("calls", "new"), ("absent", "old"), ("absent", "none"), ("seats", "old")];
    let made = ids(&edits.create_from_template(BIZ, &names).await);
    let (no_customer, no_series) = (Err(ControlError::NoSuchCustomer), Err(ControlError::NoSuchSeries));
    assert_eq!(made, [no_customer, Ok(SeriesId(1)), no_series, no_customer, Ok(SeriesId(2))]);
    assert_eq!(epochs.lock().expect("nobody panics").len(), 1);
    // Another business's template makes nothing here.
    let foreign = ids(&edits.create_from_template("biz_2", &[("calls", "new")]).await);
    assert_eq!(foreign, [no_customer]);
    control.stop();
    assert_eq!(
        ids(&edits.create_from_template(BIZ, &[("calls", "late")]).await),
        [Err(ControlError::Draining)]
    );
    assert_eq!(ids(&edits.create_from_template(BIZ, &[("calls", "new")]).await), [Ok(SeriesId(1))]);
}

#[tokio::test]
async fn a_prospect_stands_as_the_series_will_and_makes_nothing() {
    let own = Limit { value: Amount::from_units(5), operator: Operator::Gte, action: Action::Deny };
    let spec = SeriesSpec {
        metric_type: MetricType::Reset,
        reset_interval: Some(Span::D1),
        initial_value: Amount::from_units(7),
        ..SeriesSpec::default()
    };
    let default = PlanLimit {
        business_id: BIZ.into(),
        limit_id: "lim_1".into(),
        plan_id: None,
        metric_name: "calls".into(),
        limit: Limit { value: Amount::from_units(9), ..own },
        notify_at: Vec::new(),
        webhook_url: None,
        period: Default::default(),
        metric_type: None,
        operation: Default::default(),
        created_at: NOW,
    };
    let limited = SeriesSpec { limit: Some(own), ..spec.clone() };
    let (control, epochs) = control(registry(&[
        Definition::TemplatePut(Template { spec, ..template("calls", true) }),
        Definition::TemplatePut(Template { spec: limited, ..template("seats", true) }),
        Definition::PlanLimitPut(default),
    ]));
    let key = |metric_name: &str, customer_id: Option<&str>| SeriesKey {
        business_id: BIZ.into(),
        customer_id: customer_id.map(str::to_owned),
        metric_name: metric_name.to_owned(),
    };
    let of = |metric: &str| control.prospect(&key(metric, Some("new"))).expect("a template").standing;
    let (calls, seats) = (of("calls"), of("seats"));
    assert_eq!((calls.value, calls.breached), (Amount::from_units(7), false));
    assert_eq!(calls.limit.map(|limit| limit.value), Some(Amount::from_units(9)), "the default");
    assert_eq!((seats.limit, seats.breached), (Some(own), true));
    let day = Span::D1.window(NOW);
    assert_eq!((calls.period_start, calls.period_end), (Some(day.start), Some(day.end)));
    assert!(control.prospect(&key("calls", None)).is_none(), "a template makes series of customers");
    assert!(control.prospect(&key("absent", Some("new"))).is_none());
    assert!(epochs.lock().expect("nobody panics").is_empty());
}
