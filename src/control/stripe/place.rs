//! Where an event about a subscription stands among the others about it, in whatever order they come, and which plan it pays
//! for. Pure.

use std::cmp::Ordering;

use dataflows::types::{Subscription, SubscriptionStanding};

use crate::control::{CustomerRecord, Registry};

/// Where an event about a subscription stands among those before it, whatever order they come in.
pub(super) enum Place<'a> {
    /// It says how the subscription is now.
    Last,
    /// Nothing: what is paused or incomplete stays what it was.
    Beside,
    /// This has been said since.
    Before(&'a Subscription),
}

/// Of one second the making of a subscription comes first and its end last; of two changes, the one that came last.
pub(super) fn place_of<'a>(said: &Subscription, is_new: bool, known: Option<&'a Subscription>) -> Place<'a> {
    use SubscriptionStanding::{Over, Undecided};
    let Some(known) = known else { return Place::Last };
    let is_overtaken = match known.said_at.cmp(&said.said_at) {
        Ordering::Less => false,
        Ordering::Equal => is_new || known.standing == Over && said.standing != Over,
        Ordering::Greater => true,
    };
    match (known.standing, said.standing) {
        (Undecided, Undecided) if is_overtaken => Place::Before(known),
        (Undecided, _) => Place::Last,
        (_, Undecided) => Place::Beside,
        _ if is_overtaken => Place::Before(known),
        _ => Place::Last,
    }
}

/// What was paid for while a subscription ran that is over by now: its end says nothing of that. Where the customer has others
/// they say.
pub(super) fn was_paid<'a>(
    registry: &'a Registry,
    ran: &Subscription,
    over: &'a Subscription,
) -> Option<Paid<'a>> {
    let Subscription { business_id, stripe_customer_id, .. } = over;
    let is_over =
        ran.standing == SubscriptionStanding::Running && over.standing == SubscriptionStanding::Over;
    let is_only = registry.subscriptions().of_customer(business_id, stripe_customer_id).count() == 1;
    Paid::of(registry, over).ok().filter(|_| is_over && is_only)
}

/// The plan of a subscription.
#[derive(Clone, Copy)]
pub(super) struct Paid<'a> {
    price_id: &'a str,
    plan_id: &'a str,
}

impl<'a> Paid<'a> {
    /// An error says what happens instead.
    pub fn of(registry: &'a Registry, subscription: &'a Subscription) -> Result<Paid<'a>, &'static str> {
        let plans = registry.plans();
        let mut paid = subscription.items.iter().filter_map(|item| {
            let plan = plans.of_price(&subscription.business_id, &item.price_id)?;
            Some(Paid { price_id: &item.price_id, plan_id: &plan.plan_id })
        });
        match (paid.next(), paid.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err("no price of the subscription has a plan: the customer's was kept"),
            _ => Err("several prices of the subscription have plans: the customer's was kept"),
        }
    }

    pub fn put_on(self, mut record: CustomerRecord) -> CustomerRecord {
        record.plan_id = Some(self.plan_id.to_owned());
        record.details.stripe_price_id = Some(self.price_id.to_owned());
        record
    }
}
