//! What the journal holds about tenants. Variants and fields are only ever added at the end: the encoding is postcard.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Amount, AuditEntry, BilledPeriod, BillingPeriodEnd, BillingPeriodFinal, EffectiveLimit, Limit,
    LimitSource, MetricType, Micros, Notify, Operation, Plan, PlanLimit, SeriesId, SeriesKey, Shape, Slice,
    SliceMove, Span, StripeEvent, StripeKey, Subscription, Template, Webhook,
};

/// One change of the registry. A definition epoch holds one or more of them, each valid after those before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Definition {
    /// A tenant.
    BusinessPut(Business),
    /// A key, hashed.
    KeyPut(ApiKey),
    /// All keys of a name stop working. Earlier versions wrote it; `KeyEnded` ends one.
    KeyDeleted {
        /// Whose.
        business_id: String,
        /// Its name.
        key_name: String,
    },
    /// A customer of a tenant.
    CustomerPut(Customer),
    /// A series begins.
    SeriesCreated(SeriesRecord),
    /// A series is described anew; identity and number stay.
    SeriesChanged {
        /// Which.
        series: SeriesId,
        /// The new description.
        spec: SeriesSpec,
    },
    /// A series ends.
    SeriesDeleted {
        /// Which.
        series: SeriesId,
    },
    /// A new live period begins (admin reset, or a start with `restore_on_startup: false`).
    SeriesCut {
        /// Which.
        series: SeriesId,
    },
    /// The initial value of a repeated POST has been recorded as an update; the same body never will be again.
    PostRecorded {
        /// Which.
        series: SeriesId,
        /// Hash of the parsed body.
        body_hash: u128,
    },
    /// What else is known of a customer.
    CustomerDescribed {
        /// Whose.
        business_id: String,
        /// Which.
        customer_id: String,
        /// All of it.
        details: CustomerDetails,
    },
    /// A customer goes, and with it its keys. Its series are deleted one by one before, in the same epoch.
    CustomerDeleted {
        /// Whose.
        business_id: String,
        /// Which.
        customer_id: String,
    },
    /// A tenant goes, and with it its keys and customers. Its series are deleted one by one before, in the same epoch.
    BusinessDeleted {
        /// Which.
        business_id: String,
    },
    /// A key stops working: this one, whoever else has one of its name.
    KeyEnded {
        /// BLAKE3 of the whole key text.
        hash: [u8; 32],
    },
    /// Credentials for Stripe.
    StripeKeyPut(StripeKey),
    /// Credentials for Stripe go.
    StripeKeyEnded {
        /// Whose.
        business_id: String,
        /// Its name.
        key_name: String,
    },
    /// Where a tenant's messages go and what they are signed with.
    WebhookPut(Webhook),
    /// Who made the definitions before it, in the same epoch. Changes nothing itself.
    Audited(AuditEntry),
    /// A plan.
    PlanPut(Plan),
    /// A plan goes. Its limits are deleted one by one before, in the same epoch; nobody is on it.
    PlanDeleted {
        /// Whose.
        business_id: String,
        /// Which.
        plan_id: String,
    },
    /// A limit of a plan, or a default.
    PlanLimitPut(PlanLimit),
    /// A limit of a plan, or a default, goes.
    PlanLimitDeleted {
        /// Whose.
        business_id: String,
        /// Which.
        limit_id: String,
    },
    /// A customer is put on a plan, or taken off.
    CustomerPlanned {
        /// Whose.
        business_id: String,
        /// Which.
        customer_id: String,
        /// The plan.
        plan_id: Option<String>,
    },
    /// What a tenant's customer keys may reach by the proxy.
    ProxyTargetsPut {
        /// Whose.
        business_id: String,
        /// Origins in normal form; none: everything that may be reached at all.
        origins: BTreeSet<String>,
    },
    /// A subscription at Stripe, as of an event.
    SubscriptionPut(Subscription),
    /// An event of Stripe. What it changes stands in definitions of its own, in the same epoch.
    StripeEventRead(StripeEvent),
    /// A billing period has ended, so that it does not end again. The cut is a definition of its own, or was made in time.
    BillingPeriodEnded(BillingPeriodEnd),
    /// How much of a series' live periods is billed from now on. The slices that make it so follow in the same epoch.
    PeriodsBilled {
        /// Which.
        series: SeriesId,
        /// The periods that changed, each in full.
        periods: Vec<BilledPeriod>,
    },
    /// Slices of usage are to be billed.
    SlicesCut(Vec<Slice>),
    /// Slices have come to other states.
    SlicesMoved(Vec<SliceMove>),
    /// What comes for a series' periods from now on, up to a moment, is too late for their invoice.
    BillingPeriodFinal(BillingPeriodFinal),
    /// An event of Stripe that was read names a report that is still to be had. What it said follows as the same event, read
    /// once more.
    ReportAwaited {
        /// Whose.
        business_id: String,
        /// `evt_...`.
        event_id: String,
    },
    /// A template. What was made from the one of its name before stays as it is.
    TemplatePut(Template),
    /// A template goes. The series that were made from it stay.
    TemplateDeleted {
        /// Whose.
        business_id: String,
        /// Its name.
        metric_name: String,
    },
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Business {
    /// `biz_...`.
    pub business_id: String,
    /// Display name.
    pub business_name: String,
    /// Contact.
    pub email: String,
    /// When it was defined.
    pub created_at: Micros,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scopes {
    /// GET and check.
    pub read: bool,
    /// Updates, events, proxy.
    pub ingest: bool,
    /// The rest.
    pub manage: bool,
}

impl Scopes {
    /// Everything.
    pub const ALL: Scopes = Scopes { read: true, ingest: true, manage: true };
}

/// Whom a key acts for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyKind {
    /// The business.
    Business,
    /// One customer.
    Customer {
        /// Which.
        customer_id: String,
    },
}

/// A key as it is kept: the hash, never the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Whose.
    pub business_id: String,
    /// Its name, unique among those that act for the same.
    pub key_name: String,
    /// Whom it acts for.
    pub kind: KeyKind,
    /// BLAKE3 of the whole key text.
    pub hash: [u8; 32],
    /// What it may do.
    pub scopes: Scopes,
    /// When it stops working.
    pub expires_at: Option<Micros>,
    /// When it was made.
    pub created_at: Micros,
}

/// A customer of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    /// Whose.
    pub business_id: String,
    /// The tenant's own id for it.
    pub customer_id: String,
    /// Display name.
    pub customer_name: String,
    /// When it was defined.
    pub created_at: Micros,
}

/// What a customer may be described with, as the tenant gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerDetails {
    /// `email`.
    pub email: Option<String>,
    /// `description`.
    pub description: Option<String>,
    /// `stripe_customer_id`.
    pub stripe_customer_id: Option<String>,
    /// `stripe_price_id`.
    pub stripe_price_id: Option<String>,
    /// `subscription_ends_at`.
    pub subscription_ends_at: Option<Micros>,
}

/// A series with its name and number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesRecord {
    /// Its number.
    pub series: SeriesId,
    /// Its name.
    pub key: SeriesKey,
    /// Its description.
    pub spec: SeriesSpec,
    /// When it was defined.
    pub created_at: Micros,
}

/// The description of a series, as a client gave it (API section 2), defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesSpec {
    /// `metric_type`.
    pub metric_type: MetricType,
    /// `operation`.
    pub operation: Operation,
    /// `flush_interval`.
    pub flush_interval: Span,
    /// `reset_interval`; given or defaulted with `reset`, none otherwise.
    pub reset_interval: Option<Span>,
    /// `initial_value`.
    pub initial_value: Amount,
    /// `max_event_age` in seconds; none is the server's default.
    pub max_event_age_secs: Option<u32>,
    /// `cleanup_after` in days; none is `never`.
    pub cleanup_after_days: Option<u16>,
    /// `tags`.
    pub tags: BTreeMap<String, String>,
    /// The series' own limit.
    pub limit: Option<Limit>,
    /// `notify_at`, percentages.
    pub notify_at: Vec<u16>,
    /// `webhook_url`.
    pub webhook_url: Option<String>,
    /// `metadata.integrations.supabase.enabled` (or `postgres`).
    pub stored: bool,
    /// `metadata.integrations.supabase.batch_interval`.
    pub batch_interval: Span,
    /// `metadata.integrations.supabase.restore_on_startup`.
    pub restore_on_startup: bool,
    /// `metadata.integrations.stripe`.
    pub stripe: Option<StripeIntegration>,
    /// `metadata.custom`, JSON text as it came; `{}` by default.
    pub custom: String,
}

impl Default for SeriesSpec {
    /// What the API gives a metric of which only the name is known.
    fn default() -> Self {
        SeriesSpec {
            metric_type: MetricType::Checkpoint,
            operation: Operation::Sum,
            flush_interval: Span::H1,
            reset_interval: None,
            initial_value: Amount::ZERO,
            max_event_age_secs: None,
            cleanup_after_days: None,
            tags: BTreeMap::new(),
            limit: None,
            notify_at: Vec::new(),
            webhook_url: None,
            stored: true,
            batch_interval: Span::S15,
            restore_on_startup: true,
            stripe: None,
            custom: "{}".to_owned(),
        }
    }
}

impl SeriesSpec {
    /// The series' own limit.
    pub fn own_limit(&self) -> Option<EffectiveLimit> {
        let notify = Notify::new(&self.notify_at);
        self.limit.map(|limit| EffectiveLimit { limit, source: LimitSource::Series, notify })
    }

    /// What meter must know; `default_max_event_age_secs` is the server's. Without the limit, which the facts of the same
    /// epoch bring: what one definition of an epoch gives and the next takes away must not stay.
    pub fn shape(&self, default_max_event_age_secs: u32) -> Shape {
        Shape {
            operation: self.operation,
            metric_type: self.metric_type,
            flush: self.flush_interval,
            reset: self.reset_interval.unwrap_or(self.flush_interval),
            initial_value: self.initial_value,
            batch: self.batch_interval,
            stored: self.stored,
            limit: None,
            limit_source: LimitSource::Series,
            notify: Notify::NONE,
            max_event_age_secs: self.max_event_age_secs.unwrap_or(default_max_event_age_secs),
            cleanup_after_days: self.cleanup_after_days,
        }
    }
}

/// `metadata.integrations.stripe`: kept for the billing exporter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeIntegration {
    /// `enabled`.
    pub enabled: bool,
    /// `price_id`.
    pub price_id: Option<String>,
    /// `export`: true for `overage`, false for `usage`.
    pub overage: bool,
    /// `overage_threshold`.
    pub overage_threshold: Option<Amount>,
    /// `scale`.
    pub scale: Option<Amount>,
}
