//! What Stripe tells us, of which we read little. In: the raw body of a webhook whose signature holds. Out: an `Event` in our
//! words, or the field that is wrong.
//!
//! | `type` | `What` | read of `data.object` |
//! |---|---|---|
//! | `customer.subscription.created` `.updated` `.deleted` | `Subscription...` | status, ends, prices and periods of its items |
//! | `invoice.created` `.finalized` | `Invoice...` | reason, subscription, prices and periods of its lines |
//! | `checkout.session.completed` | `CheckoutCompleted` | our customer, theirs |
//! | `v1.billing.meter.error_report_triggered` | `MeterErrors` | names of meter events that Stripe did not count |
//! | anything else | `Unknown` | nothing |
//!
//! Shapes are those from `2025-03-31.basil` on and those before: periods are on the items or on the subscription, an invoice's
//! subscription is under `parent` or on top, prices are `pricing.price_details.price`, `price.id` or `plan.id`.
//!
//! Lenient where Stripe may grow: fields, types, states and reasons that we do not know. Strict where a lie would reach the
//! journal: ids, times and periods. What this does not do: verify the signature, know what was applied before, compare
//! `livemode` with a credential.

mod wire;

#[cfg(test)]
mod tests;

use dataflows::types::Micros;
use thiserror::Error;

use super::identifier::reported;

/// Largest body of an event, in bytes: as of any request.
pub const EVENT_BYTES_MAX: usize = 1_000_000;
/// Longest id, in bytes: Stripe promises that ids have at most 255.
pub const ID_BYTES_MAX: usize = 255;
/// Most items, lines or samples of one event. Stripe puts at most 20 items on a subscription and 10 lines into an event.
pub const ENTRIES_MAX: usize = 1_000;
/// The first and the last second that an event may name: 1970 and 2200. Clocks of Stripe's tests go ahead by years.
pub const SECONDS: std::ops::RangeInclusive<i64> = 0..=7_258_118_400;

/// What is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct EventError {
    /// Its path, such as `data.object.items.data[0].price`; `body` if it is no JSON.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `evt_...`: the same at every delivery.
    pub id: String,
    /// Its `type`.
    pub kind: String,
    /// When it happened.
    pub created_at: Micros,
    /// Whether it is about real money.
    pub livemode: bool,
    /// The version that the object is written in; thin events have none.
    pub api_version: Option<String>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// There is a new subscription.
    SubscriptionCreated(Subscription),
    /// One has changed, or a period of it has begun.
    SubscriptionUpdated(Subscription),
    /// One has ended.
    SubscriptionDeleted(Subscription),
    /// There is a draft.
    InvoiceCreated(Invoice),
    /// It takes no more usage.
    InvoiceFinalized(Invoice),
    /// Somebody has paid, or subscribed, on a page of Stripe.
    CheckoutCompleted(Checkout),
    /// Meter events that were accepted have not been counted.
    MeterErrors(MeterErrors),
    /// Something that we do not read.
    Unknown,
}

/// A half-open time, `[start, end)`; `start <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Its first moment.
    pub start: Micros,
    /// The first moment behind it.
    pub end: Micros,
}

/// Who buys what until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// `sub_...`.
    pub id: String,
    /// Stripe's id of the customer.
    pub customer: String,
    /// How it stands.
    pub status: Status,
    /// When it was made; of several, the newest is followed.
    pub created_at: Micros,
    /// When it will end, if that is decided.
    pub cancel_at: Option<Micros>,
    /// When somebody decided so: often long before the end.
    pub canceled_at: Option<Micros>,
    /// When it has ended.
    pub ended_at: Option<Micros>,
    /// What is bought.
    pub items: Vec<Item>,
    /// Whether there are more items than the event holds.
    pub has_more: bool,
    /// The test clock that its time is simulated by.
    pub test_clock: Option<String>,
}

/// How a subscription stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Stripe's words")]
pub enum Status {
    Trialing,
    Active,
    PastDue,
    Unpaid,
    Canceled,
    IncompleteExpired,
    Incomplete,
    Paused,
    /// A word that we do not know.
    Other(String),
}

/// One thing that is bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What for: `price_...`, or the id of a plan.
    pub price_id: String,
    /// The current period; none if Stripe does not say.
    pub period: Option<Period>,
}

/// What is to be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// `in_...`.
    pub id: String,
    /// Stripe's id of the customer; some accounts of Stripe's own have none.
    pub customer: Option<String>,
    /// Why there is one.
    pub reason: Reason,
    /// The subscription that it is for.
    pub subscription: Option<String>,
    /// When it was made.
    pub created_at: Micros,
    /// When the usage that it bills ended, as Stripe says; not when a period ends.
    pub period_end: Option<Micros>,
    /// What is billed.
    pub lines: Vec<Line>,
    /// Whether there are more lines than the event holds.
    pub has_more: bool,
    /// The test clock that its time is simulated by.
    pub test_clock: Option<String>,
}

/// Why there is an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Stripe's words")]
pub enum Reason {
    SubscriptionCreate,
    SubscriptionCycle,
    SubscriptionUpdate,
    SubscriptionThreshold,
    Upcoming,
    Manual,
    /// A word that we do not know.
    Other(String),
    /// None is given.
    Unsaid,
}

/// One line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What for; lines of single things have none.
    pub price_id: Option<String>,
    /// When it was used, or will be.
    pub period: Option<Period>,
}

/// A page of Stripe that somebody is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// Our id of the customer, if the page was made with one.
    pub client_reference_id: Option<String>,
    /// Stripe's id of the customer, if there is one now.
    pub customer: Option<String>,
}

/// Meter events that were accepted and not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterErrors {
    /// The meter.
    pub meter: Option<String>,
    /// The report. A thin event comes without: it is had from Stripe by the event's id.
    pub report: Option<ErrorReport>,
}

/// What was not counted, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReport {
    /// In Stripe's words.
    pub summary: String,
    /// Samples: of many errors, some.
    pub samples: Vec<Rejected>,
}

/// A meter event that was not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its identifier, or the idempotency key of its request (`identifier::reported` reads both).
    pub name: String,
    /// Why, as a word, such as `timestamp_too_far_in_past`.
    pub code: String,
    /// Why, in Stripe's words.
    pub message: String,
}

impl ErrorReport {
    /// The slices of usage that its samples name, and why each was not counted.
    pub fn slices(self) -> Vec<(String, String)> {
        let named = self.samples.into_iter().filter_map(|sample| {
            let identifier = reported(&sample.name)?.to_owned();
            Some((identifier, format!("{}: {}", sample.code, sample.message)))
        });
        named.collect()
    }
}

impl Event {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Event, EventError> {
        wire::read(body)
    }
}
