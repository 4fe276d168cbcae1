//! The vocabulary: every word that two rooms share, in one sense each.
//!
//! `series` says what a metric is, `definition` what the journal holds about tenants, `work` what a worker is
//! handed and what it answers, `state` what a snapshot keeps of a series, `packed` how updates lie in the journal,
//! `plan` what plans are, `template` what series are made from, `limits` what limits are computed from,
//! `secret` what of a tenant's is encrypted, `audit` who changed what, `stripe` what Stripe told us, `slice` how usage is
//! billed.
//! Nothing here computes more than a conversion.

mod audit;
mod definition;
mod limits;
pub mod packed;
mod plan;
mod secret;
mod series;
mod slice;
mod state;
mod stripe;
mod template;
mod work;

pub use crate::amount::{Amount, AmountError};
pub use crate::tally::{Reading, Tally};
pub use crate::window::{Span, Window};
pub use audit::{Actor, AuditEntry};
pub use definition::{
    ApiKey, Business, Customer, CustomerDetails, Definition, KeyKind, Scopes, SeriesRecord, SeriesSpec,
    StripeIntegration,
};
pub use limits::{Crossing, Edge, EffectiveLimit, Fact, LimitSource, Limited, Notify, Place};
pub use plan::{LimitPeriod, Plan, PlanLimit};
pub use secret::{RetiredSecret, Sealed, StripeKey, Webhook};
pub use series::{Action, Limit, MetricType, Operation, Operator, Scope, SeriesId, SeriesKey, Shape};
pub use slice::{BilledPeriod, Slice, SliceMove, SliceState};
pub use state::{CleanupState, MergeState, PeriodState, SeriesState, WindowState};
pub use stripe::{
    BillingPeriodEnd, BillingPeriodFinal, StripeEvent, Subscription, SubscriptionItem, SubscriptionStanding,
};
pub use template::Template;
pub use work::{
    BRIEF, Batch, ClassSet, Command, Decision, EventId, Held, LiveState, NO_REPLY, Outcome, Refusal, Row,
    RowKind, Standing, Update, Verdict, Work,
};

use serde::{Deserialize, Serialize};

/// A moment: whole microseconds since the Unix epoch, UTC. The unit of stamps, event times and window bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Micros(pub i64);

impl Micros {
    /// Microseconds in a second.
    pub const PER_SECOND: i64 = 1_000_000;

    /// The moment `seconds` after the Unix epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Micros(seconds * Self::PER_SECOND)
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(Self::PER_SECOND)
    }

    /// The first whole second that is not before this moment.
    pub const fn seconds_up(self) -> i64 {
        -(-self.0).div_euclid(Self::PER_SECOND)
    }
}

/// The number of a group of journal entries under one stamp; the timestamp of the dataflow. Starts at 1.
pub type Epoch = u64;
