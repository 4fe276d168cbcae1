//! What is answered of bodies: what is no batch, too large, too slow, cut off, and what the service cannot take. Each time
//! what counts is what the answer says, whole items from the first on.

use std::thread;
use std::time::{Duration, Instant};

use tracktags::{config, http};

use super::world::{NDJSON, Terms, World};
use super::{gzip, many};

const GZIP: &str = "content-encoding: gzip";
const CHUNKED: &str = "transfer-encoding: chunked";

#[test]
fn what_is_no_batch_is_told_and_what_was_whole_before_counts() {
    let world = World::start();
    let whole = gzip(many(1..=300).as_bytes());
    let mut expected = 0;
    for (headers, body, code) in [
        (vec!["content-type: text/csv"], b"metric,value\nm,1".to_vec(), "invalid_header"),
        (vec!["content-type: text/csv"], b"value\n1".to_vec(), "invalid_header"),
        (vec!["content-type: application/json"], br#"{"metric_name": "m"}"#.to_vec(), "wrong_type"),
        (
            vec!["content-type: application/json"],
            br#"[{"metric_name":"m"},{"metric_name":"m"}}"#.to_vec(),
            "malformed_json",
        ),
        (vec!["content-type: application/json"], br#"[{"metric_name":"m"},"#.to_vec(), "malformed_json"),
        (vec![NDJSON, GZIP], whole[..whole.len() / 2].to_vec(), "truncated_encoding"),
        (vec![NDJSON, GZIP], many(1..=3).into_bytes(), "malformed_encoding"),
        (vec![NDJSON, "content-encoding: zstd"], whole.clone(), "malformed_encoding"),
    ] {
        let answer = world.events("", &headers, &body);
        answer.refused(400, code);
        let taken = answer.taken();
        // Items of a stream are 1, 2, 3, ..., the others are 1.
        expected += if headers.contains(&GZIP) { taken * (taken + 1) / 2 } else { taken };
        assert_eq!(world.value("m"), expected, "{code}: {}", answer.json);
        let is_late = ["malformed_json", "truncated_encoding"].contains(&code);
        assert_eq!(taken > 0, is_late, "{code}: {taken}");
    }
    let unsupported: [&[&str]; 7] = [
        &[],
        &["content-type: text/plain"],
        &["content-type: application/xml", "ce-type: m"],
        &["content-type: application/cloudevents+avro", "ce-specversion: 1.0"],
        &[NDJSON, "content-type: text/csv"],
        &[NDJSON, "content-encoding: br"],
        &[NDJSON, "content-encoding: gzip, gzip"],
    ];
    for headers in unsupported {
        world.events("", headers, many(1..=1)).refused(415, "unsupported_media_type");
    }
    assert_eq!(world.settled("m"), expected);
}

#[test]
fn a_body_that_is_declared_too_large_is_refused_before_it_is_asked_for() {
    let world = World::start();
    let path = "/api/v1/events";
    let wire = world.open("POST", path, &[NDJSON, "content-length: 16777217", "expect: 100-continue"]);
    let said = wire.everything();
    assert!(said.starts_with("HTTP/1.1 413") && said.contains("16777216"), "{said}");
    // One that is not, is asked for.
    let body = many(1..=1);
    let length = format!("content-length: {}", body.len());
    let headers = [NDJSON, &length, "expect: 100-continue", "connection: close"];
    let mut wire = world.open("POST", path, &headers);
    wire.send(body.as_bytes()).expect("the server reads");
    let said = wire.everything();
    assert!(said.starts_with("HTTP/1.1 100") && said.contains("HTTP/1.1 200"), "{said}");
}

#[test]
fn a_chunked_body_ends_where_it_is_too_large() {
    let world = World::start();
    let mut wire = world.open("POST", "/api/v1/events", &[NDJSON, CHUNKED, "connection: close"]);
    let line = format!("{{\"metric_name\":\"m\"{}}}\n", " ".repeat(16_000));
    let mut sent = 0;
    while sent < 1_100 && wire.chunk(line.as_bytes()).is_ok() {
        sent += 1;
    }
    let answer = wire.answer();
    answer.refused(413, "request_too_large");
    let fits = (16 << 20) / line.len() as u64;
    assert!((1..=fits).contains(&answer.taken()), "{} of {fits}", answer.taken());
    assert_eq!(world.value("m"), answer.taken());
}

#[test]
fn what_is_kept_to_its_end_has_fewer_items() {
    let world = World::start();
    let body = gzip("{\"metric_name\":\"m\"}\n".repeat(262_145).as_bytes());
    let answer = world.events("?atomic=true", &[NDJSON, GZIP], &body);
    answer.refused(413, "too_many_items");
    assert!(answer.json.get("taken").is_none(), "{}", answer.json);
    assert_eq!(world.settled("m"), 0);
    let answer = world.events("?results=all", &[NDJSON, GZIP], &body);
    answer.refused(413, "too_many_items");
    assert_eq!((answer.taken(), world.value("m")), (262_144, 262_144));
    assert_eq!(world.events("", &[NDJSON, GZIP], &body).counts(), [262_145, 0, 0, 0]);
}

fn with_ids(ids: std::ops::Range<usize>) -> String {
    ids.map(|id| format!("{{\"metric_name\":\"m\",\"id\":\"{id}\"}}\n")).collect()
}

fn capped_at(dedup_max_ids: u64) -> World {
    let options = config::Options { dedup_max_ids: Some(dedup_max_ids), ..config::Options::default() };
    World::on(Terms { options, ..Terms::default() })
}

#[test]
fn where_no_more_ids_can_be_remembered_a_part_counts_or_none_of_it() {
    let world = capped_at(1_000);
    let answer = world.lines(with_ids(0..1_001));
    answer.refused(503, "dedup_full");
    assert_eq!((&answer.json["outcome"], answer.taken(), world.value("m")), (&"rejected".into(), 0, 0));
    assert_eq!(world.lines(with_ids(0..900)).counts(), [900, 0, 0, 0]);
    world.lines(with_ids(900..1_001)).refused(503, "dedup_full");
    assert_eq!(world.lines(many(1..=1)).counts(), [1, 0, 0, 0], "without an id there is nothing to remember");
    assert_eq!(world.lines(with_ids(900..1_000)).counts(), [100, 0, 0, 0], "what was refused is not counted");
    assert_eq!(world.value("m"), 1_001);

    // The parts before it have been recorded: who sends it again without ids counts them twice.
    let world = capped_at(7_000);
    let answer = world.lines(with_ids(0..30_000));
    answer.refused(503, "dedup_full");
    assert!((4_096..=7_000).contains(&answer.taken()), "{}", answer.json);
    assert_eq!((&answer.json["outcome"], world.value("m")), (&"unknown".into(), answer.taken()));
}

#[test]
fn repeats_are_not_remembered_twice_also_if_nobody_waits_for_the_answer() {
    let world = capped_at(5_000);
    assert_eq!(world.lines(with_ids(0..1_000)).counts(), [1_000, 0, 0, 0]);
    for _ in 0..6 {
        assert_eq!(world.lines(with_ids(0..1_000)).counts(), [0, 1_000, 0, 0]);
    }
    let body = with_ids(0..1_000);
    for _ in 0..30 {
        let length = format!("content-length: {}", body.len());
        let mut wire = world.open("POST", "/api/v1/events", &[NDJSON, &length]);
        wire.send(body.as_bytes()).expect("the server reads");
        // While the part is being journaled.
        thread::sleep(Duration::from_millis(4));
        drop(wire);
    }
    assert_eq!(world.settled("m"), 1_000);
    assert_eq!(world.lines(with_ids(1_000..5_000)).counts(), [4_000, 0, 0, 0], "there is room for them");
}

#[test]
fn a_client_that_goes_away_leaves_whole_items_and_its_room() {
    // Of a business that has so little room one request is under way at a time.
    let options =
        config::Options { business_bytes_max: Some(config::Bytes(1 << 20)), ..config::Options::default() };
    let world = World::on(Terms { options, ..Terms::default() });
    let body = many(1..=20_000);
    let another = || {
        // Whose length is not known takes all of it.
        let mut wire = world.open("POST", "/api/v1/events", &[NDJSON, CHUNKED, "connection: close"]);
        wire.send(b"0\r\n\r\n").expect("the server reads");
        wire.answer()
    };
    for share in [3, 50, 97] {
        let before = world.settled("m");
        let cut = body.len() * share / 100;
        let mut wire =
            world.open("POST", "/api/v1/events", &[NDJSON, &format!("content-length: {}", body.len())]);
        wire.send(&body.as_bytes()[..cut]).expect("the server reads");
        thread::sleep(Duration::from_millis(300));
        another().refused(503, "overloaded");
        drop(wire);
        let began = Instant::now();
        while another().status == 503 {
            assert!(began.elapsed() < Duration::from_secs(20), "the room was never given back");
            thread::sleep(Duration::from_millis(10));
        }
        let counted = world.settled("m") - before;
        let items = ((((8 * counted + 1) as f64).sqrt() - 1.0) / 2.0).round() as u64;
        assert_eq!(items * (items + 1) / 2, counted, "{counted} is no sum of the first items");
        let whole = body.as_bytes()[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert!(items <= whole && (whole < 10_000 || items >= 4_096), "{items} of {whole}");
    }
}

#[test]
fn a_body_that_comes_slowly_or_not_at_all_is_ended() {
    let http = http::Options {
        body_timeout: Duration::from_millis(500),
        batch_timeout: Duration::from_secs(2),
        ..http::Options::default()
    };
    let world = World::on(Terms { http, ..Terms::default() });
    let headers = [NDJSON, "content-length: 100000"];
    let began = Instant::now();
    let mut silent = world.open("POST", "/api/v1/events", &headers);
    silent.send(many(1..=3).as_bytes()).expect("the server reads");
    let answer = silent.answer();
    answer.refused(400, "body_timeout");
    assert_eq!((answer.taken(), world.value("m")), (3, 6));
    assert!(began.elapsed() < Duration::from_millis(1_900), "{:?}", began.elapsed());

    let began = Instant::now();
    let mut slow = world.open("POST", "/api/v1/events", &headers);
    for byte in many(1..=10_000).bytes() {
        if slow.send(&[byte]).is_err() || began.elapsed() > Duration::from_secs(10) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let answer = slow.answer();
    answer.refused(400, "body_timeout");
    let taken = answer.taken();
    assert!(taken > 0 && began.elapsed() < Duration::from_secs(9), "{taken} in {:?}", began.elapsed());
    assert_eq!(world.value("m"), 6 + taken * (taken + 1) / 2);
}

#[test]
fn where_the_journal_is_short_of_room_a_batch_waits_though_an_update_does_not() {
    let world = World::on(Terms { queue_bytes_max: Some(1), ..Terms::default() });
    // Of updates and batches: those that were recorded, and those that were not.
    let send = || {
        let mut seen = [[0; 2]; 2];
        for _ in 0..60 {
            let update = world.call(
                "PUT",
                "/api/v1/metrics/m",
                &["content-type: application/json"],
                r#"{"value": 1}"#,
            );
            let batch = world.lines(many([1, 1, 1].into_iter()));
            for (seen, answer) in seen.iter_mut().zip([update, batch]) {
                if answer.status != 200 {
                    answer.refused(503, "overloaded");
                    assert_eq!(answer.json["outcome"], "rejected", "{}", answer.json);
                }
                seen[usize::from(answer.status != 200)] += 1;
            }
        }
        seen
    };
    let seen = thread::scope(|scope| {
        let senders: Vec<_> = (0..24).map(|_| scope.spawn(send)).collect();
        let seen = senders.into_iter().map(|sender| sender.join().expect("all is answered"));
        seen.reduce(|all, one| [0, 1].map(|of| [0, 1].map(|at| all[of][at] + one[of][at])))
    });
    let [[updates, refused], [batches, given_up]] = seen.expect("some have sent");
    assert!(refused > 0, "there was always room: nothing is proven");
    assert_eq!((world.value("m"), given_up), (updates + 3 * batches, 0), "{refused} updates were refused");
}
