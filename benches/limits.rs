//! What do limits cost: a change of one, a start, memory, and each update?
//!
//! | | |
//! |---|---|
//! | tenant | 1 M series: 10 metrics of 100,000 customers on 20 plans, each with a limit (`deny`) for each metric |
//! | start | all facts into an empty graph, the series being open: what a change would cost without the graph |
//! | edit | one limit of one plan: 5,000 series, neither more nor less (asserted) |
//! | move | one customer to another plan: 10 series (asserted) |
//! | bytes | resident set behind all of that less that before the facts were made, a series |
//! | updates | meter's workload (`meter/input.rs`, shape `checkpoint 1h`) with one worker: without facts, with a graph that knows of no limit, with a limit for every series |
//!
//! A start is a process of its own, so that it finds no memory of another. Rounds are interleaved and medians are shown;
//! the ratios are what counts. Times of updates are those that the worker's thread has run (`meter/runs.rs`).
//!
//! `cargo bench -p dataflows --bench limits -- [workers=N] [series=N] [updates=N] [rounds=N] [only=TEXT]`
//!
//! `workers` are those of the start, edit and move; `only` is `start`, `Zipf` or `Uniform`.
#![allow(clippy::print_stdout)] // A bench reports.

#[path = "limits/alone.rs"]
mod alone;
#[path = "limits/facts.rs"]
mod facts;
#[allow(dead_code)] // Meter's own contestants.
#[path = "meter/input.rs"]
mod input;
#[allow(dead_code)]
#[path = "meter/runs.rs"]
mod runs;

use std::process::Command;

use alone::Alone;
use input::{Input, Keys, Settings};

/// The goals: an edit beside a start, a limit's share of an update, an idle graph's, bytes a series, a start.
const EDIT_MAX: f64 = 1.0 / 60.0;
const LIMITED_MAX: f64 = 1.15;
const IDLE_MAX: f64 = 1.03;
const BYTES_MAX: f64 = 120.0;
const START_MILLIS_MAX: f64 = 4_000.0;

/// The argument that makes this process a round.
const ALONE: &str = "alone";

fn main() {
    let settings = Settings::from_arguments();
    let workers = settings.workers;
    if std::env::args().any(|argument| argument == ALONE) {
        let Alone { start_millis, edit_millis, move_millis, bytes_a_series } =
            alone::run(settings.series, workers);
        println!("{start_millis} {edit_millis} {move_millis} {bytes_a_series}");
        return;
    }
    println!("{settings}; a start has {workers} workers");
    println!("{:<48} {:>10} {:>10}", "", "median", "at most");
    if "start".contains(&settings.only) {
        report_starts(&settings);
    }
    for keys in [Keys::Zipf, Keys::Uniform] {
        if format!("{keys:?}").contains(&settings.only) {
            report_updates(keys, &settings);
        }
    }
}

/// A round in a process of its own.
fn alone(settings: &Settings) -> [f64; 4] {
    let series = format!("series={}", settings.series);
    let bench = std::env::current_exe().expect("this program has a path");
    let output =
        Command::new(bench).args([ALONE, &series, &format!("workers={}", settings.workers)]).output();
    let output = output.expect("the round can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|text| text.parse().ok()).collect();
    numbers.try_into().expect("a round prints four numbers")
}

fn report_starts(settings: &Settings) {
    let rounds: Vec<_> = (0..settings.rounds).map(|_| alone(settings)).collect();
    let of = |each: &dyn Fn(&[f64; 4]) -> f64| median(&mut rounds.iter().map(each).collect::<Vec<_>>());
    let [start, edit, moved, bytes] = [0, 1, 2, 3].map(|at| of(&|round| round[at]));
    row("start, ms", start, Some(START_MILLIS_MAX));
    row("edit, ms", edit, None);
    row("edit to start", of(&|round| round[1] / round[0]), Some(EDIT_MAX));
    row("move, ms", moved, None);
    row("bytes a series", bytes, Some(BYTES_MAX));
}

fn report_updates(keys: Keys, settings: &Settings) {
    let input = Input::new(keys, settings);
    let [_, (name, limited), _] = input::shapes();
    let shape = limited.limited(None);
    let (mut without, mut idle, mut with) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        let run = |facts| runs::one_worker_with_facts(&input, &shape, facts);
        let none = run(Vec::new());
        let unlimited = run(facts::all(settings.series, 1, false));
        let limited = run(facts::all(settings.series, 1, true));
        assert_eq!((none.limited, unlimited.limited), (0, 0));
        assert_eq!(limited.limited, u64::from(settings.series), "every series has a limit");
        without.push(none.elapsed.as_secs_f64());
        idle.push(unlimited.elapsed.as_secs_f64());
        with.push(limited.elapsed.as_secs_f64());
    }
    let ratio =
        |of: &[f64], to: &[f64]| median(&mut of.iter().zip(to).map(|(of, to)| of / to).collect::<Vec<_>>());
    let (to_empty, to_idle) = (ratio(&idle, &without), ratio(&with, &idle));
    let rate = |times: &mut [f64]| input.items.len() as f64 / median(times) / 1e6;
    let name = |what| format!("{keys:?}, {name}: {what}");
    row(&name("M updates/s without facts"), rate(&mut without), None);
    row(&name("M updates/s without limits"), rate(&mut idle), None);
    row(&name("M updates/s with limits"), rate(&mut with), None);
    row(&name("idle graph to none"), to_empty, Some(IDLE_MAX));
    row(&name("with limits to without"), to_idle, Some(LIMITED_MAX));
}

/// A row of the table.
fn row(what: &str, seen: f64, most: Option<f64>) {
    match most {
        None => println!("{what:<48} {seen:>10.4}"),
        Some(most) => {
            let verdict = if seen <= most { "met" } else { "NOT MET" };
            println!("{what:<48} {seen:>10.4} {most:>10.4}  {verdict}");
        }
    }
}

/// The middle of some numbers.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
