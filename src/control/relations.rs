//! The registry's relations: customers, plans, limits and subscriptions, and the rows of the limits graph that follow them.
//!
//! In: definitions and time entries, in journal order. Out: facts, to be fetched behind each epoch; which limit a series
//! has, looked up one at a time for answers and for what a change would do.

use std::collections::BTreeMap;

use dataflows::types::{CustomerDetails, Definition, EffectiveLimit, Fact, Micros, PlanLimit};

use super::events::StripeEvents;
use super::lapses::{Lapses, Who};
use super::plans::Plans;
use super::{CustomerRecord, Registry, SeriesHandle};

impl Registry {
    /// Applies a definition of a customer, a plan or a limit.
    pub(super) fn apply_to_relations(&mut self, definition: &Definition) {
        match definition {
            Definition::CustomerPut(customer) => {
                let known = self.customer(&customer.business_id, &customer.customer_id);
                let (details, plan_id) = known
                    .map(|known| (known.details.clone(), known.plan_id.clone()))
                    .unwrap_or((CustomerDetails::default(), None));
                self.replace_customer(CustomerRecord { customer: customer.clone(), details, plan_id });
            }
            Definition::CustomerDescribed { business_id, customer_id, details } => {
                if let Some(known) = self.customer(business_id, customer_id).cloned() {
                    self.replace_customer(CustomerRecord { details: details.clone(), ..known });
                }
            }
            Definition::CustomerPlanned { business_id, customer_id, plan_id } => {
                if let Some(known) = self.customer(business_id, customer_id).cloned() {
                    self.replace_customer(CustomerRecord { plan_id: plan_id.clone(), ..known });
                }
            }
            Definition::CustomerDeleted { business_id, customer_id } => {
                self.end_customer(&(business_id.clone(), customer_id.clone()));
            }
            Definition::BusinessDeleted { business_id } => {
                let customers = self.customers.get(business_id).into_iter().flat_map(BTreeMap::keys);
                let customers: Vec<Who> =
                    customers.map(|customer_id| (business_id.clone(), customer_id.clone())).collect();
                customers.iter().for_each(|who| self.end_customer(who));
                self.customers.remove(business_id);
                let (plans, limits) = self.plans.forget(business_id);
                limits.iter().for_each(|limit| self.facts.limit(limit, -1));
                plans.iter().for_each(|plan| self.facts.plan(plan, -1));
            }
            Definition::PlanPut(plan) => {
                let before = self.plans.put_plan(plan);
                self.facts.plan(plan, 1);
                before.iter().for_each(|plan| self.facts.plan(plan, -1));
            }
            Definition::PlanDeleted { business_id, plan_id } => {
                let before = self.plans.end_plan(business_id, plan_id);
                before.iter().for_each(|plan| self.facts.plan(plan, -1));
            }
            Definition::PlanLimitPut(limit) => {
                let before = self.plans.put_limit(limit);
                self.facts.limit(limit, 1);
                before.iter().for_each(|limit| self.facts.limit(limit, -1));
            }
            Definition::PlanLimitDeleted { business_id, limit_id } => {
                let before = self.plans.end_limit(business_id, limit_id);
                before.iter().for_each(|limit| self.facts.limit(limit, -1));
            }
            _ => {}
        }
    }

    fn replace_customer(&mut self, record: CustomerRecord) {
        let who = (record.customer.business_id.clone(), record.customer.customer_id.clone());
        let lapsed_before = self.lapses.has_lapsed(&who.0, &who.1);
        self.lapses.set(&who, record.details.subscription_ends_at);
        let lapsed = self.lapses.has_lapsed(&who.0, &who.1);
        self.facts.customer(&record, lapsed, 1);
        let of_business = self.customers.entry(who.0).or_default();
        let before = of_business.insert(who.1, record.clone());
        before.iter().for_each(|before| self.subscriptions.link(before, false));
        self.subscriptions.link(&record, true);
        if let Some(before) = before {
            self.facts.customer(&before, lapsed_before, -1);
        }
    }

    fn end_customer(&mut self, who: &Who) {
        let known = self.customers.get_mut(&who.0).and_then(|of_business| of_business.remove(&who.1));
        if let Some(record) = known {
            self.facts.customer(&record, self.lapses.has_lapsed(&who.0, &who.1), -1);
            self.subscriptions.link(&record, false);
            self.lapses.set(who, None);
        }
    }

    /// The last time entry, by which new ends of subscriptions are judged.
    pub fn set_now(&mut self, at: Micros) {
        self.lapses.set_now(at);
        self.subscriptions.set_now(at);
    }

    /// A time entry: subscriptions that have ended by then lapse.
    pub fn pass(&mut self, at: Micros) {
        self.subscriptions.set_now(at);
        for (business_id, customer_id) in self.lapses.pass(at) {
            let of_business = self.customers.get(&business_id);
            if let Some(record) = of_business.and_then(|of_business| of_business.get(&customer_id)) {
                self.facts.customer(record, true, 1);
                self.facts.customer(record, false, -1);
            }
        }
    }

    /// When a time entry changes something here, in whole seconds: a subscription ends, or a billing period.
    pub fn timed_due_at(&self) -> Option<Micros> {
        self.lapses.due_at().into_iter().chain(self.subscriptions.due_at()).min()
    }

    /// What a snapshot keeps beside the definitions: who has lapsed.
    pub fn lapses(&self) -> &Lapses {
        &self.lapses
    }

    /// What `lapses` said at a snapshot, behind its definitions.
    pub fn restore_lapsed(&mut self, lapsed: Vec<Who>) {
        for (business_id, customer_id) in &lapsed {
            let is_new = !self.lapses.has_lapsed(business_id, customer_id);
            let of_business = self.customers.get(business_id);
            let record = of_business.and_then(|of_business| of_business.get(customer_id));
            if let Some(record) = record.filter(|_| is_new) {
                self.facts.customer(record, true, 1);
                self.facts.customer(record, false, -1);
            }
        }
        self.lapses.restore(lapsed);
    }

    /// Rows of the limits graph that came (1) and went (-1) since the last call.
    pub fn take_facts(&mut self) -> Vec<(Fact, isize)> {
        self.facts.take()
    }

    /// Events of Stripe.
    pub fn stripe_events(&self) -> &StripeEvents {
        &self.stripe_events
    }

    /// Plans and limits.
    pub fn plans(&self) -> &Plans {
        &self.plans
    }

    /// Whether the subscription of a customer has ended.
    pub fn has_lapsed(&self, record: &CustomerRecord) -> bool {
        self.lapses.has_lapsed(&record.customer.business_id, &record.customer.customer_id)
    }

    /// The limit that a series takes from its customer's plan or from the default, if it has none of its own.
    pub fn inherited_limit(&self, handle: &SeriesHandle) -> Option<&PlanLimit> {
        let key = &handle.record.key;
        let customer_id = key.customer_id.as_deref().filter(|_| handle.record.spec.limit.is_none())?;
        let record = self.customer(&key.business_id, customer_id)?;
        let plan = self.plans.effective(record, self.has_lapsed(record));
        self.plans.inherited(&key.business_id, plan, &key.metric_name)
    }

    /// The limit of a series, and why.
    pub fn effective_limit(&self, handle: &SeriesHandle) -> Option<EffectiveLimit> {
        let own = handle.record.spec.own_limit();
        own.or_else(|| self.inherited_limit(handle).map(PlanLimit::effective))
    }
}
