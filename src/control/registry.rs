//! skeleton
use dataflows::types::*;
use std::sync::Arc;

/// A live series as the routes hold it: who it is and where it lives. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SeriesHandle {
    pub series: SeriesId,
    pub slot: u32,
    pub record: Arc<SeriesRecord>,
}

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub business_id: Arc<str>,
    pub customer_id: Option<Arc<str>>,
    pub scopes: Scopes,
    pub key_name: Arc<str>,
}

/// Which series a list shows.
#[derive(Clone, Debug, Default)]
pub struct SeriesFilter {
    pub business_id: String,
    pub scope: Option<Scope>,
    pub customer_id: Option<String>,
    pub metric_name: Option<String>,
    pub tag: Option<(String, String)>,
}

pub struct Registry {}
