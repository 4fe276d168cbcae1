//! `POST .../keys`: what a new key shall be.

use dataflows::types::{Micros, Scopes};

use super::object::{Object, Schema};
use super::{Fault, names};

/// The fields of a body. `credentials` are those of other services; keys of this one have none.
pub const BODY: Schema =
    Schema { path: "", known: &["key_type", "key_name", "expires_at", "scopes"], ignored: &["credentials"] };

/// `key_type` of a key that acts for the business.
pub const BUSINESS: &str = "business";
/// `key_type` of a key that acts for one customer.
pub const CUSTOMER: &str = "customer_api";

/// What a key may be allowed.
pub const SCOPES: [&str; 3] = ["read", "ingest", "manage"];

/// A key as a client asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// `key_name`.
    pub key_name: String,
    /// `expires_at`; none is never.
    pub expires_at: Option<Micros>,
    /// `scopes`; none is what the type has by default.
    pub scopes: Option<Scopes>,
}

impl NewKey {
    /// Reads a body that must ask for this type.
    pub fn parse(body: &[u8], key_type: &'static str, warnings: &mut Vec<String>) -> Result<Self, Fault> {
        let object = Object::body(body, &BODY, warnings)?;
        object.required("key_type")?.choice([(key_type, ())])?;
        Ok(NewKey {
            key_name: object.required("key_name")?.named(names::id)?,
            expires_at: object.some("expires_at").map(|value| value.named(names::moment)).transpose()?,
            scopes: object
                .some("scopes")
                .map(|value| scopes(value.shaped("a list of scopes")?))
                .transpose()?,
        })
    }
}

fn scopes(words: Vec<String>) -> Result<Scopes, Fault> {
    let mut scopes = Scopes { read: false, ingest: false, manage: false };
    for word in &words {
        match word.as_str() {
            "read" => scopes.read = true,
            "ingest" => scopes.ingest = true,
            "manage" => scopes.manage = true,
            _ => return Err(wrong_scopes("there is no such scope")),
        }
    }
    if words.is_empty() { Err(wrong_scopes("a key needs at least one scope")) } else { Ok(scopes) }
}

fn wrong_scopes(detail: &str) -> Fault {
    Fault::malformed("scopes", "invalid_option", detail).with_valid(SCOPES)
}
