//! Events of several versions of Stripe's API, written by hand from its documentation, and bodies that lie.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const START: i64 = 1_790_812_800;
const END: i64 = 1_793_491_200;

fn event(kind: &str, object: Value) -> Value {
    json!({
        "id": "evt_1", "object": "event", "type": kind, "created": START + 1, "livemode": false,
        "api_version": "2025-03-31.basil", "pending_webhooks": 1, "request": {"id": null, "idempotency_key": null},
        "data": {"object": object, "previous_attributes": {"status": "trialing"}},
    })
}

fn read(value: &Value) -> Result<Event, EventError> {
    Event::read(value.to_string().as_bytes())
}

fn what(kind: &str, object: Value) -> What {
    read(&event(kind, object)).expect("an event").what
}

fn period() -> Option<Period> {
    Some(Period { start: Micros::from_seconds(START), end: Micros::from_seconds(END) })
}

/// From basil on: periods are on the items.
fn subscription_now() -> Value {
    json!({
        "id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "active", "created": START,
        "cancel_at": null, "cancel_at_period_end": false, "canceled_at": null, "ended_at": null, "livemode": false,
        "test_clock": null, "latest_invoice": "in_1", "metadata": {"period": "x"},
        "items": {"object": "list", "has_more": false, "url": "/v1/subscription_items?subscription=sub_1", "data": [
            {"id": "si_1", "object": "subscription_item", "current_period_start": START, "current_period_end": END,
             "price": {"id": "price_1", "object": "price", "recurring": {"interval": "month", "meter": "mtr_1"}},
             "plan": {"id": "price_1", "object": "plan"}, "subscription": "sub_1"},
            {"id": "si_2", "object": "subscription_item", "current_period_start": START, "current_period_end": END,
             "price": {"id": "price_2", "object": "price", "recurring": null}, "quantity": 1},
        ]},
    })
}

/// Before: one period for all, and before that plans instead of prices.
fn subscription_then() -> Value {
    json!({
        "id": "sub_1", "object": "subscription", "customer": {"id": "cus_1", "object": "customer"}, "status": "past_due",
        "created": START, "current_period_start": START, "current_period_end": END, "cancel_at": END,
        "canceled_at": START + 2, "ended_at": null, "test_clock": "clock_1",
        "items": {"object": "list", "data": [{"id": "si_1", "plan": {"id": "gold", "object": "plan"}, "quantity": 1}]},
    })
}

fn invoice_now() -> Value {
    json!({
        "id": "in_1", "object": "invoice", "customer": "cus_1", "billing_reason": "subscription_cycle", "created": END,
        "status": "draft", "period_start": START, "period_end": END, "test_clock": null,
        "parent": {"type": "subscription_details", "quote_details": null,
                   "subscription_details": {"metadata": {}, "subscription": "sub_1"}},
        "lines": {"object": "list", "has_more": true, "total_count": 12, "url": "/v1/invoices/in_1/lines", "data": [
            {"id": "il_1", "object": "line_item", "period": {"start": START, "end": END},
             "pricing": {"type": "price_details", "price_details": {"price": "price_1", "product": "prod_1"}}},
            {"id": "il_2", "object": "line_item", "period": {"start": END, "end": END}, "pricing": null},
        ]},
    })
}

fn invoice_then() -> Value {
    json!({
        "id": "in_1", "object": "invoice", "customer": "cus_1", "billing_reason": "subscription_create",
        "created": END, "subscription": "sub_1", "period_end": END,
        "lines": {"object": "list", "data": [
            {"id": "il_1", "period": {"start": START, "end": END}, "price": {"id": "price_1", "object": "price"}},
        ]},
    })
}

fn report() -> Value {
    json!({
        "id": "evt_test_1", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered",
        "created": "2026-11-24T17:46:22.134Z", "livemode": true, "context": null, "reason": null,
        "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
        "data": {
            "developer_message_summary": "There are 3 invalid events",
            "validation_start": "2026-11-24T17:46:10.000Z", "validation_end": "2026-11-24T17:46:20.000Z",
            "reason": {"error_count": 3, "error_types": [
                {"code": "timestamp_too_far_in_past", "error_count": 2, "sample_errors": [
                    {"error_message": "too old", "request": {"identifier": "tt_1"}},
                    {"error_message": "too old", "request": {"identifier": "tt_2-1"}},
                ]},
                {"code": "meter_event_customer_not_found", "error_count": 1, "sample_errors": [
                    {"error_message": "nobody", "request": {"identifier": "tt_3"}},
                ]},
            ]},
        },
    })
}

#[test]
fn an_envelope_says_what_when_and_whether_it_is_real() {
    let read = read(&event("customer.subscription.updated", subscription_now())).expect("an event");
    assert_eq!(read.id, "evt_1");
    assert_eq!(read.kind, "customer.subscription.updated");
    assert_eq!(read.created_at, Micros::from_seconds(START + 1));
    assert_eq!((read.livemode, read.api_version.as_deref()), (false, Some("2025-03-31.basil")));
}

#[test]
fn a_subscription_has_its_periods_on_its_items() {
    let What::SubscriptionCreated(read) = what("customer.subscription.created", subscription_now()) else {
        panic!("a new subscription")
    };
    assert_eq!((read.id.as_str(), read.customer.as_str(), read.status), ("sub_1", "cus_1", Status::Active));
    assert_eq!((read.cancel_at, read.canceled_at, read.ended_at, read.test_clock), (None, None, None, None));
    assert_eq!((read.created_at, read.has_more), (Micros::from_seconds(START), false));
    let item = |price_id: &str| Item { price_id: price_id.into(), period: period() };
    assert_eq!(read.items, [item("price_1"), item("price_2")]);
}

#[test]
fn an_older_subscription_has_its_period_on_top() {
    let What::SubscriptionUpdated(read) = what("customer.subscription.updated", subscription_then()) else {
        panic!("a changed subscription")
    };
    assert_eq!((read.customer.as_str(), read.status), ("cus_1", Status::PastDue));
    assert_eq!(read.cancel_at, Some(Micros::from_seconds(END)));
    assert_eq!(read.canceled_at, Some(Micros::from_seconds(START + 2)));
    assert_eq!(read.test_clock.as_deref(), Some("clock_1"));
    assert_eq!(read.items, [Item { price_id: "gold".into(), period: period() }]);
}

#[test]
fn a_period_of_an_item_counts_before_one_on_top() {
    let mut object = subscription_now();
    object["current_period_start"] = json!(START - 10);
    object["current_period_end"] = json!(END - 10);
    object["items"]["data"][1]["current_period_end"] = Value::Null;
    let What::SubscriptionDeleted(read) = what("customer.subscription.deleted", object) else {
        panic!("an ended subscription")
    };
    let top = Period { start: Micros::from_seconds(START - 10), end: Micros::from_seconds(END - 10) };
    assert_eq!(read.items.iter().map(|item| item.period).collect::<Vec<_>>(), [period(), Some(top)]);
}

#[test]
fn an_invoice_names_its_subscription_prices_and_periods() {
    let What::InvoiceCreated(read) = what("invoice.created", invoice_now()) else { panic!("a draft") };
    assert_eq!((read.id.as_str(), read.customer.as_deref()), ("in_1", Some("cus_1")));
    assert_eq!((read.reason, read.subscription.as_deref()), (Reason::SubscriptionCycle, Some("sub_1")));
    assert_eq!(
        (read.created_at, read.period_end),
        (Micros::from_seconds(END), Some(Micros::from_seconds(END)))
    );
    assert!(read.has_more);
    let moment = Period { start: Micros::from_seconds(END), end: Micros::from_seconds(END) };
    let lines = [
        Line { price_id: Some("price_1".into()), period: period() },
        Line { price_id: None, period: Some(moment) },
    ];
    assert_eq!(read.lines, lines);
}

#[test]
fn an_older_invoice_has_its_subscription_on_top() {
    let What::InvoiceFinalized(read) = what("invoice.finalized", invoice_then()) else {
        panic!("an invoice")
    };
    assert_eq!((read.reason, read.subscription.as_deref()), (Reason::SubscriptionCreate, Some("sub_1")));
    assert_eq!(read.lines, [Line { price_id: Some("price_1".into()), period: period() }]);
    assert!(!read.has_more);
}

/// The fields of an event that PyPI's `localstripe` 1.15.10 sends, as of 2017: plans, and no reason.
#[test]
fn an_invoice_of_a_simulator_is_read() {
    let object = json!({
        "id": "in_NfBjGzNz302veV", "object": "invoice", "customer": "cus_PEnHT2UxDDeLqO", "billing_reason": null,
        "created": START, "date": START, "period_start": START, "period_end": END, "status": "draft",
        "subscription": "sub_G3R8JIgpyxZghb",
        "parent": {"subscription_details": {"subscription": "sub_G3R8JIgpyxZghb"}, "type": "subscription_details"},
        "lines": {"object": "list", "has_more": false, "total_count": 1, "data": [{
            "id": "il_Epb0CX6nY7knqB", "object": "line_item", "period": {"start": START, "end": END},
            "plan": {"id": "price_plan", "object": "plan"}, "subscription": "sub_G3R8JIgpyxZghb", "type": "subscription",
        }]},
    });
    let What::InvoiceCreated(read) = what("invoice.created", object) else { panic!("a draft") };
    assert_eq!((read.reason, read.subscription.as_deref()), (Reason::Unsaid, Some("sub_G3R8JIgpyxZghb")));
    assert_eq!(read.lines, [Line { price_id: Some("price_plan".into()), period: period() }]);
}

#[test]
fn a_checkout_names_our_customer_and_theirs() {
    let of = |object: Value| match what("checkout.session.completed", object) {
        What::CheckoutCompleted(read) => (read.client_reference_id, read.customer),
        other => panic!("a checkout: {other:?}"),
    };
    let both = json!({"id": "cs_1", "client_reference_id": "cust_123", "customer": "cus_1", "subscription": "sub_1"});
    assert_eq!(of(both), (Some("cust_123".into()), Some("cus_1".into())));
    assert_eq!(of(json!({"client_reference_id": "", "customer": null})), (None, None));
    assert_eq!(of(json!({})), (None, None));
}

#[test]
fn an_error_report_names_what_was_not_counted() {
    let event = read(&report()).expect("an event");
    assert_eq!((event.created_at, event.livemode), (Micros(1_795_542_382_134_000), true));
    let What::MeterErrors(MeterErrors { meter, report: Some(report) }) = event.what else {
        panic!("a report")
    };
    assert_eq!((meter.as_deref(), report.summary.as_str()), (Some("mtr_1"), "There are 3 invalid events"));
    let samples: Vec<_> = report.samples.iter().map(|sample| (&*sample.name, &*sample.code)).collect();
    let (old, nobody) = ("timestamp_too_far_in_past", "meter_event_customer_not_found");
    assert_eq!(samples, [("tt_1", old), ("tt_2-1", old), ("tt_3", nobody)]);
    assert_eq!(report.samples[2].message, "nobody");
}

#[test]
fn a_thin_event_comes_without_its_report() {
    let mut thin = report();
    thin.as_object_mut().expect("an object").remove("data");
    let What::MeterErrors(read) = read(&thin).expect("an event").what else { panic!("a report") };
    assert_eq!(read, MeterErrors { meter: Some("mtr_1".into()), report: None });
}

#[test]
fn what_we_do_not_know_is_let_through() {
    assert_eq!(what("customer.created", json!({"id": 7, "items": "none"})), What::Unknown);
    assert_eq!(what("", json!(null)), What::Unknown);
    let mut object = subscription_now();
    object["status"] = json!("dormant");
    object["items"]["data"] = json!([]);
    let What::SubscriptionUpdated(read) = what("customer.subscription.updated", object) else {
        panic!("a subscription")
    };
    assert_eq!((read.status, read.items), (Status::Other("dormant".into()), Vec::new()));
    let mut object = invoice_now();
    object["billing_reason"] = json!("quote_accept");
    object["customer"] = Value::Null;
    object["lines"]["data"] = json!([{}]);
    let What::InvoiceCreated(read) = what("invoice.created", object) else { panic!("a draft") };
    assert_eq!((read.reason, read.customer), (Reason::Other("quote_accept".into()), None));
    assert_eq!(read.lines, [Line { price_id: None, period: None }]);
}

#[test]
fn every_state_and_reason_has_a_word() {
    use Status::{Active, Canceled, Incomplete, IncompleteExpired, PastDue, Paused, Trialing, Unpaid};
    for (word, status) in [
        ("trialing", Trialing),
        ("active", Active),
        ("past_due", PastDue),
        ("unpaid", Unpaid),
        ("canceled", Canceled),
        ("incomplete_expired", IncompleteExpired),
        ("incomplete", Incomplete),
        ("paused", Paused),
    ] {
        let mut object = subscription_now();
        object["status"] = json!(word);
        let What::SubscriptionUpdated(read) = what("customer.subscription.updated", object) else {
            panic!("a subscription")
        };
        assert_eq!(read.status, status);
    }
    use Reason::{Manual, SubscriptionThreshold, SubscriptionUpdate, Upcoming};
    for (word, reason) in [
        ("subscription_update", SubscriptionUpdate),
        ("subscription_threshold", SubscriptionThreshold),
        ("upcoming", Upcoming),
        ("manual", Manual),
    ] {
        let mut object = invoice_now();
        object["billing_reason"] = json!(word);
        let What::InvoiceCreated(read) = what("invoice.created", object) else { panic!("a draft") };
        assert_eq!(read.reason, reason);
    }
}

/// `value` with another value at a path, or without what is there.
fn with(mut value: Value, path: &str, other: Option<Value>) -> Value {
    let (parent, name) = path.rsplit_once('/').expect("a path");
    let parent = value.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    match other {
        Some(other) => parent.insert(name.to_owned(), other),
        None => parent.remove(name),
    };
    value
}

#[test]
fn a_lie_is_refused_by_the_name_of_its_field() {
    let now = || event("customer.subscription.updated", subscription_now());
    let then = || event("customer.subscription.updated", subscription_then());
    let invoice = || event("invoice.created", invoice_now());
    let long = "x".repeat(ID_BYTES_MAX + 1);
    for (base, path, other, field) in [
        (now(), "/id", None, "id"),
        (now(), "/id", Some(json!("")), "id"),
        (now(), "/id", Some(json!(long)), "id"),
        (now(), "/id", Some(json!("evt\n1")), "id"),
        (now(), "/type", None, "type"),
        (now(), "/livemode", Some(json!("false")), "livemode"),
        (now(), "/created", None, "created"),
        (now(), "/created", Some(json!(-1)), "created"),
        (now(), "/created", Some(json!(1.5)), "created"),
        (now(), "/created", Some(json!(u64::MAX)), "created"),
        (now(), "/created", Some(json!("yesterday")), "created"),
        (now(), "/created", Some(json!("2201-01-01T00:00:00Z")), "created"),
        (now(), "/data", None, "data"),
        (now(), "/data/object", Some(json!(null)), "data.object"),
        (now(), "/data/object/id", None, "data.object.id"),
        (now(), "/data/object/customer", Some(json!(null)), "data.object.customer"),
        (now(), "/data/object/customer", Some(json!({"id": ""})), "data.object.customer"),
        (now(), "/data/object/status", None, "data.object.status"),
        (now(), "/data/object/cancel_at", Some(json!(i64::MAX)), "data.object.cancel_at"),
        (now(), "/data/object/ended_at", Some(json!("2026-01-01T00:00:00Z")), "data.object.ended_at"),
        (now(), "/data/object/items", None, "data.object.items"),
        (now(), "/data/object/items/data", Some(json!({})), "data.object.items.data"),
        (
            now(),
            "/data/object/items/data/1/current_period_end",
            Some(json!(START - 1)),
            "data.object.items.data[1].current_period_end",
        ),
        (
            now(),
            "/data/object/items/data/0/current_period_start",
            Some(json!(*SECONDS.end() + 1)),
            "data.object.items.data[0].current_period_start",
        ),
        (now(), "/data/object/items/data/1/price", None, "data.object.items.data[1].price"),
        (now(), "/data/object/items/data/1/price", Some(json!(7)), "data.object.items.data[1].price"),
        (then(), "/data/object/current_period_end", Some(json!(START - 1)), "data.object.current_period_end"),
        (invoice(), "/data/object/id", None, "data.object.id"),
        (invoice(), "/data/object/created", None, "data.object.created"),
        (invoice(), "/data/object/period_end", Some(json!(-5)), "data.object.period_end"),
        (invoice(), "/data/object/lines", None, "data.object.lines"),
        (
            invoice(),
            "/data/object/lines/data/0/period",
            Some(json!({"start": END, "end": START})),
            "data.object.lines.data[0].period.end",
        ),
        (
            invoice(),
            "/data/object/parent/subscription_details/subscription",
            Some(json!(7)),
            "data.object.parent.subscription_details.subscription",
        ),
        (
            report(),
            "/data/reason/error_types/0/sample_errors/0/request",
            Some(json!({})),
            "data.reason.error_types[0].sample_errors[0].request.identifier",
        ),
        (report(), "/data/reason", None, "data.reason"),
    ] {
        let changed = with(base, path, other);
        let error = read(&changed).expect_err(path);
        assert_eq!(error.field, field, "{path}: {error}");
    }
}

#[test]
fn lists_and_bodies_are_bounded() {
    let mut object = subscription_now();
    let item = object["items"]["data"][0].clone();
    object["items"]["data"] = json!(vec![item.clone(); ENTRIES_MAX]);
    assert!(read(&event("customer.subscription.updated", object.clone())).is_ok());
    object["items"]["data"] = json!(vec![item; ENTRIES_MAX + 1]);
    let error = read(&event("customer.subscription.updated", object)).expect_err("too many");
    assert_eq!(error.field, "data.object.items.data");
    let body = event("customer.created", json!("x".repeat(EVENT_BYTES_MAX)));
    assert_eq!(read(&body).expect_err("too long").field, "body");
}

#[test]
fn what_is_no_json_object_is_the_body_that_is_wrong() {
    let twice = event("customer.created", json!({})).to_string() + "{}";
    let deep = format!("{{\"id\":\"evt_1\",\"type\":{}", "[".repeat(100_000));
    for body in ["", "null", "[]", "7", "{", "\u{feff}{}", &twice, "{\"id\": \"evt\", \"id\": \"evt\"}"] {
        assert!(Event::read(body.as_bytes()).is_err(), "{body}");
    }
    assert!(Event::read(deep.as_bytes()).is_err());
    assert!(Event::read(b"{\"id\": \"\xff\"}").is_err());
    assert_eq!(Event::read(b"{} x").expect_err("not an event").field, "id");
    assert_eq!(Event::read(twice.as_bytes()).expect_err("two documents").field, "body");
}

proptest! {
    #[test]
    fn no_body_makes_a_panic(body in any::<Vec<u8>>()) {
        let _ = Event::read(&body);
    }

    #[test]
    fn no_change_of_a_byte_makes_a_panic(
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        which in 0_usize..5,
    ) {
        let base = match which {
            0 => event("customer.subscription.updated", subscription_now()),
            1 => event("customer.subscription.created", subscription_then()),
            2 => event("invoice.created", invoice_now()),
            3 => event("invoice.finalized", invoice_then()),
            _ => report(),
        };
        let mut body = base.to_string().into_bytes();
        let place = at.index(body.len());
        body[place] = byte;
        if let Ok(read) = Event::read(&body) {
            prop_assert!(SECONDS.contains(&read.created_at.seconds()));
        }
    }
}
