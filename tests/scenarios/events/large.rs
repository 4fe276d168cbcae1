//! What the largest batches take of the memory.

use std::io::Write;

use super::super::support::api::{Client, count};
use super::super::support::server::{Launch, Server};
use super::super::support::{KEY, Random};
use super::{define, start, written};

/// The bound of the items of a batch.
const ITEMS: u64 = 1_000_000;
/// What a batch may take, whatever it becomes.
const GROWTH_KIB_MAX: u64 = 40 * 1_024;

fn status(server: &Server, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(name)).expect("it is said");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// A million items. The first `noisy` are 200 bytes with 22 random digits, which gzip makes a fourteenth of; the others are equal and
/// as short as can be: a chunk of them becomes hundreds of thousands.
fn body(noisy: u64, random: &mut Random) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for item in 0..ITEMS {
        let line = if item < noisy {
            // Digits beyond the ninth round.
            let digits: String = (0..22).map(|_| char::from(b'0' + random.below(10) as u8)).collect();
            format!("{:199}\n", format!(r#"{{"metric_name":"calls","value":1.{digits}}}"#))
        } else {
            "{\"metric_name\":\"calls\"}\n".to_owned()
        };
        encoder.write_all(line.as_bytes()).expect("in memory");
    }
    encoder.finish().expect("in memory")
}

#[test]
fn a_batch_of_a_million_items_takes_little_memory() {
    let mut random = Random::seeded("events, memory");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&folder, 2);
    let client = Client::new(&server.base());
    define(&client);
    let mut headers =
        vec![format!("authorization: Bearer {KEY}"), "content-type: application/x-ndjson".to_owned()];
    headers.push("content-encoding: gzip".to_owned());
    let warm = (0..60_000).map(|_| "{\"metric_name\":\"bytes\"}\n").collect::<String>();
    written::send(&server.base(), &headers[..2], warm.as_bytes(), &mut random).expect("an answer");
    let bodies = [body(ITEMS, &mut random), body(ITEMS / 5, &mut random)];
    assert!((12 << 20..16 << 20).contains(&bodies[0].len()), "{} bytes", bodies[0].len());
    for (number, body) in (1..).zip(&bodies) {
        let before = status(&server, "VmRSS:");
        let (mut most, mut answer) = (0, None);
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| written::send(&server.base(), &headers, body, &mut random));
            while !sending.is_finished() {
                most = most.max(status(&server, "VmRSS:"));
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            answer = sending.join().expect("no panic");
        });
        let (status, json) = answer.expect("an answer");
        assert_eq!((status, &json["accepted"]), (200, &ITEMS.into()), "{json}");
        println!("{} KiB sent, {before} KiB grew to {most}", body.len() / 1_024);
        assert!(most < before + GROWTH_KIB_MAX, "{before} KiB grew to {most}");
        let read = client.get("/api/v1/metrics/calls").body();
        assert_eq!(count(&read, "count"), Some(number * ITEMS), "{read}");
    }
}

#[test]
fn the_largest_batch_with_a_key_is_one_entry_also_of_small_segments() {
    let mut random = Random::seeded("events, entry");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::dev(folder.path().join("data")).with(&["--segment-bytes", "1MiB"]);
    let mut server = launch.start();
    define(&Client::new(&server.base()));
    let items = 262_144;
    let body = "{\"metric_name\":\"calls\"}\n".repeat(items);
    let headers = ["idempotency-key: k", "content-type: application/x-ndjson"].map(str::to_owned);
    let headers = [&headers[..], &[format!("authorization: Bearer {KEY}")]].concat();
    for counted in ["accepted", "duplicates", "duplicates"] {
        let (status, json) =
            written::send(&server.base(), &headers, body.as_bytes(), &mut random).expect("an answer");
        assert_eq!((status, &json[counted]), (200, &items.into()), "{json}");
        server.kill();
        server = launch.clone().workers(1 + random.below(4)).start();
        let read = Client::new(&server.base()).get("/api/v1/metrics/calls").body();
        assert_eq!(count(&read, "count"), Some(items as u64), "{read}");
    }
}
