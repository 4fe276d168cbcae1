//! What a series is: its identity, and the shape that decides how updates become values.

use serde::{Deserialize, Serialize};

use super::{Amount, EffectiveLimit, LimitSource, Notify, Span};

/// The dense number of a series, given in journal order and never reused: at most 2^32 - 1 series in the life of a
/// journal. `worker = id % workers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesId(pub u32);

impl SeriesId {
    /// The worker, of `workers`, that owns the series.
    pub const fn worker(self, workers: usize) -> usize {
        self.0 as usize % workers
    }
}

/// Whom a series counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The business as a whole.
    Business,
    /// One customer of the business.
    Customer,
}

/// The full name of a series. The scope is `customer` exactly when `customer_id` is present.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    /// The tenant.
    pub business_id: String,
    /// The tenant's customer; none for a business series.
    pub customer_id: Option<String>,
    /// The tenant's name for the metric.
    pub metric_name: String,
}

impl SeriesKey {
    /// Business or customer scope.
    pub fn scope(&self) -> Scope {
        if self.customer_id.is_some() { Scope::Customer } else { Scope::Business }
    }
}

/// Which number of a tally is the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// The sum of the amounts.
    #[default]
    Sum,
    /// The number of updates; the amounts do not matter.
    Count,
    /// Sum divided by count, half to even at nine digits.
    Avg,
    /// The greatest amount.
    Max,
    /// The least amount.
    Min,
}

/// What ends a live period (semantics, section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricType {
    /// The end of each `reset` window.
    Reset,
    /// Nothing but an admin reset.
    #[default]
    Checkpoint,
    /// The end of a billing period.
    StripeBilling,
}

/// How a value stands to its limit when it is breached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operator {
    /// At or above.
    #[default]
    Gte,
    /// Above.
    Gt,
    /// At or below.
    Lte,
    /// Below.
    Lt,
    /// Equal.
    Eq,
}

/// What happens to an update past the limit (semantics, section 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Recorded and reported.
    #[default]
    Allow,
    /// Recorded; what lies beyond is the overage.
    AllowOverage,
    /// Recorded; check and proxy refuse.
    Deny,
    /// Refused: nothing is recorded.
    Block,
    /// Recorded; a message is sent.
    Webhook,
}

/// A limit on the value of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// The bound. Zero is a limit of zero.
    pub value: Amount,
    /// When the value counts as breached.
    pub operator: Operator,
    /// What then happens.
    pub action: Action,
}

/// All that meter must know of a series. Shared: a worker keeps one copy of equal shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Which number of a tally is the value.
    pub operation: Operation,
    /// What ends a live period.
    pub metric_type: MetricType,
    /// The grain of history; one of `Span::FLUSH`.
    pub flush: Span,
    /// The live period of a `reset` series, a multiple of `flush`; equal to `flush` for the other types, where it
    /// means nothing.
    pub reset: Span,
    /// Offset of SUM and COUNT, placeholder of the others.
    pub initial_value: Amount,
    /// How often changed rows go to the store; one of `Span::FLUSH`.
    pub batch: Span,
    /// Whether rows go to the store at all.
    pub stored: bool,
    /// The effective limit, if any.
    pub limit: Option<Limit>,
    /// Why it applies. Not in snapshots: a start computes effective limits anew.
    #[serde(skip)]
    pub limit_source: LimitSource,
    /// Where else messages are sent; likewise.
    #[serde(skip)]
    pub notify: Notify,
    /// How old an event may be, in seconds; 0 means that the event time is always the arrival.
    pub max_event_age_secs: u32,
    /// `cleanup_after` in days; none is `never`.
    pub cleanup_after_days: Option<u16>,
}

impl Shape {
    /// The shape with another effective limit.
    pub fn limited(self, limit: Option<EffectiveLimit>) -> Shape {
        Shape {
            limit: limit.map(|effective| effective.limit),
            limit_source: limit.map_or(LimitSource::Series, |effective| effective.source),
            notify: limit.map_or(Notify::NONE, |effective| effective.notify),
            ..self
        }
    }

    /// Whether a flush window and a live period are the same thing (until an admin reset cuts one).
    pub fn window_is_period(&self) -> bool {
        self.metric_type == MetricType::Reset && self.reset == self.flush
    }
}
