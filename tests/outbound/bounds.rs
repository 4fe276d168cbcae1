//! Bounds: how large an answer may be, how long it may take, how many exchanges a business has in flight.

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracktags::outbound::{
    ANSWER_BYTES_MAX, ANSWER_HEAD_BYTES_MAX, ANSWER_HEADERS_MAX, Outbound, OutboundError, OutboundOptions,
};

use super::support::{OK, Server, error_of, fetch, get, listen, options, outbound};

const ALLOWED: &str = "127.0.0.2";
const SHORT: Duration = Duration::from_millis(300);

fn url(server: &Server) -> String {
    format!("http://{ALLOWED}:{}/", server.port())
}

/// A body of so many bytes, by its length, in chunks, or by the end of the connection.
fn sized(framing: &'static str, bytes: usize) -> Server {
    Server::serving(listen(ALLOWED), move |stream, _| {
        let body = "x".repeat(bytes);
        match framing {
            "length" => write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n{body}"),
            "chunks" => {
                write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                for chunk in body.as_bytes().chunks(70_001) {
                    write!(stream, "{:x}\r\n", chunk.len())?;
                    stream.write_all(chunk)?;
                    stream.write_all(b"\r\n")?;
                }
                stream.write_all(b"0\r\n\r\n")
            }
            _ => {
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n{body}")?;
                Err(std::io::Error::other("that was all"))
            }
        }
    })
}

#[tokio::test]
async fn a_body_is_whole_up_to_the_bound_and_too_large_beyond() {
    let outbound = outbound(&[ALLOWED], &Arc::default());
    for framing in ["length", "chunks", "end"] {
        let answer = fetch(&outbound, &url(&sized(framing, ANSWER_BYTES_MAX))).await.expect(framing);
        assert_eq!(answer.body.len(), ANSWER_BYTES_MAX, "{framing}");
        let beyond = sized(framing, ANSWER_BYTES_MAX + 1);
        assert_eq!(error_of(&outbound, &url(&beyond)).await, OutboundError::TooLarge, "{framing}");
    }
}

#[tokio::test]
async fn an_announced_body_is_too_large_before_it_comes() {
    let server = Server::saying(ALLOWED, "HTTP/1.1 200 OK\r\ncontent-length: 1000001\r\n\r\n");
    assert_eq!(
        error_of(&outbound(&[ALLOWED], &Arc::default()), &url(&server)).await,
        OutboundError::TooLarge
    );
}

#[tokio::test]
async fn headers_are_bounded_in_number_and_size() {
    let outbound = outbound(&[ALLOWED], &Arc::default());
    let many = |count: usize| format!("HTTP/1.1 204 None\r\n{}\r\n", "a: b\r\n".repeat(count));
    let long = |bytes: usize| format!("HTTP/1.1 204 None\r\na: {}\r\n\r\n", "x".repeat(bytes));
    for text in [many(ANSWER_HEADERS_MAX), long(ANSWER_HEAD_BYTES_MAX - 1)] {
        assert!(fetch(&outbound, &url(&Server::saying(ALLOWED, &text))).await.is_ok());
    }
    for text in [many(ANSWER_HEADERS_MAX + 1), long(ANSWER_HEAD_BYTES_MAX), long(20 * ANSWER_HEAD_BYTES_MAX)]
    {
        let server = Server::saying(ALLOWED, &text);
        assert_eq!(error_of(&outbound, &url(&server)).await, OutboundError::TooLarge, "{}", text.len());
    }
}

fn hasty() -> Outbound {
    Outbound::new(OutboundOptions { exchange_timeout: SHORT, ..options(&[ALLOWED], Arc::default()) })
}

#[tokio::test]
async fn silence_ends_in_time() {
    let server = Server::serving(listen(ALLOWED), |_, _| Ok(()));
    for scheme in ["http", "https"] {
        let start = Instant::now();
        let url = format!("{scheme}://{ALLOWED}:{}/", server.port());
        assert_eq!(error_of(&hasty(), &url).await, OutboundError::TimedOut);
        assert!((SHORT..SHORT * 10).contains(&start.elapsed()), "{:?}", start.elapsed());
    }
}

/// Sends a byte every 20 ms, as the head or the body of an answer, until the other side goes.
fn dripping(start: &'static str) -> (Server, mpsc::Receiver<()>) {
    let (gone, is_gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let drip = move |stream: &mut TcpStream| -> std::io::Result<()> {
        stream.write_all(start.as_bytes())?;
        loop {
            stream.write_all(b"x")?;
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let server = Server::serving(listen(ALLOWED), move |stream, _| {
        let ended = drip(stream);
        let _ = gone.lock().map(|gone| gone.send(()));
        ended
    });
    (server, is_gone)
}

#[tokio::test]
async fn a_drip_ends_in_time_and_so_does_its_connection() {
    for start in [
        "HTTP/1.1 200 OK\r\nx-slow: ",
        "HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ] {
        let (server, is_gone) = dripping(start);
        let begin = Instant::now();
        assert_eq!(error_of(&hasty(), &url(&server)).await, OutboundError::TimedOut, "{start:?}");
        assert!((SHORT..SHORT * 10).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        let gone = tokio::task::spawn_blocking(move || is_gone.recv_timeout(Duration::from_secs(5)));
        assert_eq!(gone.await.expect("it does not panic"), Ok(()), "{start:?}");
    }
}

#[tokio::test]
async fn a_business_has_a_bounded_number_in_flight() {
    // Answers only once it may.
    let (open, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let server = Server::serving(listen(ALLOWED), move |stream, _| {
        let _ = opened.lock().map(|opened| opened.recv());
        stream.write_all(OK.as_bytes())
    });
    let outbound = Outbound::new(OutboundOptions { in_flight_max: 2, ..options(&[ALLOWED], Arc::default()) });
    let start = |business: &'static str| {
        let (outbound, request) = (outbound.clone(), get(&url(&server)));
        tokio::spawn(async move { outbound.send(business, request).await.map(|answer| answer.status) })
    };
    let first = [start("a"), start("a")];
    server.has_requests(2).await;
    assert_eq!(start("a").await.expect("it does not panic"), Err(OutboundError::Busy));
    let other = start("b");
    server.has_requests(3).await;
    // One that is given up gives its place back.
    let [given_up, kept] = first;
    given_up.abort();
    assert!(given_up.await.is_err());
    let next = start("a");
    drop(open);
    for exchange in [kept, other, next] {
        assert_eq!(exchange.await.expect("it does not panic"), Ok(200));
    }
}
