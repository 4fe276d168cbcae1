//! Plans and plan limits (API section 5): `POST /api/v1/plans`, `POST /api/v1/plan_limits`, `PUT /api/v1/plan_limits/{id}`.
//!
//! In a PUT what is absent stays as it is, and `null` puts a field back to its default; the plan and the metric of a limit
//! are what it is, and do not change.

use dataflows::types::{Action, Limit, LimitPeriod, MetricType, Micros, Operation, Operator, PlanLimit};

use super::names::{self, ACTIONS, METRIC_TYPES, OPERATIONS, OPERATORS};
use super::object::{Object, Schema};
use super::series::{aliased, notify_at, set};
use super::{Fault, rules};

/// The fields of a plan.
pub const PLAN: Schema = Schema { path: "", known: &["plan_name", "stripe_price_id"], ignored: &[] };
/// The fields of a plan limit.
pub const LIMIT: Schema = Schema {
    path: "",
    known: &[
        "plan_id",
        "metric_name",
        "limit_value",
        "limit_operator",
        "breach_operator",
        "breach_action",
        "limit_period",
        "metric_type",
        "operation",
        "notify_at",
        "webhook_url",
    ],
    ignored: &[],
};

/// Every name of every period, as options.
pub fn periods() -> impl Iterator<Item = (&'static str, LimitPeriod)> + Clone {
    LimitPeriod::ALL.into_iter().flat_map(|(period, names)| names.iter().map(move |name| (*name, period)))
}

/// A plan as a POST asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPlan {
    /// `plan_name`.
    pub plan_name: String,
    /// `stripe_price_id`; none is the free plan.
    pub stripe_price_id: Option<String>,
}

impl NewPlan {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        // The schema ignores nothing, so nothing can be warned of; the same below.
        let object = Object::body(body, &PLAN, &mut Vec::new())?;
        Ok(NewPlan {
            plan_name: object.required("plan_name")?.named(names::text::<{ names::TEXT_BYTES_MAX }>)?,
            stripe_price_id: object
                .some("stripe_price_id")
                .map(|value| value.named(names::id))
                .transpose()?,
        })
    }
}

/// A limit as a POST asks for it: that of `business_id`, with an id and a time that it is to get.
pub fn new_limit(
    body: &[u8],
    business_id: &str,
    limit_id: String,
    created_at: Micros,
) -> Result<PlanLimit, Fault> {
    let object = Object::body(body, &LIMIT, &mut Vec::new())?;
    let plan_id = object.some("plan_id").map(|value| value.string()).transpose()?;
    let unlimited = PlanLimit {
        business_id: business_id.to_owned(),
        limit_id,
        plan_id: plan_id.filter(|plan_id| !plan_id.is_empty()).map(|plan_id| plan_id.into_owned()),
        metric_name: object.required("metric_name")?.named(names::metric_name)?,
        limit: Limit {
            value: object.required("limit_value")?.amount()?,
            operator: Operator::default(),
            action: Action::Deny,
        },
        notify_at: Vec::new(),
        webhook_url: None,
        period: LimitPeriod::default(),
        metric_type: None,
        operation: Operation::Sum,
        created_at,
    };
    apply(unlimited, &object)
}

/// A limit as a PUT leaves it.
pub fn changed_limit(body: &[u8], before: &PlanLimit) -> Result<PlanLimit, Fault> {
    let object = Object::body(body, &LIMIT, &mut Vec::new())?;
    for (field, known) in
        [("plan_id", before.plan_id.as_deref()), ("metric_name", Some(&*before.metric_name))]
    {
        let given =
            object.given(field).map(|value| if value.is_null() { Ok("".into()) } else { value.string() });
        if given.transpose()?.is_some_and(|given| given != known.unwrap_or_default()) {
            let detail = format!("{field} is what the limit is: make another one and delete this");
            return Err(Fault::unacceptable(field, "fixed", detail));
        }
    }
    let mut limit = before.clone();
    if let Some(value) = object.given("limit_value") {
        limit.limit.value = value.amount()?;
    }
    apply(limit, &object)
}

fn apply(mut limit: PlanLimit, object: &Object<'_>) -> Result<PlanLimit, Fault> {
    let operator = aliased(object, "limit_operator", "breach_operator", |it| it.choice(OPERATORS))?;
    limit.limit.operator = operator.map_or(limit.limit.operator, |given| given.unwrap_or_default());
    set(&mut limit.limit.action, object.given("breach_action"), Action::Deny, |it| it.choice(ACTIONS))?;
    set(&mut limit.period, object.given("limit_period"), LimitPeriod::default(), |it| it.choice(periods()))?;
    set(&mut limit.metric_type, object.given("metric_type"), None::<MetricType>, |it| {
        it.choice(METRIC_TYPES).map(Some)
    })?;
    set(&mut limit.operation, object.given("operation"), Operation::Sum, |it| it.choice(OPERATIONS))?;
    set(&mut limit.notify_at, object.given("notify_at"), Vec::new(), |it| notify_at(&it))?;
    set(&mut limit.webhook_url, object.given("webhook_url"), None, |it| it.named(names::url).map(Some))?;
    if limit.limit.action == Action::Block {
        rules::blockable(limit.limit.operator, limit.operation, ("limit_operator", "breach_action"))?;
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflows::types::Amount;

    fn parsed(body: &str) -> Result<PlanLimit, Fault> {
        new_limit(body.as_bytes(), "biz_1", "lim_1".to_owned(), Micros(0))
    }

    #[test]
    fn a_limit_denies_by_the_month_unless_it_says_otherwise() {
        let limit = parsed(r#"{"metric_name": "calls", "limit_value": 10}"#).expect("well-formed");
        assert_eq!(limit.limit.action, Action::Deny);
        assert_eq!((limit.limit.operator, limit.period), (Operator::Gte, LimitPeriod::Month));
        assert_eq!((limit.plan_id, limit.metric_type, limit.operation), (None, None, Operation::Sum));
        let limit = parsed(
            r#"{"metric_name": "calls", "limit_value": 0, "breach_operator": "gt", "plan_id": "plan_1",
                "limit_period": "realtime", "breach_action": "block", "notify_at": [100, 80]}"#,
        )
        .expect("well-formed");
        assert_eq!(limit.limit.value, Amount::ZERO);
        assert_eq!((limit.limit.operator, limit.limit.action), (Operator::Gt, Action::Block));
        assert_eq!((limit.period, limit.notify_at), (LimitPeriod::Lifetime, vec![80, 100]));
    }

    #[test]
    fn a_put_changes_what_it_names() {
        let before = parsed(r#"{"metric_name": "calls", "limit_value": 10, "notify_at": [80]}"#);
        let before = before.expect("well-formed");
        let after = changed_limit(br#"{"limit_value": 20, "metric_name": "calls"}"#, &before);
        let mut wanted = before.clone();
        wanted.limit.value = Amount::from_units(20);
        assert_eq!(after, Ok(wanted));
        for body in [r#"{"metric_name": "other"}"#, r#"{"plan_id": "plan_2"}"#] {
            let fault = changed_limit(body.as_bytes(), &before).expect_err(body);
            assert_eq!(fault.code, "fixed");
        }
    }

    #[test]
    fn whatever_is_wrong_names_its_field() {
        for (body, field, code) in [
            (r#"{"limit_value": 1}"#, "metric_name", "missing_field"),
            (r#"{"metric_name": "a"}"#, "limit_value", "missing_field"),
            (r#"{"metric_name": "a", "limit_value": "1"}"#, "limit_value", "wrong_type"),
            (r#"{"metric_name": "a", "limit_value": null}"#, "limit_value", "wrong_type"),
            (r#"{"metric_name": "a", "limit_value": 1e40}"#, "limit_value", "amount_out_of_range"),
            (
                r#"{"metric_name": "a", "limit_value": 1, "limit_operator": "ge"}"#,
                "limit_operator",
                "invalid_option",
            ),
            (
                r#"{"metric_name": "a", "limit_value": 1, "limit_operator": "gt", "breach_operator": "lt"}"#,
                "limit_operator",
                "conflicting_alias",
            ),
            (
                r#"{"metric_name": "a", "limit_value": 1, "breach_action": "stop"}"#,
                "breach_action",
                "invalid_option",
            ),
            (
                r#"{"metric_name": "a", "limit_value": 1, "limit_period": "yearly"}"#,
                "limit_period",
                "invalid_option",
            ),
            (
                r#"{"metric_name": "a", "limit_value": 1, "metric_type": "meter"}"#,
                "metric_type",
                "invalid_option",
            ),
            (
                r#"{"metric_name": "a", "limit_value": 1, "breach_action": "block", "operation": "AVG"}"#,
                "breach_action",
                "invalid_combination",
            ),
            (
                r#"{"metric_name": "a", "limit_value": 1, "breach_action": "block", "limit_operator": "eq"}"#,
                "limit_operator",
                "invalid_combination",
            ),
        ] {
            let fault = parsed(body).expect_err(body);
            assert_eq!((fault.field.as_deref(), fault.code), (Some(field), code), "{body}");
        }
    }
}
