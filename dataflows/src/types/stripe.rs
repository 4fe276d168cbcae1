//! What Stripe has told us, as far as it changes what we count: subscriptions with their periods, and the events themselves.

use serde::{Deserialize, Serialize};

use super::{Micros, SeriesId};

/// How a subscription stands, as far as a plan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubscriptionStanding {
    /// The customer keeps the plan: `trialing`, `active`, `past_due`.
    Running,
    /// The customer has lost it: `unpaid`, `canceled`, `incomplete_expired`, or deleted.
    Over,
    /// It changes nothing: `paused`, `incomplete`, and what we do not know.
    Undecided,
}

/// One price of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionItem {
    /// `price_...`.
    pub price_id: String,
    /// The current period: its first moment and the first one behind it; none if Stripe did not say.
    pub period: Option<(Micros, Micros)>,
}

/// A subscription of a customer, as of the last event about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The tenant.
    pub business_id: String,
    /// `sub_...`.
    pub subscription_id: String,
    /// Stripe's id of the customer.
    pub stripe_customer_id: String,
    /// How it stands.
    pub standing: SubscriptionStanding,
    /// When it was made; of several, the newest is followed.
    pub created_at: Micros,
    /// When it will end, or has ended; none if that is not decided.
    pub ends_at: Option<Micros>,
    /// When the event happened that says so: an older one says nothing.
    pub said_at: Micros,
    /// Its time is that of a test clock: its periods end when we hear of it.
    pub is_simulated: bool,
    /// What is bought.
    pub items: Vec<SubscriptionItem>,
}

/// An event that was read, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeEvent {
    /// The tenant.
    pub business_id: String,
    /// `evt_...`.
    pub event_id: String,
    /// Stripe's word for what happened, such as `invoice.created`.
    pub event_type: String,
    /// When it happened.
    pub created_at: Micros,
    /// When it was journaled.
    pub received_at: Micros,
    /// Whether it changed something, or confirmed what was known.
    pub applied: bool,
    /// What it did, or why nothing.
    pub reason: String,
}

/// A billing period of a series has ended at a boundary that an event told, whenever it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillingPeriodEnd {
    /// Which.
    pub series: SeriesId,
    /// What Stripe says is the end of the period.
    pub boundary: Micros,
}

/// The invoice of a series' periods takes nothing more: of those that have ended by a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillingPeriodFinal {
    /// Which.
    pub series: SeriesId,
    /// Periods whose end is not behind this are final.
    pub until: Micros,
}
