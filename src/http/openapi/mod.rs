//! `GET /openapi.json`: the API as an OpenAPI 3.1 document, from which clients are generated.
//!
//! ```text
//!  ROUTES (method, path, query, access, body) ─┐
//!  operations (endpoint → words, bodies)       ├─▶ document ─▶ bytes, made once
//!  parser (fields, options, bounds) ─▶ shapes ─┘
//! ```
//! It is made of the same table that dispatch reads and the same constants that the parser reads. A generator that
//! derives from types (utoipa) would need request types that do not exist: bodies are read by hand, since errors name
//! the field and the options. What this does not do: validate requests, or describe what the table of routes lacks (HEAD,
//! which goes wherever GET goes).

mod answers;
mod operations;
mod parameters;
mod plans;
mod requests;
mod shape;
mod stripe;

use std::sync::LazyLock;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::auth::{Access, KeyScope};
use super::error::Title;
use super::reply::{JSON, Reply};
use super::routes::{ROUTES, Route};
use operations::{Content, Operation, TAGS, describe};
use shape::Shape;

const ABOUT: &str = "TrackTags meters usage: an update is durable when it is answered, counted exactly once, and \
    readable at once.\n\nErrors are `application/problem+json` (RFC 9457). For an update there are three outcomes: \
    2xx, it is counted; 4xx, or 503 with `\"outcome\": \"rejected\"`, it never will be; anything else is unknown: send \
    it again with the same `Idempotency-Key` or `id`. HEAD is answered wherever GET is. Another method on a known path \
    is answered as the component `MethodNotAllowed` says. What belongs to somebody else answers exactly as what is \
    absent: 404. Amounts are exact decimals with nine fractional digits, written as JSON numbers.";

const ADMIN_KEY: &str = "adminKey";
const BEARER: &str = "bearerKey";

/// Headers of an answer that tells the quota of a series, by their components; and of one that refuses for it.
const RATED: [(&str, &str); 2] = [("RateLimit", "RateLimit"), ("RateLimit-Policy", "RateLimit-Policy")];
const LIMITED: [(&str, &str); 3] = [RATED[0], RATED[1], ("Retry-After", "Retry-After-Reset")];

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());

/// `GET /openapi.json`.
pub(super) fn reply() -> Reply {
    Reply { status: StatusCode::OK, content_type: JSON, headers: Vec::new(), body: DOCUMENT.clone() }
}

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    let schemas: Map<_, Value> = answers::all()
        .into_iter()
        .chain(plans::answers())
        .chain(plans::requests())
        .chain(stripe::answers())
        .chain(stripe::requests())
        .chain(requests::all())
        .map(|(name, shape)| (name.to_owned(), shape.into()))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "TrackTags",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": TAGS.map(|(name, about)| json!({"name": name, "description": about})),
        "paths": paths,
        "components": {
            "securitySchemes": {
                ADMIN_KEY: {"type": "apiKey", "in": "header", "name": "X-Admin-Key",
                            "description": "The key of whoever runs the service."},
                BEARER: {"type": "http", "scheme": "bearer",
                         "description": "A business key (`tk_live_...`), or where an operation says so a customer \
                                         key (`tk_cust_...`). The scope that it needs is named at the operation."},
            },
            "schemas": schemas,
            "headers": headers(),
            "responses": problem_components(),
        },
    })
}

fn headers() -> Value {
    let described = |about: &'static str, required: bool, shape: Shape| json!({"description": about, "required": required, "schema": Value::from(shape)});
    let header = |about, shape| described(about, true, shape);
    let optional = |about, shape| described(about, false, shape);
    json!({
        "X-Request-Id": header("The request, as the service's log calls it.", Shape::pattern("^req_[0-9a-f]{16}$")),
        "Retry-After": header("Seconds to wait before the next attempt.", Shape::of("integer").set("minimum", 1)),
        "Allow": header("The methods that the path knows.", Shape::text()),
        "WWW-Authenticate": header("How to say who is calling.", Shape::text()),
        "Retry-After-Reset": optional(
            "Seconds until the limit's period ends, where that is an hour at most.",
            Shape::of("integer").set("minimum", 1),
        ),
        "RateLimit": optional(
            "With a limit that refuses, of a sum or a count: what is left of it, and until when in seconds.",
            Shape::pattern(r#"^"[A-Za-z0-9_.:-]+";r=[0-9]{1,15}(?:;t=[0-9]{1,15})?$"#),
        ),
        "RateLimit-Policy": optional(
            "With a limit that refuses, of a sum or a count: the limit, and its period in seconds.",
            Shape::pattern(r#"^"[A-Za-z0-9_.:-]+";q=[0-9]{1,15}(?:;w=[0-9]{1,15})?$"#),
        ),
    })
}

fn operation(route: &Route) -> Value {
    let operation = describe(route.endpoint);
    let mut described = json!({
        "operationId": operation_id(route, &operation),
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": format!("{}\n\n{}", operation.about, needs(route.access)),
        "security": security(route.access),
        "parameters": parameters(route, &operation),
        "responses": responses(route, &operation),
    });
    if let Some(component) = operation.body {
        let schema = Value::from(Shape::named(component));
        let mut content = json!({"application/json": {"schema": schema}});
        for media_type in operation.also {
            content[media_type] = json!({"schema": {"type": "string"}});
        }
        described["requestBody"] = json!({"required": true, "content": content});
    }
    described
}

/// Two routes may lead to one endpoint: the longer one names the business.
fn operation_id(route: &Route, operation: &Operation) -> String {
    let shorter = |other: &Route| other.endpoint == route.endpoint && other.path.len() < route.path.len();
    let suffix = if ROUTES.iter().any(shorter) { "OfBusiness" } else { "" };
    format!("{}{suffix}", operation.id)
}

/// A sentence on who may call.
fn needs(access: Access) -> String {
    let key = |scope: KeyScope| match scope.name() {
        "" => "a business key".to_owned(),
        name => format!("a business key with the scope `{name}`"),
    };
    match access {
        Access::Open => "It needs no key.".to_owned(),
        Access::Signed => {
            "It needs no key: the body is signed with a webhook secret of the business.".to_owned()
        }
        Access::Key { scope, customer_keys: false } => format!("It needs {}.", key(scope)),
        Access::Key { scope, customer_keys: true } => {
            format!("It needs {}, or a customer key, which acts for its own customer only.", key(scope))
        }
        Access::Admin => "It needs the admin key.".to_owned(),
        Access::Tenant(scope) => format!("It needs the admin key, or {} of that business.", key(scope)),
    }
}

/// Either of the entries will do.
fn security(access: Access) -> Value {
    let bearer =
        |scope: KeyScope| json!({BEARER: Some(scope.name()).filter(|name| !name.is_empty()).as_slice()});
    match access {
        Access::Open | Access::Signed => json!([]),
        Access::Key { scope, .. } => json!([bearer(scope)]),
        Access::Admin => json!([{ADMIN_KEY: []}]),
        Access::Tenant(scope) => json!([{ADMIN_KEY: []}, bearer(scope)]),
    }
}

fn parameters(route: &Route, operation: &Operation) -> Vec<Value> {
    let parameter = |place: &str, name: &str, shape: Shape| {
        let mut schema = Value::from(shape);
        let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({"in": place, "name": name, "required": place == "path", "description": about, "schema": schema})
    };
    let in_path = path_parameters(route).map(|name| parameter("path", name, parameters::in_path(name)));
    let in_query =
        route.query.iter().map(|name| parameter("query", name, parameters::in_query(route.endpoint, name)));
    let in_header =
        operation.idempotent.then(|| parameter("header", "Idempotency-Key", parameters::idempotency_key()));
    in_path.chain(in_query).chain(in_header).collect()
}

fn path_parameters(route: &Route) -> impl Iterator<Item = &'static str> {
    route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

fn responses(route: &Route, operation: &Operation) -> Value {
    let mut responses = Map::new();
    for (status, when, content) in &operation.answers {
        let content = match content {
            Content::Json(component) => {
                json!({"application/json": {"schema": Value::from(Shape::named(component))}})
            }
            Content::Text(media_type) => json!({*media_type: {"schema": {"type": "string"}}}),
            Content::Nothing => json!({}),
        };
        let own = match (operation.rated, status) {
            (false, _) => &[][..],
            (true, 429) => &LIMITED[..],
            (true, _) => &RATED[..],
        };
        let described = json!({"description": when, "headers": header_references(own), "content": content});
        responses.insert(status.to_string(), described);
    }
    for status in problems(route, operation) {
        let reference = format!("#/components/responses/{}", problem_name(status));
        responses.entry(status.as_str()).or_insert_with(|| json!({"$ref": reference}));
    }
    Value::Object(responses)
}

/// What may go wrong before the endpoint is asked, and what every endpoint behind the rooms may answer.
fn problems(route: &Route, operation: &Operation) -> Vec<StatusCode> {
    // A query that the route does not know, and a length that is declared too great, are refused everywhere.
    let mut statuses = vec![StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE];
    if route.access == Access::Signed {
        statuses.extend([StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE]);
    } else if route.access != Access::Open {
        statuses.extend([
            StatusCode::UNAUTHORIZED,
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::SERVICE_UNAVAILABLE,
        ]);
    }
    if matches!(route.access, Access::Key { .. } | Access::Tenant(_)) {
        statuses.push(StatusCode::FORBIDDEN);
    }
    let names_things = path_parameters(route).next().is_some() && route.access != Access::Signed;
    if names_things || route.query.contains(&"customer_id") {
        statuses.push(StatusCode::NOT_FOUND);
    }
    if operation.body.is_some() {
        statuses.push(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    statuses.extend(operation.problems.iter().map(|title| title.parts().0));
    statuses
}

/// The component of a problem, by its status: `NotFound`.
fn problem_name(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or_default().replace(' ', "")
}

fn problem_components() -> Value {
    let statuses = Title::ALL.iter().map(|title| title.parts().0);
    statuses.map(|status| (problem_name(status), problem(status))).collect::<Map<_, _>>().into()
}

fn problem(status: StatusCode) -> Value {
    let titles = Title::ALL.iter().map(|title| title.parts()).filter(|(of, _)| *of == status);
    let titles: Vec<_> = titles.map(|(_, title)| title).collect();
    json!({
        "description": titles.join(" or "),
        "headers": header_references(problem_headers(status)),
        "content": {"application/problem+json": {"schema": Value::from(Shape::named("Problem"))}},
    })
}

/// What goes with each problem of a status.
fn problem_headers(status: StatusCode) -> &'static [(&'static str, &'static str)] {
    match status {
        StatusCode::UNAUTHORIZED => &[("WWW-Authenticate", "WWW-Authenticate")],
        StatusCode::METHOD_NOT_ALLOWED => &[("Allow", "Allow")],
        StatusCode::SERVICE_UNAVAILABLE => &[("Retry-After", "Retry-After")],
        StatusCode::TOO_MANY_REQUESTS => &LIMITED,
        _ => &[],
    }
}

/// Headers and their components, beside the one of every answer.
fn header_references(own: &[(&str, &str)]) -> Value {
    let reference = |(name, component): &(&str, &str)| {
        ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{component}")}))
    };
    [("X-Request-Id", "X-Request-Id")].iter().chain(own).map(reference).collect::<Map<_, _>>().into()
}
