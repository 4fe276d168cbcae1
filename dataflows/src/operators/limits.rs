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
//! costs a row in the arrangement by customer and one in that by (plan, name), and no more: some 12 bytes each, and
//! twice 32 while a start sorts them. One changed limit touches the series under its (plan, name); one changed customer
//! touches its own series.
//!
//! In: facts, changed at the epochs of definitions and at those of time entries at which a subscription ends. Out:
//! changes of the limit of series, on the worker that owns them. They are not consolidated: what a series loses and gets
//! again at one epoch is among them, and a series' own limit comes as soon as it was handed in. No I/O, no clock:
//! whether a subscription has ended is in the facts.

use std::sync::Arc;

use differential_dataflow::input::{Input as _, InputSession};
use differential_dataflow::{AsCollection as _, VecCollection};
use timely::dataflow::Scope;
use timely::dataflow::operators::Exchange as _;

use crate::types::{EffectiveLimit, Epoch, Fact, Place};

type Facts<'graph, T> = VecCollection<'graph, Epoch, T, isize>;

/// A limit that a series gets or loses. Shared: as many rows hold one as it has series.
pub(crate) type Changed = (Place, Arc<EffectiveLimit>);

/// In the place of the plan of customers that are on none.
const NO_PLAN: u32 = u32::MAX;

/// Where facts go in. The million rows of one relation do not carry the width of the others.
pub(crate) struct Entrance {
    /// `Fact::Inherits`: (customer, (name, place)).
    inherits: InputSession<Epoch, (u32, (u32, Place)), isize>,
    /// All others.
    others: InputSession<Epoch, Fact, isize>,
}

impl Entrance {
    /// Changes of an epoch. Panics if it has been passed.
    pub fn enter(&mut self, epoch: Epoch, facts: impl Iterator<Item = (Fact, isize)>) {
        for (fact, difference) in facts {
            match fact {
                Fact::Inherits { place, customer, name } => {
                    self.inherits.update_at((customer, (name, place)), epoch, difference);
                }
                other => self.others.update_at(other, epoch, difference),
            }
        }
    }

    /// Nothing more comes at an epoch.
    pub fn pass(&mut self, epoch: Epoch) {
        self.inherits.advance_to(epoch + 1);
        self.inherits.flush();
        self.others.advance_to(epoch + 1);
        self.others.flush();
    }
}

/// The limits of all series that have one.
pub(crate) fn limits<'graph>(graph: Scope<'graph, Epoch>) -> (Entrance, Facts<'graph, Changed>) {
    let (inherits, of_customers) = graph.new_collection();
    let (others, facts) = graph.new_collection();
    let own = facts.clone().flat_map(|fact| match fact {
        Fact::Own { place, limit } => Some((place, Arc::new(limit))),
        _ => None,
    });
    let limits = of_customers
        .join_map(assigned(facts.clone()), |_customer, &(name, place), &plan| ((plan, name), place))
        .join_map(terms(facts), |_key, &place, limit| (place, limit.clone()))
        .concat(own)
        .inner
        .exchange(|((place, _), _, _)| u64::from(place.series.0))
        .as_collection();
    (Entrance { inherits, others }, limits)
}

/// The effective plan of each customer.
fn assigned(facts: Facts<'_, Fact>) -> Facts<'_, (u32, u32)> {
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
    let fallen = lapsed.join_map(free, |_business, &customer, &plan| (customer, (0u8, plan)));
    let paying = priced.join_map(of_price, |_price, &customer, &plan| (customer, (2, plan)));
    customers
        .flat_map(|(customer, (_, _, plan, _))| {
            let put = plan.map(|plan| (customer, (1, plan)));
            put.into_iter().chain([(customer, (3, NO_PLAN))])
        })
        .concat(fallen)
        .concat(paying)
        .reduce(|_customer, ranked, least| least.push((ranked[0].0.1, 1)))
}

/// The limit of each (effective plan, name) that has one.
fn terms(facts: Facts<'_, Fact>) -> Facts<'_, ((u32, u32), Arc<EffectiveLimit>)> {
    let of_plans = facts.clone().flat_map(|fact| match fact {
        Fact::PlanLimit { plan, name, limit } => Some(((plan, name), (0u8, Arc::new(limit)))),
        _ => None,
    });
    let plans = facts.clone().flat_map(|fact| match fact {
        Fact::Plan { plan, business, .. } => Some((business, plan)),
        _ => None,
    });
    let defaults = facts.flat_map(|fact| match fact {
        Fact::Default { business, name, limit } => Some((business, (name, Arc::new(limit)))),
        _ => None,
    });
    let on_plans = defaults
        .clone()
        .join_map(plans, |_business, (name, limit), &plan| ((plan, *name), (1, limit.clone())));
    defaults
        .map(|(_business, (name, limit))| ((NO_PLAN, name), (1, limit)))
        .concat(on_plans)
        .concat(of_plans)
        .reduce(|_key, ranked, least| least.push((ranked[0].0.1.clone(), 1)))
}
