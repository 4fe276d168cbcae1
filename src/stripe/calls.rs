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
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::event::{ErrorReport, Event, ID_BYTES_MAX, What};
use super::identifier::idempotency_key;
use super::outcome::{CallError, Outcome, of_event, of_question};
use super::usage::{Counted, Meter, Price, Usage};
use crate::control::Plaintext;
use crate::outbound::{Answer, Outbound, Request, Target, TargetError};

/// Where Stripe is.
pub const API_BASE: &str = "https://api.stripe.com";
/// The version of Stripe's API that we write and read: the first one without usage records.
pub const API_VERSION: &str = "2025-03-31.basil";

/// What no total comes near, in units.
const TOTAL_MAX: u128 = 10_u128.pow(30);

/// Whose call it is.
#[derive(Clone, Debug)]
pub struct Account {
    /// Our business; its exchanges under way are bounded.
    pub business_id: String,
    /// Its key of Stripe, `sk_...` or `rk_...`.
    pub secret_key: Plaintext,
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

    /// What Stripe has counted, in whole units. It counts a while after it has taken an event, and writes a float: beyond 2^53
    /// not every digit is true.
    pub async fn total(&self, account: &Account, of: &Counted) -> Result<i128, CallError> {
        let path = ["v1", "billing", "meters", &of.meter_id, "event_summaries"];
        let summaries: Summaries = self.get(account, &path, &of.query()).await?;
        if summaries.has_more {
            return Err(unexpected(&"more than one page of summaries"));
        }
        // Without a grouping there is one summary, or none where there was no event.
        let values = summaries.data.iter().map(|summary| whole(summary.aggregated_value.get()));
        values.sum::<Option<i128>>().ok_or_else(|| unexpected(&"not a whole number"))
    }

    /// The report that a thin event of type `v1.billing.meter.error_report_triggered` only names.
    pub async fn error_report(&self, account: &Account, event_id: &str) -> Result<ErrorReport, CallError> {
        let answer = self.answer(account, &["v2", "core", "events", event_id], "").await?;
        let event = Event::read(&answer.body).map_err(|error| unexpected(&error))?;
        match event.what {
            _ if event.id != event_id => Err(unexpected(&"another event")),
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

/// A whole number from the text of a JSON number, exactly where it has no exponent. Bounded, so that some of them add up.
fn whole(text: &str) -> Option<i128> {
    let exact = text.strip_suffix(".0").unwrap_or(text).parse().ok();
    let float = || text.parse::<f64>().ok().filter(|value| value.fract() == 0.0).map(|value| value as i128);
    exact.or_else(float).filter(|value| value.unsigned_abs() < TOTAL_MAX)
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
    /// As text, so that no digit is lost here.
    aggregated_value: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_nowhere_else() {
        assert_eq!(encoded("price_1aB-9").as_deref(), Some("price_1aB-9"));
        assert_eq!(encoded("../x?y#z%2e ü").as_deref(), Some("%2E%2E%2Fx%3Fy%23z%252e%20%C3%BC"));
        for id in ["", ".", "..", "...", &"a".repeat(ID_BYTES_MAX + 1)] {
            assert_eq!(encoded(id), None, "{id}");
        }
    }

    #[test]
    fn a_total_is_a_whole_number() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("25.0", Some(25)),
            ("-7", Some(-7)),
            ("9999999999999999.0", Some(9_999_999_999_999_999)),
            ("1.5e3", Some(1_500)),
            ("1e+21", Some(1_000_000_000_000_000_000_000)),
            ("1e30", None),
            ("1e400", None),
            ("0.5", None),
            ("25.01", None),
            ("\"25\"", None),
            ("null", None),
            ("NaN", None),
        ] {
            assert_eq!(whole(text), value, "{text}");
        }
    }

    #[test]
    fn a_key_says_whether_it_is_about_real_money() {
        assert_eq!(["sk_live_1", "rk_live_1"].map(livemode), [Some(true); 2]);
        assert_eq!(["sk_test_1", "rk_test_1"].map(livemode), [Some(false); 2]);
        for key in ["", "sk_", "sk_live", "pk_live_1", "sk_other_1", "whsec_test_1"] {
            assert_eq!(livemode(key), None, "{key}");
        }
    }
}
