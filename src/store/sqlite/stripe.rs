//! The projection of what Stripe has told: subscriptions, events, billing periods that are ended and final. A part of
//! `definitions`, of which the rules hold.

use dataflows::types::{BillingPeriodEnd, BillingPeriodFinal, Micros, SeriesId, StripeEvent, Subscription};
use rusqlite::params;

use super::super::records::item_rows;
use super::super::text::time;
use super::definitions::{Run, json, word};
use crate::control::REMEMBERED_MICROS;

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

/// What was received longer before than is remembered goes: nobody reads it any more.
pub(super) fn put_event(run: Run<'_>, event: &StripeEvent) -> rusqlite::Result<()> {
    let since = Micros(event.received_at.0 - REMEMBERED_MICROS);
    run("DELETE FROM stripe_events WHERE received_at < ?1", params![time(since)])?;
    run(
        "INSERT OR REPLACE INTO stripe_events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)",
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

pub(super) fn await_report(run: Run<'_>, business_id: &str, event_id: &str) -> rusqlite::Result<()> {
    run(
        "UPDATE stripe_events SET awaits_report = 1 WHERE business_id = ?1 AND event_id = ?2",
        params![business_id, event_id],
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

/// As `end_period`.
pub(super) fn finalize(run: Run<'_>, last: &BillingPeriodFinal) -> rusqlite::Result<()> {
    run(
        "INSERT INTO billing_periods_final VALUES (?1, ?2)
         ON CONFLICT (series_id) DO UPDATE SET final_until = max(final_until, excluded.final_until)",
        params![last.series.0, time(last.until)],
    )
}

pub(super) fn end_series(run: Run<'_>, series: SeriesId) -> rusqlite::Result<()> {
    run("DELETE FROM billing_periods_final WHERE series_id = ?1", params![series.0])?;
    run("DELETE FROM billing_periods_ended WHERE series_id = ?1", params![series.0])
}

/// What is said of periods goes with their series, which are deleted one by one.
pub(super) fn end_business(run: Run<'_>, business_id: &str) -> rusqlite::Result<()> {
    run("DELETE FROM stripe_events WHERE business_id = ?1", params![business_id])?;
    run("DELETE FROM subscriptions WHERE business_id = ?1", params![business_id])
}
