//! A series from what the store has of it: its newest live period, and its last rows.
//!
//! | from | what comes back |
//! |---|---|
//! | live period | its tally, exactly; where it does not start on the calendar of its type, a cut does |
//! | rows | resident windows, in the order in which time opened them; each with the value it was frozen at |
//! | row of an earlier period's newest window | that period, with the reading that the row shows |
//!
//! What does not come back: event ids, the order in which late windows were opened, and of earlier periods that are longer
//! than a window the parts of the tally that their operation does not show. Sums never suffer: a row that did not come
//! back is added to in the store.

use crate::operators::calendar::Calendar;
use crate::types::{
    Amount, ClassSet, LiveState, MetricType, Operation, PeriodState, Row, SeriesId, SeriesState, Shape,
    Tally, WindowState,
};

/// The state of a series; `rows` are its last ones, oldest first. Without a live period it never had an update.
pub fn hydrated(series: SeriesId, shape: Shape, live: Option<&LiveState>, rows: &[Row]) -> SeriesState {
    let mut state = SeriesState {
        series,
        shape,
        touched: live.is_some(),
        windows: Vec::new(),
        periods: Vec::new(),
        cuts: Vec::new(),
        merges: Vec::new(),
        switching: None,
    };
    let Some(live) = live else { return state };
    let natural = match shape.metric_type {
        MetricType::Reset => live.period_start.map(|start| shape.reset.window(start).start),
        MetricType::Checkpoint | MetricType::StripeBilling => None,
    };
    if live.period_start != natural {
        state.cuts.extend(live.period_start);
    }
    for row in rows {
        add_row(&mut state, row);
    }
    for period in &state.periods {
        let newest = state.windows.iter_mut().find(|window| Some(window.start) == period.newest);
        newest.into_iter().for_each(|window| window.value = None);
    }
    match state.periods.last_mut() {
        Some(newest) if newest.start == live.period_start => newest.tally = live.tally,
        _ => {
            let calendar = Calendar { shape: &shape, cuts: &state.cuts };
            let end = live
                .period_start
                .map_or_else(|| state.cuts.first().copied(), |start| calendar.period(start).end);
            state.periods.push(PeriodState {
                start: live.period_start,
                end,
                tally: live.tally,
                newest: None,
            });
        }
    }
    state
}

fn add_row(state: &mut SeriesState, row: &Row) {
    let shape = state.shape;
    let bounds = Calendar { shape: &shape, cuts: &state.cuts }.period(row.window_start);
    let mut before = shape.value(&Tally::EMPTY);
    match (state.periods.last_mut(), state.windows.last_mut()) {
        (Some(period), Some(elder)) if period.start == bounds.start => {
            // The elder was frozen when this one opened.
            (before, elder.frozen_by) = (elder.value.unwrap_or(before), Some(row.window_start));
            period.tally = shown(&shape, period.tally.merge(row.tally), row.value);
            period.newest = Some(row.window_start);
        }
        _ => {
            let tally =
                if shape.window_is_period() { row.tally } else { shown(&shape, row.tally, row.value) };
            let newest = Some(row.window_start);
            state.periods.push(PeriodState { start: bounds.start, end: bounds.end, tally, newest });
        }
    }
    state.windows.push(WindowState {
        start: row.window_start,
        end: row.window_end,
        tally: row.tally,
        value: Some(row.value),
        frozen_by: None,
        opened: state.windows.len() as u32,
        before,
        left: false,
        dirty: ClassSet::default(),
    });
}

/// The tally with that part replaced that a reading of the period shows.
fn shown(shape: &Shape, tally: Tally, value: Amount) -> Tally {
    let beyond_initial = value.0 - shape.initial_value.0;
    match shape.operation {
        Operation::Sum => Tally { sum: Amount(beyond_initial), ..tally },
        Operation::Count => Tally { count: (beyond_initial / Amount::UNIT).max(1) as u64, ..tally },
        Operation::Max => Tally { max: value, ..tally },
        Operation::Min => Tally { min: value, ..tally },
        Operation::Avg => tally,
    }
}
