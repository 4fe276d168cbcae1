//! The walls between tenants: every route of the table with every kind of key. A new route cannot be forgotten: the table
//! is the service's own, and the body of an endpoint is an arm of a `match` without a rest.
//!
//! | key | what it gets |
//! |---|---|
//! | none, made up, deleted, expired | 401, unless the route is open |
//! | of a customer | 403 where the route is not for customers, 404 about another customer |
//! | of another business | 404 as for what is absent, to the byte; or it acts for its own business |
//! | own | 2xx |

use std::collections::BTreeSet;
use std::time::Duration;

use tracktags::http::auth::Access;
use tracktags::http::routes::{Endpoint, ROUTES, Route};

use super::businesses::Admin;
use super::openapi;
use super::support::api::{Client, Outcome, text};
use super::support::until;
use super::webhooks::Receiver;

/// What customers may see.
const FOR_CUSTOMERS: [Endpoint; 8] = [
    Endpoint::BillingRead,
    Endpoint::MetricList,
    Endpoint::MetricRead,
    Endpoint::MetricHistory,
    Endpoint::LimitList,
    Endpoint::CustomerUsage,
    Endpoint::Check,
    Endpoint::Proxy,
];

/// Who and what a request names.
#[derive(Clone, Copy)]
struct Names<'a> {
    business_id: &'a str,
    customer_id: &'a str,
    metric_name: &'a str,
    key_name: &'a str,
    plan_id: &'a str,
    limit_id: &'a str,
    event_id: &'a str,
    target: &'a str,
}

impl Names<'_> {
    fn path(&self, route: &Route) -> String {
        let segments = route.path.split('/').map(|segment| match segment {
            "{business_id}" => self.business_id,
            "{customer_id}" => self.customer_id,
            "{metric_name}" => self.metric_name,
            "{key_name}" => self.key_name,
            "{key_type}" => "business",
            "{plan_id}" => self.plan_id,
            "{limit_id}" => self.limit_id,
            "{event_id}" => self.event_id,
            literal => {
                assert!(!literal.starts_with('{'), "say what {literal} is");
                literal
            }
        });
        let path = segments.collect::<Vec<_>>().join("/");
        let is_of_a_customer = route.query.contains(&"scope");
        if is_of_a_customer {
            format!("{path}?scope=customer&customer_id={}", self.customer_id)
        } else {
            path
        }
    }

    /// A good body; nothing for routes without.
    fn body(&self, endpoint: Endpoint) -> String {
        match endpoint {
            Endpoint::MetricCreate => format!(r#"{{"metric_name": "{}"}}"#, self.metric_name),
            Endpoint::MetricUpdate => r#"{"value": 1}"#.to_owned(),
            Endpoint::EventsRecord => {
                let (metric_name, customer_id) = (self.metric_name, self.customer_id);
                format!(r#"[{{"metric_name": "{metric_name}", "customer_id": "{customer_id}"}}]"#)
            }
            Endpoint::MetricChange => r#"{"tags": {"a": "b"}}"#.to_owned(),
            Endpoint::CustomerCreate => r#"{"customer_id": "new", "name": "New"}"#.to_owned(),
            Endpoint::CustomerPut => r#"{"name": "Changed"}"#.to_owned(),
            Endpoint::BusinessCreate => r#"{"business_name": "N", "email": "n@example.com"}"#.to_owned(),
            Endpoint::BusinessChange => r#"{"email": "changed@example.com"}"#.to_owned(),
            Endpoint::WebhookPut => r#"{"url": "https://hook.invalid/"}"#.to_owned(),
            Endpoint::ProxyTargetsPut => r#"{"proxy_targets": ["https://api.example.com"]}"#.to_owned(),
            Endpoint::KeyCreate => r#"{"key_type": "business", "key_name": "new"}"#.to_owned(),
            Endpoint::CustomerKeyCreate => r#"{"key_type": "customer_api", "key_name": "new-c"}"#.to_owned(),
            Endpoint::PlanCreate => r#"{"plan_name": "New", "stripe_price_id": "price_new"}"#.to_owned(),
            Endpoint::PlanLimitCreate => {
                let plan_id = self.plan_id;
                format!(r#"{{"metric_name": "other", "limit_value": 5, "plan_id": "{plan_id}"}}"#)
            }
            Endpoint::PlanLimitChange => r#"{"limit_value": 6}"#.to_owned(),
            Endpoint::Check => {
                let (metric_name, customer_id) = (self.metric_name, self.customer_id);
                format!(r#"{{"metric_name": "{metric_name}", "customer_id": "{customer_id}"}}"#)
            }
            Endpoint::Proxy => {
                let Names { metric_name, customer_id, target, .. } = self;
                format!(
                    r#"{{"metric_name": "{metric_name}", "customer_id": "{customer_id}", "target_url": "{target}"}}"#
                )
            }
            Endpoint::TemplatePut => r#"{"create_customers": true}"#.to_owned(),
            Endpoint::StripeReceive => r#"{"id": "evt_1", "type": "invoice.created"}"#.to_owned(),
            Endpoint::StripeEventList
            | Endpoint::TemplateRead
            | Endpoint::TemplateDelete
            | Endpoint::ProxyTargetsRead
            | Endpoint::PlanList
            | Endpoint::PlanRead
            | Endpoint::PlanDelete
            | Endpoint::PlanLimitList
            | Endpoint::PlanLimitRead
            | Endpoint::PlanLimitDelete
            | Endpoint::LimitList
            | Endpoint::CustomerUsage
            | Endpoint::BillingRead
            | Endpoint::Health
            | Endpoint::Live
            | Endpoint::Ready
            | Endpoint::Telemetry
            | Endpoint::OpenApi
            | Endpoint::MetricList
            | Endpoint::MetricRead
            | Endpoint::MetricDelete
            | Endpoint::MetricHistory
            | Endpoint::BusinessRead
            | Endpoint::BusinessDelete
            | Endpoint::KeyList
            | Endpoint::KeyRead
            | Endpoint::KeyDelete
            | Endpoint::CustomerKeyList
            | Endpoint::CustomerKeyDelete
            | Endpoint::CustomerList
            | Endpoint::CustomerRead
            | Endpoint::CustomerDelete
            | Endpoint::BillingReset
            | Endpoint::MessageFailedList
            | Endpoint::MessageRetry
            | Endpoint::AuditList
            | Endpoint::AuditListOwn => String::new(),
        }
    }

    fn call(&self, client: &Client, route: &Route) -> Outcome {
        // Who is refused before the body is read may find the connection closed: the next request opens its own.
        let headers = [("connection", "close")];
        client.call(route.method.as_str(), &self.path(route), &headers, &self.body(route.endpoint))
    }
}

fn status(outcome: &Outcome) -> u16 {
    match outcome {
        Outcome::Durable(_) => 200,
        Outcome::Rejected(status, _) => *status,
        Outcome::Unknown(why) => panic!("{why}"),
    }
}

/// An answer without what differs from request to request.
fn masked(outcome: Outcome) -> String {
    let (Outcome::Durable(body) | Outcome::Rejected(_, body) | Outcome::Unknown(body)) = outcome;
    let mut value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    mask(&mut value);
    value.to_string()
}

fn mask(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            for varying in ["request_id", "as_of", "timestamp", "last_used_at", "flushed_at"] {
                members.remove(varying);
            }
            members.values_mut().for_each(mask);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

fn made(client: &Client, path: &str, body: &str) -> String {
    text(&client.post(path, body).body(), "api_key").expect("a new key is shown")
}

/// Everything that a business sees of itself.
fn view(client: &Client, names: &Names<'_>) -> Vec<String> {
    let reads = ROUTES.iter().filter(|route| {
        route.method == "GET" && !matches!(route.access, Access::Open | Access::Signed | Access::Admin)
    });
    reads.map(|route| masked(names.call(client, route))).collect()
}

/// The id of a message of that business that was given up.
fn failed_message(admin: &Admin, own: &Client, business_id: &str) -> String {
    let receiver = Receiver::start(&[410; 9]);
    let url = format!(r#"{{"url": "{}"}}"#, receiver.url("/"));
    own.put(&format!("/api/v1/businesses/{business_id}/webhook"), &url).body();
    own.post("/api/v1/metrics", r#"{"metric_name": "told", "limit_value": 1}"#).body();
    own.put("/api/v1/metrics/told", r#"{"value": 1}"#).body();
    let given_up = || {
        let page = admin.call("GET", "/admin/v1/webhooks/failed", "").body();
        let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
        page["failed"][0]["event_id"].as_str().map(str::to_owned).ok_or(page)
    };
    until(Duration::from_secs(20), given_up).expect("a message that is answered 410 is given up")
}

#[test]
fn every_route_with_every_kind_of_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let admin = Admin::start(&folder.path().join("data"));
    let ((business_id, own_key), (_, foreign_key)) = (admin.business("own"), admin.business("foreign"));
    let [own, foreign] = [&own_key, &foreign_key].map(|key| admin.client.with_key(key));
    let id = |body: String| text(&body, "id").expect("what is made has an id");
    let plan_id = id(own.post("/api/v1/plans", r#"{"plan_name": "P", "stripe_price_id": "price_1"}"#).body());
    let limit = format!(r#"{{"metric_name": "calls", "limit_value": 5, "plan_id": "{plan_id}"}}"#);
    let limit_id = id(own.post("/api/v1/plan_limits", &limit).body());
    let event_id = failed_message(&admin, &own, &business_id);
    let names = Names {
        business_id: &business_id,
        customer_id: "cust",
        metric_name: "calls",
        key_name: "main",
        plan_id: &plan_id,
        limit_id: &limit_id,
        event_id: &event_id,
        // The service's own: it is there.
        target: &format!("{}/health", admin.base()),
    };
    // Nobody else's update makes anything of it.
    own.put("/api/v1/templates/calls", r#"{"create_customers": true}"#).body();
    own.put("/api/v1/customers/cust", r#"{"name": "C"}"#).body();
    let series = r#"{"metric_name": "calls"}"#;
    own.post("/api/v1/metrics?scope=customer&customer_id=cust", series).body();
    own.put("/api/v1/metrics/calls?scope=customer&customer_id=cust", r#"{"value": 7}"#).body();
    own.put("/api/v1/customers/other", r#"{"name": "O"}"#).body();
    own.post("/api/v1/metrics?scope=customer&customer_id=other", series).body();
    let keys = format!("/api/v1/businesses/{business_id}/keys");
    let customer_keys = format!("/api/v1/businesses/{business_id}/customers/cust/keys");
    let asked = |name: &str| format!(r#"{{"key_type": "business", "key_name": "{name}"}}"#);
    let deleted = made(&own, &keys, &asked("spare"));
    own.delete(&format!("{keys}/business/spare")).body();
    let at = jiff::Timestamp::now() + Duration::from_secs(1);
    let short = format!(r#"{{"key_type": "business", "key_name": "short", "expires_at": "{at}"}}"#);
    let expired = admin.client.with_key(&made(&own, &keys, &short));
    let of_customer = made(&own, &customer_keys, r#"{"key_type": "customer_api", "key_name": "main"}"#);
    let of_customer = admin.client.with_key(&of_customer);
    let is_over = || match status(&expired.get("/api/v1/metrics")) {
        401 => Ok(()),
        other => Err(other),
    };
    until(Duration::from_secs(10), is_over).expect("the short key expires");

    // The log is read from the store, which has all of it a moment later.
    let is_told = || match own.get("/api/v1/audit-logs").body() {
        log if log.contains("customer_api/cust/main") => Ok(()),
        log => Err(log),
    };
    until(Duration::from_secs(10), is_told).expect("the last change is in the log");
    let before = view(&own, &names);
    for route in &ROUTES {
        let at = format!("{} {}", route.method, route.path);
        if route.access == Access::Open {
            assert_eq!(status(&admin.client.with_key("none").get(route.path)), 200, "{at}");
            continue;
        }
        if route.access == Access::Signed {
            for client in [&own, &foreign, &of_customer] {
                assert_eq!(
                    status(&names.call(client, route)),
                    400,
                    "{at}: no key takes the place of a signature"
                );
            }
            continue;
        }
        for key in ["none", "tk_live_0", deleted.as_str()] {
            assert_eq!(status(&names.call(&admin.client.with_key(key), route)), 401, "{at}");
        }
        assert_eq!(status(&names.call(&expired, route)), 401, "{at} with an expired key");
        let wanted = match route.access {
            Access::Admin => 401,
            Access::Key { customer_keys: true, .. } => 200,
            Access::Key { .. } | Access::Tenant(_) | Access::Open | Access::Signed => 403,
        };
        assert_eq!(status(&names.call(&of_customer, route)), wanted, "{at} with a customer's key");
        if let Access::Key { customer_keys: true, .. } = route.access {
            assert!(FOR_CUSTOMERS.contains(&route.endpoint), "{at} is not for customers");
            let other = Names { customer_id: "other", ..names };
            assert_eq!(status(&other.call(&of_customer, route)), 404, "{at} with another customer's key");
        }
        foreign_answers_as_absent(&foreign, &names, route, &at);
    }
    assert_eq!(view(&own, &names), before, "what others did shows");

    // Last, the owner may do all of it: what is deleted goes from the inside out.
    let asks = |route: &&Route| !matches!(route.access, Access::Open | Access::Signed);
    let mut routes: Vec<_> = ROUTES.iter().filter(asks).collect();
    routes.sort_by_key(|route| {
        let is_delete = route.method == "DELETE";
        (is_delete, is_delete && route.access == Access::Admin, usize::MAX - route.path.matches('/').count())
    });
    let mut seen = BTreeSet::new();
    for route in routes {
        let at = format!("{} {}", route.method, route.path);
        let names = Names { key_name: own_name(route.endpoint), ..names };
        let outcome = match route.access {
            Access::Admin => {
                admin.call(route.method.as_str(), &names.path(route), &names.body(route.endpoint))
            }
            _ => names.call(&own, route),
        };
        // The customer that one route has made is in the way of the other that makes it.
        let again = route.endpoint == Endpoint::CustomerCreate && !seen.insert("customer");
        assert_eq!(status(&outcome), if again { 409 } else { 200 }, "{at} with the own key: {outcome:?}");
        openapi::describes(route, &outcome);
    }
}

/// Which key of its own a business uses a route on.
fn own_name(endpoint: Endpoint) -> &'static str {
    // The one that asks must not end itself.
    if endpoint == Endpoint::KeyDelete { "new" } else { "main" }
}

/// A route that acts for the caller's business does not know the other's names; one that names a business is as if that
/// business were not there.
fn foreign_answers_as_absent(foreign: &Client, names: &Names<'_>, route: &Route, at: &str) {
    let outcome = names.call(foreign, route);
    let absent = match route.access {
        Access::Admin => return assert_eq!(status(&outcome), 401, "{at} with a foreign key"),
        Access::Tenant(_) => Names { business_id: "biz_absent", ..*names },
        _ => Names { customer_id: "absent", plan_id: "plan_absent", limit_id: "lim_absent", ..*names },
    };
    let makes_its_own = matches!(
        route.endpoint,
        Endpoint::CustomerCreate
            | Endpoint::CustomerPut
            | Endpoint::CustomerList
            | Endpoint::CustomerDelete
            | Endpoint::PlanCreate
            | Endpoint::PlanList
            | Endpoint::PlanLimitList
            | Endpoint::StripeEventList
            | Endpoint::TemplatePut
            | Endpoint::EventsRecord
            | Endpoint::AuditListOwn
    );
    if makes_its_own && !matches!(route.access, Access::Tenant(_)) {
        assert!([200, 404].contains(&status(&outcome)), "{at} with a foreign key: {outcome:?}");
        let answer = masked(outcome);
        for own in [names.business_id, names.plan_id, names.limit_id] {
            assert!(!answer.contains(own), "{at} shows a foreign business");
        }
        for made in [names.customer_id, "new"] {
            foreign.delete(&format!("/api/v1/customers/{made}"));
        }
        foreign.delete(&format!("/api/v1/templates/{}", names.metric_name));
        return;
    }
    assert_eq!(status(&outcome), 404, "{at} with a foreign key: {outcome:?}");
    assert_eq!(masked(outcome), masked(absent.call(foreign, route)), "{at}: foreign and absent differ");
}
