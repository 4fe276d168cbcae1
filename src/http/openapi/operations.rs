//! What each endpoint is called, takes and answers; the rest follows from its row in the table of routes. One arm for
//! each endpoint and none for the rest: a new route does not compile before it is described.

use crate::http::error::Title::{
    self, BadGateway, Conflict, Forbidden, NotFound, PlanLimitExceeded, Unprocessable,
};
use crate::http::routes::Endpoint;

const SERVICE: &str = "Service";
const METRICS: &str = "Metrics";
const BUSINESSES: &str = "Businesses";
const KEYS: &str = "Keys";
const CUSTOMERS: &str = "Customers";
const PLANS: &str = "Plans";
const LIMITS: &str = "Limits";
const AUDIT: &str = "Audit";
const STRIPE: &str = "Stripe";

/// The groups of operations.
pub(super) const TAGS: [(&str, &str); 9] = [
    (SERVICE, "Whether the service lives, what it measures about itself, and this document."),
    (METRICS, "Series: a metric of the business or of one customer, its updates, its value, its past."),
    (BUSINESSES, "Tenants. For the admin key."),
    (KEYS, "Keys of a business and of its customers. At most two of a type are active, to replace one."),
    (CUSTOMERS, "Whom the business measures."),
    (PLANS, "What customers subscribe to, and what they may use on it."),
    (LIMITS, "How customers stand to their limits, and whether they may go on."),
    (STRIPE, "What Stripe tells, and what follows from it."),
    (AUDIT, "Who has changed what. Read from the database, about a second behind."),
];

/// What the body of an answer is.
#[derive(Clone, Copy)]
pub(super) enum Content {
    /// JSON: a component.
    Json(&'static str),
    /// Text of a media type.
    Text(&'static str),
    /// There is none.
    Nothing,
}

/// An endpoint, described.
pub(super) struct Operation {
    /// Unique, and what clients call it.
    pub(super) id: &'static str,
    /// One of `TAGS`.
    pub(super) tag: &'static str,
    /// Its name in a list.
    pub(super) summary: &'static str,
    /// What it does.
    pub(super) about: &'static str,
    /// The component of its body.
    pub(super) body: Option<&'static str>,
    /// Other media types that it takes, as text.
    pub(super) also: &'static [&'static str],
    /// Status, when, and what.
    pub(super) answers: Vec<(u16, &'static str, Content)>,
    /// Problems beyond those of its row in the table of routes.
    pub(super) problems: Vec<Title>,
    /// Whether it takes an `Idempotency-Key`.
    pub(super) idempotent: bool,
    /// Whether answers tell the quota of a series in headers.
    pub(super) rated: bool,
}

impl Operation {
    fn new(tag: &'static str, id: &'static str, summary: &'static str, about: &'static str) -> Self {
        let (answers, problems) = (Vec::new(), Vec::new());
        Operation {
            id,
            tag,
            summary,
            about,
            body: None,
            also: &[],
            answers,
            problems,
            idempotent: false,
            rated: false,
        }
    }

    fn takes(self, component: &'static str) -> Self {
        Operation { body: Some(component), ..self }
    }

    fn takes_also(self, media_types: &'static [&'static str]) -> Self {
        Operation { also: media_types, ..self }
    }

    fn answers_nothing(mut self, status: u16, when: &'static str) -> Self {
        self.answers.push((status, when, Content::Nothing));
        self
    }

    fn answers(mut self, status: u16, when: &'static str, component: &'static str) -> Self {
        self.answers.push((status, when, Content::Json(component)));
        self
    }

    fn says(mut self, when: &'static str, media_type: &'static str) -> Self {
        self.answers.push((200, when, Content::Text(media_type)));
        self
    }

    fn refuses(self, problems: &[Title]) -> Self {
        Operation { problems: problems.to_vec(), ..self }
    }

    fn idempotent(self) -> Self {
        Operation { idempotent: true, ..self }
    }

    fn rated(self) -> Self {
        Operation { rated: true, ..self }
    }
}

/// Describes an endpoint.
pub(super) fn describe(endpoint: Endpoint) -> Operation {
    let new = Operation::new;
    match endpoint {
        Endpoint::Health => new(SERVICE, "getHealth", "Answer OK", "The process answers, no more.")
            .says("Always.", "text/plain"),
        Endpoint::Live => new(SERVICE, "getLiveness", "Is it alive?", "The process answers, no more.")
            .answers(200, "Always.", "Liveness"),
        Endpoint::Ready => new(
            SERVICE,
            "getReadiness",
            "Is it ready?",
            "A database that is down makes it degraded, not unready: updates are durable without it.",
        )
        .answers(200, "It may be used, perhaps degraded.", "Readiness")
        .answers(503, "It is starting or stopping.", "Readiness"),
        Endpoint::Telemetry => new(
            SERVICE,
            "getTelemetry",
            "What the service measures about itself",
            "For Prometheus, in the OpenMetrics text format. It names no tenant.",
        )
        .says("The exposition.", "application/openmetrics-text"),
        Endpoint::OpenApi => {
            new(SERVICE, "getOpenApi", "This document", "Generated from the table of routes.").answers(
                200,
                "The document.",
                "Document",
            )
        }
        Endpoint::MetricCreate => new(
            METRICS,
            "createMetric",
            "Create a series",
            "If the name exists, its definition stays, the answer says `exists` and what differs, and an \
             `initial_value` that is not the series' own is recorded as one update, once for each body.",
        )
        .takes("NewMetric")
        .answers(201, "The series is there.", "MetricCreated")
        .refuses(&[Conflict, Unprocessable, PlanLimitExceeded])
        .idempotent(),
        Endpoint::MetricList => new(
            METRICS,
            "listMetrics",
            "List series with their values",
            "Without `scope` both scopes are shown; a customer key sees the series of its customer.",
        )
        .answers(200, "A page.", "MetricPage"),
        Endpoint::MetricUpdate => new(
            METRICS,
            "updateMetric",
            "Record one update",
            "Answered once it is durable; a reading that starts after the answer sees it. With `block` an update \
             that would pass the limit is refused with `plan_limit_exceeded` and changes nothing. A customer's series \
             that is not there is made of the template of its name, if there is one.",
        )
        .takes("NewUpdate")
        .answers(200, "It is recorded.", "UpdateRecorded")
        .refuses(&[Unprocessable, PlanLimitExceeded])
        .idempotent()
        .rated(),
        Endpoint::EventsRecord => new(
            METRICS,
            "recordEvents",
            "Record many updates",
            "NDJSON, an array, CSV with a header, or CloudEvents (structured, batch, binary); gzip or zstd. Good items \
             count, bad ones are reported by their place. `atomic`: items that are not valid reject the batch; what limits \
             decide stays per item. A single CloudEvent answers 204.",
        )
        .takes("Events")
        .takes_also(&[
            "application/x-ndjson",
            "text/csv",
            "application/cloudevents+json",
            "application/cloudevents-batch+json",
        ])
        .answers(200, "It is recorded; how many items counted, and why others did not.", "EventsRecorded")
        .answers_nothing(204, "The CloudEvent is recorded.")
        .refuses(&[NotFound, Unprocessable, PlanLimitExceeded])
        .idempotent()
        .rated(),
        Endpoint::MetricRead => new(METRICS, "readMetric", "Read a series", "Its value as of now.")
            .answers(200, "The reading.", "MetricReading")
            .rated(),
        Endpoint::MetricChange => new(
            METRICS,
            "changeMetric",
            "Change a series",
            "What is absent stays. What decides how updates count cannot be changed once there are updates.",
        )
        .takes("MetricChange")
        .answers(200, "It is changed.", "MetricUpdated")
        .refuses(&[Conflict, Unprocessable]),
        Endpoint::MetricDelete => {
            new(METRICS, "deleteMetric", "Delete a series", "Its rows in the database stay.")
                .answers(200, "It is gone.", "MetricDeleted")
                .refuses(&[Conflict])
        }
        Endpoint::TemplatePut => new(
            METRICS,
            "putTemplate",
            "Say what customers' series are made of",
            "A customer's series of this name that is not there is made of it at its first update, so that nobody need \
             create it. What is absent is at its default. Series that are there stay as they are, whatever becomes of \
             the template; without `customer_id` an update makes nothing. `check` makes nothing either: it answers what \
             the first update would find.",
        )
        .takes("NewTemplate")
        .answers(201, "It is there.", "TemplatePut")
        .answers(200, "It has taken the place of the one before.", "TemplatePut")
        .refuses(&[Unprocessable]),
        Endpoint::TemplateRead => {
            new(METRICS, "readTemplate", "Read a template", "What customers' series of this name are made of.")
                .answers(200, "All of it.", "Template")
        }
        Endpoint::TemplateDelete => {
            new(METRICS, "deleteTemplate", "Delete a template", "The series that it made stay.")
                .answers(200, "It is gone.", "TemplateDeleted")
        }
        Endpoint::MetricHistory => new(
            METRICS,
            "readMetricHistory",
            "Read the past of a series",
            "Its windows, newest first: the database, with what is not written yet merged in.",
        )
        .answers(200, "A page.", "MetricHistory"),
        Endpoint::BusinessCreate => {
            new(BUSINESSES, "createBusiness", "Create a business", "It has no keys yet.")
                .takes("NewBusiness")
                .answers(201, "It is there.", "BusinessCreated")
        }
        Endpoint::BusinessRead => new(BUSINESSES, "readBusiness", "Read a business", "What is known of it.")
            .answers(200, "The business.", "Business"),
        Endpoint::BusinessChange => {
            new(BUSINESSES, "changeBusiness", "Change a business", "What is absent stays.")
                .takes("BusinessChange")
                .answers(200, "It is changed.", "BusinessUpdated")
        }
        Endpoint::BusinessDelete => new(
            BUSINESSES,
            "deleteBusiness",
            "Delete a business",
            "Its keys stop at once; rows of its series stay in the database.",
        )
        .answers(200, "It is gone.", "BusinessDeleted"),
        Endpoint::WebhookPut => new(
            BUSINESSES,
            "putWebhook",
            "Set where messages go",
            "The answer holds the secret that they are signed with, which is shown only there. Each call makes a new one; \
             the one before signs along for 24 hours.",
        )
        .takes("NewWebhook")
        .answers(200, "It is set.", "WebhookSet")
        .refuses(&[Unprocessable]),
        Endpoint::ProxyTargetsPut => new(
            BUSINESSES,
            "putProxyTargets",
            "Bind customer keys to origins",
            "What they call by the proxy must then be at one of these: anything else is refused with `target_not_allowed`. \
             Business keys are not bound. An empty list binds nobody.",
        )
        .takes("NewProxyTargets")
        .answers(200, "It holds.", "ProxyTargetsUpdated")
        .refuses(&[Unprocessable]),
        Endpoint::ProxyTargetsRead => new(
            BUSINESSES,
            "readProxyTargets",
            "Read what customer keys are bound to",
            "Empty if they are not.",
        )
        .answers(200, "All of it.", "ProxyTargets"),
        Endpoint::MessageFailedList => new(
            BUSINESSES,
            "listFailedMessages",
            "List messages that were given up",
            "By their ids. A message is given up when its receiver says 410, or has not taken it for 24 hours.",
        )
        .answers(200, "A page.", "FailedMessagePage"),
        Endpoint::MessageRetry => new(
            BUSINESSES,
            "retryMessage",
            "Try a message again",
            "One that was given up; it keeps its id.",
        )
        .answers(200, "It will be tried at once.", "MessageRetried"),
        Endpoint::StripeReceive => new(
            STRIPE,
            "receiveStripeEvent",
            "Take an event of Stripe",
            "The body is the event as Stripe sends it, with its `Stripe-Signature`. Subscriptions say when billing periods end \
             and what plan a customer is on, invoices end periods whose end was not known, a completed checkout links a \
             customer. An event that changes nothing is received all the same.",
        )
        .takes("StripeEvent")
        .answers(200, "It is durable, or nothing follows from it.", "StripeEventReceived")
        .refuses(&[Unprocessable]),
        Endpoint::StripeEventList => new(
            STRIPE,
            "listStripeEvents",
            "List events of Stripe",
            "Those of the last 30 days and what each did, newest first. Types that are not read are not kept.",
        )
        .answers(200, "A page.", "StripeEventPage"),
        Endpoint::KeyCreate => new(
            KEYS,
            "createKey",
            "Create a key of the business",
            "The answer holds the key, which is shown only there. No key makes one that may do more or lives \
             longer than itself. The third active key is refused with `key_limit_reached`.",
        )
        .takes("NewKey")
        .answers(201, "The key.", "KeyCreated")
        .refuses(&[Conflict, Unprocessable]),
        Endpoint::KeyList => new(KEYS, "listKeys", "List the keys of the business", "The active ones.")
            .answers(200, "All of them.", "KeyPage"),
        Endpoint::KeyRead => new(KEYS, "readKey", "Read a key of the business", "Without the key itself.")
            .answers(200, "The key.", "ListedKey"),
        Endpoint::KeyDelete => new(
            KEYS,
            "deleteKey",
            "Delete a key of the business",
            "It answers 401 at once. A key may always end itself; to end others it needs the scope `manage`.",
        )
        .answers(200, "It is gone.", "KeyDeleted"),
        Endpoint::CustomerKeyCreate => new(
            KEYS,
            "createCustomerKey",
            "Create a key of one customer",
            "It reads that customer, asks whether it may use something, and calls the proxy for it: nothing else. The \
             answer holds the key, which is shown only there.",
        )
        .takes("NewCustomerKey")
        .answers(201, "The key.", "OwnKeyCreated")
        .refuses(&[Conflict, Unprocessable]),
        Endpoint::CustomerKeyList => {
            new(KEYS, "listCustomerKeys", "List the keys of one customer", "The active ones.").answers(
                200,
                "All of them.",
                "CustomerKeyPage",
            )
        }
        Endpoint::CustomerKeyDelete => {
            new(KEYS, "deleteCustomerKey", "Delete a key of one customer", "It answers 401 at once.").answers(
                200,
                "It is gone.",
                "KeyDeleted",
            )
        }
        Endpoint::BillingReset => new(
            CUSTOMERS,
            "resetBilling",
            "Begin a new billing period",
            "Of every `stripe_billing` series of the customer and every one that its plan limits: what was counted \
             before stays in the old period.",
        )
        .answers(200, "It has begun.", "BillingReset"),
        Endpoint::AuditList => new(AUDIT, "listAuditLogs", "List changes", "Of all businesses or one, newest first.")
            .answers(200, "A page.", "AuditPage"),
        Endpoint::AuditListOwn => {
            new(AUDIT, "listOwnAuditLogs", "List changes of the business", "Newest first.").answers(
                200,
                "A page.",
                "AuditPage",
            )
        }
        Endpoint::CustomerCreate => {
            new(CUSTOMERS, "createCustomer", "Create a customer", "Under an id of your own.")
                .takes("NewCustomer")
                .answers(201, "It is there.", "CustomerCreated")
                .refuses(&[NotFound, Conflict, Unprocessable])
        }
        Endpoint::CustomerList => new(CUSTOMERS, "listCustomers", "List customers", "By their ids.").answers(
            200,
            "A page.",
            "CustomerPage",
        ),
        Endpoint::CustomerPut => new(
            CUSTOMERS,
            "putCustomer",
            "Create or change a customer",
            "What is absent stays, `null` clears. A new one needs a name.",
        )
        .takes("CustomerChange")
        .answers(200, "It is changed.", "CustomerUpdated")
        .answers(201, "There was none of that id; now there is.", "CustomerCreated")
        .refuses(&[Conflict, Unprocessable]),
        Endpoint::CustomerRead => new(CUSTOMERS, "readCustomer", "Read a customer", "What is known of it.")
            .answers(200, "The customer.", "Customer"),
        Endpoint::CustomerDelete => new(
            CUSTOMERS,
            "deleteCustomer",
            "Delete a customer",
            "With its keys and series; rows of its series stay in the database.",
        )
        .answers(200, "It is gone.", "CustomerDeleted"),
        Endpoint::PlanCreate => new(
            PLANS,
            "createPlan",
            "Create a plan",
            "Without a price it is the free plan, to which customers fall whose subscription has ended. There is one \
             free plan, and one plan a price.",
        )
        .takes("NewPlan")
        .answers(201, "It is there.", "PlanCreated")
        .refuses(&[Conflict]),
        Endpoint::PlanList => {
            new(PLANS, "listPlans", "List plans", "By their ids.").answers(200, "A page.", "PlanPage")
        }
        Endpoint::PlanRead => {
            new(PLANS, "readPlan", "Read a plan", "What is known of it.").answers(200, "The plan.", "Plan")
        }
        Endpoint::PlanDelete => new(
            PLANS,
            "deletePlan",
            "Delete a plan",
            "With its limits. While customers are on it, it stays.",
        )
        .answers(200, "It is gone.", "PlanDeleted")
        .refuses(&[Conflict]),
        Endpoint::PlanLimitCreate => new(
            PLANS,
            "createPlanLimit",
            "Limit a metric on a plan",
            "Without a plan it is the default for all customers. Customers on the plan get the series that it needs at \
             once; a series that is there keeps its shape. With `dry_run=true` nothing changes, and the answer says \
             what would.",
        )
        .takes("NewPlanLimit")
        .answers(200, "With `dry_run=true`: what it would do.", "PlanLimitForeseen")
        .answers(201, "It applies.", "PlanLimitCreated")
        .refuses(&[NotFound, Conflict, Unprocessable]),
        Endpoint::PlanLimitList => {
            new(PLANS, "listPlanLimits", "List limits and defaults", "By their ids.").answers(
                200,
                "A page.",
                "PlanLimitPage",
            )
        }
        Endpoint::PlanLimitRead => {
            new(PLANS, "readPlanLimit", "Read a limit", "What is known of it.").answers(
                200,
                "The limit.",
                "PlanLimit",
            )
        }
        Endpoint::PlanLimitChange => new(
            PLANS,
            "changePlanLimit",
            "Change a limit",
            "What is absent stays. It applies to every series concerned when the answer comes.",
        )
        .takes("PlanLimitChange")
        .answers(200, "It applies, or with `dry_run=true` would.", "PlanLimitUpdated")
        .refuses(&[Conflict, Unprocessable]),
        Endpoint::PlanLimitDelete => new(
            PLANS,
            "deletePlanLimit",
            "Delete a limit",
            "Series that it created stay, under the default if there is one.",
        )
        .answers(200, "It is gone, or with `dry_run=true` would be.", "PlanLimitDeleted"),
        Endpoint::LimitList => new(
            LIMITS,
            "listLimits",
            "List standings",
            "Every series with a limit: breached ones first, then by the percentage used. A few such requests are worked on at \
             once; beyond, 503.",
        )
        .answers(200, "A page.", "StandingPage")
        .refuses(&[Unprocessable]),
        Endpoint::CustomerUsage => new(
            LIMITS,
            "readCustomerUsage",
            "What a customer uses",
            "Every series of the customer with its limit: what a billing page shows.",
        )
        .answers(200, "A page.", "CustomerUsage"),
        Endpoint::BillingRead => new(
            LIMITS,
            "readBilling",
            "What is billed of a customer",
            "Every series of the customer whose usage goes to Stripe: its live periods, and the slices that have not arrived.",
        )
        .answers(200, "A page.", "Billing"),
        Endpoint::Proxy => new(
            LIMITS,
            "forwardRequest",
            "Check, then forward",
            "Whatever the target says is the answer. Redirects are not followed; usage is not counted. An empty \
             `metric_name` checks every limit of the customer. Targets must be public, on the ports 80 and 443, unless \
             `--proxy-allow` says otherwise; those of a customer key one of the business's `proxy_targets`, if there are any.",
        )
        .takes("NewCall")
        .answers(200, "What the target said.", "Forwarded")
        .answers(429, "A limit is breached; the target has heard nothing.", "Denied")
        .refuses(&[Forbidden, NotFound, Unprocessable, BadGateway])
        .rated(),
        Endpoint::Check => new(
            LIMITS,
            "checkLimit",
            "May it be used?",
            "Nothing is recorded. Refused is what would pass a limit with the action `deny` or `block`. An array asks \
             many questions, each of which is answered for itself.",
        )
        .takes("Check")
        .answers(200, "The answer, or the answers.", "Checked")
        .refuses(&[NotFound, Unprocessable])
        .rated(),
    }
}
