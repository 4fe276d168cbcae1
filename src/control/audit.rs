//! What the audit log says of a change: made here for all of them, from the change and who asked for it, and nowhere else.
//!
//! | action | subject |
//! |---|---|
//! | `series.create` `series.change` `series.delete` | `metric`, of a customer `customer/metric` |
//! | `customer.create` `customer.change` `customer.delete` `billing.reset` | customer |
//! | `business.create` `business.change` `business.delete` | business |
//! | `key.create` `key.delete` | `business/name`, `customer_api/customer/name`, `stripe/name` |
//! | `webhook.rotate` | `webhook` |
//! | `proxy_targets.change` | `proxy_targets` |
//! | `plan.create` `plan.delete` `plan_limit.create` `plan_limit.change` `plan_limit.delete` | the id; series that limits begin have no entry of their own |
//! | `template.create` `template.change` `template.delete` | `metric` |
//! | `template.apply` | the series as above, or `N series` of one request; customers made along have no entry of their own |
//! | `stripe.event` | `type/id`: what it did is in the list of events |
//! | `server.start` | how many definitions the service made for the tenant itself |
//!
//! Names only: values may be secrets. That the initial value of a repeated POST was recorded is no change of a definition and
//! has no entry, nor have slices of usage, which say themselves what they are, and reports about them, whose event has one; what a deletion takes along has none of its own.

use std::collections::BTreeMap;

use dataflows::types::{Actor, AuditEntry, Definition, KeyKind, Micros, SeriesKey, Template};

use super::{Change, Registry, StripeChange};

/// Who asked for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who it was.
    pub actor: Actor,
    /// In which request.
    pub request_id: Option<String>,
}

impl Origin {
    /// The service itself.
    pub const SERVER: Origin = Origin { actor: Actor::Server, request_id: None };
}

/// The entries of a change, given what is defined before it.
pub(super) fn entries(change: &Change, registry: &Registry, origin: &Origin, at: Micros) -> Vec<Definition> {
    let entry = |told| entry(told, origin, at);
    match change {
        Change::Define(definitions) => {
            let mut counts = BTreeMap::new();
            for business_id in definitions.iter().filter_map(|definition| business_of(definition, registry)) {
                *counts.entry(business_id).or_insert(0) += 1;
            }
            let told = counts.into_iter().map(|(business_id, count): (_, u64)| {
                let noun = if count == 1 { "definition" } else { "definitions" };
                ("server.start", business_id, format!("{count} {noun}"))
            });
            told.map(entry).collect()
        }
        change => told(change, registry).map(entry).into_iter().collect(),
    }
}

/// The entry of series that were made from templates: one for a request, however many they are.
pub(super) fn applied(made: &[Definition], origin: &Origin, at: Micros) -> Option<Definition> {
    let mut begun = made.iter().filter_map(|definition| match definition {
        Definition::SeriesCreated(record) => Some(&record.key),
        _ => None,
    });
    let first = begun.next()?;
    let subject = match begun.count() {
        0 => series(first),
        more => format!("{} series", more + 1),
    };
    Some(entry(("template.apply", &first.business_id, subject), origin, at))
}

fn entry((action, business_id, subject): (&str, &str, String), origin: &Origin, at: Micros) -> Definition {
    Definition::Audited(AuditEntry {
        at,
        actor: origin.actor.clone(),
        action: action.to_owned(),
        business_id: business_id.to_owned(),
        subject,
        request_id: origin.request_id.clone(),
    })
}

/// Action, business and subject.
fn told<'a>(change: &'a Change, registry: &Registry) -> Option<(&'static str, &'a str, String)> {
    Some(match change {
        Change::CreateSeries { key, .. } => ("series.create", &key.business_id, series(key)),
        Change::DescribeSeries { key, .. } => ("series.change", &key.business_id, series(key)),
        Change::DeleteSeries { key } => ("series.delete", &key.business_id, series(key)),
        Change::ResetBilling { business_id, customer_id } => {
            ("billing.reset", business_id, customer_id.clone())
        }
        Change::PutCustomer { record, must_be_new } => {
            let action = if *must_be_new { "customer.create" } else { "customer.change" };
            (action, &record.customer.business_id, record.customer.customer_id.clone())
        }
        Change::DeleteCustomer { business_id, customer_id } => {
            ("customer.delete", business_id, customer_id.clone())
        }
        Change::PutBusiness(business) => {
            let is_new = registry.business(&business.business_id).is_none();
            let action = if is_new { "business.create" } else { "business.change" };
            (action, &business.business_id, business.business_id.clone())
        }
        Change::DeleteBusiness { business_id } => ("business.delete", business_id, business_id.clone()),
        Change::CreateKey(new) => ("key.create", &new.business_id, key(&new.kind, &new.key_name)),
        Change::DeleteKey { business_id, kind, key_name } => ("key.delete", business_id, key(kind, key_name)),
        Change::CreateStripeKey(new) => ("key.create", &new.business_id, format!("stripe/{}", new.key_name)),
        Change::DeleteStripeKey { business_id, key_name } => {
            ("key.delete", business_id, format!("stripe/{key_name}"))
        }
        Change::PutWebhook { business_id, .. } => ("webhook.rotate", business_id, "webhook".to_owned()),
        Change::PutProxyTargets { business_id, .. } => {
            ("proxy_targets.change", business_id, "proxy_targets".to_owned())
        }
        Change::PutPlan(plan) => ("plan.create", &plan.business_id, plan.plan_id.clone()),
        Change::DeletePlan { business_id, plan_id } => ("plan.delete", business_id, plan_id.clone()),
        Change::PutPlanLimit { limit, .. } => {
            let is_new = registry.plans().limit(&limit.business_id, &limit.limit_id).is_none();
            let action = if is_new { "plan_limit.create" } else { "plan_limit.change" };
            (action, &limit.business_id, limit.limit_id.clone())
        }
        Change::DeletePlanLimit { business_id, limit_id } => {
            ("plan_limit.delete", business_id, limit_id.clone())
        }
        Change::Stripe(StripeChange { event, .. }) => {
            ("stripe.event", &event.business_id, format!("{}/{}", event.event_type, event.event_id))
        }
        Change::PutTemplate(Template { business_id, metric_name, .. }) => {
            let is_new = registry.templates().get(business_id, metric_name).is_none();
            let action = if is_new { "template.create" } else { "template.change" };
            (action, business_id, metric_name.clone())
        }
        Change::DeleteTemplate { business_id, metric_name } => {
            ("template.delete", business_id, metric_name.clone())
        }
        // What is made is known only once it is decided: `applied`.
        Change::CreateFromTemplates(_) => return None,
        Change::RecordPost { .. }
        | Change::Define(_)
        | Change::CutSlices(_)
        | Change::MoveSlices(_)
        | Change::SettleReport(_) => {
            return None;
        }
    })
}

fn series(key: &SeriesKey) -> String {
    match &key.customer_id {
        Some(customer_id) => format!("{customer_id}/{}", key.metric_name),
        None => key.metric_name.clone(),
    }
}

fn key(kind: &KeyKind, key_name: &str) -> String {
    match kind {
        KeyKind::Business => format!("business/{key_name}"),
        KeyKind::Customer { customer_id } => format!("customer_api/{customer_id}/{key_name}"),
    }
}

/// Whose definition it is, of those that the service makes itself.
fn business_of<'a>(definition: &'a Definition, registry: &'a Registry) -> Option<&'a str> {
    Some(match definition {
        Definition::BusinessPut(business) => &business.business_id,
        Definition::KeyPut(key) => &key.business_id,
        Definition::CustomerPut(customer) => &customer.business_id,
        Definition::SeriesCreated(record) => &record.key.business_id,
        Definition::SeriesCut { series } => &registry.by_id(*series)?.record.key.business_id,
        // A key that is replaced is ended beside the new one; the service makes no others.
        _ => return None,
    })
}
