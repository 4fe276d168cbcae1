//! What does it cost to read a batch of events, beside the parser that one would call by hand?
//!
//! | | |
//! |---|---|
//! | workload | 100,000 events of about 130 bytes: metric, customer, value, time, id; in chunks of 64 KiB, as from a connection |
//! | reader | the production `Batch`: ends of items, syntax of every field, exact amounts, times as microseconds |
//! | plain | `serde_json::from_slice` of each line into a struct of borrowed strings and an `f64`: nothing is checked or converted |
//!
//! Varied: how the same events are written. Rounds are interleaved, on one thread; medians are shown, and the median of the
//! ratios of each round. `cargo bench --bench events -- [events=N] [rounds=N] [only=TEXT]`
#![allow(clippy::print_stdout)] // A bench reports.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use serde::Deserialize;
use tracktags::admission::parse::events::{Batch, Bounds, Encoding, Event, Format, Rejection};

/// The goal: speed of the reader to that of plain, for NDJSON as most clients write it.
const NEEDED: f64 = 0.8;
/// Bytes that are pushed at once.
const CHUNK_BYTES: usize = 65_536;
const BOUNDS: Bounds = Bounds { inflated_bytes_max: u64::MAX, items_max: u32::MAX };

/// What a hand-written handler would read a line into.
#[derive(Deserialize)]
#[allow(dead_code)] // Read by `black_box`.
struct Plain<'a> {
    metric_name: &'a str,
    customer_id: Option<&'a str>,
    value: Option<f64>,
    timestamp: Option<&'a str>,
    id: Option<&'a str>,
}

/// One way of writing the events.
struct Shape {
    name: &'static str,
    format: Format,
    encoding: Encoding,
    body: Vec<u8>,
    is_goal: bool,
}

fn main() {
    let argument = |name: &str| {
        let prefix = format!("{name}=");
        std::env::args().find_map(|argument| argument.strip_prefix(&prefix).map(str::to_owned))
    };
    let number = |name: &str, default| argument(name).map_or(default, |text| text.parse().expect("a number"));
    let (events, rounds) = (number("events", 100_000), number("rounds", 11));
    let only = argument("only").unwrap_or_default();
    println!("{events} events, {rounds} rounds, chunks of {CHUNK_BYTES} bytes");
    println!("{:<34} {:>7} {:>9} {:>9} {:>7}", "ns an event", "bytes", "reader", "plain", "speed");
    let (base, shapes) = shapes(events);
    for shape in shapes.iter().filter(|shape| shape.name.contains(&only)) {
        let (mut reader, mut plain, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            reader.push(taken(events, || read(shape, events)));
            // Of what is no NDJSON, plain reads the same events as lines.
            let lines = if shape.is_goal { &shape.body } else { &base };
            plain.push(taken(events, || by_hand(lines, events)));
            ratios.push(plain[plain.len() - 1] / reader[reader.len() - 1]);
        }
        let ratio = median(&mut ratios);
        println!(
            "{:<34} {:>7.1} {:>9.1} {:>9.1} {ratio:>7.2}{}",
            shape.name,
            shape.body.len() as f64 / events as f64,
            median(&mut reader),
            median(&mut plain),
            match (shape.is_goal, ratio >= NEEDED) {
                (false, _) => String::new(),
                (true, true) => format!("  needed {NEEDED}  met"),
                (true, false) => format!("  needed {NEEDED}  NOT MET"),
            }
        );
    }
}

fn read(shape: &Shape, events: usize) {
    let mut batch = Batch::new(shape.format, shape.encoding, BOUNDS);
    let mut good = 0;
    let mut sink = |place: u32, event: Result<Event<'_>, Rejection>| {
        good += usize::from(black_box((place, event)).1.is_ok());
    };
    for chunk in shape.body.chunks(CHUNK_BYTES) {
        batch.push(chunk, &mut sink).expect("it is well-formed");
    }
    batch.finish(&mut sink).expect("it is well-formed");
    assert_eq!(good, events, "every event is good");
}

fn by_hand(lines: &[u8], events: usize) {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let good = lines.filter(|line| black_box(serde_json::from_slice::<Plain<'_>>(line)).is_ok()).count();
    assert_eq!(good, events, "every line is good");
}

fn taken(events: usize, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64() * 1e9 / events as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The lines that plain reads, and every way of writing them.
fn shapes(events: usize) -> (Vec<u8>, Vec<Shape>) {
    let lines =
        |line: fn(usize) -> String| (0..events).map(|at| line(at) + "\n").collect::<String>().into_bytes();
    let list = |item: fn(usize) -> String| {
        format!("[{}]", (0..events).map(item).collect::<Vec<_>>().join(",\n")).into_bytes()
    };
    let compact = |at: usize| {
        let (customer, value, second) = (at * 7_919 % 100_000, at % 10, at % 60);
        format!(
            r#"{{"metric_name":"calls","customer_id":"c{customer:05}","value":{value}.5,"timestamp":"2026-11-24T10:00:{second:02}Z","id":"evt_{at:010}"}}"#
        )
    };
    let spaced = |at: usize| {
        let (customer, value, second) = (at * 7_919 % 100_000, at % 1_000, at % 60);
        format!(
            r#"{{"id": "evt_{at:010}", "metric_name": "api.calls", "customer_id": "c{customer:05}", "value": {value}, "timestamp": "2026-11-24T10:00:{second:02}.{at:06}Z"}}"#
        )
    };
    let short =
        |at: usize| format!(r#"{{"metric_name":"calls","customer_id":"c{:05}"}}"#, at * 7_919 % 100_000);
    let offset = |at: usize| {
        format!(
            r#"{{"metric_name":"calls","customer_id":"c{:05}","value":0.30000000000000004,"timestamp":"2026-11-24T12:00:{:02}+02:00","id":"evt_{at:010}"}}"#,
            at * 7_919 % 100_000,
            at % 60
        )
    };
    let escaped = |at: usize| {
        let customer = at * 7_919 % 100_000;
        format!(
            r#"{{"metric_name":"calls","customer_id":"c{customer:05}","value":1,"id":"\u0065vt_{at:010}"}}"#
        )
    };
    let cloud = |at: usize| {
        format!(
            r#"{{"specversion":"1.0","type":"calls","source":"api","id":"evt_{at:010}","time":"2026-11-24T10:00:{:02}Z","subject":"c{:05}","data":{{"value":"1.5"}}}}"#,
            at % 60,
            at * 7_919 % 100_000
        )
    };
    let row = |at: usize| {
        format!(
            "calls,c{:05},{}.5,2026-11-24T10:00:{:02}Z,evt_{at:010}",
            at * 7_919 % 100_000,
            at % 10,
            at % 60
        )
    };
    let table = [b"metric_name,customer_id,value,timestamp,id\n".to_vec(), lines(row)].concat();
    let base = lines(compact);
    let shape = |name, format, encoding, body| Shape { name, format, encoding, body, is_goal: false };
    let goal = |name, body| Shape { is_goal: true, ..shape(name, Format::Ndjson, Encoding::Identity, body) };
    let shapes = vec![
        goal("NDJSON", base.clone()),
        goal("NDJSON, spaces, microseconds", lines(spaced)),
        goal("NDJSON, two fields", lines(short)),
        goal("NDJSON, offsets, 17 digits", lines(offset)),
        shape("NDJSON, escapes", Format::Ndjson, Encoding::Identity, lines(escaped)),
        shape("JSON array", Format::JsonArray, Encoding::Identity, list(compact)),
        shape("CSV", Format::Csv, Encoding::Identity, table),
        shape("CloudEvents batch", Format::CloudEventBatch, Encoding::Identity, list(cloud)),
        shape("NDJSON, gzip", Format::Ndjson, Encoding::Gzip, gzip(&base)),
        shape(
            "NDJSON, zstd",
            Format::Ndjson,
            Encoding::Zstd,
            zstd::encode_all(&*base, 3).expect("in memory"),
        ),
    ];
    (base, shapes)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}
