//! A log of older windows: written at its head, given back at its tail, never moved.
//!
//! ```text
//!   gone │ tail ▶ has left · … · eight windows · … ◀ head │
//!          └── entries of one series are linked from newer to older; a link behind the tail leads nowhere ──┘
//! ```
//! All entries of a log have the same flush interval and batch class, so they leave memory about in the order in which they
//! came: a window costs one cache line written in sequence and one read in sequence, and no search for what is old.
//!
//! * Along the links of a series indices fall, so that what is older is behind the tail sooner. A window opened late is
//!   therefore written again together with the newer ones of its series.
//! * What keeps the tail from moving although later entries have left (a row that waits for the store, a window of the
//!   future) is written again at the head, with its series.
//! * Indices are 32 bits and come round; an entry names its slot, so a stale link of an idle series is recognised.

use std::collections::{BTreeMap, VecDeque};

use super::cells::{NONE, Sums};
use super::chunks::CHUNK;
use crate::prefetch::prefetch;

/// One older window: a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct LogEntry {
    /// Its tally and marks.
    pub sums: Sums,
    /// Its start, in seconds.
    pub window: u32,
    /// The next older one of the series.
    pub older: u32,
    /// The series; `NONE` if it was written again elsewhere.
    pub slot: u32,
}

impl Default for LogEntry {
    fn default() -> Self {
        LogEntry { sums: Sums::default(), window: 0, older: NONE, slot: NONE }
    }
}

type Chunk = Box<[LogEntry; CHUNK]>;

/// The older windows of one flush interval and batch class.
#[derive(Default)]
pub(super) struct Log {
    chunks: VecDeque<Chunk>,
    /// Index of the first entry of the first chunk.
    first: u32,
    tail: u32,
    head: u32,
    /// Number of windows in it.
    live: usize,
    /// A chunk that was given back.
    spare: Option<Chunk>,
    /// The log as it was when the snapshot began.
    frozen: Option<Frozen>,
}

struct Frozen {
    tail: u32,
    head: u32,
    /// Chunks that have changed since, by the index of their first entry.
    kept: BTreeMap<u32, Chunk>,
}

impl Log {
    fn place(&self, index: u32) -> (usize, usize) {
        let offset = index.wrapping_sub(self.first) as usize;
        (offset / CHUNK, offset % CHUNK)
    }

    fn entry(&self, index: u32) -> &LogEntry {
        let (chunk, at) = self.place(index);
        &self.chunks[chunk][at]
    }

    /// The entry of a series at the end of a link, if it is still there.
    #[inline]
    pub fn get(&self, index: u32, slot: u32) -> Option<&LogEntry> {
        let is_here = index.wrapping_sub(self.tail) < self.head.wrapping_sub(self.tail) && index != NONE;
        is_here.then(|| self.entry(index)).filter(|entry| entry.slot == slot)
    }

    /// Asks for the entry at the end of a link.
    pub fn prefetch(&self, index: u32) {
        if index.wrapping_sub(self.tail) < self.head.wrapping_sub(self.tail) && index != NONE {
            prefetch(self.entry(index));
        }
    }

    /// As `get`, as of the beginning of the snapshot.
    pub fn get_frozen(&self, index: u32, slot: u32) -> Option<&LogEntry> {
        let Some(frozen) = &self.frozen else { return self.get(index, slot) };
        if index.wrapping_sub(frozen.tail) >= frozen.head.wrapping_sub(frozen.tail) || index == NONE {
            return None;
        }
        let start = index - index % CHUNK as u32;
        let entry = match frozen.kept.get(&start) {
            Some(kept) => &kept[(index - start) as usize],
            None => self.entry(index),
        };
        (entry.slot == slot).then_some(entry)
    }

    /// The entry at an index, to be written to. Panics if it is gone.
    pub fn get_mut(&mut self, index: u32) -> &mut LogEntry {
        if self.frozen.is_some() {
            self.keep(index);
        }
        let (chunk, at) = self.place(index);
        &mut self.chunks[chunk][at]
    }

    #[cold]
    fn keep(&mut self, index: u32) {
        let chunk = self.place(index).0;
        let start = index - index % CHUNK as u32;
        let Some(frozen) = &mut self.frozen else { return };
        let first = frozen.tail - frozen.tail % CHUNK as u32;
        let was_there = start.wrapping_sub(first) < frozen.head.wrapping_sub(first);
        if was_there && !frozen.kept.contains_key(&start) {
            frozen.kept.insert(start, self.chunks[chunk].clone());
        }
    }

    /// Whether the next entry needs another chunk.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.place(self.head).0 >= self.chunks.len()
    }

    /// Writes an entry.
    #[inline]
    pub fn push(&mut self, entry: LogEntry) -> u32 {
        if self.is_full() {
            self.grow();
        }
        let index = self.head;
        *self.get_mut(index) = entry;
        self.live += 1;
        self.head = self.head.wrapping_add(1);
        if self.head == NONE {
            // No entry has the index that means no link.
            if self.is_full() {
                self.grow();
            }
            *self.get_mut(NONE) = LogEntry::default();
            self.head = 0;
        }
        index
    }

    #[cold]
    fn grow(&mut self) {
        let chunk = self.spare.take().unwrap_or_else(|| {
            let entries: Box<[LogEntry]> = vec![LogEntry::default(); CHUNK].into_boxed_slice();
            entries.try_into().unwrap_or_else(|_| unreachable!("a chunk has that many entries"))
        });
        self.chunks.push_back(chunk);
    }

    /// The window is gone, or written again elsewhere.
    pub fn kill(&mut self, index: u32) {
        self.get_mut(index).slot = NONE;
        self.live -= 1;
    }

    /// Gives back what has left, from the tail on. Returns the series that is in the way of more.
    pub fn retire(&mut self, has_left: impl Fn(&LogEntry) -> bool) -> Option<u32> {
        let may_go = |entry: &LogEntry| entry.slot == NONE || has_left(entry);
        while self.tail != self.head {
            let entry = *self.entry(self.tail);
            if !may_go(&entry) {
                let ahead = self.tail.wrapping_add(CHUNK as u32);
                let is_in_the_way =
                    self.head.wrapping_sub(self.tail) > CHUNK as u32 && may_go(self.entry(ahead));
                return is_in_the_way.then_some(entry.slot);
            }
            self.live -= usize::from(entry.slot != NONE);
            self.tail = self.tail.wrapping_add(1);
            if self.tail.wrapping_sub(self.first) as usize == CHUNK {
                self.give_back();
            }
        }
        None
    }

    fn give_back(&mut self) {
        if self.frozen.is_some() {
            self.keep(self.first);
        }
        self.spare = self.chunks.pop_front();
        self.first = self.tail;
    }

    /// Number of windows in it.
    pub fn len(&self) -> usize {
        self.live
    }

    /// A snapshot begins.
    pub fn freeze(&mut self) {
        self.frozen = Some(Frozen { tail: self.tail, head: self.head, kept: BTreeMap::new() });
    }

    /// The snapshot has ended.
    pub fn thaw(&mut self) {
        self.frozen = None;
    }

    /// Memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let kept = self.frozen.as_ref().map_or(0, |frozen| frozen.kept.len());
        (self.chunks.len() + kept + usize::from(self.spare.is_some())) * CHUNK * size_of::<LogEntry>()
    }

    /// A log whose indices begin there.
    #[cfg(test)]
    pub fn beginning_at(index: u32) -> Log {
        Log { first: index, tail: index, head: index, ..Log::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(slot: u32, window: u32) -> LogEntry {
        LogEntry { slot, window, ..LogEntry::default() }
    }

    #[test]
    fn what_has_left_is_gone_and_links_to_it_lead_nowhere() {
        let mut log = Log::default();
        let indices: Vec<u32> = (0..5_000).map(|window| log.push(entry(7, window))).collect();
        assert_eq!(log.retire(|entry| entry.window < 3_000), None);
        assert!(log.get(indices[2_999], 7).is_none());
        assert_eq!(log.get(indices[3_000], 7).map(|entry| entry.window), Some(3_000));
        assert!(log.get(indices[3_000], 8).is_none(), "the slot is another");
        assert_eq!(log.len(), 2_000);
        assert!(log.resident_bytes() <= 4 * CHUNK * 64);
    }

    #[test]
    fn indices_come_round_and_none_is_never_one() {
        let mut log = Log::beginning_at(0u32.wrapping_sub(CHUNK as u32));
        let indices: Vec<u32> = (0..3_000).map(|window| log.push(entry(1, window))).collect();
        assert!(!indices.contains(&NONE));
        for (window, &index) in indices.iter().enumerate() {
            assert_eq!(log.get(index, 1).map(|entry| entry.window), Some(window as u32));
        }
        assert_eq!(log.retire(|_| true), None);
        assert_eq!(log.len(), 0);
    }

    #[test]
    fn an_entry_in_the_way_is_named() {
        let mut log = Log::default();
        log.push(entry(9, 100));
        (0..2_000).for_each(|_| {
            log.push(entry(1, 0));
        });
        assert_eq!(log.retire(|entry| entry.window < 50), Some(9));
        log.kill(0);
        assert_eq!(log.retire(|entry| entry.window < 50), None);
    }

    #[test]
    fn a_snapshot_sees_the_log_as_it_was() {
        let mut log = Log::beginning_at(5 * CHUNK as u32);
        let indices: Vec<u32> = (0..3_000).map(|window| log.push(entry(1, window))).collect();
        log.retire(|entry| entry.window < 500);
        log.freeze();
        log.get_mut(indices[700]).window = 0;
        (0..2_000).for_each(|_| {
            log.push(entry(2, 1));
        });
        log.retire(|entry| entry.window < 2_900);
        for (window, &index) in indices.iter().enumerate() {
            let expected = (window >= 500).then_some(window as u32);
            assert_eq!(log.get_frozen(index, 1).map(|entry| entry.window), expected);
        }
        log.thaw();
        assert!(log.get_frozen(indices[700], 1).is_none());
    }
}
