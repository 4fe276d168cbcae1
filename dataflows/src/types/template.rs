//! What customers' series are made of at their first event.

use serde::{Deserialize, Serialize};

use super::{Micros, SeriesSpec};

/// A description that a customer's series of this name begins with, unless it is there when its first event comes. What was
/// made from a template has nothing to do with it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Whose.
    pub business_id: String,
    /// The metric's name; a business has one template of a name.
    pub metric_name: String,
    /// What the series begins with.
    pub spec: SeriesSpec,
    /// Whether a customer that is not known is made along with its series.
    pub create_customers: bool,
    /// When the template was defined first.
    pub created_at: Micros,
}
