//! The proxy from outside: it asks the limits first, forwards what is allowed as it is, and reaches nothing that it may not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::support::api::{Client, Outcome, text};
use super::support::server::{Launch, Server};

/// A target that answers whatever it is asked with one answer, and keeps what it heard.
struct Target {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Target {
    fn start(ip: &str, answer: &'static str) -> Target {
        let listener = TcpListener::bind((ip, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = Vec::new();
                let mut part = [0; 4_096];
                // A head, and as much of a body as it says.
                while let Ok(read) = stream.read(&mut part) {
                    request.extend_from_slice(&part[..read]);
                    let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
                    let length =
                        text.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
                    let body = length.and_then(|length| length.parse().ok()).unwrap_or(0);
                    let end = text.find("\r\n\r\n").map(|at| at + 4 + body);
                    if read == 0 || end.is_some_and(|end| request.len() >= end) {
                        break;
                    }
                }
                hears.lock().expect("no panic").push(String::from_utf8_lossy(&request).into_owned());
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Target { address, heard }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("no panic").drain(..).collect()
    }
}

const OK: &str =
    "HTTP/1.1 201 Created\r\nX-Answer: yes\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
const REDIRECT: &str = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/secret\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A server that may reach 127.0.0.2 and no other private address.
fn start(folder: &tempfile::TempDir) -> Server {
    start_allowing(folder, "127.0.0.2")
}

fn start_allowing(folder: &tempfile::TempDir, networks: &str) -> Server {
    let launch = Launch::dev(folder.path().join("data")).workers(2);
    launch.environment("TRACKTAGS_PROXY_ALLOW", networks).start()
}

/// A customer with two limited series; `calls` denies.
fn customer(client: &Client) {
    client.put("/api/v1/customers/a", r#"{"name": "A"}"#).body();
    let path = "/api/v1/metrics?scope=customer&customer_id=a";
    client.post(path, r#"{"metric_name": "calls", "limit_value": 2, "breach_action": "deny"}"#).body();
    client
        .post(path, r#"{"metric_name": "bytes", "limit_value": 1, "breach_action": "allow_overage"}"#)
        .body();
}

fn use_one(client: &Client, metric_name: &str) {
    let path = format!("/api/v1/metrics/{metric_name}?scope=customer&customer_id=a");
    client.put(&path, r#"{"value": 1}"#).body();
}

/// A key of customer `a`.
fn key_of_customer(own: &Client) -> Client {
    let path = "/api/v1/businesses/biz_demo/customers/a/keys";
    let made = own.post(path, r#"{"key_type": "customer_api", "key_name": "k"}"#);
    own.with_key(&text(&made.body(), "api_key").expect("a key"))
}

fn forward(client: &Client, call: Value) -> Outcome {
    client.post("/api/v1/proxy", &call.to_string())
}

fn body(outcome: Outcome) -> Value {
    serde_json::from_str(&outcome.body()).expect("JSON")
}

fn denied(outcome: Outcome) -> Value {
    let Outcome::Rejected(429, text) = outcome else { panic!("{outcome:?}") };
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn what_is_allowed_is_forwarded_and_what_is_breached_is_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&folder);
    let own = Client::new(&server.base());
    customer(&own);
    let theirs = key_of_customer(&own);
    let target = Target::start("127.0.0.2", OK);
    let call = |metric_name: &str| {
        json!({"metric_name": metric_name, "scope": "customer", "customer_id": "a", "method": "POST",
               "target_url": target.url("/v1/things?x=1"), "body": {"a": 1.50},
               "headers": {"X-Own": "1", "X-TrackTags-Key": "2", "Connection": "x-own-hop", "X-Own-Hop": "3",
                           "Host": "other"}})
    };

    // Both kinds of key; a customer's own key need not say who it is.
    for client in [&own, &theirs] {
        let said = body(forward(client, call("calls")));
        assert_eq!(said["status"], "allowed", "{said}");
        assert_eq!(said["forwarded_response"]["status_code"], 201, "{said}");
        assert_eq!(said["forwarded_response"]["body"], "hello", "{said}");
        assert_eq!(said["forwarded_response"]["headers"]["x-answer"], "yes", "{said}");
        let heard = target.heard().join("").to_ascii_lowercase();
        assert!(heard.starts_with("post /v1/things?x=1 http/1.1\r\n"), "{heard}");
        assert!(
            heard.contains("x-own: 1\r\n") && heard.contains("content-type: application/json"),
            "{heard}"
        );
        assert!(heard.ends_with(r#"{"a":1.5}"#), "{heard}");
        for dropped in ["x-tracktags", "x-own-hop", "host: other", "authorization"] {
            assert!(!heard.contains(dropped), "{dropped}: {heard}");
        }
    }
    let mut short = call("calls");
    for implied in ["scope", "customer_id"] {
        short.as_object_mut().expect("an object").remove(implied);
    }
    assert_eq!(body(forward(&theirs, short))["status"], "allowed");
    let mut of_business = call("calls");
    of_business["scope"] = "business".into();
    of_business.as_object_mut().expect("an object").remove("customer_id");
    forward(&theirs, of_business).refused(403, "customer_key");

    // One metric over its limit, which lets it; the empty name looks at all.
    use_one(&own, "bytes");
    let said = body(forward(&theirs, call("bytes")));
    assert_eq!((&said["breach_status"]["is_breached"], &said["status"]), (&json!(true), &json!("allowed")));
    assert_eq!(body(forward(&theirs, call("")))["status"], "allowed");
    target.heard();
    use_one(&own, "calls");
    use_one(&own, "calls");
    for metric_name in ["calls", ""] {
        let said = denied(forward(&theirs, call(metric_name)));
        assert_eq!((&said["status"], &said["error"]), (&json!("denied"), &json!("Plan limit exceeded")));
        assert_eq!(said["breach_status"]["metric_name"], "calls", "{said}");
        assert_eq!(said["breach_status"]["current_usage"].as_f64(), Some(2.0), "{said}");
        assert_eq!(said["breach_status"]["breach_action"], "deny", "{said}");
        assert_eq!(said["resets_at"], Value::Null, "{said}");
    }
    assert!(target.heard().is_empty(), "a target hears nothing of what is denied");
    assert_eq!(body(forward(&theirs, call("bytes")))["status"], "allowed");
    forward(&own, call("absent")).refused(404, "metric_not_found");
}

#[test]
fn nothing_is_reached_that_may_not_be_and_redirects_are_handed_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&folder);
    let client = Client::new(&server.base());
    customer(&client);
    let (canary, redirects) = (Target::start("127.0.0.1", OK), Target::start("127.0.0.2", REDIRECT));
    let port = canary.address.port();
    let call =
        |target_url: &str| json!({"metric_name": "calls", "customer_id": "a", "target_url": target_url});
    let mut texts = std::collections::BTreeSet::new();
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ] {
        let outcome = forward(&client, call(&format!("http://{host}:{port}/")));
        let Outcome::Rejected(403, text) = outcome else { panic!("{host}: {outcome:?}") };
        let said: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(said["code"], "target_not_allowed", "{host}: {said}");
        texts.insert(said["detail"].to_string());
    }
    for elsewhere in ["http://10.1.2.3/", "http://169.254.169.254/latest/meta-data", "http://192.0.2.1:8080/"]
    {
        let outcome = forward(&client, call(elsewhere));
        let Outcome::Rejected(403, text) = outcome else { panic!("{elsewhere}: {outcome:?}") };
        let said: Value = serde_json::from_str(&text).expect("JSON");
        texts.insert(said["detail"].to_string());
    }
    assert_eq!(texts.len(), 1, "one text for all reasons: {texts:?}");
    let said = body(forward(&client, call(&redirects.url("/"))));
    assert_eq!(said["forwarded_response"]["status_code"], 302, "{said}");
    assert_eq!(said["forwarded_response"]["headers"]["location"], "http://127.0.0.1/secret", "{said}");
    assert_eq!(redirects.heard().len(), 1, "the one that may be reached is");
    assert!(canary.heard().is_empty(), "the one that may not be is not");

    // Nobody listens there any more.
    let closed = TcpListener::bind("127.0.0.2:0").expect("a port").local_addr().expect("bound");
    let outcome = forward(&client, call(&format!("http://{closed}/")));
    let Outcome::Unknown(said) = &outcome else { panic!("{outcome:?}") };
    assert!(said.starts_with("502") && said.contains("target_unreachable"), "{said}");
    for wrong in ["ftp://example.com/", "http://user:word@example.com/", "/relative", ""] {
        forward(&client, call(wrong)).refused(400, "invalid_target");
    }
    let mut odd = call(&redirects.url("/"));
    odd["method"] = "BREW".into();
    forward(&client, odd).refused(400, "invalid_target");
}

const TARGETS: &str = "/api/v1/businesses/biz_demo/proxy_targets";

/// Binds the customer keys; what the answer and a reading then say.
fn bind(own: &Client, origins: &[&str]) -> Vec<String> {
    let put = body(own.put(TARGETS, &json!({ "proxy_targets": origins }).to_string()));
    let read = body(own.get(TARGETS));
    assert_eq!((&put["status"], &put["proxy_targets"]), (&json!("updated"), &read["proxy_targets"]));
    serde_json::from_value(read["proxy_targets"].clone()).expect("a list of strings")
}

/// What a refused call was told, but for its id.
fn not_allowed(client: &Client, metric_name: &str, target_url: &str) -> Value {
    let call = json!({"metric_name": metric_name, "customer_id": "a", "target_url": target_url});
    let outcome = forward(client, call);
    let Outcome::Rejected(403, text) = outcome else { panic!("{target_url}: {outcome:?}") };
    let mut said: Value = serde_json::from_str(&text).expect("JSON");
    said.as_object_mut().expect("an object").remove("request_id");
    assert_eq!(said["code"], "target_not_allowed", "{target_url}: {said}");
    said
}

fn is_reached(client: &Client, target_url: &str) {
    let call = json!({"metric_name": "bytes", "customer_id": "a", "target_url": target_url});
    assert_eq!(body(forward(client, call))["forwarded_response"]["status_code"], 201, "{target_url}");
}

#[test]
fn customer_keys_reach_the_listed_origins_and_no_others_also_after_a_kill() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start_allowing(&folder, "127.0.0.0/8,::1");
    let own = Client::new(&server.base());
    customer(&own);
    let theirs = key_of_customer(&own);
    let (listed, other) = (Target::start("127.0.0.1", OK), Target::start("127.0.0.1", OK));
    let port = listed.address.port();
    is_reached(&theirs, &other.url("/"));
    assert_eq!(other.heard().len(), 1, "nothing binds it yet");

    let odd = [format!("HTTP://0x7f.1:{port}"), format!("http://127.0.0.1.:{port}")];
    let origins = bind(&own, &[&odd[0], &odd[1], "http://10.1.2.3:80"]);
    assert_eq!(origins, ["http://10.1.2.3".to_owned(), format!("http://127.0.0.1:{port}")]);
    for host in ["127.0.0.1", "127.0.0.1.", "2130706433", "0177.0.0.1"] {
        is_reached(&theirs, &format!("http://{host}:{port}/v1?x=1"));
    }
    assert_eq!(listed.heard().len(), 4, "one origin, however it is written");

    // What the guard says of an address, word for word; whatever the limit would say, and whether there is a metric.
    let guarded = not_allowed(&own, "bytes", "http://10.1.2.3/");
    use_one(&own, "calls");
    use_one(&own, "calls");
    for metric_name in ["bytes", "calls", "absent", ""] {
        assert_eq!(not_allowed(&theirs, metric_name, &other.url("/")), guarded, "{metric_name}");
    }
    for elsewhere in [
        format!("https://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        "http://127.0.0.1/".to_owned(),
        "http://example.com/".to_owned(),
        "http://10.1.2.3/".to_owned(),
    ] {
        assert_eq!(not_allowed(&theirs, "bytes", &elsewhere), guarded, "{elsewhere}");
    }
    // A name with a dot at its end is asked for as it is, and is another one.
    bind(&own, &[&format!("http://LOCALHOST:{port}")]);
    assert_eq!(not_allowed(&theirs, "bytes", &format!("http://localhost.:{port}/")), guarded);
    assert_eq!(not_allowed(&theirs, "bytes", &listed.url("/")), guarded);
    is_reached(&theirs, &format!("http://localhost:{port}/"));
    assert_eq!(listed.heard().len(), 1, "connections are answered one by one: there was no other before");
    is_reached(&own, &other.url("/"));
    assert_eq!(
        other.heard().len(),
        1,
        "a business key is not bound, and there was no other connection before"
    );

    // A bad list changes nothing.
    let outcome = own.put(TARGETS, r#"{"proxy_targets": ["http://a.example", "http://b.example/path"]}"#);
    let Outcome::Rejected(400, said) = outcome else { panic!("{outcome:?}") };
    assert_eq!(text(&said, "field").as_deref(), Some("proxy_targets[1]"), "{said}");
    server.kill();

    let server = start_allowing(&folder, "127.0.0.0/8,::1");
    let own = Client::new(&server.base());
    let theirs = theirs.at(&server.base());
    assert_eq!(body(own.get(TARGETS))["proxy_targets"], json!([format!("http://localhost:{port}")]));
    assert_eq!(not_allowed(&theirs, "bytes", &other.url("/")), guarded);
    is_reached(&theirs, &format!("http://localhost:{port}/"));
    assert_eq!(bind(&own, &[]), [""; 0]);
    is_reached(&theirs, &other.url("/"));
    assert_eq!((listed.heard().len(), other.heard().len()), (1, 1));
}
