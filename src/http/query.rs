//! Query strings and path segments, decoded strictly.
//!
//! `+` is a space in a query and itself in a path. A broken escape, text that is not UTF-8, an unknown or a repeated
//! parameter is 400 naming it: a misspelt filter must not widen a list.

use std::borrow::Cow;

use crate::admission::parse::Fault;

/// Things on a page if a request names no number.
pub const LIMIT_DEFAULT: usize = 100;
/// Most things on a page.
pub const LIMIT_MAX: usize = 1_000;

/// The parameters of a request.
#[derive(Debug)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads the text behind `?`. `known` are the parameters of the route.
    pub fn parse(text: &str, known: &'static [&'static str]) -> Result<Self, Fault> {
        let mut parameters: Vec<(&'static str, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded("query", &name.replace('+', " "))?.into_owned();
            let Some(known_name) = known.iter().find(|known| **known == name) else {
                let fault = Fault::malformed(name, "unknown_parameter", "there is no such query parameter");
                return Err(fault.with_valid(known.iter().copied()));
            };
            if parameters.iter().any(|(earlier, _)| earlier == known_name) {
                let detail = "the query parameter is given more than once";
                return Err(Fault::malformed(name, "repeated_parameter", detail));
            }
            let value = decoded(known_name, &value.replace('+', " "))?.into_owned();
            parameters.push((known_name, value));
        }
        Ok(Query(parameters))
    }

    /// The value of a parameter; none if it is absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// One of the named options; 400 with the list for anything else.
    pub fn choice<T>(&self, name: &'static str, options: &[(&'static str, T)]) -> Result<Option<T>, Fault>
    where
        T: Copy,
    {
        let Some(text) = self.get(name) else { return Ok(None) };
        let option = options.iter().find(|(option, _)| *option == text).map(|(_, option)| *option);
        option.map(Some).ok_or_else(|| {
            let fault =
                Fault::malformed(name, "invalid_option", format!("{name} is not one of the valid options"));
            fault.with_valid(options.iter().map(|(option, _)| *option))
        })
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &'static str) -> Result<Option<bool>, Fault> {
        self.choice(name, &[("true", true), ("false", false)])
    }

    /// `limit`: how many things a page may hold, 1 to `max`.
    pub fn limit(&self, default: usize, max: usize) -> Result<usize, Fault> {
        let Some(text) = self.get("limit") else { return Ok(default) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let limit = if digits { text.parse().ok() } else { None };
        limit.filter(|limit| (1..=max).contains(limit)).ok_or_else(|| {
            Fault::malformed(
                "limit",
                "invalid_option",
                format!("limit must be a whole number from 1 to {max}"),
            )
        })
    }
}

/// Percent-decoding.
pub fn decoded<'a>(field: &str, text: &'a str) -> Result<Cow<'a, str>, Fault> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let fault = || Fault::malformed(field, "invalid_encoding", "the percent-encoding is broken or not UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        let (digits, rest) = part.as_bytes().split_at_checked(2).ok_or_else(fault)?;
        bytes.push(hex_byte(digits).ok_or_else(fault)?);
        bytes.extend(rest);
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| fault())
}

/// The byte that two hexadecimal digits stand for.
pub fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    match digits {
        &[high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["scope", "customer_id", "limit"];

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("scope=customer&customer_id=a%2Bb%c3%A9+c&", KNOWN).expect("well-formed");
        assert_eq!((query.get("scope"), query.get("customer_id")), (Some("customer"), Some("a+bé c")));
        assert_eq!(query.limit(100, 1000), Ok(100));
    }

    #[test]
    fn whatever_is_wrong_names_its_parameter() {
        for (text, field, code) in [
            ("scop=customer", "scop", "unknown_parameter"),
            ("scope=a&scope=a", "scope", "repeated_parameter"),
            ("customer_id=%", "customer_id", "invalid_encoding"),
            ("customer_id=%4", "customer_id", "invalid_encoding"),
            ("customer_id=%zz", "customer_id", "invalid_encoding"),
            ("customer_id=%+1", "customer_id", "invalid_encoding"),
            ("customer_id=%ff", "customer_id", "invalid_encoding"),
        ] {
            let fault = Query::parse(text, KNOWN).expect_err(text);
            assert_eq!((fault.field.as_deref(), fault.code), (Some(field), code), "{text}");
        }
        for text in [
            "limit=",
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=%2B5",
            "limit=1e2",
            "limit=99999999999999999999",
        ] {
            let query = Query::parse(text, KNOWN).expect("syntax is fine");
            assert_eq!(
                query.limit(100, 1000).map_err(|fault| fault.field),
                Err(Some("limit".to_owned())),
                "{text}"
            );
        }
    }
}
