//! What Stripe says in the quarter and when it comes: subscriptions with their renewals, invoices twice each, most events
//! soon, some late, some twice, none in order; and while the endpoint cannot be reached, all of them behind that.

use serde_json::Value;

use super::super::support::Random;
use super::super::support::stripe::events::Version::{Basil, Older};
use super::super::support::stripe::events::{event, invoice, subscription};
use super::model::{DAY, HOUR, MINUTE, SECOND};

/// How long events are lost for.
const LOST: i64 = 2 * DAY;
/// How long behind an invoice's making it is final at Stripe.
const FINAL_SECS: i64 = 3_660;

/// How long the periods of a subscription are.
#[derive(Clone, Copy)]
pub enum Cycle {
    Days(i64),
    Months,
}

/// Something that bills a customer: a subscription, or what has invoices only.
pub struct Contract {
    pub id: &'static str,
    pub customer: &'static str,
    pub stripe_customer: &'static str,
    pub price: &'static str,
    pub begins_at: i64,
    pub cycle: Cycle,
    /// Whether events about it are sent at all.
    pub is_told: bool,
}

/// What an event says.
#[derive(Clone, Copy, Debug)]
pub enum What {
    Subscription { id: &'static str, price: &'static str, start: i64, end: i64, is_new: bool },
    Invoice { id: &'static str, boundary: i64 },
}

/// An event. Times are in microseconds.
#[derive(Clone, Debug)]
pub struct Told {
    pub id: String,
    pub customer: &'static str,
    pub at: i64,
    pub what: What,
    pub event: Value,
}

impl Cycle {
    /// The period that begins then ends where the next one begins.
    fn nth(self, begins_at: i64, nth: i64) -> i64 {
        match self {
            Cycle::Days(days) => begins_at + nth * days * DAY,
            // The quarter begins early in a January, so that no day of a month is missing in another.
            Cycle::Months => begins_at + [0, 31, 59, 90, 120, 151][nth as usize] * DAY,
        }
    }
}

/// All that Stripe says about a contract until then.
pub fn events(contract: &Contract, until: i64) -> Vec<Told> {
    let Contract { id, customer, stripe_customer, price, begins_at, cycle, is_told } = *contract;
    let mut all = Vec::new();
    let mut nth = 0;
    while cycle.nth(begins_at, nth) < until {
        let (start, end) = (cycle.nth(begins_at, nth), cycle.nth(begins_at, nth + 1));
        let (start_secs, end_secs, first_secs) = (start / SECOND, end / SECOND, begins_at / SECOND);
        let version = if (nth + price.len() as i64) % 3 == 0 { Older } else { Basil };
        let mut tell = |name: &str, kind: &str, at: i64, what: What, object: Value| {
            let event_id = format!("evt_{id}_{nth}_{name}");
            let event = event(&event_id, kind, at / SECOND, object);
            all.push(Told { id: event_id, customer, at, what, event });
        };
        let now = || {
            let item = [(price, start_secs, end_secs)];
            subscription(version, (id, stripe_customer, "active"), first_secs, &item)
        };
        if is_told {
            let kind =
                if nth == 0 { "customer.subscription.created" } else { "customer.subscription.updated" };
            let what = What::Subscription { id, price, start, end, is_new: nth == 0 };
            tell("begun", kind, start, what, now());
            // Something else about it has changed.
            let what = What::Subscription { id, price, start, end, is_new: false };
            tell("same", "customer.subscription.updated", start + (end - start) / 3, what, now());
        }
        let reason = if nth == 0 && is_told { "subscription_create" } else { "subscription_cycle" };
        let names = (&*format!("in_{id}_{nth}"), stripe_customer, id, reason);
        let made = invoice(version, names, start_secs, &[(price, start_secs, end_secs)]);
        let what = What::Invoice { id, boundary: start };
        tell("made", "invoice.created", start, what, made.clone());
        tell("final", "invoice.finalized", start + FINAL_SECS * SECOND, what, made);
        nth += 1;
    }
    all
}

/// When each of them is delivered: (time, index), each at least once. What happens while they are lost from one of `lost` on comes
/// within hours behind that.
pub fn deliveries(told: &[Told], lost: &[i64], random: &mut Random) -> Vec<(i64, usize)> {
    let mut all = Vec::new();
    for (index, event) in told.iter().enumerate() {
        let copies = if random.one_in(4) { 2 } else { 1 };
        for copy in 0..copies {
            let seconds = match random.below(20) {
                0..12 => random.below(5),
                12..16 => random.below(2_400),
                16..19 => random.below(6 * 3_600),
                _ => random.below(20 * 3_600),
            };
            let at = event.at + (seconds as i64 + 1) * SECOND + copy * random.below(30) as i64 * HOUR;
            let lost = lost.iter().find(|begin| (**begin..**begin + LOST).contains(&at));
            let back = |begin: &i64| begin + LOST + random.below(120) as i64 * MINUTE;
            all.push((lost.map_or(at, back), index));
        }
    }
    all
}
