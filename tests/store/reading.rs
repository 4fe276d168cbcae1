//! What readers see: pages of history, the projection of definitions, the view of current usage.

use dataflows::types::{
    Action, Actor, Amount, ApiKey, AuditEntry, Business, Customer, CustomerDetails, Definition, KeyKind,
    Limit, LiveState, MetricType, Micros, Operator, RetiredSecret, Scopes, Sealed, SeriesId, SeriesSpec,
    Span, StripeIntegration, StripeKey, Tally, Webhook,
};
use tracktags::store::{
    ALL_SERIES, AuditQuery, History, HistoryQuery, Part, SqliteHistory, Store, StoreError,
};

use super::support::*;

#[test]
fn pages_are_newest_first_within_bounds_and_behind_the_cursor() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![created(1), created(2)]);
        let rows: Vec<_> = (0..10).map(|window| row(1, window * 5, &[window], window)).collect();
        put_whole(&mut store, 5, &[&rows[..], &[row(2, 10, &[99], 99)]].concat());
        let history = database.reader();
        let page = |start: Option<i64>, end: Option<i64>, before: Option<i64>, limit| {
            let at = |seconds: Option<i64>| seconds.map(Micros::from_seconds);
            let query = HistoryQuery {
                series: SeriesId(1),
                start: at(start),
                end: at(end),
                before: at(before),
                limit,
            };
            let page = history.rows(&query, Span::S15).expect("readable");
            assert_eq!(page.progress, Some((5, ALL_SERIES)));
            page.rows.iter().map(|row| row.window_start.seconds()).collect::<Vec<_>>()
        };
        assert_eq!(page(None, None, None, 3), [45, 40, 35]);
        assert_eq!(page(None, None, Some(35), 3), [30, 25, 20]);
        assert_eq!(page(Some(10), Some(20), None, 100), [15, 10], "start is in, end is not");
        assert_eq!(page(Some(10), Some(20), Some(15), 100), [10]);
        assert_eq!(page(Some(10), Some(20), Some(40), 100), [15, 10]);
        assert_eq!(page(Some(50), None, None, 100), [0; 0]);
    });
}

#[test]
fn a_page_gives_back_what_was_committed() {
    on_every_store(|database| {
        let mut store = database.store();
        define(&mut store, 1, vec![created(1)]);
        let mut odd = row(1, 100, &[1], 1);
        (odd.window_start, odd.window_end) = (Micros(100_000_001), Micros(105_000_002));
        odd.tally = Tally { sum: Amount(i128::MAX), count: 3, min: Amount(i128::MIN), max: Amount(-1) };
        odd.value = Amount(123);
        put_whole(&mut store, 5, &[odd]);
        let query = HistoryQuery { series: SeriesId(1), start: None, end: None, before: None, limit: 1 };
        let history = database.reader();
        assert!(history.ready());
        let found = history.rows(&query, Span::S30).expect("readable");
        assert_eq!(found.progress, None, "another class");
        let found = &found.rows[0];
        // A millionth of its age before the batch.
        let flushed = Micros(at(5).0 - (at(5).0 - odd.window_start.0) / 1_000_000);
        assert_eq!((found.window_start, found.window_end), (odd.window_start, odd.window_end));
        assert_eq!((found.tally, found.value, found.flushed_at), (odd.tally, odd.value, Some(flushed)));
    });
}

#[test]
fn readers_do_not_wait_for_a_writer_and_say_so_when_there_is_no_database() {
    let database = Database::new();
    let history = SqliteHistory::new(database.path());
    let query = HistoryQuery { series: SeriesId(1), start: None, end: None, before: None, limit: 1 };
    assert!(matches!(history.rows(&query, Span::S15), Err(StoreError::Unavailable(_))));
    assert!(!history.ready());
    let page = AuditQuery { business_id: None, before: None, limit: 1 };
    assert!(matches!(history.audit(&page), Err(StoreError::Unavailable(_))));
    drop(database.store());
    let writer = database.sql();
    writer.execute_batch("BEGIN IMMEDIATE").expect("locked");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert!(history.rows(&query, Span::S15).expect("readable").rows.is_empty());
                }
            });
        }
    });
}

#[test]
fn definitions_are_tables() {
    on_every_store(|database| {
        let mut store = database.store();
        let (business_id, customer_id) = ("biz_1".to_owned(), "cust_1".to_owned());
        let key = |name: &str, kind, scopes, expires_at| {
            Definition::KeyPut(ApiKey {
                business_id: "biz_1".into(),
                key_name: name.into(),
                kind,
                hash: [name.as_bytes()[0]; 32],
                scopes,
                expires_at,
                created_at: T0,
            })
        };
        let (business_name, email) = ("Acme".to_owned(), "a@acme.test".to_owned());
        let customer = |customer_id: &str| {
            Definition::CustomerPut(Customer {
                business_id: "biz_1".into(),
                customer_id: customer_id.into(),
                customer_name: "Customer".into(),
                created_at: T0,
            })
        };
        let details = CustomerDetails {
            email: Some("c@acme.test".into()),
            subscription_ends_at: Some(at(120)),
            ..CustomerDetails::default()
        };
        let reading = Scopes { read: true, ingest: false, manage: false };
        let of_customer = KeyKind::Customer { customer_id: customer_id.clone() };
        define(
            &mut store,
            1,
            vec![
                Definition::BusinessPut(Business {
                    business_id: business_id.clone(),
                    business_name,
                    email,
                    created_at: T0,
                }),
                customer("cust_1"),
                customer("cust_2"),
                key("lost", KeyKind::Customer { customer_id: "cust_2".into() }, Scopes::ALL, None),
                Definition::CustomerDeleted {
                    business_id: business_id.clone(),
                    customer_id: "cust_2".into(),
                },
                Definition::CustomerDescribed { business_id: business_id.clone(), customer_id, details },
                Definition::BusinessPut(Business {
                    business_id: "biz_2".into(),
                    business_name: "Gone".into(),
                    email: "g@acme.test".into(),
                    created_at: T0,
                }),
                Definition::CustomerPut(Customer {
                    business_id: "biz_2".into(),
                    customer_id: "cust_1".into(),
                    customer_name: "Gone".into(),
                    created_at: T0,
                }),
                stripe_key("biz_2", "live"),
                webhook("biz_2", &[]),
                bound("biz_2", &["https://a.test"]),
                Definition::BusinessDeleted { business_id: "biz_2".into() },
                stripe_key("biz_1", "live"),
                stripe_key("biz_1", "ended"),
                Definition::StripeKeyEnded { business_id: business_id.clone(), key_name: "ended".into() },
                webhook("biz_1", &[]),
                webhook("biz_1", &[60]),
                bound("biz_1", &["https://b.test", "https://a.test"]),
                key("main", KeyKind::Business, Scopes::ALL, Some(at(60))),
                key("theirs", of_customer, reading, None),
                key("gone", KeyKind::Business, Scopes::ALL, None),
                key("ended", KeyKind::Business, Scopes::ALL, None),
                Definition::KeyEnded { hash: [b'e'; 32] },
                Definition::KeyDeleted { business_id, key_name: "gone".into() },
                created(1),
                Definition::SeriesChanged { series: SeriesId(1), spec: described() },
            ],
        );
        let t0 = "2026-11-24T06:00:00.000000Z";
        let hash = |first: u8| format!("{first:02x}").repeat(32);
        let targets = r#"["https://a.test","https://b.test"]"#;
        assert_eq!(
            database.lines("SELECT * FROM businesses"),
            [format!("biz_1|Acme|a@acme.test|{t0}|{targets}")]
        );
        let described = format!("biz_1|cust_1|Customer|{t0}|c@acme.test|-|-|-|2026-11-24T06:02:00.000000Z|-");
        assert_eq!(database.lines("SELECT * FROM customers"), [described]);
        assert_eq!(
            database.lines("SELECT * FROM api_keys ORDER BY key_name"),
            [
                format!(
                    "biz_1|main|business|-|{}|read ingest manage|2026-11-24T06:01:00.000000Z|{t0}",
                    hash(b'm')
                ),
                format!("biz_1|theirs|customer_api|cust_1|{}|read|-|{t0}", hash(b't')),
            ]
        );
        assert_eq!(database.lines("SELECT * FROM stripe_keys"), [format!("biz_1|live|AQI=|Aw==|{t0}")]);
        let retired = r#"[{"ends_at":"2026-11-24T06:01:00.000000Z","secret":"BQ=="}]"#;
        let webhook = format!("biz_1|https://example.test/hook|BA==|{t0}|{retired}");
        assert_eq!(database.lines("SELECT * FROM webhooks"), [webhook]);
        assert_eq!(
            database.lines("SELECT * FROM series"),
            [format!(
                "1|biz_1|customer|cust_1|metric_1|reset|SUM|5s|1w|30s|-0.5|60|7|{{\"env\":\"prod\"}}|10.0|gte|allow_overage|\
             [80,100]|https://example.test/hook|0|0|{{\"enabled\":true,\"export\":\"overage\",\"overage_threshold\":\"2.5\",\
             \"price_id\":\"price_1\",\"scale\":null}}|{{\"a\":1}}|{t0}"
            )]
        );
    });
}

#[test]
fn the_audit_log_is_read_newest_first_and_a_repetition_changes_nothing() {
    on_every_store(|database| {
        let mut store = database.store();
        let entry = |business_id: &str, action: &str, actor: Actor| AuditEntry {
            at: T0,
            actor,
            action: action.into(),
            business_id: business_id.into(),
            subject: "s".into(),
            request_id: (action == "two").then(|| "req_1".into()),
        };
        let kind = KeyKind::Customer { customer_id: "c".into() };
        let one = entry("biz_1", "one", Actor::Key { kind: KeyKind::Business, key_name: "k".into() });
        let two = entry("biz_2", "two", Actor::Key { kind, key_name: "k".into() });
        let (three, four) = (entry("biz_1", "three", Actor::Admin), entry("biz_1", "four", Actor::Server));
        let told = |entry: &AuditEntry| Definition::Audited(entry.clone());
        define(&mut store, 1, vec![created(1), told(&one), created(2), told(&two)]);
        define(&mut store, 2, vec![told(&three)]);
        let history = database.reader();
        let page = |business_id: Option<&str>, before, limit| {
            let query = AuditQuery { business_id: business_id.map(str::to_owned), before, limit };
            let rows = history.audit(&query).expect("readable").into_iter();
            rows.map(|row| (row.epoch, row.index, row.entry)).collect::<Vec<_>>()
        };
        let all = [(2, 0, three), (1, 3, two), (1, 1, one)];
        assert_eq!(page(None, None, 10), all);
        assert_eq!(page(None, Some((2, 0)), 10), all[1..]);
        assert_eq!(page(None, Some((1, 3)), 1), all[2..]);
        assert_eq!(page(Some("biz_1"), None, 10), [all[0].clone(), all[2].clone()]);
        assert_eq!(page(Some("biz_1"), Some((2, 0)), 1), all[2..]);
        assert_eq!(page(Some("biz_3"), None, 10), []);
        // As if the store had been given back its past: the same epochs come again.
        database.execute("UPDATE sink_progress SET upper = 0 WHERE class = 'definitions'");
        let [last, second, first] = all.each_ref().map(|(_, _, entry)| told(entry));
        let again = [(1, created(1)), (1, first), (1, created(2)), (1, second), (2, last)];
        let part = Part { journal_id: JOURNAL, definitions: &again, rows: None };
        store.commit(&part).expect("committed again, in one part");
        assert_eq!(page(None, None, 10), all);
        define(&mut store, 3, vec![told(&four)]);
        assert_eq!(page(None, None, 1), [(3, 0, four)]);
    });
}

fn stripe_key(business_id: &str, key_name: &str) -> Definition {
    Definition::StripeKeyPut(StripeKey {
        business_id: business_id.into(),
        key_name: key_name.into(),
        secret_key: Sealed(vec![1, 2]),
        webhook_secret: Sealed(vec![3]),
        created_at: T0,
    })
}

/// The customer keys of a business, bound to origins.
fn bound(business_id: &str, origins: &[&str]) -> Definition {
    let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    Definition::ProxyTargetsPut { business_id: business_id.into(), origins }
}

/// A webhook with retired secrets that end so many seconds after T0.
fn webhook(business_id: &str, retired: &[u64]) -> Definition {
    let retired = retired.iter().map(|&end| RetiredSecret { secret: Sealed(vec![5]), ends_at: at(end) });
    Definition::WebhookPut(Webhook {
        business_id: business_id.into(),
        url: "https://example.test/hook".into(),
        secret: Sealed(vec![4]),
        created_at: T0,
        retired: retired.collect(),
    })
}

/// A description in which every field differs from the default.
pub fn described() -> SeriesSpec {
    let limit =
        Limit { value: Amount::from_units(10), operator: Operator::Gte, action: Action::AllowOverage };
    let stripe = StripeIntegration {
        enabled: true,
        price_id: Some("price_1".into()),
        overage: true,
        overage_threshold: Some(Amount(2_500_000_000)),
        scale: None,
    };
    SeriesSpec {
        metric_type: MetricType::Reset,
        reset_interval: Some(Span::W1),
        batch_interval: Span::S30,
        initial_value: Amount(-500_000_000),
        max_event_age_secs: Some(60),
        cleanup_after_days: Some(7),
        tags: [("env".to_owned(), "prod".to_owned())].into(),
        limit: Some(limit),
        notify_at: vec![80, 100],
        webhook_url: Some("https://example.test/hook".into()),
        stored: false,
        restore_on_startup: false,
        stripe: Some(stripe),
        custom: "{\"a\":1}".into(),
        ..spec()
    }
}

#[test]
fn reset_periods_end_where_the_service_ends_them() {
    on_every_store(|database| {
        let mut store = database.store();
        let reset =
            |span| SeriesSpec { metric_type: MetricType::Reset, reset_interval: Some(span), ..spec() };
        let mut expected = Vec::new();
        let (mut definitions, mut states) = (Vec::new(), Vec::new());
        for (index, span) in Span::ALL.into_iter().enumerate() {
            for (turn, start) in [span.window(T0).start, Micros(T0.0 + 1)].into_iter().enumerate() {
                let series = (index * 2 + turn) as u32;
                definitions.push(created_as(series, reset(span)));
                states.push(LiveState { period_start: Some(start), ..state(series, &[1]) });
                expected.push(format!("{series}|{}", span.window(start).end.seconds()));
            }
        }
        define(&mut store, 1, definitions);
        put_all(&mut store, 2, &[], &states, ALL_SERIES).expect("committed");
        let end = database.seconds("period_end");
        let ends = format!("SELECT series_id, {end} FROM reset_periods ORDER BY series_id");
        assert_eq!(database.lines(&ends), expected);
        let ends = database.lines("SELECT period_end FROM reset_periods");
        assert!(ends.iter().all(|end| end.len() == 27 && end.ends_with(".000000Z")), "{ends:?}");
    });
}

#[test]
fn current_usage_reads_the_initial_value_once_a_period_has_ended() {
    on_every_store(|database| {
        let mut store = database.store();
        let starting_at = |metric_type, units| SeriesSpec {
            metric_type,
            reset_interval: (metric_type == MetricType::Reset).then_some(Span::D1),
            initial_value: Amount::from_units(units),
            ..spec()
        };
        let hidden = SeriesSpec { stored: false, ..spec() };
        define(
            &mut store,
            1,
            vec![
                created_as(2, starting_at(MetricType::Checkpoint, 0)),
                created_as(4, starting_at(MetricType::Reset, 10)),
                created_as(6, starting_at(MetricType::Reset, 10)),
                created_as(8, starting_at(MetricType::Checkpoint, 20)),
                created_as(10, hidden),
            ],
        );
        let (past, future) = (Micros(0), Micros::from_seconds(4_000_000_000));
        let since = |series, start| LiveState { period_start: Some(start), ..state(series, &[3, 4]) };
        let states = [state(2, &[1, 2]), since(4, past), since(6, future)];
        put_all(&mut store, 2, &[], &states, ALL_SERIES).expect("committed");
        assert_eq!(
            database.lines("SELECT series_id, current_value, count FROM usage_current ORDER BY series_id"),
            ["2|3.0|2", "4|10.0|0", "6|7.0|2", "8|20.0|0"]
        );
        assert!(store.progress().is_ok());
    });
}
/// A tenant with a key and two customers, one with a key, in the order in which tables give them back.
pub fn tenants(odd: &str) -> Vec<Definition> {
    let key = |name: &str, kind, hash: u8, created_at| {
        let scopes = Scopes { read: true, ingest: hash > 1, manage: false };
        let (business_id, key_name) = ("biz_1".to_owned(), name.to_owned());
        let expires_at = (hash > 1).then_some(at(99));
        Definition::KeyPut(ApiKey {
            business_id,
            key_name,
            kind,
            hash: [hash; 32],
            scopes,
            expires_at,
            created_at,
        })
    };
    let customer = |id: &str, created_at, details: CustomerDetails| {
        let (business_id, customer_id) = ("biz_1".to_owned(), id.to_owned());
        let customer_name = odd.to_owned();
        let put =
            Customer { business_id: business_id.clone(), customer_id: id.into(), customer_name, created_at };
        [Definition::CustomerPut(put), Definition::CustomerDescribed { business_id, customer_id, details }]
    };
    let full = CustomerDetails {
        email: Some("c@acme.test".into()),
        description: Some(odd.into()),
        stripe_customer_id: Some("cus_1".into()),
        stripe_price_id: Some("price_1".into()),
        subscription_ends_at: Some(Micros(1_795_500_000_123_456)),
    };
    let business = Business {
        business_id: "biz_1".into(),
        business_name: odd.into(),
        email: "a@acme.test".into(),
        created_at: T0,
    };
    let mut definitions = vec![
        Definition::BusinessPut(business),
        bound("biz_1", &["https://a.test", "https://b.test"]),
        key("main", KeyKind::Business, 1, at(1)),
        key("theirs", KeyKind::Customer { customer_id: "cust_1".into() }, 2, at(2)),
    ];
    definitions.push(stripe_key("biz_1", "live"));
    definitions.push(webhook("biz_1", &[60]));
    definitions.extend(customer("cust_1", at(1), full));
    definitions.extend(customer("cust_2", at(2), CustomerDetails::default()));
    definitions
}
