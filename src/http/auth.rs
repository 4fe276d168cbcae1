//! Who is calling, and what for: from headers to a principal, from a query to the name of a series.
//!
//! | caller | may |
//! |---|---|
//! | business key | what its scopes allow, for its business and that business's customers |
//! | admin key | routes with `Access::Admin`, and with `Access::Tenant(_)` for any business |
//! | customer key | routes with `Access::Key { customer_keys: true, .. }`, for its own customer only |
//!
//! What belongs to somebody else answers exactly as what is absent: 404.

use dataflows::types::{Scope, Scopes, SeriesKey};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};

use super::error::{ApiError, Title};
use super::query::Query;
use crate::admission::parse::names::SCOPES;
use crate::admission::parse::{Fault, names};
use crate::control::{Control, ControlError, Principal};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Open,
    /// That the body is signed: the endpoint sees to it, before it believes anything.
    Signed,
    /// `Authorization: Bearer` with a key that has the scope.
    Key {
        /// The scope.
        scope: KeyScope,
        /// Whether a customer key will do.
        customer_keys: bool,
    },
    /// `X-Admin-Key`.
    Admin,
    /// `X-Admin-Key`, or a business key with the scope that belongs to the business that the path begins with.
    Tenant(KeyScope),
}

const X_ADMIN_KEY: HeaderName = HeaderName::from_static("x-admin-key");

/// A scope of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyScope {
    /// GET and check.
    Read,
    /// Updates.
    Ingest,
    /// The rest.
    Manage,
    /// None in particular: the endpoint looks at what the caller may do.
    Any,
}

impl KeyScope {
    /// What the API calls it; empty for none in particular.
    pub fn name(self) -> &'static str {
        match self {
            KeyScope::Read => "read",
            KeyScope::Ingest => "ingest",
            KeyScope::Manage => "manage",
            KeyScope::Any => "",
        }
    }

    fn is_held_by(self, scopes: Scopes) -> bool {
        match self {
            KeyScope::Read => scopes.read,
            KeyScope::Ingest => scopes.ingest,
            KeyScope::Manage => scopes.manage,
            KeyScope::Any => true,
        }
    }
}

/// The caller of a route that asks for a key. 401 without a valid one, 403 with the wrong kind.
pub fn authorize(
    control: &Control,
    headers: &HeaderMap,
    scope: KeyScope,
    customer_keys: bool,
) -> Result<Principal, ApiError> {
    let key = bearer(headers).ok_or_else(|| {
        ApiError::unauthorized("the request needs a header Authorization: Bearer with a key")
    })?;
    let principal =
        control.authenticate(key).ok_or_else(|| ApiError::unauthorized("the key is not valid"))?;
    if principal.customer_id.is_some() && !customer_keys {
        let detail = "a customer key cannot do this; use a business key";
        return Err(ApiError::new(Title::Forbidden, "customer_key", detail));
    }
    if scope.is_held_by(principal.scopes) { Ok(principal) } else { Err(lacks(scope.name())) }
}

/// 403 for a key without the scope.
pub fn lacks(scope: &str) -> ApiError {
    ApiError::new(Title::Forbidden, "insufficient_scope", format!("the key lacks the scope {scope}"))
}

/// 401 without the admin key.
pub fn authorize_admin(control: &Control, headers: &HeaderMap) -> Result<(), ApiError> {
    let key = headers
        .get(X_ADMIN_KEY)
        .ok_or_else(|| ApiError::unauthorized("the request needs a header X-Admin-Key with the admin key"))?;
    let is_admin = key.to_str().is_ok_and(|key| control.is_admin(key));
    if is_admin { Ok(()) } else { Err(ApiError::unauthorized("the admin key is not valid")) }
}

/// The caller of a route of one business, acting for it. A foreign business answers as an absent one.
pub fn authorize_tenant(
    control: &Control,
    headers: &HeaderMap,
    scope: KeyScope,
    business_id: &str,
) -> Result<Principal, ApiError> {
    let absent = || ApiError::from(ControlError::NoSuchBusiness);
    if headers.contains_key(X_ADMIN_KEY) {
        authorize_admin(control, headers)?;
        let exists = control.business(business_id).is_some();
        return if exists { Ok(Principal::admin(business_id)) } else { Err(absent()) };
    }
    let principal = authorize(control, headers, scope, false)?;
    if *principal.business_id == *business_id { Ok(principal) } else { Err(absent()) }
}

/// The credential of `Authorization: Bearer`; the scheme in any case.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Whom a request is about: the customer, or none for the business. `scope` defaults to `business`.
pub fn subject(principal: &Principal, query: &Query) -> Result<Option<String>, ApiError> {
    let scope = query.choice("scope", &SCOPES)?.unwrap_or(Scope::Business);
    let customer_id = customer(principal, query, scope == Scope::Customer)?;
    if scope == Scope::Customer && customer_id.is_none() {
        let detail = "customer_id is required with scope=customer";
        return Err(Fault::malformed("customer_id", "missing_field", detail).into());
    }
    if customer_id.is_none() && principal.customer_id.is_some() {
        let detail = "a customer key reads only its own customer: use scope=customer";
        return Err(ApiError::new(Title::Forbidden, "customer_key", detail));
    }
    Ok(customer_id)
}

/// `customer_id` of a query, which goes only with `scope=customer`. 404 if it is not the caller's own.
pub fn customer(principal: &Principal, query: &Query, in_scope: bool) -> Result<Option<String>, ApiError> {
    let Some(customer_id) = query.get("customer_id") else { return Ok(None) };
    if !in_scope {
        let detail = "customer_id goes only with scope=customer";
        return Err(Fault::malformed("customer_id", "invalid_combination", detail).into());
    }
    let customer_id = names::id("customer_id", customer_id)?;
    match &principal.customer_id {
        Some(own) if **own != *customer_id => Err(no_such_customer()),
        _ => Ok(Some(customer_id)),
    }
}

/// The series that a path and a query name.
pub fn series_key(principal: &Principal, query: &Query, metric_name: &str) -> Result<SeriesKey, ApiError> {
    Ok(SeriesKey {
        business_id: principal.business_id.as_ref().to_owned(),
        customer_id: subject(principal, query)?,
        metric_name: names::metric_name("metric_name", metric_name)?,
    })
}

/// 404 for a series: it says which of the two is missing.
pub fn absent(control: &Control, key: &SeriesKey) -> ApiError {
    match &key.customer_id {
        Some(customer_id) if !control.customer_exists(&key.business_id, customer_id) => no_such_customer(),
        _ => ApiError::not_found("metric_not_found", "there is no such metric"),
    }
}

/// 404 for a customer that is absent or somebody else's.
pub fn no_such_customer() -> ApiError {
    ApiError::not_found("customer_not_found", "there is no such customer")
}
