//! The moment at which something happens: stamps, and how far emissions have come.
//!
//! One per worker, brought forward with each epoch, so that what depends on the moment alone is computed once an epoch
//! and not once an update.

use super::calendar;
use crate::types::{Epoch, Micros, Span};

/// Number of flush intervals, and of batch classes.
pub(crate) const SPANS: usize = Span::FLUSH.len();

/// Lengths of the flush intervals in microseconds, by index; 0 for what is none.
pub(crate) const LENGTHS_MICROS: [i64; 16] = {
    let mut lengths = [0; 16];
    let mut index = 0;
    while index < SPANS {
        if let Some(seconds) = Span::FLUSH[index].seconds() {
            lengths[index] = seconds * Micros::PER_SECOND;
        }
        index += 1;
    }
    lengths
};

/// How far the emissions of one class have come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flight {
    /// Number of emissions so far.
    pub emission: u32,
    /// The epoch of the last.
    pub upper: Epoch,
    /// The last that is in the store.
    pub acknowledged: Epoch,
}

impl Flight {
    /// Whether the last emission may not be in the store yet.
    pub fn is_under_way(&self) -> bool {
        self.upper > self.acknowledged
    }
}

/// The moment of an epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick {
    /// The stamp.
    pub arrival: Micros,
    /// The greatest stamp so far: what has left does not come back when the clock goes back.
    pub high: Micros,
    /// By flush interval: windows that start before are eight windows old.
    pub horizons: [Micros; SPANS],
    /// By batch class.
    pub flights: [Flight; SPANS],
}

impl Default for Tick {
    fn default() -> Self {
        let least = Micros(0);
        Tick { arrival: least, high: least, horizons: [Micros(i64::MIN); SPANS], flights: Default::default() }
    }
}

impl Tick {
    /// An epoch begins.
    pub fn advance(&mut self, arrival: Micros) {
        self.arrival = arrival;
        let is_first = self.horizons[0] == Micros(i64::MIN);
        if arrival > self.high || is_first {
            self.high = self.high.max(arrival);
            for (horizon, span) in self.horizons.iter_mut().zip(Span::FLUSH) {
                *horizon = calendar::horizon(span, self.high);
            }
        }
    }

    /// Windows of this flush interval that start before are eight windows old.
    pub fn horizon(&self, flush: Span) -> Micros {
        self.horizons[flush as usize]
    }

    /// How far the emissions of a class have come.
    pub fn flight(&self, class: Span) -> &Flight {
        &self.flights[class as usize]
    }
}
