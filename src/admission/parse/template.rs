//! Templates: `PUT /api/v1/templates/{metric_name}`. The fields of a new series, and whether customers come along. What is
//! absent is at its default: a template is said whole.

use dataflows::types::SeriesSpec;

use super::object::{Object, Schema};
use super::series::{Bounds, FIELDS, apply, set};
use super::{Fault, FaultKind, names};

/// The fields of a PUT.
pub const BODY: Schema = Schema { path: "", known: &FIELDS, ignored: &[] };

/// Largest description, in bytes as the journal writes it: each of the series holds it, and one small event makes one.
pub const TEMPLATE_BYTES_MAX: usize = 1_024;

/// A template as a PUT asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTemplate {
    /// What series begin with, defaults filled in.
    pub spec: SeriesSpec,
    /// `create_customers`.
    pub create_customers: bool,
    /// What was understood but may surprise.
    pub warnings: Vec<String>,
}

impl NewTemplate {
    /// Reads a body; `metric_name` is the one of the path.
    pub fn parse(body: &[u8], metric_name: &str, bounds: &Bounds) -> Result<Self, Fault> {
        let mut warnings = Vec::new();
        let object = Object::body(body, &BODY, &mut warnings)?;
        if let Some(given) = object.given("metric_name")
            && given.named(names::metric_name)? != metric_name
        {
            let detail = "metric_name differs from the one in the path";
            return Err(Fault::malformed("metric_name", "invalid_combination", detail));
        }
        let mut create_customers = false;
        set(&mut create_customers, object.given("create_customers"), false, |it| it.boolean())?;
        let spec = apply(SeriesSpec::default(), &object, bounds, &mut warnings)?;
        let bytes = postcard::to_stdvec(&spec).expect("a description holds nothing that postcard refuses");
        if bytes.len() > TEMPLATE_BYTES_MAX {
            let detail = format!(
                "the description takes {} bytes and may take {TEMPLATE_BYTES_MAX}, since every series that is made holds it: \
                 shorten tags or metadata.custom",
                bytes.len()
            );
            return Err(Fault { kind: FaultKind::Unacceptable, ..Fault::body("template_too_large", detail) });
        }
        Ok(NewTemplate { spec, create_customers, warnings })
    }
}
