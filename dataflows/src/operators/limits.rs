//! Limits: which limit applies to which series, maintained as relations change (semantics, section 8).
//!
//! ```text
//!   Customer ─┬ lapsed ⋈ free plan of the business ─▶ 0 ┐
//!             ├ its plan ──────────────────────────▶ 1 ├ least ─▶ assigned: customer → plan, or none
//!             ├ its price ⋈ plan of the price ──────▶ 2 │            │
//!             └ none ──────────────────────────────▶ 3 ┘            ⋈ customer
//!   Inherits: series of a customer without a limit of its own ───────┤
//!                                                                    ▼
//!   PlanLimit ────────────────────────▶ 0 ┐                  (plan, name) of each series
//!   Default ⋈ plans of the business ──▶ 1 ├ least ─▶ terms ──────────⋈
//!   Default, for those on no plan ────▶ 1 ┘                          ▼
//!   Own ─────────────────────────────────────────────────────▶ (series, limit)
//! ```
//!
//! The precedence between a plan's limit and the default is settled per (plan, name), of which there are few; a series
//! costs a row in the arrangement by customer and one in that by (plan, name), and no more. One changed limit touches
//! the series under its (plan, name); one changed customer touches its own series.
//!
//! In: facts, changed at the epochs of definitions and at those of time entries at which a subscription ends. Out: net
//! changes of the limit of series, on the worker that owns them. No I/O, no clock: whether a subscription has ended is
//! in the facts.

use differential_dataflow::VecCollection;
use timely::dataflow::operators::Exchange as _;

use differential_dataflow::AsCollection as _;

use crate::types::{EffectiveLimit, Epoch, Fact, Place};

type Facts<'graph, T> = VecCollection<'graph, Epoch, T, isize>;

/// The limits of all series that have one.
pub(crate) fn limits<'graph>(facts: Facts<'graph, Fact>) -> Facts<'graph, (Place, EffectiveLimit)> {
    let own = facts.clone().flat_map(|fact| match fact {
        Fact::Own { place, limit } => Some((place, limit)),
        _ => None,
    });
    let inherits = facts.clone().flat_map(|fact| match fact {
        Fact::Inherits { place, customer, name } => Some((customer, (name, place))),
        _ => None,
    });
    inherits
        .join_map(assigned(facts.clone()), |_customer, &(name, place), &plan| ((plan, name), place))
        .join_map(terms(facts), |_key, &place, &limit| (place, limit))
        .concat(own)
        .consolidate()
        .inner
        .exchange(|((place, _), _, _)| u64::from(place.series.0))
        .as_collection()
}

/// The effective plan of each customer.
fn assigned(facts: Facts<'_, Fact>) -> Facts<'_, (u32, Option<u32>)> {
    let customers = facts.clone().flat_map(|fact| match fact {
        Fact::Customer { customer, business, lapsed, plan, price } => {
            Some((customer, (business, lapsed, plan, price)))
        }
        _ => None,
    });
    let lapsed = customers
        .clone()
        .flat_map(|(customer, (business, lapsed, _, _))| lapsed.then_some((business, customer)));
    let priced = customers.clone().flat_map(|(customer, (_, _, plan, price))| {
        price.filter(|_| plan.is_none()).map(|it| (it, customer))
    });
    let free = facts.clone().flat_map(|fact| match fact {
        Fact::Plan { plan, business, price: None } => Some((business, plan)),
        _ => None,
    });
    let of_price = facts.flat_map(|fact| match fact {
        Fact::Plan { plan, price: Some(price), .. } => Some((price, plan)),
        _ => None,
    });
    let fallen = lapsed.join_map(free, |_business, &customer, &plan| (customer, (0u8, Some(plan))));
    let paying = priced.join_map(of_price, |_price, &customer, &plan| (customer, (2, Some(plan))));
    customers
        .flat_map(|(customer, (_, _, plan, _))| {
            let put = plan.map(|plan| (customer, (1, Some(plan))));
            put.into_iter().chain([(customer, (3, None))])
        })
        .concat(fallen)
        .concat(paying)
        .reduce(|_customer, ranked, least| least.push((ranked[0].0.1, 1)))
}

/// The limit of each (effective plan, name) that has one.
fn terms(facts: Facts<'_, Fact>) -> Facts<'_, ((Option<u32>, u32), EffectiveLimit)> {
    let of_plans = facts.clone().flat_map(|fact| match fact {
        Fact::PlanLimit { plan, name, limit } => Some(((Some(plan), name), (0u8, limit))),
        _ => None,
    });
    let plans = facts.clone().flat_map(|fact| match fact {
        Fact::Plan { plan, business, .. } => Some((business, plan)),
        _ => None,
    });
    let defaults = facts.flat_map(|fact| match fact {
        Fact::Default { business, name, limit } => Some((business, (name, limit))),
        _ => None,
    });
    let on_plans =
        defaults.clone().join_map(plans, |_business, &(name, limit), &plan| ((Some(plan), name), (1, limit)));
    defaults
        .map(|(_business, (name, limit))| ((None, name), (1, limit)))
        .concat(on_plans)
        .concat(of_plans)
        .reduce(|_key, ranked, least| least.push((ranked[0].0.1, 1)))
}
