//! When billing periods end, and when they are final: subscriptions at Stripe as timed entries. In: subscriptions, ends and
//! finality that events told, and time entries. Out: where which series are cut, and what of them takes nothing more.
//!
//! ```text
//! series ─▶ customer ─▶ Stripe's customer ─▶ subscription ─▶ the item of the series' price: [start, end)
//! ```
//! A known end is cut into its series as soon as an event may be counted that belongs behind it (`LEAD`), exactly where it
//! is: what comes later for the time before still counts there. At the end itself the cut is made once more, so that the store
//! hears of the new period. An end that is past when it becomes known splits nothing, and a boundary at which an event has
//! ended the period of a series is not cut again. Time entries decide, as in `lapses`, and definitions by the last of them where
//! an end is that near already; a snapshot keeps what was decided. What events told is in the definitions.
//!
//! A series with a price follows the subscription that has it, another the newest of its customer; one that runs comes
//! before one that is over.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use dataflows::types::{
    BillingPeriodEnd, BillingPeriodFinal, Command, Definition, MetricType, Micros, SeriesId, Subscription,
    SubscriptionItem, SubscriptionStanding,
};
use serde::{Deserialize, Serialize};

use super::{CustomerRecord, Registry, SeriesFilter, SeriesHandle};

/// How far an event may be ahead of its arrival.
const LEAD_MICROS: i64 = 5 * 60 * Micros::PER_SECOND;

#[cfg(test)]
mod tests;

/// A price of a subscription: (business, subscription, price).
type Item = (String, String, String);

/// What time entries have decided: kept by a snapshot beside the definitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedPeriods {
    settled: Vec<(Item, Micros)>,
    ahead: Vec<(Micros, Item)>,
    passed: Vec<(SeriesId, Micros)>,
}

impl EndedPeriods {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.passed.is_empty()
    }
}

/// See the header.
#[derive(Default)]
pub struct Subscriptions {
    /// By business and id.
    known: HashMap<String, BTreeMap<String, Subscription>>,
    /// Our customers and the ids of subscriptions, by business and Stripe's id of the customer.
    parties: HashMap<(String, String), Party>,
    /// The last time entry.
    now: Micros,
    /// Ends that are known and have not been cut.
    upcoming: BTreeSet<(Micros, Item)>,
    /// Those that have been cut ahead.
    ahead: BTreeSet<(Micros, Item)>,
    /// The last end of each item that has been cut, or was past when it became known.
    settled: HashMap<Item, Micros>,
    /// The last boundary of each series at which time has ended its period.
    passed: HashMap<SeriesId, Micros>,
    /// The last one at which an event has.
    told: HashMap<SeriesId, Micros>,
    /// Up to where the periods of each series are final, as events told.
    finals: HashMap<SeriesId, Micros>,
}

#[derive(Default)]
struct Party {
    customers: BTreeSet<String>,
    subscriptions: BTreeSet<String>,
}

impl Subscriptions {
    /// The subscription, if an event has told of it.
    pub fn get(&self, business_id: &str, subscription_id: &str) -> Option<&Subscription> {
        self.known.get(business_id)?.get(subscription_id)
    }

    /// How many subscriptions of a business are known.
    pub fn count(&self, business_id: &str) -> usize {
        self.known.get(business_id).map_or(0, BTreeMap::len)
    }

    /// The subscriptions of one of Stripe's customers.
    pub fn of_customer(&self, business_id: &str, stripe_id: &str) -> impl Iterator<Item = &Subscription> {
        let party = self.parties.get(&(business_id.to_owned(), stripe_id.to_owned()));
        let ids = party.into_iter().flat_map(|party| &party.subscriptions);
        let known = self.known.get(business_id);
        ids.filter_map(move |id| known?.get(id))
    }

    /// Our customers that are this one of Stripe's.
    pub fn customers(&self, business_id: &str, stripe_id: &str) -> impl Iterator<Item = &String> {
        let party = self.parties.get(&(business_id.to_owned(), stripe_id.to_owned()));
        party.into_iter().flat_map(|party| &party.customers)
    }

    /// The last boundary at which a period of the series has ended, as far as Stripe told.
    pub fn last_end(&self, series: SeriesId) -> Option<Micros> {
        self.passed.get(&series).max(self.told.get(&series)).copied()
    }

    /// Whether the invoice of a period that ended then is final, as an event told.
    pub fn is_final(&self, series: SeriesId, end: Micros) -> bool {
        self.finals.get(&series).is_some_and(|until| end <= *until)
    }

    /// Up to where periods are final once the invoice of one that has ended at `boundary` is. One that an event has ended at
    /// that boundary was cut when the event came; every other was cut exactly where it ended.
    pub(super) fn final_until(&self, series: SeriesId, boundary: Micros, now: Micros) -> Micros {
        let is_cut_there = self.passed.get(&series).is_some_and(|passed| *passed >= boundary);
        let is_told = self.told.get(&series) == Some(&boundary);
        if is_told && !is_cut_there { now } else { boundary }
    }

    /// Whether the item's period ends then by itself.
    pub fn will_end(&self, subscription: &Subscription, item: &SubscriptionItem, at: Micros) -> bool {
        let end = (at, key(subscription, item));
        self.upcoming.contains(&end) || self.ahead.contains(&end)
    }

    fn put(&mut self, subscription: &Subscription) {
        let Subscription { business_id, subscription_id, .. } = subscription;
        self.forget(business_id, subscription_id);
        let party = (business_id.clone(), subscription.stripe_customer_id.clone());
        self.parties.entry(party).or_default().subscriptions.insert(subscription_id.clone());
        for item in subscription.items.iter().filter(|_| !subscription.is_simulated) {
            let Some((_, end)) = item.period else { continue };
            let stays = subscription.standing != SubscriptionStanding::Over
                || subscription.ends_at.is_some_and(|ends_at| ends_at >= end);
            let item = key(subscription, item);
            let is_settled = self.settled.get(&item).is_some_and(|settled| *settled >= end);
            if is_settled || !stays {
                continue;
            }
            if end > self.now {
                self.upcoming.insert((end, item));
            } else {
                self.settled.insert(item, end);
            }
        }
        let of_business = self.known.entry(business_id.clone()).or_default();
        of_business.insert(subscription_id.clone(), subscription.clone());
    }

    /// Takes a subscription out of everything but what has been cut.
    fn forget(&mut self, business_id: &str, subscription_id: &str) {
        let of_business = self.known.get_mut(business_id);
        let Some(known) = of_business.and_then(|known| known.remove(subscription_id)) else { return };
        for item in &known.items {
            if let Some((_, end)) = item.period {
                self.upcoming.remove(&(end, key(&known, item)));
            }
        }
        self.leave((known.business_id, known.stripe_customer_id), |party| {
            party.subscriptions.remove(subscription_id);
        });
    }

    /// Somebody, or a subscription, is not of one of Stripe's customers any more.
    fn leave(&mut self, name: (String, String), change: impl FnOnce(&mut Party)) {
        if let Entry::Occupied(mut party) = self.parties.entry(name) {
            change(party.get_mut());
            if party.get().customers.is_empty() && party.get().subscriptions.is_empty() {
                party.remove();
            }
        }
    }

    fn forget_business(&mut self, business_id: &str) {
        let ids: Vec<String> =
            self.known.get(business_id).into_iter().flat_map(BTreeMap::keys).cloned().collect();
        ids.iter().for_each(|id| self.forget(business_id, id));
        self.known.remove(business_id);
        self.settled.retain(|(of, ..), _| of != business_id);
        self.ahead.retain(|(_, (of, ..))| of != business_id);
        self.parties.retain(|(of, _), _| of != business_id);
    }

    /// A customer of ours is that one of Stripe's, or is none any more.
    pub(super) fn link(&mut self, record: &CustomerRecord, is_linked: bool) {
        let Some(stripe_id) = record.details.stripe_customer_id.clone() else { return };
        let customer = &record.customer;
        let party = (customer.business_id.clone(), stripe_id);
        if is_linked {
            self.parties.entry(party).or_default().customers.insert(customer.customer_id.clone());
        } else {
            self.leave(party, |party| {
                party.customers.remove(&customer.customer_id);
            });
        }
    }

    pub(super) fn set_now(&mut self, at: Micros) {
        self.now = at;
    }

    /// What is to be cut by a time entry, and where: for the first time, or once more.
    fn pass(&mut self, at: Micros) -> Vec<(Item, Micros)> {
        self.now = at;
        let mut due = Vec::new();
        while let Some((end, item)) = self.upcoming.pop_first() {
            if end.0 - LEAD_MICROS > at.0 {
                self.upcoming.insert((end, item));
                break;
            }
            self.settled.insert(item.clone(), end);
            if end > at {
                self.ahead.insert((end, item.clone()));
            }
            due.push((item, end));
        }
        while let Some((end, item)) = self.ahead.pop_first() {
            if end > at {
                self.ahead.insert((end, item));
                break;
            }
            due.push((item, end));
        }
        due
    }

    pub(super) fn due_at(&self) -> Option<Micros> {
        let cut = self.upcoming.first().map(|(end, _)| Micros(end.0 - LEAD_MICROS));
        let told = self.ahead.first().map(|(end, _)| *end);
        cut.into_iter().chain(told).min().map(|at| Micros::from_seconds(at.seconds_up()))
    }

    pub(super) fn forget_series(&mut self, series: SeriesId) {
        self.passed.remove(&series);
        self.told.remove(&series);
        self.finals.remove(&series);
    }

    /// What a snapshot keeps beside the definitions.
    pub fn ended_periods(&self) -> EndedPeriods {
        EndedPeriods {
            settled: self.settled.iter().map(|(item, end)| (item.clone(), *end)).collect(),
            ahead: self.ahead.iter().cloned().collect(),
            passed: self.passed.iter().map(|(series, end)| (*series, *end)).collect(),
        }
    }

    /// What `ended_periods` gave, behind the definitions.
    pub fn restore(&mut self, ended: EndedPeriods) {
        self.settled.extend(ended.settled);
        let settled = &self.settled;
        self.upcoming.retain(|(end, item)| settled.get(item).is_none_or(|settled| settled < end));
        self.ahead.extend(ended.ahead);
        self.passed.extend(ended.passed);
    }

    /// The definitions that make this, but for what time has decided.
    pub(super) fn export(&self) -> impl Iterator<Item = Definition> {
        let known = self.known.values().flat_map(BTreeMap::values).cloned().map(Definition::SubscriptionPut);
        let told = self.told.iter().map(|(&series, &boundary)| {
            Definition::BillingPeriodEnded(BillingPeriodEnd { series, boundary })
        });
        let finals = self
            .finals
            .iter()
            .map(|(&series, &until)| Definition::BillingPeriodFinal(BillingPeriodFinal { series, until }));
        known.chain(told).chain(finals)
    }
}

/// The greatest moment of a series stays.
fn note(last: &mut HashMap<SeriesId, Micros>, series: SeriesId, boundary: Micros) {
    let last = last.entry(series).or_insert(boundary);
    *last = boundary.max(*last);
}

fn key(subscription: &Subscription, item: &SubscriptionItem) -> Item {
    (subscription.business_id.clone(), subscription.subscription_id.clone(), item.price_id.clone())
}

impl Registry {
    /// Subscriptions and the ends of billing periods.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// What `Subscriptions::ended_periods` gave at a snapshot, behind its definitions.
    pub fn restore_ended_periods(&mut self, ended: EndedPeriods) {
        self.subscriptions.restore(ended);
    }

    pub(super) fn apply_to_billing(&mut self, definition: &Definition) {
        match definition {
            Definition::SubscriptionPut(subscription) => self.subscriptions.put(subscription),
            Definition::BillingPeriodEnded(BillingPeriodEnd { series, boundary }) => {
                note(&mut self.subscriptions.told, *series, *boundary);
            }
            Definition::BillingPeriodFinal(BillingPeriodFinal { series, until }) => {
                note(&mut self.subscriptions.finals, *series, *until);
            }
            Definition::StripeEventRead(event) => self.stripe_events.put(event),
            Definition::ReportAwaited { business_id, event_id } => {
                self.stripe_events.await_report(business_id, event_id);
            }
            Definition::BusinessDeleted { business_id } => {
                self.subscriptions.forget_business(business_id);
                self.stripe_events.forget(business_id);
            }
            _ => {}
        }
    }

    /// A time entry: what it cuts, by worker. Behind `pass`.
    pub fn end_periods(&mut self, at: Micros) -> Vec<(usize, Command)> {
        let mut commands = Vec::new();
        for ((business_id, subscription_id, price_id), end) in self.subscriptions.pass(at) {
            let Some(subscription) = self.subscriptions.get(&business_id, &subscription_id) else { continue };
            let follows = |handle: &SeriesHandle| {
                self.followed(handle).is_some_and(|(followed, item)| {
                    followed.subscription_id == subscription_id && item.price_id == price_id
                })
            };
            let series: Vec<SeriesHandle> =
                self.billed_series(&business_id, &subscription.stripe_customer_id).filter(follows).collect();
            for SeriesHandle { series, slot, .. } in series {
                let Subscriptions { told, passed, .. } = &mut self.subscriptions;
                let is_told = told.get(&series).is_some_and(|told| *told >= end);
                if !is_told && passed.get(&series).is_none_or(|passed| *passed <= end) {
                    note(passed, series, end);
                    self.slices.note_ended(series);
                    commands.push((series.worker(self.workers), Command::Cut { slot, at: Some(end) }));
                }
            }
        }
        commands
    }

    /// Behind the definitions of a store, which does not know what time has decided: what had begun by now, began in time.
    pub fn assume_periods(&mut self, now: Micros) {
        let begun = self.series().filter_map(|handle| {
            let (start, _) = self.followed(handle)?.1.period?;
            (start <= now).then_some((handle.series, start))
        });
        let begun: Vec<_> = begun.collect();
        begun.into_iter().for_each(|(series, start)| note(&mut self.subscriptions.passed, series, start));
    }

    /// The series that one of Stripe's customers is billed by.
    pub fn billed_series(&self, business_id: &str, stripe_id: &str) -> impl Iterator<Item = SeriesHandle> {
        let customers = self.subscriptions.customers(business_id, stripe_id);
        customers.flat_map(|customer_id| self.billed_series_of(business_id, customer_id))
    }

    /// The series that one of our customers is billed by.
    pub(super) fn billed_series_of(
        &self,
        business_id: &str,
        customer_id: &str,
    ) -> impl Iterator<Item = SeriesHandle> + use<> {
        let (business_id, customer_id) = (business_id.to_owned(), Some(customer_id.to_owned()));
        let filter = SeriesFilter { business_id, customer_id, ..SeriesFilter::default() };
        let series = self.list(&filter, None, usize::MAX).into_iter();
        series.filter(|handle| handle.record.spec.metric_type == MetricType::StripeBilling)
    }

    /// Where the live period of a series that began at `start` has ended by `now`, as far as it ends by itself: also while the
    /// time entry that cuts it is yet to be written, or has not come to its worker.
    pub(super) fn ended_at(
        &self,
        handle: &SeriesHandle,
        start: Option<Micros>,
        now: Micros,
    ) -> Option<Micros> {
        let subscriptions = &self.subscriptions;
        let passed = subscriptions.passed.get(&handle.series).copied();
        let coming = self.followed(handle).and_then(|(subscription, item)| {
            let (_, end) = item.period?;
            subscriptions.will_end(subscription, item, end).then_some(end)
        });
        let coming =
            coming.filter(|end| subscriptions.told.get(&handle.series).is_none_or(|told| told < end));
        let is_its = |end: &Micros| *end <= now && start.is_none_or(|start| start < *end);
        passed.into_iter().chain(coming).filter(is_its).min()
    }

    /// The subscription that a series follows, and what of it.
    pub fn followed(&self, handle: &SeriesHandle) -> Option<(&Subscription, &SubscriptionItem)> {
        let key = &handle.record.key;
        let record = self.customer(&key.business_id, key.customer_id.as_deref()?)?;
        let stripe_id = record.details.stripe_customer_id.as_deref()?;
        let price_id = price_of(handle);
        let items = self.subscriptions.of_customer(&key.business_id, stripe_id).filter_map(|subscription| {
            let item = item_of(subscription, price_id)?;
            Some((subscription, item))
        });
        items.max_by_key(|(subscription, _)| {
            let is_over = subscription.standing == SubscriptionStanding::Over;
            (Reverse(is_over), subscription.created_at, &subscription.subscription_id)
        })
    }
}

/// The price that a series is billed by, if it says.
pub(super) fn price_of(handle: &SeriesHandle) -> Option<&str> {
    handle.record.spec.stripe.as_ref()?.price_id.as_deref()
}

/// The item that a series with this price follows, or one without.
pub(super) fn item_of<'a>(
    subscription: &'a Subscription,
    price_id: Option<&str>,
) -> Option<&'a SubscriptionItem> {
    match price_id {
        Some(price_id) => subscription.items.iter().find(|item| item.price_id == price_id),
        None => {
            let with_period = subscription.items.iter().find(|item| item.period.is_some());
            with_period.or(subscription.items.first())
        }
    }
}
