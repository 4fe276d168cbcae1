//! skeleton
pub mod parse;
use crate::control::SeriesHandle;
use dataflows::types::*;

#[derive(Clone)]
pub struct Admission {}

/// One update on its way in.
pub struct UpdateRequest {
    pub handle: SeriesHandle,
    pub amount: Amount,
    pub event_at: Option<Micros>,
    /// The event id as the client gave it.
    pub id: Option<String>,
    /// `Idempotency-Key` and a hash128 of the parsed request (method, series, body in canonical form).
    pub key: Option<(String, u128)>,
    /// An id in the namespace of repeated POSTs (body hash); excludes `id`.
    pub post: Option<u128>,
}

pub struct Updated {
    pub decision: Decision,
}

#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// 404: deleted meanwhile
    #[error("there is no such series")]
    Gone,
    /// 422 code `timestamp_out_of_range`; bounds inclusive
    #[error("the timestamp lies outside of {oldest:?}..{newest:?}")]
    OutOfRange { oldest: Micros, newest: Micros },
    /// 422 code `idempotency_key_reused`
    #[error("the key was used with another request")]
    KeyReused,
    /// 503 rejected, code `dedup_full`
    #[error("too many event ids are remembered")]
    DedupFull,
    /// 503 rejected, code `clock_in_doubt`
    #[error("the clock is in doubt")]
    ClockInDoubt,
    #[error("the service is overloaded")]
    Overloaded,
    #[error("the service is draining")]
    Draining,
    #[error("the disk is full")]
    DiskFull,
    /// 503 rejected, code `store_behind`
    #[error("the store is too far behind")]
    StoreBehind,
    /// 500 unknown
    #[error("the journal failed; the outcome is unknown")]
    Unknown,
}

impl Admission {
    pub async fn update(&self, _request: UpdateRequest) -> Result<Updated, AdmissionError> {
        unimplemented!()
    }
    /// Readings as of now, one a handle, from the owning workers; None: deleted meanwhile.
    pub async fn read(&self, _handles: &[SeriesHandle]) -> Result<Vec<Option<Standing>>, AdmissionError> {
        unimplemented!()
    }
    /// The resident part of a series' history, oldest first, and what has been emitted.
    pub async fn windows(&self, _handle: &SeriesHandle) -> Result<ResidentWindows, AdmissionError> {
        unimplemented!()
    }
    /// The service's clock (t of readings).
    pub fn now(&self) -> Micros {
        unimplemented!()
    }
    /// Whether a request may enter; asked before a body is read. In-flight bytes per business are bounded.
    pub fn reserve(&self, _business_id: &str, _body_bytes: usize) -> Result<Permit, AdmissionError> {
        unimplemented!()
    }
}
/// Held while a request is in flight.
pub struct Permit {}

/// Resident windows of one series. `SeriesState::windows` are absolute; `merges` are differences to stored rows.
pub struct ResidentWindows {
    pub state: SeriesState,
    pub standing: Standing,
}
