//! Tallies: what is kept of the updates of a window or a live period, and how a value is read from it.
//!
//! A tally is a commutative monoid under `merge`, with `Tally::EMPTY` as its zero: the same updates give the same tally
//! in any order and grouping. Taking an update back (a void) is not addition: least and greatest are re-derived.

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::types::Operation;

/// Sum, count, least and greatest of some updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tally {
    /// Sum of the amounts.
    pub sum: Amount,
    /// Number of updates.
    pub count: u64,
    /// Least amount; `i128::MAX` nano-units while there is none.
    pub min: Amount,
    /// Greatest amount; `i128::MIN` nano-units while there is none.
    pub max: Amount,
}

impl Default for Tally {
    fn default() -> Self {
        Tally::EMPTY
    }
}

impl Tally {
    /// The tally of no updates.
    pub const EMPTY: Tally =
        Tally { sum: Amount::ZERO, count: 0, min: Amount(i128::MAX), max: Amount(i128::MIN) };

    /// The tally of one update.
    pub const fn of(amount: Amount) -> Tally {
        Tally { sum: amount, count: 1, min: amount, max: amount }
    }

    /// The tally of the updates of both.
    #[must_use]
    pub fn merge(self, other: Tally) -> Tally {
        Tally {
            sum: self.sum + other.sum,
            count: self.count + other.count,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }

    /// Sum divided by count, half to even; none without updates.
    pub fn mean(&self) -> Option<Amount> {
        (self.count > 0).then(|| self.sum.mean(self.count))
    }

    /// Least amount; none without updates.
    pub fn least(&self) -> Option<Amount> {
        (self.count > 0).then_some(self.min)
    }

    /// Greatest amount; none without updates.
    pub fn greatest(&self) -> Option<Amount> {
        (self.count > 0).then_some(self.max)
    }
}

/// How a tally is read: the operation and the initial value (semantics, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which number is the value.
    pub operation: Operation,
    /// Offset of SUM and COUNT, placeholder of the others.
    pub initial_value: Amount,
}

impl Reading {
    /// The value of a tally.
    pub fn value(&self, tally: &Tally) -> Amount {
        match self.operation {
            Operation::Sum => self.initial_value + tally.sum,
            Operation::Count => self.initial_value + Amount(i128::from(tally.count) * Amount::UNIT),
            Operation::Avg => tally.mean().unwrap_or(self.initial_value),
            Operation::Max => tally.greatest().unwrap_or(self.initial_value),
            Operation::Min => tally.least().unwrap_or(self.initial_value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tally(amounts: &[i128]) -> Tally {
        amounts.iter().map(|&nanos| Tally::of(Amount(nanos))).fold(Tally::EMPTY, Tally::merge)
    }

    #[test]
    fn an_initial_value_is_an_offset_or_a_placeholder() {
        let some = tally(&[1_000_000_000, 4_000_000_000]);
        for (operation, empty, read) in [
            (Operation::Sum, 7, 12_000_000_000),
            (Operation::Count, 7, 9_000_000_000),
            (Operation::Avg, 7, 2_500_000_000),
            (Operation::Max, 7, 4_000_000_000),
            (Operation::Min, 7, 1_000_000_000),
        ] {
            let reading = Reading { operation, initial_value: Amount::from_units(empty) };
            assert_eq!(reading.value(&Tally::EMPTY), Amount::from_units(empty));
            assert_eq!(reading.value(&some), Amount(read), "{operation:?}");
        }
    }

    proptest! {
        #[test]
        fn order_and_grouping_do_not_matter(
            amounts in proptest::collection::vec(-1_000_000i128..1_000_000, 0..20),
            cut in 0usize..20,
        ) {
            let cut = cut.min(amounts.len());
            let mut reversed = amounts.clone();
            reversed.reverse();
            prop_assert_eq!(tally(&amounts), tally(&reversed));
            prop_assert_eq!(tally(&amounts), tally(&amounts[..cut]).merge(tally(&amounts[cut..])));
        }
    }
}
