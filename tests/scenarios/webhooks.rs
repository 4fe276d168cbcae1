//! Messages about limits, as a receiver gets them: one for each edge, signed, again until it is taken, and none lost or doubled
//! by a crash.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::secrets::{WEBHOOK, raw_webhook_secret};
use super::support::api::{Client, Outcome, text};
use super::support::postgres::Cluster;
use super::support::server::{Launch, Server};
use super::support::{SECRET_KEY, until};

const FAILED: &str = "/admin/v1/webhooks/failed";
/// A message comes within two seconds; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(20);
/// The names of series whose crossing shows that what came before has been told begin with this.
const LAST: &str = "last.";

/// A message as it came.
#[derive(Clone, Debug)]
struct Heard {
    path: String,
    id: String,
    sent_at: String,
    signatures: Vec<String>,
    body: String,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a message is JSON")
    }

    /// Path, type, metric and percentage.
    fn gist(&self) -> (String, String, String, Option<u64>) {
        let json = self.json();
        let word = |value: &Value| value.as_str().expect("text").to_owned();
        let data = &json["data"];
        (self.path.clone(), word(&json["type"]), word(&data["metric_name"]), data["percent"].as_u64())
    }

    fn is_last(&self) -> bool {
        self.gist().2.starts_with(LAST)
    }

    /// What the Standard Webhooks say that a signature is.
    fn signature(&self, secret: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&raw_webhook_secret(secret)).expect("any length");
        mac.update(format!("{}.{}.{}", self.id, self.sent_at, self.body).as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// Somebody who takes messages.
pub struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Receiver {
    /// Answers with these, then with 204.
    pub fn start(answers: &[u16]) -> Receiver {
        Receiver::on(TcpListener::bind("127.0.0.2:0").expect("a port"), answers)
    }

    fn on(listener: TcpListener, answers: &[u16]) -> Receiver {
        let address = listener.local_addr().expect("bound");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (hears, mut answers) = (heard.clone(), VecDeque::from(answers.to_vec()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &mut answers, &hears);
            }
        });
        Receiver { address, heard }
    }

    /// A URL that leads to it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("no panic").clone()
    }

    /// But for those of `LAST`.
    fn ids(&self) -> BTreeSet<String> {
        self.heard().into_iter().filter(|heard| !heard.is_last()).map(|heard| heard.id).collect()
    }

    /// Waits for so many messages.
    fn hears(&self, count: usize) -> Vec<Heard> {
        let enough = || Some(self.heard()).filter(|heard| heard.len() >= count).ok_or_else(|| self.heard());
        until(LIMIT, enough).unwrap_or_else(|heard| panic!("{} of {count} came: {heard:#?}", heard.len()))
    }

    /// What it has heard once everything has been told that has happened so far, which must be so many messages; it hears
    /// everything. A crossing more is told behind all others.
    fn hears_just(&self, server: &Server, client: &Client, count: usize) -> Vec<Heard> {
        let metric_name = format!("{LAST}{}", self.heard().len());
        series(client, &metric_name, &json!({}));
        add(client, &metric_name, 10);
        let is_last = |heard: &Heard| heard.gist().2 == metric_name;
        let told = || if self.heard().iter().any(is_last) { Ok(()) } else { Err(self.heard()) };
        until(LIMIT, told).unwrap_or_else(|heard| panic!("{metric_name} is not told: {heard:#?}"));
        let waiting = "SELECT count(*) FROM messages WHERE state = 'waiting'";
        let none_waits = || if number(server, waiting) == Some(0) { Ok(()) } else { Err(()) };
        until(LIMIT, none_waits).expect("all are told");
        let heard: Vec<_> = self.heard().into_iter().filter(|heard| !heard.is_last()).collect();
        assert_eq!(heard.len(), count, "{heard:#?}");
        heard
    }
}

/// Reads one request and answers it; what is not a whole one is passed over.
fn answer(mut stream: TcpStream, answers: &mut VecDeque<u16>, hears: &Mutex<Vec<Heard>>) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    let (mut request, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        if let Some(heard) = whole(&String::from_utf8_lossy(&request)) {
            hears.lock().expect("no panic").push(heard);
            break;
        }
        match stream.read(&mut part) {
            Ok(read @ 1..) => request.extend_from_slice(&part[..read]),
            _ => return,
        }
    }
    let status = answers.pop_front().unwrap_or(204);
    let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

fn whole(request: &str) -> Option<Heard> {
    let (head, body) = request.split_once("\r\n\r\n")?;
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    if body.len() < header("content-length")?.parse().ok()? {
        return None;
    }
    Some(Heard {
        path: head.split(' ').nth(1)?.to_owned(),
        id: header("webhook-id")?,
        sent_at: header("webhook-timestamp")?,
        signatures: header("webhook-signature")?.split(' ').map(str::to_owned).collect(),
        body: body.to_owned(),
    })
}

fn start(data_dir: &Path) -> (Server, Client) {
    start_with(data_dir, &[])
}

fn start_with(data_dir: &Path, arguments: &[&str]) -> (Server, Client) {
    let launch =
        Launch::dev(data_dir).workers(2).with(arguments).environment("TRACKTAGS_SECRET_KEY", SECRET_KEY);
    let server = launch.environment("TRACKTAGS_PROXY_ALLOW", "127.0.0.2").start();
    let client = Client::new(&server.base());
    (server, client)
}

/// Sets the business's webhook; gives its secret.
fn hook(client: &Client, url: &str) -> String {
    text(&client.put(WEBHOOK, &json!({ "url": url }).to_string()).body(), "secret").expect("shown once")
}

/// A series that is breached at 10.
fn series(client: &Client, metric_name: &str, more: &Value) {
    let mut series = json!({"metric_name": metric_name, "limit_value": 10});
    series.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    client.post("/api/v1/metrics", &series.to_string()).body();
}

fn add(client: &Client, metric_name: &str, value: i64) {
    client.put(&format!("/api/v1/metrics/{metric_name}"), &json!({ "value": value }).to_string()).body();
}

/// The number that a query of the embedded store gives.
fn number(server: &Server, query: &str) -> Option<i64> {
    let store = rusqlite::Connection::open(server.data_dir().join("history.db")).ok()?;
    store.query_row(query, [], |row| row.get(0)).ok()
}

/// One of the figures of messages in `/metrics`.
fn figure(client: &Client, name: &str) -> u64 {
    let exposition = client.get("/metrics").body();
    let name = format!("tracktags_webhook_{name} ");
    let line = exposition.lines().find_map(|line| line.strip_prefix(&name));
    line.and_then(|figure| figure.parse().ok()).unwrap_or_else(|| panic!("no {name}: {exposition}"))
}

/// Whether so many messages wait and are dead, and so many attempts were taken and failed.
fn shown(client: &Client, waiting: u64, dead: u64, attempts: [u64; 2]) -> Result<(), [u64; 4]> {
    let names = ["messages{state=\"waiting\"}", "messages{state=\"dead\"}"];
    let outcomes = ["attempts{outcome=\"sent\"}", "attempts{outcome=\"failed\"}"];
    let [now_waiting, now_dead] = names.map(|name| figure(client, name));
    let [sent, failed] = outcomes.map(|name| figure(client, name));
    let seen = [now_waiting, now_dead, sent, failed];
    if seen == [waiting, dead, attempts[0], attempts[1]] { Ok(()) } else { Err(seen) }
}

fn admin(server: &Server, client: &Client, method: &str, path: &str) -> Outcome {
    let key = fs::read_to_string(server.data_dir().join("admin-key")).expect("the admin key is kept");
    client.with_key("none").call(method, path, &[("x-admin-key", key.trim())], "")
}

#[test]
fn each_edge_is_one_webhook_message_to_each_address_signed_with_every_live_secret() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (server, client) = start(&folder.path().join("data"));
    let receiver = Receiver::start(&[]);
    let (business, own) = (receiver.url("/business"), receiver.url("/own"));
    let first = hook(&client, &business);
    series(&client, "calls", &json!({"notify_at": [50, 80], "webhook_url": own}));
    series(&client, "same", &json!({ "webhook_url": business }));
    for value in [5, 3, 1, 2, -5] {
        add(&client, "calls", value);
    }
    add(&client, "same", 12);

    let heard = receiver.hears_just(&server, &client, 9);
    let gists: BTreeSet<_> = heard.iter().map(Heard::gist).collect();
    let mut expected = BTreeSet::new();
    for path in ["/business", "/own"] {
        let mut edge = |kind: &str, percent| {
            expected.insert((path.to_owned(), format!("limit.{kind}"), "calls".to_owned(), percent))
        };
        edge("threshold", Some(50));
        edge("threshold", Some(80));
        edge("breached", None);
        edge("recovered", None);
    }
    expected.insert(("/business".into(), "limit.breached".into(), "same".into(), None));
    assert_eq!(gists, expected);
    assert_eq!(receiver.ids().len(), 9, "ids differ: {heard:#?}");
    for heard in &heard {
        assert_eq!(heard.signatures, [heard.signature(&first)], "{heard:#?}");
        let age = jiff::Timestamp::now().as_second() - heard.sent_at.parse::<i64>().expect("seconds");
        assert!((0..60).contains(&age), "{heard:#?}");
    }
    let breached = heard.iter().find(|heard| heard.gist().2 == "same").expect("it came").json();
    let data = json!({
        "business_id": "biz_demo", "scope": "business", "metric_name": "same", "current_value": 12.0,
        "limit_value": 10.0, "limit_operator": "gte", "breach_action": "allow",
        "period": breached["data"]["period"],
    });
    assert_eq!(breached["data"], data);
    assert!(breached["data"]["period"]["start"].is_string(), "{breached}");

    let second = hook(&client, &business);
    add(&client, "same", -5);
    let heard = receiver.hears(11).pop().expect("it came");
    assert_eq!(heard.gist().1, "limit.recovered");
    assert_eq!(heard.signatures, [heard.signature(&second), heard.signature(&first)]);
}

#[test]
fn a_webhook_that_fails_hangs_or_is_not_there_delays_no_update_and_gets_its_message_later() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_server, client) = start(&folder.path().join("data"));
    let bound = || TcpListener::bind("127.0.0.2:0").expect("a port");
    let url = |listener: &TcpListener| format!("http://{}/", listener.local_addr().expect("bound"));
    let failing = Receiver::start(&[500]);
    // One takes connections and says nothing, the other one does not even do that.
    let (hanging, absent) = (bound(), bound());
    hook(&client, &failing.url("/"));
    series(&client, "failing", &json!({}));
    series(&client, "hanging", &json!({ "webhook_url": url(&hanging) }));
    series(&client, "absent", &json!({ "webhook_url": url(&absent) }));
    let address = absent.local_addr().expect("bound");
    drop(absent);
    add(&client, "absent", 10);
    add(&client, "hanging", 10);
    add(&client, "failing", 10);
    let begun = Instant::now();
    for _ in 0..50 {
        let before = Instant::now();
        add(&client, "absent", 1);
        assert!(before.elapsed() < Duration::from_secs(3), "an update took {:?}", before.elapsed());
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "50 updates took {:?}", begun.elapsed());

    let hanging = Receiver::on(hanging, &[]);
    let absent = Receiver::on(TcpListener::bind(address).expect("its port is free"), &[]);

    let heard = failing.hears(4);
    let id = &heard[0].id;
    let same: Vec<_> = heard.iter().filter(|heard| heard.id == *id).collect();
    assert_eq!((same.len(), failing.ids().len()), (2, 3), "the first is told again: {heard:#?}");
    let apart =
        same[1].sent_at.parse::<i64>().expect("seconds") - same[0].sent_at.parse::<i64>().expect("seconds");
    assert!((4..10).contains(&apart), "told again after {apart} s");
    assert_eq!(same[0].body, same[1].body);

    assert_eq!(hanging.hears(1)[0].gist().2, "hanging");
    assert_eq!(absent.hears(1)[0].gist().2, "absent");
}

#[test]
fn webhook_messages_outlive_kills_and_those_that_come_twice_have_one_id() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let receiver = Receiver::start(&[]);
    let (mut server, mut client) = start(&data_dir);
    hook(&client, &receiver.url("/"));
    series(&client, "calls", &json!({}));
    for pause_ms in [0, 900, 1_600] {
        for value in [10, -10, 10, -10] {
            add(&client, "calls", value);
        }
        std::thread::sleep(Duration::from_millis(pause_ms));
        server.kill();
        (server, client) = start(&data_dir);
    }
    let all = || Some(receiver.ids()).filter(|ids| ids.len() >= 12).ok_or_else(|| receiver.ids());
    until(LIMIT, all).expect("each of 12 edges is told");
    let before = receiver.heard().iter().filter(|heard| !heard.is_last()).count();
    receiver.hears_just(&server, &client, before);
    server.kill();
    (server, client) = start(&data_dir);
    let heard = receiver.hears_just(&server, &client, before);
    assert_eq!(receiver.ids().len(), 12, "as many ids as edges: {heard:#?}");
    let contents: BTreeSet<_> = heard.iter().map(|heard| (&heard.id, &heard.body)).collect();
    assert_eq!(contents.len(), 12, "an id is of one message: {heard:#?}");
}

/// Waits until a snapshot is taken that was begun from now on; updates keep them coming.
fn snapshot(server: &Server, client: &Client) {
    let newest = || {
        let files = fs::read_dir(server.data_dir().join("journal")).expect("a journal").flatten();
        let names = files.map(|file| file.file_name().into_string().expect("a name"));
        names.filter(|name| name.starts_with("snapshot-") && !name.contains('.')).max()
    };
    // The first one may have been under way.
    for _ in 0..2 {
        let before = newest();
        let is_newer = || {
            add(client, "other", 1);
            if newest() > before { Ok(()) } else { Err(()) }
        };
        until(LIMIT, is_newer).expect("a snapshot is taken");
    }
}

#[test]
fn webhook_messages_that_the_database_lacks_are_in_the_snapshot_and_need_no_other_event() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let receiver = Receiver::start(&[]);
    let (server, client) = start_with(&data_dir, &["--snapshot-interval", "1s"]);
    hook(&client, &receiver.url("/"));
    // No window of theirs is due to be written: nothing but a crossing asks for a time entry.
    let unkept = json!({"integrations": {"supabase": {"enabled": false}}});
    series(&client, "calls", &json!({ "metadata": unkept }));
    series(&client, "other", &json!({"metadata": unkept, "limit_value": 1_000_000}));
    add(&client, "calls", 10);
    receiver.hears(1);
    let store = rusqlite::Connection::open(data_dir.join("history.db")).expect("it is there");
    store.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes for long");
    add(&client, "calls", -5);
    snapshot(&server, &client);
    assert_eq!(receiver.ids().len(), 1, "the database takes nothing: {:#?}", receiver.heard());
    server.kill();
    store.execute_batch("ROLLBACK").expect("it was begun");
    let _started = start(&data_dir);
    let heard = || Some(()).filter(|()| receiver.ids().len() == 2).ok_or_else(|| receiver.heard());
    until(LIMIT, heard).expect("the recovery is told");
}

#[test]
fn webhook_messages_go_through_postgres_as_well() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (cluster, data_dir) = (Cluster::start(), folder.path().join("data"));
    let (receiver, url) = (Receiver::start(&[410]), cluster.url());
    let (server, client) = start_with(&data_dir, &["--database-url", &url]);
    hook(&client, &receiver.url("/"));
    series(&client, "calls", &json!({}));
    add(&client, "calls", 10);
    let id = receiver.hears(1).remove(0).id;
    let retry = || match admin(&server, &client, "POST", &format!("/admin/v1/webhooks/retry/{id}")) {
        Outcome::Durable(_) => Ok(()),
        other => Err(other),
    };
    until(LIMIT, retry).expect("it is dead, and tried again");
    assert_eq!(receiver.hears(2)[1].id, id);
    add(&client, "calls", -10);
    server.kill();
    let (server, _) = start_with(&data_dir, &["--database-url", &url]);
    receiver.hears(3);
    assert_eq!(receiver.ids().len(), 2, "{:#?}", receiver.heard());
    server.stop();
}

#[test]
fn a_webhook_that_is_gone_leaves_a_dead_message_that_can_be_retried() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (server, client) = start(&folder.path().join("data"));
    let receiver = Receiver::start(&[410, 410]);
    hook(&client, &receiver.url("/"));
    series(&client, "calls", &json!({}));
    add(&client, "calls", 10);
    add(&client, "calls", -10);
    let failed = |path: &str| -> Value {
        serde_json::from_str(&admin(&server, &client, "GET", path).body()).expect("JSON")
    };
    let both = || Some(failed(FAILED)).filter(|page| page["count"] == 2).ok_or(());
    let page = until(LIMIT, both).expect("both are dead");
    until(LIMIT, || shown(&client, 0, 2, [0, 2])).expect("two are dead");
    let ready = client.get("/readyz").body();
    assert_eq!(ready, r#"{"status":"degraded","reasons":["webhook_messages_dead"]}"#);
    assert_eq!(page["next_cursor"], Value::Null, "{page}");
    for dead in page["failed"].as_array().expect("a list") {
        let sent = receiver.heard().into_iter().find(|heard| dead["event_id"] == *heard.id).expect("sent");
        assert_eq!((&dead["payload"], &dead["type"]), (&sent.json(), &sent.json()["type"]), "{dead}");
        assert_eq!((&dead["attempts"], &dead["business_id"]), (&json!(1), &json!("biz_demo")), "{dead}");
        assert_eq!(
            (&dead["url"], &dead["created_at"]),
            (&json!(receiver.url("/")), &sent.json()["timestamp"])
        );
        assert!(dead["last_error"].as_str().is_some_and(|why| why.contains("410")), "{dead}");
    }
    let first = failed(&format!("{FAILED}?limit=1"));
    let cursor = first["next_cursor"].as_str().expect("there is another page");
    assert_eq!(first["failed"][0], page["failed"][0]);
    assert_eq!(failed(&format!("{FAILED}?cursor={cursor}"))["failed"], json!([page["failed"][1]]));

    let retry = |id: &str| admin(&server, &client, "POST", &format!("/admin/v1/webhooks/retry/{id}"));
    retry("msg_absent").refused(404, "event_not_found");
    let id = page["failed"][1]["event_id"].as_str().expect("text");
    let told: Value = serde_json::from_str(&retry(id).body()).expect("JSON");
    assert_eq!(told, json!({"status": "retrying", "event_id": id}));
    assert_eq!(receiver.hears(3)[2].id, id);
    retry(id).refused(404, "event_not_found");
    assert_eq!(failed(FAILED)["count"], 1);
    until(LIMIT, || shown(&client, 0, 1, [1, 2])).expect("one is dead, and the other was sent");
    client.get(FAILED).refused(401, "unauthorized");
}

#[test]
fn a_business_that_ends_takes_its_webhook_messages_along() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (server, client) = start(&folder.path().join("data"));
    let receiver = Receiver::start(&[410, 500, 500, 500, 500]);
    hook(&client, &receiver.url("/"));
    series(&client, "calls", &json!({}));
    add(&client, "calls", 10);
    let says = |name: &str, wanted: u64| match figure(&client, name) {
        seen if seen == wanted => Ok(()),
        seen => Err(seen),
    };
    let [waiting, dead] = ["waiting", "dead"].map(|state| format!(r#"messages{{state="{state}"}}"#));
    until(LIMIT, || says(&dead, 1)).expect("one is given up");
    add(&client, "calls", -10);
    until(LIMIT, || says("attempts{outcome=\"failed\"}", 2)).expect("one is to be tried again");
    until(LIMIT, || says(&waiting, 1)).expect("one is to be tried again");
    admin(&server, &client, "DELETE", "/api/v1/businesses/biz_demo").body();
    until(LIMIT, || says(&waiting, 0).and(says(&dead, 0))).expect("none is kept");
    assert_eq!(client.get("/readyz").body(), r#"{"status":"ok","reasons":[]}"#);
}

#[test]
fn an_edit_of_a_plan_limit_sends_a_webhook_message_and_nothing_is_told_that_came_before_the_webhook() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let receiver = Receiver::start(&[]);
    let (server, client) = start(&data_dir);
    series(&client, "calls", &json!({}));
    add(&client, "calls", 10);
    let id = |body: String| text(&body, "id").expect("what is made has an id");
    let plan_id = id(client.post("/api/v1/plans", r#"{"plan_name": "Free"}"#).body());
    let limit = json!({"plan_id": plan_id, "metric_name": "units", "limit_value": 100});
    let limit_id = id(client.post("/api/v1/plan_limits", &limit.to_string()).body());
    client.put("/api/v1/customers/c", &json!({"name": "C", "plan_id": plan_id}).to_string()).body();
    client.put("/api/v1/metrics/units?scope=customer&customer_id=c", r#"{"value": 50}"#).body();
    let passed = "SELECT upper FROM sink_progress WHERE class = 'messages'";
    until(LIMIT, || number(&server, passed).ok_or(())).expect("nobody is to hear of the crossing");
    hook(&client, &receiver.url("/"));
    receiver.hears_just(&server, &client, 0);

    client.put(&format!("/api/v1/plan_limits/{limit_id}"), r#"{"limit_value": 40}"#).body();
    let heard = receiver.hears_just(&server, &client, 1).remove(0).json();
    assert_eq!((&heard["type"], &heard["data"]["customer_id"]), (&json!("limit.breached"), &json!("c")));
    assert_eq!(
        (&heard["data"]["current_value"], &heard["data"]["limit_value"]),
        (&json!(50.0), &json!(40.0))
    );
    server.stop();
    let (server, client) = start(&data_dir);
    receiver.hears_just(&server, &client, 1);
}
