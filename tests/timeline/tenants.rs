//! What one tenant is told does not depend on what another does: the same calls of B, on the same clock, with and without
//! the calls of A in between, get the same answers. A uses B's names, ids and idempotency keys wherever it can.
//!
//! Masked are request ids and what is random: keys, secrets, ids of new businesses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataflows::types::{ApiKey, Business, Definition, KeyKind, Scopes};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::TcpListener;
use tracktags::clock::MockClock;
use tracktags::config::{Options, Secret};
use tracktags::control::{Origin, hash_key};
use tracktags::http::auth::Access;
use tracktags::http::routes::{self, Endpoint, Found, ROUTES};
use tracktags::http::{self, Backend};

use super::{NOON, start};

const ADMIN: &str = "tk_admin_0123456789";

/// A call: who, method, path, body, idempotency key.
type Call<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

/// The tenant of a key `tk_live_X...`.
fn tenant(letter: &str) -> [Definition; 2] {
    let business_id = format!("biz_{letter}");
    let key = ApiKey {
        business_id: business_id.clone(),
        key_name: "main".into(),
        kind: KeyKind::Business,
        hash: hash_key(&format!("tk_live_{letter}")),
        scopes: Scopes::ALL,
        expires_at: None,
        created_at: NOON,
    };
    let (business_name, email) = (letter.to_owned(), "x@example.com".to_owned());
    let business = Business { business_id, business_name, email, created_at: NOON };
    [Definition::BusinessPut(business), Definition::KeyPut(key)]
}

/// What B does, each call at a moment of its own. `X` is the letter of the tenant.
const STORY: &[Call<'static>] = &[
    ("own", "POST", "/api/v1/customers", r#"{"customer_id": "c1", "name": "One"}"#, ""),
    ("own", "POST", "/api/v1/businesses/biz_X/customers", r#"{"customer_id": "c2", "name": "Two"}"#, ""),
    ("own", "PUT", "/api/v1/customers/c1", r#"{"description": "first"}"#, ""),
    ("own", "POST", "/api/v1/customers", r#"{"customer_id": "c1", "name": "Again"}"#, ""),
    (
        "own",
        "POST",
        "/api/v1/metrics",
        r#"{"metric_name": "m", "flush_interval": "1s", "initial_value": 3}"#,
        "",
    ),
    (
        "own",
        "POST",
        "/api/v1/metrics?scope=customer&customer_id=c1",
        r#"{"metric_name": "m", "metric_type": "reset", "flush_interval": "5s", "limit_value": 9,
         "metadata": {"integrations": {"postgres": {"batch_interval": "5s"}}}}"#,
        "",
    ),
    (
        "own",
        "POST",
        "/api/v1/metrics?scope=customer&customer_id=c1",
        r#"{"metric_name": "bill", "metric_type": "stripe_billing", "operation": "COUNT"}"#,
        "",
    ),
    ("own", "POST", "/api/v1/metrics", r#"{"metric_name": "m", "initial_value": 4}"#, ""),
    ("own", "PUT", "/api/v1/metrics/m", r#"{"value": 1.25}"#, "key-1"),
    ("own", "PUT", "/api/v1/metrics/m", r#"{"value": 1.25}"#, "key-1"),
    ("own", "PUT", "/api/v1/metrics/m", r#"{"value": 2}"#, "key-1"),
    ("own", "PUT", "/api/v1/metrics/m", r#"{"value": 5, "id": "e1"}"#, ""),
    ("own", "PUT", "/api/v1/metrics/m", r#"{"value": 5, "id": "e1"}"#, ""),
    ("own", "PUT", "/api/v1/metrics/m?scope=customer&customer_id=c1", r#"{"value": 10, "id": "e1"}"#, ""),
    (
        "own",
        "PUT",
        "/api/v1/metrics/m?scope=customer&customer_id=c1",
        r#"{"value": -2, "timestamp": "2026-11-24T11:59:00Z"}"#,
        "",
    ),
    ("own", "PUT", "/api/v1/metrics/bill?scope=customer&customer_id=c1", r#"{"value": 1}"#, ""),
    ("own", "PUT", "/api/v1/metrics/absent", r#"{"value": 1}"#, ""),
    ("own", "GET", "/api/v1/metrics/m", "", ""),
    ("own", "GET", "/api/v1/metrics/m?scope=customer&customer_id=c1", "", ""),
    ("own", "GET", "/api/v1/metrics?breached=true", "", ""),
    ("own", "GET", "/api/v1/metrics?limit=2", "", ""),
    ("own", "PATCH", "/api/v1/metrics/m", r#"{"tags": {"a": "b"}, "limit_value": 100}"#, ""),
    ("own", "PATCH", "/api/v1/metrics/m", r#"{"operation": "MAX"}"#, ""),
    ("own", "POST", "/api/v1/businesses/biz_X/keys", r#"{"key_type": "business", "key_name": "second"}"#, ""),
    ("own", "POST", "/api/v1/businesses/biz_X/keys", r#"{"key_type": "business", "key_name": "third"}"#, ""),
    (
        "own",
        "POST",
        "/api/v1/businesses/biz_X/keys",
        r#"{"key_type": "stripe", "key_name": "s", "credentials": {"secret_key": "sk_1", "webhook_secret": "whsec_1"}}"#,
        "",
    ),
    ("own", "GET", "/api/v1/businesses/biz_X/keys", "", ""),
    ("own", "GET", "/api/v1/businesses/biz_X/keys/business/second", "", ""),
    (
        "own",
        "POST",
        "/api/v1/businesses/biz_X/customers/c1/keys",
        r#"{"key_type": "customer_api", "key_name": "k"}"#,
        "",
    ),
    ("own", "GET", "/api/v1/businesses/biz_X/customers/c1/keys", "", ""),
    ("own", "PUT", "/api/v1/businesses/biz_X/webhook", r#"{"url": "https://hook.invalid/"}"#, ""),
    (
        "own",
        "PUT",
        "/api/v1/businesses/biz_X/proxy_targets",
        r#"{"proxy_targets": ["https://X.example.com", "HTTPS://x.example.com:443"]}"#,
        "",
    ),
    ("admin", "GET", "/api/v1/businesses/biz_X/proxy_targets", "", ""),
    ("admin", "GET", "/admin/v1/webhooks/failed", "", ""),
    ("admin", "POST", "/admin/v1/webhooks/retry/msg_absent", "", ""),
    ("admin", "GET", "/api/v1/businesses/biz_X", "", ""),
    ("admin", "PUT", "/api/v1/businesses/biz_X", r#"{"email": "y@example.com"}"#, ""),
    ("admin", "POST", "/admin/v1/customers/biz_X/c1/reset-billing", "", ""),
    ("own", "GET", "/api/v1/metrics/bill?scope=customer&customer_id=c1", "", ""),
    ("own", "GET", "/api/v1/billing/c1", "", ""),
    ("own", "GET", "/api/v1/metrics/m/history", "", ""),
    ("own", "GET", "/api/v1/metrics/m/history?scope=customer&customer_id=c1&limit=1", "", ""),
    ("own", "GET", "/api/v1/stripe/events", "", ""),
    ("own", "GET", "/api/v1/audit-logs", "", ""),
    ("admin", "GET", "/admin/v1/audit-logs?business_id=biz_X", "", ""),
    ("own", "GET", "/api/v1/customers", "", ""),
    ("own", "GET", "/api/v1/customers/c1", "", ""),
    ("own", "POST", "/api/v1/plans", r#"{"plan_name": "Free"}"#, ""),
    ("own", "POST", "/api/v1/plans", r#"{"plan_name": "Again"}"#, ""),
    (
        "own",
        "POST",
        "/api/v1/plan_limits",
        r#"{"plan_id": "plan_X", "metric_name": "p", "limit_value": 10, "breach_action": "block"}"#,
        "",
    ),
    ("own", "PUT", "/api/v1/customers/c1", r#"{"plan_id": "plan_X"}"#, ""),
    ("own", "PUT", "/api/v1/metrics/p?scope=customer&customer_id=c1", r#"{"value": 8}"#, ""),
    ("own", "PUT", "/api/v1/metrics/p?scope=customer&customer_id=c1", r#"{"value": 8}"#, ""),
    ("own", "PUT", "/api/v1/plan_limits/lim_X", r#"{"limit_value": 8}"#, ""),
    ("own", "GET", "/api/v1/plan_limits", "", ""),
    ("own", "GET", "/api/v1/plan_limits/lim_X", "", ""),
    ("own", "GET", "/api/v1/plans", "", ""),
    ("own", "GET", "/api/v1/plans/plan_X", "", ""),
    ("own", "GET", "/api/v1/limits", "", ""),
    ("own", "GET", "/api/v1/customers/c1/usage", "", ""),
    (
        "own",
        "POST",
        "/api/v1/check",
        r#"[{"metric_name": "p", "customer_id": "c1"}, {"metric_name": "q"}]"#,
        "",
    ),
    (
        "own",
        "POST",
        "/api/v1/proxy",
        r#"{"metric_name": "p", "customer_id": "c1", "target_url": "http://127.0.0.1/"}"#,
        "",
    ),
    (
        "own",
        "PUT",
        "/api/v1/templates/t",
        r#"{"metric_type": "reset", "flush_interval": "5s", "limit_value": 3, "create_customers": true}"#,
        "",
    ),
    ("own", "GET", "/api/v1/templates/t", "", ""),
    ("own", "POST", "/api/v1/check", r#"{"metric_name": "t", "customer_id": "c9"}"#, ""),
    ("own", "PUT", "/api/v1/metrics/t?scope=customer&customer_id=c9", r#"{"value": 2, "id": "e1"}"#, ""),
    (
        "own",
        "POST",
        "/api/v1/events?results=all",
        r#"[{"metric_name": "t", "customer_id": "c9", "id": "e1"}, {"metric_name": "t", "customer_id": "c10"}, {"metric_name": "x"}]"#,
        "",
    ),
    ("own", "GET", "/api/v1/customers/c9", "", ""),
    ("own", "DELETE", "/api/v1/templates/t", "", ""),
    ("own", "GET", "/api/v1/templates/t", "", ""),
    ("own", "PUT", "/api/v1/metrics/t?scope=customer&customer_id=c9", r#"{"value": 2}"#, ""),
    ("own", "PUT", "/api/v1/metrics/t?scope=customer&customer_id=c8", r#"{"value": 2}"#, ""),
    ("own", "DELETE", "/api/v1/plan_limits/lim_X", "", ""),
    ("own", "DELETE", "/api/v1/plans/plan_X", "", ""),
    ("own", "PUT", "/api/v1/customers/c1", r#"{"plan_id": ""}"#, ""),
    ("own", "DELETE", "/api/v1/plans/plan_X", "", ""),
    ("own", "DELETE", "/api/v1/businesses/biz_X/customers/c1/keys/k", "", ""),
    ("own", "DELETE", "/api/v1/businesses/biz_X/keys/business/second", "", ""),
    ("own", "DELETE", "/api/v1/metrics/m", "", ""),
    ("own", "GET", "/api/v1/metrics/m", "", ""),
    ("own", "DELETE", "/api/v1/customers/c1", "", ""),
    ("own", "GET", "/api/v1/metrics", "", ""),
    ("admin", "POST", "/api/v1/businesses", r#"{"business_name": "New", "email": "n@example.com"}"#, ""),
    ("admin", "DELETE", "/api/v1/businesses/biz_X", "", ""),
    ("own", "GET", "/api/v1/metrics", "", ""),
];

struct World {
    base: String,
    agent: ureq::Agent,
    /// The last plan and the last limit that each tenant has made: their ids are random.
    made: Mutex<BTreeMap<(String, &'static str), String>>,
}

impl World {
    fn call(&self, letter: &str, (who, method, path, body, key): Call<'_>) -> String {
        let named = |text: &str| {
            let mut text = text.replace("biz_X", &format!("biz_{letter}"));
            for ((_, placeholder), id) in
                self.made.lock().expect("no panic").iter().filter(|((of, _), _)| of == letter)
            {
                text = text.replace(placeholder, id);
            }
            text
        };
        let url = format!("{}{}", self.base, named(path));
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        request = match who {
            "admin" => request.header("x-admin-key", ADMIN),
            _ => request.header("authorization", format!("Bearer tk_live_{letter}")),
        };
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(named(body)).expect("a request");
        let mut answer = self.agent.run(request).expect("an answer");
        let mut body: Value =
            serde_json::from_str(&answer.body_mut().read_to_string().expect("text")).expect("JSON");
        for (placeholder, prefix) in [("plan_X", "plan_"), ("lim_X", "lim_")] {
            let id = body["id"].as_str().filter(|id| id.starts_with(prefix) && body["status"] == "created");
            let made = id.map(|id| ((letter.to_owned(), placeholder), id.to_owned()));
            self.made.lock().expect("no panic").extend(made);
        }
        mask(&mut body);
        let retry_after = answer.headers().get("retry-after").map(|value| format!("{value:?}"));
        format!("{method} {path}: {} {retry_after:?} {body:#}", answer.status())
    }
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for random in ["request_id", "api_key", "secret"] {
                members.get_mut(random).into_iter().for_each(|value| *value = "masked".into());
            }
            for named in ["id", "plan_id", "effective_plan_id", "subject"] {
                let value = members.get_mut(named);
                let is_made = |id: &str| id.starts_with("plan_") || id.starts_with("lim_");
                if let Some(id) = value.filter(|id| id.as_str().is_some_and(is_made)) {
                    *id = "made".into();
                }
            }
            if let Some(id) =
                members.get_mut("business_id").filter(|id| id.as_str().is_some_and(|id| id.len() > 10))
            {
                *id = "made".into();
            }
            members.values_mut().for_each(mask);
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

/// A batch of its own rhythm, windows and values for each turn, and B's story a little ahead of B.
fn disturb(world: &World, turn: usize) {
    if let Some(call) = STORY.get(turn).filter(|(who, method, ..)| *who == "own" || *method == "GET") {
        world.call("a", *call);
    }
    for number in 0..3 {
        let name = format!("noise-{turn}-{number}");
        let batch = ["1s", "5s", "15s"][number];
        let definition = format!(
            r#"{{"metric_name": "{name}", "flush_interval": "1s", "metadata": {{"integrations": {{"postgres": {{"batch_interval": "{batch}"}}}}}}}}"#
        );
        world.call("a", ("own", "POST", "/api/v1/metrics", &definition, ""));
        let update = format!(
            r#"{{"value": {turn}, "id": "e1", "timestamp": "2026-11-24T11:{:02}:00Z"}}"#,
            10 + turn % 49
        );
        world.call("a", ("own", "PUT", &format!("/api/v1/metrics/{name}"), &update, ""));
        world.call("a", ("own", "PUT", &format!("/api/v1/metrics/{name}"), r#"{"value": 7}"#, "key-1"));
    }
}

/// B's answers.
fn answers(with_neighbour: bool) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        data_dir: Some(folder.path().into()),
        workers: Some(2),
        secret_key: Some(Secret("11".repeat(32))),
        ..Options::default()
    };
    let config = options.resolve().expect("the options are valid");
    let clock = MockClock::at(NOON);
    let (service, health, signals) = start(&config, &clock);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let backend = Arc::new(Backend::new(signals, http::Options::default()).expect("randomness"));
    let rooms = service.rooms(&config);
    runtime.block_on(async {
        let both = [tenant("a"), tenant("b")].concat();
        rooms.control.by(Origin::SERVER).define(both).await.expect("defined");
    });
    backend.open(rooms);
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("bound"));
    let routes = TowerToHyperService::new(warp::service(http::routes(backend)));
    runtime.spawn(http::serve(listener, http::Options::default(), routes, std::future::pending()));
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let world = World { base, agent: config.into(), made: Mutex::default() };

    let mut answers = Vec::new();
    for (turn, call) in STORY.iter().enumerate() {
        if with_neighbour {
            disturb(&world, turn);
        }
        if call.2.contains("/history") || call.2.contains("/audit-logs") {
            // What has been written is asked for when everything has been: the clock says when, not the machine.
            clock.advance(Duration::from_secs(20));
            runtime.block_on(super::until("the batch", || {
                health.definitions_waiting() == 0
                    && health.lag_secs(tracktags::clock::Clock::wall(&clock)) == 0.0
            }));
            std::thread::sleep(Duration::from_millis(1_500));
        }
        answers.push(world.call("b", *call));
        clock.advance(Duration::from_millis(730));
    }
    service.stop(false);
    answers
}

#[test]
fn the_answers_of_a_tenant_are_the_same_with_and_without_another_one() {
    let named: BTreeSet<_> = STORY
        .iter()
        .map(|(_, method, path, ..)| {
            let path = path.split('?').next().unwrap_or(path);
            match routes::find(&method.parse().expect("a method"), path) {
                Found::Route(route, _) => format!("{} {}", route.method, route.path),
                _ => panic!("{method} {path} is no route"),
            }
        })
        .collect();
    for route in ROUTES.iter().filter(|route| !matches!(route.access, Access::Open | Access::Signed)) {
        let is_known = named.contains(&format!("{} {}", route.method, route.path));
        assert!(
            is_known || route.endpoint == Endpoint::AuditList,
            "the story leaves out {} {}",
            route.method,
            route.path
        );
    }
    let (alone, together) = (answers(false), answers(true));
    for (alone, together) in alone.iter().zip(&together) {
        assert_eq!(alone, together);
    }
    let refused = alone.iter().filter(|answer| !answer.contains(": 20")).count();
    assert_eq!((alone.len(), refused), (STORY.len(), 14), "what the story is about: most of it succeeds");
}
