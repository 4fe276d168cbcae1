//! The relations that limits are computed from, and what comes out (semantics, section 8).
//!
//! Names are numbers here: the registry gives one to each business, customer, plan, price and (business, metric) that a
//! fact speaks of. They never leave the process, so a number may be given again once no fact holds it.

use serde::{Deserialize, Serialize};

use super::{Amount, Limit, Micros, SeriesId};

/// Why a limit applies to a series, the most specific first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitSource {
    /// It is the series' own.
    #[default]
    Series,
    /// It is the one for its metric on the customer's effective plan.
    Plan,
    /// It is the business's default for its metric.
    Default,
}

/// Percentages of a limit at which a message is sent, besides the limit itself: rising, 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Notify([u16; Notify::MAX]);

impl Notify {
    /// Most percentages.
    pub const MAX: usize = 10;
    /// No percentages.
    pub const NONE: Notify = Notify([0; Notify::MAX]);

    /// The percentages, in any order. Admission takes no more than `MAX`; the greatest beyond that are left out.
    pub fn new(percentages: &[u16]) -> Notify {
        let mut sorted: Vec<u16> = percentages.iter().copied().filter(|&percent| percent > 0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut kept = [0; Notify::MAX];
        kept.iter_mut().zip(sorted).for_each(|(kept, percent)| *kept = percent);
        Notify(kept)
    }

    /// The percentages, rising.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.into_iter().filter(|&percent| percent > 0)
    }
}

/// The limit of a series, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EffectiveLimit {
    /// The limit.
    pub limit: Limit,
    /// Why it applies.
    pub source: LimitSource,
    /// Where else messages are sent.
    pub notify: Notify,
}

/// What changed limits did to series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    /// Series whose effective limit became another.
    pub series: u64,
    /// Those of them that were within their limit, or had none, and are past it now.
    pub breached: u64,
}

impl std::ops::AddAssign for Limited {
    fn add_assign(&mut self, other: Limited) {
        self.series += other.series;
        self.breached += other.breached;
    }
}

/// What a value has done to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Edge {
    /// It has come to a percentage of the limit that a message was asked for.
    Reached(u16),
    /// It was within the limit, and is breached.
    Breached,
    /// It was breached, and is within the limit.
    Recovered,
}

/// An edge, found where the value changed: by an update, or by another limit. A new live period begins anew and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Crossing {
    /// The series.
    pub series: SeriesId,
    /// First moment of the live period; none for one that has no beginning but the creation of the series.
    pub period_start: Option<Micros>,
    /// First moment behind it, if that is known.
    pub period_end: Option<Micros>,
    /// How many updates the period has had: with epoch, period and edge it tells the crossings of a series apart.
    pub count: u64,
    /// What has happened.
    pub edge: Edge,
    /// The value behind the edge.
    pub value: Amount,
    /// The limit behind it; none once the limit has gone.
    pub limit: Option<Limit>,
    /// The stamp of the entry.
    pub at: Micros,
}

/// A series and where its worker keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The series.
    pub series: SeriesId,
    /// Its slot.
    pub slot: u32,
}

/// One row of one relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fact {
    /// A series with a limit of its own.
    Own {
        /// Which.
        place: Place,
        /// The limit.
        limit: EffectiveLimit,
    },
    /// A customer's series without one: the plan's limit applies, else the default. A business's series has no row.
    Inherits {
        /// Which.
        place: Place,
        /// Whose.
        customer: u32,
        /// Its (business, metric).
        name: u32,
    },
    /// A customer: one row each.
    Customer {
        /// Which.
        customer: u32,
        /// Whose.
        business: u32,
        /// Whether its subscription has ended.
        lapsed: bool,
        /// The plan it was put on.
        plan: Option<u32>,
        /// Its (business, price).
        price: Option<u32>,
    },
    /// A plan: at most one without a price a business, one a price.
    Plan {
        /// Which.
        plan: u32,
        /// Whose.
        business: u32,
        /// Its (business, price); the free plan has none.
        price: Option<u32>,
    },
    /// A limit of a plan: at most one a name.
    PlanLimit {
        /// Whose.
        plan: u32,
        /// For which (business, metric).
        name: u32,
        /// The limit.
        limit: EffectiveLimit,
    },
    /// A limit for all customers of a business: at most one a name.
    Default {
        /// Whose.
        business: u32,
        /// For which (business, metric).
        name: u32,
        /// The limit.
        limit: EffectiveLimit,
    },
}
