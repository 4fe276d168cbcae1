//! Who changed what is defined: an entry lies in the epoch of the definitions that it is about, behind them.

use serde::{Deserialize, Serialize};

use super::{KeyKind, Micros};

/// One change, told without the values that it set: one of them could be a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it was decided.
    pub at: Micros,
    /// By whom.
    pub actor: Actor,
    /// What was done: a thing and a verb, such as `series.create`.
    pub action: String,
    /// The tenant whose definitions changed.
    pub business_id: String,
    /// The name of the thing within the tenant.
    pub subject: String,
    /// The request, if it was one.
    pub request_id: Option<String>,
}

/// Who makes a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// The service itself, at a start.
    Server,
    /// Who holds the admin key.
    Admin,
    /// Who holds a key of the tenant.
    Key {
        /// Whom the key acts for.
        kind: KeyKind,
        /// Its name.
        key_name: String,
    },
    /// An event that Stripe has signed.
    Stripe,
}
