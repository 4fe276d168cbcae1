//! The registry's plans: what is defined, and what follows for a customer (semantics, section 8). In: plans, limits,
//! customers. Out: the effective plan, the limit of a metric on it, the series that limits need.
//!
//! This looks one customer up at a time, for answers and for rules of definitions. Which limit meter holds a series to is
//! maintained apart, in the limits graph, from the same definitions.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use dataflows::types::{Action, Definition, Plan, PlanLimit};

use super::CustomerRecord;

/// See the header.
#[derive(Default)]
pub struct Plans {
    businesses: HashMap<String, OfBusiness>,
}

#[derive(Default)]
struct OfBusiness {
    plans: BTreeMap<String, Plan>,
    /// The plan of each price; of none: the free plan.
    prices: BTreeMap<Option<String>, String>,
    limits: BTreeMap<String, PlanLimit>,
    /// How many of the limits refuse updates.
    blocking: usize,
    /// By plan (none: defaults) and metric.
    terms: BTreeMap<(Option<String>, String), String>,
}

impl Plans {
    pub(super) fn put_plan(&mut self, plan: &Plan) -> Option<Plan> {
        let before = self.end_plan(&plan.business_id, &plan.plan_id);
        let of_business = self.businesses.entry(plan.business_id.clone()).or_default();
        of_business.prices.insert(plan.stripe_price_id.clone(), plan.plan_id.clone());
        of_business.plans.insert(plan.plan_id.clone(), plan.clone());
        before
    }

    pub(super) fn end_plan(&mut self, business_id: &str, plan_id: &str) -> Option<Plan> {
        let of_business = self.businesses.get_mut(business_id)?;
        let plan = of_business.plans.remove(plan_id)?;
        of_business.prices.remove(&plan.stripe_price_id);
        Some(plan)
    }

    pub(super) fn put_limit(&mut self, limit: &PlanLimit) -> Option<PlanLimit> {
        let before = self.end_limit(&limit.business_id, &limit.limit_id);
        let of_business = self.businesses.entry(limit.business_id.clone()).or_default();
        let key = (limit.plan_id.clone(), limit.metric_name.clone());
        of_business.blocking += usize::from(limit.limit.action == Action::Block);
        of_business.terms.insert(key, limit.limit_id.clone());
        of_business.limits.insert(limit.limit_id.clone(), limit.clone());
        before
    }

    pub(super) fn end_limit(&mut self, business_id: &str, limit_id: &str) -> Option<PlanLimit> {
        let of_business = self.businesses.get_mut(business_id)?;
        let limit = of_business.limits.remove(limit_id)?;
        of_business.blocking -= usize::from(limit.limit.action == Action::Block);
        of_business.terms.remove(&(limit.plan_id.clone(), limit.metric_name.clone()));
        Some(limit)
    }

    /// Everything of a business goes: its plans and limits.
    pub(super) fn forget(&mut self, business_id: &str) -> (Vec<Plan>, Vec<PlanLimit>) {
        let of_business = self.businesses.remove(business_id).unwrap_or_default();
        (of_business.plans.into_values().collect(), of_business.limits.into_values().collect())
    }

    /// Whether any limit of the business refuses updates.
    pub fn may_block(&self, business_id: &str) -> bool {
        self.businesses.get(business_id).is_some_and(|of_business| of_business.blocking > 0)
    }

    /// The plan of that id.
    pub fn plan(&self, business_id: &str, plan_id: &str) -> Option<&Plan> {
        self.businesses.get(business_id)?.plans.get(plan_id)
    }

    /// Plans of a business by id, strictly behind `after`.
    pub fn plans(&self, business_id: &str, after: Option<&str>) -> impl Iterator<Item = &Plan> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let of_business = self.businesses.get(business_id).into_iter();
        of_business
            .flat_map(move |of| of.plans.range::<str, _>((start, Bound::Unbounded)))
            .map(|(_, plan)| plan)
    }

    /// The limit of that id.
    pub fn limit(&self, business_id: &str, limit_id: &str) -> Option<&PlanLimit> {
        self.businesses.get(business_id)?.limits.get(limit_id)
    }

    /// Limits and defaults of a business by id, strictly behind `after`.
    pub fn limits(&self, business_id: &str, after: Option<&str>) -> impl Iterator<Item = &PlanLimit> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let of_business = self.businesses.get(business_id).into_iter();
        of_business.flat_map(move |of| of.limits.range::<str, _>((start, Bound::Unbounded))).map(|(_, it)| it)
    }

    /// The limit of a plan for a metric; without a plan the default.
    pub fn term(&self, business_id: &str, plan_id: Option<&str>, metric_name: &str) -> Option<&PlanLimit> {
        let of_business = self.businesses.get(business_id)?;
        let key = (plan_id.map(str::to_owned), metric_name.to_owned());
        of_business.limits.get(of_business.terms.get(&key)?)
    }

    /// The limits of a plan.
    pub fn limits_of(&self, business_id: &str, plan_id: &str) -> impl Iterator<Item = &PlanLimit> {
        self.terms_of(business_id, Some(plan_id))
    }

    /// How many limits a plan has; without a plan how many defaults there are.
    pub(super) fn count_of(&self, business_id: &str, plan_id: Option<&str>) -> usize {
        self.terms_of(business_id, plan_id).count()
    }

    fn terms_of(&self, business_id: &str, plan_id: Option<&str>) -> impl Iterator<Item = &PlanLimit> {
        let plan_id = plan_id.map(str::to_owned);
        let of_business = self.businesses.get(business_id).into_iter();
        of_business.flat_map(move |of| {
            let plan_id = plan_id.clone();
            let range = of.terms.range((plan_id.clone(), String::new())..);
            let own = range.take_while(move |((of_plan, _), _)| *of_plan == plan_id);
            own.filter_map(|(_, limit_id)| of.limits.get(limit_id))
        })
    }

    /// The plan without a price.
    pub fn free(&self, business_id: &str) -> Option<&Plan> {
        let of_business = self.businesses.get(business_id)?;
        of_business.plans.get(of_business.prices.get(&None)?)
    }

    /// The plan of a price.
    pub fn of_price(&self, business_id: &str, price_id: &str) -> Option<&Plan> {
        let of_business = self.businesses.get(business_id)?;
        of_business.plans.get(of_business.prices.get(&Some(price_id.to_owned()))?)
    }

    /// The plan that a customer was put on or pays for.
    pub fn subscribed(&self, record: &CustomerRecord) -> Option<&Plan> {
        let business_id = &record.customer.business_id;
        match &record.plan_id {
            Some(plan_id) => self.plan(business_id, plan_id),
            None => self.of_price(business_id, record.details.stripe_price_id.as_deref()?),
        }
    }

    /// The plan that counts for a customer, whose subscription has ended or not.
    pub fn effective(&self, record: &CustomerRecord, lapsed: bool) -> Option<&Plan> {
        let free = if lapsed { self.free(&record.customer.business_id) } else { None };
        free.or_else(|| self.subscribed(record))
    }

    /// The limits whose series a customer must have: those of its plan, and those of the free plan that it may fall to any
    /// moment.
    pub fn needed(&self, record: &CustomerRecord) -> Vec<&PlanLimit> {
        let business_id = record.customer.business_id.as_str();
        let falls_to = record.details.subscription_ends_at.and_then(|_| self.free(business_id));
        let plans = [self.subscribed(record), falls_to];
        plans.into_iter().flatten().flat_map(|plan| self.limits_of(business_id, &plan.plan_id)).collect()
    }

    /// The limit of a customer's metric that has none of its own, given the effective plan.
    pub fn inherited(&self, business_id: &str, plan: Option<&Plan>, metric_name: &str) -> Option<&PlanLimit> {
        let of_plan = plan.and_then(|plan| self.term(business_id, Some(&plan.plan_id), metric_name));
        of_plan.or_else(|| self.term(business_id, None, metric_name))
    }

    /// Definitions that bring all of it back.
    pub(super) fn export(&self) -> impl Iterator<Item = Definition> {
        let plans =
            self.businesses.values().flat_map(|of| of.plans.values().cloned().map(Definition::PlanPut));
        let limits = self.businesses.values().flat_map(|of| of.limits.values().cloned());
        plans.chain(limits.map(Definition::PlanLimitPut))
    }
}
