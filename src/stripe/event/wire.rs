//! The shapes of Stripe's JSON, and how they become ours. In: a body. Out: an `Event`, or the path of what is wrong.
//!
//! The envelope is read first: its `type` says what `data.object` is. What is wrong with one value is found while it is read,
//! with its path; what is wrong between two of them behind that.

use std::fmt;

use dataflows::types::Micros;
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::{
    Checkout, ENTRIES_MAX, EVENT_BYTES_MAX, ErrorReport, Event, EventError, ID_BYTES_MAX, Invoice, Item,
    Line, MeterErrors, Period, Reason, Rejected, SECONDS, Status, Subscription, What,
};

pub(super) fn read(body: &[u8]) -> Result<Event, EventError> {
    if body.len() > EVENT_BYTES_MAX {
        return Err(wrong("body", format!("longer than {EVENT_BYTES_MAX} bytes")));
    }
    let envelope: Envelope = parse(body)?;
    let what = match envelope.kind.as_str() {
        "customer.subscription.created" => What::SubscriptionCreated(subscription(object(body)?)?),
        "customer.subscription.updated" => What::SubscriptionUpdated(subscription(object(body)?)?),
        "customer.subscription.deleted" => What::SubscriptionDeleted(subscription(object(body)?)?),
        "invoice.created" => What::InvoiceCreated(invoice(object(body)?)?),
        "invoice.finalized" => What::InvoiceFinalized(invoice(object(body)?)?),
        "checkout.session.completed" => What::CheckoutCompleted(checkout(object(body)?)),
        "v1.billing.meter.error_report_triggered" => What::MeterErrors(meter_errors(parse(body)?)?),
        _ => What::Unknown,
    };
    let Envelope { id, kind, created, livemode, api_version } = envelope;
    Ok(Event { id: id.0, kind, created_at: created.0, livemode, api_version, what })
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> EventError {
    EventError { field: field.into(), problem: problem.into() }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, EventError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, problem) = (error.path().to_string(), error.inner().to_string());
        match problem.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
            Some((name, _)) if path == "." => wrong(name, "is missing"),
            Some((name, _)) => wrong(format!("{path}.{name}"), "is missing"),
            None if path == "." => wrong("body", problem),
            None => wrong(path, problem),
        }
    })?;
    json.end().map_err(|error| wrong("body", error.to_string()))?;
    Ok(parsed)
}

fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, EventError> {
    parse::<Payload<T>>(body).map(|payload| payload.data.object)
}

#[derive(Deserialize)]
struct Envelope {
    id: Id,
    #[serde(rename = "type")]
    kind: String,
    created: Created,
    livemode: bool,
    api_version: Option<String>,
}

#[derive(Deserialize)]
struct Payload<T> {
    data: Data<T>,
}

#[derive(Deserialize)]
struct Data<T> {
    object: T,
}

/// A list within an object.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct List<T> {
    data: Vec<T>,
    #[serde(default)]
    has_more: bool,
}

/// A text that may be an id.
struct Id(String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Id, D::Error> {
        let text = String::deserialize(from)?;
        let is_id = (1..=ID_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control);
        if is_id { Ok(Id(text)) } else { Err(D::Error::custom("not an id")) }
    }
}

/// A reference to an object: its id, or all of it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "not an id, nor an object with one")]
enum Reference {
    Id(Id),
    Object { id: Id },
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        match reference {
            Reference::Id(id) | Reference::Object { id } => id.0,
        }
    }
}

fn id_of(reference: Option<Reference>) -> Option<String> {
    reference.map(String::from)
}

/// Whole seconds since 1970, within `SECONDS`.
#[derive(Clone, Copy)]
struct Time(Micros);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        from.deserialize_i64(Seconds).map(Time)
    }
}

/// The same, or RFC 3339: the time of a thin event.
struct Created(Micros);

impl<'de> Deserialize<'de> for Created {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Created, D::Error> {
        from.deserialize_any(SecondsOrText).map(Created)
    }
}

fn within<E: Error>(seconds: i64, time: Micros) -> Result<Micros, E> {
    if SECONDS.contains(&seconds) { Ok(time) } else { Err(E::custom("not a time from 1970 to 2200")) }
}

struct Seconds;

impl Visitor<'_> for Seconds {
    type Value = Micros;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whole seconds since 1970")
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Micros, E> {
        within(seconds, Micros(seconds.saturating_mul(Micros::PER_SECOND)))
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Micros, E> {
        self.visit_i64(i64::try_from(seconds).unwrap_or(i64::MAX))
    }
}

struct SecondsOrText;

impl Visitor<'_> for SecondsOrText {
    type Value = Micros;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whole seconds since 1970, or a time in RFC 3339")
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Micros, E> {
        Seconds.visit_i64(seconds)
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Micros, E> {
        Seconds.visit_u64(seconds)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Micros, E> {
        let time: jiff::Timestamp = text.parse().map_err(|_| E::custom("not a time in RFC 3339"))?;
        within(time.as_second(), Micros(time.as_microsecond()))
    }
}

#[derive(Deserialize)]
struct WireSubscription {
    id: Id,
    customer: Reference,
    status: String,
    created: Time,
    cancel_at: Option<Time>,
    canceled_at: Option<Time>,
    ended_at: Option<Time>,
    items: List<WireItem>,
    current_period_start: Option<Time>,
    current_period_end: Option<Time>,
    test_clock: Option<Reference>,
}

#[derive(Deserialize)]
struct WireItem {
    price: Option<Reference>,
    plan: Option<Reference>,
    current_period_start: Option<Time>,
    current_period_end: Option<Time>,
}

fn subscription(wire: WireSubscription) -> Result<Subscription, EventError> {
    let top = period("data.object", "current_period_", wire.current_period_start, wire.current_period_end)?;
    bounded("data.object.items.data", &wire.items.data)?;
    let item = |(at, wire): (usize, WireItem)| {
        let path = format!("data.object.items.data[{at}]");
        let own = period(&path, "current_period_", wire.current_period_start, wire.current_period_end)?;
        let price_id = id_of(wire.price.or(wire.plan));
        let price_id = price_id.ok_or_else(|| wrong(format!("{path}.price"), "is missing"))?;
        Ok(Item { price_id, period: own.or(top) })
    };
    Ok(Subscription {
        id: wire.id.0,
        customer: wire.customer.into(),
        status: status(wire.status),
        created_at: wire.created.0,
        cancel_at: wire.cancel_at.map(|time| time.0),
        canceled_at: wire.canceled_at.map(|time| time.0),
        ended_at: wire.ended_at.map(|time| time.0),
        items: wire.items.data.into_iter().enumerate().map(item).collect::<Result<_, _>>()?,
        has_more: wire.items.has_more,
        test_clock: id_of(wire.test_clock),
    })
}

fn status(word: String) -> Status {
    match word.as_str() {
        "trialing" => Status::Trialing,
        "active" => Status::Active,
        "past_due" => Status::PastDue,
        "unpaid" => Status::Unpaid,
        "canceled" => Status::Canceled,
        "incomplete_expired" => Status::IncompleteExpired,
        "incomplete" => Status::Incomplete,
        "paused" => Status::Paused,
        _ => Status::Other(word),
    }
}

#[derive(Deserialize)]
struct WireInvoice {
    id: Id,
    customer: Option<Reference>,
    billing_reason: Option<String>,
    parent: Option<InvoiceParent>,
    subscription: Option<Reference>,
    created: Time,
    period_end: Option<Time>,
    lines: List<WireLine>,
    test_clock: Option<Reference>,
}

#[derive(Deserialize)]
struct InvoiceParent {
    subscription_details: Option<SubscriptionDetails>,
}

#[derive(Deserialize)]
struct SubscriptionDetails {
    subscription: Option<Reference>,
}

#[derive(Deserialize)]
struct WireLine {
    period: Option<WirePeriod>,
    pricing: Option<Pricing>,
    price: Option<Reference>,
    plan: Option<Reference>,
}

#[derive(Deserialize)]
struct WirePeriod {
    start: Option<Time>,
    end: Option<Time>,
}

#[derive(Deserialize)]
struct Pricing {
    price_details: Option<PriceDetails>,
}

#[derive(Deserialize)]
struct PriceDetails {
    price: Option<Reference>,
}

fn invoice(wire: WireInvoice) -> Result<Invoice, EventError> {
    bounded("data.object.lines.data", &wire.lines.data)?;
    let line = |(at, wire): (usize, WireLine)| {
        let path = format!("data.object.lines.data[{at}].period");
        let period = wire.period.map(|wire| period(&path, "", wire.start, wire.end)).transpose()?;
        let price = wire.pricing.and_then(|pricing| pricing.price_details?.price);
        Ok(Line { price_id: id_of(price.or(wire.price).or(wire.plan)), period: period.flatten() })
    };
    let subscription = wire.parent.and_then(|parent| parent.subscription_details?.subscription);
    Ok(Invoice {
        id: wire.id.0,
        customer: id_of(wire.customer),
        reason: reason(wire.billing_reason),
        subscription: id_of(subscription.or(wire.subscription)),
        created_at: wire.created.0,
        period_end: wire.period_end.map(|time| time.0),
        lines: wire.lines.data.into_iter().enumerate().map(line).collect::<Result<_, _>>()?,
        has_more: wire.lines.has_more,
        test_clock: id_of(wire.test_clock),
    })
}

fn reason(word: Option<String>) -> Reason {
    let Some(word) = word else { return Reason::Unsaid };
    match word.as_str() {
        "subscription_create" => Reason::SubscriptionCreate,
        "subscription_cycle" => Reason::SubscriptionCycle,
        "subscription_update" => Reason::SubscriptionUpdate,
        "subscription_threshold" => Reason::SubscriptionThreshold,
        "upcoming" => Reason::Upcoming,
        "manual" => Reason::Manual,
        _ => Reason::Other(word),
    }
}

#[derive(Deserialize)]
struct WireCheckout {
    client_reference_id: Option<String>,
    customer: Option<Reference>,
}

fn checkout(wire: WireCheckout) -> Checkout {
    let client_reference_id = wire.client_reference_id.filter(|id| !id.is_empty());
    Checkout { client_reference_id, customer: id_of(wire.customer) }
}

#[derive(Deserialize)]
struct WireMeterErrors {
    related_object: Option<Reference>,
    data: Option<WireReport>,
}

#[derive(Deserialize)]
struct WireReport {
    #[serde(default)]
    developer_message_summary: String,
    reason: WireReason,
}

#[derive(Deserialize)]
struct WireReason {
    #[serde(default)]
    error_types: Vec<WireErrors>,
}

#[derive(Deserialize)]
struct WireErrors {
    code: String,
    #[serde(default)]
    sample_errors: Vec<WireSample>,
}

#[derive(Deserialize)]
struct WireSample {
    #[serde(default)]
    error_message: String,
    request: WireRequest,
}

#[derive(Deserialize)]
struct WireRequest {
    identifier: Id,
}

fn meter_errors(wire: WireMeterErrors) -> Result<MeterErrors, EventError> {
    let meter = id_of(wire.related_object);
    let Some(WireReport { developer_message_summary: summary, reason }) = wire.data else {
        return Ok(MeterErrors { meter, report: None });
    };
    let of_code = |WireErrors { code, sample_errors }: WireErrors| {
        let rejected = move |sample: WireSample| {
            let (name, message) = (sample.request.identifier.0, sample.error_message);
            Rejected { name, code: code.clone(), message }
        };
        sample_errors.into_iter().map(rejected)
    };
    let samples: Vec<_> = reason.error_types.into_iter().flat_map(of_code).collect();
    bounded("data.reason.error_types", &samples)?;
    Ok(MeterErrors { meter, report: Some(ErrorReport { summary, samples }) })
}

/// A period whose bounds are at `path` under `{prefix}start` and `{prefix}end`; none if one of them is not there.
fn period(
    path: &str,
    prefix: &str,
    start: Option<Time>,
    end: Option<Time>,
) -> Result<Option<Period>, EventError> {
    let (Some(Time(start)), Some(Time(end))) = (start, end) else { return Ok(None) };
    if end < start {
        return Err(wrong(format!("{path}.{prefix}end"), "is before the start"));
    }
    Ok(Some(Period { start, end }))
}

fn bounded<T>(path: &str, list: &[T]) -> Result<(), EventError> {
    let is_short = list.len() <= ENTRIES_MAX;
    is_short.then_some(()).ok_or_else(|| wrong(path, format!("has more than {ENTRIES_MAX} entries")))
}
