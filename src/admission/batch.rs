//! Many updates of one business in one request: an entry of the journal, one answer.
//!
//! In: updates of resolved series, in the order of the request (`Part`), gathered while its body is still being read. Out:
//! which of them were not admitted. Nobody is asked before the journal whether a limit would refuse one of them: the part
//! is written anyway.

use std::sync::Arc;
use std::time::Duration;

use dataflows::types::packed::{self, Item, Keyed, LoadChunk};
use dataflows::types::{Amount, EventId, Micros, Outcome};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::keys::{Keys, item_id};
use super::parse::events::Identity;
use super::{Admission, AdmissionError, hash128};
use crate::control::SeriesHandle;
use crate::engine::{BatchAnswer, BatchTicket, BatchUpdate, Ticket};
use crate::journal::{Append, Kind, Rejected};

/// How often a part looks for room in the journal's queue before it is given up, and how long it waits in between: the parts
/// before it have been taken, so that giving up at once would cut the batch in two for a moment's load.
const ROOM_TRIES: u32 = 100;
/// See `ROOM_TRIES`.
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// Updates that are journaled together.
#[derive(Default)]
pub struct Part {
    updates: Vec<BatchUpdate>,
}

/// A part that is being journaled. What became of it is heard and accounted for also if this is dropped: a client that has
/// gone away must not leave ids counted that nobody remembers.
pub struct Sent(JoinHandle<Result<NotAdmitted, AdmissionError>>);

/// The places in a part of updates that were not admitted, rising, and why. None of a chunk that had been applied before.
pub type NotAdmitted = Option<Vec<(u32, Outcome)>>;

/// Ids that are counted before it is known whether they will be remembered. Dropped, it takes them back.
struct Counted {
    keys: Arc<Keys>,
    business_id: String,
    at: Micros,
    ids: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.keys.uncount_ids(&self.business_id, self.at, self.ids);
    }
}

impl Sent {
    /// What became of it.
    pub async fn told(self) -> Result<NotAdmitted, AdmissionError> {
        // Its task ends otherwise only with the runtime.
        self.0.await.unwrap_or(Err(AdmissionError::Unknown))
    }
}

impl Part {
    /// Updates in it.
    pub fn len(&self) -> usize {
        self.updates.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// Adds an update. Its identity is the client's; without one, the place of the item under the request's key.
    pub fn push(
        &mut self,
        handle: &SeriesHandle,
        amount: Amount,
        event_at: Option<Micros>,
        id: Option<EventId>,
    ) {
        let item = Item { series: handle.series, event_at, amount, id };
        self.updates.push(BatchUpdate { item, slot: handle.slot });
    }

    fn has_id(&self) -> Vec<bool> {
        if self.updates.iter().all(|update| update.item.id.is_none()) {
            return Vec::new();
        }
        self.updates.iter().map(|update| update.item.id.is_some()).collect()
    }
}

/// The identity of an item of a batch: that of the client, else its place under the request's key, if it has one.
pub fn identify(
    handle: &SeriesHandle,
    id: Option<&Identity<'_>>,
    place: u32,
    key_hash: Option<u128>,
) -> Option<EventId> {
    let of_series = handle.series.0.to_le_bytes();
    let hash = match (id, key_hash) {
        (Some(Identity::Plain(id)), _) => hash128(b"event", &[&of_series, id.as_bytes()]),
        (Some(Identity::CloudEvent { source, id }), _) => {
            hash128(b"cloudevent", &[&of_series, source.as_bytes(), id.as_bytes()])
        }
        (None, Some(key_hash)) => item_id(key_hash, place),
        (None, None) => return None,
    };
    Some(EventId::new(hash, handle.series))
}

/// A chunk of a load of a business.
pub fn load_chunk(business_id: &str, load_id: &str, number: u32) -> LoadChunk {
    LoadChunk { load: hash128(b"load", &[business_id.as_bytes(), load_id.as_bytes()]), number }
}

impl Admission {
    /// Hands a part to the journal. Waits a second at most for room there.
    pub async fn send(
        &self,
        business_id: &str,
        part: Part,
        keyed: Option<Keyed>,
        chunk: Option<LoadChunk>,
    ) -> Result<Sent, AdmissionError> {
        let shared = &self.0;
        if shared.queries.resident_windows() > shared.options.resident_windows_max {
            return Err(AdmissionError::StoreBehind);
        }
        let (has_id, at) = (part.has_id(), self.now());
        let ids = has_id.iter().filter(|has_id| **has_id).count() as u64;
        if !shared.keys.count_ids(business_id, at, ids, shared.options.dedup_ids_max) {
            return Err(AdmissionError::DedupFull);
        }
        let counted = Counted { keys: shared.keys.clone(), business_id: business_id.to_owned(), at, ids };
        let mut bytes = Vec::with_capacity(64 + part.len() * 48);
        if let Some(chunk) = chunk {
            packed::pack_chunk(&mut bytes, chunk);
        }
        packed::pack(&mut bytes, keyed, part.updates.iter().map(|update| &update.item));
        let (reply, answer) = oneshot::channel();
        let companion = Ticket::Batch(BatchTicket { updates: part.updates, keyed, chunk, reply });
        let mut append = Append { kind: Kind::Updates, bytes, companion };
        for tries in 1.. {
            let rejected = match shared.journal.append(append) {
                Ok(()) => break,
                Err((back, Rejected::Full)) if tries < ROOM_TRIES => {
                    append = back;
                    tokio::time::sleep(ROOM_PAUSE).await;
                    continue;
                }
                Err((_, rejected)) => rejected,
            };
            return Err(rejected.into());
        }
        Ok(Sent(tokio::spawn(hear(answer, has_id, counted))))
    }

    /// Whether a chunk has been applied, or its load would be one too many.
    pub fn check_chunk(&self, chunk: LoadChunk) -> Result<bool, AdmissionError> {
        if self.0.queries.is_full_for(chunk.load) {
            return Err(AdmissionError::TooManyLoads);
        }
        Ok(self.0.queries.has_chunk(chunk))
    }
}

/// Waits for what became of a part. `has_id`: by place in it, empty if no update has an id.
async fn hear(
    answer: oneshot::Receiver<BatchAnswer>,
    has_id: Vec<bool>,
    mut counted: Counted,
) -> Result<NotAdmitted, AdmissionError> {
    let Ok(told) = answer.await else {
        // A reply that was dropped: the journal failed with the part under way, and may have it.
        counted.ids = 0;
        return Err(AdmissionError::Unknown);
    };
    if let Ok(Some(told)) = &told {
        let forgotten = told.iter().filter(|(place, _)| has_id.get(*place as usize) == Some(&true)).count();
        counted.ids = forgotten as u64;
    }
    Ok(told?)
}
