//! What is sent. In: a method, headers and a body as a caller wrote them, and a `Target`. Out: a `Request`, or what is wrong.
//!
//! A request carries only headers that cross this service (`headers`), and a bounded number of them.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use super::headers::forwarded;
use super::target::Target;

/// Methods that are sent, in this spelling. Not there: `CONNECT` opens a tunnel, `TRACE` echoes secrets.
pub const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Most headers of a request.
pub const REQUEST_HEADERS_MAX: usize = 100;
/// Most bytes of the names and values of a request's headers together.
pub const REQUEST_HEADER_BYTES_MAX: usize = 32_768;

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Not one of `METHODS`.
    #[error("the method must be one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")]
    Method,
    /// A name or a value that HTTP does not know; with the name.
    #[error("the header {0:?} is not valid")]
    Header(String),
    /// More headers than `REQUEST_HEADERS_MAX`, or longer ones than `REQUEST_HEADER_BYTES_MAX`.
    #[error("the headers may be {REQUEST_HEADERS_MAX}, of {REQUEST_HEADER_BYTES_MAX} bytes together")]
    TooManyHeaders,
}

/// A request that can be sent.
#[derive(Clone)]
pub struct Request {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    /// A request; of `headers` those are left out that must not cross this service.
    pub fn new<'a>(
        method: &str,
        target: Target,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: Bytes,
    ) -> Result<Request, RequestError> {
        if !METHODS.contains(&method) {
            return Err(RequestError::Method);
        }
        let method = method.parse().map_err(|_| RequestError::Method)?;
        let (mut parsed, mut bytes) = (HeaderMap::new(), 0);
        for (name, value) in headers {
            bytes += name.len() + value.len();
            if parsed.len() >= REQUEST_HEADERS_MAX || bytes > REQUEST_HEADER_BYTES_MAX {
                return Err(RequestError::TooManyHeaders);
            }
            let wrong = || RequestError::Header(name.to_owned());
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            // Bytes above 127 are valid, if obsolete: UTF-8 goes out as it came in.
            parsed.append(key, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong())?);
        }
        Ok(Request { method, target, headers: forwarded(&parsed), body })
    }

    /// Where it goes.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, headers: &[(&str, &str)]) -> Result<Request, RequestError> {
        let target = Target::parse("https://example.com").expect("valid");
        Request::new(method, target, headers.iter().copied(), Bytes::new())
    }

    #[test]
    fn methods_are_a_closed_list() {
        for method in METHODS {
            assert_eq!(of(method, &[]).map(|request| request.method.to_string()), Ok((*method).to_owned()));
        }
        for method in ["", "get", "CONNECT", "TRACE", "GET ", "GET / HTTP/1.1\r\nX: y"] {
            assert_eq!(of(method, &[]).map(drop), Err(RequestError::Method), "{method}");
        }
    }

    #[test]
    fn headers_are_valid_and_bounded() {
        let request =
            of("GET", &[("X-A", "ü"), ("x-a", "2"), ("Host", "other"), ("Empty", "")]).expect("valid");
        assert_eq!(request.headers.len(), 3);
        for (name, value) in
            [("", "1"), ("a b", "1"), ("a:", "1"), ("a", "1\r\nb: 2"), ("a", "1\n"), ("a", "\0"), ("ü", "1")]
        {
            assert_eq!(of("GET", &[(name, value)]).map(drop), Err(RequestError::Header(name.to_owned())));
        }
        let many = vec![("a", "1"); REQUEST_HEADERS_MAX];
        assert!(of("GET", &many).is_ok());
        assert_eq!(
            of("GET", &[&many[..], &[("a", "1")]].concat()).map(drop),
            Err(RequestError::TooManyHeaders)
        );
        let long = "x".repeat(REQUEST_HEADER_BYTES_MAX - 1);
        assert!(of("GET", &[("a", &long)]).is_ok());
        assert_eq!(of("GET", &[("ab", &long)]).map(drop), Err(RequestError::TooManyHeaders));
    }
}
