//! The beginning of an item whose end has not come yet.
//!
//! In: the pieces of an item, chunk by chunk. Out: the whole item; borrowed from the chunk if it came in one piece. Kept:
//! at most `ITEM_BYTES_MAX` bytes; of a longer item only that it was longer, so that its end can still be looked for.

use super::ITEM_BYTES_MAX;

#[derive(Default)]
pub struct Partial {
    bytes: Vec<u8>,
    is_overlong: bool,
}

impl Partial {
    /// Keeps a piece that does not end the item.
    pub fn keep(&mut self, piece: &[u8]) {
        self.is_overlong |= self.bytes.len() + piece.len() > ITEM_BYTES_MAX;
        if self.is_overlong {
            self.bytes.clear();
        } else {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// The item that `last` ends; none if it is too long. `clear` before the next one.
    pub fn end<'a>(&'a mut self, last: &'a [u8]) -> Option<&'a [u8]> {
        if self.is_empty() {
            return (last.len() <= ITEM_BYTES_MAX).then_some(last);
        }
        self.keep(last);
        (!self.is_overlong).then_some(&self.bytes)
    }

    /// Forgets the item.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.is_overlong = false;
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.is_overlong
    }
}
