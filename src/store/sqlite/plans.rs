//! The projection of plans: what they are, their limits, who is on them. A part of `definitions`, of which the rules hold.

use dataflows::types::{Plan, PlanLimit};
use rusqlite::params;

use super::super::text::time;
use super::definitions::{Run, json, word};

pub(super) fn put_plan(run: Run<'_>, plan: &Plan) -> rusqlite::Result<()> {
    run(
        "INSERT OR REPLACE INTO plans VALUES (?1, ?2, ?3, ?4, ?5)",
        params![plan.business_id, plan.plan_id, plan.plan_name, plan.stripe_price_id, time(plan.created_at)],
    )
}

/// Takes nothing along: its limits are deleted one by one, and nobody is on it.
pub(super) fn end_plan(run: Run<'_>, business_id: &str, plan_id: &str) -> rusqlite::Result<()> {
    run("DELETE FROM plans WHERE business_id = ?1 AND plan_id = ?2", params![business_id, plan_id])
}

pub(super) fn put_limit(run: Run<'_>, limit: &PlanLimit) -> rusqlite::Result<()> {
    run(
        "INSERT OR REPLACE INTO plan_limits VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            limit.business_id,
            limit.limit_id,
            limit.plan_id,
            limit.metric_name,
            limit.limit.value.to_string(),
            word(&limit.limit.operator),
            word(&limit.limit.action),
            json(&limit.notify_at),
            limit.webhook_url,
            limit.period.text(),
            limit.metric_type.as_ref().map(word),
            word(&limit.operation),
            time(limit.created_at),
        ],
    )
}

pub(super) fn end_limit(run: Run<'_>, business_id: &str, limit_id: &str) -> rusqlite::Result<()> {
    run("DELETE FROM plan_limits WHERE business_id = ?1 AND limit_id = ?2", params![business_id, limit_id])
}

pub(super) fn plan_customer(
    run: Run<'_>,
    business_id: &str,
    customer_id: &str,
    plan_id: Option<&str>,
) -> rusqlite::Result<()> {
    run(
        "UPDATE customers SET plan_id = ?3 WHERE business_id = ?1 AND customer_id = ?2",
        params![business_id, customer_id, plan_id],
    )
}

pub(super) fn end_business(run: Run<'_>, business_id: &str) -> rusqlite::Result<()> {
    run("DELETE FROM plan_limits WHERE business_id = ?1", params![business_id])?;
    run("DELETE FROM plans WHERE business_id = ?1", params![business_id])
}
