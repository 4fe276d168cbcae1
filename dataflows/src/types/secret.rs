//! Secrets that can be recovered, as the journal holds them: encrypted. How is the service's matter; here they are bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Micros;

/// An encrypted secret. Only who has the key can read it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(pub Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// Credentials for a tenant's account at Stripe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeKey {
    /// Whose.
    pub business_id: String,
    /// Its name, unique among those of the business.
    pub key_name: String,
    /// What calls to Stripe carry.
    pub secret_key: Sealed,
    /// What Stripe signs its webhooks with.
    pub webhook_secret: Sealed,
    /// When it was made.
    pub created_at: Micros,
}

/// Where a tenant's messages go, and what they are signed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Whose.
    pub business_id: String,
    /// Where to.
    pub url: String,
    /// What they are signed with.
    pub secret: Sealed,
    /// When it was made.
    pub created_at: Micros,
    /// What was there before and signs along for a while, newest first.
    pub retired: Vec<RetiredSecret>,
}

/// A webhook secret that another has replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredSecret {
    /// It.
    pub secret: Sealed,
    /// When it stops signing.
    pub ends_at: Micros,
}
