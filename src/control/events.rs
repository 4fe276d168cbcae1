//! Stripe's events that were read, for 30 days: which have been seen, what each did, and which name a report that is still to
//! be had. In: events, in journal order.
//!
//! Stripe delivers an event for three days, so that forgetting the oldest of very many loses nothing.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use dataflows::types::{Definition, Micros, StripeEvent};

/// How long an event is remembered, in microseconds since it was received.
pub const REMEMBERED_MICROS: i64 = 30 * 86_400 * Micros::PER_SECOND;
/// Most events of a business that are remembered.
const EVENTS_MAX: usize = 100_000;

/// See the header.
#[derive(Default)]
pub struct StripeEvents {
    businesses: HashMap<String, OfBusiness>,
}

#[derive(Default)]
struct OfBusiness {
    /// Oldest first.
    events: VecDeque<StripeEvent>,
    ids: HashSet<String>,
    /// Those whose report is still to be had.
    awaited: BTreeSet<String>,
}

impl StripeEvents {
    /// An event that is known is read once more when its report is there.
    pub(super) fn put(&mut self, event: &StripeEvent) {
        let of_business = self.businesses.entry(event.business_id.clone()).or_default();
        let since = Micros(event.received_at.0 - REMEMBERED_MICROS);
        let OfBusiness { events, ids, awaited } = of_business;
        while events.len() >= EVENTS_MAX || events.front().is_some_and(|oldest| oldest.received_at < since) {
            let Some(oldest) = events.pop_front() else { break };
            ids.remove(&oldest.event_id);
            awaited.remove(&oldest.event_id);
        }
        if ids.insert(event.event_id.clone()) {
            events.push_back(event.clone());
        } else if let Some(known) = events.iter_mut().rfind(|known| known.event_id == event.event_id) {
            known.clone_from(event);
            awaited.remove(&event.event_id);
        }
    }

    pub(super) fn await_report(&mut self, business_id: &str, event_id: &str) {
        let of_business = self.businesses.get_mut(business_id);
        if let Some(known) = of_business.filter(|known| known.ids.contains(event_id)) {
            known.awaited.insert(event_id.to_owned());
        }
    }

    /// Whether the event names a report that is still to be had.
    pub fn is_awaited(&self, business_id: &str, event_id: &str) -> bool {
        self.businesses.get(business_id).is_some_and(|known| known.awaited.contains(event_id))
    }

    /// How many reports of a business are still to be had.
    pub fn awaited_of(&self, business_id: &str) -> usize {
        self.businesses.get(business_id).map_or(0, |known| known.awaited.len())
    }

    /// Reports that are still to be had, as business and event, in no order.
    pub fn awaited(&self) -> impl Iterator<Item = (&str, &str)> {
        self.businesses.iter().flat_map(|(business_id, known)| {
            known.awaited.iter().map(|event_id| (business_id.as_str(), event_id.as_str()))
        })
    }

    pub(super) fn forget(&mut self, business_id: &str) {
        self.businesses.remove(business_id);
    }

    /// The event of that id, if it was read.
    pub fn get(&self, business_id: &str, event_id: &str) -> Option<&StripeEvent> {
        let of_business = self.businesses.get(business_id)?;
        of_business.ids.get(event_id)?;
        of_business.events.iter().rfind(|event| event.event_id == event_id)
    }

    /// Whether it was read.
    pub fn contains(&self, business_id: &str, event_id: &str) -> bool {
        self.businesses.get(business_id).is_some_and(|of_business| of_business.ids.contains(event_id))
    }

    /// A page of them, newest first: those behind the event of that id, if it is still there.
    pub fn list(&self, business_id: &str, after: Option<&str>, limit: usize) -> Vec<StripeEvent> {
        let events = self.businesses.get(business_id).into_iter().flat_map(|known| known.events.iter().rev());
        let mut behind = after.is_none();
        let behind = move |event: &&StripeEvent| {
            let shown = behind;
            behind |= after == Some(event.event_id.as_str());
            shown
        };
        events.filter(behind).take(limit).cloned().collect()
    }

    /// The definitions that make this.
    pub(super) fn export(&self) -> impl Iterator<Item = Definition> {
        let events = self.businesses.values().flat_map(|known| &known.events);
        let awaited = self.awaited().map(|(business_id, event_id)| Definition::ReportAwaited {
            business_id: business_id.to_owned(),
            event_id: event_id.to_owned(),
        });
        events.cloned().map(Definition::StripeEventRead).chain(awaited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, day: i64) -> StripeEvent {
        let at = Micros::from_seconds(day * 86_400);
        StripeEvent {
            business_id: "biz_1".to_owned(),
            event_id: id.to_owned(),
            event_type: "invoice.created".to_owned(),
            created_at: at,
            received_at: at,
            applied: true,
            reason: String::new(),
        }
    }

    #[test]
    fn an_event_is_known_for_thirty_days_and_listed_newest_first() {
        let mut events = StripeEvents::default();
        ["a", "b", "c"].iter().zip([0, 1, 30]).for_each(|(id, day)| events.put(&event(id, day)));
        let ids = |after: Option<&str>, limit: usize| {
            let listed = events.list("biz_1", after, limit);
            listed.into_iter().map(|event| event.event_id).collect::<Vec<_>>()
        };
        assert_eq!(ids(None, 9), ["c", "b", "a"]);
        assert_eq!(ids(None, 2), ["c", "b"]);
        assert_eq!(ids(Some("b"), 9), ["a"]);
        assert!(events.contains("biz_1", "a") && !events.contains("biz_2", "a"));
        events.put(&event("d", 31));
        assert!(!events.contains("biz_1", "a") && events.contains("biz_1", "b"));
    }
}
