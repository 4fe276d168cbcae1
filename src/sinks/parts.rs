//! Cutting an emission into parts, one transaction each: at most so many rows, cut between series. A cleaned series is
//! taken to delete `ROWS_CLEANED` rows; how many it does nobody here knows.
//!
//! Pure: what the next part is follows from the emission and the store's progress alone, so that a start, a retry and an
//! unknown outcome all go on in the same way.

use std::ops::Range;

use dataflows::types::{Epoch, SeriesId};

use crate::engine::Emission;
use crate::store::ALL_SERIES;

/// What deleting the rows of one cleaned series costs, in rows.
const ROWS_CLEANED: usize = 50;

/// A stretch of an emission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Which of its rows.
    pub rows: Range<usize>,
    /// Which of its states.
    pub states: Range<usize>,
    /// Which of its cleaned series.
    pub cleaned: Range<usize>,
    /// What the store has of the emission once this is in.
    pub through: SeriesId,
}

/// The part behind `done`, the progress of the emission's class; none when all of it is in. A series is never divided:
/// one with more than `rows_max` rows is a part of its own. An emission without rows is one empty part.
pub(super) fn next(emission: &Emission, done: Option<(Epoch, SeriesId)>, rows_max: usize) -> Option<Cut> {
    let done = done.filter(|(upper, _)| *upper >= emission.upper);
    if done.is_some_and(|done| done >= (emission.upper, ALL_SERIES)) {
        return None;
    }
    let after = emission.after.max(done.map(|(_, through)| through));
    let Emission { rows, states, cleaned, .. } = emission;
    let row = |bound: Option<SeriesId>| rows.partition_point(|row| Some(row.series) <= bound);
    let state = |bound: Option<SeriesId>| states.partition_point(|state| Some(state.series) <= bound);
    let clean = |bound: Option<SeriesId>| cleaned.partition_point(|(series, _)| Some(*series) <= bound);
    // The first series that is too many; the one before it is the last of the part, unless that is the first itself.
    let beyond_rows = rows.get(row(after) + rows_max).map(|row| row.series);
    let cleaned_max = (rows_max / ROWS_CLEANED).max(1);
    let beyond_cleaned = cleaned.get(clean(after) + cleaned_max).map(|(series, _)| *series);
    let through = match beyond_rows.into_iter().chain(beyond_cleaned).min() {
        None => ALL_SERIES,
        Some(beyond) => {
            let before = beyond.0.checked_sub(1).map(SeriesId);
            let is_first = row(before) <= row(after) && clean(before) <= clean(after);
            before.filter(|_| !is_first).unwrap_or(beyond)
        }
    };
    let is_last = row(Some(through)) == rows.len() && clean(Some(through)) == cleaned.len();
    let through = if is_last { ALL_SERIES } else { through };
    let bound = Some(through);
    let (rows, states, cleaned) =
        (row(after)..row(bound), state(after)..state(bound), clean(after)..clean(bound));
    Some(Cut { rows, states, cleaned, through })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflows::types::{Amount, LiveState, Micros, Row, RowKind, Span, Tally};
    use proptest::prelude::*;

    fn emission(series: &[u32], cleaned: &[u32], after: Option<u32>) -> Emission {
        let mut rows: Vec<Row> = Vec::new();
        for (index, &series) in series.iter().enumerate() {
            rows.push(Row {
                series: SeriesId(series),
                window_start: Micros(index as i64),
                window_end: Micros(index as i64 + 1),
                tally: Tally::of(Amount::ZERO),
                value: Amount::ZERO,
                kind: RowKind::Absolute,
            });
        }
        rows.sort_unstable();
        let mut states: Vec<LiveState> = rows
            .iter()
            .map(|row| LiveState {
                series: row.series,
                period_start: None,
                tally: row.tally,
                value: row.value,
            })
            .collect();
        states.dedup();
        let after = after.map(SeriesId);
        let cleaned = cleaned.iter().map(|&series| (SeriesId(series), Micros(5))).collect();
        Emission { class: Span::S15, upper: 7, at: Micros(0), rows, states, cleaned, after }
    }

    #[test]
    fn a_series_is_never_divided() {
        let emission = emission(&[1, 1, 2, 2, 2, 3], &[], None);
        let first = next(&emission, None, 2).expect("rows are left");
        assert_eq!(first, Cut { rows: 0..2, states: 0..1, cleaned: 0..0, through: SeriesId(1) });
        let second = next(&emission, Some((7, first.through)), 2).expect("rows are left");
        assert_eq!(
            second,
            Cut { rows: 2..5, states: 1..2, cleaned: 0..0, through: SeriesId(2) },
            "larger than a part"
        );
        let third = next(&emission, Some((7, second.through)), 2).expect("rows are left");
        assert_eq!(third, Cut { rows: 5..6, states: 2..3, cleaned: 0..0, through: ALL_SERIES });
        assert_eq!(next(&emission, Some((7, ALL_SERIES)), 2), None);
    }

    #[test]
    fn an_emission_without_rows_is_one_part_that_moves_progress() {
        let empty = emission(&[], &[], None);
        assert_eq!(
            next(&empty, Some((6, ALL_SERIES)), 2),
            Some(Cut { rows: 0..0, states: 0..0, cleaned: 0..0, through: ALL_SERIES })
        );
        assert_eq!(next(&empty, Some((7, ALL_SERIES)), 2), None);
    }

    #[test]
    fn an_emission_that_the_store_is_ahead_of_is_in() {
        assert_eq!(next(&emission(&[1], &[], None), Some((8, SeriesId(0))), 2), None);
    }

    #[test]
    fn a_cleaned_series_is_in_the_part_of_its_rows() {
        let emission = emission(&[1, 3, 3, 4], &[2, 3, 9], None);
        let first = next(&emission, None, 2).expect("rows are left");
        assert_eq!(first, Cut { rows: 0..1, states: 0..1, cleaned: 0..1, through: SeriesId(2) });
        let second = next(&emission, Some((7, first.through)), 2).expect("rows are left");
        assert_eq!(second, Cut { rows: 1..3, states: 1..2, cleaned: 1..2, through: SeriesId(3) });
        let third = next(&emission, Some((7, second.through)), 2).expect("rows are left");
        assert_eq!(third, Cut { rows: 3..4, states: 2..3, cleaned: 2..3, through: ALL_SERIES });
    }

    #[test]
    fn many_cleaned_series_are_cut_without_rows() {
        let emission = emission(&[], &(0..7).collect::<Vec<_>>(), None);
        let first = next(&emission, None, 3 * ROWS_CLEANED).expect("some are left");
        assert_eq!(first, Cut { rows: 0..0, states: 0..0, cleaned: 0..3, through: SeriesId(2) });
        let last = next(&emission, Some((7, SeriesId(5))), 3 * ROWS_CLEANED).expect("some are left");
        assert_eq!(last, Cut { rows: 0..0, states: 0..0, cleaned: 6..7, through: ALL_SERIES });
    }

    proptest! {
        #[test]
        fn parts_cover_what_is_left_once_and_in_order(
            series in proptest::collection::vec(0u32..20, 0..60),
            cleaned in proptest::collection::btree_set(0u32..20, 0..20),
            after in proptest::option::of(0u32..20),
            rows_max in 1usize..10,
        ) {
            let emission = emission(&series, &cleaned.into_iter().collect::<Vec<_>>(), after);
            let (mut done, mut rows, mut states, mut cleaned) = (None, Vec::new(), Vec::new(), Vec::new());
            while let Some(cut) = next(&emission, done, rows_max) {
                let part = &emission.rows[cut.rows.clone()];
                prop_assert!(part.len() <= rows_max || part.iter().all(|row| row.series == part[0].series));
                prop_assert!(cut.cleaned.len() <= 1, "fewer than `ROWS_CLEANED` rows a part");
                let through = |series: SeriesId| done.map(|(_, done)| done) < Some(series) && series <= cut.through;
                prop_assert!(emission.cleaned[cut.cleaned.clone()].iter().all(|(series, _)| through(*series)));
                prop_assert!(part.iter().all(|row| through(row.series)));
                rows.extend_from_slice(part);
                states.extend_from_slice(&emission.states[cut.states.clone()]);
                cleaned.extend_from_slice(&emission.cleaned[cut.cleaned.clone()]);
                prop_assert!(done < Some((7, cut.through)), "progress rises");
                done = Some((7, cut.through));
            }
            let left = |series: SeriesId| Some(series) > emission.after;
            prop_assert_eq!(rows, emission.rows.iter().copied().filter(|row| left(row.series)).collect::<Vec<_>>());
            prop_assert_eq!(states, emission.states.iter().copied().filter(|s| left(s.series)).collect::<Vec<_>>());
            prop_assert_eq!(cleaned, emission.cleaned.iter().copied().filter(|c| left(c.0)).collect::<Vec<_>>());
        }
    }
}
