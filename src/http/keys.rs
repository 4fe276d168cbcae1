//! Keys of a business and of its customers (API section 4): make, list, delete.
//!
//! A key is shown once, in the answer that made it; what is kept is its hash. At most two of a type are active, so that
//! one can replace the other: make the second, switch, delete the first. A deleted key answers 401 at once.
//! A key of type `stripe` is the business's credentials there: kept encrypted, shown never, opening nothing here.

use dataflows::types::{ApiKey, KeyKind, Micros, Scopes, StripeKey};
use hyper::StatusCode;

use super::auth::{lacks, no_such_customer};
use super::error::{ApiError, Title};
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::parse::key::{BUSINESS, CUSTOMER, KeyBody, NewKey, NewStripeKey, STRIPE, type_of};
use crate::admission::parse::{Fault, names};
use crate::control::{ControlError, Owner, Purpose};

/// What a customer key may do: read, and use the proxy.
const OF_CUSTOMER: Scopes = Scopes { read: true, ingest: true, manage: false };

/// `POST /api/v1/businesses/{business_id}/keys`.
pub(super) async fn create(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let mut warnings = Vec::new();
    match KeyBody::parse(&call.body, &mut warnings)? {
        KeyBody::Own(new) => make(rooms, call, KeyKind::Business, new, &warnings).await,
        KeyBody::Stripe(new) => make_stripe(rooms, call, new).await,
    }
}

/// `POST /api/v1/businesses/{business_id}/customers/{customer_id}/keys`.
pub(super) async fn create_for_customer(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (kind, mut warnings) = (of_customer(rooms, call)?, Vec::new());
    let new = NewKey::parse(&call.body, CUSTOMER, &mut warnings)?;
    make(rooms, call, kind, new, &warnings).await
}

/// 422 if the service cannot keep secrets.
async fn make_stripe(rooms: &Rooms, call: &Call<'_>, new: NewStripeKey) -> Result<Reply, ApiError> {
    let business_id: &str = &call.caller().business_id;
    let owner = |purpose| Owner { business_id, purpose, name: &new.key_name };
    let key = StripeKey {
        secret_key: rooms.vault.seal(&owner(Purpose::StripeSecretKey), &new.secret_key)?,
        webhook_secret: rooms.vault.seal(&owner(Purpose::StripeWebhookSecret), &new.webhook_secret)?,
        business_id: business_id.to_owned(),
        key_name: new.key_name,
        created_at: rooms.control.now(),
    };
    rooms.control.by(call.origin()).create_stripe_key(key.clone()).await?;
    let json = describe_stripe(Json::object().set("status", "created"), &key);
    Ok(Reply::json(StatusCode::CREATED, json))
}

async fn make(
    rooms: &Rooms,
    call: &Call<'_>,
    kind: KeyKind,
    new: NewKey,
    warnings: &[String],
) -> Result<Reply, ApiError> {
    let (caller, now) = (call.caller(), rooms.control.now());
    if new.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(Fault::unacceptable("expires_at", "expired", "expires_at must lie ahead").into());
    }
    let default = if kind == KeyKind::Business { caller.scopes } else { OF_CUSTOMER };
    let scopes = new.scopes.unwrap_or(default);
    if kind != KeyKind::Business && scopes.manage {
        return Err(Fault::unacceptable("scopes", "customer_key", "a customer key cannot manage").into());
    }
    // No key makes one that may do more or lives longer than itself.
    let more = scopes.read && !caller.scopes.read
        || scopes.ingest && !caller.scopes.ingest
        || scopes.manage && !caller.scopes.manage;
    if more {
        let detail = "a key cannot make one with scopes that it lacks";
        return Err(ApiError::new(Title::Forbidden, "insufficient_scope", detail));
    }
    let longer =
        caller.expires_at.is_some_and(|own| new.expires_at.is_none_or(|expires_at| expires_at > own));
    if longer {
        let detail = "a key cannot make one that expires after itself: give expires_at";
        return Err(ApiError::new(Title::Forbidden, "later_expiry", detail));
    }
    let described = ApiKey {
        business_id: caller.business_id.as_ref().to_owned(),
        key_name: new.key_name,
        kind,
        hash: [0; 32],
        scopes,
        expires_at: new.expires_at,
        created_at: now,
    };
    let key = rooms.control.by(call.origin()).create_key(described.clone()).await?;
    let json = Json::object().set("status", "created").set("api_key", key);
    Ok(Reply::json(StatusCode::CREATED, describe(json, &described).set("warnings", warnings)))
}

/// `GET /api/v1/businesses/{business_id}/keys`: the active ones, then those for Stripe.
pub(super) fn list(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let mut shown = active(rooms, call, &KeyKind::Business);
    let for_stripe = rooms.control.list_stripe_keys(&call.caller().business_id);
    shown.extend(for_stripe.iter().map(|key| describe_stripe(Json::object(), key)));
    Ok(listed(&shown))
}

/// `GET /api/v1/businesses/{business_id}/customers/{customer_id}/keys`: the active ones.
pub(super) fn list_of_customer(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    Ok(listed(&active(rooms, call, &of_customer(rooms, call)?)))
}

fn active(rooms: &Rooms, call: &Call<'_>, kind: &KeyKind) -> Vec<Json> {
    let keys = rooms.control.list_keys(&call.caller().business_id, kind);
    keys.iter().map(|(key, last_used_at)| listing(key, *last_used_at)).collect()
}

fn listed(shown: &[Json]) -> Reply {
    Reply::json(StatusCode::OK, Json::object().set("keys", shown).set("count", shown.len() as u64))
}

/// `GET /api/v1/businesses/{business_id}/keys/{key_type}/{key_name}`.
pub(super) fn read(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let business_id = &call.caller().business_id;
    let found = match named(call)? {
        Named::Own(name) => {
            let mut keys = rooms.control.list_keys(business_id, &KeyKind::Business).into_iter();
            keys.find(|(key, _)| key.key_name == name).map(|(key, used_at)| listing(&key, used_at))
        }
        Named::Stripe(name) => {
            let key = rooms.control.stripe_key(business_id, &name);
            key.map(|key| describe_stripe(Json::object(), &key))
        }
    };
    Ok(Reply::json(StatusCode::OK, found.ok_or(ControlError::NoSuchKey)?))
}

/// `DELETE /api/v1/businesses/{business_id}/keys/{key_type}/{key_name}`. A key may delete itself.
pub(super) async fn delete(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (caller, named) = (call.caller(), named(call)?);
    let is_itself = matches!(&named, Named::Own(name) if *caller.key_name == **name);
    if !caller.scopes.manage && !is_itself {
        return Err(lacks("manage"));
    }
    match named {
        Named::Own(name) => end(rooms, call, KeyKind::Business, &name).await,
        Named::Stripe(name) => {
            rooms.control.by(call.origin()).delete_stripe_key(&caller.business_id, &name).await?;
            Ok(ended(STRIPE, &name))
        }
    }
}

/// `DELETE /api/v1/businesses/{business_id}/customers/{customer_id}/keys/{key_name}`.
pub(super) async fn delete_of_customer(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let kind = of_customer(rooms, call)?;
    end(rooms, call, kind, &names::id("key_name", call.parameter(2))?).await
}

async fn end(rooms: &Rooms, call: &Call<'_>, kind: KeyKind, key_name: &str) -> Result<Reply, ApiError> {
    let key_type = type_of(&kind);
    rooms.control.by(call.origin()).delete_key(&call.caller().business_id, kind, key_name).await?;
    Ok(ended(key_type, key_name))
}

fn ended(key_type: &str, key_name: &str) -> Reply {
    let json = Json::object().set("status", "deleted").set("key_name", key_name).set("key_type", key_type);
    Reply::json(StatusCode::OK, json)
}

/// A key that a path names by type and name.
enum Named {
    /// One of this service, of the business.
    Own(String),
    /// Credentials for Stripe.
    Stripe(String),
}

fn named(call: &Call<'_>) -> Result<Named, ApiError> {
    let key_name = names::id("key_name", call.parameter(2));
    match call.parameter(1) {
        BUSINESS => Ok(Named::Own(key_name?)),
        STRIPE => Ok(Named::Stripe(key_name?)),
        _ => {
            let detail = "key_type is not one of the valid options";
            let fault = Fault::malformed("key_type", "invalid_option", detail);
            Err(fault.with_valid([BUSINESS, STRIPE]).into())
        }
    }
}

/// The kind of the keys of the customer in the path.
fn of_customer(rooms: &Rooms, call: &Call<'_>) -> Result<KeyKind, ApiError> {
    let customer_id = names::id("customer_id", call.parameter(1))?;
    let exists = rooms.control.customer_exists(&call.caller().business_id, &customer_id);
    if exists { Ok(KeyKind::Customer { customer_id }) } else { Err(no_such_customer()) }
}

/// `last_used_at` is kept by snapshots: a crash may forget the last minutes of it.
fn listing(key: &ApiKey, last_used_at: Option<Micros>) -> Json {
    describe(Json::object(), key).set("last_used_at", last_used_at)
}

fn describe(into: Json, key: &ApiKey) -> Json {
    let scopes = [("read", key.scopes.read), ("ingest", key.scopes.ingest), ("manage", key.scopes.manage)];
    let scopes: Vec<_> = scopes.into_iter().filter(|(_, held)| *held).map(|(word, _)| word).collect();
    let customer_id = match &key.kind {
        KeyKind::Business => None,
        KeyKind::Customer { customer_id } => Some(customer_id.as_str()),
    };
    into.set("business_id", &key.business_id)
        .set_some("customer_id", customer_id)
        .set("key_name", &key.key_name)
        .set("key_type", type_of(&key.kind))
        .set("scopes", &scopes[..])
        .set("expires_at", key.expires_at)
        .set("created_at", key.created_at)
}

/// What may be seen of credentials: not them.
fn describe_stripe(into: Json, key: &StripeKey) -> Json {
    into.set("business_id", &key.business_id)
        .set("key_name", &key.key_name)
        .set("key_type", STRIPE)
        .set("created_at", key.created_at)
}
