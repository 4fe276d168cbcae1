//! What one account of Stripe holds, and the rules of its meters. In: forms. Out: answers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::http::Reply;
use super::{Call, REMEMBERED_SECS};

/// Oldest event that is taken, in seconds.
const AGE_SECS_MAX: i64 = 35 * 24 * 3_600;
/// How far ahead an event may be, in seconds.
const AHEAD_SECS_MAX: i64 = 300;
const VALUE_DIGITS_MAX: usize = 15;
const NAME_CHARS_MAX: usize = 100;

pub type Form = BTreeMap<String, String>;

/// A meter.
#[derive(Clone, Debug)]
pub struct Meter {
    pub event_name: String,
    pub customer_key: String,
    pub value_key: String,
    pub aggregation: String,
    pub event_time_window: Option<String>,
    pub is_active: bool,
}

impl Meter {
    pub fn sums(event_name: &str) -> Meter {
        Meter {
            event_name: event_name.to_owned(),
            customer_key: "stripe_customer_id".to_owned(),
            value_key: "value".to_owned(),
            aggregation: "sum".to_owned(),
            event_time_window: None,
            is_active: true,
        }
    }
}

/// A meter event that was accepted.
#[derive(Clone, Debug)]
pub struct MeterEvent {
    pub identifier: String,
    pub event_name: String,
    pub customer: String,
    pub value: i128,
    pub timestamp: i64,
    pub received_at: i64,
    /// Not if it was cancelled, or found wrong later.
    pub is_counted: bool,
}

/// An answer that the same `Idempotency-Key` gets again.
#[derive(Clone, Debug)]
pub struct Saved {
    pub at: i64,
    pub path: String,
    pub form: Form,
    pub reply: Reply,
}

#[derive(Default)]
pub struct Account {
    /// By id.
    pub meters: BTreeMap<String, Meter>,
    /// By id: the meter, if it has one.
    pub prices: BTreeMap<String, Option<String>>,
    pub customers: BTreeSet<String>,
    pub events: Vec<MeterEvent>,
    /// By id.
    pub thin_events: BTreeMap<String, Value>,
    /// By idempotency key.
    pub saved: BTreeMap<String, Saved>,
    /// Idempotency keys of calls under way.
    pub running: BTreeSet<String>,
    /// The second of the last call, and how many there were in it.
    pub rate: (i64, usize),
}

/// The body of an error.
pub fn error(code: &str, message: &str) -> String {
    json!({"error": {"type": "invalid_request_error", "code": code, "message": message}}).to_string()
}

fn refused(status: u16, code: &str, message: &str) -> Reply {
    Reply::new(status, error(code, message))
}

fn missing(what: &str, id: &str) -> Reply {
    refused(404, "resource_missing", &format!("No such {what}: '{id}'"))
}

impl Account {
    /// Answers a call whose credentials hold.
    pub fn answer(&mut self, now: i64, call: &Call) -> Reply {
        let path: Vec<_> = call.path.split('/').skip(1).collect();
        match (call.method.as_str(), &path[..]) {
            ("GET", ["v1", "prices", id]) => self.price(&decoded(id)),
            ("GET", ["v1", "billing", "meters", id]) => self.meter(&decoded(id)),
            ("GET", ["v1", "billing", "meters", id, "event_summaries"]) => {
                self.summaries(&decoded(id), &call.form)
            }
            ("POST", ["v1", "billing", "meter_events"]) => self.record(now, &call.form),
            ("POST", ["v1", "billing", "meter_event_adjustments"]) => self.adjust(now, &call.form),
            ("GET", ["v2", "core", "events", id]) => match self.thin_events.get(&decoded(id)) {
                Some(event) => Reply::new(200, event.to_string()),
                None => missing("event", id),
            },
            _ => refused(404, "url_invalid", "Unrecognized request URL"),
        }
    }

    fn price(&self, id: &str) -> Reply {
        let Some(meter) = self.prices.get(id) else { return missing("price", id) };
        let usage_type = if meter.is_some() { "metered" } else { "licensed" };
        let recurring = json!({"interval": "month", "meter": meter, "usage_type": usage_type});
        let price = json!({"id": id, "object": "price", "livemode": false, "recurring": recurring});
        Reply::new(200, price.to_string())
    }

    fn meter(&self, id: &str) -> Reply {
        let Some(meter) = self.meters.get(id) else { return missing("billing meter", id) };
        let shown = json!({
            "id": id, "object": "billing.meter", "livemode": false, "event_name": meter.event_name,
            "customer_mapping": {"event_payload_key": meter.customer_key, "type": "by_id"},
            "value_settings": {"event_payload_key": meter.value_key},
            "default_aggregation": {"formula": meter.aggregation},
            "event_time_window": meter.event_time_window,
            "status": if meter.is_active { "active" } else { "inactive" },
        });
        Reply::new(200, shown.to_string())
    }

    /// `POST /v1/billing/meter_events`.
    fn record(&mut self, now: i64, form: &Form) -> Reply {
        let event = match self.checked(now, form) {
            Ok(event) => event,
            Err(reply) => return reply,
        };
        let shown = json!({
            "object": "billing.meter_event", "created": now, "livemode": false, "event_name": event.event_name,
            "identifier": event.identifier, "timestamp": event.timestamp,
            "payload": {"value": event.value.to_string(), "stripe_customer_id": event.customer},
        });
        self.events.push(event);
        Reply::new(200, shown.to_string())
    }

    fn checked(&self, now: i64, form: &Form) -> Result<MeterEvent, Reply> {
        let text = |name: &str| form.get(name).map_or("", String::as_str);
        let wrong = |code: &str, message: String| Err(refused(400, code, &message));
        let (event_name, identifier) = (text("event_name"), text("identifier"));
        let Some(meter) = self.meters.values().find(|meter| meter.event_name == event_name) else {
            return wrong("no_meter", format!("No active meter found for event name {event_name}"));
        };
        if !meter.is_active {
            return wrong("archived_meter", format!("The meter for {event_name} is inactive"));
        }
        if !(1..=NAME_CHARS_MAX).contains(&identifier.len()) {
            return wrong("parameter_invalid_string", "identifier has 1 to 100 characters".into());
        }
        let customer = text(&format!("payload[{}]", meter.customer_key));
        if !self.customers.contains(customer) {
            return wrong("meter_event_customer_not_found", format!("No such customer: '{customer}'"));
        }
        let value = text(&format!("payload[{}]", meter.value_key));
        let digits = value.strip_prefix('-').unwrap_or(value);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return wrong("meter_event_invalid_value", format!("Not a whole number: {value}"));
        }
        if digits.len() > VALUE_DIGITS_MAX {
            return wrong("meter_event_value_too_many_digits", format!("More than 15 digits: {value}"));
        }
        let timestamp = form.get("timestamp").map_or(Ok(now), |text| text.parse());
        let Ok(timestamp) = timestamp else { return wrong("parameter_invalid_integer", "timestamp".into()) };
        if timestamp < now - AGE_SECS_MAX {
            return wrong("timestamp_too_far_in_past", "more than 35 days ago".into());
        }
        if timestamp > now + AHEAD_SECS_MAX {
            return wrong("timestamp_in_future", "more than 5 minutes ahead".into());
        }
        let is_known =
            |event: &MeterEvent| event.identifier == identifier && now - event.received_at < REMEMBERED_SECS;
        if self.events.iter().any(is_known) {
            let message = format!("An event already exists with identifier {identifier}.");
            let body = json!({"error": {"type": "invalid_request_error", "message": message}}).to_string();
            return Err(Reply {
                headers: vec![("stripe-should-retry", "false".into())],
                ..Reply::new(400, body)
            });
        }
        Ok(MeterEvent {
            identifier: identifier.to_owned(),
            event_name: event_name.to_owned(),
            customer: customer.to_owned(),
            value: value.parse().expect("15 digits are a number"),
            timestamp,
            received_at: now,
            is_counted: true,
        })
    }

    fn summaries(&self, id: &str, form: &Form) -> Reply {
        let Some(meter) = self.meters.get(id) else { return missing("billing meter", id) };
        let seconds = |name: &str| form.get(name).and_then(|text| text.parse::<i64>().ok());
        let (Some(start), Some(end), Some(customer)) =
            (seconds("start_time"), seconds("end_time"), form.get("customer"))
        else {
            return refused(400, "parameter_missing", "customer, start_time and end_time are required");
        };
        if start % 60 != 0 || end % 60 != 0 || end <= start {
            return refused(400, "parameter_invalid_integer", "times must be aligned with minutes");
        }
        let is_there = |event: &&MeterEvent| {
            event.event_name == meter.event_name
                && event.customer == *customer
                && (start..end).contains(&event.timestamp)
        };
        let mut data = Vec::new();
        if self.events.iter().any(|event| is_there(&event)) {
            // A float, as Stripe writes it; written as text, so that no digit is lost here.
            let total = self.total(&meter.event_name, customer, start, end);
            data.push(format!(
                r#"{{"id":"mtrusg_1","object":"billing.meter_event_summary","livemode":false,"meter":"{id}",
                "start_time":{start},"end_time":{end},"aggregated_value":{total}.0}}"#
            ));
        }
        let url = format!("/v1/billing/meters/{id}/event_summaries");
        Reply::new(
            200,
            format!(r#"{{"object":"list","url":"{url}","has_more":false,"data":[{}]}}"#, data.join(",")),
        )
    }

    fn adjust(&mut self, now: i64, form: &Form) -> Reply {
        if form.get("type").map(String::as_str) != Some("cancel") {
            return refused(400, "parameter_invalid_empty", "type must be cancel");
        }
        let (name, identifier) = (form.get("event_name"), form.get("cancel[identifier]"));
        let is_it = |event: &&mut MeterEvent| {
            Some(&event.event_name) == name
                && Some(&event.identifier) == identifier
                && now - event.received_at < REMEMBERED_SECS
        };
        let Some(event) = self.events.iter_mut().find(is_it) else {
            return refused(400, "resource_missing", "No event of the last 24 hours with this identifier");
        };
        event.is_counted = false;
        let shown = json!({
            "object": "billing.meter_event_adjustment", "livemode": false, "event_name": event.event_name,
            "cancel": {"identifier": event.identifier}, "status": "pending", "type": "cancel",
        });
        Reply::new(200, shown.to_string())
    }

    /// The customer that a meter event is about.
    pub fn customer_of(&self, form: &Form) -> String {
        let meter = self.meters.values().find(|meter| Some(&meter.event_name) == form.get("event_name"));
        let customer = meter.and_then(|meter| form.get(&format!("payload[{}]", meter.customer_key)));
        customer.cloned().unwrap_or_default()
    }

    pub fn total(&self, event_name: &str, customer: &str, start: i64, end: i64) -> i128 {
        let is_counted = |event: &&MeterEvent| {
            event.is_counted
                && event.event_name == event_name
                && event.customer == customer
                && (start..end).contains(&event.timestamp)
        };
        self.events.iter().filter(is_counted).map(|event| event.value).sum()
    }
}

/// A segment of a path without its percent signs.
fn decoded(segment: &str) -> String {
    // As the value of a form, where `+` would be a space.
    let form = format!("x={}", segment.replace('+', "%2B"));
    let (_, text) = url::form_urlencoded::parse(form.as_bytes()).next().expect("one pair");
    text.into_owned()
}
