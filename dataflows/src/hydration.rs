//! A series from what the store has of it: its newest live period, and its last rows.
//!
//! | from | what comes back |
//! |---|---|
//! | live period | its tally, exactly; where it does not start on the calendar of its type, there is a cut |
//! | bound of a row that is none of a flush window | a cut |
//! | rows | resident windows, in the order in which time opened them; each with the value it was frozen at |
//! | row of an earlier period's newest window | that period, with the reading that the row shows |
//!
//! What does not come back: event ids; earlier cuts between two windows; the order in which late windows were opened; and of
//! earlier periods that are longer than a window the parts of the tally that their operation does not show. Sums never
//! suffer: a row that did not come back is added to in the store.

use crate::operators::calendar::Calendar;
use crate::types::{
    Amount, ClassSet, LiveState, MetricType, Micros, Operation, PeriodState, Row, SeriesId, SeriesState,
    Shape, Tally, WindowState,
};

/// The state of a series as of `now`; `rows` are its last ones, oldest first. Without a live period it never had an update.
/// When the last one arrived nobody knows: where that matters for `cleanup_after`, it counts as now.
pub fn hydrated(
    series: SeriesId,
    shape: Shape,
    live: Option<&LiveState>,
    rows: &[Row],
    now: Micros,
) -> SeriesState {
    let mut state = SeriesState {
        series,
        shape,
        touched: live.is_some(),
        windows: Vec::new(),
        periods: Vec::new(),
        cuts: Vec::new(),
        merges: Vec::new(),
        switching: None,
        quiet_since: live.and(shape.cleanup_after_days).map(|_| now),
        cleanup: None,
    };
    let Some(live) = live else { return state };
    let natural = match shape.metric_type {
        MetricType::Reset => live.period_start.map(|start| shape.reset.window(start).start),
        MetricType::Checkpoint | MetricType::StripeBilling => None,
    };
    let inside = |moment: &Micros| shape.flush.window(*moment).start != *moment;
    let bounds = rows.iter().flat_map(|row| [row.window_start, row.window_end]);
    state
        .cuts
        .extend(bounds.filter(inside).chain(live.period_start.filter(|_| live.period_start != natural)));
    state.cuts.sort_unstable();
    state.cuts.dedup();
    for row in rows {
        add_row(&mut state, row);
    }
    // What a period reads whose parts are not all known, nobody can say: its row keeps the value it has.
    let is_known = |period: &&PeriodState| {
        shape.operation != Operation::Avg || shape.window_is_period() || period.start == live.period_start
    };
    for period in state.periods.iter().filter(is_known) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use timely::worker::Worker;

    use super::*;
    use crate::driver::{Driver, Output, Settings};
    use crate::types::{
        Command, Epoch, LimitSource, Micros, Notify, Reading, RowKind, Span, Standing, Update, Work,
    };

    /// What happens next: seconds that pass, whose series, how late, how much; or a cut of it.
    type Event = (i64, u32, i64, i64, bool);

    fn shape(series: u32, operation: Operation, kind: u8) -> Shape {
        let (metric_type, reset) = match kind {
            0 => (MetricType::Checkpoint, Span::S5),
            1 => (MetricType::StripeBilling, Span::S5),
            2 => (MetricType::Reset, Span::S5),
            _ => (MetricType::Reset, Span::S30),
        };
        let initial_value = Amount::from_units(i64::from(series) * 7);
        Shape {
            operation,
            metric_type,
            flush: Span::S5,
            reset,
            initial_value,
            batch: Span::S15,
            stored: true,
            limit: None,
            limit_source: LimitSource::Series,
            notify: Notify::NONE,
            max_event_age_secs: 3_600,
            cleanup_after_days: None,
        }
    }

    #[derive(Clone, Default)]
    struct Store {
        rows: BTreeMap<(SeriesId, Micros), Row>,
        states: BTreeMap<SeriesId, LiveState>,
    }

    impl Store {
        fn put(&mut self, row: Row) {
            let known = self.rows.get(&(row.series, row.window_start));
            let kept = match (row.kind, known) {
                (RowKind::Merge { operation, initial_value, value_follows }, Some(known)) => {
                    let tally = known.tally.merge(row.tally);
                    let reading = Reading { operation, initial_value }.value(&tally);
                    Row { tally, value: if value_follows { reading } else { known.value }, ..*known }
                }
                _ => Row { kind: RowKind::Absolute, ..row },
            };
            self.rows.insert((row.series, row.window_start), kept);
        }

        /// The tally of each flush window, and what the newest row of a series reads.
        fn windows(&self) -> (BTreeMap<(SeriesId, Micros), Tally>, BTreeMap<SeriesId, Amount>) {
            let (mut tallies, mut values) = (BTreeMap::new(), BTreeMap::new());
            for (&(series, start), row) in &self.rows {
                let tally = tallies.entry((series, Span::S5.window(start).start)).or_insert(Tally::EMPTY);
                *tally = tally.merge(row.tally);
                values.insert(series, row.value);
            }
            (tallies, values)
        }

        fn last_rows(&self, series: SeriesId) -> Vec<Row> {
            let all = self.rows.range((series, Micros(i64::MIN))..=(series, Micros(i64::MAX)));
            let rows: Vec<Row> = all.map(|(_, row)| *row).collect();
            rows[rows.len().saturating_sub(9)..].to_vec()
        }
    }

    struct Life {
        driver: Driver,
        store: Store,
        epoch: Epoch,
        now: i64,
    }

    impl Life {
        fn begin(worker: &mut Worker, epoch: Epoch, now: i64, store: Store) -> Life {
            let settings = Settings { workers: 1, dedup_horizon_secs: 3_600 };
            Life { driver: Driver::new(worker, &settings), store, epoch, now }
        }

        fn submit(&mut self, worker: &mut Worker, work: impl FnOnce(Epoch, Micros) -> Work) {
            self.epoch += 1;
            self.driver.submit(work(self.epoch, Micros::from_seconds(self.now)));
            let mut out = Output::default();
            self.driver.step(worker, &mut out);
            for batch in out.batches {
                self.driver.acknowledge(batch.class, batch.upper);
                let batch = batch.unpack();
                batch.rows.into_iter().for_each(|row| self.store.put(row));
                self.store.states.extend(batch.states.into_iter().map(|state| (state.series, state)));
            }
        }

        fn flush(&mut self, worker: &mut Worker) {
            let emit = ClassSet::ALL;
            self.submit(worker, |epoch, at| Work::Time { epoch, at, emit, stored: Vec::new() });
        }

        fn happen(&mut self, worker: &mut Worker, events: &[Event], series: u32) {
            for &(passed, whose, late, units, cut) in events {
                let slot = whose % series;
                for _ in 0..passed {
                    self.now += 1;
                    if self.now % 15 == 0 {
                        self.flush(worker);
                    }
                }
                // A cut of nothing is not in the store, nor is one between two windows.
                let is_seen = self.now % 5 != 0
                    && self
                        .driver
                        .standing(slot, Micros::from_seconds(self.now))
                        .is_some_and(|seen| seen.touched);
                self.submit(worker, |epoch, stamp| {
                    if cut && is_seen {
                        return Work::Commands {
                            epoch,
                            stamp,
                            commands: vec![Command::Cut { slot, at: None }],
                        };
                    }
                    let event_at = Micros(stamp.0 - late * Micros::PER_SECOND);
                    let amount = Amount::from_units(units);
                    let updates = vec![Update { slot, item: crate::types::NO_REPLY, event_at, amount }];
                    Work::Updates { epoch, stamp, updates, ids: Vec::new() }
                });
            }
            self.flush(worker);
        }

        fn standings(&self, series: u32) -> Vec<Option<Standing>> {
            (0..series).map(|slot| self.driver.standing(slot, Micros::from_seconds(self.now))).collect()
        }
    }

    fn operation() -> impl Strategy<Value = Operation> {
        use Operation::*;
        prop_oneof![Just(Sum), Just(Count), Just(Avg), Just(Max), Just(Min)]
    }

    /// Before and after the start: late by a few windows with cuts in between, or by many without.
    fn events() -> impl Strategy<Value = (Vec<Event>, Vec<Event>)> {
        let some = |late_max: i64, cuts: f64| {
            let late = prop_oneof![4 => Just(0i64), 2 => 0i64..20, 1 => 0..late_max];
            let event = (0i64..12, any::<u32>(), late, -9i64..40, proptest::bool::weighted(cuts));
            proptest::collection::vec(event, 1..40)
        };
        prop_oneof![(some(20, 0.06), some(20, 0.06)), (some(120, 0.0), some(120, 0.0))]
    }

    proptest! {
        /// A service that goes on, and one that starts from its store, say the same from there on.
        #[test]
        fn a_start_from_the_store_goes_on_as_if_nothing_had_been(
            shapes in proptest::collection::vec((operation(), 0u8..4), 1..4),
            (before, after) in events(),
        ) {
            let shapes: Vec<Shape> =
                shapes.iter().zip(0..).map(|(&(operation, kind), series)| shape(series, operation, kind)).collect();
            let count = shapes.len() as u32;
            let [going_on, hydrated] = timely::execute_directly(move |worker| {
                let mut old = Life::begin(worker, 0, 1_000_000, Store::default());
                let open = |(shape, slot): (&Shape, u32)| Command::Open { slot, series: SeriesId(slot), shape: *shape };
                let commands: Vec<_> = shapes.iter().zip(0..).map(open).collect();
                old.submit(worker, |epoch, stamp| Work::Commands { epoch, stamp, commands });
                old.happen(worker, &before, count);
                let mut new = Life::begin(worker, old.epoch, old.now, old.store.clone());
                for (shape, slot) in shapes.iter().zip(0..) {
                    let series = SeriesId(slot);
                    let (live, rows) = (old.store.states.get(&series), old.store.last_rows(series));
                    new.driver.restore(slot, &super::hydrated(series, *shape, live, &rows, Micros(0)));
                }
                // A first time entry tells a driver what the time is.
                for life in [&mut old, &mut new] {
                    life.flush(worker);
                }
                let at_start = [&old, &new].map(|life| life.standings(count));
                for life in [&mut old, &mut new] {
                    life.happen(worker, &after, count);
                }
                let ends = [&old, &new].map(|life| (life.standings(count), life.store.clone()));
                let [old_end, new_end] = ends;
                let [old_start, new_start] = at_start;
                old.driver.close(worker);
                new.driver.close(worker);
                [(old_start, old_end), (new_start, new_end)]
            });
            prop_assert_eq!(&going_on.0, &hydrated.0, "standings at the start");
            prop_assert_eq!(&going_on.1.0, &hydrated.1.0, "standings at the end");
            // A cut that no row shows may divide a late window's row, and the values at which earlier rows were frozen
            // follow the order in which late windows opened.
            prop_assert_eq!(going_on.1.1.windows(), hydrated.1.1.windows(), "rows");
            prop_assert_eq!(going_on.1.1.states, hydrated.1.1.states, "live periods");
        }
    }
}
