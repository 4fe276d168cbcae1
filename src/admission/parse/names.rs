//! The syntax of single values: names, ids, times, URLs, the `Idempotency-Key` header, and the words of the API.
//!
//! | value | rule |
//! |---|---|
//! | metric name | `[A-Za-z0-9_.:-]{1,100}` |
//! | customer id, event id, price id | 1 to 255 printable ASCII characters without space and `/` |
//! | secret of another service | 1 to 255 printable ASCII characters without space |
//! | idempotency key | 1 to 255 printable ASCII characters, bare or as a quoted string (RFC 8941 `sf-string`) |
//! | time | RFC 3339, years 0001 to 9999; digits beyond the microsecond are cut off |
//! | URL | `http` or `https`, a host, no user information, at most 2,048 ASCII characters |
//!
//! Percent-decoding has happened before. A refused value is 400 and names its field.

use dataflows::types::{Action, MetricType, Micros, Operation, Operator, Scope, Span};
use hyper::Uri;

use super::Fault;

/// Longest metric name.
pub const METRIC_NAME_BYTES_MAX: usize = 100;
/// Longest customer id, event id, price id and idempotency key.
pub const ID_BYTES_MAX: usize = 255;
/// Longest name of a business or a customer and longest address, in bytes.
pub const TEXT_BYTES_MAX: usize = 200;
/// Longest URL.
pub const URL_BYTES_MAX: usize = 2_048;

/// `metric_type` in the words of the API.
pub const METRIC_TYPES: [(&str, MetricType); 3] = [
    ("reset", MetricType::Reset),
    ("checkpoint", MetricType::Checkpoint),
    ("stripe_billing", MetricType::StripeBilling),
];
/// `operation` in the words of the API.
pub const OPERATIONS: [(&str, Operation); 5] = [
    ("SUM", Operation::Sum),
    ("COUNT", Operation::Count),
    ("AVG", Operation::Avg),
    ("MAX", Operation::Max),
    ("MIN", Operation::Min),
];
/// `plan_limit_operator` in the words of the API.
pub const OPERATORS: [(&str, Operator); 5] = [
    ("gte", Operator::Gte),
    ("gt", Operator::Gt),
    ("lte", Operator::Lte),
    ("lt", Operator::Lt),
    ("eq", Operator::Eq),
];
/// `plan_breach_action` in the words of the API.
pub const ACTIONS: [(&str, Action); 5] = [
    ("allow", Action::Allow),
    ("allow_overage", Action::AllowOverage),
    ("deny", Action::Deny),
    ("block", Action::Block),
    ("webhook", Action::Webhook),
];
/// `scope` in the words of the API.
pub const SCOPES: [(&str, Scope); 2] = [("business", Scope::Business), ("customer", Scope::Customer)];
/// `cleanup_after` in the words of the API; in days.
pub const CLEANUPS: [(&str, Option<u16>); 4] =
    [("1d", Some(1)), ("7d", Some(7)), ("30d", Some(30)), ("never", None)];

/// Spans with their names.
pub fn spans<const N: usize>(spans: [Span; N]) -> [(&'static str, Span); N] {
    spans.map(|span| (span.text(), span))
}

/// The word of the API for a value. Panics if the table lacks it: tables list every value of their type.
pub fn word<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    let entry = table.iter().find(|(_, option)| option == value);
    entry.map(|(name, _)| *name).expect("the tables above are complete")
}

/// A metric name.
pub fn metric_name(field: &str, text: &str) -> Result<String, Fault> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    if (1..=METRIC_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(legal) {
        return Ok(text.to_owned());
    }
    let detail =
        format!("{field} must be 1 to {METRIC_NAME_BYTES_MAX} characters out of A-Z a-z 0-9 _ . : -");
    Err(Fault::malformed(field, "invalid_name", detail))
}

/// A name or note for people: any text of at most so many bytes, kept as it is. Only U+0000 is refused: databases take it
/// for an end, or not at all.
pub fn text<const BYTES_MAX: usize>(field: &str, text: &str) -> Result<String, Fault> {
    if (1..=BYTES_MAX).contains(&text.len()) && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    let detail = format!("{field} must be 1 to {BYTES_MAX} bytes of text without U+0000");
    Err(Fault::malformed(field, "invalid_text", detail))
}

/// A customer id, event id or price id.
pub fn id(field: &str, text: &str) -> Result<String, Fault> {
    if (1..=ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
    {
        return Ok(text.to_owned());
    }
    let detail =
        format!("{field} must be 1 to {ID_BYTES_MAX} printable ASCII characters without space and /");
    Err(Fault::malformed(field, "invalid_id", detail))
}

/// A secret of another service. What it is shows in no fault.
pub fn secret(field: &str, text: &str) -> Result<String, Fault> {
    if (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    let detail = format!("{field} must be 1 to {ID_BYTES_MAX} printable ASCII characters without space");
    Err(Fault::malformed(field, "invalid_secret", detail))
}

/// The value of an `Idempotency-Key` header.
pub fn idempotency_key(value: &[u8]) -> Result<String, Fault> {
    let fault = || {
        let detail =
            format!("the key must be 1 to {ID_BYTES_MAX} printable ASCII characters, bare or quoted");
        Fault::malformed("Idempotency-Key", "invalid_idempotency_key", detail)
    };
    let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let value = value.trim_ascii();
    let key = match value {
        [b'"', inner @ .., b'"'] => unquote(inner).ok_or_else(fault)?,
        [b'"', ..] => return Err(fault()),
        bare => bare.to_vec(),
    };
    if !(1..=ID_BYTES_MAX).contains(&key.len()) || !key.iter().all(printable) {
        return Err(fault());
    }
    String::from_utf8(key).map_err(|_| fault())
}

/// The inside of an `sf-string`: only `"` and `\` are escaped, and only by `\`.
fn unquote(inner: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => text.push(*bytes.next().filter(|next| matches!(next, b'"' | b'\\'))?),
            b'"' => return None,
            _ => text.push(byte),
        }
    }
    Some(text)
}

/// The beginning of year 1: databases have no year 0.
const FIRST_MICROS: i64 = -62_135_596_800_000_000;

/// A moment in RFC 3339, from year 1 on.
pub fn moment(field: &str, text: &str) -> Result<Micros, Fault> {
    let parsed =
        if looks_like_rfc3339(text.as_bytes()) { text.parse::<jiff::Timestamp>().ok() } else { None };
    // Floor, also before 1970: the microsecond that contains the moment.
    let micros = parsed.map(|moment| moment.as_nanosecond().div_euclid(1_000) as i64);
    micros.filter(|micros| *micros >= FIRST_MICROS).map(Micros).ok_or_else(|| {
        let detail =
            format!("{field} must be a time in RFC 3339 from year 1 on, such as 2026-01-31T12:00:00Z");
        Fault::malformed(field, "invalid_time", detail)
    })
}

/// `dddd-dd-ddTdd:dd:dd[.d+](Z|±dd:dd)`: jiff accepts more than RFC 3339 does.
fn looks_like_rfc3339(text: &[u8]) -> bool {
    let like = |text: &[u8], pattern: &[u8]| {
        text.len() == pattern.len()
            && text.iter().zip(pattern).all(|(byte, wanted)| match wanted {
                b'd' => byte.is_ascii_digit(),
                b'T' => matches!(byte, b'T' | b't' | b' '),
                b'+' => matches!(byte, b'+' | b'-'),
                _ => byte == wanted,
            })
    };
    let Some((clock, mut rest)) = text.split_at_checked(19) else { return false };
    if let [b'.', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return false;
        }
        rest = &fraction[digits..];
    }
    like(clock, b"dddd-dd-ddTdd:dd:dd") && (matches!(rest, b"Z" | b"z") || like(rest, b"+dd:dd"))
}

/// A moment as the API writes it: RFC 3339 in UTC.
pub fn rfc3339(moment: Micros) -> String {
    let clamp = |_| if moment.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::from_microsecond(moment.0).unwrap_or_else(clamp).to_string()
}

/// An `http` or `https` URL.
pub fn url(field: &str, text: &str) -> Result<String, Fault> {
    let uri = if text.len() <= URL_BYTES_MAX { text.parse::<Uri>().ok() } else { None };
    let web = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
    let hosted = |uri: &Uri| {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        !authority.contains('@') && uri.host().is_some_and(|host| !host.is_empty())
    };
    if uri.is_some_and(|uri| web(&uri) && hosted(&uri)) {
        return Ok(text.to_owned());
    }
    let detail =
        format!("{field} must be an http or https URL of at most {URL_BYTES_MAX} characters, without user");
    Err(Fault::malformed(field, "invalid_url", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_strict_rfc3339() {
        for (text, micros) in [
            ("1970-01-01T00:00:01Z", 1_000_000),
            ("1970-01-01t00:00:01.5z", 1_500_000),
            ("1970-01-01 01:00:00.000001999+01:00", 1),
            ("1969-12-31T23:59:59.9999999Z", -1),
        ] {
            assert_eq!(moment("timestamp", text), Ok(Micros(micros)), "{text}");
        }
        for text in [
            "",
            "1700000000",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00Z",
            "2026-02-30T12:00:00Z",
            "2026-01-31T12:00:00Z[UTC]",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00+0100",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "+002026-01-31T12:00:00Z",
            "２０26-01-31T12:00:00Z",
        ] {
            assert!(moment("timestamp", text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_written_as_they_are_read() {
        for text in ["2026-11-24T06:04:00Z", "2026-11-24T06:04:00.000001Z", "1969-12-31T23:59:59Z"] {
            assert_eq!(moment("timestamp", text).map(rfc3339).as_deref(), Ok(text));
        }
        rfc3339(Micros(i64::MAX));
        rfc3339(Micros(i64::MIN));
    }

    #[test]
    fn idempotency_keys_are_bare_or_quoted() {
        for (header, key) in
            [("abc", "abc"), (r#""a b""#, "a b"), (r#""a\"\\b""#, r#"a"\b"#), (" abc ", "abc")]
        {
            assert_eq!(idempotency_key(header.as_bytes()).as_deref(), Ok(key));
        }
        for header in
            ["", r#""""#, r#"""#, r#""abc"#, r#""a"b""#, r#""a\n""#, "a\u{e9}", "a\tb", &"k".repeat(256)]
        {
            assert!(idempotency_key(header.as_bytes()).is_err(), "{header}");
        }
    }

    #[test]
    fn urls_are_absolute_and_carry_no_user() {
        for text in ["https://example.com", "http://10.0.0.1:8080/hook?x=1", "https://[::1]/"] {
            assert!(url("webhook_url", text).is_ok(), "{text}");
        }
        for text in [
            "",
            "example.com",
            "/hook",
            "ftp://example.com",
            "https://",
            "https://u:p@example.com",
            "https://a b",
        ] {
            assert!(url("webhook_url", text).is_err(), "{text}");
        }
    }
}
