//! The calls to Stripe (<https://docs.stripe.com/api>). In: an account and what is asked or sent. Out: what we read of the
//! answer, or what became of the call.
//!
//! ```text
//! GET  /v1/prices/{id}                               recurring.meter                          what a price is billed by
//! GET  /v1/billing/meters/{id}                       event_name, keys, aggregation, window    how to write its events
//! POST /v1/billing/meter_events                      event_name, payload[..], identifier, timestamp
//! GET  /v1/billing/meters/{id}/event_summaries       aggregated_value                         what Stripe has counted
//! GET  /v2/core/events/{id}                          an error report that a thin event only names
//! ```
//! Every call carries the account's key and `API_VERSION`, every POST an `Idempotency-Key`. Time, size and number of exchanges
//! are bounded by `outbound`; its guard decides whether the base may be reached. Ids of tenants are encoded into the path.
//!
//! What this does not do: try again, take turns, remember prices and meters.

use bytes::Bytes;
use dataflows::types::{Amount, Micros};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use url::form_urlencoded::Serializer;

use super::event::{ErrorReport, Event, ID_BYTES_MAX, What};
use super::identifier::{IDENTIFIER_CHARS_MAX, idempotency_key};
use super::outcome::{CallError, Outcome, of_event, of_question};
use crate::control::Plaintext;
use crate::outbound::{Answer, Outbound, Request, Target, TargetError};

/// Where Stripe is.
pub const API_BASE: &str = "https://api.stripe.com";
/// The version of Stripe's API that we write and read: the first one without usage records.
pub const API_VERSION: &str = "2025-03-31.basil";
/// Most digits of a value that Stripe takes.
pub const VALUE_DIGITS_MAX: u32 = 15;

/// The greatest magnitude of a value.
const VALUE_MAX: i64 = 10_i64.pow(VALUE_DIGITS_MAX) - 1;
const SECONDS_PER_MINUTE: i64 = 60;

/// Whose call it is.
#[derive(Clone, Debug)]
pub struct Account {
    /// Our business; its exchanges under way are bounded.
    pub business_id: String,
    /// Its key of Stripe, `sk_...` or `rk_...`.
    pub secret_key: Plaintext,
}

/// A price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// The meter that it is billed by; none if it is not metered.
    pub meter: Option<String>,
    /// Whether it is about real money.
    pub livemode: bool,
}

/// A meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// `mtr_...`.
    pub id: String,
    /// What its events are called.
    pub event_name: String,
    /// The key of the customer in an event's payload.
    pub customer_key: String,
    /// The key of the value in an event's payload.
    pub value_key: String,
    /// `sum`, `count` or `last`.
    pub aggregation: String,
    /// `day` or `hour` if Stripe keeps one value of each only: usage cannot be sent to such a meter in slices.
    pub event_time_window: Option<String>,
    /// Whether it takes events.
    pub is_active: bool,
    /// Whether it is about real money.
    pub livemode: bool,
}

impl Meter {
    /// Why slices of usage cannot be sent to it, if they cannot.
    pub fn unfit(&self) -> Option<&'static str> {
        if !self.is_active {
            return Some("the meter is not active");
        }
        if self.event_time_window.is_some() {
            return Some("the meter keeps one value of each hour or day (event_time_window)");
        }
        (self.aggregation != "sum")
            .then_some("the meter does not add up values (default_aggregation.formula)")
    }
}

/// A slice of usage, on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// `Meter::event_name`.
    pub event_name: String,
    /// `Meter::customer_key`.
    pub customer_key: String,
    /// `Meter::value_key`.
    pub value_key: String,
    /// Stripe's id of the customer.
    pub customer: String,
    /// Whole units; below zero takes back.
    pub value: i64,
    /// When; Stripe has it in seconds.
    pub at: Micros,
    /// `stripe::identifier`.
    pub identifier: String,
    /// How many attempts Stripe has answered in a way that it would repeat (`Outcome::Unknown { is_answered: true, .. }`).
    pub failures: u32,
}

impl Usage {
    /// The body of the request, or what Stripe would refuse of it.
    fn form(&self) -> Result<String, String> {
        if self.value.unsigned_abs() > VALUE_MAX.unsigned_abs() {
            return Err(format!("the value has more than {VALUE_DIGITS_MAX} digits"));
        }
        if !(1..=IDENTIFIER_CHARS_MAX).contains(&self.identifier.len()) {
            return Err(format!("the identifier does not have 1 to {IDENTIFIER_CHARS_MAX} characters"));
        }
        let mut form = Serializer::new(String::new());
        form.append_pair("event_name", &self.event_name)
            .append_pair(&format!("payload[{}]", self.customer_key), &self.customer)
            .append_pair(&format!("payload[{}]", self.value_key), &self.value.to_string())
            .append_pair("identifier", &self.identifier)
            .append_pair("timestamp", &self.at.seconds().to_string());
        Ok(form.finish())
    }
}

/// What is asked of Stripe's counting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// `mtr_...`.
    pub meter_id: String,
    /// Stripe's id of the customer.
    pub customer: String,
    /// The first moment, rounded down to a whole minute.
    pub from: Micros,
    /// The moment behind the last, rounded up to a whole minute.
    pub until: Micros,
}

impl Counted {
    fn query(&self) -> String {
        let start = self.from.seconds().div_euclid(SECONDS_PER_MINUTE) * SECONDS_PER_MINUTE;
        let end = -(-self.until.seconds_up()).div_euclid(SECONDS_PER_MINUTE) * SECONDS_PER_MINUTE;
        let mut query = Serializer::new(String::new());
        query
            .append_pair("customer", &self.customer)
            .append_pair("start_time", &start.to_string())
            .append_pair("end_time", &end.to_string());
        query.finish()
    }
}

/// Whether a key of Stripe is about real money; none if it does not say so.
pub fn livemode(secret_key: &str) -> Option<bool> {
    let (kind, rest) = secret_key.split_once('_')?;
    match rest.split_once('_')?.0 {
        "live" if matches!(kind, "sk" | "rk") => Some(true),
        "test" if matches!(kind, "sk" | "rk") => Some(false),
        _ => None,
    }
}

/// Stripe, at one base. Clones share connections.
#[derive(Clone)]
pub struct Stripe {
    outbound: Outbound,
    base: String,
}

impl Stripe {
    /// Stripe behind a base, `API_BASE` or another that speaks alike. It is the operator's word, never a tenant's: `outbound`
    /// must allow its network if that is not public.
    pub fn new(outbound: Outbound, base: &str) -> Result<Stripe, TargetError> {
        Target::parse(base)?;
        Ok(Stripe { outbound, base: base.trim_end_matches('/').to_owned() })
    }

    /// What a price is billed by.
    pub async fn price(&self, account: &Account, price_id: &str) -> Result<Price, CallError> {
        let WirePrice { recurring, livemode } = self.get(account, &["v1", "prices", price_id], "").await?;
        Ok(Price { meter: recurring.and_then(|recurring| recurring.meter), livemode })
    }

    /// How a meter's events are written.
    pub async fn meter(&self, account: &Account, meter_id: &str) -> Result<Meter, CallError> {
        let wire: WireMeter = self.get(account, &["v1", "billing", "meters", meter_id], "").await?;
        Ok(Meter {
            id: wire.id,
            event_name: wire.event_name,
            customer_key: wire.customer_mapping.event_payload_key,
            value_key: wire.value_settings.event_payload_key,
            aggregation: wire.default_aggregation.formula,
            event_time_window: wire.event_time_window,
            is_active: wire.status == "active",
            livemode: wire.livemode,
        })
    }

    /// How usage at a price is reported.
    pub async fn meter_of(&self, account: &Account, price_id: &str) -> Result<Meter, CallError> {
        let price = self.price(account, price_id).await?;
        let not_metered =
            || CallError::Refused { status: None, reason: "the price is not billed by a meter".into() };
        self.meter(account, &price.meter.ok_or_else(not_metered)?).await
    }

    /// Sends a slice of usage.
    pub async fn send(&self, account: &Account, usage: &Usage) -> Outcome {
        let body = match usage.form() {
            Ok(body) => body,
            Err(reason) => return Outcome::Dead { status: None, reason },
        };
        let key = idempotency_key(&usage.identifier, usage.failures);
        let headers =
            [("content-type", "application/x-www-form-urlencoded"), ("idempotency-key", key.as_str())];
        let path = ["v1", "billing", "meter_events"];
        match self.request(account, "POST", &path, "", &headers, body.into()) {
            Ok(request) => {
                of_event(self.outbound.send(&account.business_id, request).await, &usage.identifier)
            }
            Err(reason) => Outcome::Again { after: None, reason },
        }
    }

    /// What Stripe has counted. It counts a while after it has taken an event.
    pub async fn total(&self, account: &Account, of: &Counted) -> Result<Amount, CallError> {
        let path = ["v1", "billing", "meters", &of.meter_id, "event_summaries"];
        let summaries: Summaries = self.get(account, &path, &of.query()).await?;
        // Without a grouping there is one summary, or none where there was no event.
        let values = summaries.data.iter().map(|summary| summary.aggregated_value.get().parse::<Amount>());
        let values = values.collect::<Result<Vec<_>, _>>().map_err(|error| unexpected(&error))?;
        if summaries.has_more {
            return Err(unexpected(&"more than one page of summaries"));
        }
        Ok(values.into_iter().fold(Amount::ZERO, |sum, value| sum + value))
    }

    /// The report that a thin event of type `v1.billing.meter.error_report_triggered` only names.
    pub async fn error_report(&self, account: &Account, event_id: &str) -> Result<ErrorReport, CallError> {
        let answer = self.answer(account, &["v2", "core", "events", event_id], "").await?;
        let event = Event::read(&answer.body).map_err(|error| unexpected(&error))?;
        match event.what {
            What::MeterErrors(errors) => errors.report.ok_or_else(|| unexpected(&"no report in the event")),
            _ => Err(unexpected(&"an event of another type")),
        }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        account: &Account,
        path: &[&str],
        query: &str,
    ) -> Result<T, CallError> {
        let answer = self.answer(account, path, query).await?;
        serde_json::from_slice(&answer.body).map_err(|error| unexpected(&error))
    }

    async fn answer(&self, account: &Account, path: &[&str], query: &str) -> Result<Answer, CallError> {
        let request = self.request(account, "GET", path, query, &[], Bytes::new());
        let request = request.map_err(|reason| CallError::Refused { status: None, reason })?;
        of_question(self.outbound.send(&account.business_id, request).await)
    }

    /// An error says what of it cannot be sent.
    fn request(
        &self,
        account: &Account,
        method: &str,
        path: &[&str],
        query: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Request, String> {
        let mut url = self.base.clone();
        for segment in path {
            url.push('/');
            url.push_str(&encoded(segment).ok_or("an id that Stripe cannot have")?);
        }
        if !query.is_empty() {
            url.push('?');
            url.push_str(query);
        }
        let target = Target::parse(&url).map_err(|error| error.to_string())?;
        let authorization = format!("Bearer {}", account.secret_key.0);
        let own = [
            ("authorization", authorization.as_str()),
            ("stripe-version", API_VERSION),
            ("user-agent", "TrackTags"),
        ];
        let headers = own.into_iter().chain(headers.iter().copied());
        Request::new(method, target, headers, body).map_err(|error| error.to_string())
    }
}

/// An id as a segment of a path. None for those that are none: too long, empty, or dots that would lead elsewhere.
fn encoded(id: &str) -> Option<String> {
    let is_id = (1..=ID_BYTES_MAX).contains(&id.len()) && !id.trim_matches('.').is_empty();
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    is_id.then(|| id.bytes().map(byte).collect())
}

fn unexpected(error: &dyn std::fmt::Display) -> CallError {
    CallError::Again { after: None, reason: format!("Stripe's answer is not what was asked for: {error}") }
}

#[derive(Deserialize)]
struct WirePrice {
    recurring: Option<Recurring>,
    livemode: bool,
}

#[derive(Deserialize)]
struct Recurring {
    meter: Option<String>,
}

#[derive(Deserialize)]
struct WireMeter {
    id: String,
    event_name: String,
    customer_mapping: PayloadKey,
    value_settings: PayloadKey,
    default_aggregation: Aggregation,
    event_time_window: Option<String>,
    status: String,
    livemode: bool,
}

#[derive(Deserialize)]
struct PayloadKey {
    event_payload_key: String,
}

#[derive(Deserialize)]
struct Aggregation {
    formula: String,
}

#[derive(Deserialize)]
struct Summaries {
    data: Vec<Summary>,
    #[serde(default)]
    has_more: bool,
}

#[derive(Deserialize)]
struct Summary {
    /// As text: Stripe writes a float, we read a decimal.
    aggregated_value: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        Usage {
            event_name: "api calls".into(),
            customer_key: "stripe_customer_id".into(),
            value_key: "value".into(),
            customer: "cus_1".into(),
            value: -25,
            at: Micros(1_700_000_000_999_999),
            identifier: "tt_1".into(),
            failures: 0,
        }
    }

    #[test]
    fn usage_is_a_form() {
        let form = "event_name=api+calls&payload%5Bstripe_customer_id%5D=cus_1&payload%5Bvalue%5D=-25\
                    &identifier=tt_1&timestamp=1700000000";
        assert_eq!(usage().form(), Ok(form.to_owned()));
    }

    #[test]
    fn what_stripe_would_refuse_is_not_sent() {
        let of = |value, identifier: &str| {
            Usage { value, identifier: identifier.to_owned(), ..usage() }.form().map(drop)
        };
        assert!([VALUE_MAX, -VALUE_MAX].iter().all(|value| of(*value, "a").is_ok()));
        for value in [VALUE_MAX + 1, -VALUE_MAX - 1, i64::MAX, i64::MIN] {
            assert!(of(value, "a").is_err_and(|reason| reason.contains("digits")), "{value}");
        }
        assert_eq!(of(1, &"a".repeat(IDENTIFIER_CHARS_MAX)), Ok(()));
        for identifier in ["", &"a".repeat(IDENTIFIER_CHARS_MAX + 1)] {
            assert!(of(1, identifier).is_err_and(|reason| reason.contains("identifier")), "{identifier}");
        }
    }

    #[test]
    fn an_id_leads_nowhere_else() {
        assert_eq!(encoded("price_1aB-9").as_deref(), Some("price_1aB-9"));
        assert_eq!(encoded("../x?y#z%2e ü").as_deref(), Some("%2E%2E%2Fx%3Fy%23z%252e%20%C3%BC"));
        for id in ["", ".", "..", "...", &"a".repeat(ID_BYTES_MAX + 1)] {
            assert_eq!(encoded(id), None, "{id}");
        }
    }

    #[test]
    fn a_question_is_about_whole_minutes() {
        let query = |from, until| {
            let (meter_id, customer) = ("mtr_1".into(), "cus_1".into());
            Counted { meter_id, customer, from: Micros(from), until: Micros(until) }.query()
        };
        let expected = |start, end| format!("customer=cus_1&start_time={start}&end_time={end}");
        assert_eq!(query(60_000_000, 120_000_000), expected(60, 120));
        assert_eq!(query(119_999_999, 120_000_001), expected(60, 180));
    }

    #[test]
    fn a_key_says_whether_it_is_about_real_money() {
        assert_eq!(["sk_live_1", "rk_live_1"].map(livemode), [Some(true); 2]);
        assert_eq!(["sk_test_1", "rk_test_1"].map(livemode), [Some(false); 2]);
        for key in ["", "sk_", "sk_live", "pk_live_1", "sk_other_1", "whsec_test_1"] {
            assert_eq!(livemode(key), None, "{key}");
        }
    }

    #[test]
    fn slices_go_to_active_meters_that_add_up_all_of_a_period() {
        let meter = Meter {
            id: "mtr_1".into(),
            event_name: "calls".into(),
            customer_key: "stripe_customer_id".into(),
            value_key: "value".into(),
            aggregation: "sum".into(),
            event_time_window: None,
            is_active: true,
            livemode: false,
        };
        assert_eq!(meter.unfit(), None);
        for unfit in [
            Meter { is_active: false, ..meter.clone() },
            Meter { event_time_window: Some("day".into()), ..meter.clone() },
            Meter { aggregation: "count".into(), ..meter.clone() },
            Meter { aggregation: "last".into(), ..meter.clone() },
        ] {
            assert!(unfit.unfit().is_some(), "{unfit:?}");
        }
    }
}
