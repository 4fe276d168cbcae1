//! CloudEvents 1.0 (<https://github.com/cloudevents/spec>, core and JSON format): what a producer of usage made for any
//! metering service sends.
//!
//! | attribute | here |
//! |---|---|
//! | `specversion` | must be `1.0` |
//! | `type` | the metric |
//! | `subject` | the customer; absent: the business's own series |
//! | `source`, `id` | the identity |
//! | `time` | the time of the event; absent: its arrival |
//! | `data.value` | the amount, a number or a decimal string; 1 if there is no data, no object in it or no value |
//! | `data_base64` | the same, if it holds JSON |
//! | others, extensions | skipped |

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dataflows::types::{Amount, AmountError};
use serde_json::value::RawValue;

use super::super::object::{Object, Schema, Value};
use super::super::{Fault, names};
use super::{Event, Identity, Rejection, item};

/// Longest `source` and longest `id` of a CloudEvent, in bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;

const ATTRIBUTES: Schema = Schema {
    path: "",
    known: &[
        "specversion",
        "type",
        "source",
        "id",
        "subject",
        "time",
        "datacontenttype",
        "data",
        "data_base64",
    ],
    ignored: &[],
};
const DATA: Schema = Schema { path: "data", known: &["value"], ignored: &[] };

/// Reads an event in the JSON format.
pub fn parse(bytes: &[u8]) -> Result<Event<'_>, Rejection> {
    let object = Object::open(item::utf8(bytes)?, "the event", &ATTRIBUTES)?;
    let text = |name| object.required(name).and_then(|value| value.string());
    check_version(&text("specversion")?)?;
    let metric_name = object.required("type")?.checked(names::check_metric_name)?;
    let source = object.required("source")?.checked(check_text)?;
    let id = object.required("id")?.checked(check_text)?;
    let customer_id = object.some("subject").map(|value| value.checked(names::check_id)).transpose()?;
    let event_at = object.some("time").map(|value| value.named(names::moment)).transpose()?;
    let amount = match (object.some("data"), object.some("data_base64")) {
        (None, None) => Amount::from_units(1),
        (Some(data), None) => amount_in(data.text())?,
        (None, Some(data)) => {
            let content_type = object.some("datacontenttype").map(|value| value.string()).transpose()?;
            let decoded = STANDARD.decode(data.string()?.as_bytes()).map_err(|error| {
                Rejection::new("malformed_base64", format!("data_base64 is not base64: {error}"))
            })?;
            amount_of(content_type.as_deref(), &decoded)?
        }
        (Some(_), Some(_)) => {
            let detail = "data goes only without data_base64";
            return Err(Rejection::new("invalid_combination", detail));
        }
    };
    Ok(Event { metric_name, customer_id, amount, event_at, id: Some(Identity::CloudEvent { source, id }) })
}

/// Only version 1.0, to which all of this belongs.
pub fn check_version(specversion: &str) -> Result<(), Rejection> {
    if specversion == "1.0" {
        return Ok(());
    }
    Err(Rejection::new("unsupported_specversion", "specversion must be 1.0"))
}

/// What may be a `source` or an `id`.
pub fn check_text(field: &str, text: &str) -> Result<(), Fault> {
    if (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control) {
        return Ok(());
    }
    let detail = format!("{field} must be 1 to {TEXT_BYTES_MAX} bytes of text without control characters");
    Err(Fault::malformed(field, "invalid_text", detail))
}

/// The amount in data of a media type. Without one it may be JSON or not; a type that is none of JSON's has no value.
pub fn amount_of(content_type: Option<&str>, data: &[u8]) -> Result<Amount, Rejection> {
    let json = content_type.map(is_json);
    if data.trim_ascii().is_empty() || json == Some(false) {
        return Ok(Amount::from_units(1));
    }
    match serde_json::from_slice::<&RawValue>(data) {
        Ok(data) => amount_in(data.get()),
        Err(_) if json.is_none() => Ok(Amount::from_units(1)),
        Err(error) => Err(Rejection::new("malformed_json", format!("the data is not valid JSON: {error}"))),
    }
}

/// Whether a media type is JSON or a kind of it (RFC 6839).
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/json") || essence.ends_with("+json")
}

/// The amount in JSON data.
fn amount_in(data: &str) -> Result<Amount, Rejection> {
    let one = Amount::from_units(1);
    if !data.trim_ascii_start().starts_with('{') {
        return Ok(one);
    }
    let object = Object::open(data, "data", &DATA)?;
    object.some("value").map_or(Ok(one), |value| amount(&value))
}

/// A number, or a string that is written like one.
fn amount(value: &Value<'_>) -> Result<Amount, Rejection> {
    if !value.text().starts_with('"') {
        return Ok(value.amount()?);
    }
    value.string()?.parse().map_err(|error| match error {
        AmountError::Malformed => {
            Rejection::new("wrong_type", "data.value must be a JSON number or a string written like one")
        }
        AmountError::OutOfRange => {
            Rejection::new("amount_out_of_range", "the magnitude of data.value is above 10^15")
        }
    })
}
