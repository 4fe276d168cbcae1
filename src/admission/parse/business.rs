//! `POST /api/v1/businesses` and `PUT /api/v1/businesses/{business_id}`: who a tenant is.

use super::object::{Object, Schema};
use super::{Fault, names};

/// The fields of a body.
pub const BODY: Schema = Schema { path: "", known: &["business_name", "email"], ignored: &[] };

/// A body; what is absent is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusinessBody {
    /// `business_name`.
    pub business_name: Option<String>,
    /// `email`.
    pub email: Option<String>,
}

impl BusinessBody {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        // The schema ignores nothing, so nothing can be warned of.
        let object = Object::body(body, &BODY, &mut Vec::new())?;
        let text = |field| {
            object.given(field).map(|value| value.named(names::text::<{ names::TEXT_BYTES_MAX }>)).transpose()
        };
        Ok(BusinessBody { business_name: text("business_name")?, email: text("email")? })
    }
}
