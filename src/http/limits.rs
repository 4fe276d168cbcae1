//! How customers stand to their limits (API section 5): `check`, the list of standings, and what a billing page shows.
//!
//! Nothing here records or makes anything. Whether a use may begin is worked out from a reading of the owning worker, which
//! sees every update that was acknowledged before; where there is no series yet, from the template that it would be made of.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use dataflows::types::{
    Action, Amount, Limit, Micros, Operation, Operator, Scope, SeriesKey, SeriesRecord, SeriesSpec, Shape,
    Standing, Tally,
};
use hyper::StatusCode;

use super::auth::no_such_customer;
use super::error::{ApiError, Title};
use super::list::{from_cursor, to_cursor};
use super::metrics::{SOURCES, remaining};
use super::query::{LIMIT_DEFAULT, LIMIT_MAX};
use super::reply::{Json, Reply};
use super::{Call, Rooms, ratelimit, templates};
use crate::admission::AdmissionError;
use crate::admission::parse::check::{Asked, Question};
use crate::admission::parse::names::{ACTIONS, METRIC_TYPES, OPERATIONS, OPERATORS, SCOPES, word};
use crate::admission::parse::{Fault, names};
use crate::control::{Principal, SeriesFilter, SeriesHandle};

/// Series that one request for standings looks at; beyond, it says that there are more than it can put in order.
const SCANNED_MAX: usize = 1_000_000;
/// Requests for standings that are worked on at once, whoever asks; beyond, 503. Each may look at `SCANNED_MAX` series.
pub const SCANS_MAX: usize = 4;

/// `POST /api/v1/check`. One question: 404 where a PUT would be; of many each answers for itself.
pub(super) async fn check(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    match Asked::parse(&call.body)? {
        Asked::One(question) => {
            let key = key(call.caller(), &question)?;
            let (record, standing) = templates::standing(rooms, &key).await?;
            let (now, operation) = (rooms.admission.now(), record.spec.operation);
            let headers =
                ratelimit::headers(&key.metric_name, operation, standing.held(), standing.value, now);
            let json = answer(Json::object(), &record.spec, &standing, question.amount);
            Ok(Reply { headers, ..Reply::json(StatusCode::OK, json) })
        }
        Asked::Many(questions) => check_many(rooms, call, &questions).await,
    }
}

/// A series, or what it would be.
enum Found {
    Live(SeriesHandle),
    Prospect(Arc<SeriesRecord>, Standing),
}

async fn check_many(rooms: &Rooms, call: &Call<'_>, questions: &[Question]) -> Result<Reply, ApiError> {
    let find = |question: &Question| -> Result<Found, ApiError> {
        let key = key(call.caller(), question)?;
        if let Some(handle) = rooms.control.resolve(&key) {
            return Ok(Found::Live(handle));
        }
        templates::prospect(rooms, &key).map(|(record, standing)| Found::Prospect(record, standing))
    };
    let found: Vec<_> = questions.iter().map(find).collect();
    let live = |found: &Result<Found, ApiError>| match found {
        Ok(Found::Live(handle)) => Some(handle.clone()),
        Ok(Found::Prospect(..)) | Err(_) => None,
    };
    let handles: Vec<_> = found.iter().filter_map(live).collect();
    let mut standings = rooms.admission.read(&handles).await?.into_iter();
    let answers = questions.iter().zip(&found).map(|(question, found)| {
        let json = Json::object()
            .set("metric_name", &question.metric_name)
            .set_some("customer_id", question.customer_id.as_deref());
        match found {
            Ok(Found::Live(handle)) => match standings.next().flatten() {
                Some(standing) => answer(json, &handle.record.spec, &standing, question.amount),
                None => json.set("allowed", false).set("code", ApiError::from(AdmissionError::Gone).code()),
            },
            Ok(Found::Prospect(record, standing)) => answer(json, &record.spec, standing, question.amount),
            Err(error) => json.set("allowed", false).set("code", error.code()),
        }
    });
    Ok(Reply::json_list(StatusCode::OK, &answers.collect::<Vec<_>>()))
}

/// The series that is asked about. A customer key asks about its own customer.
fn key(caller: &Principal, question: &Question) -> Result<SeriesKey, ApiError> {
    let customer_id = about(caller, question.scope, question.customer_id.as_deref())?;
    let business_id = caller.business_id.as_ref().to_owned();
    Ok(SeriesKey { business_id, customer_id, metric_name: question.metric_name.clone() })
}

/// Whom a body is about: a `customer_id` implies the scope `customer`, and a customer key both.
pub(super) fn about(
    caller: &Principal,
    scope: Option<Scope>,
    customer_id: Option<&str>,
) -> Result<Option<String>, ApiError> {
    if let Some(own) = &caller.customer_id {
        if scope == Some(Scope::Business) {
            let detail = "a customer key acts for its own customer only";
            return Err(ApiError::new(Title::Forbidden, "customer_key", detail));
        }
        return match customer_id {
            Some(given) if *given != **own => Err(no_such_customer()),
            _ => Ok(Some(own.as_ref().to_owned())),
        };
    }
    match (scope, customer_id) {
        (Some(Scope::Business), Some(_)) => {
            let detail = "customer_id goes only with scope customer";
            Err(Fault::malformed("customer_id", "invalid_combination", detail).into())
        }
        (Some(Scope::Customer), None) => {
            let detail = "customer_id is required with scope customer";
            Err(Fault::malformed("customer_id", "missing_field", detail).into())
        }
        (_, customer_id) => Ok(customer_id.map(str::to_owned)),
    }
}

fn answer(into: Json, spec: &SeriesSpec, standing: &Standing, amount: Amount) -> Json {
    let shape = Shape { limit: standing.limit, ..spec.shape(0) };
    let allowed = shape.allows(&standing.tally, amount);
    // Where not even a new period would let it, no end of one will help.
    let helps = allowed || shape.allows(&Tally::EMPTY, amount);
    into.set("allowed", allowed)
        .set("current_value", standing.value)
        .set("limit_value", standing.limit.map(|limit| limit.value))
        .set("remaining", remaining(spec, standing))
        .set("resets_at", standing.period_end.filter(|_| helps))
        .set("limit_source", standing.limit.map(|_| word(&SOURCES, &standing.limit_source)))
}

/// `GET /api/v1/customers/{customer_id}/usage`: every series of a customer, by name, page by page.
pub(super) async fn usage(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let customer_id = names::id("customer_id", call.parameter(0))?;
    let caller = call.caller();
    if caller.customer_id.as_ref().is_some_and(|own| **own != *customer_id)
        || !rooms.control.customer_exists(&caller.business_id, &customer_id)
    {
        return Err(no_such_customer());
    }
    let limit = call.query.limit(LIMIT_MAX, LIMIT_MAX)?;
    let business_id = caller.business_id.as_ref().to_owned();
    let after = call.query.get("cursor").map(|cursor| from_cursor(&business_id, cursor)).transpose()?;
    let filter =
        SeriesFilter { business_id, customer_id: Some(customer_id.clone()), ..SeriesFilter::default() };
    let mut page = rooms.control.list_series(&filter, after.as_ref(), limit + 1);
    let more = page.len() > limit;
    page.truncate(limit);
    let as_of = rooms.admission.now();
    let standings = rooms.admission.read(&page).await?;
    let of_series = page.iter().zip(&standings);
    // None: deleted since.
    let shown: Vec<_> = of_series
        .filter_map(|(handle, standing)| standing.as_ref().map(|standing| describe(handle, standing)))
        .collect();
    let last = page.last().filter(|_| more).map(|handle| to_cursor(&handle.record.key));
    let json = Json::object()
        .set("customer_id", customer_id)
        .set("usage", &shown[..])
        .set("count", shown.len() as u64)
        .set("next_cursor", last)
        .set("as_of", as_of);
    Ok(Reply::json(StatusCode::OK, json))
}

/// `GET /api/v1/limits`: every series with a limit, breached ones first, then by the percentage used, then by name.
pub(super) async fn list(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let filter = super::list::filter(rooms, call)?;
    let breached = call.query.flag("breached")?;
    let limit = call.query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let behind = call.query.get("cursor").map(|cursor| Rank::from_cursor(&filter.business_id, cursor));
    let behind = behind.transpose()?;
    let _one_of_few = rooms.scans.try_acquire().map_err(|_| {
        let detail = "as many requests for standings as may be are being worked on: try again";
        ApiError::unavailable("overloaded", detail)
    })?;
    let as_of = rooms.admission.now();
    // The first of those behind the cursor; one more than wanted tells whether there is another page.
    let mut first: BTreeSet<Ranked> = BTreeSet::new();
    let (mut after, mut scanned) = (None, 0);
    loop {
        let mut page = rooms.control.list_series(&filter, after.as_ref(), LIMIT_MAX);
        scanned += page.len();
        if scanned > SCANNED_MAX {
            let detail = format!("there are more than {SCANNED_MAX} series: ask for one customer or metric");
            return Err(ApiError::new(Title::Unprocessable, "too_many_series", detail));
        }
        let Some(last) = page.last() else { break };
        after = Some(last.record.key.clone());
        {
            // Most series may have none: the workers are not asked about those.
            let registry = rooms.control.registry();
            page.retain(|handle| registry.effective_limit(handle).is_some());
        }
        let standings = rooms.admission.read(&page).await?;
        for (handle, standing) in page.into_iter().zip(standings) {
            let Some(standing) = standing else { continue };
            let Some(limit_of) = standing.limit else { continue };
            if breached.is_some_and(|breached| breached != standing.breached) {
                continue;
            }
            let used = percent(&limit_of, standing.value).unwrap_or(i128::MIN);
            let rank = Rank(Reverse(standing.breached), Reverse(used), handle.record.key.clone());
            if behind.as_ref().is_none_or(|behind| rank > *behind) {
                first.insert(Ranked { rank, handle, standing });
            }
            if first.len() > limit + 1 {
                first.pop_last();
            }
        }
    }
    let more = first.len() > limit;
    let shown: Vec<_> = first.iter().take(limit).map(|it| describe(&it.handle, &it.standing)).collect();
    let last = first.iter().nth(shown.len().saturating_sub(1)).filter(|_| more).map(|it| it.rank.to_cursor());
    let json = Json::object()
        .set("limits", &shown[..])
        .set("count", shown.len() as u64)
        .set("next_cursor", last)
        .set("as_of", as_of);
    Ok(Reply::json(StatusCode::OK, json))
}

/// The place of a series in the list: breached ones first, then those that have used more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(Reverse<bool>, Reverse<i128>, SeriesKey);

struct Ranked {
    rank: Rank,
    handle: SeriesHandle,
    standing: Standing,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl Rank {
    /// `b.percentage.name`: 1 or 0, the percentage in billionths, the cursor of the name.
    fn to_cursor(&self) -> String {
        format!("{}.{}.{}", u8::from(self.0.0), self.1.0, to_cursor(&self.2))
    }

    fn from_cursor(business_id: &str, cursor: &str) -> Result<Rank, Fault> {
        let fault =
            || Fault::malformed("cursor", "invalid_cursor", "the cursor is not one that this service gave");
        let mut parts = cursor.splitn(3, '.');
        let breached = match parts.next() {
            Some("1") => true,
            Some("0") => false,
            _ => return Err(fault()),
        };
        let used = parts.next().and_then(|part| part.parse().ok()).ok_or_else(fault)?;
        let key = from_cursor(business_id, parts.next().ok_or_else(fault)?)?;
        Ok(Rank(Reverse(breached), Reverse(used), key))
    }
}

/// Hundredths of a limit that a value is, in billionths like an amount; none of a limit of zero.
pub(super) fn percent(limit: &Limit, value: Amount) -> Option<i128> {
    if limit.value == Amount::ZERO {
        return None;
    }
    // What is beyond 128 bits is far beyond what is shown.
    let used = value.0.saturating_mul(100 * Amount::UNIT).saturating_div(limit.value.0);
    Some(used.clamp(-PERCENT_MAX, PERCENT_MAX))
}

/// What no percentage shows beyond.
const PERCENT_MAX: i128 = 1_000_000_000 * Amount::UNIT;

fn describe(handle: &SeriesHandle, standing: &Standing) -> Json {
    let (key, spec) = (&handle.record.key, &handle.record.spec);
    let limit = standing.limit;
    let start: Micros = standing.period_start.unwrap_or(handle.record.created_at);
    let of_limit = limit.and_then(|limit| percent(&limit, standing.value)).map(Amount);
    let adds_up = matches!(spec.operation, Operation::Sum | Operation::Count);
    Json::object()
        .set("metric_name", &key.metric_name)
        .set("scope", word(&SCOPES, &key.scope()))
        .set_some("customer_id", key.customer_id.as_deref())
        .set("metric_type", word(&METRIC_TYPES, &spec.metric_type))
        .set("operation", word(&OPERATIONS, &spec.operation))
        .set("current_value", standing.value)
        .set("limit_value", limit.map(|limit| limit.value))
        .set("limit_operator", limit.map(|limit| word(&OPERATORS, &limit.operator)))
        .set("breach_action", limit.map(|limit| word(&ACTIONS, &limit.action)))
        .set("limit_source", limit.map(|_| word(&SOURCES, &standing.limit_source)))
        .set("limit_breached", limit.map(|_| standing.breached))
        .set("percent", of_limit)
        .set("overage", limit.filter(|_| adds_up).and_then(|limit| overage(&limit, standing.value)))
        .set("remaining", remaining(spec, standing))
        .set("period_start", start)
        .set("resets_at", standing.period_end)
}

/// What lies beyond a limit that lets it.
fn overage(limit: &Limit, value: Amount) -> Option<Amount> {
    let beyond = match limit.operator {
        Operator::Gte | Operator::Gt => value.0.saturating_sub(limit.value.0),
        Operator::Lte | Operator::Lt => limit.value.0.saturating_sub(value.0),
        Operator::Eq => return None,
    };
    (limit.action == Action::AllowOverage).then(|| Amount(beyond.max(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_exact_and_bounded() {
        let limit = |units: i64| Limit {
            value: Amount::from_units(units),
            operator: Operator::Gte,
            action: Action::Deny,
        };
        assert_eq!(percent(&limit(1_000), Amount::from_units(250)), Some(25 * Amount::UNIT));
        assert_eq!(percent(&limit(3), Amount::from_units(1)), Some(33_333_333_333));
        assert_eq!(percent(&limit(0), Amount::from_units(1)), None);
        assert_eq!(percent(&limit(1), Amount(i128::MAX)), Some(PERCENT_MAX));
        let least = Limit { value: Amount(-1), ..limit(1) };
        assert_eq!(percent(&least, Amount(i128::MIN)), Some(PERCENT_MAX));
    }

    #[test]
    fn a_cursor_is_a_place_in_the_order() {
        let key = |name: &str| SeriesKey {
            business_id: "biz".to_owned(),
            customer_id: Some("cust_1".to_owned()),
            metric_name: name.to_owned(),
        };
        let breached = Rank(Reverse(true), Reverse(5), key("a"));
        let more = Rank(Reverse(false), Reverse(50), key("a"));
        let less = Rank(Reverse(false), Reverse(-5), key("b"));
        assert!(breached < more && more < less);
        for rank in [breached, more, less] {
            assert_eq!(Rank::from_cursor("biz", &rank.to_cursor()), Ok(rank));
        }
        for cursor in ["", "2.1.61", "1.x.61", "1.1", "1.1.zz"] {
            assert!(Rank::from_cursor("biz", cursor).is_err(), "{cursor}");
        }
    }
}
