//! The client of `benches/redis/run`, the same for both sides: 64 connections over 64 series in turn, one request at a time
//! on each, every answer read to its end. Each request records 1, so what was acknowledged is what must have been recorded.
//!
//! `redis_client http|redis ADDRESS KEY_OR_SCRIPT SECONDS RATE` prints on one line: acknowledged a second, p50, p99 and lag
//! (p99 of how late requests were sent) in microseconds, acknowledged, failed.
//!
//! * RATE `max` is a closed loop: the next request of a connection follows its answer.
//! * RATE in requests/s is an open loop: request `n` is due `n / RATE` after the start, on connection `n % 64`, whether or not
//!   the one before has been answered. Its latency counts from when it was due, so waiting for a busy connection counts.
//!
//! One thread reads (and sends in the closed loop); in the open loop another sends, because it sleeps more precisely than
//! tokio's timer of a millisecond. A connection that breaks ends the run: its outcome would be unknown.

// The result is this program's output.
#![allow(clippy::print_stdout)]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::str::from_utf8;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

/// Connections, and series.
const CONNECTIONS: usize = 64;
/// An answer of either side is shorter.
const ANSWER_BYTES_MAX: usize = 4096;
/// The limit that is checked; `run` gives the service the same.
const LIMIT: u64 = 1_000_000_000_000;
/// What is not answered by then after the last request is due never will be.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What is spoken.
#[derive(Clone, Copy)]
enum Protocol {
    /// `PUT` to the service.
    Http,
    /// The script by its hash.
    Redis,
}

/// When requests are sent.
#[derive(Clone, Copy)]
enum Load {
    /// After each answer, until then.
    Closed { until: Instant },
    /// When due: so many on each connection.
    Open { each: usize },
}

/// The sending side of a connection.
struct Sender {
    write: OwnedWriteHalf,
    requests: Arc<Vec<Vec<u8>>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// When each unanswered request was due; the first is on the way.
    due: VecDeque<Instant>,
    /// The series of the next request.
    series: usize,
    lags: Vec<Duration>,
}

/// What a connection saw.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    lags: Vec<Duration>,
    failed: usize,
}

impl Protocol {
    fn request(self, series: usize, address: &str, credential: &str) -> Vec<u8> {
        let text = match self {
            Protocol::Http => format!(
                "PUT /api/v1/metrics/bench_{series} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {credential}\r\n\
                 Content-Type: application/json\r\nContent-Length: 11\r\n\r\n{{\"value\":1}}"
            ),
            Protocol::Redis => {
                let words = ["EVALSHA", credential, "1", &format!("bench_{series}"), "1", &LIMIT.to_string()];
                let bulk = words.map(|word| format!("${}\r\n{word}\r\n", word.len()));
                format!("*{}\r\n{}", bulk.len(), bulk.concat())
            }
        };
        text.into_bytes()
    }

    /// Whether `answer` admits the request; none if its end is missing.
    fn admits(self, answer: &[u8]) -> anyhow::Result<Option<bool>> {
        let text = from_utf8(answer)?;
        match self {
            Protocol::Http => {
                let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
                let mut headers = head.lines().filter_map(|line| line.split_once(": "));
                let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
                let length = length.context("an answer without a length")?.1.parse()?;
                ensure!(body.len() <= length, "more than an answer: {text}");
                Ok((body.len() == length).then(|| head.starts_with("HTTP/1.1 200 ")))
            }
            Protocol::Redis => {
                let Some(line) = text.strip_suffix("\r\n") else { return Ok(None) };
                Ok(Some(line.strip_prefix(':').is_some_and(|value| !value.starts_with('-'))))
            }
        }
    }
}

impl Sender {
    /// A request is due: it is sent unless another is on the way.
    fn offer(&self, due: Instant) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.due.push_back(due);
        if queue.due.len() == 1 {
            self.send(&mut queue);
        }
    }

    /// The answer has come: when its request was due. Sends the next one that waits.
    fn answered(&self) -> anyhow::Result<Instant> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let due = queue.due.pop_front().context("an answer without a request")?;
        if !queue.due.is_empty() {
            self.send(&mut queue);
        }
        Ok(due)
    }

    fn send(&self, queue: &mut Queue) {
        let request = &self.requests[queue.series % self.requests.len()];
        queue.series += 1;
        let lag = queue.due[0].elapsed();
        queue.lags.push(lag);
        // The socket's buffer is empty: there is one request at a time.
        let sent = self.write.try_write(request).expect("the connection lives");
        assert_eq!(sent, request.len(), "a request is sent whole");
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [protocol, address, credential, seconds, rate] = arguments.as_slice() else {
        bail!("usage: redis_client http|redis ADDRESS KEY_OR_SCRIPT SECONDS RATE");
    };
    let protocol = match protocol.as_str() {
        "http" => Protocol::Http,
        "redis" => Protocol::Redis,
        _ => bail!("no protocol {protocol}"),
    };
    let seconds: u64 = seconds.parse()?;
    let rate = if rate == "max" { None } else { Some(rate.parse()?) };
    let requests = (1..=CONNECTIONS).map(|series| protocol.request(series, address, credential)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(protocol, address, Arc::new(requests), seconds, rate))
}

async fn run(
    protocol: Protocol,
    address: &str,
    requests: Arc<Vec<Vec<u8>>>,
    seconds: u64,
    rate: Option<u64>,
) -> anyhow::Result<()> {
    let (mut senders, mut readers) = (Vec::new(), Vec::new());
    for series in 0..CONNECTIONS {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let queue = Mutex::new(Queue { series, ..Queue::default() });
        senders.push(Arc::new(Sender { write, requests: requests.clone(), queue }));
        readers.push(read);
    }
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds);
    let load = match rate {
        None => Load::Closed { until },
        Some(rate) => Load::Open { each: (rate * seconds) as usize / CONNECTIONS },
    };
    let mut conversations = JoinSet::new();
    for (sender, read) in senders.iter().zip(readers) {
        conversations.spawn(converse(protocol, load, sender.clone(), read));
    }
    match (load, rate) {
        (Load::Open { each }, Some(rate)) => {
            std::thread::spawn(move || pace(&senders, each, start, rate));
        }
        _ => senders.iter().for_each(|sender| sender.offer(Instant::now())),
    }
    let all = tokio::time::timeout_at((until + DRAIN_MAX).into(), conversations.join_all()).await;
    let mut seen = Seen::default();
    for of_one in all.context("requests without an answer")? {
        let Seen { latencies, lags, failed } = of_one?;
        seen.latencies.extend(latencies);
        seen.lags.extend(lags);
        seen.failed += failed;
    }
    report(seen, start.elapsed());
    Ok(())
}

/// Offers each request when it is due.
fn pace(senders: &[Arc<Sender>], each: usize, start: Instant, rate: u64) {
    for number in 0..each * CONNECTIONS {
        let due = start + Duration::from_nanos(number as u64 * 1_000_000_000 / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        senders[number % CONNECTIONS].offer(due);
    }
}

/// Reads the answers of a connection until its part of the load is done.
async fn converse(
    protocol: Protocol,
    load: Load,
    sender: Arc<Sender>,
    mut read: OwnedReadHalf,
) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut bytes = [0; ANSWER_BYTES_MAX];
    let mut answer = ReadBuf::new(&mut bytes);
    loop {
        let before = answer.filled().len();
        poll_fn(|context| Pin::new(&mut read).poll_read(context, &mut answer)).await?;
        ensure!(answer.filled().len() > before, "the server has closed the connection");
        let Some(admitted) = protocol.admits(answer.filled())? else { continue };
        answer.clear();
        let due = sender.answered()?;
        let now = Instant::now();
        seen.failed += usize::from(!admitted);
        seen.latencies.extend(admitted.then(|| now - due));
        let is_done = match load {
            Load::Closed { until } => now >= until,
            Load::Open { each } => seen.latencies.len() + seen.failed == each,
        };
        if is_done {
            break;
        }
        if let Load::Closed { .. } = load {
            sender.offer(now);
        }
    }
    seen.lags = std::mem::take(&mut sender.queue.lock().unwrap_or_else(PoisonError::into_inner).lags);
    Ok(seen)
}

fn report(mut seen: Seen, took: Duration) {
    let acknowledged = seen.latencies.len();
    let rate = acknowledged as f64 / took.as_secs_f64();
    let (p50, p99) = (percentile(&mut seen.latencies, 50), percentile(&mut seen.latencies, 99));
    let lag = percentile(&mut seen.lags, 99);
    println!("{rate:.0} {p50} {p99} {lag} {acknowledged} {}", seen.failed);
}

/// In microseconds; 0 of nothing.
fn percentile(of: &mut [Duration], percent: usize) -> u128 {
    of.sort_unstable();
    of.get(of.len() * percent / 100).map_or(0, Duration::as_micros)
}
