//! Rows of `plans` and `plan_limits`, and the column of `customers` that says which plan one is on.

use dataflows::types::{Definition, Limit, LimitPeriod, Plan, PlanLimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{read_word, word};
use crate::store::text::{read_amount, read_time, time};

/// `plans`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct PlanRow {
    business_id: String,
    plan_id: String,
    plan_name: String,
    stripe_price_id: Option<String>,
    created_at: String,
}

/// `plan_limits`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct PlanLimitRow {
    business_id: String,
    limit_id: String,
    plan_id: Option<String>,
    metric_name: String,
    limit_value: String,
    limit_operator: Value,
    breach_action: Value,
    notify_at: Vec<u16>,
    webhook_url: Option<String>,
    limit_period: String,
    metric_type: Option<Value>,
    operation: Value,
    created_at: String,
}

/// The column of `customers` that says which plan one is on.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct PlannedRow {
    business_id: String,
    customer_id: String,
    plan_id: Option<String>,
}

impl From<&Plan> for PlanRow {
    fn from(plan: &Plan) -> Self {
        PlanRow {
            business_id: plan.business_id.clone(),
            plan_id: plan.plan_id.clone(),
            plan_name: plan.plan_name.clone(),
            stripe_price_id: plan.stripe_price_id.clone(),
            created_at: time(plan.created_at),
        }
    }
}

impl PlanRow {
    pub fn definition(self) -> Option<Definition> {
        let PlanRow { business_id, plan_id, plan_name, stripe_price_id, created_at } = self;
        let created_at = read_time(&created_at)?;
        Some(Definition::PlanPut(Plan { business_id, plan_id, plan_name, stripe_price_id, created_at }))
    }
}

impl From<&PlanLimit> for PlanLimitRow {
    fn from(limit: &PlanLimit) -> Self {
        PlanLimitRow {
            business_id: limit.business_id.clone(),
            limit_id: limit.limit_id.clone(),
            plan_id: limit.plan_id.clone(),
            metric_name: limit.metric_name.clone(),
            limit_value: limit.limit.value.to_string(),
            limit_operator: word(&limit.limit.operator),
            breach_action: word(&limit.limit.action),
            notify_at: limit.notify_at.clone(),
            webhook_url: limit.webhook_url.clone(),
            limit_period: limit.period.text().to_owned(),
            metric_type: limit.metric_type.as_ref().map(word),
            operation: word(&limit.operation),
            created_at: time(limit.created_at),
        }
    }
}

impl PlanLimitRow {
    pub fn definition(self) -> Option<Definition> {
        let limit = Limit {
            value: read_amount(&self.limit_value)?,
            operator: read_word(self.limit_operator)?,
            action: read_word(self.breach_action)?,
        };
        let metric_type = match self.metric_type {
            Some(word) => Some(read_word(word)?),
            None => None,
        };
        Some(Definition::PlanLimitPut(PlanLimit {
            business_id: self.business_id,
            limit_id: self.limit_id,
            plan_id: self.plan_id,
            metric_name: self.metric_name,
            limit,
            notify_at: self.notify_at,
            webhook_url: self.webhook_url,
            period: LimitPeriod::read(&self.limit_period)?,
            metric_type,
            operation: read_word(self.operation)?,
            created_at: read_time(&self.created_at)?,
        }))
    }
}

impl PlannedRow {
    pub fn new(business_id: &str, customer_id: &str, plan_id: Option<&str>) -> Self {
        PlannedRow {
            business_id: business_id.to_owned(),
            customer_id: customer_id.to_owned(),
            plan_id: plan_id.map(str::to_owned),
        }
    }

    /// None for a customer that is on no plan: nothing needs to say so.
    pub fn definition(self) -> Option<Definition> {
        let PlannedRow { business_id, customer_id, plan_id } = self;
        plan_id.is_some().then_some(Definition::CustomerPlanned { business_id, customer_id, plan_id })
    }
}
