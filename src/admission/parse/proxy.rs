//! `POST /api/v1/proxy`: what is to be checked, and what is then to be sent where; `PUT
//! /api/v1/businesses/{business_id}/proxy_targets`: where to customer keys may send. Whether target, method and headers can
//! be sent at all, and what an origin is, is known to the room that sends.

use dataflows::types::Scope;

use super::Fault;
use super::names::{self, SCOPES};
use super::object::{Object, Schema, Value};
use super::series::Pairs;

/// The fields of a body.
pub const BODY: Schema = Schema {
    path: "",
    known: &["scope", "customer_id", "metric_name", "target_url", "method", "headers", "body"],
    ignored: &[],
};

/// The fields of a body that binds customer keys.
pub const TARGETS: Schema = Schema { path: "", known: &["proxy_targets"], ignored: &[] };

/// Most origins in `proxy_targets`: each call of a customer key looks one up, each definition holds them all.
pub const PROXY_TARGETS_MAX: usize = 100;

/// The `proxy_targets` of a body, as they came.
pub fn targets(body: &[u8]) -> Result<Vec<String>, Fault> {
    let given = Object::body(body, &TARGETS, &mut Vec::new())?.required("proxy_targets")?;
    let targets: Vec<String> = given.shaped("a list of strings")?;
    if targets.len() > PROXY_TARGETS_MAX {
        let detail = format!("proxy_targets holds at most {PROXY_TARGETS_MAX} origins");
        return Err(Fault::unacceptable(given.field(), "out_of_bounds", detail));
    }
    Ok(targets)
}

/// One call as a client asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCall {
    /// `metric_name`; none (the empty name) is every plan limit of the customer.
    pub metric_name: Option<String>,
    /// `scope`; none if it is left to `customer_id` and to the caller's key.
    pub scope: Option<Scope>,
    /// `customer_id`.
    pub customer_id: Option<String>,
    /// `target_url`, as it came.
    pub target_url: String,
    /// `method`; `GET` by default.
    pub method: String,
    /// `headers`, in order, repetitions included.
    pub headers: Vec<(String, String)>,
    /// `body`: a text as it is; any other JSON as its own text.
    pub body: Vec<u8>,
    /// Whether the body is JSON that goes out as its text: its type is then said if no header does.
    pub body_is_json: bool,
}

impl NewCall {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let object = Object::body(body, &BODY, &mut Vec::new())?;
        let metric_name = object.required("metric_name")?.named(|field, name| match name {
            "" => Ok(None),
            name => names::metric_name(field, name).map(Some),
        })?;
        let sent = object.some("body");
        let body_is_json = sent.is_some_and(|value| !value.text().starts_with('"'));
        let headers = object.some("headers").map(|value| value.shaped::<Pairs>("an object of strings"));
        let method = object.some("method").map(|value| value.string()).transpose()?;
        Ok(NewCall {
            metric_name,
            scope: object.some("scope").map(|value| value.choice(SCOPES)).transpose()?,
            customer_id: object.some("customer_id").map(|value| value.named(names::id)).transpose()?,
            target_url: object.required("target_url")?.string()?.into_owned(),
            method: method.map_or_else(|| "GET".to_owned(), |method| method.to_ascii_uppercase()),
            headers: headers.transpose()?.map(|pairs| pairs.0).unwrap_or_default(),
            body: sent.map(bytes).transpose()?.unwrap_or_default(),
            body_is_json,
        })
    }
}

fn bytes(value: Value<'_>) -> Result<Vec<u8>, Fault> {
    match value.text().starts_with('"') {
        true => Ok(value.string()?.into_owned().into_bytes()),
        false => Ok(value.text().as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_goes_out_as_it_is_and_other_json_as_its_text() {
        let call = |body: &str| {
            let text =
                format!(r#"{{"metric_name": "m", "target_url": "https://a.example", "body": {body}}}"#);
            let call = NewCall::parse(text.as_bytes()).expect("well-formed");
            (String::from_utf8(call.body).expect("text"), call.body_is_json)
        };
        assert_eq!(call(r#""a\nb""#), ("a\nb".to_owned(), false));
        assert_eq!(call(r#"{"a": [1.0]}"#), (r#"{"a": [1.0]}"#.to_owned(), true));
        assert_eq!(call("null"), (String::new(), false));
    }

    #[test]
    fn whatever_is_wrong_names_its_field() {
        for (body, field, code) in [
            (r#"{"target_url": "https://a.example"}"#, "metric_name", "missing_field"),
            (r#"{"metric_name": "m"}"#, "target_url", "missing_field"),
            (r#"{"metric_name": "a b", "target_url": ""}"#, "metric_name", "invalid_name"),
            (r#"{"metric_name": "", "target_url": 1}"#, "target_url", "wrong_type"),
            (r#"{"metric_name": "", "target_url": "", "headers": {"a": 1}}"#, "headers", "wrong_type"),
            (r#"{"metric_name": "", "target_url": "", "method": 1}"#, "method", "wrong_type"),
            (r#"{"metric_name": "", "target_url": "", "url": ""}"#, "url", "unknown_field"),
        ] {
            let fault = NewCall::parse(body.as_bytes()).expect_err(body);
            assert_eq!((fault.field.as_deref(), fault.code), (Some(field), code), "{body}");
        }
    }
}
