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

/// Whether a byte may stand in a metric name.
pub const fn in_metric_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-')
}

/// Whether a byte may stand in a customer id, event id or price id.
pub const fn in_id(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'/'
}

/// A metric name.
pub fn metric_name(field: &str, text: &str) -> Result<String, Fault> {
    check_metric_name(field, text).map(|()| text.to_owned())
}

/// Says what is wrong with a metric name.
pub fn check_metric_name(field: &str, text: &str) -> Result<(), Fault> {
    if (1..=METRIC_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(in_metric_name) {
        return Ok(());
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
    check_id(field, text).map(|()| text.to_owned())
}

/// Says what is wrong with a customer id, event id or price id.
pub fn check_id(field: &str, text: &str) -> Result<(), Fault> {
    if (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(in_id) {
        return Ok(());
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
    plain_moment(text.as_bytes()).or_else(|| any_moment(text)).ok_or_else(|| {
        let detail =
            format!("{field} must be a time in RFC 3339 from year 1 on, such as 2026-01-31T12:00:00Z");
        Fault::malformed(field, "invalid_time", detail)
    })
}

/// A moment in any form.
fn any_moment(text: &str) -> Option<Micros> {
    let parsed =
        if looks_like_rfc3339(text.as_bytes()) { text.parse::<jiff::Timestamp>().ok() } else { None };
    // Floor, also before 1970: the microsecond that contains the moment.
    let micros = parsed.map(|moment| moment.as_nanosecond().div_euclid(1_000) as i64);
    micros.filter(|micros| *micros >= FIRST_MICROS).map(Micros)
}

/// A moment in the form that almost every client sends: `dddd-dd-ddTdd:dd:dd[.d{1,9}]Z`. None may still be one: this is
/// only the shorter way, for batches.
fn plain_moment(text: &[u8]) -> Option<Micros> {
    let (clock, rest) = text.split_first_chunk::<19>()?;
    // What is no digit becomes more than 9, and none of the sums below hides it.
    let mut greatest = 0;
    let mut number = |from: usize, digits: usize| {
        clock[from..from + digits].iter().fold(0u32, |sum, byte| {
            let digit = byte.wrapping_sub(b'0');
            greatest = greatest.max(digit);
            sum * 10 + u32::from(digit)
        })
    };
    let (year, month, day) = (number(0, 4), number(5, 2), number(8, 2));
    let (hour, minute, second) = (number(11, 2), number(14, 2), number(17, 2));
    let marks = [clock[4], clock[7], clock[10], clock[13], clock[16]];
    // A leap second, `:60`, is left to the longer way.
    let in_range = year >= 1 && (1..=12).contains(&month) && hour < 24 && minute < 60 && second < 60;
    if greatest > 9 || marks != *b"--T::" || !in_range || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let micros = match rest {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => fraction_micros(digits)?,
        _ => return None,
    };
    let days = days_since_1970(i64::from(year), i64::from(month), i64::from(day));
    let seconds = days * 86_400 + i64::from(hour * 3_600 + minute * 60 + second);
    Some(Micros(seconds * Micros::PER_SECOND + i64::from(micros)))
}

/// The microseconds in the digits behind a point; those beyond the sixth are cut off.
fn fraction_micros(digits: &[u8]) -> Option<u32> {
    let (mut micros, mut weight) = (0, 100_000);
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        micros += weight * u32::from(byte - b'0');
        weight /= 10;
    }
    Some(micros)
}

/// The days of a month of the Gregorian calendar.
const fn days_of(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a day from year 1 on. The year is counted from March, so that the leap day is its last.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    const MARCH_1_OF_YEAR_0: i64 = -719_468;
    let (year, months_since_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    // 153 days in every five months from March on, the odd ones where the rounding puts them.
    let of_year = (153 * months_since_march + 2) / 5 + day - 1;
    MARCH_1_OF_YEAR_0 + year * 365 + year / 4 - year / 100 + year / 400 + of_year
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
    use proptest::prelude::*;

    use super::*;

    /// Texts near the plain form, most of them in it.
    fn near_plain() -> impl Strategy<Value = String> {
        let date = prop_oneof![
            4 => (0u32..=9999, 0u32..=13, 0u32..=32),
            // Whether a year has a leap day is a matter of its century.
            1 => ((0u32..=99).prop_map(|century| century * 100), Just(2), 28u32..=30),
        ];
        let clock = (0u32..=24, 0u32..=60, 0u32..=61);
        let tail = prop_oneof![
            4 => Just("Z".to_owned()),
            4 => "\\.[0-9]{1,9}Z",
            1 => "\\.[0-9]{0,11}[Zz]",
            1 => "(\\.[0-9]{1,3})?[+-][0-9]{2}:[0-9]{2}",
        ];
        let damage = proptest::option::weighted(0.2, (0usize..30, any::<char>()));
        (date, clock, tail, damage).prop_map(|((y, m, d), (h, min, s), tail, damage)| {
            let text = format!("{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}{tail}");
            let Some((place, other)) = damage else { return text };
            text.chars().enumerate().map(|(at, symbol)| if at == place { other } else { symbol }).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        /// The shorter way says what the longer one says, or nothing.
        #[test]
        fn the_plain_form_of_a_moment_means_what_any_form_means(text in near_plain()) {
            let plain = plain_moment(text.as_bytes());
            prop_assert!(plain.is_none() || plain == any_moment(&text), "{plain:?} {:?}", any_moment(&text));
        }

        #[test]
        fn every_moment_has_a_plain_form(micros in FIRST_MICROS..=253_402_300_799_999_999) {
            prop_assert_eq!(plain_moment(rfc3339(Micros(micros)).as_bytes()), Some(Micros(micros)));
        }
    }

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
