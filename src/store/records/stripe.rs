//! Rows of `subscriptions`, `stripe_events`, `billing_periods_ended` and `billing_periods_final`.

use dataflows::types::{
    BillingPeriodEnd, BillingPeriodFinal, Definition, Micros, SeriesId, StripeEvent, Subscription,
    SubscriptionItem,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{optional, read_word, word};
use crate::store::text::{read_time, time};

/// `subscriptions`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct SubscriptionRow {
    business_id: String,
    subscription_id: String,
    stripe_customer_id: String,
    standing: Value,
    created_at: String,
    ends_at: Option<String>,
    said_at: String,
    is_simulated: bool,
    items: Vec<ItemRow>,
}

/// An element of `subscriptions.items`. Both ends of a period are there, or neither.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct ItemRow {
    period_end: Option<String>,
    period_start: Option<String>,
    price_id: String,
}

/// `stripe_events`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct StripeEventRow {
    business_id: String,
    event_id: String,
    event_type: String,
    created_at: String,
    received_at: String,
    applied: bool,
    reason: String,
    pub awaits_report: bool,
}

/// `billing_periods_ended`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct PeriodEndRow {
    series_id: u32,
    boundary: String,
}

/// `billing_periods_final`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct PeriodFinalRow {
    series_id: u32,
    final_until: String,
}

impl From<&Subscription> for SubscriptionRow {
    fn from(subscription: &Subscription) -> Self {
        SubscriptionRow {
            business_id: subscription.business_id.clone(),
            subscription_id: subscription.subscription_id.clone(),
            stripe_customer_id: subscription.stripe_customer_id.clone(),
            standing: word(&subscription.standing),
            created_at: time(subscription.created_at),
            ends_at: subscription.ends_at.map(time),
            said_at: time(subscription.said_at),
            is_simulated: subscription.is_simulated,
            items: item_rows(&subscription.items),
        }
    }
}

/// What `subscriptions.items` holds.
pub(in crate::store) fn item_rows(items: &[SubscriptionItem]) -> Vec<ItemRow> {
    let row = |SubscriptionItem { price_id, period }: &SubscriptionItem| ItemRow {
        period_end: period.map(|(_, end)| time(end)),
        period_start: period.map(|(start, _)| time(start)),
        price_id: price_id.clone(),
    };
    items.iter().map(row).collect()
}

impl SubscriptionRow {
    pub fn definition(self) -> Option<Definition> {
        let items: Option<_> = self.items.into_iter().map(ItemRow::item).collect();
        Some(Definition::SubscriptionPut(Subscription {
            business_id: self.business_id,
            subscription_id: self.subscription_id,
            stripe_customer_id: self.stripe_customer_id,
            standing: read_word(self.standing)?,
            created_at: read_time(&self.created_at)?,
            ends_at: optional(self.ends_at, read_time)?,
            said_at: read_time(&self.said_at)?,
            is_simulated: self.is_simulated,
            items: items?,
        }))
    }
}

impl ItemRow {
    fn item(self) -> Option<SubscriptionItem> {
        let period = match (self.period_start, self.period_end) {
            (None, None) => None,
            (start, end) => Some((read_time(&start?)?, read_time(&end?)?)),
        };
        Some(SubscriptionItem { price_id: self.price_id, period })
    }
}

impl From<&StripeEvent> for StripeEventRow {
    fn from(event: &StripeEvent) -> Self {
        StripeEventRow {
            business_id: event.business_id.clone(),
            event_id: event.event_id.clone(),
            event_type: event.event_type.clone(),
            created_at: time(event.created_at),
            received_at: time(event.received_at),
            applied: event.applied,
            reason: event.reason.clone(),
            awaits_report: false,
        }
    }
}

impl StripeEventRow {
    /// The event, and that its report is awaited if it is.
    pub fn definitions(self) -> Option<Vec<Definition>> {
        let awaited = self.awaits_report.then(|| Definition::ReportAwaited {
            business_id: self.business_id.clone(),
            event_id: self.event_id.clone(),
        });
        let event = Definition::StripeEventRead(StripeEvent {
            business_id: self.business_id,
            event_id: self.event_id,
            event_type: self.event_type,
            created_at: read_time(&self.created_at)?,
            received_at: read_time(&self.received_at)?,
            applied: self.applied,
            reason: self.reason,
        });
        Some([event].into_iter().chain(awaited).collect())
    }
}

impl PeriodEndRow {
    pub fn new(series: SeriesId, boundary: Micros) -> Self {
        PeriodEndRow { series_id: series.0, boundary: time(boundary) }
    }

    pub fn definition(self) -> Option<Definition> {
        let (series, boundary) = (SeriesId(self.series_id), read_time(&self.boundary)?);
        Some(Definition::BillingPeriodEnded(BillingPeriodEnd { series, boundary }))
    }
}

impl PeriodFinalRow {
    pub fn new(series: SeriesId, until: Micros) -> Self {
        PeriodFinalRow { series_id: series.0, final_until: time(until) }
    }

    pub fn definition(self) -> Option<Definition> {
        let (series, until) = (SeriesId(self.series_id), read_time(&self.final_until)?);
        Some(Definition::BillingPeriodFinal(BillingPeriodFinal { series, until }))
    }
}
