//! Where a business's messages go, and what they are signed with (API section 4).
//!
//! The secret is shown in the answer that made it and nowhere else. Each PUT makes a new one; the one before signs along for
//! 24 hours, so that a receiver can change over.

use hyper::StatusCode;

use super::error::ApiError;
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::parse::webhook;
use crate::control::{ControlError, Owner, Purpose, new_webhook_secret};

/// `PUT /api/v1/businesses/{business_id}/webhook`. 422 if the service cannot keep secrets.
pub(super) async fn put(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let url = webhook::parse(&call.body)?;
    let business_id: &str = &call.caller().business_id;
    let secret = new_webhook_secret().map_err(|_| ControlError::NoRandomness)?;
    let owner = Owner { business_id, purpose: Purpose::WebhookSecret, name: "" };
    let sealed = rooms.vault.seal(&owner, &secret)?;
    let webhook = rooms.control.by(call.origin()).put_webhook(business_id, url.clone(), sealed).await?;
    let json = Json::object()
        .set("status", "updated")
        .set("business_id", business_id)
        .set("url", url)
        .set("secret", &secret.0)
        .set("previous_secret_ends_at", webhook.retired.first().map(|retired| retired.ends_at));
    Ok(Reply::json(StatusCode::OK, json))
}
