//! `PUT /api/v1/businesses/{business_id}/webhook`: where a tenant's messages go.

use super::object::{Object, Schema};
use super::{Fault, names};

/// The fields of a body.
pub const BODY: Schema = Schema { path: "", known: &["url"], ignored: &[] };

/// The `url` of a body.
pub fn parse(body: &[u8]) -> Result<String, Fault> {
    // The schema ignores nothing, so nothing can be warned of.
    Object::body(body, &BODY, &mut Vec::new())?.required("url")?.named(names::url)
}
