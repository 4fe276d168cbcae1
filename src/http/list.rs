//! `GET /api/v1/metrics`: the series of a business with their values, page by page.
//!
//! The order is (scope, customer, name), which no update changes. A cursor is the name of the last series seen, in
//! hexadecimal: it survives restarts, and a deleted series is no obstacle. Only `breached` depends on values: it is
//! applied to what has been read, and a page ends early once `SCANNED_MAX` series have been looked at.

use dataflows::types::{Scope, SeriesKey};
use hyper::StatusCode;

use super::auth::{customer, no_such_customer};
use super::error::{ApiError, Title};
use super::metrics::reading;
use super::query::{LIMIT_DEFAULT, LIMIT_MAX, hex_byte};
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::parse::names::SCOPES;
use crate::admission::parse::{Fault, names};
use crate::control::SeriesFilter;

/// Series that one request looks at.
const SCANNED_MAX: usize = 10_000;

/// `GET /api/v1/metrics`. Without `scope` both scopes are shown; a customer key sees its own customer.
pub(super) async fn list(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let filter = filter(rooms, call)?;
    let breached = call.query.flag("breached")?;
    let limit = call.query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let mut after =
        call.query.get("cursor").map(|cursor| from_cursor(&filter.business_id, cursor)).transpose()?;
    let as_of = rooms.admission.now();
    let (mut shown, mut scanned, mut more) = (Vec::new(), 0, true);
    while more && shown.len() < limit && scanned < SCANNED_MAX {
        // One more than wanted tells whether there is another page. With `breached` any number may be skipped.
        let wanted = if breached.is_some() { LIMIT_MAX } else { limit };
        let mut page = rooms.control.list_series(&filter, after.as_ref(), wanted + 1);
        more = page.len() > wanted;
        page.truncate(wanted);
        scanned += page.len();
        let standings = rooms.admission.read(&page).await?;
        for (at, (handle, standing)) in page.iter().zip(standings).enumerate() {
            after = Some(handle.record.key.clone());
            // None: deleted since.
            let Some(standing) = standing else { continue };
            if breached.is_none_or(|breached| breached == standing.breached) {
                shown.push(reading(handle, &standing, as_of));
            }
            if shown.len() == limit {
                more |= at + 1 < page.len();
                break;
            }
        }
    }
    let next_cursor = if more { after.as_ref().map(to_cursor) } else { None };
    let json = Json::object()
        .set("metrics", &shown[..])
        .set("count", shown.len() as u64)
        .set("next_cursor", next_cursor);
    Ok(Reply::json(StatusCode::OK, json))
}

pub(super) fn filter(rooms: &Rooms, call: &Call<'_>) -> Result<SeriesFilter, ApiError> {
    let (caller, query) = (call.caller(), &call.query);
    let mut scope = query.choice("scope", &SCOPES)?;
    let mut customer_id = customer(caller, query, scope == Some(Scope::Customer))?;
    if let Some(own) = &caller.customer_id {
        if scope == Some(Scope::Business) {
            let detail = "a customer key reads only its own customer";
            return Err(ApiError::new(Title::Forbidden, "customer_key", detail));
        }
        (scope, customer_id) = (Some(Scope::Customer), Some(own.as_ref().to_owned()));
    }
    if customer_id.as_ref().is_some_and(|id| !rooms.control.customer_exists(&caller.business_id, id)) {
        return Err(no_such_customer());
    }
    let metric_name = query.get("name").map(|name| names::metric_name("name", name)).transpose()?;
    let tag = query.get("tag").map(|text| {
        let pair = text.split_once(':').filter(|(name, _)| !name.is_empty());
        let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| Fault::malformed("tag", "invalid_option", "tag must be name:value"))
    });
    let business_id = caller.business_id.as_ref().to_owned();
    Ok(SeriesFilter { business_id, scope, customer_id, metric_name, tag: tag.transpose()? })
}

/// `customer/metric` in hexadecimal, `/metric` for a business series; neither name can hold a `/`.
pub(super) fn to_cursor(key: &SeriesKey) -> String {
    let text = format!("{}/{}", key.customer_id.as_deref().unwrap_or_default(), key.metric_name);
    text.bytes().fold(String::with_capacity(text.len() * 2), |hex, byte| hex + &format!("{byte:02x}"))
}

pub(super) fn from_cursor(business_id: &str, cursor: &str) -> Result<SeriesKey, Fault> {
    let fault =
        || Fault::malformed("cursor", "invalid_cursor", "the cursor is not one that this service gave");
    let bytes: Option<Vec<u8>> = cursor.as_bytes().chunks(2).map(hex_byte).collect();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(fault)?;
    let (customer_id, metric_name) = text.split_once('/').ok_or_else(fault)?;
    let customer_id = (!customer_id.is_empty()).then(|| customer_id.to_owned());
    Ok(SeriesKey { business_id: business_id.to_owned(), customer_id, metric_name: metric_name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_name() {
        for customer_id in [None, Some("cust_123".to_owned())] {
            let key =
                SeriesKey { business_id: "biz".to_owned(), customer_id, metric_name: "api:calls".to_owned() };
            assert_eq!(from_cursor("biz", &to_cursor(&key)), Ok(key));
        }
        for cursor in ["", "zz", "2", "2f2", "ff", "61", "é"] {
            assert!(from_cursor("biz", cursor).is_err(), "{cursor}");
        }
    }
}
