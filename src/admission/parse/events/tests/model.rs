//! Items as a naive reader has them: the whole body at once, `serde_json::Value`, a map from names to values.
//!
//! Amounts go through the text of an `f64`, so the generators write at most fifteen digits; times through jiff.

use serde_json::{Map, Value};

use super::*;

type Read = Result<Event<'static>, &'static str>;

/// The items of a body of objects a line.
pub fn lines(body: &str) -> Vec<Read> {
    body.lines().filter(|line| !line.trim().is_empty()).map(|line| text(line, item)).collect()
}

/// The items of an array.
pub fn array(body: &str, read: fn(&Map<String, Value>) -> Read) -> Vec<Read> {
    let items: Vec<Value> = serde_json::from_str(body).expect("the generator writes arrays");
    items.iter().map(|item| item.as_object().map_or(Err("wrong_type"), read)).collect()
}

pub fn text(text: &str, read: fn(&Map<String, Value>) -> Read) -> Read {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => read(&object),
        Ok(_) => Err("wrong_type"),
        Err(_) => Err("malformed_json"),
    }
}

pub fn item(object: &Map<String, Value>) -> Read {
    let known = ["metric_name", "customer_id", "scope", "value", "timestamp", "id"];
    if object.keys().any(|name| !known.contains(&name.as_str())) {
        return Err("unknown_field");
    }
    let given = |name: &str| object.get(name).filter(|value| !value.is_null());
    let metric_name = metric_name(object.get("metric_name"))?;
    let customer_id = given("customer_id").map(id).transpose()?;
    let scope = match given("scope") {
        None => None,
        Some(Value::String(scope)) if scope == "business" || scope == "customer" => Some(scope.as_str()),
        Some(Value::String(_)) => return Err("invalid_option"),
        Some(_) => return Err("wrong_type"),
    };
    let amount = given("value").map_or(Ok(Amount(Amount::UNIT)), amount)?;
    let event_at = given("timestamp").map(moment).transpose()?;
    let id = given("id").map(id).transpose()?;
    match (scope, &customer_id) {
        (Some("business"), Some(_)) => return Err("invalid_combination"),
        (Some("customer"), None) => return Err("missing_field"),
        _ => (),
    }
    Ok(Event { metric_name, customer_id, amount, event_at, id: id.map(Identity::Plain) })
}

pub fn cloud_event(object: &Map<String, Value>) -> Read {
    let string = |name: &str| match object.get(name) {
        None => Err("missing_field"),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err("wrong_type"),
    };
    let plain = |name: &str| {
        let text = string(name)?;
        if text.is_empty() || text.contains(char::is_control) {
            Err("invalid_text")
        } else {
            Ok(Cow::Owned(text))
        }
    };
    let given = |name: &str| object.get(name).filter(|value| !value.is_null());
    if string("specversion")? != "1.0" {
        return Err("unsupported_specversion");
    }
    let metric_name = metric_name(object.get("type"))?;
    let identity = Identity::CloudEvent { source: plain("source")?, id: plain("id")? };
    let customer_id = given("subject").map(id).transpose()?;
    let event_at = given("time").map(moment).transpose()?;
    let value = given("data").and_then(|data| data.get("value")).filter(|value| !value.is_null());
    let amount = match value {
        None => Amount(Amount::UNIT),
        Some(Value::String(text)) => {
            let number: Value = serde_json::from_str(text).map_err(|_| "wrong_type")?;
            amount(&number)?
        }
        Some(value) => amount(value)?,
    };
    Ok(Event { metric_name, customer_id, amount, event_at, id: Some(identity) })
}

fn metric_name(value: Option<&Value>) -> Result<Cow<'static, str>, &'static str> {
    match value {
        None => Err("missing_field"),
        Some(Value::String(name)) => {
            let is_legal = (1..=100).contains(&name.len())
                && name.chars().all(|symbol| symbol.is_ascii_alphanumeric() || "_.:-".contains(symbol));
            if is_legal { Ok(Cow::Owned(name.clone())) } else { Err("invalid_name") }
        }
        Some(_) => Err("wrong_type"),
    }
}

fn id(value: &Value) -> Result<Cow<'static, str>, &'static str> {
    let Value::String(id) = value else { return Err("wrong_type") };
    let is_legal = (1..=255).contains(&id.len())
        && id.chars().all(|symbol| ('!'..='~').contains(&symbol) && symbol != '/');
    if is_legal { Ok(Cow::Owned(id.clone())) } else { Err("invalid_id") }
}

fn moment(value: &Value) -> Result<Micros, &'static str> {
    let Value::String(text) = value else { return Err("wrong_type") };
    // jiff takes more than RFC 3339 has; the generators write nothing of that.
    let moment: jiff::Timestamp = text.parse().map_err(|_| "invalid_time")?;
    Ok(Micros(moment.as_microsecond()))
}

fn amount(value: &Value) -> Result<Amount, &'static str> {
    let Value::Number(number) = value else { return Err("wrong_type") };
    if number.as_f64().is_none_or(|number| number.abs() > 1e15) {
        return Err("amount_out_of_range");
    }
    let text = format!("{:.9}", number.as_f64().expect("every number has one"));
    Ok(Amount(text.replace('.', "").parse().expect("digits")))
}
