//! Admission: the only door to the journal for updates.
//!
//! In: one update of a resolved series. It is checked against the clock, its identities are hashed, it is packed and
//! handed to the journal with a ticket; the answer is meter's decision, given behind the fsync. Nothing here decides what
//! a replay would have to decide again: age and caps are checked before the journal, repeats and limits in meter.
//!
//! The owner of a series with a `block` limit is asked before the journal whether it would refuse the update as things
//! stand. A refusal changes nothing, so that answer is as good as one behind the journal, and clients that go on sending
//! past their limit write nothing. Whatever is not refused there is decided in meter alone, where it may be refused yet.
//! Far below the limit nobody asks (`headroom`).
//! What this room does not do: parse bodies (`parse`), resolve names (`control`), or keep values.

mod batch;
mod headroom;
mod keys;
pub mod parse;
mod pressure;

use std::sync::Arc;

use dataflows::types::packed::{self, Item, Keyed};
use dataflows::types::{Amount, Decision, EventId, Held, Micros, Outcome, Refusal, SeriesState, Standing};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::clock::Stamps;
use crate::control::SeriesHandle;
use crate::control::slices::PeriodUsage;
use crate::engine::{Queries, Stopped, Ticket, UpdateTicket};
use crate::journal::{Append, Journal, Kind, Rejected};
use parse::events::Identity;

pub use batch::{Part, Sent, identify, load_chunk};
use keys::KeyState;
pub use keys::{Keys, key_hash};
pub use pressure::{Bounds, Permit};

/// How far ahead of the clock an event may be.
const AHEAD_MAX: i64 = 300 * Micros::PER_SECOND;
/// How long a client is told to wait for a new live period at most, in seconds.
pub const WAIT_MAX_SECS: u32 = 3_600;

/// One update on its way in.
pub struct UpdateRequest {
    /// The series.
    pub handle: SeriesHandle,
    /// Whether its limit may refuse the update: asked before it is journaled.
    pub blocks: bool,
    /// The amount.
    pub amount: Amount,
    /// The event time; none is the arrival.
    pub event_at: Option<Micros>,
    /// The event id as the client gave it.
    pub id: Option<Identity<'static>>,
    /// `Idempotency-Key` and a hash of the parsed request.
    pub key: Option<(String, u128)>,
    /// The hash of a repeated POST's body: an identity in a namespace of its own. Excludes `id`.
    pub post: Option<u128>,
}

/// What became of an update.
pub struct Updated {
    /// Meter's decision: admitted, or a repeat of what was.
    pub decision: Decision,
    /// Whether it is a repeat.
    pub is_duplicate: bool,
}

/// Why an update was not taken, or not answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AdmissionError {
    /// The series was deleted meanwhile.
    #[error("there is no such series")]
    Gone,
    /// The event is too old or too far ahead. The bounds are inclusive.
    #[error("the timestamp lies outside of what the series accepts")]
    OutOfRange {
        /// The oldest event time.
        oldest: Micros,
        /// The newest event time.
        newest: Micros,
    },
    /// It would pass a `block` limit; nothing was recorded.
    #[error("the update would pass the limit of the metric")]
    Refused(Box<Refused>),
    /// The live period of its event time is closed, so that the series' `block` limit cannot be held there.
    #[error("the timestamp lies in a period whose limit is not decided any more")]
    TooLate,
    /// The key was used with another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// As many loads are remembered as may be.
    #[error("too many loads are remembered: 10,000, each for 30 days behind its last chunk")]
    TooManyLoads,
    /// As many ids are remembered as may be.
    #[error("too many event ids are remembered")]
    DedupFull,
    /// Whether the timestamp is in range cannot be said now.
    #[error("the clock is in doubt")]
    ClockInDoubt,
    /// Too much is under way: try again later; nothing was written.
    #[error("the service is overloaded")]
    Overloaded,
    /// The service is stopping; nothing was written.
    #[error("the service is stopping")]
    Draining,
    /// Nothing was written.
    #[error("the disk is full")]
    DiskFull,
    /// The store lags so far behind that windows may not pile up further; nothing was written.
    #[error("the store is too far behind")]
    StoreBehind,
    /// It may or may not have been written.
    #[error("the journal failed")]
    Unknown,
}

/// What a refusal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The value of the live period of the event's time.
    pub value: Amount,
    /// The limit.
    pub limit: Amount,
    /// When that period ends; none if it never does, or has ended.
    pub resets_at: Option<Micros>,
    /// After how many seconds the same update would be taken, if that is within an hour.
    pub retry_after_secs: Option<u32>,
    /// The limit and the live period of now.
    pub held: Option<Held>,
    /// The value of that period.
    pub current: Amount,
    /// When it was refused.
    pub at: Micros,
}

impl From<Rejected> for AdmissionError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Full => AdmissionError::Overloaded,
            Rejected::Draining => AdmissionError::Draining,
            Rejected::DiskFull => AdmissionError::DiskFull,
            Rejected::Poisoned => AdmissionError::Unknown,
        }
    }
}

impl From<Stopped> for AdmissionError {
    fn from(_: Stopped) -> Self {
        AdmissionError::Draining
    }
}

/// What admission may let in.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionOptions {
    /// How much may be under way.
    pub bounds: Bounds,
    /// Ids that a business may have remembered.
    pub dedup_ids_max: u64,
    /// `max_event_age` of series that name none, in seconds.
    pub max_event_age_secs: u32,
    /// Resident windows beyond which new updates wait for the store to take some.
    pub resident_windows_max: u64,
}

/// The handle that routes hold. Cheap to clone.
#[derive(Clone)]
pub struct Admission(Arc<Shared>);

struct Shared {
    options: AdmissionOptions,
    journal: Journal<Ticket>,
    queries: Queries,
    stamps: Arc<Stamps>,
    keys: Arc<Keys>,
    pressure: Arc<pressure::Pressure>,
    headroom: headroom::Headroom,
}

/// Resident windows of one series: `SeriesState::windows` are whole rows, `merges` differences to stored ones.
pub struct ResidentWindows {
    /// Everything the owning worker remembers.
    pub state: SeriesState,
    /// The reading at that moment.
    pub standing: Standing,
}

impl Admission {
    /// A door to this journal.
    pub fn new(
        options: AdmissionOptions,
        journal: Journal<Ticket>,
        queries: Queries,
        stamps: Arc<Stamps>,
        keys: Arc<Keys>,
    ) -> Self {
        let pressure = pressure::Pressure::new(options.bounds);
        let headroom = headroom::Headroom::new();
        Admission(Arc::new(Shared { options, journal, queries, stamps, keys, pressure, headroom }))
    }

    /// Takes room for a request whose body is at most so large; asked before the body is read.
    pub fn reserve(&self, business_id: &Arc<str>, body_bytes: usize) -> Result<Permit, AdmissionError> {
        self.0.pressure.reserve(business_id, body_bytes)
    }

    /// The clock of readings.
    pub fn now(&self) -> Micros {
        self.0.stamps.now()
    }

    /// Records one update: answered when it is durable and decided.
    pub async fn update(&self, request: &UpdateRequest) -> Result<Updated, AdmissionError> {
        self.check_age(&request.handle, request.event_at, self.now(), false)?;
        let Some((key, fingerprint)) = &request.key else {
            return self.record(request, None).await;
        };
        let (keyed, _under_way) = self.begin(request.business_id(), key, *fingerprint).await?;
        self.record(request, Some(keyed)).await
    }

    /// Begins a request with a key; if the same is under way, behind it.
    pub async fn begin(
        &self,
        business_id: &str,
        key: &str,
        fingerprint: u128,
    ) -> Result<(Keyed, UnderWay<'_>), AdmissionError> {
        let key_hash = key_hash(business_id, key);
        let keyed = Keyed { key_hash, fingerprint };
        loop {
            match self.0.keys.begin(keyed, self.now()) {
                KeyState::Begun => break,
                KeyState::Reused => return Err(AdmissionError::KeyReused),
                KeyState::Wait(done) => {
                    let notified = done.notified();
                    // It may have finished between the look and the wait.
                    match self.0.keys.begin(keyed, self.now()) {
                        KeyState::Begun => break,
                        KeyState::Wait(same) if Arc::ptr_eq(&same, &done) => notified.await,
                        KeyState::Wait(_) | KeyState::Reused => {}
                    }
                }
            }
        }
        Ok((keyed, UnderWay { keys: &self.0.keys, key_hash }))
    }

    /// Whether an event of a series may be so old, or so far ahead.
    /// `is_loaded`: an event of a load may be of any age.
    pub fn check_age(
        &self,
        handle: &SeriesHandle,
        event_at: Option<Micros>,
        now: Micros,
        is_loaded: bool,
    ) -> Result<(), AdmissionError> {
        let Some(event_at) = event_at else { return Ok(()) };
        let age = i64::from(self.age_max_secs(handle)) * Micros::PER_SECOND;
        if age == 0 {
            // The event time is always the arrival.
            return Ok(());
        }
        let oldest = if is_loaded { Micros(0) } else { Micros(now.0 - age) };
        let newest = Micros(now.0 + AHEAD_MAX);
        if (oldest..=newest).contains(&event_at) {
            return Ok(());
        }
        let in_doubt = self.0.stamps.in_doubt();
        Err(if in_doubt {
            AdmissionError::ClockInDoubt
        } else {
            AdmissionError::OutOfRange { oldest, newest }
        })
    }

    fn age_max_secs(&self, handle: &SeriesHandle) -> u32 {
        handle.record.spec.max_event_age_secs.unwrap_or(self.0.options.max_event_age_secs)
    }

    async fn record(&self, request: &UpdateRequest, keyed: Option<Keyed>) -> Result<Updated, AdmissionError> {
        let id = request.event_id(keyed);
        let is_of_now = request.event_at.is_none();
        if request.blocks && !(is_of_now && self.0.headroom.is_wide(request.handle.series, request.amount)) {
            let (handle, now) = (&request.handle, self.now());
            let update = (request.event_at.unwrap_or(now), request.amount);
            if let Some(refused) = self.0.queries.refuse(handle, update, id, now).await? {
                return self.decided(request, refused);
            }
        }
        if self.0.queries.resident_windows() > self.0.options.resident_windows_max {
            return Err(AdmissionError::StoreBehind);
        }
        let counted_at = id.map(|_| self.now());
        if let Some(counted_at) = counted_at
            && !self.0.keys.count_ids(request.business_id(), counted_at, 1, self.0.options.dedup_ids_max)
        {
            return Err(AdmissionError::DedupFull);
        }
        let answer = self.append(request, keyed, id).await;
        let admitted = matches!(&answer, Ok(decision) if decision.outcome == Outcome::Admitted);
        let unknown = matches!(answer, Err(AdmissionError::Unknown));
        if let Some(counted_at) = counted_at
            && !admitted
            && !unknown
        {
            self.0.keys.uncount_ids(request.business_id(), counted_at, 1);
        }
        self.decided(request, answer?)
    }

    /// The answer to a decision.
    fn decided(&self, request: &UpdateRequest, decision: Decision) -> Result<Updated, AdmissionError> {
        if request.blocks {
            self.0.headroom.note(request.handle.series, &decision);
        }
        match (decision.outcome, decision.refusal) {
            (Outcome::Admitted, _) => Ok(Updated { decision, is_duplicate: false }),
            (Outcome::Duplicate, _) => Ok(Updated { decision, is_duplicate: true }),
            (Outcome::Gone, _) => Err(AdmissionError::Gone),
            (Outcome::TooLate, _) => Err(AdmissionError::TooLate),
            (Outcome::Refused, refusal) => {
                let refusal = refusal.expect("meter gives each refusal with its reason");
                // Sent again, an update without a timestamp of its own belongs to the period of then.
                let moves_on = request.event_at.is_none() || self.age_max_secs(&request.handle) == 0;
                let wait_secs = wait_secs(&refusal, decision.arrival).filter(|_| moves_on);
                Err(AdmissionError::Refused(Box::new(Refused {
                    value: refusal.value,
                    limit: refusal.limit,
                    resets_at: refusal.resets_at,
                    retry_after_secs: wait_secs,
                    held: decision.held,
                    current: decision.current,
                    at: decision.arrival,
                })))
            }
        }
    }

    async fn append(
        &self,
        request: &UpdateRequest,
        keyed: Option<Keyed>,
        id: Option<EventId>,
    ) -> Result<Decision, AdmissionError> {
        let UpdateRequest { ref handle, amount, event_at, .. } = *request;
        let item = Item { series: handle.series, event_at, amount, id };
        let mut bytes = Vec::with_capacity(64);
        packed::pack(&mut bytes, keyed, &[item]);
        let (reply, answer) = oneshot::channel();
        let ticket =
            UpdateTicket { series: handle.series, slot: handle.slot, event_at, amount, id, keyed, reply };
        let append = Append { kind: Kind::Updates, bytes, companion: Ticket::Update(ticket) };
        self.0.journal.append(append).map_err(|(_, rejected)| rejected)?;
        // A reply that was dropped: the journal failed with the update under way.
        Ok(answer.await.map_err(|_| AdmissionError::Unknown)??)
    }

    /// Readings as of now, one a handle; none for a series that has been deleted meanwhile.
    pub async fn read(&self, handles: &[SeriesHandle]) -> Result<Vec<Option<Standing>>, AdmissionError> {
        Ok(self.0.queries.standings(handles, self.now()).await?)
    }

    /// The live periods in memory, oldest first, one list a handle; none for a series that has been deleted meanwhile.
    pub async fn periods(
        &self,
        handles: &[SeriesHandle],
    ) -> Result<Vec<Option<Vec<PeriodUsage>>>, AdmissionError> {
        Ok(self.0.queries.periods(handles).await?)
    }

    /// The resident part of a series' history.
    pub async fn windows(&self, handle: &SeriesHandle) -> Result<ResidentWindows, AdmissionError> {
        let standing = self.read(std::slice::from_ref(handle)).await?.pop().flatten();
        let state = self.0.queries.state(handle).await?;
        let (standing, state) = (standing.ok_or(AdmissionError::Gone)?, state.ok_or(AdmissionError::Gone)?);
        Ok(ResidentWindows { state, standing })
    }
}

impl UpdateRequest {
    fn business_id(&self) -> &str {
        &self.handle.record.key.business_id
    }

    /// The identity that meter decides by. An id of the event's own comes before the key's.
    fn event_id(&self, keyed: Option<Keyed>) -> Option<EventId> {
        let series = self.handle.series;
        match (&self.id, self.post) {
            (None, Some(body_hash)) => {
                let hash = hash128(b"post", &[&series.0.to_le_bytes(), &body_hash.to_le_bytes()]);
                Some(EventId::new(hash, series))
            }
            // The first item of its request.
            (id, _) => identify(&self.handle, id.as_ref(), 0, keyed.map(|keyed| keyed.key_hash)),
        }
    }
}

/// After how many seconds an update of the same amount would be admitted, if waiting for a new live period helps and does
/// not take longer than an hour.
fn wait_secs(refusal: &Refusal, now: Micros) -> Option<u32> {
    let resets_at = refusal.resets_at.filter(|_| refusal.fits_anew)?;
    let secs = Micros(resets_at.0 - now.0).seconds_up();
    u32::try_from(secs).ok().filter(|secs| *secs <= WAIT_MAX_SECS)
}

/// 128 bits of BLAKE3 over a namespace and parts, each with its length before it.
fn hash128(namespace: &[u8], parts: &[&[u8]]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for part in std::iter::once(&namespace).chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}

/// A request with a key is under way as long as this lives: it ends also when the client goes away in the middle.
pub struct UnderWay<'a> {
    keys: &'a Keys,
    key_hash: u128,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.keys.finish(self.key_hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_to_wait_where_an_hour_at_most_helps() {
        let wait = |resets_at: Option<i64>, fits_anew| {
            let resets_at = resets_at.map(Micros);
            let refusal = Refusal { value: Amount::ZERO, limit: Amount::ZERO, resets_at, fits_anew };
            wait_secs(&refusal, Micros(0))
        };
        assert_eq!(wait(Some(1), true), Some(1), "rounded up");
        assert_eq!(wait(Some(3_600 * Micros::PER_SECOND), true), Some(3_600));
        assert_eq!(wait(Some(3_600 * Micros::PER_SECOND + 1), true), None, "too long");
        assert_eq!(wait(Some(1), false), None, "the amount alone passes the limit");
        assert_eq!(wait(None, true), None, "no period ends");
    }
}
