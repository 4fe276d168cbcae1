//! Who is next: slices in lanes, one lane for each customer's price, lanes by the account that they are billed in. In: slices,
//! and what became of calls. Out: lanes whose first slice may be sent now.
//!
//! A lane waits behind a failure, longer each time; an account whose calls fail one after the other waits as a whole and is
//! tried with a single call, so that a biller that is away is not flooded. Of each account so many calls are under way and so
//! many begin in a second. What this does not do: know what a slice is, or what time it is.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use dataflows::types::{Micros, Slice, SliceState};

use super::Waiting;

/// Calls of one account under way; `outbound` lets 64 of a business be.
const UNDER_WAY_PER_ACCOUNT: usize = 32;
/// Calls of one account that begin in a second: Stripe takes 1,000, and its owner calls it as well.
const CALLS_PER_SECOND: u32 = 300;
/// Failures in a row behind which an account waits.
const FAILURES_FREE: u32 = 3;
/// The longest pause of an account: one call finds out whether it is over.
const ACCOUNT_PAUSE_MAX: Duration = Duration::from_secs(30);
/// The first pause of a lane behind a failure; doubles.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause of a lane.
const PAUSE_MAX: Duration = Duration::from_secs(900);
const SECOND: Duration = Duration::from_secs(1);

/// What a lane is for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    pub business_id: String,
    pub stripe_customer_id: String,
    pub price_id: String,
}

/// The name of a lane. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey(Arc<Names>);

impl Deref for LaneKey {
    type Target = Names;
    fn deref(&self) -> &Names {
        &self.0
    }
}

/// A slice in its lane.
pub struct Item {
    pub slice: Arc<Slice>,
    /// As the books have it, or are about to.
    pub state: SliceState,
    /// Since when it may have arrived.
    pub sent_at: Option<Micros>,
    /// Whether an attempt before this one may have brought it.
    pub may_have_arrived: bool,
    /// Attempts whose answer the biller would repeat.
    pub failures: u32,
}

/// The slices of one customer's price, in order.
#[derive(Default)]
struct Lane {
    queue: VecDeque<Item>,
    due: Duration,
    failures: u32,
}

/// What is called with one account's credentials.
#[derive(Default)]
struct Account {
    /// Lanes without a call, by when they may have one.
    ready: BTreeSet<(Duration, LaneKey)>,
    under_way: usize,
    not_before: Duration,
    failures: u32,
    second: Duration,
    calls: u32,
}

/// See the header.
#[derive(Default)]
pub struct Lanes {
    lanes: HashMap<LaneKey, Lane>,
    accounts: HashMap<String, Account>,
    held: usize,
}

impl Lanes {
    /// Slices in lanes.
    pub fn held(&self) -> usize {
        self.held
    }

    /// A slice goes to the end of its lane.
    pub fn push(&mut self, waiting: Waiting) {
        let Waiting { slice, state, sent_at } = waiting;
        let key = LaneKey(Arc::new(Names {
            business_id: slice.business_id.clone(),
            stripe_customer_id: slice.stripe_customer_id.clone(),
            price_id: slice.price_id.clone(),
        }));
        let may_have_arrived = state != SliceState::New;
        self.held += 1;
        let lane = self.lanes.entry(key.clone()).or_default();
        lane.queue.push_back(Item { slice, state, sent_at, may_have_arrived, failures: 0 });
        if lane.queue.len() == 1 {
            let due = lane.due;
            self.account(&key).ready.insert((due, key));
        }
    }

    /// Lanes whose first slice may be sent now, at most `limit`. Each is waited for until it is told what was done about it.
    pub fn ready(&mut self, now: Duration, limit: usize) -> Vec<LaneKey> {
        let mut found = Vec::new();
        for account in self.accounts.values_mut().filter(|account| account.not_before <= now) {
            if now.saturating_sub(account.second) >= SECOND {
                (account.second, account.calls) = (now, 0);
            }
            let under_way_max = if account.failures >= FAILURES_FREE { 1 } else { UNDER_WAY_PER_ACCOUNT };
            let may_call = under_way_max.saturating_sub(account.under_way);
            let left = CALLS_PER_SECOND.saturating_sub(account.calls) as usize;
            for _ in 0..may_call.min(left).min(limit.saturating_sub(found.len())) {
                match account.ready.pop_first() {
                    Some((due, key)) if due <= now => found.push(key),
                    Some(later) => {
                        account.ready.insert(later);
                        break;
                    }
                    None => break,
                }
            }
        }
        found
    }

    /// The first slice of a lane.
    pub fn first_mut(&mut self, key: &LaneKey) -> Option<&mut Item> {
        self.lanes.get_mut(key)?.queue.front_mut()
    }

    /// Nothing is sent before then.
    pub fn hold(&mut self, key: &LaneKey, until: Duration) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.due = until;
            self.account(key).ready.insert((until, key.clone()));
        }
    }

    /// Lanes of a price that were held may go on.
    pub fn release(&mut self, business_id: &str, price_id: &str, now: Duration) {
        let Lanes { lanes, accounts, .. } = self;
        let Some(account) = accounts.get_mut(business_id) else { return };
        account.ready = std::mem::take(&mut account.ready)
            .into_iter()
            .map(|(due, key)| {
                let is_held =
                    key.price_id == price_id && lanes.get(&key).is_some_and(|lane| lane.failures == 0);
                (if is_held { now.min(due) } else { due }, key)
            })
            .collect();
    }

    /// A call of a lane has begun.
    pub fn begin(&mut self, key: &LaneKey) {
        let account = self.account(key);
        account.under_way += 1;
        account.calls += 1;
    }

    /// The call has brought something, and there is more to do about the same slice.
    pub fn answered(&mut self, key: &LaneKey, now: Duration) {
        self.account(key).under_way -= 1;
        self.hold(key, now);
    }

    /// Nothing more happens to the first slice, which is given back.
    pub fn settle(&mut self, key: &LaneKey, now: Duration) -> Option<Arc<Slice>> {
        let account = self.account(key);
        account.under_way -= 1;
        (account.failures, account.not_before) = (0, Duration::ZERO);
        let lane = self.lanes.get_mut(key)?;
        let item = lane.queue.pop_front()?;
        lane.failures = 0;
        self.held -= 1;
        if lane.queue.is_empty() {
            self.lanes.remove(key);
        } else {
            self.hold(key, now);
        }
        Some(item.slice)
    }

    /// The call was in vain; `after` is the least pause, if the biller says so.
    pub fn failed(&mut self, key: &LaneKey, now: Duration, after: Option<Duration>) {
        let account = self.account(key);
        account.under_way -= 1;
        account.failures += 1;
        if account.failures >= FAILURES_FREE {
            account.not_before = now + pause(account.failures - FAILURES_FREE).min(jitter(ACCOUNT_PAUSE_MAX));
        }
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.failures += 1;
        let until = now + pause(lane.failures - 1).max(after.unwrap_or_default());
        self.hold(key, until);
    }

    /// A lane whose business is gone.
    pub fn abandon(&mut self, key: &LaneKey) {
        if let Some(lane) = self.lanes.remove(key) {
            self.held -= lane.queue.len();
        }
    }

    /// How long nothing may be sent; none while there is nothing.
    pub fn due_in(&self, now: Duration) -> Option<Duration> {
        let first = |account: &Account| Some(account.ready.first()?.0.max(account.not_before));
        self.accounts.values().filter_map(first).min().map(|due| due.saturating_sub(now))
    }

    fn account(&mut self, key: &LaneKey) -> &mut Account {
        if !self.accounts.contains_key(&key.business_id) {
            self.accounts.insert(key.business_id.clone(), Account::default());
        }
        self.accounts.get_mut(&key.business_id).expect("it is there now")
    }
}

/// The pause behind so many failures before.
pub fn pause(failures: u32) -> Duration {
    jitter(PAUSE_MIN.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX))
}

/// From half of a pause to all of it, so that those who failed together do not come again together.
pub fn jitter(pause: Duration) -> Duration {
    // Without randomness they do; nothing else depends on it.
    let share = getrandom::u32().unwrap_or(u32::MAX);
    pause / 2 + pause.mul_f64(f64::from(share) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use dataflows::types::{Amount, SeriesId};

    use super::*;

    const T0: Duration = Duration::from_secs(100);

    fn waiting(customer: &str, number: u64) -> Waiting {
        let slice = Slice {
            identifier: format!("{customer}{number}"),
            series: SeriesId(1),
            business_id: "biz".into(),
            customer_id: customer.into(),
            metric_name: "m".into(),
            stripe_customer_id: customer.into(),
            price_id: "price".into(),
            period_start: None,
            number,
            quantity: 1,
            scale: Amount::from_units(1),
            remainder: Amount::ZERO,
            dated_at: Micros(0),
            cut_at: Micros(0),
        };
        Waiting { slice: Arc::new(slice), state: SliceState::New, sent_at: None }
    }

    /// Takes what is ready and begins its calls.
    fn begin(lanes: &mut Lanes, now: Duration) -> Vec<LaneKey> {
        let ready = lanes.ready(now, 1_000);
        ready.iter().for_each(|key| lanes.begin(key));
        ready
    }

    fn of(keys: &[LaneKey]) -> Vec<&str> {
        keys.iter().map(|key| key.stripe_customer_id.as_str()).collect()
    }

    #[test]
    fn a_customers_slices_go_one_at_a_time_in_order() {
        let mut lanes = Lanes::default();
        for (customer, number) in [("a", 0), ("a", 1), ("b", 0)] {
            lanes.push(waiting(customer, number));
        }
        let first = begin(&mut lanes, T0);
        assert_eq!(of(&first), ["a", "b"]);
        assert!(begin(&mut lanes, T0).is_empty(), "both have a call");
        lanes.push(waiting("b", 1));
        assert_eq!(lanes.settle(&first[0], T0).map(|slice| slice.number), Some(0));
        assert_eq!(of(&begin(&mut lanes, T0)), ["a"]);
        assert_eq!(lanes.settle(&first[0], T0).map(|slice| slice.number), Some(1));
        assert_eq!(lanes.settle(&first[1], T0).map(|slice| slice.number), Some(0));
        assert_eq!((lanes.held(), of(&begin(&mut lanes, T0))), (1, vec!["b"]));
    }

    #[test]
    fn a_lane_that_failed_waits_alone_and_an_account_that_fails_is_tried_with_one_call() {
        let mut lanes = Lanes::default();
        for customer in ["a", "b", "c", "d"] {
            lanes.push(waiting(customer, 0));
        }
        let keys = begin(&mut lanes, T0);
        lanes.failed(&keys[0], T0, Some(Duration::from_secs(7)));
        assert!(begin(&mut lanes, T0 + Duration::from_secs(6)).is_empty(), "as long as it was told");
        lanes.failed(&keys[1], T0, None);
        lanes.failed(&keys[2], T0, None);
        assert!(begin(&mut lanes, T0).is_empty());
        let later = T0 + Duration::from_secs(60);
        lanes.settle(&keys[3], T0);
        assert_eq!(begin(&mut lanes, later).len(), 3, "one has arrived");
        for key in &keys[..3] {
            lanes.failed(key, later, None);
        }
        let later = later + Duration::from_secs(60);
        assert_eq!(begin(&mut lanes, later).len(), 1, "three in a row: one call finds out");
    }

    #[test]
    fn calls_of_an_account_are_bounded_at_a_time_and_by_the_second() {
        let mut lanes = Lanes::default();
        (0..1_000).for_each(|number| lanes.push(waiting(&format!("c{number}"), 0)));
        let mut begun = 0;
        for _ in 0..50 {
            let keys = begin(&mut lanes, T0);
            assert!(keys.len() <= UNDER_WAY_PER_ACCOUNT);
            begun += keys.len() as u32;
            keys.iter().for_each(|key| drop(lanes.settle(key, T0)));
        }
        assert_eq!(begun, CALLS_PER_SECOND);
        assert!(!begin(&mut lanes, T0 + SECOND).is_empty());
    }

    #[test]
    fn pauses_double_and_are_bounded() {
        for (failures, most) in [(0, PAUSE_MIN), (1, PAUSE_MIN * 2), (5, PAUSE_MIN * 32), (40, PAUSE_MAX)] {
            let pause = pause(failures);
            assert!(pause >= most / 2 && pause <= most, "{failures}: {pause:?}");
        }
    }
}
