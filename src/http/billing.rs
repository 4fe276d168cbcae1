//! What is billed of a customer's usage (API section 6): live periods, and the slices that have not arrived.
//!
//! Nothing here decides anything: usage is read as the owning workers have it, slices as the registry has them.

use hyper::StatusCode;

use super::auth::no_such_customer;
use super::error::ApiError;
use super::list::{from_cursor, to_cursor};
use super::query::LIMIT_MAX;
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::parse::names;
use crate::admission::parse::names::{OPERATIONS, word};
use crate::control::slices::{Kept, PeriodView, SeriesView};
use crate::control::{SeriesFilter, SeriesHandle};

/// Slices of a series that one answer shows: the oldest that wait are what is to be looked at.
const SLICES_MAX: usize = 100;
/// Live periods of a series that one answer shows: the newest.
const PERIODS_MAX: usize = 24;

/// Why slices of a price wait: (business, price).
pub type Remark = Box<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// `GET /api/v1/billing/{customer_id}`: every series of a customer whose usage is billed, by name, page by page.
pub(super) async fn read(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let customer_id = names::id("customer_id", call.parameter(0))?;
    let caller = call.caller();
    let customer = rooms.control.customer(&caller.business_id, &customer_id);
    let is_own = caller.customer_id.as_ref().is_none_or(|own| **own == *customer_id);
    let customer = customer.filter(|_| is_own).ok_or_else(no_such_customer)?;
    let limit = call.query.limit(LIMIT_MAX, LIMIT_MAX)?;
    let business_id = caller.business_id.as_ref().to_owned();
    let mut after = call.query.get("cursor").map(|cursor| from_cursor(&business_id, cursor)).transpose()?;
    let filter =
        SeriesFilter { business_id, customer_id: Some(customer_id.clone()), ..SeriesFilter::default() };
    let mut page: Vec<SeriesHandle> = Vec::new();
    // Those that are not billed are passed over. One more than wanted tells whether there is another page.
    while page.len() <= limit {
        let some = rooms.control.list_series(&filter, after.as_ref(), LIMIT_MAX);
        let Some(last) = some.last() else { break };
        after = Some(last.record.key.clone());
        let registry = rooms.control.registry();
        page.extend(some.into_iter().filter(|handle| registry.is_exported(handle)));
    }
    let more = page.len() > limit;
    page.truncate(limit);
    let as_of = rooms.admission.now();
    let usage = rooms.admission.periods(&page).await?;
    let shown: Vec<_> = {
        let registry = rooms.control.registry();
        let of_series = page.iter().zip(usage);
        // None: deleted since.
        let of_series = of_series.filter_map(|(handle, usage)| Some((handle, usage?)));
        of_series
            .map(|(handle, usage)| describe(rooms, handle, &registry.billed(handle, &usage, as_of)))
            .collect()
    };
    let last = page.last().filter(|_| more).map(|handle| to_cursor(&handle.record.key));
    let json = Json::object()
        .set("customer_id", customer_id)
        .set("stripe_customer_id", customer.details.stripe_customer_id.as_deref())
        .set("series", &shown[..])
        .set("count", shown.len() as u64)
        .set("next_cursor", last)
        .set("as_of", as_of);
    Ok(Reply::json(StatusCode::OK, json))
}

/// Whether usage of a series is still to be billed.
pub(super) async fn is_owed(rooms: &Rooms, handle: &SeriesHandle) -> Result<bool, ApiError> {
    if !rooms.control.registry().is_exported(handle) {
        return Ok(false);
    }
    let usage = rooms.admission.periods(std::slice::from_ref(handle)).await?.pop().flatten();
    let (usage, now) = (usage.unwrap_or_default(), rooms.admission.now());
    Ok(rooms.control.registry().billed(handle, &usage, now).is_owed())
}

fn describe(rooms: &Rooms, handle: &SeriesHandle, view: &SeriesView) -> Json {
    let (key, spec) = (&handle.record.key, &handle.record.spec);
    let stripe = spec.stripe.as_ref();
    let price_id = stripe.and_then(|stripe| stripe.price_id.as_deref());
    let remark = || price_id.and_then(|price_id| (rooms.remark)(&key.business_id, price_id));
    let waits_for = view.unbilled.map(|why| why.to_string()).or_else(remark);
    let newest = view.periods.iter().rev().take(PERIODS_MAX);
    let periods: Vec<_> = newest.map(|period| describe_period(handle, period)).collect();
    let slices: Vec<_> = view.slices.iter().take(SLICES_MAX).map(describe_slice).collect();
    Json::object()
        .set("metric_name", &key.metric_name)
        .set("operation", word(&OPERATIONS, &spec.operation))
        .set("price_id", price_id)
        .set("export", if stripe.is_some_and(|stripe| stripe.overage) { "overage" } else { "usage" })
        .set("waits_for", waits_for)
        .set("periods", &periods[..])
        .set("slices", &slices[..])
}

fn describe_period(handle: &SeriesHandle, view: &PeriodView) -> Json {
    let PeriodView { period, is_final, exported, pending, dead, held } = view;
    // Units beyond all measure are shown as far as a number goes.
    let units = |units: i128| units.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    Json::object()
        .set("start", period.start.unwrap_or(handle.record.created_at))
        .set("end", period.end)
        .set("is_final", *is_final)
        .set("usage", period.usage)
        .set("billable", period.due())
        .set("scale", period.scale)
        .set("exported", units(*exported))
        .set("pending", units(*pending))
        .set("dead", units(*dead))
        .set("remainder", period.remainder())
        .set("late_amount", period.carried_in)
        .set("moved_amount", period.carried_out)
        .set("held_amount", *held)
}

fn describe_slice(kept: &Kept) -> Json {
    let slice = &kept.slice;
    Json::object()
        .set("identifier", &slice.identifier)
        .set("period_start", slice.period_start)
        .set("number", slice.number)
        .set("quantity", slice.quantity)
        .set("dated_at", slice.dated_at)
        .set("state", kept.state.text())
        .set("state_at", kept.at)
        .set("reason", kept.reason.as_deref())
}
