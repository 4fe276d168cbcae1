//! The rules of definitions: what a requested change means, given what is defined. Pure.

use std::collections::{BTreeSet, HashSet};

use dataflows::types::{
    ApiKey, Business, Customer, Definition, KeyKind, MetricType, Micros, Plan, PlanLimit, Sealed, SeriesId,
    SeriesKey, SeriesRecord, SeriesSpec, SliceMove, SliceState, StripeKey, Template,
};

use super::quota::Taken;
use super::reports::{self, ReportChange};
use super::slices::{self, CutRequest, Kept};
use super::stripe::{self, StripeChange};
use super::templates::{self, Wanted};
use super::{ControlError, CustomerRecord, Registry, SeriesFilter, plan, tenant};

/// A requested change.
#[derive(Clone, Debug)]
pub enum Change {
    /// A series with this name and description; nothing happens if the name exists.
    CreateSeries {
        /// The name.
        key: SeriesKey,
        /// The description.
        spec: SeriesSpec,
    },
    /// Another description.
    DescribeSeries {
        /// The name.
        key: SeriesKey,
        /// The new description.
        spec: SeriesSpec,
    },
    /// The end of a series.
    DeleteSeries {
        /// The name.
        key: SeriesKey,
    },
    /// A new live period of every series that a customer is billed by.
    ResetBilling {
        /// Whose.
        business_id: String,
        /// Which.
        customer_id: String,
    },
    /// The initial value of a repeated POST has been recorded.
    RecordPost {
        /// The series.
        series: SeriesId,
        /// Hash of the parsed body.
        body_hash: u128,
    },
    /// A customer, absolute.
    PutCustomer {
        /// The customer and what is known of it; `created_at` counts only if it is new.
        record: CustomerRecord,
        /// Whether there must be none of that id yet.
        must_be_new: bool,
    },
    /// A tenant, absolute.
    PutBusiness(Business),
    /// The end of a tenant, its keys, customers and series.
    DeleteBusiness {
        /// Which.
        business_id: String,
    },
    /// A key.
    CreateKey(ApiKey),
    /// The end of a key.
    DeleteKey {
        /// Whose.
        business_id: String,
        /// What it acts for.
        kind: KeyKind,
        /// Its name.
        key_name: String,
    },
    /// Credentials for Stripe.
    CreateStripeKey(StripeKey),
    /// The end of credentials for Stripe.
    DeleteStripeKey {
        /// Whose.
        business_id: String,
        /// Their name.
        key_name: String,
    },
    /// Where a tenant's messages go, with a new secret; the one before signs along for a while.
    PutWebhook {
        /// Whose.
        business_id: String,
        /// Where to.
        url: String,
        /// The new secret.
        secret: Sealed,
    },
    /// What a tenant's customer keys may reach by the proxy, absolute.
    PutProxyTargets {
        /// Whose.
        business_id: String,
        /// Origins in normal form; none: everything that may be reached at all.
        origins: BTreeSet<String>,
    },
    /// The end of a customer, its keys and its series.
    DeleteCustomer {
        /// Whose.
        business_id: String,
        /// Which.
        customer_id: String,
    },
    /// A new plan.
    PutPlan(Plan),
    /// The end of a plan that nobody is on, and of its limits.
    DeletePlan {
        /// Whose.
        business_id: String,
        /// Which.
        plan_id: String,
    },
    /// A limit of a plan, or a default, absolute; and the series that it needs.
    PutPlanLimit {
        /// The limit.
        limit: PlanLimit,
        /// Whether there must be one of that id already.
        must_exist: bool,
    },
    /// The end of a limit.
    DeletePlanLimit {
        /// Whose.
        business_id: String,
        /// Which.
        limit_id: String,
    },
    /// An event of Stripe.
    Stripe(StripeChange),
    /// Definitions that the service itself makes at a start; taken as they are.
    Define(Vec<Definition>),
    /// Slices of usage, as far as it is not in slices yet.
    CutSlices(CutRequest),
    /// Slices have come to other states. Those that are not known, or are dead, are left out.
    MoveSlices(Vec<SliceMove>),
    /// A report of Stripe that was awaited is there, or there is none.
    SettleReport(ReportChange),
    /// A template, absolute.
    PutTemplate(Template),
    /// The end of a template.
    DeleteTemplate {
        /// Whose.
        business_id: String,
        /// Its name.
        metric_name: String,
    },
    /// Customers' series at their first event.
    CreateFromTemplates(Wanted),
}

/// What a change is about: of two changes about one subject in one epoch, the second waits for the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A name of a series.
    Name(SeriesKey),
    /// A numbered series.
    Series(SeriesId),
    /// A customer: (business, customer).
    Customer(String, String),
    /// A tenant.
    Business(String),
    /// The keys of a business: how many there may be depends on the others.
    Keys(String),
    /// The service itself.
    Service,
    /// What is billed.
    Slices,
}

impl Change {
    /// What the change is about.
    pub fn subject(&self) -> Subject {
        match self {
            Change::CreateSeries { key, .. }
            | Change::DescribeSeries { key, .. }
            | Change::DeleteSeries { key } => match &key.customer_id {
                // A customer's change may begin series of its own.
                Some(customer_id) => Subject::Customer(key.business_id.clone(), customer_id.clone()),
                None => Subject::Name(key.clone()),
            },
            Change::RecordPost { series, .. } => Subject::Series(*series),
            Change::PutCustomer { record: CustomerRecord { customer, .. }, .. } => {
                Subject::Customer(customer.business_id.clone(), customer.customer_id.clone())
            }
            Change::PutBusiness(Business { business_id, .. })
            | Change::DeleteBusiness { business_id }
            | Change::PutWebhook { business_id, .. }
            | Change::PutProxyTargets { business_id, .. } => Subject::Business(business_id.clone()),
            Change::CreateKey(ApiKey { business_id, .. })
            | Change::DeleteKey { business_id, .. }
            | Change::CreateStripeKey(StripeKey { business_id, .. })
            | Change::DeleteStripeKey { business_id, .. } => Subject::Keys(business_id.clone()),
            Change::DeleteCustomer { business_id, customer_id }
            | Change::ResetBilling { business_id, customer_id } => {
                Subject::Customer(business_id.clone(), customer_id.clone())
            }
            Change::PutPlan(Plan { business_id, .. })
            | Change::DeletePlan { business_id, .. }
            | Change::PutPlanLimit { limit: PlanLimit { business_id, .. }, .. }
            | Change::DeletePlanLimit { business_id, .. } => Subject::Business(business_id.clone()),
            Change::Stripe(change) => Subject::Business(change.event.business_id.clone()),
            Change::Define(_) => Subject::Service,
            Change::CutSlices(_) | Change::MoveSlices(_) | Change::SettleReport(_) => Subject::Slices,
            Change::PutTemplate(Template { business_id, .. })
            | Change::DeleteTemplate { business_id, .. }
            | Change::CreateFromTemplates(Wanted { business_id, .. }) => {
                Subject::Business(business_id.clone())
            }
        }
    }

    /// Claims what the change is about; false, and nothing is claimed, if something of it is claimed already.
    pub fn claim(&self, subjects: &mut HashSet<Subject>) -> bool {
        match self {
            Change::CreateFromTemplates(wanted) => wanted.claim(subjects),
            change => subjects.insert(change.subject()),
        }
    }

    /// The same change, told what those before it in its epoch take of the room for series.
    pub fn within(self, taken: &Taken) -> Change {
        match self {
            Change::CreateFromTemplates(wanted) => {
                let taken = taken.of(&wanted.business_id);
                Change::CreateFromTemplates(Wanted { taken, ..wanted })
            }
            change => change,
        }
    }

    /// Whether everything is so already, as far as that can be told without deciding.
    pub fn is_done(&self, registry: &Registry) -> bool {
        matches!(self, Change::CreateFromTemplates(wanted) if wanted.is_done(registry))
    }

    /// Whether series begin even beyond what a business may have: what Stripe says is so whether it fits or not, and what
    /// the service makes at a start is its own.
    pub fn must_be(&self) -> bool {
        matches!(self, Change::Stripe(_) | Change::Define(_))
    }

    /// Whether it needs an epoch of its own, because it is about more than its subject.
    pub fn stands_alone(&self) -> bool {
        matches!(
            self,
            Change::DeleteCustomer { .. }
                | Change::DeleteBusiness { .. }
                | Change::ResetBilling { .. }
                | Change::PutPlan(_)
                | Change::DeletePlan { .. }
                | Change::PutPlanLimit { .. }
                | Change::DeletePlanLimit { .. }
                | Change::Stripe(_)
                | Change::Define(_)
        ) || matches!(self, Change::CreateFromTemplates(wanted) if wanted.stands_alone())
    }

    /// Whether nobody waits for it, so that it gives way while the store is behind.
    pub fn can_wait(&self) -> bool {
        matches!(self, Change::CutSlices(_) | Change::MoveSlices(_) | Change::SettleReport(_))
    }

    /// The definitions that make the change; none if everything is so already. New series are numbered from
    /// `next_series`, which moves on.
    pub fn decide(
        self,
        registry: &Registry,
        next_series: &mut SeriesId,
        now: Micros,
    ) -> Result<Vec<Definition>, ControlError> {
        let live = |key: &SeriesKey| {
            let found = registry.find(&key.business_id, key.customer_id.as_deref(), &key.metric_name);
            found.map(|handle| handle.series).ok_or(ControlError::NoSuchSeries)
        };
        Ok(match self {
            Change::CreateSeries { key, spec } => create_series(registry, key, spec, next_series, now)?,
            Change::DescribeSeries { key, spec } => {
                signable(registry, &key.business_id, spec.webhook_url.as_deref())?;
                slices::billed_alone(registry, &key, &spec)?;
                vec![Definition::SeriesChanged { series: live(&key)?, spec }]
            }
            Change::DeleteSeries { key } => vec![Definition::SeriesDeleted { series: live(&key)? }],
            Change::ResetBilling { business_id, customer_id } => {
                reset_billing(registry, business_id, customer_id)?
            }
            Change::RecordPost { series, body_hash } if !registry.post_recorded(series, body_hash) => {
                vec![Definition::PostRecorded { series, body_hash }]
            }
            Change::RecordPost { .. } => Vec::new(),
            Change::PutCustomer { record, must_be_new } => {
                put_customer(registry, record, must_be_new, next_series, now)?
            }
            Change::DeleteCustomer { business_id, customer_id } => {
                delete_customer(registry, business_id, customer_id)?
            }
            Change::PutBusiness(business) => vec![Definition::BusinessPut(business)],
            Change::DeleteBusiness { business_id } => {
                registry.business(&business_id).ok_or(ControlError::NoSuchBusiness)?;
                let of_business =
                    SeriesFilter { business_id: business_id.clone(), ..SeriesFilter::default() };
                deleted(registry, &of_business).chain([Definition::BusinessDeleted { business_id }]).collect()
            }
            Change::CreateKey(key) => tenant::create_key(registry, key, now)?,
            Change::DeleteKey { business_id, kind, key_name } => {
                let known = |key: &&ApiKey| key.kind == kind && key.key_name == key_name;
                let key = registry.keys(&business_id, now).find(known).ok_or(ControlError::NoSuchKey)?;
                vec![Definition::KeyEnded { hash: key.hash }]
            }
            Change::CreateStripeKey(key) => tenant::create_stripe_key(registry, key)?,
            Change::DeleteStripeKey { business_id, key_name } => {
                registry.secrets().stripe_key(&business_id, &key_name).ok_or(ControlError::NoSuchKey)?;
                vec![Definition::StripeKeyEnded { business_id, key_name }]
            }
            Change::PutWebhook { business_id, url, secret } => {
                tenant::put_webhook(registry, business_id, url, secret, now)?
            }
            Change::PutProxyTargets { business_id, origins } => {
                tenant::put_proxy_targets(registry, business_id, origins)?
            }
            Change::PutPlan(plan) => plan::put(registry, plan)?,
            Change::DeletePlan { business_id, plan_id } => plan::delete(registry, business_id, plan_id)?,
            Change::PutPlanLimit { limit, must_exist } => {
                plan::put_limit(registry, limit, must_exist, next_series, now)?
            }
            Change::DeletePlanLimit { business_id, limit_id } => {
                registry.plans().limit(&business_id, &limit_id).ok_or(ControlError::NoSuchPlanLimit)?;
                vec![Definition::PlanLimitDeleted { business_id, limit_id }]
            }
            Change::Stripe(change) => stripe::decide(registry, change, next_series, now)?,
            Change::Define(definitions) => definitions,
            Change::CutSlices(request) => slices::cut(registry, &request, now),
            Change::MoveSlices(mut moves) => {
                // A report may have overtaken the answer to the call, or to a further one.
                let is_dead = |known: &Kept| known.state == SliceState::Dead;
                moves.retain(|moved| {
                    registry.slices().of_identifier(&moved.identifier).is_some_and(|known| !is_dead(known))
                });
                (!moves.is_empty()).then_some(Definition::SlicesMoved(moves)).into_iter().collect()
            }
            Change::SettleReport(change) => reports::settle(registry, change, now),
            Change::PutTemplate(template) => templates::put(registry, template)?,
            Change::DeleteTemplate { business_id, metric_name } => {
                templates::delete(registry, business_id, metric_name)?
            }
            Change::CreateFromTemplates(wanted) => wanted.decide(registry, next_series, now)?,
        })
    }
}

fn create_series(
    registry: &Registry,
    key: SeriesKey,
    spec: SeriesSpec,
    next_series: &mut SeriesId,
    now: Micros,
) -> Result<Vec<Definition>, ControlError> {
    registry.business(&key.business_id).ok_or(ControlError::NoSuchBusiness)?;
    if let Some(customer_id) = &key.customer_id {
        registry.customer(&key.business_id, customer_id).ok_or(ControlError::NoSuchCustomer)?;
    }
    signable(registry, &key.business_id, spec.webhook_url.as_deref())?;
    if registry.find(&key.business_id, key.customer_id.as_deref(), &key.metric_name).is_some() {
        return Ok(Vec::new());
    }
    slices::billed_alone(registry, &key, &spec)?;
    let series = *next_series;
    next_series.0 = series.0.checked_add(1).ok_or(ControlError::Overloaded)?;
    Ok(vec![Definition::SeriesCreated(SeriesRecord { series, key, spec, created_at: now })])
}

/// Messages of a series are signed with the secret of its business.
pub(super) fn signable(
    registry: &Registry,
    business_id: &str,
    webhook_url: Option<&str>,
) -> Result<(), ControlError> {
    let is_signed = webhook_url.is_none() || registry.secrets().webhook(business_id).is_some();
    if is_signed { Ok(()) } else { Err(ControlError::NoWebhookSecret) }
}

pub(super) fn put_customer(
    registry: &Registry,
    mut record: CustomerRecord,
    must_be_new: bool,
    next_series: &mut SeriesId,
    now: Micros,
) -> Result<Vec<Definition>, ControlError> {
    registry.business(&record.customer.business_id).ok_or(ControlError::NoSuchBusiness)?;
    let known = registry.customer(&record.customer.business_id, &record.customer.customer_id);
    if let Some(known) = known {
        if must_be_new {
            return Err(ControlError::CustomerExists);
        }
        record.customer.created_at = known.customer.created_at;
        if *known == record {
            return Ok(Vec::new());
        }
    }
    let CustomerRecord { customer, details, plan_id } = record.clone();
    let Customer { business_id, customer_id, .. } = customer.clone();
    if let Some(plan_id) = &plan_id {
        registry.plans().plan(&business_id, plan_id).ok_or(ControlError::NoSuchPlan)?;
    }
    let mut definitions = vec![Definition::CustomerPut(customer)];
    if known.map_or(plan_id.is_some(), |known| known.plan_id != plan_id) {
        let (business_id, customer_id) = (business_id.clone(), customer_id.clone());
        definitions.push(Definition::CustomerPlanned { business_id, customer_id, plan_id });
    }
    definitions.push(Definition::CustomerDescribed { business_id, customer_id, details });
    definitions.extend(plan::missing_series(
        registry,
        &record,
        &registry.plans().needed(&record),
        next_series,
        now,
    )?);
    Ok(definitions)
}

fn delete_customer(
    registry: &Registry,
    business_id: String,
    customer_id: String,
) -> Result<Vec<Definition>, ControlError> {
    registry.customer(&business_id, &customer_id).ok_or(ControlError::NoSuchCustomer)?;
    let filter = of_customer(business_id.clone(), customer_id.clone());
    Ok(deleted(registry, &filter).chain([Definition::CustomerDeleted { business_id, customer_id }]).collect())
}

/// What a customer is billed by are its `stripe_billing` series and those that its plan limits.
fn reset_billing(
    registry: &Registry,
    business_id: String,
    customer_id: String,
) -> Result<Vec<Definition>, ControlError> {
    registry.business(&business_id).ok_or(ControlError::NoSuchBusiness)?;
    registry.customer(&business_id, &customer_id).ok_or(ControlError::NoSuchCustomer)?;
    let series = registry.list(&of_customer(business_id, customer_id), None, usize::MAX).into_iter();
    let billed = series.filter(|handle| {
        let is_of_plan = registry.inherited_limit(handle).is_some_and(|limit| limit.plan_id.is_some());
        is_of_plan || handle.record.spec.metric_type == MetricType::StripeBilling
    });
    Ok(billed.map(|handle| Definition::SeriesCut { series: handle.series }).collect())
}

fn of_customer(business_id: String, customer_id: String) -> SeriesFilter {
    SeriesFilter { business_id, customer_id: Some(customer_id), ..SeriesFilter::default() }
}

/// The end of the series that the filter shows.
fn deleted(registry: &Registry, filter: &SeriesFilter) -> impl Iterator<Item = Definition> {
    let series = registry.list(filter, None, usize::MAX).into_iter();
    series.map(|handle| Definition::SeriesDeleted { series: handle.series })
}
