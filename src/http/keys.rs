//! Keys of a business and of its customers (API section 4): make, list, delete.
//!
//! A key is shown once, in the answer that made it; what is kept is its hash. At most two of a type are active, so that
//! one can replace the other: make the second, switch, delete the first. A deleted key answers 401 at once.

use dataflows::types::{ApiKey, KeyKind, Micros, Scopes};
use hyper::StatusCode;

use super::auth::{lacks, no_such_customer};
use super::error::{ApiError, Title};
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::parse::key::{BUSINESS, CUSTOMER, NewKey};
use crate::admission::parse::{Fault, names};
use crate::control::ControlError;

/// What a customer key may do: read, and use the proxy.
const OF_CUSTOMER: Scopes = Scopes { read: true, ingest: true, manage: false };

/// `POST /api/v1/businesses/{business_id}/keys`.
pub(super) async fn create(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    make(rooms, call, KeyKind::Business).await
}

/// `POST /api/v1/businesses/{business_id}/customers/{customer_id}/keys`.
pub(super) async fn create_for_customer(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    make(rooms, call, of_customer(rooms, call)?).await
}

async fn make(rooms: &Rooms, call: &Call<'_>, kind: KeyKind) -> Result<Reply, ApiError> {
    let (caller, mut warnings) = (call.caller(), Vec::new());
    let new = NewKey::parse(&call.body, type_of(&kind), &mut warnings)?;
    let now = rooms.control.now();
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
    let key = rooms.control.create_key(described.clone()).await?;
    let json = Json::object().set("status", "created").set("api_key", key);
    Ok(Reply::json(StatusCode::CREATED, describe(json, &described).set("warnings", &warnings[..])))
}

/// `GET /api/v1/businesses/{business_id}/keys`: the active ones.
pub(super) fn list(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    Ok(listed(rooms, call, &KeyKind::Business))
}

/// `GET /api/v1/businesses/{business_id}/customers/{customer_id}/keys`: the active ones.
pub(super) fn list_of_customer(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    Ok(listed(rooms, call, &of_customer(rooms, call)?))
}

fn listed(rooms: &Rooms, call: &Call<'_>, kind: &KeyKind) -> Reply {
    let keys = rooms.control.list_keys(&call.caller().business_id, kind);
    let shown: Vec<_> = keys.iter().map(|(key, last_used_at)| listing(key, *last_used_at)).collect();
    Reply::json(StatusCode::OK, Json::object().set("keys", &shown[..]).set("count", shown.len() as u64))
}

/// `GET /api/v1/businesses/{business_id}/keys/{key_type}/{key_name}`.
pub(super) fn read(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let key_name = business_key(call)?;
    let mut keys = rooms.control.list_keys(&call.caller().business_id, &KeyKind::Business).into_iter();
    let (key, last_used_at) =
        keys.find(|(key, _)| key.key_name == key_name).ok_or(ControlError::NoSuchKey)?;
    Ok(Reply::json(StatusCode::OK, listing(&key, last_used_at)))
}

/// `DELETE /api/v1/businesses/{business_id}/keys/{key_type}/{key_name}`. A key may delete itself.
pub(super) async fn delete(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (caller, key_name) = (call.caller(), business_key(call)?);
    if !caller.scopes.manage && *caller.key_name != *key_name {
        return Err(lacks("manage"));
    }
    end(rooms, call, KeyKind::Business, &key_name).await
}

/// `DELETE /api/v1/businesses/{business_id}/customers/{customer_id}/keys/{key_name}`.
pub(super) async fn delete_of_customer(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let kind = of_customer(rooms, call)?;
    end(rooms, call, kind, &names::id("key_name", parameter(call, 2))?).await
}

async fn end(rooms: &Rooms, call: &Call<'_>, kind: KeyKind, key_name: &str) -> Result<Reply, ApiError> {
    let key_type = type_of(&kind);
    rooms.control.delete_key(&call.caller().business_id, kind, key_name).await?;
    let json = Json::object().set("status", "deleted").set("key_name", key_name).set("key_type", key_type);
    Ok(Reply::json(StatusCode::OK, json))
}

fn parameter<'a>(call: &'a Call<'_>, at: usize) -> &'a str {
    call.parameters.get(at).expect("the patterns of these routes have so many parameters")
}

/// The name in a path that must speak of a business key.
fn business_key(call: &Call<'_>) -> Result<String, ApiError> {
    if parameter(call, 1) != BUSINESS {
        let fault =
            Fault::malformed("key_type", "invalid_option", "key_type is not one of the valid options");
        return Err(fault.with_valid([BUSINESS]).into());
    }
    Ok(names::id("key_name", parameter(call, 2))?)
}

/// The kind of the keys of the customer in the path.
fn of_customer(rooms: &Rooms, call: &Call<'_>) -> Result<KeyKind, ApiError> {
    let customer_id = names::id("customer_id", parameter(call, 1))?;
    let exists = rooms.control.customer_exists(&call.caller().business_id, &customer_id);
    if exists { Ok(KeyKind::Customer { customer_id }) } else { Err(no_such_customer()) }
}

fn type_of(kind: &KeyKind) -> &'static str {
    match kind {
        KeyKind::Business => BUSINESS,
        KeyKind::Customer { .. } => CUSTOMER,
    }
}

/// `last_used_at` is since the start of the process.
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
