//! The layout of an ordinary series in memory: what one update touches is one cache line.
//!
//! ```text
//!  cell (64 bytes, at its slot)                  where a window is a period: an entry of a log (64 bytes)
//!  ┌──────────────────────────────────────┐      ┌───────────────────────────────────┐
//!  │ sums 48: the newest window           │  ┌──▶│ sums 48 · window 4 · older 4 ─────┼─▶ … oldest
//!  │ window 4 · newest older window 4 ────┼──┤   │ slot 4                            │
//!  │ base 4 ──┐ · flags 4                 │  │   └───────────────────────────────────┘
//!  └──────────┼───────────────────────────┘  │   otherwise: a record (72 bytes, in a slab)
//!             ▼                              │   ┌─────────────────────────────────────────┐
//!   base (52 bytes): sums 48, the live       └──▶│ sums 48 · value 16 · window 4 · newer 4 │──┐ a ring:
//!   period without the newest window             └─────────────────────────────────────────┘  │ oldest … newest
//!   · past 4 ─▶ past periods (56 bytes each)                     ▲─────────────────────────────┘
//! ```
//!
//! Bytes of a series with two resident windows, live period and limit included:
//!
//! | | `reset` = flush | others |
//! |---|---|---|
//! | cell: the newest window, links, flags | 64 | 64 |
//! | cold: number of the series, link to its interned shape (which holds the limit) | 8 | 8 |
//! | the older window | 64 | 72 |
//! | base of the live period (otherwise it is the window) | | 52 |
//! | a bit in the dirty set of the class | 0.125 | 0.125 |
//! | **sum** | **136.1** | **196.1** |
//!
//! Ids are counted apart (`ids`); `cleanup_after` takes 16 more (`cleanup`), a limit 8 (`crossings`); equal shapes are kept once; chunks of 1,024 are the only slack. Window starts are whole
//! seconds in a `u32`: what does not fit is kept in a `ledger`.

use crate::types::{Amount, Micros, Tally};

/// No link.
pub(crate) const NONE: u32 = u32::MAX;

/// A tally in 48 bytes: least and greatest in 96 bits each, and 16 bits of marks above the count.
///
/// Amounts are below 2^80, as admission sees to; 2^48 updates are more than a flush window or a life can hold.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Sums {
    sum_low: u64,
    sum_high: i64,
    min_low: u64,
    max_low: u64,
    min_high: i32,
    max_high: i32,
    /// Bit 63: dirty · bit 62: follows · bits 48-61: number of the emission it was last part of · bits 0-47: count.
    marked_count: u64,
}

const COUNT_BITS: u32 = 48;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
const DIRTY: u64 = 1 << 63;
const FOLLOWS: u64 = 1 << 62;
const SENT: u64 = !(DIRTY | FOLLOWS | COUNT);
/// Numbers of emissions are taken modulo this.
pub(crate) const EMISSIONS: u32 = 1 << 14;

impl Default for Sums {
    fn default() -> Self {
        Sums::of(&Tally::EMPTY)
    }
}

impl Sums {
    /// Packs a tally, without marks.
    pub fn of(tally: &Tally) -> Sums {
        let (min, max) = match tally.count {
            0 => (i128::MAX >> 32, i128::MIN >> 32),
            _ => (tally.min.0, tally.max.0),
        };
        let sum = tally.sum.0;
        Sums {
            sum_low: sum as u64,
            sum_high: (sum >> 64) as i64,
            min_low: min as u64,
            max_low: max as u64,
            min_high: (min >> 64) as i32,
            max_high: (max >> 64) as i32,
            marked_count: tally.count & COUNT,
        }
    }

    /// Unpacks the tally.
    pub fn tally(&self) -> Tally {
        match self.count() {
            0 => Tally::EMPTY,
            count => {
                Tally { sum: Amount(self.sum()), count, min: Amount(self.min()), max: Amount(self.max()) }
            }
        }
    }

    /// Adds one amount.
    #[inline(always)]
    pub fn add(&mut self, amount: Amount) {
        let amount = amount.0;
        let sum = self.sum().wrapping_add(amount);
        (self.sum_low, self.sum_high) = (sum as u64, (sum >> 64) as i64);
        if amount < self.min() {
            (self.min_low, self.min_high) = (amount as u64, (amount >> 64) as i32);
        }
        if amount > self.max() {
            (self.max_low, self.max_high) = (amount as u64, (amount >> 64) as i32);
        }
        self.marked_count += 1;
    }

    /// Adds the updates of another tally; the marks stay.
    pub fn merge(&mut self, other: &Sums) {
        let marks = self.marked_count & !COUNT;
        *self = Sums::of(&self.tally().merge(other.tally()));
        self.marked_count |= marks;
    }

    /// The sum, or the number of updates in nano-units, after one more.
    #[inline(always)]
    pub fn counted_with(&self, amount: Amount, counts: bool) -> i128 {
        if counts { (self.count() as i128 + 1) * Amount::UNIT } else { self.sum() + amount.0 }
    }

    /// The sum, or the number of updates in nano-units.
    pub fn counted(&self, counts: bool) -> i128 {
        if counts { self.count() as i128 * Amount::UNIT } else { self.sum() }
    }

    #[inline(always)]
    fn sum(&self) -> i128 {
        i128::from(self.sum_high) << 64 | i128::from(self.sum_low)
    }

    #[inline(always)]
    fn min(&self) -> i128 {
        i128::from(self.min_high) << 64 | i128::from(self.min_low)
    }

    #[inline(always)]
    fn max(&self) -> i128 {
        i128::from(self.max_high) << 64 | i128::from(self.max_low)
    }

    fn count(&self) -> u64 {
        self.marked_count & COUNT
    }

    /// Whether the row has changed since its last emission.
    #[inline(always)]
    pub fn is_dirty(&self) -> bool {
        self.marked_count & DIRTY != 0
    }

    /// The row has changed.
    #[inline(always)]
    pub fn mark_dirty(&mut self) {
        self.marked_count |= DIRTY;
    }

    /// There is nothing to emit.
    pub fn mark_clean(&mut self) {
        self.marked_count &= !DIRTY;
    }

    /// The row becomes part of an emission.
    pub fn mark_sent(&mut self, emission: u32) {
        self.marked_count &= !(DIRTY | SENT);
        self.marked_count |= u64::from(emission % EMISSIONS) << COUNT_BITS;
    }

    /// The emission that it was last part of.
    pub fn sent(&self) -> u32 {
        ((self.marked_count & SENT) >> COUNT_BITS) as u32
    }

    /// Whether the row's value follows its period, which is past, instead of being frozen.
    pub fn follows(&self) -> bool {
        self.marked_count & FOLLOWS != 0
    }

    /// The value will follow the period.
    pub fn mark_following(&mut self) {
        self.marked_count |= FOLLOWS;
    }
}

/// A series: its newest window, and where the rest is.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Cell {
    /// The newest window's tally and marks.
    pub sums: Sums,
    /// Its start, in seconds.
    pub window: u32,
    /// The newest older window: an index of a log or of the slab of records.
    pub newest: u32,
    /// The live period of the newest window, without that window.
    pub base: u32,
    /// What the hot path must know of the shape.
    pub flags: Flags,
}

impl Default for Cell {
    fn default() -> Self {
        Cell { sums: Sums::default(), window: 0, newest: NONE, base: NONE, flags: Flags::CLOSED }
    }
}

impl Cell {
    /// Whether the sum of the newest window, with one more amount, is one that is far from an edge. Wherever it says no there
    /// may still be none.
    #[inline(always)]
    pub fn is_far_with(&self, amount: Amount) -> bool {
        let (low, high) = (amount.0 as u64, (amount.0 >> 64) as i64);
        let below = (1 << (2 * (self.flags.0 >> Flags::QUIET))) - 1;
        // Where both are below 2^62 nothing is negative and nothing carries.
        let beyond = self.sums.sum_high | high | ((self.sums.sum_low | low) >> 62) as i64;
        beyond == 0 && self.sums.sum_low.wrapping_add(low) < below
    }

    /// No edge is found while the sum of the newest window is below this, in nano-units: kept as a power of four less one, 0
    /// where nothing is known.
    pub fn set_quiet_below(&mut self, nanos: i64) {
        let is_sum = !self.flags.has(Flags::COUNTS);
        let known = u64::try_from(nanos).ok().filter(|_| is_sum);
        let power = known.map_or(0, |nanos| (nanos + 1).ilog2() / 2);
        self.flags.0 = self.flags.0 & !(31 << Flags::QUIET) | power << Flags::QUIET;
    }
}

/// An older window of a series whose windows are not periods.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Record {
    /// Its tally and marks.
    pub sums: Sums,
    value_low: u64,
    value_high: i64,
    /// Its start, in seconds.
    pub window: u32,
    /// The next newer record; of the newest one the oldest.
    pub newer: u32,
}

impl Default for Record {
    fn default() -> Self {
        Record::new(Sums::default(), 0, Amount::ZERO)
    }
}

impl Record {
    /// A record that is in no ring.
    pub fn new(sums: Sums, window: u32, value: Amount) -> Record {
        let mut record = Record { sums, value_low: 0, value_high: 0, window, newer: NONE };
        record.set_value(value);
        record
    }

    /// The frozen value of the row. Means nothing where a window is a period, or if it follows.
    pub fn value(&self) -> Amount {
        Amount(i128::from(self.value_high) << 64 | i128::from(self.value_low))
    }

    fn set_value(&mut self, value: Amount) {
        (self.value_low, self.value_high) = (value.0 as u64, (value.0 >> 64) as i64);
    }
}

/// The live period of a series, without its newest window. Aligned to 4 to save 4 bytes a series.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
pub(crate) struct Base {
    /// Its tally.
    pub sums: Sums,
    /// The newest past period.
    pub past: u32,
}

impl Default for Base {
    fn default() -> Self {
        Base { sums: Sums::default(), past: NONE }
    }
}

/// A past `reset` window that is longer than the flush window and still open, or has windows in memory.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Past {
    /// Its tally.
    pub sums: Sums,
    /// Its start, in seconds.
    pub start: u32,
    /// The next older one.
    pub older: u32,
}

/// What the hot path must know of a series, in 32 bits.
///
/// | bits | |
/// |---|---|
/// | 0-3 | flush interval, index in `Span::FLUSH`; 15: never had an update, or is not in this layout |
/// | 4-7 | batch class, likewise |
/// | 8 | its last arrival is noted, for `cleanup_after` |
/// | 9 | the event time is always the arrival |
/// | 10 | a window is a period |
/// | 11 | rows go to the store |
/// | 12-13 | 0: closed, 1: in this layout, 2: in a ledger |
/// | 14 | updates past the limit are refused |
/// | 15 | it has a limit that lets them: edges are looked for |
/// | 16-20 | number of older windows that are dirty; 31: that many or more |
/// | 21 | its value counts updates |
/// | 22 | every event belongs to its one live period |
/// | 23-26 | flush interval of the shape: a first update need not look it up |
/// | 27-31 | how far its newest window is quiet, see `Cell::set_quiet_below` |
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(pub u32);

impl Flags {
    /// No series is here.
    pub const CLOSED: Flags = Flags(Self::UNTOUCHED);
    /// It is kept in a ledger.
    pub const LEDGER: Flags = Flags(Self::UNTOUCHED | 2 << 12);
    /// It is kept in this layout, and has had no update.
    pub const PLAIN: u32 = Self::UNTOUCHED | 1 << 12;
    /// The event time is always the arrival.
    pub const ARRIVAL_ONLY: u32 = 1 << 9;
    /// Its last arrival is noted, for `cleanup_after`.
    pub const WATCHED: u32 = 1 << 8;
    /// A window is a period.
    pub const PERIODIC: u32 = 1 << 10;
    /// Rows go to the store.
    pub const STORED: u32 = 1 << 11;
    /// Updates past the limit are refused: each is judged, on the slow path.
    pub const BLOCKS: u32 = 1 << 14;
    /// It has a limit that does not refuse: `crossings` says how edges are found.
    pub const LIMITED: u32 = 1 << 15;
    /// Its value counts updates, whatever their amounts.
    pub const COUNTS: u32 = 1 << 21;
    /// Every event belongs to its one live period.
    pub const ENDLESS: u32 = 1 << 22;
    /// That many older windows are dirty, or more.
    pub const OLDER_DIRTY_MAX: u32 = 31;
    const UNTOUCHED: u32 = 15;
    const SHAPE_FLUSH: u32 = 23;
    const QUIET: u32 = 27;

    /// What the series of one log have in common.
    pub fn of_log(flush: usize, class: usize) -> Flags {
        Flags(flush as u32 | (class as u32) << 4 | Self::PERIODIC)
    }

    /// Whether a bit, or one of some, is set.
    #[inline(always)]
    pub fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// Index of the flush interval; 15 before the first update.
    #[inline(always)]
    pub fn flush(self) -> usize {
        (self.0 & 15) as usize
    }

    /// Index of the flush interval that the series has, or will have from its first update on.
    #[inline(always)]
    pub fn shape_flush(self) -> usize {
        (self.0 >> Self::SHAPE_FLUSH & 15) as usize
    }

    /// The series has had an update.
    pub fn touch(&mut self) {
        self.0 = self.0 & !15 | self.shape_flush() as u32;
    }

    /// The bits of a shape's flush interval.
    pub const fn of_flush(index: u32) -> u32 {
        index << Self::SHAPE_FLUSH
    }

    /// Number of older windows that are dirty; the greatest says that many or more.
    pub fn older_dirty(self) -> u32 {
        self.0 >> 16 & Self::OLDER_DIRTY_MAX
    }

    /// Sets the number of older windows that are dirty.
    pub fn set_older_dirty(&mut self, count: u32) {
        self.0 = self.0 & !(Self::OLDER_DIRTY_MAX << 16) | count.min(Self::OLDER_DIRTY_MAX) << 16;
    }

    /// Index of the batch class.
    pub fn class(self) -> usize {
        (self.0 >> 4 & 15) as usize
    }

    /// Whether no series is here.
    pub fn is_closed(self) -> bool {
        self.0 >> 12 & 3 == 0
    }

    /// Whether the series is kept in this layout.
    pub fn is_plain(self) -> bool {
        self.0 >> 12 & 3 == 1
    }

    /// Whether it has had an update, being in this layout.
    pub fn is_touched(self) -> bool {
        self.flush() != 15
    }
}

/// A moment as the start of a window in a cell, if it fits.
pub(crate) fn packed_seconds(start: Micros) -> Option<u32> {
    let seconds = u32::try_from(start.seconds()).ok()?;
    (Micros::from_seconds(i64::from(seconds)) == start).then_some(seconds)
}

/// The start of a window in a cell as a moment.
#[inline(always)]
pub(crate) fn moment(seconds: u32) -> Micros {
    Micros(i64::from(seconds) * Micros::PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_series_with_two_windows_takes_what_the_table_says() {
        assert_eq!(
            (size_of::<Cell>(), size_of::<Record>(), size_of::<Base>(), size_of::<Past>()),
            (64, 72, 52, 56)
        );
    }

    fn amounts() -> impl Strategy<Value = Vec<i128>> {
        let amount = prop_oneof![-Amount::LIMIT.0..=Amount::LIMIT.0, -3i128..4];
        proptest::collection::vec(amount, 0..12)
    }

    fn tally(amounts: &[i128]) -> Tally {
        amounts.iter().map(|&nanos| Tally::of(Amount(nanos))).fold(Tally::EMPTY, Tally::merge)
    }

    proptest! {
        #[test]
        fn packed_sums_are_tallies_and_marks_do_not_touch_them(
            some in amounts(),
            more in amounts(),
            emission in 0..EMISSIONS,
        ) {
            let mut sums = Sums::default();
            sums.mark_sent(emission);
            sums.mark_following();
            some.iter().for_each(|&nanos| sums.add(Amount(nanos)));
            sums.mark_dirty();
            prop_assert_eq!(sums.tally(), tally(&some));
            prop_assert_eq!(Sums::of(&tally(&some)).tally(), tally(&some));
            sums.merge(&Sums::of(&tally(&more)));
            prop_assert_eq!(sums.tally(), tally(&some).merge(tally(&more)));
            prop_assert!(sums.is_dirty() && sums.follows());
            prop_assert_eq!(sums.sent(), emission);
            sums.mark_sent(emission + 1);
            prop_assert_eq!((sums.is_dirty(), sums.sent()), (false, (emission + 1) % EMISSIONS));
        }

        #[test]
        fn a_frozen_value_is_kept_exactly(nanos in any::<i128>()) {
            prop_assert_eq!(Record::new(Sums::default(), 0, Amount(nanos)).value(), Amount(nanos));
        }
    }
}
