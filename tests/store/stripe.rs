//! What Stripe has told: subscriptions, events and billing periods that are ended or final as tables, and read back by a start on an empty
//! journal.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use dataflows::types::{
    BillingPeriodEnd, BillingPeriodFinal, Definition, Epoch, Micros, SeriesId, StripeEvent, Subscription,
    SubscriptionItem, SubscriptionStanding,
};
use proptest::prelude::*;
use proptest::{collection, option, sample};
use tracktags::store::{Part, Store};

use super::support::*;

const SUBSCRIPTIONS: &str = "SELECT * FROM subscriptions ORDER BY business_id, subscription_id";
const EVENTS: &str = "SELECT * FROM stripe_events ORDER BY business_id, event_id";
const ENDED: &str = "SELECT * FROM billing_periods_ended ORDER BY series_id";
const FINAL: &str = "SELECT * FROM billing_periods_final ORDER BY series_id";
const ODD: &str = "quote ' \" back \\ tab \t new \n \u{1F4C8} \u{202e} $1 {schema} | --";
/// How long an event is kept, in seconds: thirty days.
const REMEMBERED: i64 = 2_592_000;

/// A subscription in which every field says something.
fn subscription(business_id: &str, subscription_id: &str) -> Subscription {
    let item = |price_id: &str, period| SubscriptionItem { price_id: price_id.into(), period };
    Subscription {
        business_id: business_id.into(),
        subscription_id: subscription_id.into(),
        stripe_customer_id: "cus_1".into(),
        standing: SubscriptionStanding::Running,
        created_at: T0,
        ends_at: Some(at(120)),
        said_at: at(60),
        is_simulated: true,
        items: vec![item("price_1", Some((T0, at(60)))), item("price_2", None)],
    }
}

fn event(business_id: &str, event_id: &str, received_at: Micros) -> StripeEvent {
    StripeEvent {
        business_id: business_id.into(),
        event_id: event_id.into(),
        event_type: "invoice.created".into(),
        created_at: at(60),
        received_at,
        applied: true,
        reason: "it was so".into(),
    }
}

fn ended(series: u32, boundary: Micros) -> Definition {
    Definition::BillingPeriodEnded(BillingPeriodEnd { series: SeriesId(series), boundary })
}

fn finalized(series: u32, until: Micros) -> Definition {
    Definition::BillingPeriodFinal(BillingPeriodFinal { series: SeriesId(series), until })
}

fn awaited(business_id: &str, event_id: &str) -> Definition {
    Definition::ReportAwaited { business_id: business_id.into(), event_id: event_id.into() }
}

fn business_ended(business_id: &str) -> Definition {
    Definition::BusinessDeleted { business_id: business_id.into() }
}

#[test]
fn what_stripe_told_is_tables() {
    on_every_store(|database| {
        let mut store = database.store();
        let bare = Subscription {
            standing: SubscriptionStanding::Undecided,
            ends_at: None,
            is_simulated: false,
            items: Vec::new(),
            ..subscription("biz_1", "sub_2")
        };
        let ignored = StripeEvent { applied: false, reason: ODD.into(), ..event("biz_1", "evt_2", T0) };
        let definitions = vec![
            created(1),
            Definition::SubscriptionPut(subscription("biz_1", "sub_1")),
            Definition::SubscriptionPut(bare),
            Definition::StripeEventRead(event("biz_1", "evt_1", T0)),
            Definition::StripeEventRead(ignored),
            awaited("biz_1", "evt_2"),
            ended(1, at(60)),
            finalized(1, at(120)),
        ];
        define(&mut store, 1, definitions);
        let [t0, t60, t120] = [T0, at(60), at(120)].map(time);
        let items = format!(
            r#"[{{"period_end":"{t60}","period_start":"{t0}","price_id":"price_1"}},{{"period_end":null,"period_start":null,"price_id":"price_2"}}]"#
        );
        assert_eq!(
            database.lines(SUBSCRIPTIONS),
            [
                format!("biz_1|sub_1|cus_1|running|{t0}|{t120}|{t60}|1|{items}"),
                format!("biz_1|sub_2|cus_1|undecided|{t0}|-|{t60}|0|[]"),
            ]
        );
        assert_eq!(
            database.lines(EVENTS),
            [
                format!("biz_1|evt_1|invoice.created|{t60}|{t0}|1|it was so|0"),
                format!("biz_1|evt_2|invoice.created|{t60}|{t0}|0|{ODD}|1"),
            ]
        );
        assert_eq!(database.lines(ENDED), [format!("1|{t60}")]);
        assert_eq!(database.lines(FINAL), [format!("1|{t120}")]);
        // Its report is there: the event is read once more.
        define(&mut store, 2, vec![Definition::StripeEventRead(event("biz_1", "evt_2", T0))]);
        let second = format!("biz_1|evt_2|invoice.created|{t60}|{t0}|1|it was so|0");
        assert_eq!(database.lines(EVENTS)[1..], [second]);
    });
}

#[test]
fn of_a_subscription_the_last_word_counts_and_of_the_ends_of_a_period_the_greatest() {
    on_every_store(|database| {
        let mut store = database.store();
        let put = |standing| {
            let over = Subscription { standing, ends_at: None, ..subscription("biz_1", "sub_1") };
            Definition::SubscriptionPut(over)
        };
        let [t60, t120] = [60, 120].map(|seconds| time(at(seconds)));
        let standings = "SELECT standing, ends_at FROM subscriptions";
        let (running, over) = (SubscriptionStanding::Running, SubscriptionStanding::Over);
        define(
            &mut store,
            1,
            vec![
                created(1),
                put(over),
                put(running),
                ended(1, at(60)),
                ended(1, T0),
                finalized(1, at(60)),
                finalized(1, T0),
            ],
        );
        assert_eq!(database.lines(standings), ["running|-"]);
        assert_eq!(database.lines(ENDED), [format!("1|{t60}")]);
        define(&mut store, 2, vec![put(over), ended(1, T0), finalized(1, T0)]);
        assert_eq!(database.lines(FINAL), [format!("1|{t60}")], "nothing is taken back");
        assert_eq!(database.lines(standings), ["over|-"]);
        assert_eq!(database.lines(ENDED), [format!("1|{t60}")], "what comes late is no greater");
        define(&mut store, 3, vec![ended(1, at(120))]);
        assert_eq!(database.lines(ENDED), [format!("1|{t120}")]);
    });
}

#[test]
fn a_business_takes_what_stripe_told_along_and_a_series_its_end() {
    on_every_store(|database| {
        let mut store = database.store();
        let put = |business_id: &str| {
            let subscription = Definition::SubscriptionPut(subscription(business_id, "sub_1"));
            vec![subscription, Definition::StripeEventRead(event(business_id, "evt_1", T0))]
        };
        let ends =
            vec![created(1), created(2), ended(1, T0), ended(2, T0), finalized(1, T0), finalized(2, T0)];
        define(&mut store, 1, [put("biz_1"), put("biz_2"), ends].concat());
        // One that was there before, and one of the same stretch; the same of series.
        let gone =
            vec![business_ended("biz_1"), deleted(1), created(3), ended(3, T0), finalized(3, T0), deleted(3)];
        define(&mut store, 2, [gone, put("biz_3"), vec![business_ended("biz_3")]].concat());
        for table in ["subscriptions", "stripe_events"] {
            assert_eq!(database.lines(&format!("SELECT business_id FROM {table}")), ["biz_2"], "{table}");
        }
        for table in ["billing_periods_ended", "billing_periods_final"] {
            assert_eq!(database.lines(&format!("SELECT series_id FROM {table}")), ["2"], "{table}");
        }
    });
}

#[test]
fn a_start_reads_events_as_long_as_they_are_remembered_and_ends_of_live_series() {
    on_every_store(|database| {
        let mut store = database.store();
        let received = |id: &str, micros: i64| {
            let since = T0.0 - REMEMBERED * Micros::PER_SECOND;
            Definition::StripeEventRead(event("biz_1", id, Micros(since + micros)))
        };
        // Whatever their ids say, they come back in the order in which they were read.
        let [old, last, newer] = [received("evt_3", -1), received("evt_2", 0), received("evt_1", 1)];
        let definitions = vec![
            created(1),
            old,
            newer.clone(),
            last.clone(),
            awaited("biz_1", "evt_2"),
            ended(1, T0),
            ended(9, T0),
            finalized(1, T0),
            finalized(9, T0),
        ];
        define(&mut store, 1, definitions);
        if let Some(content) = store.content() {
            let expected =
                [created(1), last, awaited("biz_1", "evt_2"), newer, ended(1, T0), finalized(1, T0)];
            assert_eq!(content.definitions, expected);
        }
    });
}

#[test]
fn events_from_before_what_is_remembered_go_when_another_comes() {
    on_every_store(|database| {
        let mut store = database.store();
        let put = |business_id: &str, id: &str, seconds: i64| {
            let received_at = Micros(T0.0 + seconds * Micros::PER_SECOND);
            Definition::StripeEventRead(event(business_id, id, received_at))
        };
        let ids = || database.lines("SELECT event_id FROM stripe_events ORDER BY event_id");
        define(&mut store, 1, vec![put("biz_1", "evt_1", 0), put("biz_2", "evt_2", 1)]);
        define(&mut store, 2, vec![put("biz_1", "evt_3", REMEMBERED)]);
        assert_eq!(ids(), ["evt_1", "evt_2", "evt_3"], "to the second");
        define(&mut store, 3, vec![put("biz_1", "evt_4", REMEMBERED + 1)]);
        assert_eq!(ids(), ["evt_2", "evt_3", "evt_4"]);
        // Within one stretch, whosever they are, and of a business that is gone by its end.
        let stretch = vec![
            put("biz_3", "evt_5", 2 * REMEMBERED),
            put("biz_4", "evt_6", 3 * REMEMBERED + 1),
            business_ended("biz_4"),
        ];
        define(&mut store, 4, stretch);
        assert_eq!(ids(), [""; 0]);
    });
}

/// The end of a series' last period, and up to where they are final.
type OfSeries = (Option<Micros>, Option<Micros>);

/// What is there, found naively.
#[derive(Default)]
struct Model {
    series: BTreeMap<SeriesId, OfSeries>,
    subscriptions: BTreeMap<(String, String), Subscription>,
    /// And whether its report is awaited.
    events: BTreeMap<(String, String), (StripeEvent, bool)>,
}

impl Model {
    fn apply(&mut self, definition: &Definition) {
        match definition.clone() {
            Definition::SeriesCreated(record) => drop(self.series.insert(record.series, (None, None))),
            Definition::SeriesDeleted { series } => drop(self.series.remove(&series)),
            Definition::BillingPeriodEnded(BillingPeriodEnd { series, boundary }) => {
                let (last, _) = self.series.get_mut(&series).expect("drawn for live series");
                *last = Some(boundary).max(*last);
            }
            Definition::BillingPeriodFinal(BillingPeriodFinal { series, until }) => {
                let (_, last) = self.series.get_mut(&series).expect("drawn for live series");
                *last = Some(until).max(*last);
            }
            Definition::ReportAwaited { business_id, event_id } => {
                let event = self.events.get_mut(&(business_id, event_id)).expect("read before, in its epoch");
                event.1 = true;
            }
            Definition::SubscriptionPut(put) => {
                self.subscriptions.insert((put.business_id.clone(), put.subscription_id.clone()), put);
            }
            Definition::StripeEventRead(event) => {
                let since = Micros(event.received_at.0 - REMEMBERED * Micros::PER_SECOND);
                self.events.retain(|_, (known, _)| known.received_at >= since);
                self.events.insert((event.business_id.clone(), event.event_id.clone()), (event, false));
            }
            Definition::BusinessDeleted { business_id } => {
                self.subscriptions.retain(|(of, _), _| *of != business_id);
                self.events.retain(|(of, _), _| *of != business_id);
            }
            other => panic!("not drawn here: {other:?}"),
        }
    }

    /// Whether a definition is about something that may be.
    fn may(&self, definition: &Definition) -> bool {
        match definition {
            Definition::SeriesCreated(record) => !self.series.contains_key(&record.series),
            Definition::BillingPeriodEnded(end) => self.series.contains_key(&end.series),
            Definition::BillingPeriodFinal(last) => self.series.contains_key(&last.series),
            _ => true,
        }
    }

    fn lines(&self) -> [Vec<String>; 4] {
        let subscriptions = self.subscriptions.values().map(|it| {
            let items = it.items.iter().map(|item| {
                let [start, end] =
                    [item.period.map(|it| it.0), item.period.map(|it| it.1)].map(|it| it.map(time));
                serde_json::json!({"period_end": end, "period_start": start, "price_id": item.price_id})
            });
            let items = serde_json::Value::from_iter(items);
            let standing = serde_json::json!(it.standing);
            let parts = [
                it.business_id.clone(),
                it.subscription_id.clone(),
                it.stripe_customer_id.clone(),
                standing.as_str().expect("a word").to_owned(),
                time(it.created_at),
                it.ends_at.map_or("-".into(), time),
                time(it.said_at),
                u8::from(it.is_simulated).to_string(),
                items.to_string(),
            ];
            parts.join("|")
        });
        let events = self.events.values().map(|(it, is_awaited)| {
            let (applied, reason) = (u8::from(it.applied), &it.reason);
            let [created_at, received_at] = [it.created_at, it.received_at].map(time);
            let StripeEvent { business_id, event_id, event_type, .. } = it;
            format!(
                "{business_id}|{event_id}|{event_type}|{created_at}|{received_at}|{applied}|{reason}|{}",
                u8::from(*is_awaited)
            )
        });
        let of_series = |of: fn(&OfSeries) -> Option<Micros>| {
            let lines = self.series.iter().filter_map(|(series, it)| Some((series.0, time(of(it)?))));
            lines.map(|(series, at)| format!("{series}|{at}")).collect()
        };
        [subscriptions.collect(), events.collect(), of_series(|it| it.0), of_series(|it| it.1)]
    }

    /// The definitions that a start reads.
    fn definitions(&self) -> Vec<Definition> {
        let series = self.series.keys().map(|series| created(series.0));
        let mut subscriptions: Vec<_> = self.subscriptions.iter().collect();
        subscriptions.sort_by_key(|(name, subscription)| (subscription.created_at, *name));
        let subscriptions = subscriptions.into_iter().map(|(_, it)| Definition::SubscriptionPut(it.clone()));
        let since = Micros(T0.0 - REMEMBERED * Micros::PER_SECOND);
        let mut events: Vec<_> =
            self.events.iter().filter(|(_, (event, _))| event.received_at >= since).collect();
        events.sort_by_key(|(name, (event, _))| (event.received_at, *name));
        let events = events.into_iter().flat_map(|(_, (event, is_awaited))| {
            let awaited = is_awaited.then(|| awaited(&event.business_id, &event.event_id));
            [Definition::StripeEventRead(event.clone())].into_iter().chain(awaited)
        });
        let ends = self.series.iter().filter_map(|(series, it)| Some(ended(series.0, it.0?)));
        let finals = self.series.iter().filter_map(|(series, it)| Some(finalized(series.0, it.1?)));
        series.chain(subscriptions).chain(events).chain(ends).chain(finals).collect()
    }
}

fn time(at: Micros) -> String {
    format!("{:.6}", jiff::Timestamp::from_microsecond(at.0).expect("a time of the tests"))
}

/// One definition, or an event with what is behind it; few names, so that definitions meet.
fn drawn() -> impl Strategy<Value = Vec<Definition>> {
    let of = || (0..2u8).prop_map(|id| format!("biz_{id}"));
    let text = || sample::select(vec!["", "a", ODD]).prop_map(str::to_owned);
    // Around the first moment of which events are remembered, to the microsecond, and behind it. One that is read once more
    // was received when it was.
    let received = |id: u8| match id {
        0..3 => Micros(T0.0 - REMEMBERED * Micros::PER_SECOND + i64::from(id) - 1),
        id => at(u64::from(id) - 3),
    };
    let moment = || (0..9_000_000i64).prop_map(|micros| Micros(T0.0 + micros));
    let event = (of(), 0..6u8, text(), any::<bool>()).prop_map(move |(of, id, text, applied)| {
        let event_type = text.clone();
        let event = event(&of, &format!("evt_{id}"), received(id));
        StripeEvent { event_type, applied, reason: text, ..event }
    });
    use SubscriptionStanding::*;
    let item = (text(), option::of((moment(), moment())))
        .prop_map(|(price_id, period)| SubscriptionItem { price_id, period });
    let times = (moment(), option::of(moment()), moment());
    let rest = (sample::select(vec![Running, Over, Undecided]), any::<bool>(), collection::vec(item, 0..3));
    let subscription = (of(), 0..3u8, text(), times, rest).prop_map(
        |(of, id, stripe_customer_id, (created_at, ends_at, said_at), (standing, is_simulated, items))| {
            Subscription {
                business_id: of,
                subscription_id: format!("sub_{id}"),
                stripe_customer_id,
                standing,
                created_at,
                ends_at,
                said_at,
                is_simulated,
                items,
            }
        },
    );
    let event = (event, option::weighted(0.3, Just(()))).prop_map(|(event, is_awaited)| {
        let awaited = is_awaited.map(|()| awaited(&event.business_id, &event.event_id));
        [Definition::StripeEventRead(event)].into_iter().chain(awaited).collect::<Vec<_>>()
    });
    let one = prop_oneof![
        6 => subscription.prop_map(Definition::SubscriptionPut),
        4 => (1..4u32).prop_map(created),
        6 => (1..4u32, moment()).prop_map(|(series, boundary)| ended(series, boundary)),
        1 => (1..4u32).prop_map(deleted),
        6 => (1..4u32, moment()).prop_map(|(series, until)| finalized(series, until)),
        1 => of().prop_map(|of| business_ended(&of)),
    ];
    prop_oneof![24 => one.prop_map(|one| vec![one]), 6 => event]
}

/// Definitions with their epochs, a few an epoch, and none about what is not there.
fn history() -> impl Strategy<Value = Vec<(Epoch, Definition)>> {
    collection::vec((drawn(), option::weighted(0.3, Just(()))), 0..50).prop_map(|drawn| {
        let (mut model, mut epoch, mut history) = (Model::default(), 1, Vec::new());
        for (definitions, cut) in drawn {
            if model.may(&definitions[0]) {
                definitions.iter().for_each(|definition| model.apply(definition));
                history.extend(definitions.into_iter().map(|definition| (epoch, definition)));
                epoch += u64::from(cut.is_some());
            }
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_stripe_tells_tables_and_what_a_start_reads_equal_the_model(history in history()) {
        static STORES: OnceLock<Vec<Database>> = OnceLock::new();
        let mut model = Model::default();
        history.iter().for_each(|(_, definition)| model.apply(definition));
        let (tables, defined) = (model.lines(), model.definitions());
        for database in STORES.get_or_init(every_store) {
            database.lose_everything();
            let mut store = database.store();
            store.progress().expect("readable, once the tables are made");
            let mut commit = |definitions: &[(Epoch, Definition)]| {
                let part = Part { journal_id: JOURNAL, definitions, rows: None };
                store.commit(&part).expect("committed");
            };
            let queries = [SUBSCRIPTIONS, EVENTS, ENDED, FINAL];
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
