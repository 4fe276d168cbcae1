//! What admission remembers of identities: `Idempotency-Key`s with the fingerprint of their request, and how many event
//! ids each business has remembered. Both in generations of an eighth of `dedup_horizon`, like meter's ids.
//!
//! The table of keys only answers "the same key with another request" and makes a concurrent repeat wait; whether an
//! update is a repeat is meter's decision. It is filled by the router behind the fsync and by the replay, so it holds
//! what the journal holds. Cost: about 60 bytes a key, 9 counters a business.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataflows::types::packed::Keyed;
use dataflows::types::{Micros, SeriesId};
use tokio::sync::Notify;

use super::hash128;
use crate::control::Control;
use crate::engine::Ledger;

/// Generations in a horizon.
const GENERATIONS: i64 = 8;

/// The tables. Shared by admission and the engine.
pub struct Keys {
    generation_micros: i64,
    tables: Mutex<Tables>,
    /// Finds the business of a series, for ids that come back at a start.
    control: std::sync::OnceLock<Control>,
}

/// Fingerprint and stamp by key hash.
type Fingerprints = HashMap<u128, (u128, Micros)>;

#[derive(Default)]
struct Tables {
    /// By generation, newest last.
    keys: VecDeque<(i64, Fingerprints)>,
    /// Requests under way by key hash.
    under_way: HashMap<u128, (u128, Arc<Notify>)>,
    /// Remembered ids by business and generation, oldest first.
    ids: HashMap<String, VecDeque<(i64, u64)>>,
    /// Ids that came back before the registry was at hand.
    early: Vec<(SeriesId, i64)>,
}

/// What a key means for a request that carries it.
pub(super) enum KeyState {
    /// Nobody has it: the request goes on, and ends with `finish`.
    Begun,
    /// It belongs to another request.
    Reused,
    /// The same request is under way: wait, then ask again.
    Wait(Arc<Notify>),
}

impl Keys {
    /// Empty tables.
    pub fn new(dedup_horizon_secs: u32) -> Self {
        let generation_micros = i64::from(dedup_horizon_secs) * Micros::PER_SECOND / GENERATIONS;
        Keys { generation_micros, tables: Mutex::default(), control: std::sync::OnceLock::new() }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation(&self, at: Micros) -> i64 {
        at.0.div_euclid(self.generation_micros)
    }

    /// Counts what came back at the start, now that the registry can say whose it is.
    pub fn recovered(&self, control: Control) {
        let early = std::mem::take(&mut self.tables().early);
        let control = self.control.get_or_init(|| control);
        let registry = control.registry();
        let mut tables = self.tables();
        for (series, generation) in early {
            if let Some(handle) = registry.by_id(series) {
                tables.count(&handle.record.key.business_id, generation, 1);
            }
        }
    }

    /// Begins a request with a key.
    pub(super) fn begin(&self, keyed: Keyed, now: Micros) -> KeyState {
        let oldest = self.generation(now) - GENERATIONS;
        let mut tables = self.tables();
        while tables.keys.front().is_some_and(|(generation, _)| *generation < oldest) {
            tables.keys.pop_front();
        }
        let known = tables.keys.iter().rev().find_map(|(_, keys)| keys.get(&keyed.key_hash));
        if known.is_some_and(|(fingerprint, _)| *fingerprint != keyed.fingerprint) {
            return KeyState::Reused;
        }
        match tables.under_way.get(&keyed.key_hash) {
            Some((fingerprint, _)) if *fingerprint != keyed.fingerprint => KeyState::Reused,
            Some((_, done)) => KeyState::Wait(done.clone()),
            None => {
                tables.under_way.insert(keyed.key_hash, (keyed.fingerprint, Arc::new(Notify::new())));
                KeyState::Begun
            }
        }
    }

    /// The request of a key is no longer under way.
    pub(super) fn finish(&self, key_hash: u128) {
        if let Some((_, done)) = self.tables().under_way.remove(&key_hash) {
            done.notify_waiters();
        }
    }

    /// Counts ids that are about to be remembered, all or none; false beyond the cap. `uncount_ids` takes them back.
    pub(super) fn count_ids(&self, business_id: &str, now: Micros, ids: u64, ids_max: u64) -> bool {
        if ids == 0 {
            return true;
        }
        let generation = self.generation(now);
        let mut tables = self.tables();
        if let Some(counts) = tables.ids.get_mut(business_id) {
            while counts.front().is_some_and(|(counted, _)| *counted < generation - GENERATIONS) {
                counts.pop_front();
            }
            if counts.iter().map(|(_, count)| count).sum::<u64>() + ids > ids_max {
                return false;
            }
        } else if ids > ids_max {
            return false;
        }
        tables.count(business_id, generation, ids as i64);
        true
    }

    /// So many ids were not remembered after all.
    pub(super) fn uncount_ids(&self, business_id: &str, counted_at: Micros, ids: u64) {
        if ids > 0 {
            let generation = self.generation(counted_at);
            self.tables().count(business_id, generation, -(ids as i64));
        }
    }
}

/// The identity of an update without one of its own: its place in a request with a key.
pub(super) fn item_id(key_hash: u128, place: u32) -> u128 {
    hash128(b"item", &[&key_hash.to_le_bytes(), &u64::from(place).to_le_bytes()])
}

/// What a key of a business is remembered by.
pub fn key_hash(business_id: &str, key: &str) -> u128 {
    hash128(b"key", &[business_id.as_bytes(), key.as_bytes()])
}

impl Tables {
    fn count(&mut self, business_id: &str, generation: i64, change: i64) {
        let counts = match self.ids.get_mut(business_id) {
            Some(counts) => counts,
            None => self.ids.entry(business_id.to_owned()).or_default(),
        };
        match counts.iter_mut().find(|(counted, _)| *counted == generation) {
            Some((_, count)) => *count = count.saturating_add_signed(change),
            None => counts.push_back((generation, u64::try_from(change).unwrap_or(0))),
        }
    }
}

impl Ledger for Keys {
    fn keyed(&self, keyed: Keyed, stamp: Micros) {
        let generation = self.generation(stamp);
        let mut tables = self.tables();
        if tables.keys.back().is_none_or(|(newest, _)| *newest < generation) {
            tables.keys.push_back((generation, HashMap::new()));
        }
        if let Some((_, keys)) = tables.keys.back_mut() {
            keys.insert(keyed.key_hash, (keyed.fingerprint, stamp));
        }
    }

    fn remembered(&self, series: SeriesId, generation: u64) {
        self.tables().early.push((series, generation as i64));
    }

    fn keys(&self) -> Vec<(Keyed, Micros)> {
        let tables = self.tables();
        let all = tables.keys.iter().flat_map(|(_, keys)| keys);
        all.map(|(&key_hash, &(fingerprint, stamp))| (Keyed { key_hash, fingerprint }, stamp)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYED: Keyed = Keyed { key_hash: 1, fingerprint: 2 };

    #[test]
    fn a_key_belongs_to_one_request() {
        let keys = Keys::new(80);
        assert!(matches!(keys.begin(KEYED, Micros(0)), KeyState::Begun));
        assert!(matches!(keys.begin(KEYED, Micros(0)), KeyState::Wait(_)));
        assert!(matches!(keys.begin(Keyed { fingerprint: 3, ..KEYED }, Micros(0)), KeyState::Reused));
        keys.keyed(KEYED, Micros(0));
        keys.finish(1);
        assert!(matches!(keys.begin(Keyed { fingerprint: 3, ..KEYED }, Micros(0)), KeyState::Reused));
        assert!(matches!(keys.begin(KEYED, Micros(0)), KeyState::Begun), "meter will say: a duplicate");
    }

    #[test]
    fn a_key_is_forgotten_behind_the_horizon() {
        let keys = Keys::new(80);
        keys.keyed(KEYED, Micros(0));
        let other = Keyed { fingerprint: 3, ..KEYED };
        assert!(matches!(keys.begin(other, Micros::from_seconds(89)), KeyState::Reused));
        assert!(matches!(keys.begin(other, Micros::from_seconds(90)), KeyState::Begun));
    }

    #[test]
    fn ids_are_capped_per_business_until_the_oldest_are_forgotten() {
        let keys = Keys::new(80);
        assert!(keys.count_ids("a", Micros(0), 1, 2) && keys.count_ids("a", Micros::from_seconds(10), 1, 2));
        assert!(!keys.count_ids("a", Micros::from_seconds(89), 1, 2));
        assert!(keys.count_ids("b", Micros::from_seconds(89), 1, 2));
        assert!(keys.count_ids("a", Micros::from_seconds(90), 1, 2));
        keys.uncount_ids("a", Micros::from_seconds(90), 1);
        assert!(keys.count_ids("a", Micros::from_seconds(90), 1, 2));
        assert!(!keys.count_ids("c", Micros(0), 3, 2), "all or none");
        assert!(keys.count_ids("c", Micros(0), 2, 2) && keys.count_ids("c", Micros(0), 0, 2));
    }
}
