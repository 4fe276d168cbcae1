//! Addresses: a canary listens where nobody may go, and must see no connection, however the way there is written.

use std::net::TcpListener;
use std::sync::Arc;

use tracktags::outbound::OutboundError;

use super::support::{Names, OK, Server, error_of, fetch, listen, listen_on_both, outbound};

const ALLOWED: &str = "127.0.0.2";
const REFUSED: &str = "127.0.0.1";

/// Hosts that all lead to `REFUSED`, some by way of `names`.
const SPELLINGS: &[&str] = &[
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "%31%32%37.0.0.1",
    "１２７.０.０.１",
    "127。0。0。1",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "loopback.test",
    "LOOPBACK.test",
    "loopback.test.",
    "mapped.test",
];

fn names() -> Arc<Names> {
    let names = Names::default()
        .with("loopback.test", &[&[REFUSED]])
        .with("loopback.test.", &[&[REFUSED]])
        .with("mapped.test", &[&["::ffff:127.0.0.1"]]);
    Arc::new(names)
}

#[tokio::test]
async fn no_spelling_leads_to_a_refused_address() {
    let canary = Server::saying(REFUSED, OK);
    let outbound = outbound(&[ALLOWED], &names());
    for scheme in ["http", "https"] {
        for host in SPELLINGS {
            let url = format!("{scheme}://{host}:{}/", canary.port());
            assert_eq!(error_of(&outbound, &url).await, OutboundError::NotAllowed, "{url}");
        }
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn each_of_these_spellings_would_lead_there() {
    let server = Server::saying(REFUSED, OK);
    let outbound = outbound(&[REFUSED], &names());
    for host in SPELLINGS {
        let url = format!("http://{host}:{}/", server.port());
        let answer = fetch(&outbound, &url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(answer.status, 200, "{url}");
    }
    assert_eq!(server.requests().len(), SPELLINGS.len());
}

#[tokio::test]
async fn a_port_of_the_web_opens_no_refused_address() {
    // An address of its own, so that no server of this machine is in the way.
    let Ok(listener) = TcpListener::bind(("127.0.0.77", 80)) else {
        println!("port 80 may not be listened on here: what is left is the table of addresses");
        return;
    };
    let canary = Server::serving(listener, |_, _| Ok(()));
    let names = Arc::new(Names::default().with("web.test", &[&["127.0.0.77"]]));
    for url in ["http://127.0.0.77/", "http://web.test/", "http://[::ffff:127.0.0.77]/"] {
        assert_eq!(error_of(&outbound(&[ALLOWED], &names), url).await, OutboundError::NotAllowed, "{url}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn ipv6_loopback_is_refused_and_can_be_allowed() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        println!("this machine has no IPv6: what is left is the table of addresses");
        return;
    };
    let server = Server::serving(listener, |stream, _| std::io::Write::write_all(stream, OK.as_bytes()));
    let names = Arc::new(Names::default().with("six.test", &[&["::1"]]));
    let urls =
        ["[::1]", "[0:0:0:0:0:0:0:1]", "six.test"].map(|host| format!("http://{host}:{}/", server.port()));
    for url in &urls {
        assert_eq!(error_of(&outbound(&[REFUSED], &names), url).await, OutboundError::NotAllowed, "{url}");
    }
    assert_eq!(server.connections(), 0);
    for url in &urls {
        assert!(fetch(&outbound(&["::1"], &names), url).await.is_ok(), "{url}");
    }
}

#[tokio::test]
async fn a_name_is_resolved_once_and_what_was_checked_is_connected_to() {
    let (allowed, refused) = listen_on_both(ALLOWED, REFUSED);
    let [server, canary] = [allowed, refused].map(|listener| {
        Server::serving(listener, |stream, _| std::io::Write::write_all(stream, OK.as_bytes()))
    });
    let names = Arc::new(Names::default().with("rebinding.test", &[&[ALLOWED], &[REFUSED]]));
    let url = format!("http://rebinding.test:{}/", server.port());
    let first = outbound(&[ALLOWED], &names);
    assert_eq!(fetch(&first, &url).await.map(|answer| answer.status), Ok(200));
    assert_eq!((names.asked("rebinding.test"), server.connections()), (1, 1));
    // The connection is kept: nothing is resolved for the next request on it.
    assert!(fetch(&first, &url).await.is_ok());
    assert_eq!((names.asked("rebinding.test"), server.connections()), (1, 1));
    // A new connection is a new question, with a new verdict.
    assert_eq!(error_of(&outbound(&[ALLOWED], &names), &url).await, OutboundError::NotAllowed);
    assert_eq!((names.asked("rebinding.test"), server.connections(), canary.connections()), (2, 1, 0));
}

#[tokio::test]
async fn one_refused_address_refuses_a_name_whole() {
    let (allowed, refused) = listen_on_both(ALLOWED, REFUSED);
    let [server, canary] = [allowed, refused].map(|listener| Server::serving(listener, |_, _| Ok(())));
    let names = Names::default()
        .with("good-first.test", &[&[ALLOWED, REFUSED]])
        .with("bad-first.test", &[&[REFUSED, ALLOWED]])
        .with("many.test", &[&[ALLOWED, ALLOWED, ALLOWED, ALLOWED, "fd00::1"]]);
    let outbound = outbound(&[ALLOWED], &Arc::new(names));
    for host in ["good-first.test", "bad-first.test", "many.test"] {
        let url = format!("http://{host}:{}/", server.port());
        assert_eq!(error_of(&outbound, &url).await, OutboundError::NotAllowed, "{url}");
    }
    assert_eq!((server.connections(), canary.connections()), (0, 0));
}

#[tokio::test]
async fn a_name_without_an_address_is_unreachable() {
    let names = Arc::new(Names::default().with("empty.test", &[&[]]));
    for url in ["http://absent.test/", "https://absent.test/", "http://empty.test/"] {
        assert_eq!(error_of(&outbound(&[], &names), url).await, OutboundError::Unreachable, "{url}");
    }
}

#[tokio::test]
async fn the_next_address_is_tried_where_nobody_listens() {
    let server = Server::saying(ALLOWED, OK);
    let names = Arc::new(Names::default().with("two.test", &[&["127.0.0.3", ALLOWED]]));
    let url = format!("http://two.test:{}/", server.port());
    assert!(fetch(&outbound(&[ALLOWED, "127.0.0.3"], &names), &url).await.is_ok());
}

#[tokio::test]
async fn a_redirect_is_handed_back() {
    let canary = Server::saying(REFUSED, OK);
    let location = format!("http://{REFUSED}:{}/", canary.port());
    for status in [301, 302, 303, 307, 308] {
        let text =
            format!("HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let server = Server::saying(ALLOWED, &text);
        let url = format!("http://{ALLOWED}:{}/", server.port());
        let answer = fetch(&outbound(&[ALLOWED, REFUSED], &Arc::default()), &url).await.expect("an answer");
        assert_eq!((answer.status, answer.headers["location"].to_str().ok()), (status, Some(&*location)));
        assert_eq!(server.requests().len(), 1);
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn whatever_is_refused_reads_the_same() {
    let closed = listen(REFUSED).local_addr().map(|address| address.port()).expect("it is bound");
    let names = Arc::new(Names::default().with("inside.test", &[&["10.0.0.1"]]));
    let outbound = outbound(&[], &names);
    for url in [
        format!("http://{REFUSED}:{closed}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://inside.test/".to_owned(),
        "http://1.1.1.1:22/".to_owned(),
        "http://[fd00:ec2::254]/".to_owned(),
    ] {
        let error = error_of(&outbound, &url).await;
        assert_eq!(error.to_string(), "the target may not be reached from here", "{url}");
    }
}
