//! Plans and plan limits (API section 5): define, list, read, change, delete.
//!
//! A changed limit applies to every series concerned when the answer is sent, which says how many those were and how many
//! of them are breached now. With `dry_run=true` nothing changes and the same is worked out.

use dataflows::types::{Limited, MetricType, Plan, PlanLimit};
use hyper::StatusCode;

use super::error::ApiError;
use super::query::{LIMIT_DEFAULT, LIMIT_MAX};
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::parse::names::{self, ACTIONS, METRIC_TYPES, OPERATIONS, OPERATORS, word};
use crate::admission::parse::plan::{NewPlan, changed_limit, new_limit};
use crate::control::{ControlError, LimitEdit, Made, new_limit_id, new_plan_id};

/// `POST /api/v1/plans`. 409 for a second free plan and a second plan of a price.
pub(super) async fn create(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let NewPlan { plan_name, stripe_price_id } = NewPlan::parse(&call.body)?;
    let business_id = call.caller().business_id.as_ref().to_owned();
    let (plan_id, created_at) = (new_plan_id().map_err(|_| ControlError::NoRandomness)?, rooms.control.now());
    let plan = Plan { business_id, plan_id, plan_name, stripe_price_id, created_at };
    rooms.control.by(call.origin()).create_plan(plan.clone()).await?;
    Ok(Reply::json(StatusCode::CREATED, describe(Json::object().set("status", "created"), &plan)))
}

/// `GET /api/v1/plans`: by id, page by page. A cursor is the last id seen.
pub(super) fn list(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (limit, after) = page(call)?;
    let registry = rooms.control.registry();
    let plans = registry.plans().plans(&call.caller().business_id, after.as_deref());
    Ok(paged("plans", limit, plans, |plan| &plan.plan_id, |plan| describe(Json::object(), plan)))
}

/// `GET /api/v1/plans/{plan_id}`.
pub(super) fn read(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let registry = rooms.control.registry();
    let plan = registry.plans().plan(&call.caller().business_id, call.parameter(0));
    let plan = plan.ok_or(ControlError::NoSuchPlan)?;
    Ok(Reply::json(StatusCode::OK, describe(Json::object(), plan)))
}

/// `DELETE /api/v1/plans/{plan_id}`: with its limits. 409 while customers are on it.
pub(super) async fn delete(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let plan_id = call.parameter(0);
    rooms.control.by(call.origin()).delete_plan(&call.caller().business_id, plan_id).await?;
    Ok(Reply::json(StatusCode::OK, Json::object().set("status", "deleted").set("id", plan_id)))
}

/// `POST /api/v1/plan_limits`. 409 for a second limit of a plan, or a second default, for a metric.
pub(super) async fn create_limit(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let limit_id = new_limit_id().map_err(|_| ControlError::NoRandomness)?;
    let limit = new_limit(&call.body, &call.caller().business_id, limit_id, rooms.control.now())?;
    edit(rooms, call, LimitEdit::Create(limit), StatusCode::CREATED, "created").await
}

/// `PUT /api/v1/plan_limits/{limit_id}`: what is absent stays.
pub(super) async fn change_limit(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    // Nothing changes in a dry run: it holds nobody up.
    let dry_run = call.query.flag("dry_run")?.unwrap_or(false);
    let _one_at_a_time =
        if dry_run { None } else { Some(rooms.patching.of(&call.caller().business_id).await) };
    let limit = changed_limit(&call.body, &known_limit(rooms, call)?)?;
    edit(rooms, call, LimitEdit::Change(limit), StatusCode::OK, "updated").await
}

/// `DELETE /api/v1/plan_limits/{limit_id}`.
pub(super) async fn delete_limit(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let known = known_limit(rooms, call)?;
    edit(rooms, call, LimitEdit::Delete(known.business_id, known.limit_id), StatusCode::OK, "deleted").await
}

/// `GET /api/v1/plan_limits`: by id, page by page. A cursor is the last id seen.
pub(super) fn list_limits(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (limit, after) = page(call)?;
    let registry = rooms.control.registry();
    let limits = registry.plans().limits(&call.caller().business_id, after.as_deref());
    Ok(paged("plan_limits", limit, limits, |it| &it.limit_id, |it| describe_limit(Json::object(), it)))
}

/// `GET /api/v1/plan_limits/{limit_id}`.
pub(super) fn read_limit(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let limit = known_limit(rooms, call)?;
    Ok(Reply::json(StatusCode::OK, describe_limit(Json::object(), &limit)))
}

fn known_limit(rooms: &Rooms, call: &Call<'_>) -> Result<PlanLimit, ApiError> {
    let registry = rooms.control.registry();
    let limit = registry.plans().limit(&call.caller().business_id, call.parameter(0));
    Ok(limit.cloned().ok_or(ControlError::NoSuchPlanLimit)?)
}

async fn edit(
    rooms: &Rooms,
    call: &Call<'_>,
    edit: LimitEdit,
    status: StatusCode,
    word: &str,
) -> Result<Reply, ApiError> {
    let dry_run = call.query.flag("dry_run")?.unwrap_or(false);
    let made = if dry_run { foreseen(rooms, &edit).await? } else { made(rooms, call, &edit).await? };
    let json = Json::object().set("status", if dry_run { "dry_run" } else { word });
    let (json, limit_id, warnings) = match &edit {
        LimitEdit::Create(limit) | LimitEdit::Change(limit) => {
            let kept = rooms.control.kept_shapes(limit);
            let warning = format!("{kept} existing series keep their type, operation and period");
            (describe_terms(json, limit), &limit.limit_id, Vec::from_iter((kept > 0).then_some(warning)))
        }
        LimitEdit::Delete(_, limit_id) => (json, limit_id, Vec::new()),
    };
    // A limit that was not made has no id.
    let is_made = !dry_run || status != StatusCode::CREATED;
    let json = json
        .set_some("id", is_made.then_some(limit_id.as_str()))
        .set("series_touched", made.limited.series)
        .set("series_created", made.series as u64)
        .set("became_breached", made.limited.breached)
        .set("warnings", &warnings[..]);
    Ok(Reply::json(if dry_run { StatusCode::OK } else { status }, json))
}

async fn made(rooms: &Rooms, call: &Call<'_>, edit: &LimitEdit) -> Result<Made, ApiError> {
    let edits = rooms.control.by(call.origin());
    Ok(match edit {
        LimitEdit::Create(limit) => edits.put_plan_limit(limit.clone(), false).await?,
        LimitEdit::Change(limit) => edits.put_plan_limit(limit.clone(), true).await?,
        LimitEdit::Delete(business_id, limit_id) => edits.delete_plan_limit(business_id, limit_id).await?,
    })
}

/// What an edit would do as of now.
async fn foreseen(rooms: &Rooms, edit: &LimitEdit) -> Result<Made, ApiError> {
    let effects = rooms.control.effects(edit)?;
    let mut breached = 0;
    for part in effects.touched.chunks(LIMIT_MAX) {
        let handles: Vec<_> = part.iter().map(|(handle, _)| handle.clone()).collect();
        let standings = rooms.admission.read(&handles).await?;
        for ((handle, limit), standing) in part.iter().zip(standings) {
            let shape = handle.record.spec.shape(0).limited(*limit);
            let becomes = |standing: &dataflows::types::Standing| {
                !standing.breached && shape.is_breached(&standing.tally)
            };
            breached += u64::from(standing.as_ref().is_some_and(becomes));
        }
    }
    // A series that begins reads its initial value.
    if let LimitEdit::Create(limit) | LimitEdit::Change(limit) = edit {
        let shape = limit.spec().shape(0).limited(Some(limit.effective()));
        let begins_breached = shape.is_breached(&dataflows::types::Tally::EMPTY);
        breached += if begins_breached { effects.begun_limited as u64 } else { 0 };
    }
    let series = effects.touched.len() as u64 + effects.begun_limited as u64;
    Ok(Made { definitions: 0, series: effects.begun, limited: Limited { series, breached } })
}

fn page(call: &Call<'_>) -> Result<(usize, Option<String>), ApiError> {
    let limit = call.query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = call.query.get("cursor").map(|cursor| names::id("cursor", cursor)).transpose()?;
    Ok((limit, after))
}

/// A page of what is in order behind a cursor.
fn paged<'a, T: 'a>(
    name: &str,
    limit: usize,
    items: impl Iterator<Item = &'a T>,
    id: impl Fn(&T) -> &String,
    describe: impl Fn(&T) -> Json,
) -> Reply {
    // One more than wanted tells whether there is another page.
    let mut page: Vec<&T> = items.take(limit + 1).collect();
    let more = page.len() > limit;
    page.truncate(limit);
    let shown: Vec<_> = page.iter().map(|item| describe(item)).collect();
    let last = page.last().filter(|_| more).map(|item| id(item).as_str());
    let json = Json::object().set(name, &shown[..]).set("count", shown.len() as u64).set("next_cursor", last);
    Reply::json(StatusCode::OK, json)
}

fn describe(into: Json, plan: &Plan) -> Json {
    into.set("id", &plan.plan_id)
        .set("plan_name", &plan.plan_name)
        .set("stripe_price_id", plan.stripe_price_id.as_deref())
        .set("business_id", &plan.business_id)
        .set("created_at", plan.created_at)
}

fn describe_limit(into: Json, limit: &PlanLimit) -> Json {
    describe_terms(into.set("id", &limit.limit_id), limit)
}

fn describe_terms(into: Json, limit: &PlanLimit) -> Json {
    let notify_at: Vec<u64> = limit.notify_at.iter().copied().map(u64::from).collect();
    into.set("plan_id", limit.plan_id.as_deref())
        .set("metric_name", &limit.metric_name)
        .set("limit_value", limit.limit.value)
        .set("limit_operator", word(&OPERATORS, &limit.limit.operator))
        .set("breach_action", word(&ACTIONS, &limit.limit.action))
        .set("limit_period", limit.period.text())
        .set("metric_type", limit.metric_type.map(|it: MetricType| word(&METRIC_TYPES, &it)))
        .set("operation", word(&OPERATIONS, &limit.operation))
        .set("notify_at", Some(&notify_at[..]).filter(|list| !list.is_empty()))
        .set("webhook_url", limit.webhook_url.as_deref())
        .set("business_id", &limit.business_id)
        .set("created_at", limit.created_at)
}
