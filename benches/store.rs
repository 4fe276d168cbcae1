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

#[path = "store/batches.rs"]
mod batches;

use std::time::Duration;

use batches::{PART_ROWS, ROUNDS, SERIES, Taken, batch, define, rows};
use dataflows::types::{Amount, Operation, RowKind};
use tracktags::store::{SqliteStore, StoreError};

fn main() -> Result<(), StoreError> {
    let directory = tempfile::tempdir_in(".").expect("the working directory is writable");
    let mut store = SqliteStore::open(directory.path().join("history.db"))?;
    println!("{SERIES} series, parts of {PART_ROWS} rows, {ROUNDS} rounds");

    report("definitions", &mut [define(&mut store)?]);

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
