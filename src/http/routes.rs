//! The table of routes, as data: what exists, whom it is for, what it takes.
//!
//! Dispatch, the tenancy tests and the API description read the same table, so that no route can be forgotten in one of
//! them. A path is literal segments and `{parameters}`; at most one route matches a method and a path.

use hyper::Method;

use super::auth::{Access, KeyScope};

/// One route.
#[derive(Debug)]
pub struct Route {
    /// The method. HEAD is answered wherever GET is.
    pub method: Method,
    /// `/api/v1/metrics/{metric_name}`.
    pub path: &'static str,
    /// What does the work.
    pub endpoint: Endpoint,
    /// What the caller must be.
    pub access: Access,
    /// The query parameters that it knows.
    pub query: &'static [&'static str],
    /// The body that it takes.
    pub body: Takes,
}

/// What a route reads of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// One JSON text.
    Json,
    /// Items in one of several formats, as they come.
    Items,
}

const fn takes(json: bool) -> Takes {
    if json { Takes::Json } else { Takes::Nothing }
}

/// What a route does; one arm of `dispatch` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The table says what each is.
pub enum Endpoint {
    Health,
    Live,
    Ready,
    Telemetry,
    OpenApi,
    MetricCreate,
    MetricList,
    MetricUpdate,
    MetricRead,
    MetricChange,
    MetricDelete,
    MetricHistory,
    EventsRecord,
    BusinessCreate,
    BusinessRead,
    BusinessChange,
    BusinessDelete,
    WebhookPut,
    ProxyTargetsPut,
    ProxyTargetsRead,
    MessageFailedList,
    MessageRetry,
    KeyCreate,
    KeyList,
    KeyRead,
    KeyDelete,
    CustomerKeyCreate,
    CustomerKeyList,
    CustomerKeyDelete,
    CustomerCreate,
    CustomerList,
    CustomerPut,
    CustomerRead,
    CustomerDelete,
    BillingRead,
    BillingReset,
    AuditList,
    AuditListOwn,
    PlanCreate,
    PlanList,
    PlanRead,
    PlanDelete,
    PlanLimitCreate,
    PlanLimitList,
    PlanLimitRead,
    PlanLimitChange,
    PlanLimitDelete,
    LimitList,
    CustomerUsage,
    Check,
    Proxy,
    StripeReceive,
    StripeEventList,
    TemplatePut,
    TemplateRead,
    TemplateDelete,
}

const SERIES: &[&str] = &["scope", "customer_id"];
const READS: Access = Access::Key { scope: KeyScope::Read, customer_keys: true };
const TENANT_READS: Access = Access::Key { scope: KeyScope::Read, customer_keys: false };
const INGESTS: Access = Access::Key { scope: KeyScope::Ingest, customer_keys: false };
const MANAGES: Access = Access::Key { scope: KeyScope::Manage, customer_keys: false };

const fn open(path: &'static str, endpoint: Endpoint) -> Route {
    Route { method: Method::GET, path, endpoint, access: Access::Open, query: &[], body: Takes::Nothing }
}

/// A route of one business; `json`: it makes something.
const fn tenant(method: Method, path: &'static str, endpoint: Endpoint, json: bool) -> Route {
    let scope = match endpoint {
        Endpoint::KeyList | Endpoint::KeyRead | Endpoint::CustomerKeyList | Endpoint::ProxyTargetsRead => {
            KeyScope::Read
        }
        // A key may always end itself.
        Endpoint::KeyDelete => KeyScope::Any,
        _ => KeyScope::Manage,
    };
    Route { method, path, endpoint, access: Access::Tenant(scope), query: &[], body: takes(json) }
}

const fn admin(method: Method, path: &'static str, endpoint: Endpoint, json: bool) -> Route {
    Route { method, path, endpoint, access: Access::Admin, query: &[], body: takes(json) }
}

/// A route of the caller's business, or of the admin with a query.
const fn own(
    method: Method,
    path: &'static str,
    endpoint: Endpoint,
    access: Access,
    query: &'static [&'static str],
    json: bool,
) -> Route {
    Route { method, path, endpoint, access, query, body: takes(json) }
}

const PAGE: &[&str] = &["limit", "cursor"];
const DRY: &[&str] = &["dry_run"];
const USES: Access = Access::Key { scope: KeyScope::Ingest, customer_keys: true };
const PLANS: &str = "/api/v1/plans";
const PLAN: &str = "/api/v1/plans/{plan_id}";
const PLAN_LIMITS: &str = "/api/v1/plan_limits";
const PLAN_LIMIT: &str = "/api/v1/plan_limits/{limit_id}";
const BUSINESSES: &str = "/api/v1/businesses";
const BUSINESS: &str = "/api/v1/businesses/{business_id}";
const BUSINESS_CUSTOMERS: &str = "/api/v1/businesses/{business_id}/customers";
const WEBHOOK: &str = "/api/v1/businesses/{business_id}/webhook";
const PROXY_TARGETS: &str = "/api/v1/businesses/{business_id}/proxy_targets";
const KEYS: &str = "/api/v1/businesses/{business_id}/keys";
const KEY: &str = "/api/v1/businesses/{business_id}/keys/{key_type}/{key_name}";
const CUSTOMER_KEYS: &str = "/api/v1/businesses/{business_id}/customers/{customer_id}/keys";
const CUSTOMER_KEY: &str = "/api/v1/businesses/{business_id}/customers/{customer_id}/keys/{key_name}";
const EVENTS: &str = "/api/v1/events";
const METRICS: &str = "/api/v1/metrics";
const METRIC: &str = "/api/v1/metrics/{metric_name}";
const CUSTOMERS: &str = "/api/v1/customers";
const CUSTOMER: &str = "/api/v1/customers/{customer_id}";
const BILLING_RESET: &str = "/admin/v1/customers/{business_id}/{customer_id}/reset-billing";
const FAILED_MESSAGES: &str = "/admin/v1/webhooks/failed";
const MESSAGE_RETRY: &str = "/admin/v1/webhooks/retry/{event_id}";
const STRIPE_WEBHOOK: &str = "/api/v1/webhooks/stripe/{business_id}";
const STRIPE_EVENTS: &str = "/api/v1/stripe/events";
const TEMPLATE: &str = "/api/v1/templates/{metric_name}";
const HISTORY: &str = "/api/v1/metrics/{metric_name}/history";

/// All routes.
pub static ROUTES: [Route; 57] = [
    open("/health", Endpoint::Health),
    open("/livez", Endpoint::Live),
    open("/readyz", Endpoint::Ready),
    open("/metrics", Endpoint::Telemetry),
    open("/openapi.json", Endpoint::OpenApi),
    Route {
        method: Method::POST,
        path: EVENTS,
        endpoint: Endpoint::EventsRecord,
        access: Access::Key { scope: KeyScope::Ingest, customer_keys: false },
        query: &["atomic", "results"],
        body: Takes::Items,
    },
    Route {
        method: Method::POST,
        path: METRICS,
        endpoint: Endpoint::MetricCreate,
        access: MANAGES,
        query: &["scope", "customer_id", "if_exists"],
        body: Takes::Json,
    },
    Route {
        method: Method::GET,
        path: METRICS,
        endpoint: Endpoint::MetricList,
        access: READS,
        query: &["scope", "customer_id", "name", "tag", "breached", "limit", "cursor"],
        body: Takes::Nothing,
    },
    Route {
        method: Method::PUT,
        path: METRIC,
        endpoint: Endpoint::MetricUpdate,
        access: INGESTS,
        query: SERIES,
        body: Takes::Json,
    },
    Route {
        method: Method::GET,
        path: METRIC,
        endpoint: Endpoint::MetricRead,
        access: READS,
        query: SERIES,
        body: Takes::Nothing,
    },
    Route {
        method: Method::PATCH,
        path: METRIC,
        endpoint: Endpoint::MetricChange,
        access: MANAGES,
        query: SERIES,
        body: Takes::Json,
    },
    Route {
        method: Method::DELETE,
        path: METRIC,
        endpoint: Endpoint::MetricDelete,
        access: MANAGES,
        query: &["scope", "customer_id", "force"],
        body: Takes::Nothing,
    },
    Route {
        method: Method::GET,
        path: HISTORY,
        endpoint: Endpoint::MetricHistory,
        access: READS,
        query: &["scope", "customer_id", "start", "end", "limit", "cursor"],
        body: Takes::Nothing,
    },
    admin(Method::POST, BUSINESSES, Endpoint::BusinessCreate, true),
    admin(Method::GET, BUSINESS, Endpoint::BusinessRead, false),
    admin(Method::PUT, BUSINESS, Endpoint::BusinessChange, true),
    admin(Method::DELETE, BUSINESS, Endpoint::BusinessDelete, false),
    tenant(Method::POST, BUSINESS_CUSTOMERS, Endpoint::CustomerCreate, true),
    tenant(Method::PUT, WEBHOOK, Endpoint::WebhookPut, true),
    tenant(Method::PUT, PROXY_TARGETS, Endpoint::ProxyTargetsPut, true),
    tenant(Method::GET, PROXY_TARGETS, Endpoint::ProxyTargetsRead, false),
    tenant(Method::POST, KEYS, Endpoint::KeyCreate, true),
    tenant(Method::GET, KEYS, Endpoint::KeyList, false),
    tenant(Method::GET, KEY, Endpoint::KeyRead, false),
    tenant(Method::DELETE, KEY, Endpoint::KeyDelete, false),
    tenant(Method::POST, CUSTOMER_KEYS, Endpoint::CustomerKeyCreate, true),
    tenant(Method::GET, CUSTOMER_KEYS, Endpoint::CustomerKeyList, false),
    tenant(Method::DELETE, CUSTOMER_KEY, Endpoint::CustomerKeyDelete, false),
    Route {
        method: Method::POST,
        path: CUSTOMERS,
        endpoint: Endpoint::CustomerCreate,
        access: MANAGES,
        query: &[],
        body: Takes::Json,
    },
    Route {
        method: Method::GET,
        path: CUSTOMERS,
        endpoint: Endpoint::CustomerList,
        access: TENANT_READS,
        query: &["limit", "cursor"],
        body: Takes::Nothing,
    },
    Route {
        method: Method::PUT,
        path: CUSTOMER,
        endpoint: Endpoint::CustomerPut,
        access: MANAGES,
        query: &[],
        body: Takes::Json,
    },
    Route {
        method: Method::GET,
        path: CUSTOMER,
        endpoint: Endpoint::CustomerRead,
        access: TENANT_READS,
        query: &[],
        body: Takes::Nothing,
    },
    Route {
        method: Method::DELETE,
        path: CUSTOMER,
        endpoint: Endpoint::CustomerDelete,
        access: MANAGES,
        query: &[],
        body: Takes::Nothing,
    },
    own(Method::GET, "/api/v1/billing/{customer_id}", Endpoint::BillingRead, READS, PAGE, false),
    admin(Method::POST, BILLING_RESET, Endpoint::BillingReset, false),
    Route {
        method: Method::GET,
        path: "/admin/v1/audit-logs",
        endpoint: Endpoint::AuditList,
        access: Access::Admin,
        query: &["business_id", "limit", "cursor"],
        body: Takes::Nothing,
    },
    Route {
        method: Method::GET,
        path: "/api/v1/audit-logs",
        endpoint: Endpoint::AuditListOwn,
        access: TENANT_READS,
        query: PAGE,
        body: Takes::Nothing,
    },
    own(Method::GET, FAILED_MESSAGES, Endpoint::MessageFailedList, Access::Admin, PAGE, false),
    admin(Method::POST, MESSAGE_RETRY, Endpoint::MessageRetry, false),
    own(Method::POST, PLANS, Endpoint::PlanCreate, MANAGES, &[], true),
    own(Method::GET, PLANS, Endpoint::PlanList, TENANT_READS, PAGE, false),
    own(Method::GET, PLAN, Endpoint::PlanRead, TENANT_READS, &[], false),
    own(Method::POST, PLAN_LIMITS, Endpoint::PlanLimitCreate, MANAGES, DRY, true),
    own(Method::GET, PLAN_LIMITS, Endpoint::PlanLimitList, TENANT_READS, PAGE, false),
    own(Method::GET, PLAN_LIMIT, Endpoint::PlanLimitRead, TENANT_READS, &[], false),
    own(Method::PUT, PLAN_LIMIT, Endpoint::PlanLimitChange, MANAGES, DRY, true),
    own(Method::DELETE, PLAN_LIMIT, Endpoint::PlanLimitDelete, MANAGES, DRY, false),
    own(Method::DELETE, PLAN, Endpoint::PlanDelete, MANAGES, &[], false),
    own(
        Method::GET,
        "/api/v1/limits",
        Endpoint::LimitList,
        READS,
        &["scope", "customer_id", "name", "tag", "breached", "limit", "cursor"],
        false,
    ),
    own(Method::GET, "/api/v1/customers/{customer_id}/usage", Endpoint::CustomerUsage, READS, PAGE, false),
    own(Method::POST, "/api/v1/check", Endpoint::Check, READS, &[], true),
    own(Method::POST, "/api/v1/proxy", Endpoint::Proxy, USES, &[], true),
    Route {
        method: Method::POST,
        path: STRIPE_WEBHOOK,
        endpoint: Endpoint::StripeReceive,
        access: Access::Signed,
        query: &[],
        body: Takes::Json,
    },
    own(Method::GET, STRIPE_EVENTS, Endpoint::StripeEventList, TENANT_READS, PAGE, false),
    own(Method::PUT, TEMPLATE, Endpoint::TemplatePut, MANAGES, &[], true),
    own(Method::GET, TEMPLATE, Endpoint::TemplateRead, TENANT_READS, &[], false),
    own(Method::DELETE, TEMPLATE, Endpoint::TemplateDelete, MANAGES, &[], false),
];

/// What a method and a path lead to.
#[derive(Debug)]
pub enum Found<'p> {
    /// A route, and its path parameters in order, still encoded.
    Route(&'static Route, Vec<&'p str>),
    /// The path exists, with these methods.
    OtherMethods(String),
    /// No such path.
    Nothing,
}

/// Looks a request up.
pub fn find<'p>(method: &Method, path: &'p str) -> Found<'p> {
    let sought = if method == Method::HEAD { &Method::GET } else { method };
    for route in ROUTES.iter().filter(|route| route.method == *sought) {
        if let Some(parameters) = matched(route.path, path) {
            return Found::Route(route, parameters);
        }
    }
    let mut others = Vec::new();
    for route in ROUTES.iter().filter(|route| matched(route.path, path).is_some()) {
        others.push(route.method.as_str());
        if route.method == Method::GET {
            others.push("HEAD");
        }
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others.join(", ")) }
}

/// The parameters of a path that fits a pattern; a parameter is never empty.
fn matched<'p>(pattern: &str, path: &'p str) -> Option<Vec<&'p str>> {
    let mut parameters = Vec::new();
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        let segment = segments.next()?;
        if wanted.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            parameters.push(segment);
        } else if segment != wanted {
            return None;
        }
    }
    segments.next().is_none().then_some(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(method: &Method, path: &str) -> Option<Endpoint> {
        match find(method, path) {
            Found::Route(route, _) => Some(route.endpoint),
            Found::OtherMethods(_) | Found::Nothing => None,
        }
    }

    #[test]
    fn every_route_is_found_by_its_own_path() {
        for route in &ROUTES {
            let segments =
                route.path.split('/').map(|part| if part.starts_with('{') { "a%20b" } else { part });
            let path = segments.collect::<Vec<_>>().join("/");
            assert_eq!(endpoint(&route.method, &path), Some(route.endpoint), "{} {path}", route.method);
        }
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in [
            "",
            "/",
            "*",
            "/health/",
            "//health",
            "/api/v1/metrics/",
            "/api/v1/metrics/a/b",
            "/api/v1/metrics//history",
        ] {
            assert!(matches!(find(&Method::GET, path), Found::Nothing), "{path}");
        }
    }

    #[test]
    fn a_path_with_another_method_says_what_it_knows() {
        let Found::OtherMethods(allow) = find(&Method::OPTIONS, "/api/v1/metrics/a") else {
            panic!("405 expected")
        };
        assert_eq!(allow, "PUT, GET, HEAD, PATCH, DELETE");
        assert_eq!(endpoint(&Method::HEAD, "/health"), Some(Endpoint::Health));
    }
}
