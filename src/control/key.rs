//! Keys, and whom they act for. A key is 256 random bits behind a prefix. Only its BLAKE3 hash is kept: high entropy needs
//! a fast hash, not a slow one.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use dataflows::types::{Actor, ApiKey, KeyKind, Micros, Scopes};

use super::vault::Plaintext;

/// How keys that act for a business begin.
pub const BUSINESS_PREFIX: &str = "tk_live_";
/// How keys that act for one customer begin.
pub const CUSTOMER_PREFIX: &str = "tk_cust_";

/// A new `business_id`: 64 random bits, which is no secret. An error if the machine has no randomness.
pub fn new_business_id() -> std::io::Result<String> {
    new_id("biz_")
}

/// A new id of a plan: `plan_` and 16 hexadecimal digits. An error if the machine has no randomness; the same below.
pub fn new_plan_id() -> std::io::Result<String> {
    new_id("plan_")
}

/// A new id of a plan limit: `lim_` and 16 hexadecimal digits.
pub fn new_limit_id() -> std::io::Result<String> {
    new_id("lim_")
}

fn new_id(prefix: &str) -> std::io::Result<String> {
    let random = getrandom::u64().map_err(std::io::Error::other)?;
    Ok(format!("{prefix}{random:016x}"))
}

/// A new key: the prefix and 64 hexadecimal digits. An error if the machine has no randomness.
pub fn new_key(prefix: &str) -> std::io::Result<String> {
    let mut random = [0u8; 32];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let mut key = prefix.to_owned();
    for byte in random {
        write!(key, "{byte:02x}").expect("writing to a string cannot fail");
    }
    Ok(key)
}

/// A new secret for signatures of webhooks, in the notation of Standard Webhooks (<https://www.standardwebhooks.com>):
/// `whsec_` and 32 random bytes in base64. An error if the machine has no randomness.
pub fn new_webhook_secret() -> std::io::Result<Plaintext> {
    let mut random = [0u8; 32];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    Ok(Plaintext(format!("whsec_{}", BASE64.encode(random))))
}

/// What is kept of a key.
pub fn hash_key(key: &str) -> [u8; 32] {
    *blake3::hash(key.as_bytes()).as_bytes()
}

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The tenant.
    pub business_id: Arc<str>,
    /// The customer that the key is bound to; none for a business key.
    pub customer_id: Option<Arc<str>>,
    /// What the key may do.
    pub scopes: Scopes,
    /// The key's name.
    pub key_name: Arc<str>,
    /// When the key stops working.
    pub expires_at: Option<Micros>,
    /// Whether it is the admin key, acting for the business.
    pub is_admin: bool,
}

impl Principal {
    /// Who holds the admin key, acting for a business.
    pub fn admin(business_id: &str) -> Principal {
        Principal {
            business_id: business_id.into(),
            customer_id: None,
            scopes: Scopes::ALL,
            key_name: "admin".into(),
            expires_at: None,
            is_admin: true,
        }
    }

    /// Who the audit log says it was.
    pub fn actor(&self) -> Actor {
        if self.is_admin {
            return Actor::Admin;
        }
        let kind = match &self.customer_id {
            None => KeyKind::Business,
            Some(customer_id) => KeyKind::Customer { customer_id: customer_id.as_ref().to_owned() },
        };
        Actor::Key { kind, key_name: self.key_name.as_ref().to_owned() }
    }
}

/// Whether a key works. The clock is asked only if it matters.
pub fn is_active(key: &ApiKey, now: impl Fn() -> Micros) -> bool {
    key.expires_at.is_none_or(|expires_at| now() < expires_at)
}

/// A key as the registry holds it.
pub(super) struct Credential {
    pub key: ApiKey,
    principal: Principal,
    /// When it was last used; `NEVER_USED` before that. No definition, hence not in the journal: a snapshot keeps it.
    last_used_at: AtomicI64,
}

const NEVER_USED: i64 = i64::MIN;

impl Credential {
    /// A key that has not been used.
    pub fn new(key: ApiKey) -> Credential {
        let principal = Principal {
            business_id: key.business_id.as_str().into(),
            customer_id: match &key.kind {
                KeyKind::Business => None,
                KeyKind::Customer { customer_id } => Some(customer_id.as_str().into()),
            },
            scopes: key.scopes,
            key_name: key.key_name.as_str().into(),
            expires_at: key.expires_at,
            is_admin: false,
        };
        Credential { key, principal, last_used_at: AtomicI64::new(NEVER_USED) }
    }

    /// Whom it acts for; none once it has expired. The comparison is constant time.
    pub fn principal(
        &self,
        hash: &[u8; 32],
        used_at: Micros,
        now: impl Fn() -> Micros,
    ) -> Option<&Principal> {
        let is_it: bool = subtle::ConstantTimeEq::ct_eq(&self.key.hash[..], &hash[..]).into();
        if !is_it || !is_active(&self.key, now) {
            return None;
        }
        self.last_used_at.store(used_at.0, Ordering::Relaxed);
        Some(&self.principal)
    }

    /// It was used then, if not later.
    pub fn used(&self, at: Micros) {
        self.last_used_at.fetch_max(at.0, Ordering::Relaxed);
    }

    /// When it was last used.
    pub fn last_used_at(&self) -> Option<Micros> {
        let at = self.last_used_at.load(Ordering::Relaxed);
        (at != NEVER_USED).then_some(Micros(at))
    }
}
