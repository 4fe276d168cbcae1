//! Answers: a small JSON writer and the reply that every endpoint gives.
//!
//! The writer exists because amounts are exact decimals that no number type of a JSON library holds, and because it
//! costs next to nothing. Amounts are plain decimals (`150.0`), moments RFC 3339 in UTC, absent options `null`.

use std::fmt::Write;

use bytes::Bytes;
use dataflows::types::{Amount, Micros};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::admission::parse::names::rfc3339;

/// `application/json`.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// `text/plain`.
pub const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What an endpoint answers.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// What the body is.
    pub content_type: HeaderValue,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A JSON object.
    pub fn json(status: StatusCode, object: Json) -> Self {
        Reply { status, content_type: JSON, headers: Vec::new(), body: object.finish().into() }
    }

    /// A JSON array.
    pub fn json_list(status: StatusCode, items: &[Json]) -> Self {
        let mut text = String::new();
        items.write(&mut text);
        Reply { status, content_type: JSON, headers: Vec::new(), body: text.into() }
    }

    /// 200 with text.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Reply { status: StatusCode::OK, content_type: TEXT, headers: Vec::new(), body: text.into() }
    }

    /// 204.
    pub fn no_content() -> Self {
        Reply { status: StatusCode::NO_CONTENT, ..Reply::text("") }
    }

    /// The response in the types of the server.
    pub fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        if self.status != StatusCode::NO_CONTENT {
            response.headers_mut().insert(CONTENT_TYPE, self.content_type);
        }
        response.headers_mut().extend(self.headers);
        response
    }
}

/// A JSON object being written; members come out in the order in which they are set.
#[derive(Debug)]
pub struct Json(String);

impl Json {
    /// An object without members.
    pub fn object() -> Self {
        let mut text = String::with_capacity(256);
        text.push('{');
        Json(text)
    }

    /// Adds a member. `name` is written as it is: it must be free of characters that JSON escapes.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToJson) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
        value.write(&mut self.0);
        self
    }

    /// Adds a member only if there is a value.
    #[must_use]
    pub fn set_some(self, name: &str, value: Option<impl ToJson>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => self,
        }
    }

    /// The text of the object.
    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// What can be written as a JSON value.
pub trait ToJson {
    /// Appends the value.
    fn write(&self, into: &mut String);
}

/// Text that is JSON already.
pub struct Raw<'a>(pub &'a str);

impl ToJson for Raw<'_> {
    fn write(&self, into: &mut String) {
        into.push_str(self.0);
    }
}

impl ToJson for str {
    fn write(&self, into: &mut String) {
        into.push('"');
        let mut plain_from = 0;
        for (at, byte) in self.bytes().enumerate() {
            if byte != b'"' && byte != b'\\' && byte >= 0x20 {
                continue;
            }
            into.push_str(&self[plain_from..at]);
            plain_from = at + 1;
            match byte {
                b'"' | b'\\' => into.extend(['\\', char::from(byte)]),
                _ => push(into, format_args!("\\u{byte:04x}")),
            }
        }
        into.push_str(&self[plain_from..]);
        into.push('"');
    }
}

impl ToJson for String {
    fn write(&self, into: &mut String) {
        self.as_str().write(into);
    }
}

impl ToJson for Amount {
    fn write(&self, into: &mut String) {
        push(into, format_args!("{self}"));
    }
}

impl ToJson for Micros {
    fn write(&self, into: &mut String) {
        rfc3339(*self).write(into);
    }
}

impl ToJson for bool {
    fn write(&self, into: &mut String) {
        into.push_str(if *self { "true" } else { "false" });
    }
}

impl ToJson for u64 {
    fn write(&self, into: &mut String) {
        push(into, format_args!("{self}"));
    }
}

impl ToJson for i64 {
    fn write(&self, into: &mut String) {
        push(into, format_args!("{self}"));
    }
}

impl ToJson for Json {
    fn write(&self, into: &mut String) {
        into.push_str(&self.0);
        into.push('}');
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn write(&self, into: &mut String) {
        match self {
            Some(value) => value.write(into),
            None => into.push_str("null"),
        }
    }
}

impl<T: ToJson> ToJson for [T] {
    fn write(&self, into: &mut String) {
        into.push('[');
        for (at, value) in self.iter().enumerate() {
            if at > 0 {
                into.push(',');
            }
            value.write(into);
        }
        into.push(']');
    }
}

impl<T: ToJson + ?Sized> ToJson for &T {
    fn write(&self, into: &mut String) {
        (**self).write(into);
    }
}

fn push(into: &mut String, text: std::fmt::Arguments<'_>) {
    into.write_fmt(text).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_object_is_written_in_order() {
        let json = Json::object()
            .set("amount", Amount::from_units(150))
            .set("none", None::<bool>)
            .set_some("absent", None::<bool>)
            .set("at", Micros(1_500_000))
            .set("inner", Json::object().set("list", &[1u64, 2][..]));
        let text = r#"{"amount":150.0,"none":null,"at":"1970-01-01T00:00:01.5Z","inner":{"list":[1,2]}}"#;
        assert_eq!(json.finish(), text);
    }

    proptest! {
        #[test]
        fn any_text_survives(text in ".*", control in "[\\x00-\\x1f\"\\\\]*") {
            let text = text + &control;
            let json = Json::object().set("text", &text).finish();
            let value: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
            prop_assert_eq!(value["text"].as_str(), Some(text.as_str()));
        }
    }
}
