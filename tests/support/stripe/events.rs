//! Events as Stripe writes them, in the shapes of now (basil) and of before. In: what happened. Out: JSON.

use serde_json::{Value, json};

/// Which shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `2025-03-31.basil` and later: periods on items, subscriptions under `parent`.
    Basil,
    /// Before: both on top.
    Older,
}

/// The price, start and end of an item or a line.
pub type Part<'a> = (&'a str, i64, i64);

/// An event with its object.
pub fn event(id: &str, kind: &str, created: i64, object: Value) -> Value {
    json!({
        "id": id, "object": "event", "type": kind, "created": created, "livemode": false,
        "api_version": "2025-03-31.basil", "pending_webhooks": 1, "request": {"id": null, "idempotency_key": null},
        "data": {"object": object},
    })
}

/// A subscription. All items of an older one have the period of the first.
pub fn subscription(
    version: Version,
    (id, customer, status): (&str, &str, &str),
    created: i64,
    items: &[Part<'_>],
) -> Value {
    let item = |(at, (price, start, end)): (usize, &Part<'_>)| {
        let mut item = json!({
            "id": format!("si_{at}"), "object": "subscription_item", "subscription": id,
            "price": {"id": price, "object": "price", "recurring": {"interval": "month"}},
        });
        if version == Version::Basil {
            item["current_period_start"] = json!(start);
            item["current_period_end"] = json!(end);
        }
        item
    };
    let data: Vec<_> = items.iter().enumerate().map(item).collect();
    let mut subscription = json!({
        "id": id, "object": "subscription", "customer": customer, "status": status, "created": created,
        "cancel_at": null, "cancel_at_period_end": false, "canceled_at": null, "ended_at": null, "test_clock": null,
        "items": {"object": "list", "has_more": false, "total_count": items.len(), "data": data},
    });
    if let (Version::Older, Some((_, start, end))) = (version, items.first()) {
        subscription["current_period_start"] = json!(start);
        subscription["current_period_end"] = json!(end);
    }
    subscription
}

/// An invoice of a subscription.
pub fn invoice(
    version: Version,
    (id, customer, subscription, reason): (&str, &str, &str, &str),
    created: i64,
    lines: &[Part<'_>],
) -> Value {
    let line = |(at, (price, start, end)): (usize, &Part<'_>)| {
        let mut line = json!({
            "id": format!("il_{at}"), "object": "line_item", "invoice": id, "period": {"start": start, "end": end},
        });
        match version {
            Version::Basil => {
                let details = json!({"price": price, "product": "prod_1"});
                line["pricing"] = json!({"type": "price_details", "price_details": details});
            }
            Version::Older => line["price"] = json!({"id": price, "object": "price"}),
        }
        line
    };
    let data: Vec<_> = lines.iter().enumerate().map(line).collect();
    let mut invoice = json!({
        "id": id, "object": "invoice", "customer": customer, "billing_reason": reason, "created": created,
        "status": "draft", "period_start": created, "period_end": created, "test_clock": null,
        "lines": {"object": "list", "has_more": false, "total_count": lines.len(), "data": data},
    });
    match version {
        Version::Basil => {
            let details = json!({"metadata": {}, "subscription": subscription});
            invoice["parent"] = json!({"type": "subscription_details", "subscription_details": details});
        }
        Version::Older => invoice["subscription"] = json!(subscription),
    }
    invoice
}

/// A checkout of one of our customers.
pub fn checkout(id: &str, client_reference_id: &str, customer: &str) -> Value {
    json!({
        "id": id, "object": "checkout.session", "mode": "subscription", "status": "complete",
        "client_reference_id": client_reference_id, "customer": customer, "subscription": "sub_1",
    })
}

/// A report of meter events that were not counted; `created` in RFC 3339. It is the whole event: not its `data.object`.
pub fn error_report(id: &str, created: &str, meter: &str, code: &str, identifiers: &[&str]) -> Value {
    let sample = |identifier: &&str| json!({"error_message": code, "request": {"identifier": identifier}});
    let samples: Vec<_> = identifiers.iter().map(sample).collect();
    let errors = json!({"code": code, "error_count": samples.len(), "sample_errors": samples});
    json!({
        "id": id, "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered", "created": created,
        "livemode": false, "context": null, "reason": null,
        "related_object": {"id": meter, "type": "billing.meter", "url": format!("/v1/billing/meters/{meter}")},
        "data": {
            "developer_message_summary": format!("There are {} invalid events", identifiers.len()),
            "validation_start": created, "validation_end": created,
            "reason": {"error_count": identifiers.len(), "error_types": [errors]},
        },
    })
}

/// The same as it is delivered: without what it is about.
pub fn thin(report: &Value) -> Value {
    let mut thin = report.clone();
    thin.as_object_mut().expect("an event").remove("data");
    thin
}
