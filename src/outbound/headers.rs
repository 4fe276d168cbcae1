//! Which headers cross this service. In: headers of a caller or of a target. Out: those that are meant for the other side.
//!
//! Hop-by-hop headers belong to one connection (RFC 9110, section 7.6.1): `Connection`, whatever it names, and a fixed list.
//! What this does not do: look at values.

use std::collections::HashSet;

use hyper::HeaderMap;
use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST};

/// They belong to one connection whether `Connection` names them or not. So does everything that begins with `proxy-`.
const HOP_BY_HOP: &[&str] =
    &["connection", "http2-settings", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
const HOP_BY_HOP_PREFIX: &str = "proxy-";
/// Only this service speaks by these.
const OWN_PREFIX: &str = "x-tracktags-";

/// What a target gets of a caller's headers: not hop-by-hop ones, not `X-TrackTags-*`, and not `Host`, `Content-Length` and
/// `Expect`, which the client sets itself.
pub fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let set_here = [HOST, CONTENT_LENGTH, EXPECT];
    let mut kept = end_to_end(headers);
    let dropped: Vec<_> = kept
        .keys()
        .filter(|name| set_here.contains(name) || name.as_str().starts_with(OWN_PREFIX))
        .cloned()
        .collect();
    for name in dropped {
        kept.remove(name);
    }
    kept
}

/// `headers` without those that are hop-by-hop.
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: HashSet<_> = headers
        .get_all(CONNECTION)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .collect();
    let is_kept = |name: &str| {
        !HOP_BY_HOP.contains(&name)
            && !name.starts_with(HOP_BY_HOP_PREFIX)
            && !named.contains(name.as_bytes())
    };
    let kept = headers.iter().filter(|(name, _)| is_kept(name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&str, &str)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(header).collect()
    }

    #[test]
    fn what_belongs_to_the_callers_connection_stays_behind() {
        let headers = map(&[
            ("HOST", "internal"),
            ("Connection", "keep-alive, X-Named , close"),
            ("cOnnection", "X-Second"),
            ("x-named", "1"),
            ("X-SECOND", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("PROXY-Anything", "1"),
            ("TE", "trailers"),
            ("Trailer", "X-T"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "websocket"),
            ("Expect", "100-continue"),
            ("Content-Length", "999"),
            ("X-TrackTags-Business", "biz"),
            ("x-tracktags-", "1"),
        ]);
        assert_eq!(forwarded(&headers), HeaderMap::new());
    }

    #[test]
    fn everything_else_crosses_with_all_of_its_values() {
        let headers = map(&[
            ("Authorization", "Bearer t"),
            ("Cookie", "a=b"),
            ("X-Many", "1"),
            ("X-Many", "2"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Hostname", "h"),
            ("X-TrackTag", "1"),
            ("Accept-Encoding", "gzip"),
        ]);
        assert_eq!(forwarded(&headers), headers);
    }

    #[test]
    fn a_targets_content_length_is_told() {
        let kept = end_to_end(&map(&[("Content-Length", "5"), ("Connection", "close"), ("ETag", "x")]));
        assert_eq!(kept, map(&[("Content-Length", "5"), ("ETag", "x")]));
    }
}
