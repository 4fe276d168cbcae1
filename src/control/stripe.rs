//! What an event of Stripe means, given what is defined. Pure. In: an event in our words. Out: definitions, the last of which
//! says what the event did.
//!
//! | event | effect |
//! |---|---|
//! | a subscription | its periods end by themselves from now on (`subscriptions`); `subscription_ends_at`, plan and price of the customer follow it; a new one begins a period |
//! | an invoice | ends the periods whose end was not known before, once for each boundary; where it was, it confirms. One that is final makes them final |
//! | a report of usage that was not counted | the slices that it names are dead (`reports`) |
//! | a checkout | our customer has Stripe's id from now on, and what was said of its newest subscription before counts |
//!
//! An event that was read before changes nothing, and one about a subscription that a later one has overtaken only what it
//! alone can: it begins the period of a new subscription, and says what was paid for before the end.

use dataflows::types::{
    BillingPeriodEnd, BillingPeriodFinal, Definition, Micros, SeriesId, StripeEvent, Subscription,
    SubscriptionStanding,
};

use super::reports::{self, Samples};
use super::slices::DRAFT_MICROS;
use super::subscriptions::{item_of, price_of};
use super::{ControlError, CustomerRecord, Registry, SeriesHandle, change};
use place::{Paid, Place, place_of, was_paid};

/// Most subscriptions of a business that are kept.
const SUBSCRIPTIONS_MAX: usize = 1_000_000;
/// How long behind a decision the cut may be that comes of it: the journal says when, as it is written. One that takes longer
/// is not taken for final by the event that made it.
const CUT_WITHIN_MICROS: i64 = 10 * Micros::PER_SECOND;

mod place;

#[cfg(test)]
mod order;
#[cfg(test)]
pub(super) mod tests;

/// An event, and what happened.
#[derive(Clone, Debug)]
pub struct StripeChange {
    /// The event; what it did is decided here.
    pub event: StripeEvent,
    /// What happened.
    pub what: StripeWhat,
}

/// What happened at Stripe.
#[derive(Clone, Debug)]
pub enum StripeWhat {
    /// A subscription is so now.
    Subscription {
        /// All of it.
        subscription: Subscription,
        /// Whether it has just been made.
        is_new: bool,
    },
    /// There is an invoice.
    Invoice(BillingInvoice),
    /// A customer of ours has become one of Stripe's.
    Checkout {
        /// Our id.
        customer_id: Option<String>,
        /// Stripe's.
        stripe_customer_id: Option<String>,
    },
    /// Slices of usage that were accepted have not been counted.
    Uncounted(Samples),
    /// The same, and which ones is still to be asked.
    UncountedUnsaid,
    /// Something that changes nothing here.
    Other,
}

/// An invoice, as far as it ends periods.
#[derive(Clone, Debug)]
pub struct BillingInvoice {
    /// Stripe's id of the customer.
    pub stripe_customer_id: Option<String>,
    /// The subscription that it is for.
    pub subscription_id: Option<String>,
    /// Which series it concerns.
    pub concerns: Concerns,
    /// Where the period ends that it bills.
    pub boundary: Micros,
    /// What it takes of usage before that.
    pub takes: Takes,
}

/// What an invoice takes of the usage that it bills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// All that comes within an hour of this moment, when it was made; none if its time is simulated.
    Draft(Option<Micros>),
    /// Nothing more: it is final.
    Nothing,
    /// None at all: it bills what comes.
    NoUsage,
}

impl Takes {
    /// Whether what comes now comes too late for it.
    fn is_final(self, now: Micros) -> bool {
        match self {
            Takes::Draft(made_at) => made_at.is_some_and(|made_at| now.0 - made_at.0 >= DRAFT_MICROS),
            Takes::Nothing => true,
            Takes::NoUsage => false,
        }
    }
}

/// Which series of its customer an invoice concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    /// Those of its subscription, and those that follow none.
    All,
    /// Those that follow no subscription.
    Unfollowing,
    /// None.
    Nothing,
}

/// What an event led to so far.
#[derive(Default)]
pub(super) struct Effect {
    pub definitions: Vec<Definition>,
    pub applied: bool,
    said: Vec<String>,
}

impl Effect {
    /// Once, of however many customers.
    pub fn say(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.said.contains(&what) {
            self.said.push(what);
        }
    }

    /// The series' period ends now, at what Stripe calls the boundary.
    fn end_period(&mut self, series: SeriesId, boundary: Micros) {
        self.definitions.push(Definition::SeriesCut { series });
        self.definitions.push(Definition::BillingPeriodEnded(BillingPeriodEnd { series, boundary }));
    }

    /// All of it, and behind it the event with what it did.
    pub fn read(mut self, event: StripeEvent) -> Vec<Definition> {
        let (applied, reason) = (self.applied, self.said.join("; "));
        self.definitions.push(Definition::StripeEventRead(StripeEvent { applied, reason, ..event }));
        self.definitions
    }
}

/// The definitions of an event; none if it was read before.
pub(super) fn decide(
    registry: &Registry,
    StripeChange { mut event, what }: StripeChange,
    next_series: &mut SeriesId,
    now: Micros,
) -> Result<Vec<Definition>, ControlError> {
    let business_id = event.business_id.clone();
    registry.business(&business_id).ok_or(ControlError::NoSuchBusiness)?;
    if registry.stripe_events().contains(&business_id, &event.event_id) {
        return Ok(Vec::new());
    }
    event.received_at = now;
    let (mut effect, mut awaited) = (Effect::default(), None);
    match what {
        StripeWhat::Subscription { subscription, is_new } => {
            subscribed(registry, subscription, is_new, next_series, now, &mut effect)?;
        }
        StripeWhat::Invoice(invoice) => invoiced(registry, &business_id, &invoice, now, &mut effect),
        StripeWhat::Checkout { customer_id, stripe_customer_id } => {
            checked_out(
                registry,
                &business_id,
                customer_id,
                stripe_customer_id,
                next_series,
                now,
                &mut effect,
            )?;
        }
        StripeWhat::Uncounted(samples) => {
            reports::uncounted(registry, &business_id, samples, now, &mut effect);
        }
        StripeWhat::UncountedUnsaid => awaited = Some(reports::named(registry, &event, &mut effect)?),
        StripeWhat::Other => effect.say("nothing here follows from it"),
    }
    Ok(effect.read(event).into_iter().chain(awaited).collect())
}

fn subscribed(
    registry: &Registry,
    subscription: Subscription,
    is_new: bool,
    next_series: &mut SeriesId,
    now: Micros,
    effect: &mut Effect,
) -> Result<(), ControlError> {
    let Subscription { business_id, subscription_id, stripe_customer_id, .. } = &subscription;
    let known = registry.subscriptions().get(business_id, subscription_id);
    if known.is_none() && registry.subscriptions().count(business_id) >= SUBSCRIPTIONS_MAX {
        return Err(ControlError::TooMany { what: "subscriptions", max: SUBSCRIPTIONS_MAX });
    }
    let customers = customers(registry, business_id, stripe_customer_id);
    let followed: Vec<CustomerRecord> = match place_of(&subscription, is_new, known) {
        Place::Last => {
            effect.definitions.push(Definition::SubscriptionPut(subscription.clone()));
            effect.applied = !customers.is_empty();
            if customers.is_empty() {
                effect.say(
                    "no customer has this stripe_customer_id: the subscription is kept for when one has",
                );
            }
            customers.iter().map(|record| follow(registry, record, &subscription, effect)).collect()
        }
        Place::Beside => {
            effect.applied = !customers.is_empty();
            effect.say("such a status changes nothing");
            Vec::new()
        }
        Place::Before(last) => {
            effect.say("a later event about the subscription was applied before");
            let paid = was_paid(registry, &subscription, last).into_iter();
            paid.flat_map(|paid| customers.iter().map(move |record| paid.put_on((*record).clone()))).collect()
        }
    };
    for (record, followed) in customers.iter().zip(followed) {
        if followed != **record {
            effect.applied = true;
            effect.definitions.extend(change::put_customer(registry, followed, false, next_series, now)?);
        }
    }
    if is_new {
        let begun = registry.billed_series(business_id, stripe_customer_id);
        for handle in begun.collect::<Vec<_>>() {
            begin(registry, &handle, &subscription, effect);
        }
    }
    Ok(())
}

/// A new subscription begins a period of the series that follow it.
fn begin(registry: &Registry, handle: &SeriesHandle, subscription: &Subscription, effect: &mut Effect) {
    let is_newest = registry.followed(handle).is_none_or(|(followed, _)| {
        followed.standing == SubscriptionStanding::Over || followed.created_at <= subscription.created_at
    });
    let Some(item) = item_of(subscription, price_of(handle)).filter(|_| is_newest) else { return };
    let boundary = item.period.map_or(subscription.created_at, |(start, _)| start);
    if registry.subscriptions().last_end(handle.series).is_none_or(|last| last < boundary) {
        effect.applied = true;
        effect.end_period(handle.series, boundary);
    }
}

/// A customer as its subscription has it: expiry, plan, price. While any of its subscriptions runs, it does not expire; when
/// one is over and another runs on, it has the plan of that one.
fn follow(
    registry: &Registry,
    record: &CustomerRecord,
    subscription: &Subscription,
    effect: &mut Effect,
) -> CustomerRecord {
    let mut followed = record.clone();
    let Subscription { business_id, subscription_id, stripe_customer_id, .. } = subscription;
    let others = registry.subscriptions().of_customer(business_id, stripe_customer_id);
    let others = others.filter(|other| &other.subscription_id != subscription_id);
    let all: Vec<_> = others.chain([subscription]).collect();
    let of_standing = |standing| all.iter().copied().filter(move |known| known.standing == standing);
    let newest = of_standing(SubscriptionStanding::Running).max_by_key(|known| known.created_at);
    let expires_at = match newest {
        // The last of those that run; one that runs on has no end.
        Some(_) => of_standing(SubscriptionStanding::Running)
            .try_fold(Micros(i64::MIN), |last, known| Some(last.max(known.ends_at?))),
        None => {
            of_standing(SubscriptionStanding::Over).map(|known| known.ends_at.unwrap_or(known.said_at)).max()
        }
    };
    let paid = match (subscription.standing, newest) {
        (SubscriptionStanding::Undecided, _) => return followed,
        (SubscriptionStanding::Running, _) => subscription,
        (SubscriptionStanding::Over, Some(other)) => {
            effect.say("another subscription of the customer runs on");
            other
        }
        (SubscriptionStanding::Over, None) => {
            followed.details.subscription_ends_at = expires_at;
            return followed;
        }
    };
    followed.details.subscription_ends_at = expires_at;
    match Paid::of(registry, paid) {
        Ok(paid) => paid.put_on(followed),
        Err(why) => {
            effect.say(why);
            followed
        }
    }
}

fn invoiced(
    registry: &Registry,
    business_id: &str,
    invoice: &BillingInvoice,
    now: Micros,
    effect: &mut Effect,
) {
    let Some(stripe_id) = &invoice.stripe_customer_id else {
        return effect.say("the invoice has no customer");
    };
    if invoice.concerns == Concerns::Nothing {
        return effect.say("invoices of this billing_reason end no period");
    }
    if registry.subscriptions().customers(business_id, stripe_id).next().is_none() {
        return effect.say("no customer has this stripe_customer_id");
    }
    let of_invoice = invoice.subscription_id.as_deref();
    let told = of_invoice.and_then(|id| registry.subscriptions().get(business_id, id));
    let (mut ended, mut known, mut others) = (0, 0, 0);
    for handle in registry.billed_series(business_id, stripe_id).collect::<Vec<_>>() {
        let followed = registry.followed(&handle);
        let is_other = match followed {
            Some((subscription, _)) => {
                invoice.concerns == Concerns::Unfollowing
                    || of_invoice.is_some_and(|of_invoice| of_invoice != subscription.subscription_id)
            }
            // A subscription that was told ends what it has; one that nobody told ends all that follows none.
            None => told.is_some_and(|told| item_of(told, price_of(&handle)).is_none()),
        };
        let will_end =
            |(subscription, item)| registry.subscriptions().will_end(subscription, item, invoice.boundary);
        let has_ended = registry.subscriptions().last_end(handle.series) >= Some(invoice.boundary);
        if is_other {
            others += 1;
            continue;
        }
        let series = handle.series;
        let until = if followed.is_some_and(will_end) {
            known += 1;
            invoice.boundary
        } else if has_ended {
            known += 1;
            registry.subscriptions().final_until(series, invoice.boundary, now).min(now)
        } else {
            ended += 1;
            effect.end_period(series, invoice.boundary);
            Micros(now.0 + CUT_WITHIN_MICROS)
        };
        if invoice.takes.is_final(now) {
            effect.definitions.push(Definition::BillingPeriodFinal(BillingPeriodFinal { series, until }));
        }
    }
    effect.applied = ended + known > 0;
    let counted =
        [(ended, "ended now"), (known, "ended at a known boundary"), (others, "are not of this invoice")];
    let counted: Vec<String> = counted
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    match counted.is_empty() {
        true => effect.say("the customer has no stripe_billing series"),
        false => effect.say(format!("periods of series: {}", counted.join(", "))),
    }
    if effect.applied && invoice.takes.is_final(now) {
        effect.say("what comes for them now is late");
    }
}

fn checked_out(
    registry: &Registry,
    business_id: &str,
    customer_id: Option<String>,
    stripe_customer_id: Option<String>,
    next_series: &mut SeriesId,
    now: Micros,
    effect: &mut Effect,
) -> Result<(), ControlError> {
    let (Some(customer_id), Some(stripe_id)) = (customer_id, stripe_customer_id) else {
        effect.say("the session has no client_reference_id, or no customer");
        return Ok(());
    };
    let Some(record) = registry.customer(business_id, &customer_id) else {
        effect.say("there is no customer with the id of client_reference_id");
        return Ok(());
    };
    effect.applied = true;
    let mut linked = record.clone();
    linked.details.stripe_customer_id = Some(stripe_id.clone());
    // What was said of the subscription before anybody knew whose it is.
    let known = registry.subscriptions().of_customer(business_id, &stripe_id);
    let newest = known.max_by_key(|known| (known.standing != SubscriptionStanding::Over, known.created_at));
    if let Some(subscription) = newest {
        linked = follow(registry, &linked, subscription, effect);
        if record.details.stripe_customer_id.as_ref() != Some(&stripe_id) {
            for handle in registry.billed_series_of(business_id, &customer_id) {
                begin(registry, &handle, subscription, effect);
            }
        }
    }
    if linked != *record {
        effect.definitions.extend(change::put_customer(registry, linked, false, next_series, now)?);
    }
    Ok(())
}

fn customers<'a>(registry: &'a Registry, business_id: &str, stripe_id: &str) -> Vec<&'a CustomerRecord> {
    let ids = registry.subscriptions().customers(business_id, stripe_id);
    ids.filter_map(|customer_id| registry.customer(business_id, customer_id)).collect()
}
