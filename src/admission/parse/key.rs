//! `POST .../keys`: what a new key shall be. Keys of this service are made here and have no credentials; what is called
//! a key of type `stripe` are a tenant's credentials there.

use dataflows::types::{KeyKind, Micros, Scopes};

use super::object::{Object, Schema, Value};
use super::{Fault, names};
use crate::control::Plaintext;

/// The fields of a body that asks for a key of this service. `credentials` are those of other services.
pub const OWN: Schema =
    Schema { path: "", known: &["key_type", "key_name", "expires_at", "scopes"], ignored: &["credentials"] };
const ANY: Schema = Schema {
    path: "",
    known: &["key_type", "key_name", "expires_at", "scopes", "credentials"],
    ignored: &[],
};
/// The fields of a body that asks for credentials for Stripe.
pub const STRIPES: Schema =
    Schema { path: "", known: &["key_type", "key_name", "credentials"], ignored: &[] };
/// The fields of those credentials.
pub const CREDENTIALS: Schema =
    Schema { path: "credentials", known: &["secret_key", "webhook_secret"], ignored: &[] };

/// `key_type` of a key that acts for the business.
pub const BUSINESS: &str = "business";
/// `key_type` of a key that acts for one customer.
pub const CUSTOMER: &str = "customer_api";
/// `key_type` of a business's credentials for Stripe.
pub const STRIPE: &str = "stripe";

/// `key_type` of a key of this service.
pub fn type_of(kind: &KeyKind) -> &'static str {
    match kind {
        KeyKind::Business => BUSINESS,
        KeyKind::Customer { .. } => CUSTOMER,
    }
}

/// What a body that may ask for a key of a business asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyBody {
    /// A key of this service.
    Own(NewKey),
    /// Credentials for Stripe.
    Stripe(NewStripeKey),
}

/// Credentials as a client gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewStripeKey {
    /// `key_name`.
    pub key_name: String,
    /// `credentials.secret_key`.
    pub secret_key: Plaintext,
    /// `credentials.webhook_secret`.
    pub webhook_secret: Plaintext,
}

impl KeyBody {
    /// Reads a body.
    pub fn parse(body: &[u8], warnings: &mut Vec<String>) -> Result<Self, Fault> {
        let object = Object::body(body, &ANY, &mut Vec::new())?;
        match object.required("key_type")?.choice([(BUSINESS, false), (STRIPE, true)])? {
            false => NewKey::parse(body, BUSINESS, warnings).map(KeyBody::Own),
            true => NewStripeKey::parse(body).map(KeyBody::Stripe),
        }
    }
}

impl NewStripeKey {
    fn parse(body: &[u8]) -> Result<Self, Fault> {
        // The schemas ignore nothing, so nothing can be warned of.
        let object = Object::body(body, &STRIPES, &mut Vec::new())?;
        let key_name = object.required("key_name")?.named(names::id)?;
        let credentials = object.required("credentials")?.object(&CREDENTIALS, &mut Vec::new())?;
        let secret_key = credentials.required("secret_key")?;
        let webhook_secret = credentials.required("webhook_secret")?;
        Ok(NewStripeKey {
            key_name,
            secret_key: of_stripe(
                secret_key,
                &["sk_", "rk_"],
                "a secret or restricted key begins with sk_ or rk_",
            )?,
            webhook_secret: of_stripe(webhook_secret, &["whsec_"], "a signing secret begins with whsec_")?,
        })
    }
}

/// A secret that begins as those of its kind do. What it is must not show in any fault.
fn of_stripe(value: Value<'_>, prefixes: &[&str], kinds: &str) -> Result<Plaintext, Fault> {
    let text = value.named(names::secret)?;
    if prefixes.iter().any(|prefix| text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty())) {
        return Ok(Plaintext(text));
    }
    let detail = format!("{} is of another kind: {kinds}", value.field());
    Err(Fault::unacceptable(value.field(), "wrong_kind", detail))
}

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
        let object = Object::body(body, &OWN, warnings)?;
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
