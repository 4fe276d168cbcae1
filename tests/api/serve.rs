//! The accept loop and the way to a route, over real sockets.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::{HeaderMap, Response, StatusCode};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tracktags::http::{self, Backend, Options, Readiness, Signals, body, reply::Reply};
use warp::Filter;

const MILLIS_50: Duration = Duration::from_millis(50);

fn quick() -> Options {
    Options {
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        batch_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(2),
        drain_timeout: Duration::from_secs(5),
        connections_max: 100,
        body_bytes_max: 100_000,
    }
}

/// A server whose service reads the body and answers its length; `/wait` answers when told.
struct Server {
    address: std::net::SocketAddr,
    release: Arc<Notify>,
    stop: oneshot::Sender<()>,
    stopped: JoinHandle<usize>,
}

impl Server {
    async fn start(options: Options) -> Server {
        let release = Arc::new(Notify::new());
        let (waiting, bounds) = (release.clone(), options.clone());
        let filter = warp::path::full().and(warp::header::headers_cloned()).and(warp::body::stream()).then(
            move |path: warp::path::FullPath, headers: HeaderMap, stream| {
                let (waiting, bounds) = (waiting.clone(), bounds.clone());
                async move {
                    if path.as_str() == "/wait" {
                        waiting.notified().await;
                    }
                    let read = match body::declared(&headers, bounds.body_bytes_max) {
                        Ok(_) => body::read(stream, bounds.body_bytes_max, bounds.body_timeout).await,
                        Err(error) => Err(error),
                    };
                    let reply = read.map(|body| Reply::text(body.len().to_string()));
                    reply.unwrap_or_else(|error| error.into_reply("req_test")).into_response()
                }
            },
        );
        Server::around(options, TowerToHyperService::new(warp::service(filter)), release).await
    }

    async fn around<S, B>(options: Options, service: S, release: Arc<Notify>) -> Server
    where
        S: hyper::service::Service<
                hyper::Request<hyper::body::Incoming>,
                Response = Response<B>,
                Error = std::convert::Infallible,
                Future: Send,
            > + Clone
            + Send
            + 'static,
        B: hyper::body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopping) = oneshot::channel();
        let stopped = tokio::spawn(http::serve(listener, options, service, async move {
            let _ = stopping.await;
        }));
        Server { address, release, stop, stopped }
    }

    async fn connect(&self) -> Client {
        Client {
            stream: TcpStream::connect(self.address).await.expect("the server listens"),
            read: Vec::new(),
        }
    }
}

struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Client {
    async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.expect("the server reads");
    }

    /// The next answer; its body has exactly the declared length.
    async fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.more().await, "closed within a header: {:?}", String::from_utf8_lossy(&self.read));
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).expect("ASCII").to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.and_then(|text| text.parse().ok()).expect("a length");
        while self.read.len() < length {
            assert!(self.more().await, "closed within a body");
        }
        let body = String::from_utf8(self.read.drain(..length).collect()).expect("UTF-8");
        Answer { status: head[9..12].parse().expect("a status"), head, body }
    }

    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(Duration::from_secs(10), self.stream.read_buf(&mut self.read)).await;
        read.expect("the server answers or closes").is_ok_and(|bytes| bytes > 0)
    }

    async fn request(&mut self, text: &str) -> Answer {
        self.send(text).await;
        self.answer().await
    }

    /// How long it takes until the server closes; nothing else may come.
    async fn closed_after(&mut self) -> Duration {
        let began = Instant::now();
        assert!(!self.more().await, "unexpected: {:?}", String::from_utf8_lossy(&self.read));
        began.elapsed()
    }
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_slow_header_is_cut_off() {
    let server = Server::start(quick()).await;
    for beginning in ["", "GET / HT"] {
        let mut client = server.connect().await;
        client.send(beginning).await;
        let after = client.closed_after().await;
        assert!((MILLIS_50 * 4..MILLIS_50 * 100).contains(&after), "{after:?}");
    }
}

#[tokio::test]
async fn a_trickled_header_is_cut_off_also_on_a_used_connection() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    assert_eq!(client.request(&post("/", "abc")).await.body, "3");
    let began = Instant::now();
    for byte in "GET / HTTP/1.1\r\nx-header: aaaaaaaaaaaaaaaaaaaaaaaaaaa".bytes() {
        if client.stream.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(MILLIS_50).await;
    }
    let after = began.elapsed();
    assert!((MILLIS_50 * 5..MILLIS_50 * 40).contains(&after), "{after:?}");
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_time_out_and_then_ends() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    client.request(&post("/", "")).await;
    tokio::time::sleep(MILLIS_50 * 10).await;
    assert_eq!(client.request(&post("/", "ab")).await.body, "2");
    let after = client.closed_after().await;
    assert!((MILLIS_50 * 30..MILLIS_50 * 100).contains(&after), "{after:?}");
}

#[tokio::test]
async fn a_slow_body_is_told_and_cut_off() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    let answer = client.request("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc").await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &Value::from("body_timeout")));
    client.closed_after().await;
}

#[tokio::test]
async fn a_body_declared_too_long_is_refused_before_it_is_sent() {
    let server = Server::start(quick()).await;
    for length in ["100001", "2000000000", "99999999999999999999"] {
        let mut client = server.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")).await;
        let answer = client.answer().await;
        // What no integer holds is malformed to the server itself.
        if length.len() > 19 {
            assert_eq!(answer.status, 400);
            continue;
        }
        let json = answer.json();
        assert_eq!((answer.status, &json["title"]), (413, &Value::from("Request Too Large")));
        assert_eq!((&json["max_bytes"], &json["error"]), (&Value::from(100_000), &json["title"]));
        assert!(
            answer.head.contains("connection: close") && answer.head.contains("application/problem+json")
        );
    }
}

#[tokio::test]
async fn a_client_that_keeps_sending_still_reads_the_refusal() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\n").await;
    client.send(vec![b'x'; 8_000_000]).await;
    assert_eq!(client.answer().await.status, 413);
    client.closed_after().await;
}

#[tokio::test]
async fn a_chunked_body_is_counted_as_it_comes() {
    let server = Server::start(quick()).await;
    let mut client = server.connect().await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    client.send(format!("{head}{chunk}{chunk}{chunk}0\r\n\r\n")).await;
    assert_eq!(client.answer().await.body, (3 * 0x8000).to_string());
    client.send(format!("{head}{chunk}{chunk}{chunk}{chunk}")).await;
    assert_eq!(client.answer().await.status, 413);
    client.closed_after().await;
}

#[tokio::test]
async fn malformed_http_hurts_only_its_own_connection() {
    let server = Server::start(quick()).await;
    let mut bystander = server.connect().await;
    for garbage in [
        "\0\u{1}\u{2}\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut client = server.connect().await;
        client.send(garbage).await;
        while client.more().await {}
        let answer = String::from_utf8_lossy(&client.read).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{garbage:?}: {answer}");
    }
    let mut long = server.connect().await;
    let _ = long.stream.write_all(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(200_000)).as_bytes()).await;
    while long.more().await {}
    assert_eq!(bystander.request(&post("/", "still here")).await.body, "10");
}

#[tokio::test]
async fn a_connection_too_many_is_told() {
    let server = Server::start(Options { connections_max: 2, ..quick() }).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.request(&post("/", "")).await;
    second.request(&post("/", "")).await;
    let mut third = server.connect().await;
    let answer = third.answer().await;
    assert_eq!((answer.status, &answer.json()["outcome"]), (503, &Value::from("rejected")));
    assert!(answer.head.contains("retry-after: 1"));
    third.closed_after().await;
    drop((first, third));
    // The place is free as soon as the server has seen the end.
    let mut tries = 0;
    loop {
        let mut next = server.connect().await;
        // A refused connection may be gone before this is sent.
        let _ = next.stream.write_all(post("/", "").as_bytes()).await;
        if next.answer().await.status == 200 {
            break;
        }
        tries += 1;
        assert!(tries < 100, "the place was never freed");
        tokio::time::sleep(MILLIS_50 / 5).await;
    }
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_takes_no_new_ones() {
    let server = Server::start(quick()).await;
    let (mut idle, mut busy) = (server.connect().await, server.connect().await);
    idle.request(&post("/", "")).await;
    busy.send(post("/wait", "abcd")).await;
    tokio::time::sleep(MILLIS_50).await;
    server.stop.send(()).expect("running");
    idle.closed_after().await;
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    server.release.notify_one();
    let answer = busy.answer().await;
    assert_eq!(answer.body, "4");
    assert!(answer.head.contains("connection: close"));
    assert_eq!(server.stopped.await.expect("no panic"), 0);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let server = Server::start(Options { drain_timeout: MILLIS_50, ..quick() }).await;
    let mut busy = server.connect().await;
    busy.send(post("/wait", "")).await;
    tokio::time::sleep(MILLIS_50).await;
    server.stop.send(()).expect("running");
    assert_eq!(server.stopped.await.expect("no panic"), 1);
    busy.closed_after().await;
}

/// What the routes reported, and what they are told.
#[derive(Default)]
struct Report(Mutex<Vec<(&'static str, &'static str, u16)>>);

impl Signals for Report {
    fn readiness(&self) -> Readiness {
        Readiness::Starting
    }

    fn exposition(&self) -> String {
        "# EOF\n".to_owned()
    }

    fn answered(&self, method: &'static str, route: &'static str, status: u16, _elapsed: Duration) {
        self.0.lock().expect("no panic").push((method, route, status));
    }

    fn stripe_event(&self, _outcome: &'static str) {}
}

/// The real routes, whose API is not open yet: what is refused is refused before its body is read.
async fn closed_api() -> Server {
    let backend = Arc::new(Backend::new(Arc::new(Report::default()), quick()).expect("randomness"));
    let service = TowerToHyperService::new(warp::service(http::routes(backend)));
    Server::around(quick(), service, Arc::new(Notify::new())).await
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_though_the_body_comes_behind() {
    let server = closed_api().await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.send("PUT /api/v1/metrics/m HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n").await;
        tokio::time::sleep(MILLIS_50).await;
        let refused = client.request("{}").await;
        assert_eq!(refused.status, 503);
        assert!(!refused.head.contains("connection: close"), "{}", refused.head);
        assert_eq!(client.request("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.status, 200);
    }
}

#[tokio::test]
async fn a_refusal_says_that_the_connection_ends_if_the_body_does_not_come() {
    let server = closed_api().await;
    for header in ["content-length: 2", "content-length: 2\r\nexpect: 100-continue"] {
        let mut client = server.connect().await;
        let refused =
            client.request(&format!("PUT /api/v1/metrics/m HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n")).await;
        assert_eq!(refused.status, 503);
        assert!(refused.head.contains("connection: close"), "{}", refused.head);
        client.closed_after().await;
    }
}

#[tokio::test]
async fn every_answer_is_a_problem_or_a_reply_and_the_connection_stays() {
    let report = Arc::new(Report::default());
    let backend = Arc::new(Backend::new(report.clone(), quick()).expect("randomness"));
    let service = TowerToHyperService::new(warp::service(http::routes(backend)));
    let server = Server::around(quick(), service, Arc::new(Notify::new())).await;
    let mut client = server.connect().await;
    let metric = "/api/v1/metrics/{metric_name}";
    let mut expected = Vec::new();
    for (method, path, route, status, code) in [
        ("GET", "/health", "/health", 200, None),
        ("GET", "/livez", "/livez", 200, None),
        ("GET", "/readyz", "/readyz", 503, None),
        ("GET", "/metrics", "/metrics", 200, None),
        ("GET", "/openapi.json", "/openapi.json", 200, None),
        ("GET", "/nowhere?x=%zz", "other", 404, Some("no_such_path")),
        ("MADE-UP", "/api/v1/metrics", "other", 405, None),
        ("DELETE", "/health", "other", 405, Some("method_not_allowed")),
        ("GET", "/health?verbose=1", "/health", 400, Some("unknown_parameter")),
        ("PUT", "/api/v1/metrics/m", metric, 503, Some("starting")),
        ("GET", "/api/v1/metrics/m", metric, 503, Some("starting")),
    ] {
        let answer = client
            .request(&format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}"))
            .await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(answer.head.contains("x-request-id: req_"), "{}", answer.head);
        if let Some(code) = code {
            let json = answer.json();
            assert_eq!((&json["code"], &json["status"]), (&Value::from(code), &Value::from(status)));
            assert_eq!((&json["error"], &json["message"]), (&json["title"], &json["detail"]));
            let id = json["request_id"].as_str().expect("an id");
            assert!(answer.head.contains(id), "the id of the header");
        }
        if status == 405 {
            assert!(answer.head.contains("allow: "), "{}", answer.head);
        }
        expected.push((if route == "other" { route } else { method }, route, status));
    }
    let too_long =
        client.request("PUT /api/v1/metrics/m HTTP/1.1\r\nhost: x\r\ncontent-length: 100001\r\n\r\n").await;
    assert_eq!(
        too_long.status,
        StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
        "size is decided before anything else"
    );
    expected.push(("PUT", metric, 413));
    assert_eq!(*report.0.lock().expect("no panic"), expected);
}
