//! What the registry gives out: series as requests hold them, customers with what is known of them, and which series a list
//! shows.

use std::sync::Arc;

use dataflows::types::{Customer, CustomerDetails, Definition, Scope, SeriesId, SeriesRecord};

/// A live series as requests hold it: who it is and where it lives. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SeriesHandle {
    /// Its number.
    pub series: SeriesId,
    /// Where the owning worker keeps it.
    pub slot: u32,
    /// Its name and description, as of the look-up.
    pub record: Arc<SeriesRecord>,
}

/// A customer and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerRecord {
    /// Who it is.
    pub customer: Customer,
    /// What else is known.
    pub details: CustomerDetails,
    /// The plan that it was put on.
    pub plan_id: Option<String>,
}

impl CustomerRecord {
    /// The definitions that make it.
    pub fn export(&self) -> Vec<Definition> {
        let Customer { business_id, customer_id, .. } = self.customer.clone();
        let mut definitions = vec![Definition::CustomerPut(self.customer.clone())];
        if self.details != CustomerDetails::default() {
            let details = self.details.clone();
            let (business_id, customer_id) = (business_id.clone(), customer_id.clone());
            definitions.push(Definition::CustomerDescribed { business_id, customer_id, details });
        }
        let planned = self.plan_id.clone().map(|plan_id| Definition::CustomerPlanned {
            business_id,
            customer_id,
            plan_id: Some(plan_id),
        });
        definitions.extend(planned);
        definitions
    }
}

/// Which series of a business a list shows.
#[derive(Clone, Debug, Default)]
pub struct SeriesFilter {
    /// The business.
    pub business_id: String,
    /// Only series of this scope.
    pub scope: Option<Scope>,
    /// Only series of this customer.
    pub customer_id: Option<String>,
    /// Only series of this name.
    pub metric_name: Option<String>,
    /// Only series with this tag.
    pub tag: Option<(String, String)>,
}

impl SeriesFilter {
    pub(super) fn shows(&self, record: &SeriesRecord) -> bool {
        let key = &record.key;
        self.scope.is_none_or(|scope| scope == key.scope())
            && self.customer_id.as_ref().is_none_or(|id| key.customer_id.as_ref() == Some(id))
            && self.metric_name.as_ref().is_none_or(|name| &key.metric_name == name)
            && self.tag.as_ref().is_none_or(|(name, value)| record.spec.tags.get(name) == Some(value))
    }
}
