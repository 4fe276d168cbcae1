//! Plans in the projection: what they are, their limits, who is on them. A part of what `definitions` works out and
//! writes, of which the rules hold.

use std::collections::{BTreeMap, BTreeSet};

use dataflows::types::{Plan, PlanLimit};

use super::definitions::{Pair, delete_named, put};
use super::{Session, Target};
use crate::store::StoreError;
use crate::store::records::{PlanLimitRow, PlanRow, PlannedRow};

const PUT_PLANS: &str = "
    INSERT INTO {schema}.plans
    SELECT * FROM json_populate_recordset(NULL::{schema}.plans, $1::text::json)
    ON CONFLICT (business_id, plan_id) DO UPDATE
    SET plan_name = excluded.plan_name, stripe_price_id = excluded.stripe_price_id, created_at = excluded.created_at";

const PUT_LIMITS: &str = "
    INSERT INTO {schema}.plan_limits
    SELECT * FROM json_populate_recordset(NULL::{schema}.plan_limits, $1::text::json)
    ON CONFLICT (business_id, limit_id) DO UPDATE
    SET plan_id = excluded.plan_id, metric_name = excluded.metric_name, limit_value = excluded.limit_value,
        limit_operator = excluded.limit_operator, breach_action = excluded.breach_action,
        notify_at = excluded.notify_at, webhook_url = excluded.webhook_url, limit_period = excluded.limit_period,
        metric_type = excluded.metric_type, operation = excluded.operation, created_at = excluded.created_at";

const PLAN_CUSTOMERS: &str = "
    UPDATE {schema}.customers AS known SET plan_id = new.plan_id
    FROM json_populate_recordset(NULL::{schema}.customers, $1::text::json) AS new
    WHERE known.business_id = new.business_id AND known.customer_id = new.customer_id";

/// What a stretch of definitions leaves behind of plans.
#[derive(Default)]
pub(super) struct LeftPlans<'a> {
    plans: BTreeMap<Pair<'a>, PlanRow>,
    limits: BTreeMap<Pair<'a>, PlanLimitRow>,
    planned: BTreeMap<Pair<'a>, PlannedRow>,
    gone_plans: BTreeSet<Pair<'a>>,
    gone_limits: BTreeSet<Pair<'a>>,
}

impl<'a> LeftPlans<'a> {
    pub fn put_plan(&mut self, plan: &'a Plan) {
        self.plans.insert((&plan.business_id, &plan.plan_id), plan.into());
    }

    /// Takes nothing along: its limits are deleted one by one, and nobody is on it.
    pub fn end_plan(&mut self, plan: Pair<'a>) {
        self.plans.remove(&plan);
        self.gone_plans.insert(plan);
    }

    pub fn put_limit(&mut self, limit: &'a PlanLimit) {
        self.limits.insert((&limit.business_id, &limit.limit_id), limit.into());
    }

    pub fn end_limit(&mut self, limit: Pair<'a>) {
        self.limits.remove(&limit);
        self.gone_limits.insert(limit);
    }

    pub fn plan_customer(&mut self, customer: Pair<'a>, plan_id: Option<&str>) {
        self.planned.insert(customer, PlannedRow::new(customer.0, customer.1, plan_id));
    }

    pub fn end_customer(&mut self, customer: Pair<'a>) {
        self.planned.remove(&customer);
    }

    /// What was there before is deleted with the rest of the business.
    pub fn end_business(&mut self, business_id: &str) {
        self.plans.retain(|(of, _), _| *of != business_id);
        self.limits.retain(|(of, _), _| *of != business_id);
        self.planned.retain(|(of, _), _| *of != business_id);
    }

    pub async fn delete(&self, session: &Session, target: &Target) -> Result<(), StoreError> {
        delete_named(session, target, "plan_limits", "limit_id", &self.gone_limits).await?;
        delete_named(session, target, "plans", "plan_id", &self.gone_plans).await
    }

    /// Once the customers are there.
    pub async fn put(self, session: &Session, target: &Target) -> Result<(), StoreError> {
        put(session, target, PUT_PLANS, self.plans.into_values()).await?;
        put(session, target, PUT_LIMITS, self.limits.into_values()).await?;
        put(session, target, PLAN_CUSTOMERS, self.planned.into_values()).await
    }
}
