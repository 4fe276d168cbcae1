//! The history sink on a store that fails: each row is right, there once, and gone once it is cleaned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dataflows::types::{Definition, Epoch, Row, RowKind, SeriesId, Span};
use proptest::prelude::*;
use tracktags::engine::{Emission, Sink};
use tracktags::store::{ALL_SERIES, Message, Part, Progress, Store, StoreError};

use super::support::*;

#[test]
fn a_failing_store_is_tried_until_each_row_is_there_once() {
    use Fault::*;
    on_every_store(|database| {
        let script = [
            Unavailable,
            UnknownKept,
            UnknownLost,
            Works,
            UnknownKept,
            Unavailable,
            Unavailable,
            Fatal,
            UnknownKept,
        ];
        let running = run(Faulty::new(database.store(), script), |options| options.part_rows_max = 2);
        running.sink.project(1, (0..6).map(created).collect());
        let rows = (0..6).map(|series| merge(series, 100, &[1], true)).collect();
        running.sink.take(Arc::new(emission(Span::S15, 5, rows)));
        running.sink.take(Arc::new(emission(Span::S30, 6, vec![merge(0, 100, &[1], true)])));
        running.sink.stop();
        assert_eq!(database.history(0), [(100, 2, 2, 2)]);
        for series in 1..6 {
            assert_eq!(database.history(series), [(100, 1, 1, 1)]);
        }
        assert_eq!(*running.told.stored.lock().expect("not poisoned"), [(Span::S15, 5), (Span::S30, 6)]);
        assert_eq!(running.health.reason(), None, "recovered");
        assert_eq!(running.health.failures(), 8);
    });
}

/// Never there.
struct Down;

impl Store for Down {
    fn progress(&mut self) -> Result<Progress, StoreError> {
        Err(StoreError::Unavailable("no route".into()))
    }

    fn commit(&mut self, _: &Part<'_>) -> Result<(), StoreError> {
        panic!("a commit without knowing progress");
    }

    fn commit_messages(&mut self, _: Epoch, _: &[Message]) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("no route".into()))
    }
}

#[test]
fn a_store_that_is_down_is_reported_with_its_lag_and_given_up_at_stop() {
    let running = run(Box::new(Down), |options| options.stop_timeout = Duration::from_millis(5));
    running.sink.project(1, vec![created(1)]);
    running.sink.take(Arc::new(emission(Span::S15, 5, vec![row(1, 100, &[1], 1)])));
    running.sink.take(Arc::new(emission(Span::S30, 8, vec![row(1, 100, &[1], 1)])));
    eventually("a failure is reported", || running.health.reason().is_some());
    assert_eq!(running.health.reason().as_deref(), Some("the store is not available: no route"));
    eventually("the emission is waited for", || running.health.lag_secs(at(9)) == 4.0);
    running.sink.stop();
    assert!(running.told.stored.lock().expect("not poisoned").is_empty());
    assert_eq!(running.health.definitions_waiting(), 1);
}

/// Loses everything at one commit, as a failover to an old copy does.
struct Forgetful(Database, Option<Box<dyn Store>>);

impl Forgetful {
    fn inner(&mut self) -> &mut dyn Store {
        self.1.get_or_insert_with(|| Box::new(self.0.store())).as_mut()
    }
}

impl Store for Forgetful {
    fn progress(&mut self) -> Result<Progress, StoreError> {
        self.inner().progress()
    }

    fn commit(&mut self, part: &Part<'_>) -> Result<(), StoreError> {
        let upper = part.rows.as_ref().map_or(0, |rows| rows.upper);
        if upper == 6 && self.1.take().is_some() {
            self.0.lose_everything();
            return Err(StoreError::Unavailable("the connection is gone".into()));
        }
        self.inner().commit(part)
    }

    fn commit_messages(&mut self, upper: Epoch, messages: &[Message]) -> Result<(), StoreError> {
        self.inner().commit_messages(upper, messages)
    }
}

#[test]
fn nothing_is_written_to_a_store_that_lost_what_was_in_it() {
    for database in every_store() {
        let running = run(Box::new(Forgetful(database, None)), |options| {
            options.stop_timeout = Duration::from_millis(5);
        });
        running.sink.project(1, vec![created(1)]);
        running.sink.take(Arc::new(emission(Span::S15, 5, vec![row(1, 100, &[1], 1)])));
        running.sink.take(Arc::new(emission(Span::S15, 6, vec![row(1, 105, &[1], 2)])));
        eventually("the loss is reported", || {
            running.health.reason().is_some_and(|reason| reason.contains("lost"))
        });
        running.sink.stop();
        assert_eq!(*running.told.stored.lock().expect("not poisoned"), [(Span::S15, 5)]);
    }
}

/// What the engine hands over, in order.
#[derive(Clone, Debug)]
enum Handed {
    Definitions(Epoch, Vec<Definition>),
    Emission(Emission),
}

/// The class of a series never changes here.
fn class(series: u32) -> Span {
    if series.is_multiple_of(3) { Span::S30 } else { Span::S15 }
}

/// Rows of one emission as drawn: (series, window, amount, merge, value_follows).
type Drawn = (u32, i64, i64, bool, bool);

/// Eight series are created, one after the other or at once; some are deleted; rows come for all of them, and some are
/// cleaned.
fn handed() -> impl Strategy<Value = Vec<Handed>> {
    let rows = proptest::collection::vec((0u32..8, 0i64..4, -5i64..50, any::<bool>(), any::<bool>()), 0..14);
    // (series, the seconds by which its windows had ended)
    let cleaned = proptest::collection::btree_map(0u32..8, 0i64..25, 0..3);
    let step = (rows, cleaned, any::<bool>(), proptest::option::weighted(0.15, 0u32..8));
    proptest::collection::vec(step, 1..12).prop_map(|steps| {
        let mut handed = vec![Handed::Definitions(1, (0..8).map(created).collect())];
        for (index, (rows, cleaned, thirty, gone)) in steps.into_iter().enumerate() {
            let upper = 10 + 2 * index as u64;
            if let Some(gone) = gone {
                handed.push(Handed::Definitions(upper - 1, vec![deleted(gone)]));
            }
            let class_now = if thirty { Span::S30 } else { Span::S15 };
            let rows: BTreeMap<(u32, i64), Drawn> = rows
                .into_iter()
                .filter(|drawn| class(drawn.0) == class_now)
                .map(|drawn| ((drawn.0, drawn.1), drawn))
                .collect();
            let states =
                rows.values().map(|drawn| (drawn.0, state(drawn.0, &[drawn.2]))).collect::<BTreeMap<_, _>>();
            let rows = rows.into_values().map(|(series, window, amount, merged, follows)| match merged {
                true => merge(series, window * 5, &[amount], follows),
                false => row(series, window * 5, &[amount, 1], amount * 2),
            });
            let cleaned: Vec<_> =
                cleaned.into_iter().filter(|(series, _)| class(*series) == class_now).collect();
            let (states, cleaned) = (states.into_values().collect(), ended_by(&cleaned));
            let emission = emission(class_now, upper, rows.collect());
            handed.push(Handed::Emission(Emission { states, cleaned, ..emission }));
        }
        handed
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::Works),
        1 => Just(Fault::Unavailable),
        1 => Just(Fault::UnknownLost),
        1 => Just(Fault::UnknownKept),
    ]
}

/// What the tables must hold, found naively.
#[derive(Default)]
struct Model {
    rows: BTreeMap<(u32, i64), (i64, u64, i64)>,
    states: BTreeMap<u32, i64>,
    gone: BTreeSet<u32>,
}

impl Model {
    fn of(handed: &[Handed]) -> Model {
        let mut model = Model::default();
        for step in handed {
            match step {
                Handed::Definitions(_, definitions) => definitions.iter().for_each(|definition| {
                    if let Definition::SeriesDeleted { series } = definition {
                        model.gone.insert(series.0);
                        model.states.remove(&series.0);
                    }
                }),
                Handed::Emission(emission) => {
                    emission.cleaned.iter().for_each(|(series, ended_by)| {
                        model.clean(series.0, ended_by.seconds());
                    });
                    emission.rows.iter().for_each(|row| model.put(row));
                    for state in emission.states.iter().filter(|state| !model.gone.contains(&state.series.0))
                    {
                        model.states.insert(state.series.0, state.tally.sum.0 as i64);
                    }
                }
            }
        }
        model
    }

    /// Windows are five seconds long.
    fn clean(&mut self, series: u32, ended_by: i64) {
        self.rows.retain(|(of, start), _| *of != series || start + 5 > ended_by);
        self.states.remove(&series);
    }

    fn put(&mut self, row: &Row) {
        let units = |nanos: i128| (nanos / 1_000_000_000) as i64;
        let key = (row.series.0, row.window_start.seconds());
        let new = (units(row.tally.sum.0), row.tally.count, units(row.value.0));
        let merged = match (row.kind, self.rows.get(&key)) {
            (RowKind::Merge { value_follows, .. }, Some(old)) => {
                let sum = old.0 + new.0;
                (sum, old.1 + new.1, if value_follows { sum } else { old.2 })
            }
            _ => new,
        };
        self.rows.insert(key, merged);
    }

    /// The history of a series, as `Database::history` gives it.
    fn history(&self, series: u32) -> Vec<(i64, i64, u64, i64)> {
        let rows = self.rows.iter().rev().filter(|((owner, _), _)| *owner == series);
        rows.map(|((_, start), (sum, count, value))| (*start, *sum, *count, *value)).collect()
    }
}

/// One life of the service: everything that progress does not cover is handed over again, until the sink stops or
/// gives up.
fn live(database: &Database, handed: &[Handed], script: Vec<Fault>, part_rows_max: usize) {
    let mut store = database.store();
    let progress = store.progress().expect("readable");
    let running = run(Faulty::new(store, script), |options| {
        options.part_rows_max = part_rows_max;
        options.part_definitions_max = 5;
        options.stop_timeout = Duration::from_micros(30);
    });
    for step in handed {
        match step {
            Handed::Definitions(epoch, definitions) => running.sink.project(*epoch, definitions.clone()),
            Handed::Emission(emission) => {
                let done = progress.classes.get(&emission.class).copied().unwrap_or((0, SeriesId(0)));
                if done < (emission.upper, ALL_SERIES) {
                    let after = (done.0 == emission.upper).then_some(done.1);
                    running.sink.take(Arc::new(Emission { after, ..emission.clone() }));
                }
            }
        }
    }
    running.sink.stop();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_the_tables_equal_the_model(
        handed in handed(),
        lives in proptest::collection::vec((proptest::collection::vec(fault(), 0..12), 1usize..6), 0..4),
    ) {
        static STORES: OnceLock<Vec<Database>> = OnceLock::new();
        let model = Model::of(&handed);
        for database in STORES.get_or_init(every_store) {
            database.lose_everything();
            for (script, part_rows_max) in lives.clone() {
                live(database, &handed, script, part_rows_max);
            }
            live(database, &handed, Vec::new(), 4);
            // Rows of a deleted series that were on their way at its end may be in the store or not.
            for series in (0..8).filter(|series| !model.gone.contains(series)) {
                prop_assert_eq!(database.history(series), model.history(series), "series {}", series);
            }
            let states: Vec<_> =
                model.states.iter().map(|(series, nanos)| format!("{series}|{}.0", nanos / 1_000_000_000)).collect();
            prop_assert_eq!(database.lines("SELECT series_id, sum FROM series_state ORDER BY series_id"), states);
            let live: Vec<_> = (0..8).filter(|series| !model.gone.contains(series)).map(|s| s.to_string()).collect();
            prop_assert_eq!(database.lines("SELECT series_id FROM series ORDER BY series_id"), live);
        }
    }
}
