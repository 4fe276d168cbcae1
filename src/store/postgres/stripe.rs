//! What Stripe has told, in the projection: subscriptions, events, billing periods that are ended and final. A part of what `definitions` works
//! out and writes, of which the rules hold.

use std::collections::BTreeMap;

use dataflows::types::{BillingPeriodEnd, BillingPeriodFinal, Micros, SeriesId, StripeEvent, Subscription};
use tokio_postgres::types::Type;

use super::definitions::{Pair, put};
use super::values::At;
use super::{Session, Target};
use crate::control::REMEMBERED_MICROS;
use crate::store::StoreError;
use crate::store::records::{PeriodEndRow, PeriodFinalRow, StripeEventRow, SubscriptionRow};

const PUT_SUBSCRIPTIONS: &str = "
    INSERT INTO {schema}.subscriptions
    SELECT * FROM json_populate_recordset(NULL::{schema}.subscriptions, $1::text::json)
    ON CONFLICT (business_id, subscription_id) DO UPDATE
    SET stripe_customer_id = excluded.stripe_customer_id, standing = excluded.standing,
        created_at = excluded.created_at, ends_at = excluded.ends_at, said_at = excluded.said_at,
        is_simulated = excluded.is_simulated, items = excluded.items";

const PUT_EVENTS: &str = "
    INSERT INTO {schema}.stripe_events
    SELECT * FROM json_populate_recordset(NULL::{schema}.stripe_events, $1::text::json)
    ON CONFLICT (business_id, event_id) DO UPDATE
    SET event_type = excluded.event_type, created_at = excluded.created_at, received_at = excluded.received_at,
        applied = excluded.applied, reason = excluded.reason, awaits_report = excluded.awaits_report";

const FORGET_EVENTS: &str = "DELETE FROM {schema}.stripe_events WHERE received_at < $1";

const END_PERIODS: &str = "
    INSERT INTO {schema}.billing_periods_ended AS known
    SELECT * FROM json_populate_recordset(NULL::{schema}.billing_periods_ended, $1::text::json)
    ON CONFLICT (series_id) DO UPDATE SET boundary = greatest(known.boundary, excluded.boundary)";

const FINALIZE: &str = "
    INSERT INTO {schema}.billing_periods_final AS known
    SELECT * FROM json_populate_recordset(NULL::{schema}.billing_periods_final, $1::text::json)
    ON CONFLICT (series_id) DO UPDATE SET final_until = greatest(known.final_until, excluded.final_until)";

/// What a stretch of definitions leaves behind of what Stripe has told. What was there before is deleted with the rest of a
/// business or series.
#[derive(Default)]
pub(super) struct LeftStripe<'a> {
    subscriptions: BTreeMap<Pair<'a>, SubscriptionRow>,
    /// With the moment of each.
    events: BTreeMap<Pair<'a>, (Micros, StripeEventRow)>,
    /// Events from before this moment are not remembered.
    events_since: Option<Micros>,
    ends: BTreeMap<SeriesId, Micros>,
    finals: BTreeMap<SeriesId, Micros>,
}

impl<'a> LeftStripe<'a> {
    pub fn put_subscription(&mut self, subscription: &'a Subscription) {
        let name = (subscription.business_id.as_str(), subscription.subscription_id.as_str());
        self.subscriptions.insert(name, subscription.into());
    }

    pub fn put_event(&mut self, event: &'a StripeEvent) {
        let since = Micros(event.received_at.0 - REMEMBERED_MICROS);
        self.events_since = self.events_since.max(Some(since));
        self.events.retain(|_, (received_at, _)| *received_at >= since);
        let row = (event.received_at, event.into());
        self.events.insert((&event.business_id, &event.event_id), row);
    }

    /// The event is in the same epoch.
    pub fn await_report(&mut self, event: Pair<'a>) {
        if let Some((_, row)) = self.events.get_mut(&event) {
            row.awaits_report = true;
        }
    }

    pub fn end_period(&mut self, end: &BillingPeriodEnd) {
        let last = self.ends.entry(end.series).or_insert(end.boundary);
        *last = end.boundary.max(*last);
    }

    pub fn finalize(&mut self, last: &BillingPeriodFinal) {
        let until = self.finals.entry(last.series).or_insert(last.until);
        *until = last.until.max(*until);
    }

    pub fn end_series(&mut self, series: SeriesId) {
        self.ends.remove(&series);
        self.finals.remove(&series);
    }

    pub fn end_business(&mut self, business_id: &str) {
        self.subscriptions.retain(|(of, _), _| *of != business_id);
        self.events.retain(|(of, _), _| *of != business_id);
    }

    pub async fn put(self, session: &Session, target: &Target) -> Result<(), StoreError> {
        put(session, target, PUT_SUBSCRIPTIONS, self.subscriptions.into_values()).await?;
        if let Some(since) = self.events_since {
            session.run(&target.sql(FORGET_EVENTS), &[(&At(since), Type::TIMESTAMPTZ)]).await?;
        }
        put(session, target, PUT_EVENTS, self.events.into_values().map(|(_, row)| row)).await?;
        let ends = self.ends.into_iter().map(|(series, boundary)| PeriodEndRow::new(series, boundary));
        put(session, target, END_PERIODS, ends).await?;
        let finals = self.finals.into_iter().map(|(series, until)| PeriodFinalRow::new(series, until));
        put(session, target, FINALIZE, finals).await
    }
}
