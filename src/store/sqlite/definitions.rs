//! The projection of definitions: what tenants, keys, customers and series are, as tables to read and join.
//!
//! Each definition is absolute, so that repeating one changes nothing. Words are those of the API, amounts and times text
//! as everywhere in the database. `SeriesCut` and `PostRecorded` have no table: a cut shows in the next batch's
//! `series_state`, and which bodies were recorded is the journal's knowledge. Secrets are here as they are in the journal,
//! encrypted. Plans and their limits are in `plans`, what is billed in `slices`, what Stripe has told in `stripe`, templates
//! in `templates`; entries
//! of the audit log are in `audit`, since their place in the journal is their key.

use std::collections::BTreeSet;

use dataflows::types::{
    ApiKey, Business, Customer, CustomerDetails, Definition, KeyKind, Limit, SeriesId, SeriesRecord,
    SeriesSpec, StripeIntegration, StripeKey, Webhook,
};
use rusqlite::{ToSql, Transaction, params};
use serde::Serialize;

use super::super::records::{base64, words};
use super::super::text::time;
use super::{plans, slices, stripe, templates};

/// Applies one definition.
pub(super) fn project(transaction: &Transaction<'_>, definition: &Definition) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn ToSql]| -> rusqlite::Result<()> {
        transaction.prepare_cached(sql)?.execute(values).map(|_| ())
    };
    match definition {
        Definition::BusinessPut(business) => put_business(&run, business),
        Definition::KeyPut(key) => put_key(&run, key),
        Definition::KeyDeleted { business_id, key_name } => run(
            "DELETE FROM api_keys WHERE business_id = ?1 AND key_name = ?2",
            params![business_id, key_name],
        ),
        Definition::KeyEnded { hash } => run("DELETE FROM api_keys WHERE key_hash = ?1", params![hex(hash)]),
        Definition::CustomerPut(customer) => put_customer(&run, customer),
        Definition::SeriesCreated(record) => {
            name_series(&run, record)?;
            describe_series(&run, record.series, &record.spec)
        }
        Definition::SeriesChanged { series, spec } => describe_series(&run, *series, spec),
        Definition::SeriesDeleted { series } => {
            slices::end_series(&run, *series)?;
            run("DELETE FROM series_state WHERE series_id = ?1", params![series.0])?;
            stripe::end_series(&run, *series)?;
            run("DELETE FROM series WHERE series_id = ?1", params![series.0])
        }
        Definition::CustomerDescribed { business_id, customer_id, details } => {
            describe_customer(&run, business_id, customer_id, details)
        }
        Definition::CustomerDeleted { business_id, customer_id } => {
            let customer = params![business_id, customer_id];
            run("DELETE FROM api_keys WHERE business_id = ?1 AND customer_id = ?2", customer)?;
            run("DELETE FROM customers WHERE business_id = ?1 AND customer_id = ?2", customer)
        }
        Definition::BusinessDeleted { business_id } => {
            run("DELETE FROM api_keys WHERE business_id = ?1", params![business_id])?;
            run("DELETE FROM stripe_keys WHERE business_id = ?1", params![business_id])?;
            run("DELETE FROM webhooks WHERE business_id = ?1", params![business_id])?;
            run("DELETE FROM messages WHERE business_id = ?1", params![business_id])?;
            plans::end_business(&run, business_id)?;
            slices::end_business(&run, business_id)?;
            stripe::end_business(&run, business_id)?;
            templates::end_business(&run, business_id)?;
            run("DELETE FROM customers WHERE business_id = ?1", params![business_id])?;
            run("DELETE FROM businesses WHERE business_id = ?1", params![business_id])
        }
        Definition::StripeKeyPut(key) => put_stripe_key(&run, key),
        Definition::StripeKeyEnded { business_id, key_name } => run(
            "DELETE FROM stripe_keys WHERE business_id = ?1 AND key_name = ?2",
            params![business_id, key_name],
        ),
        Definition::WebhookPut(webhook) => put_webhook(&run, webhook),
        Definition::ProxyTargetsPut { business_id, origins } => bind_customers(&run, business_id, origins),
        Definition::PlanPut(plan) => plans::put_plan(&run, plan),
        Definition::PlanDeleted { business_id, plan_id } => plans::end_plan(&run, business_id, plan_id),
        Definition::PlanLimitPut(limit) => plans::put_limit(&run, limit),
        Definition::PlanLimitDeleted { business_id, limit_id } => {
            plans::end_limit(&run, business_id, limit_id)
        }
        Definition::CustomerPlanned { business_id, customer_id, plan_id } => {
            plans::plan_customer(&run, business_id, customer_id, plan_id.as_deref())
        }
        Definition::PeriodsBilled { series, periods } => {
            periods.iter().try_for_each(|period| slices::bill(&run, *series, period))
        }
        Definition::SlicesCut(cut) => cut.iter().try_for_each(|slice| slices::put(&run, slice)),
        Definition::SlicesMoved(moves) => moves.iter().try_for_each(|moved| slices::moved(&run, moved)),
        Definition::SubscriptionPut(subscription) => stripe::put_subscription(&run, subscription),
        Definition::StripeEventRead(event) => stripe::put_event(&run, event),
        Definition::BillingPeriodEnded(end) => stripe::end_period(&run, end),
        Definition::BillingPeriodFinal(last) => stripe::finalize(&run, last),
        Definition::ReportAwaited { business_id, event_id } => {
            stripe::await_report(&run, business_id, event_id)
        }
        Definition::TemplatePut(template) => templates::put(&run, template),
        Definition::TemplateDeleted { business_id, metric_name } => {
            templates::end(&run, business_id, metric_name)
        }
        Definition::SeriesCut { .. } | Definition::PostRecorded { .. } | Definition::Audited(_) => Ok(()),
    }
}

/// Runs one statement, prepared once for the life of the connection.
pub(super) type Run<'a> = &'a dyn Fn(&str, &[&dyn ToSql]) -> rusqlite::Result<()>;

fn put_business(run: Run<'_>, business: &Business) -> rusqlite::Result<()> {
    run(
        "INSERT INTO businesses (business_id, business_name, email, created_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (business_id) DO UPDATE
         SET business_name = excluded.business_name, email = excluded.email, created_at = excluded.created_at",
        params![business.business_id, business.business_name, business.email, time(business.created_at)],
    )
}

fn bind_customers(run: Run<'_>, business_id: &str, origins: &BTreeSet<String>) -> rusqlite::Result<()> {
    let proxy_targets = Some(json(origins)).filter(|_| !origins.is_empty());
    run(
        "UPDATE businesses SET proxy_targets = ?2 WHERE business_id = ?1",
        params![business_id, proxy_targets],
    )
}

fn put_key(run: Run<'_>, key: &ApiKey) -> rusqlite::Result<()> {
    let (key_type, customer_id) = match &key.kind {
        KeyKind::Business => ("business", None),
        KeyKind::Customer { customer_id } => ("customer_api", Some(customer_id)),
    };
    run(
        "INSERT OR REPLACE INTO api_keys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            key.business_id,
            key.key_name,
            key_type,
            customer_id,
            hex(&key.hash),
            words(key.scopes),
            key.expires_at.map(time),
            time(key.created_at),
        ],
    )
}

fn hex(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

fn put_stripe_key(run: Run<'_>, key: &StripeKey) -> rusqlite::Result<()> {
    run(
        "INSERT OR REPLACE INTO stripe_keys VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            key.business_id,
            key.key_name,
            base64(&key.secret_key),
            base64(&key.webhook_secret),
            time(key.created_at),
        ],
    )
}

fn put_webhook(run: Run<'_>, webhook: &Webhook) -> rusqlite::Result<()> {
    let retired = webhook.retired.iter().map(
        |retired| serde_json::json!({"secret": base64(&retired.secret), "ends_at": time(retired.ends_at)}),
    );
    run(
        "INSERT OR REPLACE INTO webhooks VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            webhook.business_id,
            webhook.url,
            base64(&webhook.secret),
            time(webhook.created_at),
            json(&retired.collect::<Vec<_>>()),
        ],
    )
}

fn put_customer(run: Run<'_>, customer: &Customer) -> rusqlite::Result<()> {
    run(
        "INSERT INTO customers (business_id, customer_id, customer_name, created_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (business_id, customer_id) DO UPDATE
         SET customer_name = excluded.customer_name, created_at = excluded.created_at",
        params![
            customer.business_id,
            customer.customer_id,
            customer.customer_name,
            time(customer.created_at)
        ],
    )
}

fn describe_customer(
    run: Run<'_>,
    business_id: &str,
    customer_id: &str,
    details: &CustomerDetails,
) -> rusqlite::Result<()> {
    run(
        "UPDATE customers SET email = ?3, description = ?4, stripe_customer_id = ?5, stripe_price_id = ?6,
             subscription_ends_at = ?7
         WHERE business_id = ?1 AND customer_id = ?2",
        params![
            business_id,
            customer_id,
            details.email,
            details.description,
            details.stripe_customer_id,
            details.stripe_price_id,
            details.subscription_ends_at.map(time),
        ],
    )
}

/// Identity of a series; its description follows in the same transaction.
fn name_series(run: Run<'_>, record: &SeriesRecord) -> rusqlite::Result<()> {
    run(
        "INSERT OR REPLACE INTO series (series_id, business_id, scope, customer_id, metric_name, created_at,
             metric_type, operation, flush_interval, batch_interval, initial_value, tags, notify_at, stored,
             restore_on_startup, custom)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, '', '', '', '', '0.0', '{}', '[]', 1, 1, '{}')",
        params![
            record.series.0,
            record.key.business_id,
            word(&record.key.scope()),
            record.key.customer_id,
            record.key.metric_name,
            time(record.created_at),
        ],
    )
}

fn describe_series(run: Run<'_>, series: SeriesId, spec: &SeriesSpec) -> rusqlite::Result<()> {
    let limit = |part: fn(&Limit) -> String| spec.limit.as_ref().map(part);
    run(
        "UPDATE series SET metric_type = ?2, operation = ?3, flush_interval = ?4, reset_interval = ?5,
             batch_interval = ?6, initial_value = ?7, max_event_age_secs = ?8, cleanup_after_days = ?9, tags = ?10,
             limit_value = ?11, limit_operator = ?12, breach_action = ?13, notify_at = ?14, webhook_url = ?15,
             stored = ?16, restore_on_startup = ?17, stripe = ?18, custom = ?19
         WHERE series_id = ?1",
        params![
            series.0,
            word(&spec.metric_type),
            word(&spec.operation),
            spec.flush_interval.text(),
            spec.reset_interval.map(|span| span.text()),
            spec.batch_interval.text(),
            spec.initial_value.to_string(),
            spec.max_event_age_secs,
            spec.cleanup_after_days,
            json(&spec.tags),
            limit(|limit| limit.value.to_string()),
            limit(|limit| word(&limit.operator)),
            limit(|limit| word(&limit.action)),
            json(&spec.notify_at),
            spec.webhook_url,
            spec.stored,
            spec.restore_on_startup,
            spec.stripe.as_ref().map(integration),
            spec.custom,
        ],
    )
}

/// The API's field names; amounts as text, since JSON readers tend to make floats of numbers.
fn integration(stripe: &StripeIntegration) -> String {
    json(&serde_json::json!({
        "enabled": stripe.enabled,
        "price_id": stripe.price_id,
        "export": if stripe.overage { "overage" } else { "usage" },
        "overage_threshold": stripe.overage_threshold.map(|amount| amount.to_string()),
        "scale": stripe.scale.map(|amount| amount.to_string()),
    }))
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("maps with text keys, lists and values always have a JSON text")
}

/// The API's word for a variant: its serde name.
pub(super) fn word(variant: &impl Serialize) -> String {
    json(variant).trim_matches('"').to_owned()
}
