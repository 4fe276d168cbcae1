//! What the limits graph is fed: rows of relations in which names are numbers. In: definitions before and after a change.
//! Out: rows that go and rows that come.
//!
//! A number belongs to a name as long as a row holds it, and may then be given again: rows of one epoch take effect
//! together.

use std::collections::HashMap;

use dataflows::types::{Fact, Place, Plan, PlanLimit, SeriesRecord};

use super::{CustomerRecord, SeriesHandle};

/// Numbers of names within businesses; a business itself is under the empty name.
#[derive(Default)]
struct Numbers {
    /// (number, how many rows hold it).
    known: HashMap<String, HashMap<String, (u32, u32)>>,
    free: Vec<u32>,
    next: u32,
}

impl Numbers {
    /// The number of a name, held by one row more (1) or less (-1).
    fn hold(&mut self, business_id: &str, name: &str, difference: isize) -> u32 {
        if !self.known.contains_key(business_id) {
            self.known.insert(business_id.to_owned(), HashMap::new());
        }
        let of_business = self.known.get_mut(business_id).expect("it is there now");
        let Some((number, rows)) = of_business.get_mut(name) else {
            let number = self.free.pop().unwrap_or_else(|| {
                self.next += 1;
                self.next
            });
            of_business.insert(name.to_owned(), (number, 1));
            return number;
        };
        let number = *number;
        *rows = rows.saturating_add_signed(difference as i32);
        if *rows == 0 {
            of_business.remove(name);
            self.free.push(number);
            if of_business.is_empty() {
                self.known.remove(business_id);
            }
        }
        number
    }
}

/// See the header.
#[derive(Default)]
pub(super) struct Facts {
    businesses: Numbers,
    customers: Numbers,
    metrics: Numbers,
    plans: Numbers,
    prices: Numbers,
    changed: Vec<(Fact, isize)>,
}

impl Facts {
    /// A series comes (1) or goes (-1).
    pub fn series(&mut self, handle: &SeriesHandle, difference: isize) {
        let SeriesRecord { key, spec, .. } = &*handle.record;
        let place = Place { series: handle.series, slot: handle.slot };
        let own = spec.own_limit().map(|limit| Fact::Own { place, limit });
        let fact = own.or_else(|| {
            let customer = self.customers.hold(&key.business_id, key.customer_id.as_deref()?, difference);
            let name = self.metrics.hold(&key.business_id, &key.metric_name, difference);
            Some(Fact::Inherits { place, customer, name })
        });
        self.changed.extend(fact.map(|fact| (fact, difference)));
    }

    /// A customer comes or goes.
    pub fn customer(&mut self, record: &CustomerRecord, lapsed: bool, difference: isize) {
        let (business_id, customer_id) = (&record.customer.business_id, &record.customer.customer_id);
        let price = record.details.stripe_price_id.as_deref();
        let fact = Fact::Customer {
            customer: self.customers.hold(business_id, customer_id, difference),
            business: self.businesses.hold(business_id, "", difference),
            lapsed,
            plan: record.plan_id.as_deref().map(|plan| self.plans.hold(business_id, plan, difference)),
            price: price.map(|price| self.prices.hold(business_id, price, difference)),
        };
        self.changed.push((fact, difference));
    }

    /// A plan comes or goes.
    pub fn plan(&mut self, plan: &Plan, difference: isize) {
        let price = plan.stripe_price_id.as_deref();
        let fact = Fact::Plan {
            plan: self.plans.hold(&plan.business_id, &plan.plan_id, difference),
            business: self.businesses.hold(&plan.business_id, "", difference),
            price: price.map(|price| self.prices.hold(&plan.business_id, price, difference)),
        };
        self.changed.push((fact, difference));
    }

    /// A limit of a plan, or a default, comes or goes.
    pub fn limit(&mut self, limit: &PlanLimit, difference: isize) {
        let name = self.metrics.hold(&limit.business_id, &limit.metric_name, difference);
        let fact = match &limit.plan_id {
            Some(plan_id) => {
                let plan = self.plans.hold(&limit.business_id, plan_id, difference);
                Fact::PlanLimit { plan, name, limit: limit.effective() }
            }
            None => {
                let business = self.businesses.hold(&limit.business_id, "", difference);
                Fact::Default { business, name, limit: limit.effective() }
            }
        };
        self.changed.push((fact, difference));
    }

    /// What has changed since the last call, rows that came and went left out.
    pub fn take(&mut self) -> Vec<(Fact, isize)> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        let net = changed.chunk_by(|(left, _), (right, _)| left == right);
        let net = net.map(|rows| (rows[0].0, rows.iter().map(|(_, difference)| difference).sum::<isize>()));
        net.filter(|(_, difference)| *difference != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_names_as_long_as_a_row_holds_it() {
        let mut numbers = Numbers::default();
        let first = numbers.hold("biz_1", "a", 1);
        assert_eq!(numbers.hold("biz_1", "a", 1), first);
        assert_ne!(numbers.hold("biz_2", "a", 1), first, "another business's name");
        assert_eq!(numbers.hold("biz_1", "a", -1), first);
        assert_ne!(numbers.hold("biz_1", "b", 1), first);
        assert_eq!(numbers.hold("biz_1", "a", -1), first);
        assert_eq!(numbers.hold("biz_1", "c", 1), first, "nobody held it any more");
    }
}
