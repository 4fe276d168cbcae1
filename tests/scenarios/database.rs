//! PostgreSQL as the store: starts that must fail and say why, two servers, a new machine.

use std::time::{Duration, Instant};

use super::kills::settle_and_audit;
use super::starts::{fails, says_in_one_sentence};
use super::support::api::{self, Client};
use super::support::audit::{Fleet, Habits};
use super::support::history::Place;
use super::support::postgres::Cluster;
use super::support::server::{Launch, Server};
use super::support::{Random, until};

const HABITS: Habits = Habits { audits: true, batches: &["1s"] };

fn on(folder: &tempfile::TempDir, name: &str, url: &str) -> Launch {
    Launch::dev(folder.path().join(name)).with(&["--database-url", url])
}

fn readiness(server: &Server) -> String {
    let mut answer = ureq::get(format!("{}/readyz", server.base())).call().expect("ready");
    answer.body_mut().read_to_string().expect("text")
}

#[test]
fn what_is_wrong_with_the_database_is_one_sentence_at_the_start() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut client = cluster.connect();
    client
        .batch_execute(
            "CREATE ROLE guest LOGIN PASSWORD 'canary-password'; REVOKE CREATE ON DATABASE postgres FROM PUBLIC;
             CREATE ROLE strict LOGIN PASSWORD 'right'",
        )
        .expect("roles");
    cluster.admit_first("host all strict 127.0.0.1/32 scram-sha-256");
    let at = |user: &str, rest: &str| format!("postgres://{user}@127.0.0.1:{}/{rest}", cluster.port());
    let cases = [
        ("http://h/d".to_owned(), vec!["--database-url", "postgres://"]),
        (at("guest:canary-password", "postgres"), vec!["tracktags migrate", "42501"]),
        (at("strict:canary-password", "postgres"), vec!["28P01", "password"]),
        (at("tester", "absent"), vec!["3D000", "create it"]),
        (at("tester", "postgres?sslmode=require"), vec!["TLS", "sslmode"]),
        (at("tester", "postgres?sslmode=verify-full&sslrootcert=/no/such"), vec!["sslrootcert", "/no/such"]),
    ];
    for (index, (url, named)) in cases.into_iter().enumerate() {
        let ended = fails(&on(&folder, &format!("data-{index}"), &url));
        says_in_one_sentence(&ended.errors, &named);
        assert!(!ended.errors.contains("canary-password"), "{}", ended.errors);
    }
    let newer = on(&folder, "data", &cluster.url());
    newer.start().stop();
    let record = "INSERT INTO tracktags.schema_migrations
        SELECT MAX(version) + 1, 'later', 'sum' FROM tracktags.schema_migrations";
    client.batch_execute(record).expect("recorded");
    says_in_one_sentence(&fails(&newer).errors, &["schema version", "newer"]);
}

#[test]
fn the_owner_migrates_and_a_user_with_little_rights_serves() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let migrated = std::process::Command::new(super::support::server::binary())
        .args(["migrate", "--database-url", &cluster.url(), "--database-schema", "usage"])
        .output()
        .expect("it runs");
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let said = String::from_utf8_lossy(&migrated.stdout);
    assert!(said.starts_with("schema usage has version "), "{said}");
    let grants = "CREATE ROLE service LOGIN; REVOKE CREATE ON DATABASE postgres FROM PUBLIC;
        GRANT USAGE ON SCHEMA usage TO service;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA usage TO service";
    cluster.connect().batch_execute(grants).expect("granted");
    let url = format!("postgres://service@127.0.0.1:{}/postgres", cluster.port());
    let server = on(&folder, "data", &url).with(&["--database-schema", "usage"]).start();
    let client = Client::new(&server.base());
    client.post("/api/v1/metrics", r#"{"metric_name": "calls"}"#).body();
    server.stop();
    let count = cluster.connect().query_one("SELECT count(*) FROM usage.series", &[]).expect("readable");
    assert_eq!(count.get::<_, i64>(0), 1);
}

#[test]
fn a_second_server_is_refused_or_takes_over_and_the_first_says_so() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = on(&folder, "first", &cluster.url()).start();
    let client = Client::new(&first.base());
    let metric =
        r#"{"metric_name": "calls", "metadata": {"integrations": {"postgres": {"batch_interval": "1s"}}}}"#;
    client.post("/api/v1/metrics", metric).body();
    client.put("/api/v1/metrics/calls", r#"{"value": 5}"#).body();
    let rows = || {
        let rows = super::support::history::read(Place::Postgres(&cluster)).expect("readable");
        rows.get(&(None, "calls".to_owned())).map(|row| row.tally.count)
    };
    let there = until(Duration::from_secs(10), || if rows() == Some(1) { Ok(()) } else { Err(()) });
    assert!(there.is_ok(), "the first server writes");

    let second = on(&folder, "second", &cluster.url());
    says_in_one_sentence(&fails(&second).errors, &["another TrackTags", "--take-over"]);

    let second = second.with(&["--take-over"]).start();
    let body = Client::new(&second.base()).get("/api/v1/metrics/calls").body();
    assert_eq!(api::amount(&body, "current_value"), Some(dataflows::types::Amount::from_units(5)), "{body}");
    // The first goes on answering, and says that it writes no more.
    client.put("/api/v1/metrics/calls", r#"{"value": 2}"#).body();
    let told = until(Duration::from_secs(20), || {
        let body = readiness(&first);
        if body.contains("degraded") && body.contains("taken over") { Ok(()) } else { Err(body) }
    });
    assert_eq!(told, Ok(()));
    assert!(first.errors().contains("taken over"), "{}", first.errors());
    Client::new(&second.base()).put("/api/v1/metrics/calls", r#"{"value": 1}"#).body();
    let there = until(Duration::from_secs(10), || if rows() == Some(2) { Ok(()) } else { Err(rows()) });
    assert_eq!(there, Ok(()), "only the second one's update is added");
    assert!(!readiness(&second).contains("degraded"), "{}", readiness(&second));
    // A start of the first finds the database in other hands.
    first.stop();
    says_in_one_sentence(
        &fails(&on(&folder, "first", &cluster.url())).errors,
        &["belongs to journal", "empty"],
    );
}

#[test]
fn a_new_machine_starts_from_the_database_and_goes_on_exactly() {
    let mut random = Random::seeded("a new machine");
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut fleet = Fleet::new(8, HABITS, &mut random);
    for machine in 0..3 {
        let server =
            on(&folder, &format!("machine-{machine}"), &cluster.url()).with(&["--take-over"]).start();
        assert_eq!(machine > 0, server.errors().contains("started from the database"), "{}", server.errors());
        if machine > 0 {
            fleet.audit_engine(&server.base());
            fleet.demand_nothing_wrong(&format!("machine {machine}, as of the last batch"));
        }
        fleet.forget_repeats();
        fleet.load(&server.base(), || std::thread::sleep(Duration::from_millis(2_500)));
        settle_and_audit(&mut fleet, &server, Place::Postgres(&cluster), &format!("machine {machine}"));
        // Nothing more is on its way: what the machine leaves is what the database has.
        server.kill();
    }
    println!("{} updates", fleet.acknowledged());
}

#[test]
fn an_older_data_directory_brings_current_values_to_a_new_database() {
    let mut random = Random::seeded("a new database");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut fleet = Fleet::new(4, Habits { audits: false, batches: &["1s"] }, &mut random);
    let server = Launch::dev(folder.path().join("data")).start();
    fleet.load(&server.base(), || std::thread::sleep(Duration::from_millis(1_500)));
    settle_and_audit(&mut fleet, &server, server.place(), "SQLite");
    server.stop();
    let cluster = Cluster::start();
    let server = on(&folder, "data", &cluster.url()).start();
    assert!(server.errors().contains("older history is not"), "{}", server.errors());
    fleet.audit_engine(&server.base());
    fleet.demand_nothing_wrong("engine");
    // Every series reads in the database what the service says.
    let values = "SELECT metric_name, current_value::text FROM tracktags.usage_current ORDER BY metric_name";
    let in_database = || {
        let rows = cluster.connect().query(values, &[]).expect("readable");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(String, String)>>()
    };
    let list = Client::new(&server.base()).get("/api/v1/metrics?limit=1000").body();
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let client = Client::new(&server.base());
    let mut said: Vec<(String, String)> = Vec::new();
    for metric in list["metrics"].as_array().expect("a list") {
        let name = metric["metric_name"].as_str().expect("a name");
        let customer = metric["customer_id"].as_str();
        let query = customer.map_or(String::new(), |id| format!("?scope=customer&customer_id={id}"));
        let body = client.get(&format!("/api/v1/metrics/{name}{query}")).body();
        let value = api::amount(&body, "current_value").expect("a value");
        said.push((name.to_owned(), value.to_string()));
    }
    said.sort();
    let same =
        until(Duration::from_secs(15), || if in_database() == said { Ok(()) } else { Err(in_database()) });
    assert_eq!(same, Ok(()), "{said:?}");
}

#[test]
fn an_older_data_directory_meets_a_new_database_that_is_down() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Launch::dev(folder.path().join("data")).start();
    let client = Client::new(&server.base());
    client.post("/api/v1/metrics", r#"{"metric_name": "calls"}"#).body();
    client.put("/api/v1/metrics/calls", r#"{"value": 5}"#).body();
    server.stop();
    cluster.stop_immediately();
    let server = on(&folder, "data", &cluster.url()).start();
    assert!(readiness(&server).contains("degraded"), "{}", readiness(&server));
    cluster.start_again().expect("it starts");
    let value = "SELECT current_value::text FROM tracktags.usage_current";
    let is_there = || match cluster.connect().query_opt(value, &[]).map_err(|error| error.to_string())? {
        Some(row) if row.get::<_, &str>(0) == "5.0" => Ok(()),
        other => Err(format!("{other:?}")),
    };
    assert_eq!(until(Duration::from_secs(60), is_there), Ok(()), "a value that has no further update");
}

#[test]
fn an_older_copy_of_a_data_directory_is_refused() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = on(&folder, "data", &cluster.url());
    launch.start().stop();
    let (data, older) = (folder.path().join("data"), folder.path().join("older"));
    let copied = std::process::Command::new("cp").arg("-r").args([&data, &older]).status();
    assert!(copied.expect("cp").success());
    let server = launch.start();
    let client = Client::new(&server.base());
    for number in 0..20 {
        client.post("/api/v1/metrics", &format!(r#"{{"metric_name": "calls-{number}"}}"#)).body();
    }
    server.stop();
    let older = on(&folder, "older", &cluster.url());
    says_in_one_sentence(&fails(&older).errors, &["the journal ends at epoch", "--data-dir"]);
}

#[test]
fn an_empty_data_directory_waits_for_its_database() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    cluster.stop_immediately();
    let server = on(&folder, "data", &cluster.url()).spawn();
    let waits = until(Duration::from_secs(20), || {
        if server.errors().contains("waits for its database") { Ok(()) } else { Err(()) }
    });
    assert!(waits.is_ok(), "{}", server.errors());
    cluster.start_again().expect("it starts");
    let begun = Instant::now();
    let ready = until(Duration::from_secs(20), || {
        let url = server.url().ok_or(())?;
        ureq::get(format!("{url}/readyz")).call().map(drop).map_err(drop)
    });
    assert!(ready.is_ok(), "{}", server.errors());
    println!("ready {:?} after its database", begun.elapsed());
}
