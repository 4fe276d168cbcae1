//! An `Idempotency-Key`, and what its request has turned out to be so far.

use crate::admission::key_hash;
use crate::admission::parse::events::{Event, Identity, Rejection};

/// See the header.
pub struct Key {
    text: String,
    hash: u128,
    fingerprint: blake3::Hasher,
}

impl Key {
    /// The key of a request without items.
    pub fn new(business_id: &str, text: String) -> Self {
        Key { hash: key_hash(business_id, &text), text, fingerprint: blake3::Hasher::new() }
    }

    /// As the client has written it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it is remembered by.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// Adds an item. What makes two requests the same: their items, by what they say and not how they are written.
    pub fn add(&mut self, place: u32, event: Result<&Event<'_>, &Rejection>) {
        let hasher = &mut self.fingerprint;
        hasher.update(&place.to_le_bytes());
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        match event {
            Err(rejection) => text(rejection.code),
            Ok(event) => {
                text(&event.metric_name);
                text(event.customer_id.as_deref().unwrap_or_default());
                match &event.id {
                    None => text(""),
                    Some(Identity::Plain(id)) => text(id),
                    Some(Identity::CloudEvent { source, id }) => {
                        text(source);
                        text(id);
                    }
                }
                hasher.update(&event.amount.0.to_le_bytes());
                hasher.update(&event.event_at.map_or(i64::MIN, |at| at.0).to_le_bytes());
            }
        }
    }

    /// Of the items so far.
    pub fn fingerprint(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fingerprint.finalize_xof().fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}
