//! How fast is meter beside the loop that one would write by hand?
//!
//! | | |
//! |---|---|
//! | workload | 20 M updates of 1 M series, Zipf(1.05) and uniform, over one hour of event time, 1 % late; epochs of 65,536 |
//! | shapes | `reset` with sixty one-minute windows; `checkpoint` with flush 1h; the same with `cleanup_after`; all with a limit |
//! | meter | the production `Driver`: routing, timely, time entries each second, emission at each boundary, acknowledgement |
//! | plain | one thread, one hashbrown map with foldhash, sized for the series, from (series, window) to (sum, count, min, max); emits nothing |
//!
//! One worker routes on its own thread, so that it is one core against one core; two workers have a router beside them.
//! Rounds are interleaved and medians are shown; the ratios are what counts. Inputs are made outside the clock. Before the
//! clock starts, a run whose rows go to a store in memory is compared with the plain map, window by window.
//!
//! `cargo bench -p dataflows --bench meter -- [updates=N] [series=N] [rounds=N] [only=TEXT]`
#![allow(clippy::print_stdout)] // A bench reports.

#[allow(dead_code)] // `limits` uses more of it.
#[path = "meter/input.rs"]
mod input;
#[allow(dead_code)]
#[path = "meter/runs.rs"]
mod runs;

use std::time::Duration;

use input::{Input, Keys, Settings};
use runs::Run;

/// The goals: ratios, and bytes a series.
const NEEDED_ZIPF: f64 = 2.0;
const NEEDED_UNIFORM: f64 = 3.5;
const NEEDED_TWO: f64 = 1.6;
const NEEDED_BYTES: f64 = 200.0;

fn main() {
    let settings = Settings::from_arguments();
    println!("{settings}");
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>8} {:>8} {:>9} {:>8} {:>9}",
        "M updates/s", "plain", "1 worker", "2 workers", "1/plain", "2/1", "with ids", "windows", "bytes"
    );
    for keys in [Keys::Zipf, Keys::Uniform] {
        let input = Input::new(keys, &settings);
        for (name, shape) in input::shapes() {
            let name = format!("{keys:?}, {name}");
            if name.contains(&settings.only) {
                runs::verify(&input, &shape);
                report(&name, keys, &input, &shape, settings.rounds);
            }
        }
    }
}

fn report(name: &str, keys: Keys, input: &Input, shape: &dataflows::types::Shape, rounds: usize) {
    let (mut plain, mut one, mut two) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ratios, mut scaling) = (Vec::new(), Vec::new());
    let mut last = Run::default();
    for _ in 0..rounds {
        let (hand, single, double) = (
            runs::plain(input, shape),
            runs::one_worker(input, shape, false),
            runs::two_workers(input, shape),
        );
        ratios.push(hand.as_secs_f64() / single.elapsed.as_secs_f64());
        scaling.push(single.elapsed.as_secs_f64() / double.as_secs_f64());
        plain.push(hand);
        one.push(single.elapsed);
        two.push(double);
        last = single;
    }
    let with_ids = runs::one_worker(input, shape, true);
    let rate = |times: &mut Vec<Duration>| {
        times.sort();
        input.items.len() as f64 / times[times.len() / 2].as_secs_f64() / 1e6
    };
    let (ratio, scaling) = (median(&mut ratios), median(&mut scaling));
    let bytes = last.bytes as f64 / last.series as f64;
    println!(
        "{name:<28} {:>9.2} {:>9.2} {:>9.2} {ratio:>8.2} {scaling:>8.2} {:>9.2} {:>8.2} {bytes:>9.1}",
        rate(&mut plain),
        rate(&mut one),
        rate(&mut two),
        rate(&mut vec![with_ids.elapsed]),
        last.windows as f64 / last.series as f64,
    );
    let needed = if keys == Keys::Zipf { NEEDED_ZIPF } else { NEEDED_UNIFORM };
    let at_two_windows =
        (bytes - last.record_bytes * (last.windows as f64 / last.series as f64 - 2.0)).max(0.0);
    for (what, seen, needed, is_met) in [
        ("one worker to plain", ratio, needed, ratio >= needed),
        ("two workers to one", scaling, NEEDED_TWO, scaling >= NEEDED_TWO),
        ("bytes a series at two windows", at_two_windows, NEEDED_BYTES, at_two_windows <= NEEDED_BYTES),
    ] {
        println!(
            "    {what:<32} {seen:>7.2}  needed {needed:>6.2}  {}",
            if is_met { "met" } else { "NOT MET" }
        );
    }
    println!(
        "    rows {}, ids {} at {:.1} bytes",
        last.rows,
        with_ids.ids,
        with_ids.bytes.saturating_sub(last.bytes) as f64 / with_ids.ids.max(1) as f64,
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
