//! `block` from outside: whatever clients do at once, admitted usage never passes a limit, exactly so much is admitted as
//! fits, and refusals cost nothing that is durable. What holds of a plan's limit as of a series' own is shared with `plans`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use dataflows::types::{Amount, Micros};
use tracktags::admission::parse::names::rfc3339;
use tracktags::http::routes::{Endpoint, ROUTES};

use super::openapi;
use super::support::api::{self, Client, Outcome};
use super::support::server::{Launch, Server};
use super::support::{KEY, Random, rounds, until};

const CONNECTIONS: usize = 64;
pub const LIMIT: i64 = 1_000;
/// A time entry comes at most a second behind what it is due for: a journal that is quiet for longer stays quiet.
const QUIET: Duration = Duration::from_millis(1_300);
/// How long unknown outcomes may stay unknown while the server is up.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

fn start(folder: &tempfile::TempDir) -> Server {
    Launch::dev(folder.path().join("data")).workers(4).start()
}

fn create(client: &Client, name: &str, more: &str) {
    let body =
        format!(r#"{{"metric_name": "{name}", "limit_value": {LIMIT}, "breach_action": "block"{more}}}"#);
    let created = client.post("/api/v1/metrics", &body).body();
    assert!(created.contains(r#""warnings":[]"#), "{created}");
}

fn path(name: &str) -> String {
    format!("/api/v1/metrics/{name}")
}

fn value(client: &Client, series: &str) -> Amount {
    let body = client.get(series).body();
    api::amount(&body, "current_value").expect("a reading has a value")
}

fn units(units: i64) -> Amount {
    Amount::from_units(units)
}

/// Panics unless the OpenAPI document describes the answer.
fn described(endpoint: Endpoint, outcome: &Outcome) {
    let route = ROUTES.iter().find(|route| route.endpoint == endpoint).expect("each endpoint has a route");
    openapi::describes(route, outcome);
}

/// True if it was admitted, false if the limit refused it; anything else is wrong.
fn is_admitted(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Durable(_) => true,
        refused => {
            refused.refused(429, "plan_limit_exceeded");
            false
        }
    }
}

#[test]
fn of_five_thousand_competing_updates_exactly_a_thousand_are_admitted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&folder);
    let client = Client::new(&server.base());
    create(&client, "seats", "");
    let (next, admitted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let client = Client::new(&server.base());
                while next.fetch_add(1, Ordering::Relaxed) < 5_000 {
                    if is_admitted(client.put(&path("seats"), r#"{"value": 1}"#)) {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), LIMIT as usize);
    let reading = client.get(&path("seats")).body();
    assert_eq!(api::amount(&reading, "current_value"), Some(units(LIMIT)), "{reading}");
    assert!(api::flag(&reading, "limit_breached"), "{reading}");
    assert_eq!(api::amount(&reading, "remaining"), Some(Amount::ZERO), "{reading}");
    assert_eq!(api::text(&reading, "limit_source").as_deref(), Some("series"), "{reading}");
    assert_eq!(api::count(&reading, "refused"), Some(4_000), "{reading}");
    // The count is of this process, the value is not.
    server.kill();
    let server = start(&folder);
    let reading = Client::new(&server.base()).get(&path("seats")).body();
    assert_eq!(api::amount(&reading, "current_value"), Some(units(LIMIT)), "{reading}");
    assert_eq!(api::count(&reading, "refused"), Some(0), "{reading}");
}

#[test]
fn a_refusal_says_what_would_help() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&folder);
    let client = Client::new(&server.base());
    create(&client, "ever", "");
    create(&client, "hourly", r#", "metric_type": "reset", "flush_interval": "1m", "reset_interval": "1h""#);
    for name in ["ever", "hourly"] {
        client.put(&path(name), r#"{"value": 999, "id": "a"}"#).body();
        let Outcome::Rejected(429, body) = client.put(&path(name), r#"{"value": 2, "id": "b"}"#) else {
            panic!("{name} admits past its limit");
        };
        described(Endpoint::MetricUpdate, &Outcome::Rejected(429, body.clone()));
        described(Endpoint::MetricRead, &client.get(&path(name)));
        assert_eq!(api::text(&body, "title").as_deref(), Some("Plan limit exceeded"), "{body}");
        assert_eq!(api::amount(&body, "current_value"), Some(units(999)), "{body}");
        assert_eq!(api::amount(&body, "limit_value"), Some(units(LIMIT)), "{body}");
        assert_eq!(api::text(&body, "resets_at").is_some(), name == "hourly", "{body}");
        // A repeat of what was admitted is one, limit or not; what was refused was not remembered.
        let repeated = client.put(&path(name), r#"{"value": 999, "id": "a"}"#).body();
        assert!(api::flag(&repeated, "duplicate"), "{repeated}");
        client.put(&path(name), r#"{"value": -1}"#).body();
        let taken = client.put(&path(name), r#"{"value": 2, "id": "b"}"#).body();
        assert!(!api::flag(&taken, "duplicate") && api::flag(&taken, "limit_breached"), "{taken}");
        // A raised limit holds from its answer on, and so does a lowered one.
        is_admitted(client.put(&path(name), r#"{"value": 1}"#)).then(|| panic!("past the limit"));
        client.call("PATCH", &path(name), &[], r#"{"limit_value": 1500}"#).body();
        client.put(&path(name), r#"{"value": 500}"#).body();
        client.call("PATCH", &path(name), &[], r#"{"limit_value": 10}"#).body();
        assert!(!is_admitted(client.put(&path(name), r#"{"value": 1}"#)));
        assert!(is_admitted(client.put(&path(name), r#"{"value": -1}"#)));
    }
    // Only the hourly series had ended periods: eight of them back nothing is decided any more.
    let as_of = api::count(&client.get(&path("ever")).body(), "timestamp").expect("a reading has a moment");
    let then = rfc3339(Micros::from_seconds(as_of.cast_signed() - 10 * 3_600));
    let body = format!(r#"{{"value": 1, "timestamp": "{then}"}}"#);
    client.put(&path("hourly"), &body).refused(422, "too_late");
    client.put(&path("ever"), &body).refused(429, "plan_limit_exceeded");
}

/// Status, `RateLimit-Policy` and `RateLimit` of an answer.
fn quota(server: &Server, method: &str, path: &str, body: &str) -> (u16, [Option<String>; 2]) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", server.base()))
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json");
    let answer = agent.run(request.body(body.to_owned()).expect("a request")).expect("an answer");
    let header = |name| answer.headers().get(name).map(|value| value.to_str().expect("ASCII").to_owned());
    (answer.status().as_u16(), [header("ratelimit-policy"), header("ratelimit")])
}

#[test]
fn whatever_is_refused_for_a_limit_tells_the_quota() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&folder);
    create(&Client::new(&server.base()), "full", "");
    let told = [r#""full";q=1000"#, r#""full";r=10"#].map(|text| Some(text.to_owned()));
    assert_eq!(quota(&server, "PUT", &path("full"), r#"{"value": 990}"#), (200, told.clone()));
    for (method, path, body) in [
        ("PUT", path("full"), r#"{"value": 11}"#),
        // A repeated POST records its initial value as an update.
        ("POST", "/api/v1/metrics".to_owned(), r#"{"metric_name": "full", "initial_value": 11}"#),
    ] {
        assert_eq!(quota(&server, method, &path, body), (429, told.clone()), "{method}");
    }
}

/// How many bytes were journaled, as the service tells it.
fn written(client: &Client) -> String {
    let exposition = client.get("/metrics").body();
    let line = exposition.lines().find(|line| line.starts_with("tracktags_journal_written_bytes_total"));
    line.expect("it is measured").to_owned()
}

/// The same, once what came before has left nothing for a next time entry.
fn quiet(client: &Client) -> String {
    let is_quiet = || {
        let before = written(client);
        sleep(QUIET);
        if written(client) == before { Ok(before) } else { Err(()) }
    };
    until(SETTLE_LIMIT, is_quiet).expect("nothing is due any more")
}

#[test]
fn a_limit_lowered_below_what_was_far_from_it_refuses_at_once_and_then_without_the_journal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&folder);
    let client = Client::new(&server.base());
    create(&client, "far", r#", "metadata": {"integrations": {"supabase": {"enabled": false}}}"#);
    let limit = |value: u32| {
        client.call("PATCH", &path("far"), &[], &format!(r#"{{"limit_value": {value}}}"#)).body();
    };
    let one = || is_admitted(client.put(&path("far"), r#"{"value": 1}"#));
    limit(1_000_000);
    assert!(one() && one());
    limit(2);
    let before = quiet(&client);
    assert!(!one());
    let decided = written(&client);
    assert_ne!(decided, before, "far from the limit nobody is asked");
    assert!(!one() && !one());
    assert_eq!(written(&client), decided);
    limit(3);
    assert!(one() && !one());
    assert_eq!(value(&client, &path("far")), units(3));
}

#[test]
fn refused_updates_do_not_grow_the_journal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&folder);
    let client = Client::new(&server.base());
    create(&client, "full", r#", "metadata": {"integrations": {"supabase": {"enabled": false}}}"#);
    client.put(&path("full"), r#"{"value": 1000, "id": "a"}"#).body();
    are_not_journaled(&server, &path("full"));
    assert!(api::flag(&client.put(&path("full"), r#"{"value": 1000, "id": "a"}"#).body(), "duplicate"));
}

/// Sends updates of a series that is at its limit, whose windows are kept out of the store, so that no time entry is due
/// for them. All are refused, and the journal does not grow by a byte.
pub fn are_not_journaled(server: &Server, series: &str) {
    let client = Client::new(&server.base());
    let before = quiet(&client);
    std::thread::scope(|scope| {
        for connection in 0..8 {
            let client = Client::new(&server.base());
            scope.spawn(move || {
                for number in 0..rounds(625, 12_500) {
                    let body = format!(r#"{{"value": 1, "id": "{connection}.{number}"}}"#);
                    assert!(!is_admitted(client.put(series, &body)));
                }
            });
        }
    });
    assert_eq!(written(&client), before);
}

/// A client that sends random amounts under keys, refunds among them, and knows which were admitted.
struct Buyer {
    number: usize,
    random: Random,
    sent: usize,
    admitted: i64,
    refused: usize,
    /// What was sent and not answered.
    pending: Option<(String, i64)>,
}

impl Buyer {
    /// Sends the next amount, or again what is pending. False if there was no answer.
    fn step(&mut self, client: &Client, series: &str) -> bool {
        let (key, amount) = self.pending.take().unwrap_or_else(|| {
            self.sent += 1;
            let refunds = self.random.one_in(4) && self.admitted > 30;
            let amount = self.random.below(30) as i64 + 1;
            (format!("{}-{}", self.number, self.sent), if refunds { -amount } else { amount })
        });
        let body = format!(r#"{{"value": {amount}}}"#);
        match client.call("PUT", series, &[("idempotency-key", &key)], &body) {
            Outcome::Durable(_) => self.admitted += amount,
            Outcome::Rejected(429, _) => self.refused += 1,
            Outcome::Rejected(503, _) | Outcome::Unknown(_) => {
                self.pending = Some((key, amount));
                return false;
            }
            wrong => panic!("{wrong:?}"),
        }
        true
    }
}

#[test]
fn killed_in_the_middle_random_amounts_and_refunds_never_pass_the_limit() {
    race_through_kills(&path("credit"), |client| create(client, "credit", ""));
}

/// Buyers race for a series that `begin` holds to `LIMIT`, in lives that end by SIGKILL; what had no answer is sent again
/// under its key by the next one. No reading is ever past the limit, and the value is what was admitted.
pub fn race_through_kills(series: &str, begin: impl FnOnce(&Client)) {
    let mut random = Random::seeded("limits");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut server = start(&folder);
    begin(&Client::new(&server.base()));
    let new =
        |number| Buyer { number, random: random.fork(), sent: 0, admitted: 0, refused: 0, pending: None };
    let mut buyers: Vec<_> = (0..16).map(new).collect();
    for round in 0..rounds(3, 20) {
        let (stop, highest) = (AtomicBool::new(false), Mutex::new(Amount::ZERO));
        let moment = random.millis(200, 900);
        std::thread::scope(|scope| {
            for buyer in &mut buyers {
                let client = Client::new(&server.base());
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        if !buyer.step(&client, series) {
                            sleep(Duration::from_millis(2));
                        }
                    }
                });
            }
            scope.spawn(|| {
                let client = Client::new(&server.base());
                while !stop.load(Ordering::Relaxed) {
                    let Outcome::Durable(body) = client.get(series) else { continue };
                    let value = api::amount(&body, "current_value").expect("a reading has a value");
                    let mut highest = highest.lock().expect("nobody panics with it");
                    *highest = (*highest).max(value);
                }
            });
            sleep(moment);
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
        assert!(highest.into_inner().expect("nobody panics with it") <= units(LIMIT), "round {round}");
        server = start(&folder);
        let client = Client::new(&server.base());
        for buyer in &mut buyers {
            let settled =
                until(SETTLE_LIMIT, || match buyer.pending.is_none() || buyer.step(&client, series) {
                    true => Ok(()),
                    false => Err(()),
                });
            settled.expect("a server that is up gives definite answers");
        }
        let admitted: i64 = buyers.iter().map(|buyer| buyer.admitted).sum();
        assert_eq!(value(&client, series), units(admitted), "round {round}, killed after {moment:?}");
        assert!(admitted <= LIMIT, "round {round}");
    }
    let refused: usize = buyers.iter().map(|buyer| buyer.refused).sum();
    let sent: usize = buyers.iter().map(|buyer| buyer.sent).sum();
    println!("{sent} updates, {refused} refused");
    assert!(refused > 0, "the limit was never reached");
}
