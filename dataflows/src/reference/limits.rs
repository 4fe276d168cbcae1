//! Limits in the oracle: the effective limit of a series (semantics, section 8), by looking through all facts for it.
//!
//! | word | definition |
//! |---|---|
//! | facts | a multiset: a fact is there while it has come more often than it has gone |
//! | effective plan | lapsed: the plan of the business without a price; without that, or not lapsed: the plan the customer was put on; without that: the plan of its price; without that: none |
//! | effective limit | the series' own; without it the effective plan's for the name; without that the business's default for the name; without that: none |
//!
//! Nothing is kept but the facts: every question starts with all of them.

use std::collections::BTreeMap;

use crate::types::{EffectiveLimit, Fact, SeriesId};

/// The facts that are there.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    facts: BTreeMap<Fact, isize>,
}

impl Relations {
    /// A fact comes (1) or goes (-1).
    pub fn change(&mut self, fact: Fact, difference: isize) {
        *self.facts.entry(fact).or_default() += difference;
    }

    /// All that are there.
    pub fn facts(&self) -> impl Iterator<Item = Fact> {
        self.facts.iter().filter(|(_, times)| **times > 0).map(|(fact, _)| *fact)
    }

    /// The limit of a series, if it has one.
    pub fn effective(&self, id: SeriesId) -> Option<EffectiveLimit> {
        for fact in self.facts() {
            match fact {
                Fact::Own { place, limit } if place.series == id => return Some(limit),
                Fact::Inherits { place, customer, name } if place.series == id => {
                    return self.inherited(customer, name);
                }
                _ => {}
            }
        }
        None
    }

    fn inherited(&self, of: u32, wanted: u32) -> Option<EffectiveLimit> {
        let of_plan = self.effective_plan(of).and_then(|effective| {
            self.facts().find_map(|fact| match fact {
                Fact::PlanLimit { plan, name, limit } if (plan, name) == (effective, wanted) => Some(limit),
                _ => None,
            })
        });
        if of_plan.is_some() {
            return of_plan;
        }
        let mut businesses = self.facts().filter_map(|fact| match fact {
            Fact::Customer { customer, business, .. } if customer == of => Some(business),
            _ => None,
        });
        let owner = businesses.next()?;
        self.facts().find_map(|fact| match fact {
            Fact::Default { business, name, limit } if (business, name) == (owner, wanted) => Some(limit),
            _ => None,
        })
    }

    fn effective_plan(&self, of: u32) -> Option<u32> {
        let mut customers = self.facts().filter_map(|fact| match fact {
            Fact::Customer { customer, business, lapsed, plan, price } if customer == of => {
                Some((business, lapsed, plan, price))
            }
            _ => None,
        });
        let (owner, lapsed, put_on, pays) = customers.next()?;
        let free = self.facts().find_map(|fact| match fact {
            Fact::Plan { plan, business, price: None } if business == owner => Some(plan),
            _ => None,
        });
        if lapsed && free.is_some() {
            return free;
        }
        if put_on.is_some() {
            return put_on;
        }
        let wanted = pays?;
        self.facts().find_map(|fact| match fact {
            Fact::Plan { plan, price: Some(price), .. } if price == wanted => Some(plan),
            _ => None,
        })
    }
}
