//! Deliveries of the fake, taken by a server that checks and reads them with the room.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tracktags::stripe::{Event, Reason, SignatureError, What, reported, verify};

use super::fake::events::{self, Version};
use super::fake::webhooks::{Answered, Delivery, Endpoint, sign};
use super::fake::{Reply, Seconds, serve};
use super::support::{CUSTOMER, METER, NOW, START, slice};

const SECRET: &str = "whsec_test_0123456789abcdef";
const NEXT_SECRET: &str = "whsec_test_next";
const END: i64 = START + 31 * 86_400;

/// Takes events as the service would: signature, then content.
struct Receiver {
    endpoint: Endpoint,
    clock: Seconds,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Receiver {
    /// Knows `known`; events are signed by each of `signing`.
    fn new(known: &'static [&'static str], signing: &[&str]) -> Receiver {
        let (events, clock) = (Arc::new(Mutex::new(Vec::new())), Seconds::at(NOW));
        let (takes, inside) = (events.clone(), clock.clone());
        let address = serve("127.0.0.1:0", move |request| {
            let header = request.header("stripe-signature").unwrap_or_default();
            if let Err(error) = verify(header, &request.body, known.iter().copied(), inside.now()) {
                return Some(Reply::new(400, error.to_string()));
            }
            Some(match Event::read(&request.body) {
                Ok(event) => {
                    takes.lock().expect("no panic").push(event);
                    Reply::new(200, r#"{"received":true}"#)
                }
                Err(error) => Reply::new(400, error.to_string()),
            })
        });
        let inside = clock.clone();
        let endpoint = Endpoint::new(&format!("http://{address}/hook"), signing, move || inside.now());
        Receiver { endpoint, clock, events }
    }

    fn statuses(&self, event: &Value, delivery: Delivery) -> Vec<u16> {
        self.endpoint.deliver(event, delivery).iter().map(|answered| answered.status).collect()
    }

    fn ids(&self) -> Vec<String> {
        self.events.lock().expect("no panic").iter().map(|event| event.id.clone()).collect()
    }
}

fn checkout(id: &str) -> Value {
    events::event(id, "checkout.session.completed", NOW, events::checkout("cs_1", "cust_123", CUSTOMER))
}

#[test]
fn only_what_is_signed_now_by_a_known_secret_is_taken() {
    let receiver = Receiver::new(&[SECRET], &[SECRET]);
    for (delivery, statuses) in [
        (Delivery::Plain, &[200][..]),
        (Delivery::Twice, &[200, 200]),
        (Delivery::WrongSecret, &[400]),
        (Delivery::SignedAt(-300), &[200]),
        (Delivery::SignedAt(-301), &[400]),
        (Delivery::SignedAt(300), &[200]),
        (Delivery::SignedAt(301), &[400]),
        (Delivery::Delayed(Duration::from_millis(50)), &[200]),
        (Delivery::Unsigned, &[400]),
        (Delivery::Tampered, &[400]),
    ] {
        assert_eq!(receiver.statuses(&checkout("evt_1"), delivery), statuses, "{delivery:?}");
    }
    assert_eq!(receiver.ids().len(), 6);
    receiver.clock.advance(1_000);
    assert_eq!(receiver.statuses(&checkout("evt_2"), Delivery::Plain), [200], "signed anew");
}

#[test]
fn deliveries_have_no_order() {
    let receiver = Receiver::new(&[SECRET], &[SECRET]);
    let answers = receiver.endpoint.deliver_reordered(&["evt_1", "evt_2", "evt_3"].map(checkout));
    let received = Answered { status: 200, body: r#"{"received":true}"#.into() };
    assert_eq!(answers, [const { () }; 3].map(|()| received.clone()));
    assert_eq!(receiver.ids(), ["evt_3", "evt_2", "evt_1"]);
}

#[test]
fn secrets_rotate() {
    let both: &[&str] = &[SECRET, NEXT_SECRET];
    for (known, signing, status) in [
        (both, &[SECRET][..], 200),
        (both, &[NEXT_SECRET], 200),
        (&[NEXT_SECRET], &[SECRET, NEXT_SECRET], 200),
        (&[NEXT_SECRET], &[SECRET], 400),
    ] {
        let receiver = Receiver::new(known, signing);
        assert_eq!(receiver.statuses(&checkout("evt_1"), Delivery::Plain), [status], "{known:?} {signing:?}");
    }
    assert_eq!(
        verify(&sign(&[""], NOW, b"x"), b"x", [""].into_iter(), NOW),
        Err(SignatureError::Mismatch),
        "everybody knows no secret"
    );
}

#[test]
fn both_versions_of_an_event_say_the_same() {
    let receiver = Receiver::new(&[SECRET], &[SECRET]);
    for version in [Version::Basil, Version::Older] {
        let items = [("price_1", START, END)];
        let subscription = events::subscription(version, ("sub_1", CUSTOMER, "active"), START, &items);
        let invoice =
            events::invoice(version, ("in_1", CUSTOMER, "sub_1", "subscription_cycle"), END, &items);
        for (kind, object) in [("customer.subscription.updated", subscription), ("invoice.created", invoice)]
        {
            assert_eq!(receiver.statuses(&events::event("evt_1", kind, NOW, object), Delivery::Plain), [200]);
        }
    }
    let events = receiver.events.lock().expect("no panic");
    assert_eq!(events[0], events[2]);
    assert_eq!(events[1], events[3]);
    let (What::SubscriptionUpdated(subscription), What::InvoiceCreated(invoice)) =
        (&events[0].what, &events[1].what)
    else {
        panic!("{events:?}")
    };
    let period = subscription.items[0].period.expect("a period");
    assert_eq!((period.start.seconds(), period.end.seconds()), (START, END));
    assert_eq!(
        (invoice.subscription.as_deref(), &invoice.reason),
        (Some("sub_1"), &Reason::SubscriptionCycle)
    );
    assert_eq!(invoice.lines[0].period, Some(period));
}

#[test]
fn a_report_names_slices() {
    let receiver = Receiver::new(&[SECRET], &[SECRET]);
    let identifier = slice(4, 1).identifier;
    let report =
        events::error_report("evt_1", "2026-10-06T12:00:00Z", METER, "archived_meter", &[&identifier]);
    assert_eq!(receiver.statuses(&report, Delivery::Plain), [200]);
    assert_eq!(receiver.statuses(&events::thin(&report), Delivery::Plain), [200]);
    let events = receiver.events.lock().expect("no panic");
    let (What::MeterErrors(whole), What::MeterErrors(thin)) = (&events[0].what, &events[1].what) else {
        panic!("{events:?}")
    };
    let samples = &whole.report.as_ref().expect("a report").samples;
    assert_eq!(reported(&samples[0].name), Some(identifier.as_str()));
    assert_eq!((thin.report.as_ref(), thin.meter.as_deref()), (None, Some(METER)));
}

#[test]
fn a_signed_lie_is_refused_by_its_field() {
    let receiver = Receiver::new(&[SECRET], &[SECRET]);
    let items = [("price_1", END, START)];
    let object = events::subscription(Version::Basil, ("sub_1", CUSTOMER, "active"), START, &items);
    let event = events::event("evt_1", "customer.subscription.updated", NOW, object);
    let answered = receiver.endpoint.deliver(&event, Delivery::Plain);
    assert_eq!(answered[0].status, 400);
    assert!(answered[0].body.contains("data.object.items.data[0].current_period_end"), "{answered:?}");
    assert_eq!(receiver.statuses(&json!({"id": "evt_1"}), Delivery::Plain), [400]);
    assert!(receiver.ids().is_empty());
}
