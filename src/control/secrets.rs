//! The registry's secrets: credentials for Stripe and webhooks of tenants, sealed. Nothing here can read them.

use std::collections::BTreeMap;

use dataflows::types::{Definition, Sealed, StripeKey, Webhook};

/// See the header.
#[derive(Default)]
pub struct Secrets {
    /// By business and name.
    stripe_keys: BTreeMap<String, BTreeMap<String, StripeKey>>,
    /// By business.
    webhooks: BTreeMap<String, Webhook>,
}

impl Secrets {
    /// Credentials for Stripe, perhaps in place of others of that name.
    pub(super) fn put_stripe_key(&mut self, key: &StripeKey) {
        let of_business = self.stripe_keys.entry(key.business_id.clone()).or_default();
        of_business.insert(key.key_name.clone(), key.clone());
    }

    /// Credentials for Stripe go.
    pub(super) fn end_stripe_key(&mut self, business_id: &str, key_name: &str) {
        if let Some(of_business) = self.stripe_keys.get_mut(business_id) {
            of_business.remove(key_name);
        }
    }

    /// The business's webhook.
    pub(super) fn put_webhook(&mut self, webhook: &Webhook) {
        self.webhooks.insert(webhook.business_id.clone(), webhook.clone());
    }

    /// Everything of a business goes.
    pub(super) fn forget(&mut self, business_id: &str) {
        self.stripe_keys.remove(business_id);
        self.webhooks.remove(business_id);
    }

    /// The credentials of a business for Stripe, by name.
    pub fn stripe_keys(&self, business_id: &str) -> impl Iterator<Item = &StripeKey> {
        self.stripe_keys.get(business_id).into_iter().flat_map(BTreeMap::values)
    }

    /// The credentials of that name.
    pub fn stripe_key(&self, business_id: &str, key_name: &str) -> Option<&StripeKey> {
        self.stripe_keys.get(business_id)?.get(key_name)
    }

    /// The webhook of a business, if it has set one.
    pub fn webhook(&self, business_id: &str) -> Option<&Webhook> {
        self.webhooks.get(business_id)
    }

    /// Every secret that has not been replaced: without those that only sign along, what cannot be read is mended by
    /// setting it anew.
    pub fn current(&self) -> impl Iterator<Item = &Sealed> {
        let stripe = self.stripe_keys.values().flat_map(BTreeMap::values);
        let stripe = stripe.flat_map(|key| [&key.secret_key, &key.webhook_secret]);
        stripe.chain(self.webhooks.values().map(|webhook| &webhook.secret))
    }

    /// Definitions that bring all of it back.
    pub(super) fn export(&self) -> impl Iterator<Item = Definition> {
        let stripe_keys = self.stripe_keys.values().flat_map(BTreeMap::values).cloned();
        let webhooks = self.webhooks.values().cloned();
        stripe_keys.map(Definition::StripeKeyPut).chain(webhooks.map(Definition::WebhookPut))
    }
}
