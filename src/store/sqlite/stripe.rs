//! The projection of what Stripe has told: subscriptions, events, ended billing periods. A part of `definitions`, of which the
//! rules hold.

use dataflows::types::{BillingPeriodEnd, SeriesId, StripeEvent, Subscription};
use rusqlite::params;

use super::super::records::item_rows;
use super::super::text::time;
use super::definitions::{Run, json, word};

pub(super) fn put_subscription(run: Run<'_>, subscription: &Subscription) -> rusqlite::Result<()> {
    run(
        "INSERT OR REPLACE INTO subscriptions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            subscription.business_id,
            subscription.subscription_id,
            subscription.stripe_customer_id,
            word(&subscription.standing),
            time(subscription.created_at),
            subscription.ends_at.map(time),
            time(subscription.said_at),
            subscription.is_simulated,
            json(&item_rows(&subscription.items)),
        ],
    )
}

pub(super) fn put_event(run: Run<'_>, event: &StripeEvent) -> rusqlite::Result<()> {
    run(
        "INSERT OR REPLACE INTO stripe_events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            event.business_id,
            event.event_id,
            event.event_type,
            time(event.created_at),
            time(event.received_at),
            event.applied,
            event.reason,
        ],
    )
}

/// The greatest boundary stays, whichever comes last: order of text is order of time.
pub(super) fn end_period(run: Run<'_>, end: &BillingPeriodEnd) -> rusqlite::Result<()> {
    run(
        "INSERT INTO billing_periods_ended VALUES (?1, ?2)
         ON CONFLICT (series_id) DO UPDATE SET boundary = max(boundary, excluded.boundary)",
        params![end.series.0, time(end.boundary)],
    )
}

pub(super) fn end_series(run: Run<'_>, series: SeriesId) -> rusqlite::Result<()> {
    run("DELETE FROM billing_periods_ended WHERE series_id = ?1", params![series.0])
}

/// Ends of periods go with their series, which are deleted one by one.
pub(super) fn end_business(run: Run<'_>, business_id: &str) -> rusqlite::Result<()> {
    run("DELETE FROM stripe_events WHERE business_id = ?1", params![business_id])?;
    run("DELETE FROM subscriptions WHERE business_id = ?1", params![business_id])
}
