//! What does the PostgreSQL store pay beside a bare upsert of the same rows?
//!
//! Workload: 100,000 series, each with one changed row in a batch, in the parts of 50,000 that the history sink makes, each with
//! its progress and behind its fence. The other side: a table of the same columns, filled by one connection with one
//! `INSERT ... SELECT unnest(...) ON CONFLICT DO UPDATE` of the same 100,000 rows, all 17 columns as arrays, names included.
//! Both sides in turn on one private server with everything at its default, fsync included. Varied: whether a live state a
//! series comes along, as in the service. Medians of five, and the least and greatest ratio.
//!
//! Then: a service with an empty data directory, started from that database, five times, until it is ready.
//!
//! `cargo bench --bench postgres`
#![allow(clippy::print_stdout)] // A bench prints its figures.

#[path = "store/batches.rs"]
mod batches;
#[path = "../tests/support/postgres.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use batches::{ROUNDS, SERIES, batch, define, rows};
use dataflows::types::{Micros, Row, RowKind};
use postgres::Client;
use tracktags::store::{Claim, PostgresStore, Target};

const UPSERT: &str = "
    INSERT INTO bare SELECT series_id, window_start, window_end, business_id, scope, customer_id, metric_name, metric_type,
        operation, value::numeric, sum::numeric, count, min::numeric, max::numeric, avg::numeric, tags::jsonb, flushed_at
    FROM unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], $14::text[], $15::text[],
        $16::text[], $17::timestamptz[])
        AS part (series_id, window_start, window_end, business_id, scope, customer_id, metric_name, metric_type,
            operation, value, sum, count, min, max, avg, tags, flushed_at)
    ON CONFLICT (series_id, window_start) DO UPDATE SET
        window_end = excluded.window_end, value = excluded.value, sum = excluded.sum, count = excluded.count,
        min = excluded.min, max = excluded.max, avg = excluded.avg, tags = excluded.tags,
        flushed_at = excluded.flushed_at";

fn main() {
    let cluster = support::Cluster::start();
    let target = Target::new(&cluster.url(), "tracktags").expect("a usable URL");
    let claim = Claim { journal_id: "bench".into(), take_over: false, adopt: false };
    let mut store = PostgresStore::new(target, claim).expect("a runtime");
    let defined = define(&mut store).expect("defined").wall;
    println!("{SERIES} series defined in {defined:.2?}");
    let mut client = cluster.connect();
    client
        .batch_execute("CREATE TABLE bare (LIKE tracktags.metrics INCLUDING ALL) WITH (fillfactor = 85)")
        .expect("a table");

    let mut upper = 0;
    for (what, states) in [("rows", 0), ("rows and live states", SERIES)] {
        for (turn_kind, first_turn) in [("of a new window", 1), ("changed again", 2)] {
            let (mut ours, mut bare) = (Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                upper += 1;
                let window =
                    if first_turn == 1 { i64::from(states) + round as i64 } else { i64::from(states) };
                let batch_rows = rows(window, first_turn + round as i64, RowKind::Absolute);
                let theirs = batch_rows.clone();
                ours.push(batch(&mut store, upper, batch_rows, states).expect("written").wall);
                let begun = Instant::now();
                upsert(&mut client, &theirs);
                bare.push(begun.elapsed());
            }
            report(&format!("{what} {turn_kind}"), &ours, &bare);
        }
    }
    start_from_it(&cluster.url());
}

/// How long a start on an empty data directory takes until it is ready.
fn start_from_it(url: &str) {
    let folder = tempfile::tempdir_in(".").expect("the working directory is writable");
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let mut server = Command::new(env!("CARGO_BIN_EXE_tracktags"))
            .args(["serve", "--listen", "127.0.0.1:0", "--take-over", "--database-url", url, "--data-dir"])
            .arg(folder.path().join(round.to_string()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the service runs");
        let mut line = String::new();
        BufReader::new(server.stdout.as_mut().expect("piped")).read_line(&mut line).expect("it says where");
        let address = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        let ready = support::until(Duration::from_secs(60), || ureq::get(format!("{address}/readyz")).call());
        ready.expect("ready in a minute");
        println!("ready {:.2?} after a start from {SERIES} series", begun.elapsed());
        server.kill().and_then(|()| server.wait()).expect("ended");
    }
}

fn upsert(client: &mut Client, rows: &[Row]) {
    let at = |micros: Micros| SystemTime::UNIX_EPOCH + Duration::from_micros(micros.0 as u64);
    let text = |part: fn(&Row) -> String| rows.iter().map(part).collect::<Vec<_>>();
    let all = |text: &str| vec![text.to_owned(); rows.len()];
    let series: Vec<i64> = rows.iter().map(|row| row.series.0.into()).collect();
    let starts: Vec<SystemTime> = rows.iter().map(|row| at(row.window_start)).collect();
    let ends: Vec<SystemTime> = rows.iter().map(|row| at(row.window_end)).collect();
    let counts: Vec<i64> = rows.iter().map(|row| row.tally.count as i64).collect();
    let flushed = vec![SystemTime::now(); rows.len()];
    client
        .execute(
            UPSERT,
            &[
                &series,
                &starts,
                &ends,
                &text(|row| format!("biz_{}", row.series.0 % 100)),
                &all("customer"),
                &text(|row| format!("cust_{}", row.series.0 / 4)),
                &all("api_calls"),
                &all("checkpoint"),
                &all("SUM"),
                &text(|row| row.value.to_string()),
                &text(|row| row.tally.sum.to_string()),
                &counts,
                &text(|row| row.tally.min.to_string()),
                &text(|row| row.tally.max.to_string()),
                &text(|row| row.tally.mean().map_or_else(String::new, |mean| mean.to_string())),
                &all("{}"),
                &flushed,
            ],
        )
        .expect("upserted");
}

fn report(what: &str, ours: &[Duration], bare: &[Duration]) {
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let mut ratios: Vec<f64> =
        ours.iter().zip(bare).map(|(ours, bare)| bare.as_secs_f64() / ours.as_secs_f64()).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    println!(
        "{what:>36}  ours {:>8.0} /s  bare {:>8.0} /s  ratio {:.2} ({:.2} to {:.2})",
        f64::from(SERIES) / median(ours).as_secs_f64(),
        f64::from(SERIES) / median(bare).as_secs_f64(),
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1]
    );
}
