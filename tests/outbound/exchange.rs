//! Messages: what a target gets of a request, and what comes back of its answer.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use tracktags::outbound::{OutboundError, Request, Target};

use super::support::{BUSINESS, Names, OK, Server, error_of, fetch, listen, outbound};

const ALLOWED: &str = "127.0.0.2";

#[tokio::test]
async fn a_target_gets_the_request_and_none_of_what_stays_behind() {
    let server = Server::saying(ALLOWED, OK);
    let names = Arc::new(Names::default().with("api.test", &[&[ALLOWED]]));
    let url = format!("http://API.test:{}/a%2Fb/c?q=1&r=%20#fragment", server.port());
    let headers = [
        ("Authorization", "Bearer t"),
        ("X-Many", "1"),
        ("X-Many", "2"),
        ("Content-Type", "text/plain"),
        ("Host", "internal.test"),
        ("Connection", "close, X-Named"),
        ("X-Named", "1"),
        ("Keep-Alive", "timeout=9"),
        ("Proxy-Authorization", "Basic x"),
        ("TE", "trailers"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "3"),
        ("Upgrade", "h2c"),
        ("Expect", "100-continue"),
        ("x-tracktags-business", "biz"),
    ];
    let body = Bytes::from_static(b"hello world");
    let request = Request::new("PATCH", Target::parse(&url).expect("valid"), headers, body).expect("valid");
    outbound(&[ALLOWED], &names).send(BUSINESS, request).await.expect("an answer");
    let seen = server.requests().concat();
    let (head, body) = seen.split_once("\r\n\r\n").expect("a head and a body");
    let mut lines: Vec<_> = head.split("\r\n").collect();
    lines[1..].sort_unstable();
    let host = format!("host: api.test:{}", server.port());
    let expected = [
        "PATCH /a%2Fb/c?q=1&r=%20 HTTP/1.1",
        "authorization: Bearer t",
        "content-length: 11",
        "content-type: text/plain",
        &host,
        "x-many: 1",
        "x-many: 2",
    ];
    assert_eq!((lines, body), (expected.to_vec(), "hello world"));
}

#[tokio::test]
async fn an_answer_comes_back_as_it_is() {
    let text = "HTTP/1.1 418 Teapot\r\ncontent-encoding: gzip\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
                connection: close, x-hop\r\nx-hop: 1\r\ntransfer-encoding: chunked\r\n\r\n\
                3\r\n\x1f\u{b}\u{8}\r\n2;extension=1\r\nzz\r\n0\r\nx-trailer: 1\r\n\r\n";
    // As a server does that hints first.
    let hinted = format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{text}");
    let server = Server::saying(ALLOWED, &hinted);
    let url = format!("http://{ALLOWED}:{}/", server.port());
    let answer = fetch(&outbound(&[ALLOWED], &Arc::default()), &url).await.expect("an answer");
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    headers.sort_unstable();
    assert_eq!((answer.status, &answer.body[..]), (418, &b"\x1f\x0b\x08zz"[..]));
    assert_eq!(headers, ["content-encoding: gzip", "set-cookie: a=1", "set-cookie: b=2"]);
    // The cookie is the caller's, not ours.
    fetch(&outbound(&[ALLOWED], &Arc::default()), &url).await.expect("an answer");
    assert!(!server.requests().concat().contains("cookie"));
}

#[tokio::test]
async fn the_answer_to_head_has_a_length_and_no_body() {
    let server = Server::saying(ALLOWED, "HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n");
    let target = Target::parse(&format!("http://{ALLOWED}:{}/", server.port())).expect("valid");
    let request = Request::new("HEAD", target, [], Bytes::new()).expect("valid");
    let answer = outbound(&[ALLOWED], &Arc::default()).send(BUSINESS, request).await.expect("an answer");
    assert_eq!((answer.headers["content-length"].to_str().ok(), answer.body.len()), (Some("2000000"), 0));
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart() {
    let outbound = outbound(&[ALLOWED], &Arc::default());
    for (text, error) in [
        ("SSH-2.0-OpenSSH_9.9\r\n", OutboundError::Malformed),
        ("HTTP/1.1 2000 OK\r\n\r\n", OutboundError::Malformed),
        ("HTTP/1.1 200 OK\r\nbad header\r\n\r\n", OutboundError::Malformed),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", OutboundError::Malformed),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", OutboundError::Malformed),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", OutboundError::Malformed),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", OutboundError::Malformed),
        ("", OutboundError::Unreachable),
    ] {
        let server = Server::serving(listen(ALLOWED), move |stream, _| {
            stream.write_all(text.as_bytes())?;
            Err(std::io::Error::other("that was all"))
        });
        let url = format!("http://{ALLOWED}:{}/", server.port());
        assert_eq!(error_of(&outbound, &url).await, error, "{text:?}");
    }
    let closed = listen(ALLOWED).local_addr().expect("it is bound");
    assert_eq!(error_of(&outbound, &format!("http://{closed}/")).await, OutboundError::Unreachable);
}
