//! How fast does the embedded store take batches, and what does one cost?
//!
//! Workload: 100,000 series with one row each, in parts of 50,000 as the history sink cuts them: definitions; then per round rows of
//! a new window, the same rows again (what most batches are: a window is open for many of them), the same with a live state
//! each (what the service sends), and merges into them. Every part is a
//! transaction with `synchronous = FULL`, checkpoints included. Varied: the kind of row. Medians of five.
//!
//! `cargo bench --bench store`. Beside the wall clock stands the thread's time on a processor (Linux; what the bench would take
//! on a machine that does nothing else and has a fast disk).
#![allow(clippy::print_stdout)] // A bench prints its figures.

use std::time::{Duration, Instant};

use dataflows::types::{
    Amount, Definition, Epoch, LiveState, Micros, Operation, Row, RowKind, SeriesId, SeriesKey, SeriesRecord,
    SeriesSpec, Span, Tally,
};
use tracktags::store::{ALL_SERIES, Part, PartRows, SqliteStore, Store, StoreError};

const SERIES: u32 = 100_000;
const PART_ROWS: usize = 50_000;
const ROUNDS: u64 = 5;
const T0: i64 = 1_795_500_000;

fn main() -> Result<(), StoreError> {
    let directory = tempfile::tempdir_in(".").expect("the working directory is writable");
    let mut store = SqliteStore::open(directory.path().join("history.db"))?;
    let definitions: Vec<_> = (0..SERIES).map(|series| (1, definition(series))).collect();
    println!("{SERIES} series, parts of {PART_ROWS} rows, {ROUNDS} rounds");

    let begun = Begun::now();
    for part in definitions.chunks(PART_ROWS).enumerate().map(|(index, chunk)| {
        let epoch = index as Epoch + 1;
        chunk.iter().map(|(_, definition)| (epoch, definition.clone())).collect::<Vec<_>>()
    }) {
        store.commit(&Part { journal_id: "bench", definitions: &part, rows: None })?;
    }
    report("definitions", &mut [begun.elapsed()]);

    let kind = RowKind::Merge { operation: Operation::Sum, initial_value: Amount::ZERO, value_follows: true };
    let [mut fresh, mut again, mut lively, mut merge] = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        let (window, upper) = (round as i64, 4 * round);
        fresh.push(batch(&mut store, upper + 1, rows(window, 1, RowKind::Absolute), 0)?);
        again.push(batch(&mut store, upper + 2, rows(window, 2, RowKind::Absolute), 0)?);
        lively.push(batch(&mut store, upper + 3, rows(window, 3, RowKind::Absolute), SERIES)?);
        merge.push(batch(&mut store, upper + 4, rows(window, 4, kind), 0)?);
    }
    report("rows of a new window", &mut fresh);
    report("the same rows again", &mut again);
    report("the same, with live states", &mut lively);
    report("merge rows", &mut merge);
    let bytes = std::fs::metadata(directory.path().join("history.db")).map_or(0, |file| file.len());
    println!("{:>32}  {:>9.1} bytes/row", "file", bytes as f64 / (f64::from(SERIES) * ROUNDS as f64));
    Ok(())
}

fn report(what: &str, rounds: &mut [Taken]) {
    let mut median = |time: fn(&Taken) -> Duration| {
        rounds.sort_unstable_by_key(time);
        f64::from(SERIES) / time(&rounds[rounds.len() / 2]).as_secs_f64()
    };
    println!(
        "{what:>32}  {:>9.0} /s  {:>9.0} /cpu-s",
        median(|taken| taken.wall),
        median(|taken| taken.busy)
    );
}

struct Taken {
    wall: Duration,
    busy: Duration,
}

struct Begun(Instant, Duration);

impl Begun {
    fn now() -> Begun {
        Begun(Instant::now(), busy())
    }

    fn elapsed(&self) -> Taken {
        Taken { wall: self.0.elapsed(), busy: busy() - self.1 }
    }
}

/// Time of this thread on a processor so far.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// Commits one batch as the sink does; gives the time taken.
fn batch(store: &mut SqliteStore, upper: Epoch, rows: Vec<Row>, states: u32) -> Result<Taken, StoreError> {
    let states: Vec<LiveState> = rows
        .iter()
        .take(states as usize)
        .map(|row| LiveState { series: row.series, period_start: None, tally: row.tally, value: row.value })
        .collect();
    let window_starts = &[rows[0].window_start];
    let begun = Begun::now();
    for (index, part) in rows.chunks(PART_ROWS).enumerate() {
        let first = index * PART_ROWS;
        let last = first + part.len() == rows.len();
        let rows = PartRows {
            class: Span::S15,
            upper,
            flushed_at: Micros::from_seconds(T0 + upper as i64),
            window_starts,
            rows: part,
            states: states.get(first..first + part.len()).unwrap_or_default(),
            cleaned: &[],
            through: if last { ALL_SERIES } else { part[part.len() - 1].series },
        };
        store.commit(&Part { journal_id: "bench", definitions: &[], rows: Some(rows) })?;
    }
    Ok(begun.elapsed())
}

fn rows(window: i64, turn: i64, kind: RowKind) -> Vec<Row> {
    let start = T0 + window * 60;
    let row = |series: u32| {
        let units = i64::from(series) * 37 % 1_000 + turn;
        let tally = Tally {
            sum: Amount(i128::from(units) * 12_345_678_900),
            count: units as u64 + 1,
            min: Amount(500_000_000),
            max: Amount::from_units(units),
        };
        let (window_start, window_end) = (Micros::from_seconds(start), Micros::from_seconds(start + 60));
        Row { series: SeriesId(series), window_start, window_end, tally, value: tally.sum, kind }
    };
    (0..SERIES).map(row).collect()
}

fn definition(series: u32) -> Definition {
    let key = SeriesKey {
        business_id: format!("biz_{}", series % 100),
        customer_id: Some(format!("cust_{}", series / 4)),
        metric_name: ["api_calls", "storage_bytes", "seats", "requests_per_minute"][series as usize % 4]
            .into(),
    };
    let spec = SeriesSpec { flush_interval: Span::M1, ..SeriesSpec::default() };
    let created_at = Micros::from_seconds(T0);
    Definition::SeriesCreated(SeriesRecord { series: SeriesId(series), key, spec, created_at })
}
