//! The OpenAPI document against what it is made of: the table of routes and the parser. Whether the service does what it
//! says is asked by schemathesis (`tests/run`) and by `scenarios::openapi`.

use std::collections::BTreeSet;

use serde_json::Value;
use tracktags::admission::parse::object::Schema;
use tracktags::admission::parse::{
    business, check, customer, key, metadata, plan, proxy, series, template, update, webhook,
};
use tracktags::http::auth::Access;
use tracktags::http::openapi::document;
use tracktags::http::routes::{ROUTES, Route, Takes};

/// A part of the document, by its JSON pointer; panics if it is not there.
fn part<'a>(document: &'a Value, pointer: &str) -> &'a Value {
    document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not there"))
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().expect("an object").iter()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("a list").iter()
}

fn word(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn described<'a>(document: &'a Value, route: &Route) -> &'a Value {
    let path = route.path.replace('/', "~1");
    part(document, &format!("/paths/{path}/{}", route.method.as_str().to_ascii_lowercase()))
}

/// Every value of a member of that name, at any depth.
fn find<'a>(value: &'a Value, name: &str, into: &mut Vec<&'a Value>) {
    match value {
        Value::Object(members) => {
            into.extend(members.get(name));
            members.values().for_each(|value| find(value, name, into));
        }
        Value::Array(items) => items.iter().for_each(|value| find(value, name, into)),
        _ => {}
    }
}

#[test]
fn the_document_has_the_routes_of_the_table_and_no_others() {
    let document = document();
    let operations = members(&document["paths"]).flat_map(|(path, methods)| {
        members(methods).map(move |(method, _)| (path.clone(), method.to_ascii_uppercase()))
    });
    let table = ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_string()));
    assert_eq!(operations.collect::<BTreeSet<_>>(), table.collect::<BTreeSet<_>>());
    assert!(word(&document["openapi"]).starts_with("3.1."));
}

#[test]
fn every_operation_has_the_parameters_of_its_route() {
    let document = document();
    for route in &ROUTES {
        let at = format!("{} {}", route.method, route.path);
        let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut expected: BTreeSet<_> = in_path.map(|name| ("path", name, true)).collect();
        expected.extend(route.query.iter().map(|name| ("query", *name, false)));
        let parameters: Vec<_> = items(&described(&document, route)["parameters"]).collect();
        let shown = parameters.iter().map(|it| (word(&it["in"]), word(&it["name"]), it["required"] == true));
        assert_eq!(shown.filter(|(place, ..)| *place != "header").collect::<BTreeSet<_>>(), expected, "{at}");
        for parameter in parameters {
            assert!(parameter["description"].is_string(), "{at}: nobody says what {parameter} is");
            assert!(parameter["schema"]["type"].is_string(), "{at}: {parameter} may be anything");
        }
    }
}

#[test]
fn an_operation_takes_a_body_and_asks_for_a_key_as_its_route_does() {
    let document = document();
    for route in &ROUTES {
        let (operation, at) = (described(&document, route), format!("{} {}", route.method, route.path));
        assert_eq!(operation.get("requestBody").is_some(), route.body != Takes::Nothing, "{at}");
        let schemes: Vec<_> =
            items(&operation["security"]).flat_map(|entry| members(entry).map(|(name, _)| &**name)).collect();
        let expected: &[&str] = match route.access {
            Access::Open | Access::Signed => &[],
            Access::Key { .. } => &["bearerKey"],
            Access::Admin => &["adminKey"],
            Access::Tenant(_) => &["adminKey", "bearerKey"],
        };
        assert_eq!(schemes, expected, "{at}");
    }
}

#[test]
fn operations_have_names_of_their_own_and_are_described() {
    let (document, mut ids) = (document(), BTreeSet::new());
    let tags: Vec<_> = items(&document["tags"]).map(|tag| &tag["name"]).collect();
    for route in &ROUTES {
        let operation = described(&document, route);
        let id = word(&operation["operationId"]);
        assert!(ids.insert(id), "{id} is the name of two operations");
        assert!(items(&operation["tags"]).all(|tag| tags.contains(&tag)), "{id} has an unknown tag");
        assert!(["summary", "description"].iter().all(|name| !word(&operation[*name]).is_empty()), "{id}");
        let statuses: Vec<_> = members(&operation["responses"]).map(|(status, _)| &**status).collect();
        assert!(statuses.iter().any(|status| status.starts_with('2')), "{id} never succeeds");
        let is_open = matches!(route.access, Access::Open | Access::Signed);
        assert_eq!(statuses.contains(&"401"), !is_open, "{id}: who has no key is told");
        assert_eq!(statuses.contains(&"415"), route.body != Takes::Nothing, "{id}");
    }
}

#[test]
fn answers_that_tell_a_quota_name_its_headers() {
    let document = document();
    let quota = ["RateLimit", "RateLimit-Policy"];
    let rated = [
        "/paths/~1api~1v1~1metrics~1{metric_name}/get/responses/200",
        "/paths/~1api~1v1~1metrics~1{metric_name}/put/responses/200",
        "/paths/~1api~1v1~1check/post/responses/200",
        "/paths/~1api~1v1~1proxy/post/responses/200",
    ];
    let limited = ["/paths/~1api~1v1~1proxy/post/responses/429", "/components/responses/TooManyRequests"];
    for pointer in rated.iter().chain(&limited) {
        let headers = &part(&document, pointer)["headers"];
        assert!(quota.iter().all(|name| headers[name].is_object()), "{pointer}");
        assert_eq!(headers["Retry-After"].is_object(), limited.contains(pointer), "{pointer}");
    }
    for name in quota.iter().chain(&["Retry-After-Reset"]) {
        let header = part(&document, &format!("/components/headers/{name}"));
        assert_eq!(header["required"], false, "{name} goes with some limits only");
    }
}

#[test]
fn references_lead_somewhere_and_every_schema_is_used() {
    let (document, mut references) = (document(), Vec::new());
    find(&document, "$ref", &mut references);
    let references: BTreeSet<_> = references.into_iter().map(word).collect();
    for reference in &references {
        part(&document, reference.strip_prefix('#').expect("within the document"));
    }
    for (name, _) in members(&document["components"]["schemas"]) {
        assert!(references.contains(&*format!("#/components/schemas/{name}")), "{name} is used nowhere");
    }
}

#[test]
fn a_client_that_fills_in_defaults_changes_nothing_else() {
    for change in [
        "MetricChange",
        "StoreIntegration",
        "StripeIntegration",
        "MetricMetadata",
        "CustomerChange",
        "PlanLimitChange",
    ] {
        let (document, mut defaults) = (document(), Vec::new());
        find(part(&document, &format!("/components/schemas/{change}")), "default", &mut defaults);
        assert!(defaults.is_empty(), "{change} would put {defaults:?} back");
    }
}

#[test]
fn a_request_has_the_fields_that_the_parser_knows() {
    let document = document();
    let bodies: [(&str, &Schema); 23] = [
        ("NewMetric", &series::POST),
        ("MetricChange", &series::PATCH),
        ("MetricMetadata", &metadata::METADATA),
        ("MetricIntegrations", &metadata::INTEGRATIONS),
        ("StoreIntegration", &metadata::SUPABASE),
        ("StripeIntegration", &metadata::STRIPE),
        ("NewUpdate", &update::BODY),
        ("NewBusiness", &business::BODY),
        ("BusinessChange", &business::BODY),
        ("NewBusinessKey", &key::OWN),
        ("NewStripeKey", &key::STRIPES),
        ("StripeCredentials", &key::CREDENTIALS),
        ("NewCustomerKey", &key::OWN),
        ("NewWebhook", &webhook::BODY),
        ("NewCustomer", &customer::BODY),
        ("CustomerChange", &customer::BODY),
        ("NewPlan", &plan::PLAN),
        ("NewPlanLimit", &plan::LIMIT),
        ("PlanLimitChange", &plan::LIMIT),
        ("Question", &check::QUESTION),
        ("NewCall", &proxy::BODY),
        ("NewProxyTargets", &proxy::TARGETS),
        ("NewTemplate", &template::BODY),
    ];
    let mut taken = BTreeSet::new();
    for (name, schema) in bodies {
        let shown = part(&document, &format!("/components/schemas/{name}"));
        let fields: BTreeSet<_> = members(&shown["properties"]).map(|(field, _)| &**field).collect();
        assert_eq!(fields, schema.known.iter().chain(schema.ignored).copied().collect(), "{name}");
        assert_eq!(shown["additionalProperties"], false, "{name}: an unknown field is 400");
        for (field, shape) in members(&shown["properties"]) {
            assert!(
                shape.as_object().is_some_and(|shape| !shape.is_empty()),
                "nobody says what {name}.{field} is"
            );
        }
        taken.insert(format!("#/components/schemas/{name}"));
    }
    // One of two, each with fields of its own.
    let keys = part(&document, "/components/schemas/NewKey/anyOf").as_array().expect("a list");
    assert!(keys.iter().all(|key| taken.contains(word(&key["$ref"]))), "{keys:?}");
    taken.insert("#/components/schemas/NewKey".to_owned());
    // One question or many of them.
    taken.insert("#/components/schemas/Check".to_owned());
    // Stripe says what is in it.
    taken.insert("#/components/schemas/StripeEvent".to_owned());
    for route in ROUTES.iter().filter(|route| route.body == Takes::Json) {
        let body =
            &described(&document, route)["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        assert!(taken.contains(word(body)), "say which fields {body} has");
    }
}
