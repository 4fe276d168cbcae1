//! From items to parts of the journal: names become series, ages are checked, repeats get an identity.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::mem;

use dataflows::types::packed::{Keyed, LoadChunk};
use dataflows::types::{Amount, Micros};

use super::super::error::ApiError;
use super::super::{Call, Rooms};
use super::tally::Tally;
use crate::admission::parse::events::{Event, Identity, Rejection};
use crate::admission::{Part, Sent, identify, key_hash};
use crate::control::{Origin, Registry, SeriesHandle};

/// Items that are journaled together, at least: what a sync costs is small beside them.
const PART_ITEMS: usize = 4_096;
/// Parts that are being synced while the next one is read.
const PARTS_UNDER_WAY: usize = 2;

/// How items become parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathers {
    /// As they come.
    Parts,
    /// All at the end.
    Whole,
}

/// What has been read of a batch.
pub struct Intake<'a> {
    rooms: &'a Rooms,
    business_id: &'a str,
    origin: Origin,
    now: Micros,
    gathers: Gathers,
    is_atomic: bool,
    key: Option<Key>,
    chunk: Option<LoadChunk>,
    part: Part,
    /// By place in the part: the place in the batch.
    places: Vec<u32>,
    /// Items without a series, to be made from templates.
    missing: Vec<Missing>,
    under_way: VecDeque<(Sent, Vec<u32>)>,
    tally: Tally,
    /// The service could not take a part: what comes behind it is not taken either.
    is_stopped: bool,
}

/// An `Idempotency-Key`, and what the request has turned out to be so far.
struct Key {
    text: String,
    hash: u128,
    fingerprint: blake3::Hasher,
}

struct Missing {
    place: u32,
    metric_name: String,
    customer_id: String,
    amount: Amount,
    event_at: Option<Micros>,
    id: Option<Identity<'static>>,
}

impl<'a> Intake<'a> {
    /// Nothing yet.
    pub fn new(
        rooms: &'a Rooms,
        call: &'a Call<'_>,
        gathers: Gathers,
        is_atomic: bool,
        wants_all: bool,
        (key, chunk): (Option<String>, Option<LoadChunk>),
    ) -> Self {
        let business_id = &*call.caller().business_id;
        let key = key.map(|text| Key {
            hash: key_hash(business_id, &text),
            text,
            fingerprint: blake3::Hasher::new(),
        });
        Intake {
            rooms,
            business_id,
            origin: call.origin(),
            now: rooms.admission.now(),
            gathers,
            is_atomic,
            key,
            chunk,
            part: Part::default(),
            places: Vec::new(),
            missing: Vec::new(),
            under_way: VecDeque::new(),
            tally: Tally::new(wants_all),
            is_stopped: false,
        }
    }

    /// Takes what `read` finds. The registry stands still meanwhile.
    pub fn take<R>(
        &mut self,
        read: impl FnOnce(&mut dyn FnMut(u32, Result<Event<'_>, Rejection>)) -> R,
    ) -> R {
        self.now = self.rooms.admission.now();
        let registry = self.rooms.control.registry();
        read(&mut |place, event| self.item(&registry, place, event))
    }

    /// Takes the only item of a request.
    pub fn take_one(&mut self, event: Result<Event<'_>, Rejection>) {
        self.take(|sink| sink(0, event));
    }

    fn item(&mut self, registry: &Registry, place: u32, event: Result<Event<'_>, Rejection>) {
        self.tally.seen(place);
        if let Some(key) = &mut self.key {
            key.add(place, &event);
        }
        let event = match event {
            Ok(event) => event,
            Err(rejection) => return self.tally.reject(place, rejection.into()),
        };
        let customer_id = event.customer_id.as_deref();
        match (registry.find(self.business_id, customer_id, &event.metric_name), customer_id) {
            (Some(handle), _) => self.place(handle, place, event.amount, event.event_at, event.id.as_ref()),
            (None, None) => {
                let error = ApiError::not_found("metric_not_found", "there is no such metric");
                self.tally.reject(place, error);
            }
            (None, Some(customer_id)) => self.missing.push(Missing {
                place,
                metric_name: event.metric_name.to_string(),
                customer_id: customer_id.to_owned(),
                amount: event.amount,
                event_at: event.event_at,
                id: event.id.map(owned),
            }),
        }
    }

    fn place(
        &mut self,
        handle: &SeriesHandle,
        place: u32,
        amount: Amount,
        event_at: Option<Micros>,
        id: Option<&Identity<'_>>,
    ) {
        if let Err(error) = self.rooms.admission.check_age(handle, event_at, self.now, self.chunk.is_some()) {
            return self.tally.reject(place, error.into());
        }
        let id = identify(handle, id, place, self.key.as_ref().map(|key| key.hash));
        self.part.push(handle, amount, event_at, id);
        self.places.push(place);
    }

    /// Makes the series that are missing, and hands on what is enough for a part.
    pub async fn advance(&mut self) -> Result<(), ApiError> {
        self.make_missing().await;
        if self.gathers == Gathers::Parts && self.part.len() >= PART_ITEMS {
            self.send(None).await?;
        }
        Ok(())
    }

    async fn make_missing(&mut self) {
        let missing = mem::take(&mut self.missing);
        if missing.is_empty() {
            return;
        }
        let names: Vec<_> = missing.iter().map(|it| (&*it.metric_name, &*it.customer_id)).collect();
        let edits = self.rooms.control.by(self.origin.clone());
        let made = edits.create_from_template(self.business_id, &names).await;
        for (item, made) in missing.iter().zip(made) {
            match made {
                Ok(handle) => self.place(&handle, item.place, item.amount, item.event_at, item.id.as_ref()),
                Err(error) => self.tally.reject(item.place, error.into()),
            }
        }
    }

    async fn send(&mut self, keyed: Option<Keyed>) -> Result<(), ApiError> {
        let (part, places) = (mem::take(&mut self.part), mem::take(&mut self.places));
        if part.is_empty() {
            return Ok(());
        }
        self.is_stopped = true;
        if self.under_way.len() == PARTS_UNDER_WAY {
            self.settle().await?;
        }
        let first = places.iter().copied().min().unwrap_or_default();
        let sent = self.rooms.admission.send(self.business_id, part, keyed, self.chunk).await;
        let sent = sent.inspect_err(|_| self.tally.stop_at(first))?;
        self.under_way.push_back((sent, places));
        self.is_stopped = false;
        Ok(())
    }

    /// Hears what became of the oldest part.
    async fn settle(&mut self) -> Result<(), ApiError> {
        let Some((sent, places)) = self.under_way.pop_front() else { return Ok(()) };
        let told = self.rooms.admission.told(self.business_id, sent).await?;
        match told {
            Some(told) => self.tally.decided(&places, &told),
            None => self.tally.repeated(),
        }
        Ok(())
    }

    /// The batch has been read, or could not be read on.
    pub async fn finish(mut self, read: Result<(), ApiError>) -> Result<Tally, ApiError> {
        if self.gathers == Gathers::Whole {
            read?;
            if self.is_atomic {
                self.tally.all_or_none()?;
            }
            return self.finish_whole().await;
        }
        // What was read before the body broke off counts.
        let ended = if self.is_stopped { read } else { self.send(None).await.and(read) };
        let mut settled = Ok(());
        while !self.under_way.is_empty() {
            settled = settled.and(self.settle().await);
        }
        settled?;
        ended.map_err(|error| self.tally.broken(error))?;
        Ok(self.tally)
    }

    async fn finish_whole(mut self) -> Result<Tally, ApiError> {
        let admission = &self.rooms.admission;
        if let Some(chunk) = self.chunk
            && admission.check_chunk(chunk)?
        {
            self.tally.repeated();
            return Ok(self.tally);
        }
        let (mut keyed, mut _under_way) = (None, None);
        if let Some(key) = self.key.take() {
            let (begun, guard) = admission.begin(self.business_id, &key.text, key.fingerprint()).await?;
            (keyed, _under_way) = (Some(begun), Some(guard));
        }
        self.send(keyed).await?;
        self.settle().await?;
        Ok(self.tally)
    }
}

fn owned(id: Identity<'_>) -> Identity<'static> {
    let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
    match id {
        Identity::Plain(id) => Identity::Plain(owned(id)),
        Identity::CloudEvent { source, id } => Identity::CloudEvent { source: owned(source), id: owned(id) },
    }
}

impl Key {
    /// What makes two batches the same: their items, by what they say and not how they are written.
    fn add(&mut self, place: u32, event: &Result<Event<'_>, Rejection>) {
        let hasher = &mut self.fingerprint;
        hasher.update(&place.to_le_bytes());
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        match event {
            Err(rejection) => text(rejection.code),
            Ok(event) => {
                text(&event.metric_name);
                text(event.customer_id.as_deref().unwrap_or_default());
                match &event.id {
                    None => text(""),
                    Some(Identity::Plain(id)) => text(id),
                    Some(Identity::CloudEvent { source, id }) => {
                        text(source);
                        text(id);
                    }
                }
                hasher.update(&event.amount.0.to_le_bytes());
                hasher.update(&event.event_at.map_or(i64::MIN, |at| at.0).to_le_bytes());
            }
        }
    }

    fn fingerprint(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fingerprint.finalize_xof().fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}
