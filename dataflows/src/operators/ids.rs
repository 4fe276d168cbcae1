//! The ids of admitted events, remembered for the dedup horizon of arrival time.
//!
//! Time is cut into *generations* of an eighth of the horizon; an id inserted in generation g is remembered while
//! `now - g <= 8`, so for at least the horizon. What is remembered is decided at the lookup, from stamps alone; the
//! sweep only gives memory back, one shard an epoch.
//!
//! ```text
//! shard = the id's bits 120-127 │ one hash set of entries: 16 bytes of id, 2 bytes of generation, 1 byte of control
//! ```
//! A set is between 7/16 and 7/8 full, so an id costs 22 to 44 bytes; 256 shards grow one at a time, without a pause.
//!
//! A snapshot walks the shards while updates go on: what is inserted meanwhile goes to an overlay.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use foldhash::fast::FixedState;

use crate::types::{EventId, Micros};

const SHARDS: usize = 256;
/// Generations in a horizon.
const GENERATIONS: i64 = 8;

/// An id and the generation that it was inserted in. Equal when the ids are.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: [u8; 16],
    /// The lower 16 bits: the sweep comes round long before they repeat.
    generation: [u8; 2],
}

impl Entry {
    fn new(generation: u64, id: EventId) -> Entry {
        Entry { id: id.0.to_le_bytes(), generation: (generation as u16).to_le_bytes() }
    }

    /// Whether the id still counts in generation `now`. A clock that went back makes the age negative.
    fn is_remembered(&self, now: u64) -> bool {
        self.age(now) <= GENERATIONS
    }

    fn age(&self, now: u64) -> i64 {
        i64::from((now as u16).wrapping_sub(u16::from_le_bytes(self.generation)) as i16)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.id == other.id
    }
}

impl Eq for Entry {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_le_bytes(self.id));
    }
}

type Shard = HashSet<Entry, FixedState>;

/// The remembered ids of one worker.
pub(crate) struct Ids {
    shards: Vec<Shard>,
    generation_micros: i64,
    /// The generation of the last epoch.
    now: u64,
    /// The next shard to sweep, in a circle: a change of generation must not send it back to the first.
    sweep: usize,
    /// How many shards may still hold something to sweep.
    unswept: usize,
    /// While a snapshot walks: the shards it has yet to see, and what was inserted since it began.
    walk: Option<Walk>,
}

#[derive(Default)]
struct Walk {
    /// The generation in which it began.
    began: u64,
    next: usize,
    /// Whether what is in the shards only matters to the walk.
    is_all_forgotten: bool,
    overlay: Shard,
    ids: Vec<(u64, EventId)>,
}

impl Ids {
    /// No ids. The horizon is in seconds and at least 1.
    pub fn new(horizon_secs: u32) -> Ids {
        let horizon_micros = i64::from(horizon_secs.max(1)) * Micros::PER_SECOND;
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Ids {
            shards,
            generation_micros: horizon_micros / GENERATIONS,
            now: 0,
            sweep: 0,
            unswept: 0,
            walk: None,
        }
    }

    /// An epoch begins: fixes the generation, and sweeps a little if there is something to sweep.
    pub fn advance(&mut self, arrival: Micros) {
        let generation = arrival.0.div_euclid(self.generation_micros).max(0) as u64;
        if generation != self.now {
            if generation > self.now + GENERATIONS as u64 {
                self.forget_all();
            }
            (self.now, self.unswept) = (generation, SHARDS);
        }
        if self.unswept > 0 && self.walk.is_none() {
            let shard = &mut self.shards[self.sweep];
            shard.retain(|entry| entry.is_remembered(generation));
            if shard.capacity() > 4 * shard.len() {
                shard.shrink_to_fit();
            }
            self.sweep = (self.sweep + 1) % SHARDS;
            self.unswept -= 1;
        }
    }

    /// Nothing is remembered any more, and 16 bits of generation must not come round to say otherwise.
    fn forget_all(&mut self) {
        match &mut self.walk {
            Some(walk) => (walk.overlay, walk.is_all_forgotten) = (Shard::default(), true),
            None => self.shards.iter_mut().for_each(|shard| *shard = Shard::default()),
        }
    }

    /// Remembers an id; false if it already was.
    pub fn insert(&mut self, id: EventId) -> bool {
        let entry = Entry::new(self.now, id);
        if self.walk.is_some() && self.contains(id) {
            return false;
        }
        if let Some(walk) = &mut self.walk {
            walk.overlay.replace(entry);
            return true;
        }
        let shard = &mut self.shards[shard_of(id)];
        match shard.replace(entry) {
            Some(known) if known.is_remembered(self.now) => {
                shard.replace(known);
                false
            }
            _ => true,
        }
    }

    /// Whether an id is remembered.
    pub fn contains(&self, id: EventId) -> bool {
        let (entry, shard) = (Entry::new(self.now, id), &self.shards[shard_of(id)]);
        let known = match &self.walk {
            Some(walk) => {
                walk.overlay.get(&entry).or_else(|| shard.get(&entry).filter(|_| !walk.is_all_forgotten))
            }
            None => shard.get(&entry),
        };
        known.is_some_and(|known| known.is_remembered(self.now))
    }

    /// Puts back an id of a snapshot.
    pub fn restore(&mut self, generation: u64, id: EventId) {
        self.now = self.now.max(generation);
        self.shards[shard_of(id)].replace(Entry::new(generation, id));
    }

    /// Number of ids in memory.
    pub fn len(&self) -> usize {
        let overlay = self.walk.as_ref().map_or(0, |walk| walk.overlay.len());
        self.shards.iter().map(Shard::len).sum::<usize>() + overlay
    }

    /// Memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.capacity() * 8 / 7 * (size_of::<Entry>() + 1)).sum()
    }

    /// A snapshot begins: it sees the ids of now.
    pub fn begin_walk(&mut self) {
        self.end_walk();
        self.walk = Some(Walk { began: self.now, ..Walk::default() });
    }

    /// Shows the snapshot one more shard, grouped by generation; true when it has seen all.
    pub fn walk(&mut self, each: &mut dyn FnMut(u64, &[EventId])) -> bool {
        let Some(walk) = &mut self.walk else { return true };
        if walk.next < SHARDS {
            walk.ids.clear();
            for entry in &self.shards[walk.next] {
                let generation = walk.began.saturating_add_signed(-entry.age(walk.began));
                walk.ids.push((generation, EventId(u128::from_le_bytes(entry.id))));
            }
            walk.ids.sort_unstable();
            let mut group = Vec::new();
            for same in walk.ids.chunk_by(|a, b| a.0 == b.0) {
                group.clear();
                group.extend(same.iter().map(|&(_, id)| id));
                each(same[0].0, &group);
            }
            walk.next += 1;
        }
        if walk.next < SHARDS {
            return false;
        }
        self.end_walk();
        true
    }

    fn end_walk(&mut self) {
        let Some(walk) = self.walk.take() else { return };
        if walk.is_all_forgotten {
            self.forget_all();
        }
        for entry in walk.overlay {
            self.shards[shard_of(EventId(u128::from_le_bytes(entry.id)))].replace(entry);
        }
    }
}

fn shard_of(id: EventId) -> usize {
    (id.0 >> 120) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SeriesId;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const HORIZON_SECS: u32 = 80;

    fn id(number: u8) -> EventId {
        EventId::new(u128::from(number) << 120 | u128::from(number) << 40, SeriesId(7))
    }

    #[test]
    fn an_id_is_remembered_for_the_horizon_and_then_forgotten() {
        let mut ids = Ids::new(HORIZON_SECS);
        ids.advance(Micros::from_seconds(9));
        assert!(ids.insert(id(1)));
        ids.advance(Micros::from_seconds(89));
        assert!(!ids.insert(id(1)));
        ids.advance(Micros::from_seconds(90));
        assert!(ids.insert(id(1)));
        assert!(!ids.insert(id(1)));
    }

    #[test]
    fn the_sweep_gives_memory_back() {
        let mut ids = Ids::new(HORIZON_SECS);
        ids.advance(Micros::from_seconds(0));
        (0..=255).for_each(|number| assert!(ids.insert(id(number))));
        assert_eq!(ids.len(), 256);
        (0..SHARDS).for_each(|_| ids.advance(Micros::from_seconds(90)));
        assert_eq!(ids.len(), 0);
    }

    #[test]
    fn an_id_stays_forgotten_when_generations_come_round() {
        let mut ids = Ids::new(HORIZON_SECS);
        ids.advance(Micros::from_seconds(0));
        assert!(ids.insert(id(255)));
        ids.advance(Micros::from_seconds(10 * 0x10000));
        assert!(ids.insert(id(255)));
    }

    #[test]
    fn the_sweep_gives_memory_back_though_each_epoch_is_a_new_generation() {
        let mut ids = Ids::new(HORIZON_SECS);
        for number in 0..=255 {
            ids.advance(Micros::from_seconds(10 * i64::from(number)));
            assert!(ids.insert(id(number)));
        }
        (256..600).for_each(|number| ids.advance(Micros::from_seconds(10 * number)));
        assert_eq!(ids.len(), 0);
    }

    proptest! {
        #[test]
        fn decisions_are_those_of_a_list_also_during_a_walk(
            steps in proptest::collection::vec((0i64..30, 0u8..20, 0u8..4), 1..200),
        ) {
            let mut ids = Ids::new(HORIZON_SECS);
            let mut model: BTreeMap<EventId, i64> = BTreeMap::new();
            let mut seconds = 0;
            for (pause, number, action) in steps {
                seconds += pause;
                let now = seconds / 10;
                ids.advance(Micros::from_seconds(seconds));
                match action {
                    0 => {
                        ids.begin_walk();
                        let mut seen = BTreeMap::new();
                        let mut kept = model.clone();
                        while !ids.walk(&mut |generation, group| {
                            seen.extend(group.iter().map(|&id| (id, generation as i64)));
                        }) {}
                        seen.retain(|_, generation| now - *generation <= 8);
                        kept.retain(|_, generation| now - *generation <= 8);
                        prop_assert_eq!(seen, kept);
                    }
                    1 => ids.begin_walk(),
                    _ => {
                        let is_new = model.get(&id(number)).is_none_or(|generation| now - generation > 8);
                        prop_assert_eq!(ids.contains(id(number)), !is_new);
                        if is_new {
                            model.insert(id(number), now);
                        }
                        prop_assert_eq!(ids.insert(id(number)), is_new);
                    }
                }
            }
        }
    }
}
