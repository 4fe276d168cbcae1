//! From items to parts of the journal: names become series, ages are checked, repeats get an identity.

use std::collections::VecDeque;
use std::mem;

use dataflows::types::packed::{Keyed, LoadChunk};
use dataflows::types::{Amount, Micros};

use super::super::error::ApiError;
use super::super::{Call, Rooms};
use super::key::Key;
use super::stop::Stop;
use super::tally::Tally;
use crate::admission::parse::events::{Event, Identity, Rejection};
use crate::admission::{Part, Sent, identify};
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
    /// Parts, oldest first, with the places of their items.
    under_way: VecDeque<(Sent, Vec<u32>)>,
    tally: Tally,
    /// Nothing is sent behind a part that was not taken.
    stop: Stop,
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
        let key = key.map(|text| Key::new(business_id, text));
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
            stop: Stop::default(),
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

    fn item(&mut self, registry: &Registry, place: u32, event: Result<Event<'_>, Rejection>) {
        self.tally.seen(place);
        if let Some(key) = &mut self.key {
            key.add(place, event.as_ref());
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
                id: event.id.map(Identity::into_owned),
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
        let id = identify(handle, id, place, self.key.as_ref().map(Key::hash));
        self.part.push(handle, amount, event_at, id);
        self.places.push(place);
    }

    /// Makes the series that are missing, and hands on what is enough for a part. False if a part was not taken: reading on
    /// is of no use.
    pub async fn advance(&mut self) -> bool {
        self.make_missing().await;
        if self.gathers == Gathers::Parts && self.part.len() >= PART_ITEMS {
            self.send(None).await;
        }
        !self.stop.is_reached()
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

    /// Sends the part, unless one before it was not taken.
    async fn send(&mut self, keyed: Option<Keyed>) {
        let (part, places) = (mem::take(&mut self.part), mem::take(&mut self.places));
        if self.under_way.len() == PARTS_UNDER_WAY {
            self.settle().await;
        }
        if part.is_empty() || self.stop.is_reached() {
            return;
        }
        match self.rooms.admission.send(self.business_id, part, keyed, self.chunk).await {
            Ok(sent) => self.under_way.push_back((sent, places)),
            Err(error) => self.stop.fail(first(&places), error),
        }
    }

    /// Hears what became of the oldest part.
    async fn settle(&mut self) {
        let Some((sent, places)) = self.under_way.pop_front() else { return };
        match sent.told().await {
            Ok(Some(told)) => {
                self.tally.decided(&places, &told);
                self.stop.pass(first(&places));
            }
            Ok(None) => self.tally.repeated(),
            Err(error) => self.stop.fail(first(&places), error),
        }
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
        self.send(None).await;
        while !self.under_way.is_empty() {
            self.settle().await;
        }
        let ended = match self.stop.take() {
            None => read,
            Some((place, why)) => {
                self.tally.stop_at(place);
                Err(why.into())
            }
        };
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
            let (begun, guard) = admission.begin(self.business_id, key.text(), key.fingerprint()).await?;
            (keyed, _under_way) = (Some(begun), Some(guard));
        }
        self.send(keyed).await;
        self.settle().await;
        self.stop.take().map_or(Ok(self.tally), |(_, why)| Err(why.into()))
    }
}

/// The place of the first item of a part: those of series that were made for it stand at its end.
fn first(places: &[u32]) -> u32 {
    places.iter().copied().min().unwrap_or_default()
}
