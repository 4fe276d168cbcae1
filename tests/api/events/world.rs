//! The service in this process, on a clock that stands still, and requests byte by byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dataflows::types::{ApiKey, Business, Definition, KeyKind, Micros, Scopes};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tracktags::app::{Service, Signals, journal_options};
use tracktags::clock::MockClock;
use tracktags::config;
use tracktags::control::{Origin, hash_key};
use tracktags::http::{self, Backend};
use tracktags::journal;
use tracktags::sinks::SinkHealth;

/// 2026-11-24T12:00:00Z.
const NOON: Micros = Micros(1_795_521_600_000_000);
const KEY: &str = "tk_live_events";
/// How long an answer may take. Generous: a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What differs between tests.
#[derive(Default)]
pub struct Terms {
    pub options: config::Options,
    pub http: http::Options,
    /// `Options::queue_bytes_max` of the journal.
    pub queue_bytes_max: Option<usize>,
}

/// A service with the business `biz` and its series `m`, a sum, and `capped`, which blocks at 10.
pub struct World {
    address: SocketAddr,
    service: Mutex<Option<Service>>,
    _runtime: Runtime,
    _folder: tempfile::TempDir,
}

/// An answer; `json` is null where there is no body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub json: Value,
}

impl Answer {
    /// Panics unless it is a problem with this status and code.
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, &self.json["code"]), (status, &code.into()), "{}", self.json);
    }

    /// `accepted`, `duplicates`, `refused`, `rejected`; panics unless it is a 200.
    pub fn counts(&self) -> [u64; 4] {
        assert_eq!(self.status, 200, "{}", self.json);
        ["accepted", "duplicates", "refused", "rejected"]
            .map(|name| self.json[name].as_u64().unwrap_or_else(|| panic!("{name}: {}", self.json)))
    }

    /// Index and code of each of `errors`.
    pub fn errors<'a>(&'a self) -> Vec<(u64, &'a str)> {
        let error = |error: &'a Value| (error["index"].as_u64(), error["code"].as_str());
        let errors = self.json["errors"].as_array().into_iter().flatten().map(error);
        errors.map(|(index, code)| (index.expect("an index"), code.expect("a code"))).collect()
    }

    /// `taken`.
    pub fn taken(&self) -> u64 {
        self.json["taken"].as_u64().unwrap_or_else(|| panic!("no taken: {}", self.json))
    }
}

impl World {
    pub fn start() -> World {
        World::on(Terms::default())
    }

    pub fn on(terms: Terms) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options =
            config::Options { data_dir: Some(folder.path().into()), workers: Some(2), ..terms.options };
        let config = options.resolve().expect("the options are valid");
        let health = Arc::new(SinkHealth::default());
        let clock = Arc::new(MockClock::at(NOON));
        let signals = Arc::new(Signals::new(clock.clone(), health.clone()));
        let mut journal_options = journal_options(&config);
        journal_options.queue_bytes_max = terms.queue_bytes_max.unwrap_or(journal_options.queue_bytes_max);
        let recovery = journal::open(journal_options).expect("the journal can be opened");
        let service = Service::start(&config, recovery, clock, health, &signals, "tk_admin_0123456789");
        let service = service.expect("the service starts");
        let runtime = Runtime::new().expect("a runtime");
        let backend = Arc::new(Backend::new(signals, terms.http.clone()).expect("randomness"));
        let rooms = service.rooms(&config);
        runtime.block_on(rooms.control.by(Origin::SERVER).define(tenant())).expect("defined");
        backend.open(rooms);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("bound");
        let routes = TowerToHyperService::new(warp::service(http::routes(backend)));
        runtime.spawn(http::serve(listener, terms.http, routes, std::future::pending()));
        let world = World { address, service: Mutex::new(Some(service)), _runtime: runtime, _folder: folder };
        for body in [
            r#"{"metric_name": "m"}"#,
            r#"{"metric_name": "capped", "limit_value": 10, "breach_action": "block"}"#,
        ] {
            let made = world.call("POST", "/api/v1/metrics", &["content-type: application/json"], body);
            assert_eq!(made.status, 201, "{}", made.json);
        }
        world
    }

    /// Sends what is given as it is, with the key.
    pub fn open(&self, method: &str, path: &str, headers: &[&str]) -> Wire {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        let mut wire = Wire(stream);
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n{headers}\r\n");
        wire.send(head.as_bytes()).expect("the server reads");
        wire
    }

    /// One request.
    pub fn call(&self, method: &str, path: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let length = format!("content-length: {}", body.len());
        let mut wire = self.open(method, path, &[headers, &[&length, "connection: close"]].concat());
        // One that is refused may be closed before all of it is there.
        let _ = wire.send(body);
        wire.answer()
    }

    /// `POST /api/v1/events` with a query and headers.
    pub fn events(&self, query: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Answer {
        self.call("POST", &format!("/api/v1/events{query}"), headers, body)
    }

    /// Lines of NDJSON.
    pub fn lines(&self, body: impl AsRef<[u8]>) -> Answer {
        self.events("", &[NDJSON], body)
    }

    /// The value of a series of the business, in whole units.
    pub fn value(&self, metric_name: &str) -> u64 {
        let read = self.call("GET", &format!("/api/v1/metrics/{metric_name}"), &[], "");
        assert_eq!(read.status, 200, "{}", read.json);
        read.json["current_value"].as_f64().expect("a number") as u64
    }

    /// The value, once it has stood still for a while: nobody answers for what is on its way.
    pub fn settled(&self, metric_name: &str) -> u64 {
        let (mut value, began) = (self.value(metric_name), Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.value(metric_name);
            if now == value {
                return now;
            }
            assert!(began.elapsed() < PATIENCE, "it never stands still");
            value = now;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let service = self.service.lock().map(|mut service| service.take()).unwrap_or_default();
        service.into_iter().for_each(|service| service.stop(false));
    }
}

pub const NDJSON: &str = "content-type: application/x-ndjson";

fn tenant() -> Vec<Definition> {
    let business_id = "biz".to_owned();
    let key = ApiKey {
        business_id: business_id.clone(),
        key_name: "main".into(),
        kind: KeyKind::Business,
        hash: hash_key(KEY),
        scopes: Scopes::ALL,
        expires_at: None,
        created_at: NOON,
    };
    let (business_name, email) = ("B".to_owned(), "x@example.com".to_owned());
    let business = Business { business_id, business_name, email, created_at: NOON };
    vec![Definition::BusinessPut(business), Definition::KeyPut(key)]
}

/// A connection.
pub struct Wire(TcpStream);

impl Wire {
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// One chunk of a chunked body.
    pub fn chunk(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.send(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        self.send(bytes)?;
        self.send(b"\r\n")
    }

    /// Reads to the end of the connection.
    pub fn everything(mut self) -> String {
        let mut read = Vec::new();
        // A reset behind the answer is an end, too.
        let _ = self.0.read_to_end(&mut read);
        String::from_utf8(read).expect("UTF-8")
    }

    /// The answer; the connection ends behind it.
    pub fn answer(self) -> Answer {
        let text = self.everything();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let json = serde_json::from_str(body).unwrap_or(Value::Null);
        Answer { status: head[9..12].parse().expect("a status"), head: head.to_ascii_lowercase(), json }
    }
}
