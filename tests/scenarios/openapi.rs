//! Answers against the OpenAPI document: every member that it requires is there, and no answer has one that it does not
//! name. JSON Schema leaves answers open, so that clients bear what later versions add; the service itself may not.

use serde_json::Value;
use tracktags::http::openapi::document;
use tracktags::http::routes::Route;

use super::support::api::Outcome;

/// Panics unless the document describes an answer of a route.
pub fn describes(route: &Route, outcome: &Outcome) {
    let document = document();
    let (body, statuses) = match outcome {
        Outcome::Durable(body) => (body, vec!["200".to_owned(), "201".to_owned()]),
        Outcome::Rejected(status, body) => (body, vec![status.to_string()]),
        Outcome::Unknown(why) => panic!("{why}"),
    };
    let body: Value = serde_json::from_str(body).expect("JSON");
    let method = route.method.as_str().to_ascii_lowercase();
    let responses = &document["paths"][route.path][method]["responses"];
    let mut faults = Vec::new();
    for response in statuses.iter().filter_map(|status| responses.get(status)) {
        let contents = resolved(&document, response)["content"].as_object().expect("an answer has a body");
        for content in contents.values() {
            match fault(&document, &content["schema"], &body) {
                None => return,
                Some(fault) => faults.push(fault),
            }
        }
    }
    panic!("{} {} answers {body}, not as described: {faults:?}", route.method, route.path);
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value["$ref"].as_str() else { return value };
    document.pointer(reference.trim_start_matches('#')).expect("references lead somewhere")
}

/// What is wrong with the members of a value, if anything.
fn fault(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    let schema = resolved(document, schema);
    if let Some(options) = schema["anyOf"].as_array() {
        let faults = options.iter().map(|option| fault(document, option, value));
        return faults.min_by_key(Option::is_some).flatten();
    }
    match (value, &schema["properties"]) {
        (Value::Array(items), _) => items.iter().find_map(|item| fault(document, &schema["items"], item)),
        (Value::Object(members), Value::Object(properties)) => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let absent =
                required.filter(|name| !members.contains_key(*name)).map(|name| format!("{name} is absent"));
            let wrong = members.iter().filter_map(|(name, value)| match properties.get(name) {
                Some(property) => fault(document, property, value).map(|fault| format!("{name}: {fault}")),
                None => Some(format!("{name} is not described")),
            });
            absent.chain(wrong).next()
        }
        _ => None,
    }
}

#[test]
fn a_member_too_many_and_one_too_few_are_faults() {
    let document = document();
    let schema = &document["components"]["schemas"]["MetricDeleted"];
    let fault_of = |text: &str| fault(&document, schema, &serde_json::from_str(text).expect("JSON"));
    assert_eq!(fault_of(r#"{"status": "deleted", "metric_name": "m", "business_id": "b"}"#), None);
    let fewer = fault_of(r#"{"status": "deleted", "metric_name": "m"}"#);
    assert_eq!(fewer.as_deref(), Some("business_id is absent"));
    let more = fault_of(r#"{"status": "deleted", "metric_name": "m", "business_id": "b", "more": 1}"#);
    assert_eq!(more.as_deref(), Some("more is not described"));
}
