//! The audit log: who changed what is defined, newest first (API section 7).
//!
//! An entry is journaled with the change that it tells of, and read here from the store, which is at most a second behind
//! while it answers. A cursor is the entry's place in the journal.

use dataflows::types::{Actor, Epoch};
use hyper::StatusCode;

use super::error::ApiError;
use super::history::from_store;
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::parse::key::type_of;
use crate::admission::parse::{Fault, names};
use crate::store::{AuditQuery, AuditRow};

/// Entries on a page if the request names no number.
const LIMIT_DEFAULT: usize = 100;
/// Most entries on a page.
const LIMIT_MAX: usize = 1_000;

/// `GET /admin/v1/audit-logs`: of all businesses, or of one, which may have been deleted.
pub(super) async fn list(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let business_id = call.query.get("business_id").map(|text| names::id("business_id", text));
    page(rooms, call, business_id.transpose()?).await
}

/// `GET /api/v1/audit-logs`: of the caller's business.
pub(super) async fn list_own(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    page(rooms, call, Some(call.caller().business_id.as_ref().to_owned())).await
}

async fn page(rooms: &Rooms, call: &Call<'_>, business_id: Option<String>) -> Result<Reply, ApiError> {
    let limit = call.query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let before = call.query.get("cursor").map(from_cursor).transpose()?;
    // One more than wanted tells whether there is another page.
    let query = AuditQuery { business_id, before, limit: limit + 1 };
    let mut rows = from_store(rooms, move |history| history.audit(&query)).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| to_cursor(row.epoch, row.index));
    let shown: Vec<_> = rows.iter().map(show).collect();
    let json = Json::object()
        .set("audit_logs", &shown[..])
        .set("count", shown.len() as u64)
        .set("next_cursor", next_cursor);
    Ok(Reply::json(StatusCode::OK, json))
}

fn show(AuditRow { entry, .. }: &AuditRow) -> Json {
    let (actor, actor_type) = match &entry.actor {
        Actor::Server => ("server".to_owned(), "server"),
        Actor::Admin => ("admin".to_owned(), "admin"),
        Actor::Stripe => ("stripe".to_owned(), "stripe"),
        Actor::Key { kind, key_name } => (format!("key:{key_name}"), type_of(kind)),
    };
    Json::object()
        .set("at", entry.at)
        .set("actor", actor)
        .set("actor_type", actor_type)
        .set("action", &entry.action)
        .set("business_id", &entry.business_id)
        .set("subject", &entry.subject)
        .set_some("request_id", entry.request_id.as_deref())
}

/// Epochs of a journal that came before this one are negative.
fn to_cursor(epoch: Epoch, index: u32) -> String {
    format!("{}-{index}", epoch.cast_signed())
}

fn from_cursor(cursor: &str) -> Result<(Epoch, u32), Fault> {
    let place = cursor
        .rsplit_once('-')
        .and_then(|(epoch, index)| Some((epoch.parse::<i64>().ok()?.cast_unsigned(), index.parse().ok()?)));
    place.filter(|&(epoch, index)| to_cursor(epoch, index) == cursor).ok_or_else(|| {
        Fault::malformed("cursor", "invalid_cursor", "the cursor is not one that this service gave")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_place() {
        assert_eq!(from_cursor("12-3"), Ok((12, 3)));
        assert_eq!(from_cursor(&to_cursor((-7i64).cast_unsigned(), 3)), Ok(((-7i64).cast_unsigned(), 3)));
        for cursor in
            ["", "-", "1", "1-", "-1", "1-2-3", "+1-2", "1-4294967296", "9223372036854775808-1", "é-1"]
        {
            assert!(from_cursor(cursor).is_err(), "{cursor}");
        }
    }
}
