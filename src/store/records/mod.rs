//! Definitions as rows of tables, both ways, for the dialects that move rows as JSON. Here tenants, keys, customers and the
//! audit log; `plans`, `series`, `secrets`, `slices`, `stripe` and `templates` are theirs.
//!
//! Field names are column names. Words are those of the API, amounts and times text (`text`), so that nothing is lost on the
//! way; `custom` goes beside them, byte for byte, because not every JSON text that a client may keep survives as a value.

mod plans;
mod secrets;
mod series;
mod slices;
mod stripe;
mod templates;

use std::collections::BTreeSet;

use dataflows::types::{
    Actor, ApiKey, AuditEntry, Business, Customer, CustomerDetails, Definition, Epoch, KeyKind, Scopes,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(super) use plans::{PlanLimitRow, PlanRow, PlannedRow};
pub(super) use secrets::{StripeKeyRow, WebhookRow, base64};
pub(super) use series::{DescriptionRow, NamedSpecRow, SpecRow};
pub(super) use slices::{BilledPeriodRow, MoveRow, SliceRow};
pub(super) use stripe::{PeriodEndRow, PeriodFinalRow, StripeEventRow, SubscriptionRow, item_rows};
pub(super) use templates::TemplateRow;

use super::AuditRow;
use super::text::{read_time, time};

/// The columns of `businesses` that name one.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BusinessRow {
    business_id: String,
    business_name: String,
    email: String,
    created_at: String,
}

/// The columns of `businesses` that bind its customer keys.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ProxyTargetsRow {
    business_id: String,
    proxy_targets: Option<BTreeSet<String>>,
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

impl ProxyTargetsRow {
    pub fn new(business_id: &str, origins: &BTreeSet<String>) -> Self {
        let proxy_targets = Some(origins.clone()).filter(|origins| !origins.is_empty());
        ProxyTargetsRow { business_id: business_id.to_owned(), proxy_targets }
    }

    /// None for a business that binds nobody: nothing needs to say so.
    pub fn definition(self) -> Option<Definition> {
        let ProxyTargetsRow { business_id, proxy_targets } = self;
        proxy_targets.map(|origins| Definition::ProxyTargetsPut { business_id, origins })
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

impl EntryRow {
    pub fn new(epoch: Epoch, index: u32, entry: &AuditEntry) -> Self {
        let (actor_type, actor_key, actor_customer) = match &entry.actor {
            Actor::Server => ("server", None, None),
            Actor::Admin => ("admin", None, None),
            Actor::Stripe => ("stripe", None, None),
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
            "stripe" => Actor::Stripe,
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

/// `Some(None)` without a text, `None` for a text that cannot be read.
fn optional<T>(text: Option<String>, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    text.map_or(Some(None), |text| read(&text).map(Some))
}

/// The API's word for a variant: its serde name.
fn word(variant: &impl Serialize) -> Value {
    serde_json::to_value(variant).expect("variants without content have a name")
}

fn read_word<T: DeserializeOwned>(word: Value) -> Option<T> {
    serde_json::from_value(word).ok()
}

/// Words of 'read ingest manage'.
pub(super) fn words(scopes: Scopes) -> String {
    let named = [("read", scopes.read), ("ingest", scopes.ingest), ("manage", scopes.manage)];
    named.iter().filter(|(_, given)| *given).map(|(word, _)| *word).collect::<Vec<_>>().join(" ")
}
