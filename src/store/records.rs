//! Definitions as rows of tables, both ways, for the dialects that move rows as JSON.
//!
//! Field names are column names. Words are those of the API, amounts and times text (`text`), so that nothing is lost on the
//! way; `custom` goes beside them, byte for byte, because not every JSON text that a client may keep survives as a value.

use base64::prelude::{BASE64_STANDARD, Engine};
use dataflows::types::{
    Actor, Amount, ApiKey, AuditEntry, Business, Customer, CustomerDetails, Definition, Epoch, KeyKind,
    Limit, RetiredSecret, Scopes, Sealed, SeriesId, SeriesKey, SeriesRecord, SeriesSpec, Span,
    StripeIntegration, StripeKey, Webhook,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AuditRow;
use super::text::{read_amount, read_time, time};

/// `businesses`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BusinessRow {
    business_id: String,
    business_name: String,
    email: String,
    created_at: String,
}

/// `api_keys`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct KeyRow {
    business_id: String,
    key_name: String,
    key_type: String,
    customer_id: Option<String>,
    key_hash: String,
    scopes: String,
    expires_at: Option<String>,
    created_at: String,
}

/// The columns of `customers` that name one.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CustomerRow {
    business_id: String,
    customer_id: String,
    customer_name: String,
    created_at: String,
}

/// The columns of `customers` that describe one.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct DetailsRow {
    business_id: String,
    customer_id: String,
    email: Option<String>,
    description: Option<String>,
    stripe_customer_id: Option<String>,
    stripe_price_id: Option<String>,
    subscription_ends_at: Option<String>,
}

/// A row of `series`, without `custom`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct NamedSpecRow {
    #[serde(flatten)]
    name: NameRow,
    #[serde(flatten)]
    pub spec: SpecRow,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NameRow {
    business_id: String,
    scope: String,
    customer_id: Option<String>,
    metric_name: String,
    created_at: String,
}

/// The columns of `series` that describe one, without `custom`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SpecRow {
    series_id: u32,
    metric_type: Value,
    operation: Value,
    flush_interval: String,
    reset_interval: Option<String>,
    batch_interval: String,
    initial_value: String,
    max_event_age_secs: Option<u32>,
    cleanup_after_days: Option<u16>,
    tags: std::collections::BTreeMap<String, String>,
    limit_value: Option<String>,
    limit_operator: Option<Value>,
    breach_action: Option<Value>,
    notify_at: Vec<u16>,
    webhook_url: Option<String>,
    stored: bool,
    restore_on_startup: bool,
    stripe: Option<StripeRow>,
}

/// `series.stripe`, by the API's field names.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct StripeRow {
    enabled: bool,
    price_id: Option<String>,
    export: String,
    overage_threshold: Option<String>,
    scale: Option<String>,
}

/// `stripe_keys`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StripeKeyRow {
    business_id: String,
    key_name: String,
    secret_key: String,
    webhook_secret: String,
    created_at: String,
}

/// `webhooks`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WebhookRow {
    business_id: String,
    url: String,
    secret: String,
    created_at: String,
    retired: Vec<RetiredRow>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct RetiredRow {
    secret: String,
    ends_at: String,
}

/// `audit_log`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EntryRow {
    epoch: i64,
    entry: u32,
    at: String,
    actor_type: String,
    actor_key: Option<String>,
    actor_customer: Option<String>,
    action: String,
    business_id: String,
    subject: String,
    request_id: Option<String>,
}

impl From<&Business> for BusinessRow {
    fn from(business: &Business) -> Self {
        BusinessRow {
            business_id: business.business_id.clone(),
            business_name: business.business_name.clone(),
            email: business.email.clone(),
            created_at: time(business.created_at),
        }
    }
}

impl BusinessRow {
    /// None for what this program does not write; the same below.
    pub fn definition(self) -> Option<Definition> {
        let BusinessRow { business_id, business_name, email, created_at } = self;
        let created_at = read_time(&created_at)?;
        Some(Definition::BusinessPut(Business { business_id, business_name, email, created_at }))
    }
}

impl From<&ApiKey> for KeyRow {
    fn from(key: &ApiKey) -> Self {
        let (key_type, customer_id) = match &key.kind {
            KeyKind::Business => ("business", None),
            KeyKind::Customer { customer_id } => ("customer_api", Some(customer_id.clone())),
        };
        KeyRow {
            business_id: key.business_id.clone(),
            key_name: key.key_name.clone(),
            key_type: key_type.to_owned(),
            customer_id,
            key_hash: blake3::Hash::from_bytes(key.hash).to_hex().to_string(),
            scopes: words(key.scopes),
            expires_at: key.expires_at.map(time),
            created_at: time(key.created_at),
        }
    }
}

impl KeyRow {
    pub fn definition(self) -> Option<Definition> {
        let kind = match (self.key_type.as_str(), self.customer_id) {
            ("business", None) => KeyKind::Business,
            ("customer_api", Some(customer_id)) => KeyKind::Customer { customer_id },
            _ => return None,
        };
        let has = |word| self.scopes.split(' ').any(|scope| scope == word);
        Some(Definition::KeyPut(ApiKey {
            business_id: self.business_id,
            key_name: self.key_name,
            kind,
            hash: *blake3::Hash::from_hex(&self.key_hash).ok()?.as_bytes(),
            scopes: Scopes { read: has("read"), ingest: has("ingest"), manage: has("manage") },
            expires_at: optional(self.expires_at, read_time)?,
            created_at: read_time(&self.created_at)?,
        }))
    }
}

impl From<&Customer> for CustomerRow {
    fn from(customer: &Customer) -> Self {
        CustomerRow {
            business_id: customer.business_id.clone(),
            customer_id: customer.customer_id.clone(),
            customer_name: customer.customer_name.clone(),
            created_at: time(customer.created_at),
        }
    }
}

impl CustomerRow {
    pub fn definition(self) -> Option<Definition> {
        let CustomerRow { business_id, customer_id, customer_name, created_at } = self;
        let created_at = read_time(&created_at)?;
        Some(Definition::CustomerPut(Customer { business_id, customer_id, customer_name, created_at }))
    }
}

impl DetailsRow {
    pub fn new(business_id: &str, customer_id: &str, details: &CustomerDetails) -> Self {
        DetailsRow {
            business_id: business_id.to_owned(),
            customer_id: customer_id.to_owned(),
            email: details.email.clone(),
            description: details.description.clone(),
            stripe_customer_id: details.stripe_customer_id.clone(),
            stripe_price_id: details.stripe_price_id.clone(),
            subscription_ends_at: details.subscription_ends_at.map(time),
        }
    }

    pub fn definition(self) -> Option<Definition> {
        let details = CustomerDetails {
            email: self.email,
            description: self.description,
            stripe_customer_id: self.stripe_customer_id,
            stripe_price_id: self.stripe_price_id,
            subscription_ends_at: optional(self.subscription_ends_at, read_time)?,
        };
        let (business_id, customer_id) = (self.business_id, self.customer_id);
        Some(Definition::CustomerDescribed { business_id, customer_id, details })
    }
}

impl From<&StripeKey> for StripeKeyRow {
    fn from(key: &StripeKey) -> Self {
        StripeKeyRow {
            business_id: key.business_id.clone(),
            key_name: key.key_name.clone(),
            secret_key: base64(&key.secret_key),
            webhook_secret: base64(&key.webhook_secret),
            created_at: time(key.created_at),
        }
    }
}

impl StripeKeyRow {
    pub fn definition(self) -> Option<Definition> {
        Some(Definition::StripeKeyPut(StripeKey {
            business_id: self.business_id,
            key_name: self.key_name,
            secret_key: sealed(&self.secret_key)?,
            webhook_secret: sealed(&self.webhook_secret)?,
            created_at: read_time(&self.created_at)?,
        }))
    }
}

impl From<&Webhook> for WebhookRow {
    fn from(webhook: &Webhook) -> Self {
        let retired = |retired: &RetiredSecret| RetiredRow {
            secret: base64(&retired.secret),
            ends_at: time(retired.ends_at),
        };
        WebhookRow {
            business_id: webhook.business_id.clone(),
            url: webhook.url.clone(),
            secret: base64(&webhook.secret),
            created_at: time(webhook.created_at),
            retired: webhook.retired.iter().map(retired).collect(),
        }
    }
}

impl WebhookRow {
    pub fn definition(self) -> Option<Definition> {
        let retired = |row: RetiredRow| {
            Some(RetiredSecret { secret: sealed(&row.secret)?, ends_at: read_time(&row.ends_at)? })
        };
        Some(Definition::WebhookPut(Webhook {
            business_id: self.business_id,
            url: self.url,
            secret: sealed(&self.secret)?,
            created_at: read_time(&self.created_at)?,
            retired: self.retired.into_iter().map(retired).collect::<Option<_>>()?,
        }))
    }
}

impl EntryRow {
    pub fn new(epoch: Epoch, index: u32, entry: &AuditEntry) -> Self {
        let (actor_type, actor_key, actor_customer) = match &entry.actor {
            Actor::Server => ("server", None, None),
            Actor::Admin => ("admin", None, None),
            Actor::Key { kind: KeyKind::Business, key_name } => ("business", Some(key_name), None),
            Actor::Key { kind: KeyKind::Customer { customer_id }, key_name } => {
                ("customer_api", Some(key_name), Some(customer_id))
            }
        };
        EntryRow {
            epoch: epoch.cast_signed(),
            entry: index,
            at: time(entry.at),
            actor_type: actor_type.to_owned(),
            actor_key: actor_key.cloned(),
            actor_customer: actor_customer.cloned(),
            action: entry.action.clone(),
            business_id: entry.business_id.clone(),
            subject: entry.subject.clone(),
            request_id: entry.request_id.clone(),
        }
    }

    pub fn row(self) -> Option<AuditRow> {
        let actor = match self.actor_type.as_str() {
            "server" => Actor::Server,
            "admin" => Actor::Admin,
            "business" => Actor::Key { kind: KeyKind::Business, key_name: self.actor_key? },
            "customer_api" => {
                let kind = KeyKind::Customer { customer_id: self.actor_customer? };
                Actor::Key { kind, key_name: self.actor_key? }
            }
            _ => return None,
        };
        let entry = AuditEntry {
            at: read_time(&self.at)?,
            actor,
            action: self.action,
            business_id: self.business_id,
            subject: self.subject,
            request_id: self.request_id,
        };
        Some(AuditRow { epoch: self.epoch.cast_unsigned(), index: self.entry, entry })
    }
}

impl From<&SeriesRecord> for NameRow {
    fn from(record: &SeriesRecord) -> Self {
        NameRow {
            business_id: record.key.business_id.clone(),
            scope: word(&record.key.scope()).as_str().unwrap_or_default().to_owned(),
            customer_id: record.key.customer_id.clone(),
            metric_name: record.key.metric_name.clone(),
            created_at: time(record.created_at),
        }
    }
}

impl NamedSpecRow {
    pub fn new(record: &SeriesRecord) -> Self {
        NamedSpecRow { name: record.into(), spec: SpecRow::new(record.series, &record.spec) }
    }

    pub fn definition(self, custom: String) -> Option<Definition> {
        let NameRow { business_id, customer_id, metric_name, created_at, .. } = self.name;
        let key = SeriesKey { business_id, customer_id, metric_name };
        let (series, created_at) = (SeriesId(self.spec.series_id), read_time(&created_at)?);
        Some(Definition::SeriesCreated(SeriesRecord {
            series,
            key,
            spec: self.spec.spec(custom)?,
            created_at,
        }))
    }
}

impl SpecRow {
    pub fn new(series: SeriesId, spec: &SeriesSpec) -> Self {
        let amount = |amount: Amount| amount.to_string();
        SpecRow {
            series_id: series.0,
            metric_type: word(&spec.metric_type),
            operation: word(&spec.operation),
            flush_interval: spec.flush_interval.text().to_owned(),
            reset_interval: spec.reset_interval.map(|span| span.text().to_owned()),
            batch_interval: spec.batch_interval.text().to_owned(),
            initial_value: amount(spec.initial_value),
            max_event_age_secs: spec.max_event_age_secs,
            cleanup_after_days: spec.cleanup_after_days,
            tags: spec.tags.clone(),
            limit_value: spec.limit.map(|limit| amount(limit.value)),
            limit_operator: spec.limit.map(|limit| word(&limit.operator)),
            breach_action: spec.limit.map(|limit| word(&limit.action)),
            notify_at: spec.notify_at.clone(),
            webhook_url: spec.webhook_url.clone(),
            stored: spec.stored,
            restore_on_startup: spec.restore_on_startup,
            stripe: spec.stripe.as_ref().map(|stripe| StripeRow {
                enabled: stripe.enabled,
                price_id: stripe.price_id.clone(),
                export: if stripe.overage { "overage" } else { "usage" }.to_owned(),
                overage_threshold: stripe.overage_threshold.map(amount),
                scale: stripe.scale.map(amount),
            }),
        }
    }

    fn spec(self, custom: String) -> Option<SeriesSpec> {
        let limit = match (self.limit_value, self.limit_operator, self.breach_action) {
            (Some(value), Some(operator), Some(action)) => Some(Limit {
                value: read_amount(&value)?,
                operator: read_word(operator)?,
                action: read_word(action)?,
            }),
            _ => None,
        };
        let stripe = match self.stripe {
            Some(stripe) => Some(StripeIntegration {
                enabled: stripe.enabled,
                price_id: stripe.price_id,
                overage: stripe.export == "overage",
                overage_threshold: optional(stripe.overage_threshold, read_amount)?,
                scale: optional(stripe.scale, read_amount)?,
            }),
            None => None,
        };
        Some(SeriesSpec {
            metric_type: read_word(self.metric_type)?,
            operation: read_word(self.operation)?,
            flush_interval: span(&self.flush_interval)?,
            reset_interval: optional(self.reset_interval, span)?,
            initial_value: read_amount(&self.initial_value)?,
            max_event_age_secs: self.max_event_age_secs,
            cleanup_after_days: self.cleanup_after_days,
            tags: self.tags,
            limit,
            notify_at: self.notify_at,
            webhook_url: self.webhook_url,
            stored: self.stored,
            batch_interval: span(&self.batch_interval)?,
            restore_on_startup: self.restore_on_startup,
            stripe,
            custom,
        })
    }
}

/// `Some(None)` without a text, `None` for a text that cannot be read.
fn optional<T>(text: Option<String>, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    text.map_or(Some(None), |text| read(&text).map(Some))
}

fn span(text: &str) -> Option<Span> {
    Span::ALL.into_iter().find(|span| span.text() == text)
}

/// Ciphertext as text.
pub(super) fn base64(sealed: &Sealed) -> String {
    BASE64_STANDARD.encode(&sealed.0)
}

fn sealed(text: &str) -> Option<Sealed> {
    BASE64_STANDARD.decode(text).ok().map(Sealed)
}

/// Words of 'read ingest manage'.
pub(super) fn words(scopes: Scopes) -> String {
    let named = [("read", scopes.read), ("ingest", scopes.ingest), ("manage", scopes.manage)];
    named.iter().filter(|(_, given)| *given).map(|(word, _)| *word).collect::<Vec<_>>().join(" ")
}

/// The API's word for a variant: its serde name.
fn word(variant: &impl Serialize) -> Value {
    serde_json::to_value(variant).expect("variants without content have a name")
}

fn read_word<T: DeserializeOwned>(word: Value) -> Option<T> {
    serde_json::from_value(word).ok()
}
