//! What Stripe sends and what is said of it, as schemas.

use serde_json::json;

use super::answers::{next_cursor, page};
use super::shape::Shape;

pub(super) fn requests() -> Vec<(&'static str, Shape)> {
    vec![(
        "StripeEvent",
        Shape::of("object")
            .also([
                ("id", Shape::id()),
                ("type", Shape::text()),
                ("created", Shape::of("integer").about("Unix seconds.")),
                ("livemode", Shape::flag()),
                ("data", Shape::of("object").about("`object` is what the event is about, as Stripe writes it.")),
            ])
            .set("additionalProperties", true)
            .set(
                "example",
                json!({
                    "id": "evt_1", "object": "event", "type": "invoice.created", "created": 1_795_521_600,
                    "livemode": false,
                    "data": {"object": {"id": "in_1", "object": "invoice", "customer": "cus_1", "created": 1_795_521_600,
                        "billing_reason": "subscription_cycle", "period_end": 1_795_521_600, "lines": {"data": []}}}
                }),
            ),
    )]
}

pub(super) fn answers() -> Vec<(&'static str, Shape)> {
    let reason = || Shape::text().about("What it did, or why nothing.");
    vec![
        (
            "StripeEventReceived",
            Shape::answer([("received", Shape::flag()), ("applied", Shape::flag()), ("reason?", reason())]),
        ),
        (
            "StripeEventRead",
            Shape::answer([
                ("event_id", Shape::id()),
                ("event_type", Shape::text()),
                ("created_at", Shape::moment().about("When it happened, as Stripe says.")),
                ("received_at", Shape::moment()),
                (
                    "applied",
                    Shape::flag().about("Whether it changed something, or confirmed what was known."),
                ),
                ("reason", reason()),
            ]),
        ),
        ("StripeEventPage", page("events", "StripeEventRead").also([next_cursor()])),
    ]
}
