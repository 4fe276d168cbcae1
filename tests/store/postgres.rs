//! What only PostgreSQL has: the claim on a schema, the way back from tables to definitions, TLS.

use std::process::Command;
use std::sync::Arc;

use dataflows::types::{
    Actor, AuditEntry, Definition, LiveState, Operation, RowKind, SeriesId, SeriesRecord, SeriesSpec, Span,
};
use tracktags::store::{ALL_SERIES, AuditQuery, Claim, Part, PostgresStore, Store, StoreError, Target};

use super::reading::described;
use super::support::*;
use super::support_postgres::Cluster;

fn claiming(url: &str, journal: &str, take_over: bool, adopt: bool) -> PostgresStore {
    let claim = Claim { journal_id: journal.into(), take_over, adopt };
    PostgresStore::new(target(url), claim).expect("a runtime")
}

fn nothing(journal_id: &str) -> Part<'_> {
    Part { journal_id, definitions: &[], rows: None }
}

#[test]
fn the_newest_start_writes_and_an_older_one_never_again() {
    let cluster = Cluster::start();
    let (mut older, mut newer) = (store_of(&cluster.url(), JOURNAL), store_of(&cluster.url(), JOURNAL));
    define(&mut older, 1, vec![created(1)]);
    put_whole(&mut newer, 2, &[row(1, 100, &[1], 1)]);
    for _ in 0..2 {
        let refused = put(&mut older, 3, &[row(1, 100, &[9], 9)], ALL_SERIES);
        assert!(matches!(refused, Err(StoreError::Fenced(_))), "{refused:?}");
        assert!(matches!(older.heartbeat(), Err(StoreError::Fenced(_))));
        assert!(matches!(older.progress(), Err(StoreError::Fenced(_))), "it does not even ask any more");
    }
    put_whole(&mut newer, 4, &[row(1, 105, &[1], 2)]);
    assert_eq!(newer.progress().expect("readable").classes[&Span::S15], (4, ALL_SERIES));
}

#[test]
fn another_journal_takes_a_schema_only_when_it_is_empty_and_the_other_is_gone() {
    let cluster = Arc::new(Cluster::start());
    let url = cluster.url();
    let mut first = store_of(&url, JOURNAL);
    let told = |action: &str| {
        let (action, business_id, subject) = (action.to_owned(), "biz_1".to_owned(), "s".to_owned());
        let entry =
            AuditEntry { at: T0, actor: Actor::Admin, action, business_id, subject, request_id: None };
        Definition::Audited(entry)
    };
    define(&mut first, 6, vec![created(1), told("one")]);
    define(&mut first, 7, vec![told("two"), told("three")]);
    let refused = |mut store: PostgresStore| match store.progress() {
        Err(StoreError::Fatal(sentence)) => sentence,
        other => panic!("not refused: {other:?}"),
    };
    assert!(refused(claiming(&url, "journal-2", true, false)).contains("belongs to journal journal-1"));
    assert!(refused(claiming(&url, "journal-2", false, true)).contains("--take-over"));
    first.heartbeat().expect("still the writer");
    let mut second = claiming(&url, "journal-2", true, true);
    let progress = second.progress().expect("taken over");
    let mut epochs = progress.classes.values().map(|(upper, _)| *upper).chain([progress.definitions]);
    assert!(epochs.all(|upper| upper == 0), "epochs of another journal mean nothing: {progress:?}");
    assert!(matches!(first.commit(&nothing(JOURNAL)), Err(StoreError::Fenced(_))));
    let one =
        Part { journal_id: "journal-2", definitions: &[(1, told("four")), (7, told("five"))], rows: None };
    second.commit(&one).expect("committed");
    // An hour without a heartbeat.
    let sql = "UPDATE tracktags.writer SET heartbeat_at = now() - interval '1 hour'";
    cluster.connect().batch_execute(sql).expect("aged");
    claiming(&url, "journal-3", false, true).progress().expect("nobody is there any more");
    assert!(matches!(second.commit(&nothing("journal-2")), Err(StoreError::Fenced(_))));
    let mut fourth = claiming(&url, "journal-4", true, true);
    let six = Part { journal_id: "journal-4", definitions: &[(7, told("six"))], rows: None };
    fourth.commit(&six).expect("committed");
    let query = AuditQuery { business_id: Some("biz_1".into()), before: None, limit: 100 };
    let database = Database::existing(&cluster, &url);
    let mut log = database.reader().audit(&query).expect("readable");
    let actions: Vec<_> = log.iter().map(|row| row.entry.action.as_str()).collect();
    assert_eq!(actions, ["six", "five", "four", "three", "two", "one"], "in order over four journals");
    let (third, rest) = (log[2].clone(), log.split_off(3));
    let before = Some((third.epoch, third.index));
    assert_eq!(database.reader().audit(&AuditQuery { before, ..query }), Ok(rest));
}

#[test]
fn first_starts_at_once_make_one_schema_and_the_last_of_them_writes() {
    let cluster = Cluster::start();
    let url = cluster.url();
    for round in 0..4 {
        let schema = format!("first_{round}");
        let gate = std::sync::Barrier::new(4);
        let start = || {
            let target = Target::new(&url, &schema).expect("usable");
            let claim = Claim { journal_id: JOURNAL.into(), take_over: false, adopt: false };
            let mut store = PostgresStore::new(target, claim).expect("a runtime");
            gate.wait();
            store.progress().expect("a first start like any other");
            store
        };
        let mut stores: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            starts.into_iter().map(|start| start.join().expect("started")).collect()
        });
        let writing = stores.iter_mut().filter_map(|store| store.heartbeat().ok()).count();
        assert_eq!(writing, 1, "one is the last");
        let select = format!("SELECT count(*), count(DISTINCT version) FROM {schema}.schema_migrations");
        let applied = cluster.connect().query_one(&select, &[]).expect("readable");
        assert_eq!(applied.get::<_, i64>(0), applied.get::<_, i64>(1));
        let fence = cluster.connect().query_one(&format!("SELECT fence FROM {schema}.writer"), &[]);
        assert_eq!(fence.expect("readable").get::<_, i64>(0), 4);
    }
}

#[test]
fn what_was_projected_comes_back_as_it_was() {
    let cluster = Cluster::start();
    let mut store = store_of(&cluster.url(), JOURNAL);
    let odd = "quote ' \" back \\ tab \t new \n \u{1F4C8} \u{202e} $1 {schema} --";
    let custom = "{\"zero\": \"\\u0000\", \"half\": \"\\ud800\", \"n\": 1e400,   \"a\":1, \"a\":2}";
    let spec = SeriesSpec {
        tags: [(odd.replace(['\t', '\n'], ""), odd.replace(['\t', '\n'], ""))].into(),
        custom: custom.to_owned(),
        ..described()
    };
    let renamed = |series: u32, spec: SeriesSpec| match created_as(series, spec) {
        Definition::SeriesCreated(record) => {
            Definition::SeriesCreated(SeriesRecord { created_at: at(9), ..record })
        }
        other => other,
    };
    let tenants = super::reading::tenants(odd);
    let mut definitions = tenants.clone();
    definitions.extend([created(1), Definition::SeriesChanged { series: SeriesId(1), spec: spec.clone() }]);
    definitions.push(renamed(4, SeriesSpec { operation: Operation::Max, ..spec.clone() }));
    definitions.extend([created(8), deleted(8)]);
    define(&mut store, 3, definitions);
    let content = store.content(T0).expect("readable");
    let series = [created_as(1, spec.clone()), renamed(4, SeriesSpec { operation: Operation::Max, ..spec })];
    let expected: Vec<_> = tenants.into_iter().chain(series).collect();
    assert_eq!(content.definitions, expected);
    assert_eq!(content.next_series, SeriesId(5));
}

#[test]
fn live_periods_and_last_rows_come_back_and_numbers_are_not_used_again() {
    let cluster = Cluster::start();
    let mut store = store_of(&cluster.url(), JOURNAL);
    define(&mut store, 1, vec![created(1), created(2), created(9)]);
    let now = T0.seconds();
    // Far back, the newest; far back and open; nothing.
    let rows: Vec<_> = [-900, -100]
        .map(|ago| row(1, now + ago, &[1, 2], 3))
        .into_iter()
        .chain((-50..2).map(|window| row(2, now + 5 * window, &[window], window)))
        .chain([row(9, now, &[1], 1)])
        .collect();
    let period = LiveState { period_start: Some(at(3)), ..state(2, &[5]) };
    put_all(&mut store, 2, &rows, &[state(1, &[1, 2]), period], ALL_SERIES).expect("committed");
    define(&mut store, 3, vec![deleted(9)]);
    let content = store.content(T0).expect("readable");
    assert_eq!(content.states, [state(1, &[1, 2]), period]);
    assert_eq!(content.next_series, SeriesId(10), "the rows of a deleted series are there");
    let starts: Vec<_> =
        content.rows.iter().map(|row| (row.series.0, row.window_start.seconds() - now)).collect();
    let last = (-7..2).map(|window| (2, 5 * window));
    assert_eq!(starts, [(1, -100)].into_iter().chain(last).collect::<Vec<_>>());
    assert!(content.rows.iter().all(|row| row.kind == RowKind::Absolute));
    assert_eq!(content.rows[0], row(1, now - 100, &[1, 2], 3));
}

/// A key and a certificate for `name`, signed by a CA of its own: (CA, certificate, key) as PEM.
fn certificate(folder: &std::path::Path, name: &str) -> (String, String, String) {
    let script = format!(
        "set -e; cd '{}'; openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt \
         -addext basicConstraints=critical,CA:TRUE;
         openssl req -newkey rsa:2048 -nodes -subj /CN={name} -keyout server.key -out server.csr;
         printf 'subjectAltName=DNS:{name}\n' >ext;
         openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt",
        folder.display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).expect("written");
    (read("ca.crt"), read("server.crt"), read("server.key"))
}

#[test]
fn tls_is_checked_as_far_as_sslmode_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_, certificate_pem, key) = certificate(folder.path(), "localhost");
    let stranger = tempfile::tempdir().expect("a temporary folder");
    certificate(stranger.path(), "localhost");
    let cluster = Cluster::start();
    cluster.put_private("server.crt", &certificate_pem);
    cluster.put_private("server.key", &key);
    cluster.connect().batch_execute("ALTER SYSTEM SET ssl = on").expect("set");
    cluster.signal("HUP");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let own = folder.path().join("ca.crt").display().to_string();
    let foreign = stranger.path().join("ca.crt").display().to_string();
    let open = |host: &str, rest: &str| {
        let url = cluster.url().replace("127.0.0.1", host);
        PostgresStore::migrate(&Target::new(&format!("{url}?{rest}"), SCHEMA).expect("usable"))
    };
    let refused = |host: &str, rest: &str| match open(host, rest) {
        Err(StoreError::Fatal(sentence)) => {
            assert!(sentence.contains("certificate") && sentence.contains("sslrootcert"), "{sentence}");
        }
        other => panic!("{host} {rest}: {other:?}"),
    };
    for (host, rest) in [
        ("127.0.0.1", "sslmode=disable".to_owned()),
        ("127.0.0.1", "sslmode=prefer".to_owned()),
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={own}")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={own}")),
    ] {
        open(host, &rest).unwrap_or_else(|error| panic!("{host} {rest}: {error}"));
    }
    refused("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={own}"));
    refused("localhost", &format!("sslmode=verify-full&sslrootcert={foreign}"));
    refused("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={foreign}"));
    refused("127.0.0.1", &format!("sslmode=require&sslrootcert={foreign}"));
    // A server that insists: without TLS nobody gets in.
    cluster.admit_first("hostnossl all all 127.0.0.1/32 reject");
    assert!(matches!(open("127.0.0.1", "sslmode=disable"), Err(StoreError::Fatal(_))));
    open("127.0.0.1", "sslmode=require").expect("encrypted");
}
