//! CloudEvents over HTTP in binary mode (HTTP protocol binding 1.0, section 3.1): attributes are headers, data is the body.
//!
//! A value may be a quoted string and is percent-encoded, in this order from outside (section 3.1.3.2). A `%` that starts
//! no escape stands for itself: not every producer encodes it.

use std::borrow::Cow;

use super::super::{Fault, names};
use super::cloudevent::{amount_of, check_text, check_version};
use super::{Event, ITEM_BYTES_MAX, Identity, Rejection};

const ATTRIBUTES: [&str; 7] =
    ["ce-specversion", "ce-type", "ce-source", "ce-id", "ce-subject", "ce-time", "content-type"];

/// Whether a request with a header of this name is in binary mode: `ce-specversion` is in none of another.
pub fn is_binary(header: &str) -> bool {
    header.eq_ignore_ascii_case(ATTRIBUTES[0])
}

/// Reads the event that the headers of a request, whichever there are, and its whole body make. The body is inflated.
pub fn parse_binary<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &'a [u8],
) -> Result<Event<'a>, Rejection> {
    if body.len() > ITEM_BYTES_MAX {
        return Err(Rejection::too_large());
    }
    let mut values = [const { None::<Cow<'a, str>> }; ATTRIBUTES.len()];
    for (name, value) in headers {
        let Some(at) = ATTRIBUTES.iter().position(|known| name.eq_ignore_ascii_case(known)) else { continue };
        if values[at].replace(decoded(ATTRIBUTES[at], value)?).is_some() {
            let detail = format!("the header {} is given more than once", ATTRIBUTES[at]);
            return Err(Rejection::new("repeated_field", detail));
        }
    }
    let [version, metric_name, source, id, subject, time, content_type] = values;
    let required = |field: &str, value: Option<Cow<'a, str>>| {
        value.ok_or_else(|| Rejection::new("missing_field", format!("the header {field} is required")))
    };
    check_version(&required("ce-specversion", version)?)?;
    let metric_name = checked("ce-type", required("ce-type", metric_name)?, names::check_metric_name)?;
    let source = checked("ce-source", required("ce-source", source)?, check_text)?;
    let id = checked("ce-id", required("ce-id", id)?, check_text)?;
    let customer_id = subject.map(|subject| checked("ce-subject", subject, names::check_id)).transpose()?;
    let event_at = time.map(|time| names::moment("ce-time", &time)).transpose()?;
    let amount = amount_of(content_type.as_deref(), body)?;
    Ok(Event { metric_name, customer_id, amount, event_at, id: Some(Identity::CloudEvent { source, id }) })
}

fn checked<'a>(
    field: &str,
    text: Cow<'a, str>,
    check: fn(&str, &str) -> Result<(), Fault>,
) -> Result<Cow<'a, str>, Rejection> {
    check(field, &text)?;
    Ok(text)
}

fn decoded<'a>(field: &str, value: &'a [u8]) -> Result<Cow<'a, str>, Rejection> {
    let not_text = || Rejection::new("invalid_text", format!("the header {field} is not UTF-8"));
    let value = std::str::from_utf8(value.trim_ascii()).map_err(|_| not_text())?;
    if !value.starts_with('"') && !value.contains('%') {
        return Ok(Cow::Borrowed(value));
    }
    let unquoted = match value.strip_prefix('"') {
        None => Cow::Borrowed(value),
        Some(inner) => Cow::Owned(unquote(inner).ok_or_else(|| {
            Rejection::new("invalid_text", format!("the quotes of the header {field} do not close"))
        })?),
    };
    String::from_utf8(percent_decoded(unquoted.as_bytes())).map(Cow::Owned).map_err(|_| not_text())
}

/// The inside of a quoted string (RFC 9110, section 5.6.4), whose opening quote has been read.
fn unquote(inner: &str) -> Option<String> {
    let mut text = String::with_capacity(inner.len());
    let mut symbols = inner.chars();
    loop {
        match symbols.next()? {
            '"' => return symbols.next().is_none().then_some(text),
            '\\' => text.push(symbols.next()?),
            symbol => text.push(symbol),
        }
    }
}

fn percent_decoded(mut bytes: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(bytes.len());
    while let [first, rest @ ..] = bytes {
        let escape = match rest {
            [high, low, ..] if *first == b'%' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        decoded.push(escape.map_or(*first, |(high, low)| high << 4 | low));
        bytes = if escape.is_some() { &rest[2..] } else { rest };
    }
    decoded
}
