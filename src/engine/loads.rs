//! Which chunks of which loads have been applied. Decided in the order of the journal, by the first run and by a replay alike:
//! the router asks before it hands a chunk on, whoever sent it twice.
//!
//! A load that nothing has come of for `KEPT` is forgotten. Cost: a range of chunks in a row is 8 bytes, a load about 80.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dataflows::types::Micros;
use dataflows::types::packed::LoadChunk;

/// How long a load is remembered after its last chunk.
const KEPT: i64 = 30 * 86_400 * Micros::PER_SECOND;
/// Loads that are remembered: beyond it no new one is begun.
pub const LOADS_MAX: usize = 10_000;

/// A load as a snapshot keeps it: hash, ranges of chunks, stamp of the last one.
pub(super) type Kept = (u128, Vec<(u32, u32)>, Micros);

/// The table.
#[derive(Default)]
pub(crate) struct Loads(Mutex<HashMap<u128, Load>>);

struct Load {
    /// First and last chunk of each range, rising, none next to another.
    ranges: Vec<(u32, u32)>,
    last_at: Micros,
}

impl Loads {
    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Load>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has been applied.
    pub(crate) fn has(&self, chunk: LoadChunk) -> bool {
        self.lock().get(&chunk.load).is_some_and(|load| load.place(chunk.number).is_ok())
    }

    /// Whether another load than those that are known would be one too many.
    pub(crate) fn is_full_for(&self, load: u128) -> bool {
        let loads = self.lock();
        loads.len() >= LOADS_MAX && !loads.contains_key(&load)
    }

    /// Applies it under this stamp; false if it has been before.
    pub(super) fn apply(&self, chunk: LoadChunk, stamp: Micros) -> bool {
        let mut loads = self.lock();
        if !loads.contains_key(&chunk.load) {
            loads.retain(|_, load| stamp.0 - load.last_at.0 < KEPT);
        }
        let load = loads.entry(chunk.load).or_insert_with(|| Load { ranges: Vec::new(), last_at: stamp });
        load.last_at = load.last_at.max(stamp);
        load.add(chunk.number)
    }

    pub(super) fn export(&self) -> Vec<Kept> {
        self.lock().iter().map(|(&hash, load)| (hash, load.ranges.clone(), load.last_at)).collect()
    }

    pub(super) fn restore(&self, kept: Vec<Kept>) {
        let loads = kept.into_iter().map(|(hash, ranges, last_at)| (hash, Load { ranges, last_at }));
        self.lock().extend(loads);
    }
}

impl Load {
    /// The range of a chunk, or where one would be.
    fn place(&self, number: u32) -> Result<usize, usize> {
        let at = self.ranges.partition_point(|(_, last)| *last < number);
        if self.ranges.get(at).is_some_and(|(first, _)| *first <= number) { Ok(at) } else { Err(at) }
    }

    fn add(&mut self, number: u32) -> bool {
        let Err(at) = self.place(number) else { return false };
        let follows = at > 0 && self.ranges[at - 1].1 + 1 == number;
        let precedes = self.ranges.get(at).is_some_and(|(first, _)| *first - 1 == number);
        match (follows, precedes) {
            (true, true) => self.ranges[at - 1].1 = self.ranges.remove(at).1,
            (true, false) => self.ranges[at - 1].1 = number,
            (false, true) => self.ranges[at].0 = number,
            (false, false) => self.ranges.insert(at, (number, number)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_chunk_is_applied_once(numbers in proptest::collection::vec(prop_oneof![0u32..30, Just(u32::MAX)], 0..80)) {
            let (loads, mut model) = (Loads::default(), BTreeSet::new());
            for number in numbers {
                let chunk = LoadChunk { load: 1, number };
                prop_assert_eq!(loads.has(chunk), model.contains(&number));
                prop_assert_eq!(loads.apply(chunk, Micros(0)), model.insert(number));
            }
            let restored = Loads::default();
            restored.restore(loads.export());
            let ranges = restored.export().pop().map(|(_, ranges, _)| ranges).unwrap_or_default();
            let all: Vec<u32> = ranges.iter().flat_map(|&(first, last)| first..=last).collect();
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", ranges);
        }
    }

    #[test]
    fn a_load_is_forgotten_when_nothing_has_come_of_it_for_long() {
        let loads = Loads::default();
        let [first, other] = [1, 2].map(|load| LoadChunk { load, number: 0 });
        assert!(loads.apply(first, Micros(0)));
        assert!(loads.apply(other, Micros(KEPT - 1)) && loads.has(first));
        assert!(loads.apply(LoadChunk { load: 3, number: 0 }, Micros(KEPT)));
        assert!(!loads.has(first) && loads.has(other));
    }
}
