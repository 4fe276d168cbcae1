//! The calls a client makes, and what it may conclude from an answer (semantics, section 7).

use std::time::Duration;

use dataflows::types::Amount;
use serde_json::value::RawValue;
use ureq::Agent;

use super::KEY;

/// What is known after a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx: durable. The body.
    Durable(String),
    /// Refused for good, nothing of it is counted. Status and body.
    Rejected(u16, String),
    /// No answer, or one that says so. Why.
    Unknown(String),
}

impl Outcome {
    /// Panics unless it was refused with this status and code.
    pub fn refused(self, status: u16, code: &str) {
        match self {
            Outcome::Rejected(seen, body) => {
                assert_eq!((seen, text(&body, "code").as_deref()), (status, Some(code)), "{body}");
            }
            other => panic!("expected {status} {code}: {other:?}"),
        }
    }

    /// The body of a 2xx; panics otherwise.
    pub fn body(self) -> String {
        match self {
            Outcome::Durable(body) => body,
            other => panic!("expected a 2xx: {other:?}"),
        }
    }
}

/// A client with connections of its own.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    key: String,
}

impl Client {
    /// A client of the server at `base`, with the demo key.
    pub fn new(base: &str) -> Client {
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(20)));
        Client { agent: config.build().into(), base: base.to_owned(), key: KEY.to_owned() }
    }

    /// The same with another key.
    pub fn with_key(&self, key: &str) -> Client {
        Client { key: key.to_owned(), ..self.clone() }
    }

    /// The same at another server.
    pub fn at(&self, base: &str) -> Client {
        Client { base: base.to_owned(), ..self.clone() }
    }

    /// One request. `path` may carry a query.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Outcome {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.key));
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_owned()).expect("the tests make valid requests");
        let answered = self.agent.run(request).and_then(|mut answer| {
            let body = answer.body_mut().read_to_string()?;
            Ok((answer.status().as_u16(), body))
        });
        match answered {
            Ok((200..=299, body)) => Outcome::Durable(body),
            Ok((status @ 400..=499, body)) => Outcome::Rejected(status, body),
            Ok((503, body)) if text(&body, "outcome").as_deref() == Some("rejected") => {
                Outcome::Rejected(503, body)
            }
            Ok((status, body)) => Outcome::Unknown(format!("{status} {body}")),
            Err(why) => Outcome::Unknown(why.to_string()),
        }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Outcome {
        self.call("GET", path, &[], "")
    }

    /// PUT.
    pub fn put(&self, path: &str, body: &str) -> Outcome {
        self.call("PUT", path, &[], body)
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Outcome {
        self.call("DELETE", path, &[], "")
    }

    /// POST.
    pub fn post(&self, path: &str, body: &str) -> Outcome {
        self.call("POST", path, &[], body)
    }
}

type Fields<'a> = std::collections::BTreeMap<String, &'a RawValue>;

/// The text of a member of a JSON object, as it was sent: numbers keep every digit. None if absent or null.
fn raw<'a>(body: &'a str, field: &str) -> Option<&'a str> {
    let fields: Fields = serde_json::from_str(body).ok()?;
    fields.get(field).map(|value| value.get()).filter(|text| *text != "null")
}

/// A string member.
pub fn text(body: &str, field: &str) -> Option<String> {
    raw(body, field).and_then(|text| serde_json::from_str(text).ok())
}

/// An amount, exactly.
pub fn amount(body: &str, field: &str) -> Option<Amount> {
    raw(body, field).and_then(|text| text.parse().ok())
}

/// A count.
pub fn count(body: &str, field: &str) -> Option<u64> {
    raw(body, field).and_then(|text| text.parse().ok())
}

/// A boolean member; absent is false.
pub fn flag(body: &str, field: &str) -> bool {
    raw(body, field) == Some("true")
}
