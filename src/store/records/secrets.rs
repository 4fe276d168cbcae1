//! Rows of `stripe_keys` and `webhooks`: secrets are ciphertext, as in the journal, in base64.

use base64::prelude::{BASE64_STANDARD, Engine};
use dataflows::types::{Definition, RetiredSecret, Sealed, StripeKey, Webhook};
use serde::{Deserialize, Serialize};

use crate::store::text::{read_time, time};

/// `stripe_keys`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct StripeKeyRow {
    business_id: String,
    key_name: String,
    secret_key: String,
    webhook_secret: String,
    created_at: String,
}

/// `webhooks`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct WebhookRow {
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

/// Ciphertext as text.
pub(in crate::store) fn base64(sealed: &Sealed) -> String {
    BASE64_STANDARD.encode(&sealed.0)
}

fn sealed(text: &str) -> Option<Sealed> {
    BASE64_STANDARD.decode(text).ok().map(Sealed)
}
