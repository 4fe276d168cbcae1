//! Arrays that grow by chunks: no copying when they grow, no doubling slack, and a copy-on-write view for snapshots.
//!
//! While a snapshot runs (`freeze` to `thaw`) the first write to a chunk keeps a copy of it as it was; `frozen` reads that.
//! At most every chunk is copied once, a few microseconds each; without a snapshot it costs one predictable branch.

const BITS: u32 = 10;
/// Elements in a chunk.
pub(crate) const CHUNK: usize = 1 << BITS;

/// A growing array of plain values.
pub(crate) struct Chunks<T> {
    live: Vec<Box<[T; CHUNK]>>,
    /// One place a chunk that was there when the snapshot began; empty without one.
    kept: Vec<Option<Box<[T; CHUNK]>>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks { live: Vec::new(), kept: Vec::new() }
    }
}

impl<T: Copy + Default> Chunks<T> {
    /// Number of elements that there is room for; all beyond what was written are the default.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.live.len() * CHUNK
    }

    /// Makes sure that the element is there.
    pub fn reach(&mut self, index: u32) {
        while self.len() <= index as usize {
            let chunk: Box<[T]> = vec![T::default(); CHUNK].into_boxed_slice();
            self.live.extend(chunk.try_into());
        }
    }

    /// The element. Panics if it is out of reach.
    #[inline(always)]
    pub fn get(&self, index: u32) -> &T {
        &self.live[(index >> BITS) as usize][index as usize % CHUNK]
    }

    /// The element, if it is in reach.
    #[inline(always)]
    pub fn find(&self, index: u32) -> Option<&T> {
        self.live.get((index >> BITS) as usize).map(|chunk| &chunk[index as usize % CHUNK])
    }

    /// The element, to be written to. Panics if it is out of reach.
    #[inline(always)]
    pub fn get_mut(&mut self, index: u32) -> &mut T {
        if !self.kept.is_empty() {
            self.keep((index >> BITS) as usize);
        }
        &mut self.live[(index >> BITS) as usize][index as usize % CHUNK]
    }

    /// The element, to be written to, if it is in reach.
    #[inline(always)]
    pub fn find_mut(&mut self, index: u32) -> Option<&mut T> {
        if !self.kept.is_empty() {
            self.keep((index >> BITS) as usize);
        }
        self.live.get_mut((index >> BITS) as usize).map(|chunk| &mut chunk[index as usize % CHUNK])
    }

    #[cold]
    fn keep(&mut self, chunk: usize) {
        if let Some(kept @ None) = self.kept.get_mut(chunk) {
            *kept = Some(self.live[chunk].clone());
        }
    }

    /// A snapshot begins: `frozen` answers as of now.
    pub fn freeze(&mut self) {
        self.kept = vec![None; self.live.len()];
    }

    /// The snapshot has ended.
    pub fn thaw(&mut self) {
        self.kept = Vec::new();
    }

    /// The element as it was when the snapshot began; as it is, without one.
    pub fn frozen(&self, index: u32) -> &T {
        let (chunk, index) = ((index >> BITS) as usize, index as usize % CHUNK);
        match self.kept.get(chunk) {
            Some(Some(kept)) => &kept[index],
            _ => &self.live[chunk][index],
        }
    }

    /// Memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let kept = self.kept.iter().flatten().count();
        (self.live.len() + kept) * CHUNK * size_of::<T>()
    }
}

/// Elements that come and go.
pub(crate) struct Slab<T> {
    /// Where they are.
    pub items: Chunks<T>,
    free: Vec<u32>,
    next: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { items: Chunks::default(), free: Vec::new(), next: 0 }
    }
}

impl<T: Copy + Default> Slab<T> {
    /// Puts an element somewhere. Panics at 2^32 - 1 elements.
    pub fn insert(&mut self, item: T) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.items.reach(self.next);
            self.next = self.next.checked_add(1).expect("fewer than 2^32 elements");
            self.next - 1
        });
        *self.items.get_mut(index) = item;
        index
    }

    /// Gives its place to others.
    pub fn remove(&mut self, index: u32) {
        self.free.push(index);
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.next as usize - self.free.len()
    }

    /// Memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        self.items.resident_bytes() + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_was_there_when_it_began() {
        let mut chunks = Chunks::<u64>::default();
        chunks.reach(3_000);
        *chunks.get_mut(5) = 50;
        *chunks.get_mut(3_000) = 30;
        chunks.freeze();
        *chunks.get_mut(5) = 51;
        *chunks.get_mut(5) = 52;
        chunks.reach(9_000);
        *chunks.get_mut(9_000) = 90;
        assert_eq!((*chunks.frozen(5), *chunks.frozen(3_000), *chunks.get(5)), (50, 30, 52));
        chunks.thaw();
        assert_eq!((*chunks.frozen(5), *chunks.get(9_000)), (52, 90));
    }

    #[test]
    fn a_place_in_a_slab_is_used_again() {
        let mut slab = Slab::<u8>::default();
        let (first, second) = (slab.insert(1), slab.insert(2));
        slab.remove(first);
        assert_eq!((slab.insert(3), slab.len(), *slab.items.get(second)), (first, 2, 2));
    }
}
