//! Servers that say what they saw, names that change their addresses, and one exchange with both.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::RootCertStore;
use tracktags::outbound::{
    Answer, Cidr, Outbound, OutboundError, OutboundOptions, Request, Resolve, Resolving, Target,
};

/// The business that asks.
pub const BUSINESS: &str = "biz_test";
/// What servers say that have nothing else to say.
pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server on an address of loopback.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    requests: Vec<String>,
}

impl Server {
    /// Answers every request on a connection with the same text.
    pub fn saying(address: &str, text: &str) -> Server {
        let text = text.to_owned();
        Server::serving(listen(address), move |stream, _| stream.write_all(text.as_bytes()))
    }

    /// Answers requests (head and body as they came) by writing; a connection ends with the first error.
    pub fn serving(
        listener: TcpListener,
        answer: impl Fn(&mut TcpStream, &str) -> io::Result<()> + Send + Sync + 'static,
    ) -> Server {
        Server::speaking(listener, move |mut stream, seen| {
            while let Some(request) = read_request(&mut stream) {
                seen(&request);
                if answer(&mut stream, &request).is_err() {
                    return;
                }
            }
        })
    }

    /// Gives every connection to `speak`, with whom to tell of a request.
    pub fn speaking(
        listener: TcpListener,
        speak: impl Fn(TcpStream, &dyn Fn(&str)) + Send + Sync + 'static,
    ) -> Server {
        let address = listener.local_addr().expect("it is bound");
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (inside, speak) = (seen.clone(), Arc::new(speak));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                lock(&inside).connections += 1;
                let (inside, speak) = (inside.clone(), speak.clone());
                std::thread::spawn(move || {
                    speak(stream, &|request| lock(&inside).requests.push(request.to_owned()));
                });
            }
        });
        Server { address, seen }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections until now. One more is made, last in the queue, so that none is missed.
    pub fn connections(&self) -> usize {
        let before = lock(&self.seen).connections;
        let _last = TcpStream::connect(self.address).expect("it listens");
        let start = Instant::now();
        while lock(&self.seen).connections == before {
            assert!(start.elapsed() < PATIENCE, "nobody accepts connections any more");
            std::thread::sleep(Duration::from_millis(2));
        }
        // The queue is first in, first out: after a moment without news our own is the last one counted.
        std::thread::sleep(Duration::from_millis(20));
        let mut seen = lock(&self.seen);
        seen.connections -= 1;
        seen.connections
    }

    /// Waits until it has so many requests.
    pub async fn has_requests(&self, count: usize) {
        let start = Instant::now();
        while lock(&self.seen).requests.len() < count {
            assert!(start.elapsed() < PATIENCE, "{count} requests do not come");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Requests until now, as they came.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.seen).requests.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A listener on a free port of an address.
pub fn listen(address: &str) -> TcpListener {
    TcpListener::bind((address, 0)).unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// Listeners on the same port of two addresses.
pub fn listen_on_both(first: &str, second: &str) -> (TcpListener, TcpListener) {
    for _ in 0..50 {
        let one = listen(first);
        let port = one.local_addr().expect("it is bound").port();
        if let Ok(other) = TcpListener::bind((second, port)) {
            return (one, other);
        }
    }
    panic!("{first} and {second} have no free port in common");
}

/// One request with its body, if the other side sends one.
pub fn read_request(stream: &mut impl Read) -> Option<String> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |digits| digits.parse().expect("a number"))];
    stream.read_exact(&mut body).ok()?;
    bytes.extend(body);
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Answers of a resolver: each question takes the next, the last stays.
#[derive(Default)]
pub struct Names {
    answers: HashMap<String, Vec<Vec<IpAddr>>>,
    asked: Mutex<HashMap<String, usize>>,
}

impl Names {
    /// `name` has these addresses at the first question, those at the second, ...
    pub fn with(mut self, name: &str, answers: &[&[&str]]) -> Names {
        let addresses =
            |texts: &&[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
        self.answers.insert(name.to_owned(), answers.iter().map(addresses).collect());
        self
    }

    /// How often it was asked for `name`.
    pub fn asked(&self, name: &str) -> usize {
        lock(&self.asked).get(name).copied().unwrap_or(0)
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        let mut asked = lock(&self.asked);
        let count = asked.entry(name.to_owned()).or_default();
        *count += 1;
        let answer =
            self.answers.get(name).map(|answers| answers[(*count - 1).min(answers.len() - 1)].clone());
        Box::pin(async move { answer.ok_or_else(|| io::Error::other("no such name")) })
    }
}

/// Options for tests: these networks, these names, nobody's certificates, 5 s.
pub fn options(allow: &[&str], names: Arc<Names>) -> OutboundOptions {
    let network = |text: &&str| {
        let address: IpAddr = text.parse().expect("an address");
        Cidr::new(address, if address.is_ipv4() { 32 } else { 128 })
    };
    OutboundOptions {
        allow: allow.iter().map(network).collect(),
        resolver: names,
        roots: RootCertStore::empty(),
        exchange_timeout: Duration::from_secs(5),
        in_flight_max: 8,
    }
}

/// A way out to single addresses, with names.
pub fn outbound(allow: &[&str], names: &Arc<Names>) -> Outbound {
    Outbound::new(options(allow, names.clone()))
}

/// A GET of a URL.
pub fn get(url: &str) -> Request {
    let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    Request::new("GET", target, [], Bytes::new()).expect("valid")
}

/// What a GET of a URL comes to.
pub async fn fetch(outbound: &Outbound, url: &str) -> Result<Answer, OutboundError> {
    outbound.send(BUSINESS, get(url)).await
}

/// Why a GET of a URL fails.
pub async fn error_of(outbound: &Outbound, url: &str) -> OutboundError {
    fetch(outbound, url).await.map(|answer| answer.status).expect_err(url)
}
