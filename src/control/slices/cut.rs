//! What is cut: usage of live periods, as the workers read it, against what is billed of them. Decides; changes nothing.
//!
//! | the period | what is missing |
//! |---|---|
//! | is open | becomes a slice, in whole units |
//! | has ended, its invoice is a draft | becomes a slice, rounded |
//! | has ended, its invoice is final: `invoice.finalized` said so, or an hour has passed | is carried into the newest period, or held (`Late`) |
//! | ended longer ago than Stripe takes events of | is not looked at any more |
//!
//! Whatever was carried or refused stays in the sum: nothing is dropped silently but what the last line says.

use std::collections::BTreeMap;

use dataflows::types::{
    Amount, BilledPeriod, Definition, Micros, Operation, Operator, SeriesId, Slice, SliceState, Tally,
};

use super::share::{billable, dated_at, next_quantity, rounded, units};
use crate::control::{Registry, SeriesHandle};

/// Slices of an open period that may wait; beyond, its usage waits uncut: a biller that is down for days is not owed a slice
/// for every hour.
const WAITING_MAX: usize = 24;
/// Slices that one look at a period cuts; more are needed only where units are beyond all measure.
const SLICES_MAX: usize = 8;
/// How long behind its end a period's invoice counts as a draft, unless an event has said before that it is final. Stripe
/// keeps a draft for about an hour and is seldom faster; what is sent behind that is billed by nobody, and what is carried
/// too early is billed all the same.
pub(in crate::control) const DRAFT_MICROS: i64 = 3_600 * Micros::PER_SECOND;
/// How long behind its end a period is looked at: Stripe takes no event older than 35 days.
const BILLED_FOR_MICROS: i64 = 34 * 86_400 * Micros::PER_SECOND;

/// Names a slice: business, customer, metric, first moment of the period, number.
pub type Identify = fn(&str, &str, &str, Micros, u64) -> String;

/// What happens to usage of a period whose invoice is final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// It is billed in the newest period.
    #[default]
    NextPeriod,
    /// It is shown and not billed.
    Hold,
}

/// A live period as its worker reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeriodUsage {
    /// First moment; none for the first period of a series.
    pub start: Option<Micros>,
    /// First moment behind it; none while open-ended.
    pub end: Option<Micros>,
    /// Its tally.
    pub tally: Tally,
    /// The end of its newest flush window with an update, if that is in memory.
    pub used_until: Option<Micros>,
}

/// The live periods of a series, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesUsage {
    /// The series.
    pub series: SeriesId,
    /// Those in memory.
    pub periods: Vec<PeriodUsage>,
}

/// Cut what is missing.
#[derive(Clone, Debug)]
pub struct CutRequest {
    /// What there is.
    pub usage: Vec<SeriesUsage>,
    /// What happens to usage that comes too late.
    pub late: Late,
    /// Names slices.
    pub identify: Identify,
}

/// Why usage of a series is not billed although it asks for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbilled {
    /// Whom to bill is not known.
    #[error("the customer has no stripe_customer_id")]
    NoStripeCustomer,
    /// The business has no credentials.
    #[error("the business has no credentials for Stripe: create a key of type stripe")]
    NoCredentials,
    /// What lies beyond what, is not known.
    #[error(
        "export is overage and there is neither an overage_threshold nor a limit with the operator gte or gt"
    )]
    NoThreshold,
}

/// Whom and what a series is billed as.
pub(super) struct Terms {
    stripe_customer_id: String,
    price_id: String,
    scale: Amount,
    /// With `export: overage`, what is free.
    free: Option<Amount>,
}

impl Terms {
    /// What is known of a series of which nothing is billed.
    pub(super) fn unknown(handle: &SeriesHandle) -> Terms {
        let stripe = handle.record.spec.stripe.as_ref();
        Terms {
            stripe_customer_id: String::new(),
            price_id: String::new(),
            scale: stripe.and_then(|stripe| stripe.scale).unwrap_or(Amount::from_units(1)),
            free: stripe.and_then(|stripe| stripe.overage_threshold),
        }
    }
}

impl Registry {
    /// Whether the invoice of the period that ended at `boundary` takes no more usage.
    pub fn is_finalized(&self, series: SeriesId, boundary: Micros, now: Micros) -> bool {
        now.0 >= boundary.0.saturating_add(DRAFT_MICROS) || self.subscriptions().is_final(series, boundary)
    }

    /// Why usage of an exported series is not billed, if it is not.
    pub fn unbilled(&self, handle: &SeriesHandle) -> Option<Unbilled> {
        self.terms(handle).err()
    }

    /// Live periods as they are now: a worker knows an end once it is cut. What has been used by then was used before it.
    pub(super) fn as_of(
        &self,
        now: Micros,
        handle: &SeriesHandle,
        usage: &[PeriodUsage],
    ) -> Vec<PeriodUsage> {
        let mut usage = usage.to_vec();
        if let Some(last) = usage.last_mut().filter(|last| last.end.is_none())
            && let Some(end) = self.ended_at(handle, last.start, now)
        {
            last.end = Some(end);
            usage.push(PeriodUsage { start: Some(end), end: None, tally: Tally::EMPTY, used_until: None });
        }
        usage
    }

    pub(super) fn terms(&self, handle: &SeriesHandle) -> Result<Terms, Unbilled> {
        let (key, spec) = (&handle.record.key, &handle.record.spec);
        let customer = key.customer_id.as_deref().and_then(|id| self.customer(&key.business_id, id));
        let stripe_customer_id = customer
            .and_then(|customer| customer.details.stripe_customer_id.clone())
            .ok_or(Unbilled::NoStripeCustomer)?;
        self.secrets().stripe_keys(&key.business_id).next().ok_or(Unbilled::NoCredentials)?;
        let stripe = spec.stripe.as_ref().ok_or(Unbilled::NoCredentials)?;
        let price_id = stripe.price_id.clone().ok_or(Unbilled::NoCredentials)?;
        let is_upper = |operator| matches!(operator, Operator::Gte | Operator::Gt);
        let limit = || self.effective_limit(handle).map(|held| held.limit);
        let free = match (stripe.overage, stripe.overage_threshold) {
            (false, _) => None,
            (true, Some(threshold)) => Some(threshold),
            (true, None) => {
                let limit = limit().filter(|limit| is_upper(limit.operator)).ok_or(Unbilled::NoThreshold)?;
                Some(limit.value)
            }
        };
        let scale = stripe.scale.unwrap_or(Amount::from_units(1));
        Ok(Terms { stripe_customer_id, price_id, scale, free })
    }
}

/// The definitions that bill what is missing; none if nothing is.
pub(in crate::control) fn cut(registry: &Registry, request: &CutRequest, now: Micros) -> Vec<Definition> {
    let (mut definitions, mut slices) = (Vec::new(), Vec::new());
    for usage in &request.usage {
        let Some(handle) = registry.by_id(usage.series) else { continue };
        if !super::is_exported(&handle.record) {
            continue;
        }
        let Ok(terms) = registry.terms(handle) else { continue };
        let mut cutting = Cutting::new(registry, handle, terms, now);
        cutting.look(&registry.as_of(now, handle, &usage.periods), request, &mut slices);
        let known = |period: &BilledPeriod| registry.slices().period(usage.series, period.start);
        let changed = cutting.periods.into_values().filter(|period| {
            // A look that decides nothing is not worth an entry: the next one sees the same. Not so of a period that has ended:
            // once its worker lets it go, what is kept here is all that is known.
            let decided = |it: &BilledPeriod| {
                let used = it.end.map(|_| (it.usage, it.updates));
                (it.end, used, it.units, it.carried_in, it.carried_out, it.cleaned)
            };
            known(period).map_or_else(|| decided(&BilledPeriod::default()), decided) != decided(period)
        });
        let periods: Vec<_> = changed.collect();
        if !periods.is_empty() {
            definitions.push(Definition::PeriodsBilled { series: usage.series, periods });
        }
    }
    definitions.extend((!slices.is_empty()).then_some(Definition::SlicesCut(slices)));
    definitions
}

/// One series under the knife.
pub(super) struct Cutting<'a> {
    registry: &'a Registry,
    handle: &'a SeriesHandle,
    terms: Terms,
    now: Micros,
    periods: BTreeMap<Option<Micros>, BilledPeriod>,
}

impl<'a> Cutting<'a> {
    pub(super) fn new(registry: &'a Registry, handle: &'a SeriesHandle, terms: Terms, now: Micros) -> Self {
        Cutting { registry, handle, terms, now, periods: BTreeMap::new() }
    }

    fn look(&mut self, usage: &[PeriodUsage], request: &CutRequest, slices: &mut Vec<Slice>) {
        let (registry, series, now) = (self.registry, self.handle.series, self.now);
        let is_recent = |end: Micros| end.0 > now.0 - BILLED_FOR_MICROS;
        let has_ended = |usage: &PeriodUsage| usage.end.is_some_and(|end| end <= now);
        let is_final = |usage: &PeriodUsage| {
            usage.end.is_some_and(|end| end <= now && registry.is_finalized(series, end, now))
        };
        // One that a known end has begun ahead of time is for later.
        let has_begun = |usage: &&PeriodUsage| usage.start.is_none_or(|start| start <= now);
        let usage: Vec<_> =
            usage.iter().filter(has_begun).filter(|usage| usage.end.is_none_or(is_recent)).collect();
        for &usage in &usage {
            let period = self.looked_at(usage, has_ended(usage));
            self.periods.insert(period.start, period);
        }
        self.keep_cleaned();
        let newest = usage.last().filter(|newest| !is_final(newest)).map(|newest| newest.start);
        for &usage in &usage {
            match newest.filter(|_| request.late == Late::NextPeriod) {
                Some(newest) if is_final(usage) => self.carry(usage.start, newest),
                _ => {}
            }
        }
        for &usage in usage.iter().filter(|usage| !is_final(usage)) {
            self.cut(usage, has_ended(usage), request.identify, slices);
        }
    }

    /// The period with what was used by now.
    pub(super) fn looked_at(&self, usage: &PeriodUsage, has_ended: bool) -> BilledPeriod {
        let spec = &self.handle.record.spec;
        let known = self.registry.slices().period(self.handle.series, usage.start).cloned();
        let mut period = known.unwrap_or_else(|| BilledPeriod {
            start: usage.start,
            scale: self.terms.scale,
            ..BilledPeriod::default()
        });
        let before = (period.updates, period.billable, period.billed_at);
        if has_ended && usage.tally.count < before.0 {
            // A part of it, behind a start from the database: what it was cannot be told from that.
            return period;
        }
        if period.scale != self.terms.scale && period.units == 0 {
            period.scale = self.terms.scale;
        }
        // What is free in a period is settled when it ends: another plan is for the next one.
        let is_settled = has_ended && period.end.is_some() && period.free.is_some();
        period.free = if is_settled { period.free } else { self.terms.free };
        period.usage = match spec.operation {
            Operation::Count => Amount(i128::from(usage.tally.count) * Amount::UNIT),
            _ => usage.tally.sum,
        };
        period.updates = usage.tally.count;
        period.billable = billable(period.usage, spec.initial_value, period.free);
        if period.updates < before.0 {
            // A cleanup has forgotten what was used, or a start from the database has lost its end: it is billed. Behind a
            // cleanup all that is there is new, behind such a start only what is yet to come.
            let is_cleaned = spec
                .cleanup_after_days
                .is_some_and(|days| self.now.0 - before.2.0 >= i64::from(days) * 86_400 * Micros::PER_SECOND);
            let new = if is_cleaned { Amount::ZERO } else { period.billable };
            period.cleaned = period.cleaned + before.1 - new;
        }
        period.end = usage.end.filter(|_| has_ended);
        period.billed_at = self.now;
        period
    }

    /// A live period that is not in memory any more was cleaned up: its billed usage is kept, and what comes begins anew.
    fn keep_cleaned(&mut self) {
        let registry = self.registry;
        for known in registry.slices().periods(self.handle.series) {
            if known.end.is_none() && known.updates > 0 && !self.periods.contains_key(&known.start) {
                let mut period = known.clone();
                period.cleaned = period.cleaned + period.billable;
                (period.usage, period.billable, period.updates) = (Amount::ZERO, Amount::ZERO, 0);
                self.periods.insert(period.start, BilledPeriod { billed_at: self.now, ..period });
            }
        }
    }

    /// Whole units that are missing, or too many, in a period whose invoice is final go into another.
    fn carry(&mut self, from: Option<Micros>, to: Option<Micros>) {
        let Some(period) = self.periods.get_mut(&from) else { return };
        // Of what remains, not of all: a half that was carried away would come back.
        let missing = rounded(period.remainder(), period.scale);
        let amount = Amount(missing.saturating_mul(period.scale.0));
        period.carried_out = period.carried_out + amount;
        if let Some(period) = self.periods.get_mut(&to) {
            period.carried_in = period.carried_in + amount;
        }
    }

    fn cut(&mut self, usage: &PeriodUsage, has_ended: bool, identify: Identify, slices: &mut Vec<Slice>) {
        let (registry, series, now) = (self.registry, self.handle.series, self.now);
        let waits = registry.slices().open(series, usage.start).filter(|kept| kept.state != SliceState::Dead);
        if !has_ended && waits.count() >= WAITING_MAX {
            return;
        }
        let Some(period) = self.periods.get_mut(&usage.start) else { return };
        let record = &self.handle.record;
        let begins_at = usage.start.unwrap_or(record.created_at);
        let Some(customer_id) = record.key.customer_id.as_deref() else { return };
        for _ in 0..SLICES_MAX {
            let wanted = units(period.due(), period.scale, has_ended);
            let Some(quantity) = next_quantity(wanted, period.units) else { return };
            let number = period.next_number;
            period.units += i128::from(quantity);
            period.next_number += 1;
            let (business_id, metric_name) = (record.key.business_id.clone(), record.key.metric_name.clone());
            slices.push(Slice {
                identifier: identify(&business_id, customer_id, &metric_name, begins_at, number),
                series,
                business_id,
                customer_id: customer_id.to_owned(),
                metric_name,
                stripe_customer_id: self.terms.stripe_customer_id.clone(),
                price_id: self.terms.price_id.clone(),
                period_start: usage.start,
                number,
                quantity,
                scale: period.scale,
                remainder: period.remainder(),
                dated_at: dated_at(begins_at, usage.end.filter(|_| has_ended), usage.used_until, now),
                cut_at: now,
            });
        }
    }
}
