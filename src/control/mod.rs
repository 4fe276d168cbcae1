//! skeleton
mod registry;
use dataflows::types::*;
pub use registry::{Principal, Registry, SeriesFilter, SeriesHandle};
use std::sync::RwLockReadGuard;

#[derive(Clone)]
pub struct Control {}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// 404
    #[error("there is no such series")]
    NoSuchSeries,
    /// 404
    #[error("there is no such customer")]
    NoSuchCustomer,
    /// 409: operation, type or intervals of a series with updates
    #[error("{field} cannot be changed once the series has updates")]
    Fixed { field: &'static str },
    /// 503 rejected
    #[error("the service is overloaded")]
    Overloaded,
    #[error("the service is draining")]
    Draining,
    #[error("the disk is full")]
    DiskFull,
    /// 500 unknown
    #[error("the journal failed; the outcome is unknown")]
    Unknown,
}

/// What a POST found or made.
pub struct Created {
    pub handle: SeriesHandle,
    pub existed: bool,
}

impl Control {
    /// None: no such key, expired or revoked. Constant-time comparison of hashes inside.
    pub fn authenticate(&self, _key: &str) -> Option<Principal> {
        unimplemented!()
    }
    /// Constant time.
    pub fn is_admin(&self, _key: &str) -> bool {
        unimplemented!()
    }
    pub fn resolve(&self, _key: &SeriesKey) -> Option<SeriesHandle> {
        unimplemented!()
    }
    pub fn customer_exists(&self, _business_id: &str, _customer_id: &str) -> bool {
        unimplemented!()
    }
    /// If the name exists: `existed: true` with the existing definition, untouched.
    pub async fn create_series(&self, _key: SeriesKey, _spec: SeriesSpec) -> Result<Created, ControlError> {
        unimplemented!()
    }
    /// `change` gets the present spec and gives the new one.
    pub async fn change_series(
        &self,
        _key: &SeriesKey,
        _spec: SeriesSpec,
    ) -> Result<SeriesHandle, ControlError> {
        unimplemented!()
    }
    pub async fn delete_series(&self, _key: &SeriesKey) -> Result<(), ControlError> {
        unimplemented!()
    }
    /// Admin reset.
    pub async fn cut_series(&self, _key: &SeriesKey) -> Result<(), ControlError> {
        unimplemented!()
    }
    /// Whether a POST with this body hash has been recorded as an update of the series.
    pub fn post_recorded(&self, _series: SeriesId, _body_hash: u128) -> bool {
        unimplemented!()
    }
    pub async fn record_post(&self, _series: SeriesId, _body_hash: u128) -> Result<(), ControlError> {
        unimplemented!()
    }
    /// Series of one business in the order (scope, customer_id, metric_name), strictly after `after`, at most `limit`.
    pub fn list_series(
        &self,
        _filter: &SeriesFilter,
        _after: Option<&SeriesKey>,
        _limit: usize,
    ) -> Vec<SeriesHandle> {
        unimplemented!()
    }
    pub fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        unimplemented!()
    }
}
