//! Where a request goes: a URL, read strictly. In: text of a caller. Out: a `Target` in one spelling, or what is wrong with it.
//!
//! Parsing is the WHATWG's (<https://url.spec.whatwg.org>, crate `url`), whose normal form leaves one spelling of everything:
//! `http://2130706433/`, `http://0x7f.1/`, `http://0177.0.0.1/` and full-width digits are `127.0.0.1`, names are punycode in
//! lower case, a default port is none. What a browser would mend (spaces and line ends, backslashes, missing or surplus
//! slashes) is refused here, and so is a user. A fragment is dropped: it is never sent.
//!
//! What this does not do: say whether the target may be reached. That is decided by its addresses, in `guard`.

use std::cell::Cell;
use std::fmt;

use hyper::Uri;
use thiserror::Error;
use url::{SyntaxViolation, Url};

/// Longest text of a target.
pub const TARGET_BYTES_MAX: usize = 2_048;

/// Longest text of an origin: `https://`, a name of 253 characters, which is the longest of DNS, and a port.
pub const ORIGIN_BYTES_MAX: usize = 267;

/// What is wrong with the text of a target, or of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// Longer than `TARGET_BYTES_MAX`.
    #[error("a target has at most {TARGET_BYTES_MAX} bytes")]
    TooLong,
    /// Not a URL, or one that needs mending.
    #[error("a target is an absolute URL, such as https://example.com/path")]
    NotAUrl,
    /// Neither `http` nor `https`.
    #[error("a target's scheme is http or https")]
    Scheme,
    /// `user@host` or `user:password@host`.
    #[error("a target carries no user and no password")]
    User,
    /// More than an origin, or a longer one than `ORIGIN_BYTES_MAX`.
    #[error(
        "an origin is a scheme, a host and perhaps a port, such as https://example.com, of at most {ORIGIN_BYTES_MAX} bytes, with nothing behind"
    )]
    Origin,
}

/// A URL that a request can be sent to.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    uri: Uri,
    origin: String,
}

impl Target {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Target, TargetError> {
        if text.len() > TARGET_BYTES_MAX {
            return Err(TargetError::TooLong);
        }
        let fault = Cell::new(None);
        let on_violation = |violation| {
            let found = match violation {
                SyntaxViolation::EmbeddedCredentials | SyntaxViolation::UnencodedAtSign => TargetError::User,
                // In paths and queries browsers send them too, and targets know them.
                SyntaxViolation::NonUrlCodePoint | SyntaxViolation::PercentDecode => return,
                _ => TargetError::NotAUrl,
            };
            fault.set(fault.get().or(Some(found)));
        };
        let parsed = Url::options().syntax_violation_callback(Some(&on_violation)).parse(text);
        let url = parsed.map_err(|_| TargetError::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TargetError::Scheme);
        }
        if let Some(fault) = fault.get() {
            return Err(fault);
        }
        let origin = url.origin().ascii_serialization();
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let uri = format!("{origin}{path}").parse().map_err(|_| TargetError::NotAUrl)?;
        Ok(Target { uri, origin })
    }

    /// Reads an origin, nothing else: its normal form, which is that of `origin`.
    pub fn parse_origin(text: &str) -> Result<String, TargetError> {
        let Target { origin, .. } = Target::parse(text)?;
        // Of what has been read, these alone begin a path, a query or a fragment, however empty.
        let is_alone = text.split_once("://").is_some_and(|(_, host)| !host.contains(['/', '?', '#']));
        let is_short = text.len().max(origin.len()) <= ORIGIN_BYTES_MAX;
        if is_alone && is_short { Ok(origin) } else { Err(TargetError::Origin) }
    }

    /// Scheme, host and port in normal form, which is also what is connected to: `https://example.com`, `http://[2001:db8::1]:8080`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What is sent to, without a fragment.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

/// The origin alone: path and query may hold secrets.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_address_becomes_one() {
        for host in [
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0x7F.0x0.0x0.0x1",
            "017700000001",
            "0177.0.0.1",
            "%31%32%37.0.0.1",
            "１２７.０.０.１",
            "①②⑦.⓪.⓪.①",
            "127。0。0。1",
        ] {
            let target = Target::parse(&format!("http://{host}:8080/x")).expect(host);
            assert_eq!(target.origin(), "http://127.0.0.1:8080", "{host}");
        }
        for (host, written) in [
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
            ("[::FFFF:7F00:0001]", "[::ffff:7f00:1]"),
            ("EXAMPLE.com", "example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("ｅｘａｍｐｌｅ.com", "example.com"),
            ("localhost.", "localhost."),
        ] {
            let target = Target::parse(&format!("https://{host}:443")).expect(host);
            assert_eq!(target.origin(), format!("https://{written}"), "{host}");
        }
    }

    #[test]
    fn an_origin_is_what_is_connected_to_and_reads_as_itself() {
        for text in [
            "HTTPS://Example.COM:443/a?b#c",
            "http://example.com:80",
            "http://example.com:443",
            "https://example.com.:8443/",
            "http://0x7f.1:8080/",
            "http://127.0.0.1./",
            "https://[2001:DB8:0::1]:443",
            "https://bücher.example/",
            "http://%65xample.com",
        ] {
            let target = Target::parse(text).expect(text);
            let uri = target.uri();
            let connected =
                format!("{}://{}", uri.scheme().expect("absolute"), uri.authority().expect("a host"));
            assert_eq!(target.origin(), connected, "{text}");
            assert_eq!(Target::parse_origin(&connected), Ok(connected), "{text}");
        }
    }

    #[test]
    fn path_and_query_are_kept_and_a_fragment_is_not() {
        for (text, uri) in [
            ("https://example.com", "https://example.com/"),
            ("HTTPS://example.com:443?a=b", "https://example.com/?a=b"),
            (
                "http://example.com:443/a%2Fb/ü|{x}?q=ü&r=[1]#secret",
                "http://example.com:443/a%2Fb/%C3%BC|%7Bx%7D?q=%C3%BC&r=[1]",
            ),
            ("http://example.com/a/../b/./c?d", "http://example.com/b/c?d"),
            ("http://example.com/@me?mail=a@b", "http://example.com/@me?mail=a@b"),
            ("http://example.com/100%", "http://example.com/100%"),
        ] {
            assert_eq!(Target::parse(text).expect(text).uri().to_string(), uri, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_plain_url_is_refused() {
        use TargetError::{NotAUrl, Scheme, TooLong, User};
        let long = format!("https://example.com/{}", "a".repeat(TARGET_BYTES_MAX));
        for (text, error) in [
            ("", NotAUrl),
            ("example.com", NotAUrl),
            ("//example.com/", NotAUrl),
            ("/path", NotAUrl),
            ("http:example.com", NotAUrl),
            ("http:/example.com", NotAUrl),
            ("http:///example.com", NotAUrl),
            ("http://", NotAUrl),
            ("http:// example.com/", NotAUrl),
            (" http://example.com/", NotAUrl),
            ("http://example.com/\n", NotAUrl),
            ("http://exam\tple.com/", NotAUrl),
            ("http:\\\\example.com\\", NotAUrl),
            ("http://example.com\\@10.0.0.1/", NotAUrl),
            ("http://example.com/a\\b", NotAUrl),
            ("http://example.com:99999/", NotAUrl),
            ("http://1.2.3.256/", NotAUrl),
            ("http://1.2.3.4.5/", NotAUrl),
            ("http://[::1", NotAUrl),
            ("http://[fe80::1%25eth0]/", NotAUrl),
            ("http://a%00b/", NotAUrl),
            ("ftp://example.com/", Scheme),
            ("file:///etc/passwd", Scheme),
            ("gopher://127.0.0.1:6379/_x", Scheme),
            ("javascript:alert(1)", Scheme),
            ("http://u@example.com/", User),
            ("http://@example.com/", User),
            ("http://u:p@example.com/", User),
            ("http://a@b@example.com/", User),
            (&long, TooLong),
        ] {
            assert_eq!(Target::parse(text).map(|target| target.uri), Err(error), "{text}");
        }
    }

    #[test]
    fn what_is_shown_of_a_target_is_its_origin() {
        let target = Target::parse("https://example.com/path-canary?token=canary").expect("valid");
        assert_eq!(format!("{target:?}"), "Target(https://example.com)");
    }
}
