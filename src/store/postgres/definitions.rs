//! The projection of definitions, a few statements for any number of them.
//!
//! What a stretch of definitions leaves behind is worked out first: of several puts of one thing the last one counts, and
//! what is deleted takes the puts before it along. Then all deletions are written, and then the puts that are left, each kind
//! in one statement for every `SLICE_ROWS` of them. Rows travel as one JSON text and become columns by the tables' own
//! types (`json_populate_recordset`). Plans and their limits are in `plans`, what is billed in `slices`, what Stripe has told
//! in `stripe`, templates in `templates`.

use std::collections::{BTreeMap, BTreeSet};

use dataflows::types::{ApiKey, Definition, Epoch, KeyKind, SeriesId};
use serde::Serialize;
use tokio_postgres::types::{ToSql, Type};

use super::plans::LeftPlans;
use super::slices::LeftSlices;
use super::stripe::LeftStripe;
use super::templates::LeftTemplates;
use super::{Session, Target};
use crate::store::records::{
    BusinessRow, CustomerRow, DetailsRow, EntryRow, KeyRow, NamedSpecRow, ProxyTargetsRow, SpecRow,
    StripeKeyRow, WebhookRow,
};
use crate::store::{StoreError, in_epochs};

/// Rows in a statement: 16 KiB each at most beside a few short columns, far below what a message may hold.
const SLICE_ROWS: usize = 10_000;

const PUT_BUSINESSES: &str = "
    INSERT INTO {schema}.businesses (business_id, business_name, email, created_at)
    SELECT business_id, business_name, email, created_at
    FROM json_populate_recordset(NULL::{schema}.businesses, $1::text::json)
    ON CONFLICT (business_id) DO UPDATE
    SET business_name = excluded.business_name, email = excluded.email, created_at = excluded.created_at";

const BIND_CUSTOMERS: &str = "
    UPDATE {schema}.businesses AS known SET proxy_targets = new.proxy_targets
    FROM json_populate_recordset(NULL::{schema}.businesses, $1::text::json) AS new
    WHERE known.business_id = new.business_id";

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

/// What a business takes along, itself last.
const OF_BUSINESSES: [&str; 12] = [
    "slices",
    "api_keys",
    "stripe_keys",
    "webhooks",
    "messages",
    "plan_limits",
    "plans",
    "subscriptions",
    "stripe_events",
    "templates",
    "customers",
    "businesses",
];

/// Applies definitions in order.
pub(super) async fn project(
    session: &Session,
    target: &Target,
    definitions: &[(Epoch, Definition)],
) -> Result<(), StoreError> {
    let mut left = Left::default();
    for (epoch, index, definition) in in_epochs(definitions) {
        left.take(epoch, index, definition);
    }
    left.delete(session, target).await?;
    left.put(session, target).await
}

/// What a stretch of definitions leaves behind: what is deleted of what was there before it, and what is put after that.
#[derive(Default)]
struct Left<'a> {
    businesses: BTreeMap<&'a str, BusinessRow>,
    proxy_targets: BTreeMap<&'a str, ProxyTargetsRow>,
    keys: BTreeMap<[u8; 32], (&'a ApiKey, KeyRow)>,
    customers: BTreeMap<Pair<'a>, CustomerRow>,
    details: BTreeMap<Pair<'a>, DetailsRow>,
    series: BTreeMap<SeriesId, (NamedSpecRow, &'a str)>,
    specs: BTreeMap<SeriesId, (SpecRow, &'a str)>,
    stripe_keys: BTreeMap<Pair<'a>, StripeKeyRow>,
    webhooks: BTreeMap<&'a str, WebhookRow>,
    plans: LeftPlans<'a>,
    slices: LeftSlices<'a>,
    stripe: LeftStripe<'a>,
    templates: LeftTemplates<'a>,
    entries: Vec<EntryRow>,
    gone_businesses: BTreeSet<&'a str>,
    gone_customers: BTreeSet<Pair<'a>>,
    gone_series: BTreeSet<SeriesId>,
    gone_keys: BTreeSet<[u8; 32]>,
    gone_key_names: BTreeSet<Pair<'a>>,
    gone_stripe_keys: BTreeSet<Pair<'a>>,
}

/// A business, and something of it.
pub(super) type Pair<'a> = (&'a str, &'a str);

impl<'a> Left<'a> {
    fn take(&mut self, epoch: Epoch, index: u32, definition: &'a Definition) {
        match definition {
            Definition::BusinessPut(business) => {
                self.businesses.insert(&business.business_id, business.into());
            }
            Definition::ProxyTargetsPut { business_id, origins } => {
                self.proxy_targets.insert(business_id, ProxyTargetsRow::new(business_id, origins));
            }
            Definition::KeyPut(key) => {
                self.keys.insert(key.hash, (key, key.into()));
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
            Definition::PlanPut(plan) => self.plans.put_plan(plan),
            Definition::PlanDeleted { business_id, plan_id } => self.plans.end_plan((business_id, plan_id)),
            Definition::PlanLimitPut(limit) => self.plans.put_limit(limit),
            Definition::PlanLimitDeleted { business_id, limit_id } => {
                self.plans.end_limit((business_id, limit_id))
            }
            Definition::CustomerPlanned { business_id, customer_id, plan_id } => {
                self.plans.plan_customer((business_id, customer_id), plan_id.as_deref())
            }
            Definition::PeriodsBilled { series, periods } => {
                periods.iter().for_each(|period| self.slices.bill(*series, period))
            }
            Definition::SlicesCut(slices) => slices.iter().for_each(|slice| self.slices.put(slice)),
            Definition::SlicesMoved(moves) => moves.iter().for_each(|moved| self.slices.moved(moved)),
            Definition::SubscriptionPut(subscription) => self.stripe.put_subscription(subscription),
            Definition::StripeEventRead(event) => self.stripe.put_event(event),
            Definition::BillingPeriodEnded(end) => self.stripe.end_period(end),
            Definition::BillingPeriodFinal(last) => self.stripe.finalize(last),
            Definition::ReportAwaited { business_id, event_id } => {
                self.stripe.await_report((business_id, event_id))
            }
            Definition::TemplatePut(template) => self.templates.put_template(template),
            Definition::TemplateDeleted { business_id, metric_name } => {
                self.templates.end_template((business_id, metric_name))
            }
            Definition::Audited(entry) => self.entries.push(EntryRow::new(epoch, index, entry)),
            Definition::SeriesDeleted { series } => {
                self.series.remove(series);
                self.specs.remove(series);
                self.slices.end_series(*series);
                self.stripe.end_series(*series);
                self.gone_series.insert(*series);
            }
            Definition::KeyEnded { hash } => {
                self.keys.remove(hash);
                self.gone_keys.insert(*hash);
            }
            Definition::KeyDeleted { business_id, key_name } => {
                self.keys.retain(|_, (key, _)| key.business_id != *business_id || key.key_name != *key_name);
                self.gone_key_names.insert((business_id, key_name));
            }
            Definition::StripeKeyEnded { business_id, key_name } => {
                self.stripe_keys.remove(&(business_id.as_str(), key_name.as_str()));
                self.gone_stripe_keys.insert((business_id, key_name));
            }
            Definition::CustomerDeleted { business_id, customer_id } => {
                self.end_customer((business_id, customer_id))
            }
            Definition::BusinessDeleted { business_id } => self.end_business(business_id),
            // A cut shows in the next batch's `series_state`; which bodies were recorded is the journal's knowledge.
            Definition::SeriesCut { .. } | Definition::PostRecorded { .. } => {}
        }
    }

    fn end_customer(&mut self, customer: Pair<'a>) {
        self.customers.remove(&customer);
        self.details.remove(&customer);
        self.plans.end_customer(customer);
        self.keys.retain(|_, (key, _)| {
            let of_it = KeyKind::Customer { customer_id: customer.1.to_owned() };
            key.business_id != customer.0 || key.kind != of_it
        });
        self.gone_customers.insert(customer);
    }

    fn end_business(&mut self, business_id: &'a str) {
        self.businesses.remove(business_id);
        self.proxy_targets.remove(business_id);
        self.webhooks.remove(business_id);
        self.customers.retain(|(of, _), _| *of != business_id);
        self.details.retain(|(of, _), _| *of != business_id);
        self.stripe_keys.retain(|(of, _), _| *of != business_id);
        self.keys.retain(|_, (key, _)| key.business_id != business_id);
        self.plans.end_business(business_id);
        self.slices.end_business(business_id);
        self.stripe.end_business(business_id);
        self.templates.end_business(business_id);
        self.gone_businesses.insert(business_id);
    }

    async fn delete(&self, session: &Session, target: &Target) -> Result<(), StoreError> {
        let series: Vec<i64> = self.gone_series.iter().map(|series| series.0.into()).collect();
        for table in
            ["billing_periods", "billing_periods_ended", "billing_periods_final", "series_state", "series"]
        {
            if !series.is_empty() {
                let sql = format!("DELETE FROM {{schema}}.{table} WHERE series_id = ANY($1)");
                session.run(&target.sql(&sql), &[(&series, Type::INT8_ARRAY)]).await?;
            }
        }
        let hashes: Vec<String> =
            self.gone_keys.iter().map(|hash| blake3::Hash::from_bytes(*hash).to_hex().to_string()).collect();
        if !hashes.is_empty() {
            let sql = "DELETE FROM {schema}.api_keys WHERE key_hash = ANY($1)";
            session.run(&target.sql(sql), &[(&hashes, Type::TEXT_ARRAY)]).await?;
        }
        for (gone, column, tables) in [
            (&self.gone_key_names, "key_name", &["api_keys"][..]),
            (&self.gone_stripe_keys, "key_name", &["stripe_keys"]),
            (&self.gone_customers, "customer_id", &["api_keys", "customers"]),
        ] {
            for table in tables {
                delete_named(session, target, table, column, gone).await?;
            }
        }
        self.plans.delete(session, target).await?;
        self.templates.delete(session, target).await?;
        let businesses: Vec<&str> = self.gone_businesses.iter().copied().collect();
        for table in OF_BUSINESSES {
            if !businesses.is_empty() {
                let sql = format!("DELETE FROM {{schema}}.{table} WHERE business_id = ANY($1)");
                session.run(&target.sql(&sql), &[(&businesses, Type::TEXT_ARRAY)]).await?;
            }
        }
        Ok(())
    }

    async fn put(self, session: &Session, target: &Target) -> Result<(), StoreError> {
        put(session, target, PUT_BUSINESSES, self.businesses.into_values()).await?;
        put(session, target, BIND_CUSTOMERS, self.proxy_targets.into_values()).await?;
        put(session, target, PUT_KEYS, self.keys.into_values().map(|(_, row)| row)).await?;
        put(session, target, PUT_CUSTOMERS, self.customers.into_values()).await?;
        put(session, target, DESCRIBE_CUSTOMERS, self.details.into_values()).await?;
        self.plans.put(session, target).await?;
        self.slices.put_all(session, target).await?;
        self.stripe.put(session, target).await?;
        self.templates.put(session, target).await?;
        put(session, target, PUT_STRIPE_KEYS, self.stripe_keys.into_values()).await?;
        put(session, target, PUT_WEBHOOKS, self.webhooks.into_values()).await?;
        put(session, target, PUT_ENTRIES, self.entries.into_iter()).await?;
        let again = DESCRIPTION.replace("new.", "excluded.");
        let create = format!(
            "{PUT_SERIES} {NEW_SERIES} ON CONFLICT (series_id) DO UPDATE SET {again}, custom = excluded.custom"
        );
        put_beside(session, target, &create, self.series.into_values()).await?;
        let describe = format!(
            "UPDATE {{schema}}.series AS known SET {DESCRIPTION}, custom = kept::json {NEW_SERIES}
             WHERE known.series_id = new.series_id"
        );
        put_beside(session, target, &describe, self.specs.into_values()).await
    }
}

/// Deletes what a column names, of these businesses.
pub(super) async fn delete_named(
    session: &Session,
    target: &Target,
    table: &str,
    column: &str,
    gone: &BTreeSet<Pair<'_>>,
) -> Result<(), StoreError> {
    if gone.is_empty() {
        return Ok(());
    }
    let (businesses, names): (Vec<&str>, Vec<&str>) = gone.iter().copied().unzip();
    let sql = format!(
        "DELETE FROM {{schema}}.{table} AS kept USING unnest($1, $2) AS gone (business_id, name)
         WHERE kept.business_id = gone.business_id AND kept.{column} = gone.name"
    );
    let values: [(&(dyn ToSql + Sync), Type); 2] =
        [(&businesses, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)];
    session.run(&target.sql(&sql), &values).await.map(drop)
}

/// Writes rows, a statement for every `SLICE_ROWS` of them.
pub(super) async fn put<T: Serialize>(
    session: &Session,
    target: &Target,
    sql: &str,
    rows: impl Iterator<Item = T>,
) -> Result<(), StoreError> {
    let rows: Vec<T> = rows.collect();
    for slice in rows.chunks(SLICE_ROWS) {
        session.run(&target.sql(sql), &[(&json(slice), Type::TEXT)]).await?;
    }
    Ok(())
}

/// As `put`, each row with a text that goes beside it.
pub(super) async fn put_beside<'a, T: Serialize>(
    session: &Session,
    target: &Target,
    sql: &str,
    rows: impl Iterator<Item = (T, &'a str)>,
) -> Result<(), StoreError> {
    let (rows, beside): (Vec<T>, Vec<&str>) = rows.unzip();
    for (slice, beside) in rows.chunks(SLICE_ROWS).zip(beside.chunks(SLICE_ROWS)) {
        let values: [(&(dyn ToSql + Sync), Type); 2] =
            [(&json(slice), Type::TEXT), (&beside, Type::TEXT_ARRAY)];
        session.run(&target.sql(sql), &values).await?;
    }
    Ok(())
}

fn json<T: Serialize>(rows: &[T]) -> String {
    serde_json::to_string(rows).expect("rows of texts, numbers and lists always have a JSON text")
}
