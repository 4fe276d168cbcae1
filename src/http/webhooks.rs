//! Where a business's messages go, and what they are signed with (API section 4).
//!
//! The secret is shown in the answer that made it and nowhere else. Each PUT makes a new one; the one before signs along for
//! 24 hours, so that a receiver can change over. Messages that were given up are listed for the admin, who may have them
//! tried again. A cursor is the id of the last one shown.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::StatusCode;
use serde::Deserialize;

use super::error::{ApiError, Outcome};
use super::query::{LIMIT_DEFAULT, LIMIT_MAX};
use super::reply::{Json, Raw, Reply};
use super::{Call, Rooms};
use crate::admission::parse::names::rfc3339;
use crate::admission::parse::{Fault, names, webhook};
use crate::control::{ControlError, Owner, Purpose, new_webhook_secret};
use crate::store::{DeadMessage, Outbox, StoreError};

/// Messages that have not arrived: an outbox for who asks, and who must hear of a retry.
pub struct Undelivered {
    /// Taken at the end only.
    outbox: Mutex<Option<Box<dyn Outbox>>>,
    retried: Box<dyn Fn() + Send + Sync>,
}

impl Undelivered {
    /// `retried` is called behind every retry; it must not block.
    pub fn new(outbox: Box<dyn Outbox>, retried: impl Fn() + Send + Sync + 'static) -> Undelivered {
        Undelivered { outbox: Mutex::new(Some(outbox)), retried: Box::new(retried) }
    }
}

impl Drop for Undelivered {
    /// An outbox must not end on a thread of an async runtime.
    fn drop(&mut self) {
        let outbox = self.outbox.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        std::thread::spawn(move || drop(outbox));
    }
}

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

/// `GET /admin/v1/webhooks/failed`: messages that were given up, by their ids.
pub(super) async fn failed(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let limit = call.query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = call.query.get("cursor").map(cursor).transpose()?;
    // One more than wanted tells whether there is another page.
    let read = move |outbox: &mut dyn Outbox| outbox.dead(after.as_deref(), limit + 1);
    let mut dead = of_outbox(&rooms.undelivered, read).await?;
    let more = dead.len() > limit;
    dead.truncate(limit);
    let next_cursor = dead.last().filter(|_| more).map(|dead| dead.message.id.clone());
    let shown: Vec<_> = dead.iter().map(show).collect();
    let json = Json::object()
        .set("failed", &shown[..])
        .set("count", shown.len() as u64)
        .set("next_cursor", next_cursor);
    Ok(Reply::json(StatusCode::OK, json))
}

/// `POST /admin/v1/webhooks/retry/{event_id}`. 404 unless it was given up.
pub(super) async fn retry(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (event_id, now) = (call.parameter(0).to_owned(), rooms.admission.now());
    let absent = || ApiError::not_found("event_not_found", "there is no failed message of that id");
    let id = names::id("event_id", &event_id).map_err(|_| absent())?;
    if !of_outbox(&rooms.undelivered, move |outbox| outbox.retry(&id, now)).await? {
        return Err(absent());
    }
    (rooms.undelivered.retried)();
    Ok(Reply::json(StatusCode::OK, Json::object().set("status", "retrying").set("event_id", event_id)))
}

/// What the outbox says. 503 if the store does not answer.
async fn of_outbox<T: Send + 'static>(
    undelivered: &Arc<Undelivered>,
    ask: impl FnOnce(&mut dyn Outbox) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let undelivered = undelivered.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let mut outbox = undelivered.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.as_mut().map(|outbox| ask(&mut **outbox))
    });
    let stopped = || ApiError::internal("store_failed", "the store cannot be read", Outcome::Rejected);
    Ok(asked.await.ok().flatten().ok_or_else(stopped)??)
}

/// A cursor that is an id.
pub(super) fn cursor(text: &str) -> Result<String, Fault> {
    names::id("cursor", text).map_err(|_| {
        Fault::malformed("cursor", "invalid_cursor", "the cursor is not one that this service gave")
    })
}

fn show(DeadMessage { message, last_error }: &DeadMessage) -> Json {
    #[derive(Deserialize)]
    struct Payload {
        r#type: String,
        timestamp: String,
    }
    let payload: Option<Payload> = serde_json::from_str(&message.body).ok();
    let (kind, made_at) = payload.map(|payload| (payload.r#type, payload.timestamp)).unzip();
    Json::object()
        .set("event_id", &message.id)
        .set("business_id", &message.business_id)
        .set("url", &message.url)
        .set_some("type", kind)
        .set("attempts", u64::from(message.attempts))
        .set("created_at", made_at.unwrap_or_else(|| rfc3339(message.created_at)))
        .set("last_error", last_error)
        .set("payload", Raw(&message.body))
}
