//! The projection of definitions, a few statements for any number of them.
//!
//! Puts of different kinds do not disturb each other, and of several puts of one thing the last one counts; so a stretch
//! of puts is gathered, each kind in one statement, until something is deleted, and the other way round. Rows travel as
//! one JSON text and become columns by the tables' own types (`json_populate_recordset`).

use std::collections::BTreeMap;

use dataflows::types::{Definition, Epoch, SeriesId};
use serde::Serialize;
use tokio_postgres::types::Type;

use super::{Session, Target};
use crate::store::records::{
    BusinessRow, CustomerRow, DetailsRow, EntryRow, KeyRow, NamedSpecRow, SpecRow, StripeKeyRow, WebhookRow,
};
use crate::store::{StoreError, in_epochs};

const PUT_BUSINESSES: &str = "
    INSERT INTO {schema}.businesses
    SELECT * FROM json_populate_recordset(NULL::{schema}.businesses, $1::text::json)
    ON CONFLICT (business_id) DO UPDATE
    SET business_name = excluded.business_name, email = excluded.email, created_at = excluded.created_at";

const PUT_KEYS: &str = "
    INSERT INTO {schema}.api_keys
    SELECT * FROM json_populate_recordset(NULL::{schema}.api_keys, $1::text::json)
    ON CONFLICT (key_hash) DO UPDATE
    SET business_id = excluded.business_id, key_name = excluded.key_name, key_type = excluded.key_type,
        customer_id = excluded.customer_id, scopes = excluded.scopes, expires_at = excluded.expires_at,
        created_at = excluded.created_at";

const PUT_CUSTOMERS: &str = "
    INSERT INTO {schema}.customers (business_id, customer_id, customer_name, created_at)
    SELECT business_id, customer_id, customer_name, created_at
    FROM json_populate_recordset(NULL::{schema}.customers, $1::text::json)
    ON CONFLICT (business_id, customer_id) DO UPDATE
    SET customer_name = excluded.customer_name, created_at = excluded.created_at";

const DESCRIBE_CUSTOMERS: &str = "
    UPDATE {schema}.customers AS known
    SET email = new.email, description = new.description, stripe_customer_id = new.stripe_customer_id,
        stripe_price_id = new.stripe_price_id, subscription_ends_at = new.subscription_ends_at
    FROM json_populate_recordset(NULL::{schema}.customers, $1::text::json) AS new
    WHERE known.business_id = new.business_id AND known.customer_id = new.customer_id";

const PUT_STRIPE_KEYS: &str = "
    INSERT INTO {schema}.stripe_keys
    SELECT * FROM json_populate_recordset(NULL::{schema}.stripe_keys, $1::text::json)
    ON CONFLICT (business_id, key_name) DO UPDATE
    SET secret_key = excluded.secret_key, webhook_secret = excluded.webhook_secret, created_at = excluded.created_at";

const PUT_WEBHOOKS: &str = "
    INSERT INTO {schema}.webhooks
    SELECT * FROM json_populate_recordset(NULL::{schema}.webhooks, $1::text::json)
    ON CONFLICT (business_id) DO UPDATE
    SET url = excluded.url, secret = excluded.secret, created_at = excluded.created_at, retired = excluded.retired";

const PUT_ENTRIES: &str = "
    INSERT INTO {schema}.audit_log
    SELECT * FROM json_populate_recordset(NULL::{schema}.audit_log, $1::text::json)
    ON CONFLICT (epoch, entry) DO NOTHING";

/// What describes a series, from `new`.
const DESCRIPTION: &str = "metric_type = new.metric_type, operation = new.operation,
    flush_interval = new.flush_interval, reset_interval = new.reset_interval, batch_interval = new.batch_interval,
    initial_value = new.initial_value, max_event_age_secs = new.max_event_age_secs,
    cleanup_after_days = new.cleanup_after_days, tags = new.tags, limit_value = new.limit_value,
    limit_operator = new.limit_operator, breach_action = new.breach_action, notify_at = new.notify_at,
    webhook_url = new.webhook_url, stored = new.stored, restore_on_startup = new.restore_on_startup,
    stripe = new.stripe";

const NEW_SERIES: &str = "
    FROM ROWS FROM (json_populate_recordset(NULL::{schema}.series, $1::text::json)) WITH ORDINALITY AS new
    JOIN unnest($2) WITH ORDINALITY AS beside (kept, ordinality) USING (ordinality)";

const PUT_SERIES: &str = "
    INSERT INTO {schema}.series (series_id, business_id, scope, customer_id, metric_name, created_at, metric_type,
        operation, flush_interval, reset_interval, batch_interval, initial_value, max_event_age_secs,
        cleanup_after_days, tags, limit_value, limit_operator, breach_action, notify_at, webhook_url, stored,
        restore_on_startup, stripe, custom)
    SELECT series_id, business_id, scope, customer_id, metric_name, created_at, metric_type,
        operation, flush_interval, reset_interval, batch_interval, initial_value, max_event_age_secs,
        cleanup_after_days, tags, limit_value, limit_operator, breach_action, notify_at, webhook_url, stored,
        restore_on_startup, stripe, kept::json";

/// Applies definitions in order.
pub(super) async fn project(
    session: &Session,
    target: &Target,
    definitions: &[(Epoch, Definition)],
) -> Result<(), StoreError> {
    let (mut puts, mut ends) = (Puts::default(), Vec::new());
    for (epoch, index, definition) in in_epochs(definitions) {
        if let Definition::Audited(entry) = definition {
            puts.entries.push(EntryRow::new(epoch, index, entry));
            continue;
        }
        if let Definition::SeriesDeleted { series } = definition {
            puts.write(session, target).await?;
            ends.push(i64::from(series.0));
            continue;
        }
        end_series(session, target, &mut ends).await?;
        if !puts.take(definition) {
            puts.write(session, target).await?;
            delete(session, target, definition).await?;
        }
    }
    end_series(session, target, &mut ends).await?;
    puts.write(session, target).await
}

/// Puts that are not written yet, by what they put.
#[derive(Default)]
struct Puts<'a> {
    businesses: BTreeMap<&'a str, BusinessRow>,
    keys: BTreeMap<[u8; 32], KeyRow>,
    customers: BTreeMap<(&'a str, &'a str), CustomerRow>,
    details: BTreeMap<(&'a str, &'a str), DetailsRow>,
    series: BTreeMap<SeriesId, (NamedSpecRow, &'a str)>,
    specs: BTreeMap<SeriesId, (SpecRow, &'a str)>,
    stripe_keys: BTreeMap<(&'a str, &'a str), StripeKeyRow>,
    webhooks: BTreeMap<&'a str, WebhookRow>,
    entries: Vec<EntryRow>,
}

impl<'a> Puts<'a> {
    /// Whether it was one, or nothing that the tables show.
    fn take(&mut self, definition: &'a Definition) -> bool {
        match definition {
            Definition::BusinessPut(business) => {
                self.businesses.insert(&business.business_id, business.into());
            }
            Definition::KeyPut(key) => {
                self.keys.insert(key.hash, key.into());
            }
            Definition::CustomerPut(customer) => {
                self.customers.insert((&customer.business_id, &customer.customer_id), customer.into());
            }
            Definition::CustomerDescribed { business_id, customer_id, details } => {
                let row = DetailsRow::new(business_id, customer_id, details);
                self.details.insert((business_id, customer_id), row);
            }
            Definition::SeriesCreated(record) => {
                self.series.insert(record.series, (NamedSpecRow::new(record), &record.spec.custom));
            }
            Definition::SeriesChanged { series, spec } => match self.series.get_mut(series) {
                Some((row, custom)) => (row.spec, *custom) = (SpecRow::new(*series, spec), &spec.custom),
                None => {
                    self.specs.insert(*series, (SpecRow::new(*series, spec), &spec.custom));
                }
            },
            Definition::StripeKeyPut(key) => {
                self.stripe_keys.insert((&key.business_id, &key.key_name), key.into());
            }
            Definition::WebhookPut(webhook) => {
                self.webhooks.insert(&webhook.business_id, webhook.into());
            }
            // A cut shows in the next batch's `series_state`; which bodies were recorded is the journal's knowledge.
            Definition::SeriesCut { .. } | Definition::PostRecorded { .. } | Definition::Audited(_) => {}
            Definition::KeyDeleted { .. }
            | Definition::KeyEnded { .. }
            | Definition::StripeKeyEnded { .. }
            | Definition::SeriesDeleted { .. }
            | Definition::CustomerDeleted { .. }
            | Definition::BusinessDeleted { .. } => return false,
        }
        true
    }

    async fn write(&mut self, session: &Session, target: &Target) -> Result<(), StoreError> {
        let Puts { businesses, keys, customers, details, series, specs, stripe_keys, webhooks, entries } =
            std::mem::take(self);
        put(session, target, PUT_BUSINESSES, businesses.into_values()).await?;
        put(session, target, PUT_KEYS, keys.into_values()).await?;
        put(session, target, PUT_CUSTOMERS, customers.into_values()).await?;
        put(session, target, DESCRIBE_CUSTOMERS, details.into_values()).await?;
        put(session, target, PUT_STRIPE_KEYS, stripe_keys.into_values()).await?;
        put(session, target, PUT_WEBHOOKS, webhooks.into_values()).await?;
        put(session, target, PUT_ENTRIES, entries.into_iter()).await?;
        let again = DESCRIPTION.replace("new.", "excluded.");
        let create = format!(
            "{PUT_SERIES} {NEW_SERIES} ON CONFLICT (series_id) DO UPDATE SET {again}, custom = excluded.custom"
        );
        put_beside(session, target, &create, series.into_values()).await?;
        let describe = format!(
            "UPDATE {{schema}}.series AS known SET {DESCRIPTION}, custom = kept::json {NEW_SERIES}
             WHERE known.series_id = new.series_id"
        );
        put_beside(session, target, &describe, specs.into_values()).await
    }
}

async fn put<T: Serialize>(
    session: &Session,
    target: &Target,
    sql: &str,
    rows: impl Iterator<Item = T>,
) -> Result<(), StoreError> {
    let rows: Vec<T> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    session.run(&target.sql(sql), &[(&json(&rows), Type::TEXT)]).await.map(drop)
}

/// As `put`, each row with a text that goes beside it.
async fn put_beside<'a, T: Serialize>(
    session: &Session,
    target: &Target,
    sql: &str,
    rows: impl Iterator<Item = (T, &'a str)>,
) -> Result<(), StoreError> {
    let (rows, beside): (Vec<T>, Vec<&str>) = rows.unzip();
    if rows.is_empty() {
        return Ok(());
    }
    session.run(&target.sql(sql), &[(&json(&rows), Type::TEXT), (&beside, Type::TEXT_ARRAY)]).await.map(drop)
}

fn json<T: Serialize>(rows: &[T]) -> String {
    serde_json::to_string(rows).expect("rows of texts, numbers and lists always have a JSON text")
}

async fn end_series(session: &Session, target: &Target, ends: &mut Vec<i64>) -> Result<(), StoreError> {
    if ends.is_empty() {
        return Ok(());
    }
    for table in ["series_state", "series"] {
        let sql = format!("DELETE FROM {{schema}}.{table} WHERE series_id = ANY($1)");
        session.run(&target.sql(&sql), &[(ends, Type::INT8_ARRAY)]).await?;
    }
    ends.clear();
    Ok(())
}

/// What is not a put, nor the end of a series.
async fn delete(session: &Session, target: &Target, definition: &Definition) -> Result<(), StoreError> {
    const KEY: &str = "DELETE FROM {schema}.api_keys WHERE ";
    let of_customer = "business_id = $1 AND customer_id = $2";
    match definition {
        Definition::KeyDeleted { business_id, key_name } => {
            let sql = target.sql(&format!("{KEY} business_id = $1 AND key_name = $2"));
            session.run(&sql, &[(business_id, Type::TEXT), (key_name, Type::TEXT)]).await?;
        }
        Definition::KeyEnded { hash } => {
            let hash = blake3::Hash::from_bytes(*hash).to_hex().to_string();
            session.run(&target.sql(&format!("{KEY} key_hash = $1")), &[(&hash, Type::TEXT)]).await?;
        }
        Definition::StripeKeyEnded { business_id, key_name } => {
            let sql = "DELETE FROM {schema}.stripe_keys WHERE business_id = $1 AND key_name = $2";
            session.run(&target.sql(sql), &[(business_id, Type::TEXT), (key_name, Type::TEXT)]).await?;
        }
        Definition::CustomerDeleted { business_id, customer_id } => {
            for table in ["api_keys", "customers"] {
                let sql = target.sql(&format!("DELETE FROM {{schema}}.{table} WHERE {of_customer}"));
                session.run(&sql, &[(business_id, Type::TEXT), (customer_id, Type::TEXT)]).await?;
            }
        }
        Definition::BusinessDeleted { business_id } => {
            for table in ["api_keys", "stripe_keys", "webhooks", "customers", "businesses"] {
                let sql = target.sql(&format!("DELETE FROM {{schema}}.{table} WHERE business_id = $1"));
                session.run(&sql, &[(business_id, Type::TEXT)]).await?;
            }
        }
        Definition::BusinessPut(_)
        | Definition::KeyPut(_)
        | Definition::CustomerPut(_)
        | Definition::CustomerDescribed { .. }
        | Definition::SeriesCreated(_)
        | Definition::SeriesChanged { .. }
        | Definition::SeriesDeleted { .. }
        | Definition::SeriesCut { .. }
        | Definition::PostRecorded { .. }
        | Definition::StripeKeyPut(_)
        | Definition::WebhookPut(_)
        | Definition::Audited(_) => {}
    }
    Ok(())
}
