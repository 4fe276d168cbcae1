//! Headroom: how far below their `block` limits series were last seen, so that an update that surely fits is not asked about.
//!
//! In: the decisions that admission passes on. Out: whether an update is so small beside the room that asking the owner
//! before the journal is not worth its round trip. Nothing is decided here: what is not asked about is journaled and decided in
//! meter. An entry may be out of date (a lowered limit, updates under way), or have been displaced by another series'; then
//! a refusal is journaled, or a question asked, that need not have been.
//!
//! An entry is one word, the series and the room as `f32`: half a mebibyte in all.

use std::sync::atomic::{AtomicU64, Ordering};

use dataflows::types::{Amount, Decision, SeriesId};

/// Series that can be remembered at once.
const ENTRIES: usize = 65_536;
/// How many updates of its size must fit into the room for one not to be asked about: as many may be under way unseen.
const FITTING_MIN: f32 = 1_024.0;

/// The table.
pub struct Headroom(Box<[AtomicU64]>);

impl Headroom {
    /// Knows no series.
    pub fn new() -> Self {
        Headroom((0..ENTRIES).map(|_| AtomicU64::new(0)).collect())
    }

    fn entry(&self, series: SeriesId) -> &AtomicU64 {
        &self.0[series.0 as usize % ENTRIES]
    }

    /// Whether an update of the live period of now is far from being refused.
    pub fn is_wide(&self, series: SeriesId, amount: Amount) -> bool {
        let entry = self.entry(series).load(Ordering::Relaxed);
        // A count goes one up, whatever the amount.
        let step = amount.0.abs().max(Amount::UNIT);
        (entry >> 32) as u32 == series.0 && f32::from_bits(entry as u32) >= step as f32 * FITTING_MIN
    }

    /// Takes what a decision says of the live period of now.
    pub fn note(&self, series: SeriesId, decision: &Decision) {
        let room = decision.held.and_then(|held| held.limit.remaining(decision.current));
        let room = room.map_or(0.0, |room| room.0 as f32);
        let word = u64::from(series.0) << 32 | u64::from(room.to_bits());
        let entry = self.entry(series);
        // Most updates do not change it by enough to be seen: the line stays shared.
        if entry.load(Ordering::Relaxed) != word {
            entry.store(word, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use dataflows::types::{Action, Held, Limit, Micros, Operator, Outcome};

    use super::*;

    fn decision(value: i64, operator: Operator, current: i64) -> Decision {
        let limit = Limit { value: Amount::from_units(value), operator, action: Action::Block };
        Decision {
            item: 0,
            outcome: Outcome::Admitted,
            late: false,
            breached: false,
            current: Amount::from_units(current),
            arrival: Micros(0),
            refusal: None,
            held: Some(Held { limit, period_start: None, period_end: None }),
        }
    }

    #[test]
    fn an_update_is_asked_about_unless_many_like_it_fit() {
        let (headroom, series, one) = (Headroom::new(), SeriesId(7), Amount::from_units(1));
        assert!(!headroom.is_wide(series, one), "nothing is known");
        headroom.note(series, &decision(2_000, Operator::Gte, 0));
        assert!(headroom.is_wide(series, one) && headroom.is_wide(series, Amount(-one.0)));
        assert!(!headroom.is_wide(series, Amount::from_units(2)));
        assert!(headroom.is_wide(series, Amount(1)), "less than one counts as one");
        headroom.note(series, &decision(2_000, Operator::Gte, 1_000));
        assert!(!headroom.is_wide(series, one) && !headroom.is_wide(series, Amount(1)));
        headroom.note(series, &decision(-2_000, Operator::Lt, 0));
        assert!(headroom.is_wide(series, Amount(-one.0)));
        headroom.note(series, &Decision { held: None, ..decision(2_000, Operator::Gte, 0) });
        assert!(!headroom.is_wide(series, one), "no limit that is known");
    }

    #[test]
    fn a_series_in_the_place_of_another_is_asked_about() {
        let headroom = Headroom::new();
        let (first, second) = (SeriesId(0), SeriesId(ENTRIES as u32));
        headroom.note(first, &decision(1_000_000, Operator::Gte, 0));
        assert!(!headroom.is_wide(second, Amount(1)));
        headroom.note(second, &decision(1_000_000, Operator::Gte, 0));
        assert!(headroom.is_wide(second, Amount(1)) && !headroom.is_wide(first, Amount(1)));
    }
}
