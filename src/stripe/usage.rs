//! What is billed by, sent and asked, as values. In: what a caller knows. Out: forms and queries, and what of it Stripe would
//! refuse, found before it is sent.

use dataflows::types::Micros;
use url::form_urlencoded::Serializer;

use super::identifier::IDENTIFIER_CHARS_MAX;

/// Most digits of a value that Stripe takes.
pub const VALUE_DIGITS_MAX: u32 = 15;

/// The greatest magnitude of a value.
const VALUE_MAX: i64 = 10_i64.pow(VALUE_DIGITS_MAX) - 1;
const SECONDS_PER_MINUTE: i64 = 60;

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
    pub(super) fn form(&self) -> Result<String, String> {
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
    pub(super) fn query(&self) -> String {
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
