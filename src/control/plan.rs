//! The rules of plans and their limits (API, section 5). Pure.

use std::collections::HashSet;

use dataflows::types::{Definition, Micros, Plan, PlanLimit, SeriesId, SeriesKey, SeriesRecord};

use super::change::signable;
use super::{ControlError, CustomerRecord, Registry};

/// Plans of a business. The limits graph joins them with defaults.
const PLANS_MAX: usize = 1_000;
/// Limits of a plan, and defaults of a business.
const LIMITS_MAX: usize = 100;

/// A new plan. Nobody is on it but those who pay its price already, and it has no limits yet: no series is needed.
pub(super) fn put(registry: &Registry, plan: Plan) -> Result<Vec<Definition>, ControlError> {
    registry.business(&plan.business_id).ok_or(ControlError::NoSuchBusiness)?;
    match &plan.stripe_price_id {
        None if registry.plans().free(&plan.business_id).is_some() => Err(ControlError::FreePlanExists),
        Some(price) if registry.plans().of_price(&plan.business_id, price).is_some() => {
            Err(ControlError::PricedPlanExists)
        }
        _ if registry.plans().plans(&plan.business_id, None).count() >= PLANS_MAX => {
            Err(ControlError::TooMany { what: "plans", max: PLANS_MAX })
        }
        _ => Ok(vec![Definition::PlanPut(plan)]),
    }
}

/// The end of a plan and its limits, unless somebody is on it.
pub(super) fn delete(
    registry: &Registry,
    business_id: String,
    plan_id: String,
) -> Result<Vec<Definition>, ControlError> {
    let plans = registry.plans();
    plans.plan(&business_id, &plan_id).ok_or(ControlError::NoSuchPlan)?;
    let is_on = |record: &CustomerRecord| {
        let effective = plans.effective(record, registry.has_lapsed(record));
        // A lapsed customer returns to the plan that it was put on.
        [effective, plans.subscribed(record)].into_iter().flatten().any(|plan| plan.plan_id == plan_id)
    };
    if registry.customers(&business_id, None).any(is_on) {
        return Err(ControlError::PlanInUse);
    }
    let limits = plans.limits_of(&business_id, &plan_id);
    let gone = limits.map(|limit| Definition::PlanLimitDeleted {
        business_id: limit.business_id.clone(),
        limit_id: limit.limit_id.clone(),
    });
    let gone: Vec<Definition> = gone.collect();
    Ok(gone.into_iter().chain([Definition::PlanDeleted { business_id, plan_id }]).collect())
}

/// A limit, and before it the series that customers on its plan lack.
pub(super) fn put_limit(
    registry: &Registry,
    mut limit: PlanLimit,
    must_exist: bool,
    next_series: &mut SeriesId,
    now: Micros,
) -> Result<Vec<Definition>, ControlError> {
    let business_id = limit.business_id.clone();
    registry.business(&business_id).ok_or(ControlError::NoSuchBusiness)?;
    let plans = registry.plans();
    if let Some(plan_id) = &limit.plan_id {
        plans.plan(&business_id, plan_id).ok_or(ControlError::NoSuchPlan)?;
    }
    signable(registry, &business_id, limit.webhook_url.as_deref())?;
    if let Some(known) = plans.term(&business_id, limit.plan_id.as_deref(), &limit.metric_name)
        && known.limit_id != limit.limit_id
    {
        return Err(ControlError::PlanLimitExists);
    }
    match plans.limit(&business_id, &limit.limit_id) {
        Some(known) => {
            limit.created_at = known.created_at;
            if *known == limit {
                return Ok(Vec::new());
            }
        }
        None if must_exist => return Err(ControlError::NoSuchPlanLimit),
        None if plans.count_of(&business_id, limit.plan_id.as_deref()) >= LIMITS_MAX => {
            return Err(ControlError::TooMany { what: "limits of a plan, or defaults", max: LIMITS_MAX });
        }
        None => {}
    }
    let mut definitions = Vec::new();
    if let Some(plan_id) = limit.plan_id.as_deref() {
        let is_free = plans.free(&business_id).is_some_and(|free| free.plan_id == plan_id);
        for record in registry.customers(&business_id, None) {
            let is_on = plans.subscribed(record).is_some_and(|plan| plan.plan_id == plan_id);
            if is_on || is_free && record.details.subscription_ends_at.is_some() {
                definitions.extend(missing_series(registry, record, &[&limit], next_series, now)?);
            }
        }
    }
    definitions.push(Definition::PlanLimitPut(limit));
    Ok(definitions)
}

/// The series that limits need and a customer lacks, in the shape of the first limit that names them.
pub(super) fn missing_series(
    registry: &Registry,
    record: &CustomerRecord,
    limits: &[&PlanLimit],
    next_series: &mut SeriesId,
    now: Micros,
) -> Result<Vec<Definition>, ControlError> {
    let (business_id, customer_id) = (&record.customer.business_id, &record.customer.customer_id);
    let (mut definitions, mut begun) = (Vec::new(), HashSet::new());
    for limit in limits {
        let metric_name = &limit.metric_name;
        if registry.find(business_id, Some(customer_id), metric_name).is_some() || !begun.insert(metric_name)
        {
            continue;
        }
        let series = *next_series;
        next_series.0 = series.0.checked_add(1).ok_or(ControlError::Overloaded)?;
        let key = SeriesKey {
            business_id: business_id.clone(),
            customer_id: Some(customer_id.clone()),
            metric_name: metric_name.clone(),
        };
        let record = SeriesRecord { series, key, spec: limit.spec(), created_at: now };
        definitions.push(Definition::SeriesCreated(record));
    }
    Ok(definitions)
}
