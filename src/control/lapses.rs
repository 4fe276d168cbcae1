//! Subscriptions that end: `subscription_ends_at` as a timed entry. In: ends, as customers are defined, and time entries.
//! Out: who has just lapsed.
//!
//! Time entries alone decide, each of which comes before the definitions and updates of its second, so that a replay decides
//! the same. What has been applied stays applied when the clock goes back; a new end is judged by the last time entry.

use std::collections::{BTreeSet, HashMap};

use dataflows::types::Micros;

/// A customer: (business, customer).
pub type Who = (String, String);

/// See the header.
#[derive(Default)]
pub struct Lapses {
    /// The last time entry.
    now: Micros,
    /// When the subscriptions end that have not.
    upcoming: BTreeSet<(Micros, Who)>,
    /// The end of each subscription that has one, and whether it has come.
    ends: HashMap<Who, (Micros, bool)>,
}

impl Lapses {
    /// A customer's subscription ends then, or never.
    pub(super) fn set(&mut self, who: &Who, ends_at: Option<Micros>) {
        if self.ends.get(who).map(|(known, _)| *known) == ends_at {
            return;
        }
        if let Some((known, _)) = self.ends.remove(who) {
            self.upcoming.remove(&(known, who.clone()));
        }
        if let Some(ends_at) = ends_at {
            let lapsed = ends_at <= self.now;
            self.ends.insert(who.clone(), (ends_at, lapsed));
            if !lapsed {
                self.upcoming.insert((ends_at, who.clone()));
            }
        }
    }

    /// The last time entry, at which nobody lapsed.
    pub(super) fn set_now(&mut self, at: Micros) {
        self.now = at;
    }

    /// A time entry: who lapses now.
    pub(super) fn pass(&mut self, at: Micros) -> Vec<Who> {
        self.now = at;
        let mut lapsed = Vec::new();
        while let Some((ends_at, who)) = self.upcoming.pop_first() {
            if ends_at > at {
                self.upcoming.insert((ends_at, who));
                break;
            }
            self.ends.insert(who.clone(), (ends_at, true));
            lapsed.push(who);
        }
        lapsed
    }

    /// Whether the subscription of a customer has ended.
    pub fn has_lapsed(&self, business_id: &str, customer_id: &str) -> bool {
        let who = (business_id.to_owned(), customer_id.to_owned());
        self.ends.get(&who).is_some_and(|(_, lapsed)| *lapsed)
    }

    /// The whole second at which the next one ends.
    pub(super) fn due_at(&self) -> Option<Micros> {
        self.upcoming.first().map(|(ends_at, _)| Micros::from_seconds(ends_at.seconds_up()))
    }

    /// Who has lapsed: what a snapshot keeps, since the clock may have gone back meanwhile.
    pub fn lapsed(&self) -> Vec<Who> {
        self.ends.iter().filter(|(_, (_, lapsed))| *lapsed).map(|(who, _)| who.clone()).collect()
    }

    /// What `lapsed` gave, behind the definitions.
    pub(super) fn restore(&mut self, lapsed: Vec<Who>) {
        for who in lapsed {
            if let Some((ends_at, has_lapsed)) = self.ends.get_mut(&who) {
                *has_lapsed = true;
                self.upcoming.remove(&(*ends_at, who));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> Who {
        ("biz_1".to_owned(), name.to_owned())
    }

    #[test]
    fn a_subscription_lapses_at_the_time_entry_behind_its_end_and_returns_when_extended() {
        let mut lapses = Lapses::default();
        lapses.pass(Micros(5));
        lapses.set(&who("a"), Some(Micros(10)));
        lapses.set(&who("b"), Some(Micros(5)));
        assert!(lapses.has_lapsed("biz_1", "b") && !lapses.has_lapsed("biz_1", "a"));
        assert_eq!(lapses.due_at(), Some(Micros(1_000_000)));
        assert_eq!(lapses.pass(Micros(9)), []);
        assert_eq!(lapses.pass(Micros(10)), [who("a")]);
        assert_eq!(lapses.pass(Micros(10)), []);
        lapses.set(&who("a"), Some(Micros(20)));
        assert!(!lapses.has_lapsed("biz_1", "a"));
        lapses.set(&who("a"), None);
        assert_eq!((lapses.pass(Micros(30)), lapses.due_at()), (vec![], None));
    }

    #[test]
    fn what_has_lapsed_stays_lapsed_when_the_clock_goes_back_also_over_a_snapshot() {
        let mut lapses = Lapses::default();
        lapses.set(&who("a"), Some(Micros(10)));
        lapses.pass(Micros(10));
        lapses.pass(Micros(1));
        assert!(lapses.has_lapsed("biz_1", "a"));
        let mut again = Lapses::default();
        again.pass(Micros(1));
        again.set(&who("a"), Some(Micros(10)));
        assert!(!again.has_lapsed("biz_1", "a"));
        again.restore(lapses.lapsed());
        assert!(again.has_lapsed("biz_1", "a"));
        assert_eq!(again.pass(Micros(20)), [], "it does not lapse twice");
    }
}
