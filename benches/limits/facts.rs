//! A tenant: customers on plans with a limit for each of ten metrics, and a series of each for every customer.

use std::iter::{once, repeat_n};

use dataflows::types::{
    Action, Amount, EffectiveLimit, Fact, Limit, LimitSource, Notify, Operator, Place, SeriesId,
};

/// Metrics of a plan.
pub const NAMES: u32 = 10;
/// Plans, each with a price.
pub const PLANS: u32 = 20;
const BUSINESS: u32 = 1;

/// Far away, so that no update is past it.
fn limit(units: i64) -> EffectiveLimit {
    let value = Amount::from_units(units);
    let limit = Limit { value, operator: Operator::Gte, action: Action::Deny };
    EffectiveLimit { limit, source: LimitSource::Plan, notify: Notify::new(&[80, 100]) }
}

/// The row of a plan's limit: another on each plan, and with each edit.
pub fn plan_limit(plan: u32, name: u32, edit: i64) -> Fact {
    Fact::PlanLimit { plan, name, limit: limit(1_000_000_000 + 1_000 * i64::from(plan) + edit) }
}

/// The row of a customer that is on a plan.
pub fn customer(customer: u32, plan: u32) -> Fact {
    Fact::Customer { customer, business: BUSINESS, lapsed: false, plan: Some(plan), price: Some(plan) }
}

/// All facts of so many series over so many workers. Names are limited or not.
pub fn all(series: u32, workers: u32, is_limited: bool) -> Vec<(Fact, isize)> {
    let customers = (0..series / NAMES).map(|it| customer(it, it % PLANS));
    let inherits = (0..series).map(|it| Fact::Inherits {
        place: Place { series: SeriesId(it), slot: it / workers },
        customer: it / NAMES,
        name: it % NAMES,
    });
    let plans = (0..PLANS).map(|plan| Fact::Plan { plan, business: BUSINESS, price: Some(plan) });
    let free = once(Fact::Plan { plan: PLANS, business: BUSINESS, price: None });
    let names = (0..PLANS).flat_map(|plan| (0..NAMES).zip(repeat_n(plan, NAMES as usize)));
    let limits = names.filter(|_| is_limited).map(|(name, plan)| plan_limit(plan, name, 0));
    plans.chain(free).chain(limits).chain(customers).chain(inherits).map(|fact| (fact, 1)).collect()
}
