//! Which series changed since the last emission of one batch class: a bit a slot, so that an emission walks them in
//! slot order without sorting. An eighth of a byte a series for each class in use.

use crate::types::{Micros, Span};

/// The changed series of one batch class.
#[derive(Debug, Default)]
pub(crate) struct DirtySet {
    /// Bit `slot % 64` of word `slot / 64`.
    words: Vec<u64>,
    /// Arrival of the first change (after a restart: long ago); none when nothing changed.
    first_change: Option<Micros>,
    /// Slots with merges that were emitted and not yet acknowledged.
    pub merging: Vec<u32>,
}

impl DirtySet {
    /// Notes that a series changed.
    pub fn insert(&mut self, slot: u32, at: Micros) {
        let word = slot as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (slot % 64);
        self.first_change = Some(self.first_change.map_or(at, |first| first.min(at)));
    }

    /// When the class wants its next time entry; none when nothing changed.
    pub fn due_at(&self, class: Span) -> Option<Micros> {
        self.first_change.map(|at| class.window(at).end)
    }

    /// Takes the changed slots, rising.
    pub fn take(&mut self) -> Vec<u32> {
        let mut slots = Vec::new();
        if self.first_change.take().is_none() {
            return slots;
        }
        for (index, word) in self.words.iter_mut().enumerate() {
            let mut bits = std::mem::take(word);
            while bits != 0 {
                slots.push(index as u32 * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        slots
    }

    /// Memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>() + self.merging.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_slots_are_taken_once_in_rising_order() {
        let mut dirty = DirtySet::default();
        assert_eq!(dirty.due_at(Span::S15), None);
        for slot in [700, 3, 64, 3] {
            dirty.insert(slot, Micros::from_seconds(16));
        }
        assert_eq!(dirty.due_at(Span::S15), Some(Micros::from_seconds(30)));
        assert_eq!(dirty.take(), [3, 64, 700]);
        assert_eq!(dirty.due_at(Span::S15), None);
        assert!(dirty.take().is_empty());
    }
}
