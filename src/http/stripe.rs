//! What Stripe tells us (API section 6): `POST /api/v1/webhooks/stripe/{business_id}`, and the list of what was told.
//!
//! ```text
//! size ─▶ signature ─▶ tolerance ─▶ parse ─▶ livemode ─▶ control: decide, journal, fsync ─▶ 200 {received, applied, reason}
//!   413        400         400        400       200                    500, 503: Stripe tries again for three days
//! ```
//! Who may call is whoever has the business's webhook secret: one secret of the credentials is enough. A business that is not
//! there answers as a bad signature does. What we do not read is answered and counted, and nothing of it is kept.

use dataflows::types::{Actor, Micros, StripeEvent, Subscription, SubscriptionItem, SubscriptionStanding};
use hyper::StatusCode;

use super::error::{ApiError, Title};
use super::query::{LIMIT_DEFAULT, LIMIT_MAX};
use super::reply::{Json, Reply};
use super::webhooks::cursor;
use super::{Call, Rooms, Signals};
use crate::admission::parse::Fault;
use crate::control::{BillingInvoice, Concerns, Origin, Owner, Purpose, StripeChange, StripeWhat, Takes};
use crate::stripe::{self, Event, Invoice, MeterErrors, Reason, Status, What};

/// `POST /api/v1/webhooks/stripe/{business_id}`.
pub(super) async fn receive(
    rooms: &Rooms,
    signals: &dyn Signals,
    call: &Call<'_>,
) -> Result<Reply, ApiError> {
    let business_id = call.parameter(0);
    let Some(livemode) = signed_by(rooms, business_id, call)? else {
        signals.stripe_event("bad_signature");
        return Err(bad_signature());
    };
    let event = Event::read(&call.body).map_err(|error| {
        signals.stripe_event("malformed");
        ApiError::from(Fault::malformed(error.field, "malformed_event", error.problem))
    })?;
    if livemode.is_some_and(|livemode| livemode != event.livemode) {
        return Ok(ignored(signals, "other_livemode", "the event's livemode is not that of the credentials"));
    }
    let (Event { id, kind, created_at, .. }, what) = (event.clone(), event.what);
    let Some(what) = what_of(business_id, created_at, what) else {
        return Ok(ignored(signals, "unknown_type", "events of this type change nothing here"));
    };
    let event = StripeEvent {
        business_id: business_id.to_owned(),
        event_id: id,
        event_type: kind,
        created_at,
        received_at: created_at,
        applied: false,
        reason: String::new(),
    };
    let origin = Origin { actor: Actor::Stripe, request_id: Some(call.request_id.to_owned()) };
    let (event, is_new) = rooms.control.by(origin).stripe(StripeChange { event, what }).await?;
    let Some(event) = event.filter(|_| is_new) else {
        return Ok(ignored(signals, "duplicate", "the event was read before"));
    };
    signals.stripe_event(if event.applied { "applied" } else { "not_applied" });
    Ok(answer(event.applied, &event.reason))
}

/// `GET /api/v1/stripe/events`: those of the last 30 days, newest first. A cursor is the id of the last one shown.
pub(super) fn list(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let limit = call.query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = call.query.get("cursor").map(cursor).transpose()?;
    let registry = rooms.control.registry();
    let business_id = &call.caller().business_id;
    // One more than wanted tells whether there is another page.
    let mut events = registry.stripe_events().list(business_id, after.as_deref(), limit + 1);
    let more = events.len() > limit;
    events.truncate(limit);
    let next_cursor = events.last().filter(|_| more).map(|event| event.event_id.clone());
    let shown: Vec<_> = events.iter().map(show).collect();
    let json = Json::object()
        .set("events", &shown[..])
        .set("count", shown.len() as u64)
        .set("next_cursor", next_cursor);
    Ok(Reply::json(StatusCode::OK, json))
}

fn show(event: &StripeEvent) -> Json {
    Json::object()
        .set("event_id", &event.event_id)
        .set("event_type", &event.event_type)
        .set("created_at", event.created_at)
        .set("received_at", event.received_at)
        .set("applied", event.applied)
        .set("reason", &event.reason)
}

fn answer(applied: bool, reason: &str) -> Reply {
    let json = Json::object().set("received", true).set("applied", applied);
    let json = if reason.is_empty() { json } else { json.set("reason", reason) };
    Reply::json(StatusCode::OK, json)
}

fn ignored(signals: &dyn Signals, outcome: &'static str, reason: &str) -> Reply {
    signals.stripe_event(outcome);
    answer(false, reason)
}

fn bad_signature() -> ApiError {
    let detail = "Stripe-Signature is missing, old, or not by a webhook secret of the business";
    ApiError::new(Title::BadRequest, "bad_signature", detail)
}

/// The livemode of the credentials whose secret has signed the body, if they tell it; none if nobody has.
fn signed_by(rooms: &Rooms, business_id: &str, call: &Call<'_>) -> Result<Option<Option<bool>>, ApiError> {
    let mut headers = call.headers.get_all("stripe-signature").iter();
    let (Some(header), None) = (headers.next(), headers.next()) else { return Ok(None) };
    let Ok(header) = header.to_str() else { return Ok(None) };
    let now = rooms.clock.wall().seconds();
    for key in rooms.control.list_stripe_keys(business_id) {
        let owner = |purpose| Owner { business_id, purpose, name: &key.key_name };
        let secret = rooms.vault.open(&owner(Purpose::StripeWebhookSecret), &key.webhook_secret);
        // A secret that cannot be read now may be readable later: Stripe tries again.
        let unreadable = |_| ApiError::unavailable("secrets_unreadable", "the webhook secret cannot be read");
        let secret = secret.map_err(unreadable)?;
        if stripe::verify(header, &call.body, [secret.0.as_str()].into_iter(), now).is_ok() {
            let secret_key = rooms.vault.open(&owner(Purpose::StripeSecretKey), &key.secret_key);
            return Ok(Some(stripe::livemode(&secret_key.map_err(unreadable)?.0)));
        }
    }
    Ok(None)
}

/// The event in control's words; none if nothing can follow from it.
fn what_of(business_id: &str, said_at: Micros, what: What) -> Option<StripeWhat> {
    let subscription = |subscription, is_new, is_deleted| {
        let subscription = subscription_of(business_id, said_at, subscription, is_deleted);
        Some(StripeWhat::Subscription { subscription, is_new })
    };
    match what {
        What::SubscriptionCreated(created) => subscription(created, true, false),
        What::SubscriptionUpdated(updated) => subscription(updated, false, false),
        What::SubscriptionDeleted(deleted) => subscription(deleted, false, true),
        What::InvoiceCreated(invoice) => {
            let made_at = invoice.test_clock.is_none().then_some(invoice.created_at);
            Some(StripeWhat::Invoice(invoice_of(invoice, Takes::Draft(made_at))))
        }
        What::InvoiceFinalized(invoice) => Some(StripeWhat::Invoice(invoice_of(invoice, Takes::Nothing))),
        What::CheckoutCompleted(checkout) => Some(StripeWhat::Checkout {
            customer_id: checkout.client_reference_id,
            stripe_customer_id: checkout.customer,
        }),
        What::MeterErrors(MeterErrors { report: Some(report), .. }) => {
            Some(StripeWhat::Uncounted(report.slices()))
        }
        // A thin event comes without its samples: whoever exports usage asks for them.
        What::MeterErrors(MeterErrors { report: None, .. }) => Some(StripeWhat::UncountedUnsaid),
        What::Unknown => None,
    }
}

fn subscription_of(
    business_id: &str,
    said_at: Micros,
    subscription: stripe::Subscription,
    is_deleted: bool,
) -> Subscription {
    let standing = match &subscription.status {
        _ if is_deleted => SubscriptionStanding::Over,
        Status::Trialing | Status::Active | Status::PastDue => SubscriptionStanding::Running,
        Status::Unpaid | Status::Canceled | Status::IncompleteExpired => SubscriptionStanding::Over,
        Status::Incomplete | Status::Paused | Status::Other(_) => SubscriptionStanding::Undecided,
    };
    let ends_at = match standing {
        SubscriptionStanding::Over => subscription.ended_at.or(Some(said_at)),
        _ => subscription.cancel_at,
    };
    let item = |item: stripe::Item| SubscriptionItem {
        price_id: item.price_id,
        period: item.period.map(|period| (period.start, period.end)),
    };
    Subscription {
        business_id: business_id.to_owned(),
        subscription_id: subscription.id,
        stripe_customer_id: subscription.customer,
        standing,
        created_at: subscription.created_at,
        ends_at,
        said_at,
        is_simulated: subscription.test_clock.is_some(),
        items: subscription.items.into_iter().map(item).collect(),
    }
}

/// Its lines decide nothing, so that those beyond the first page, of which an event holds no more, need not be had: which
/// series it concerns is said by their subscription, where they end by the boundary, and the periods of lines are those of
/// the subscription's items, which are known, or past.
fn invoice_of(invoice: Invoice, takes: Takes) -> BillingInvoice {
    let concerns = match invoice.reason {
        Reason::SubscriptionThreshold | Reason::Upcoming => Concerns::Nothing,
        Reason::Manual | Reason::SubscriptionUpdate => Concerns::Unfollowing,
        Reason::SubscriptionCreate | Reason::SubscriptionCycle | Reason::Other(_) | Reason::Unsaid => {
            Concerns::All
        }
    };
    BillingInvoice {
        stripe_customer_id: invoice.customer,
        subscription_id: invoice.subscription,
        concerns,
        // The first one of a subscription bills no usage, and is final at once.
        takes: if invoice.reason == Reason::SubscriptionCreate { Takes::NoUsage } else { takes },
        // Of one that is made within a period its end is ahead: nothing has ended there.
        boundary: invoice.period_end.filter(|end| *end <= invoice.created_at).unwrap_or(invoice.created_at),
    }
}
