//! One event as a JSON object: `{id?, metric_name, scope?, customer_id?, value?, timestamp?}`.
//!
//! Two ways lead through an item. `usual` reads what almost every client sends in one pass, checking names while it looks
//! for their ends, and allocates nothing; whatever it does not expect (escapes, unknown or repeated names, wrong types,
//! anything that is no JSON) it leaves to `any`, which reads like every other body and says what is wrong. So `usual` may
//! only agree with `any` or say nothing: a law in the tests.

use std::borrow::Cow;

use dataflows::types::{Amount, Micros, Scope};

use super::super::Fault;
use super::super::names::{self, ID_BYTES_MAX, METRIC_NAME_BYTES_MAX, SCOPES};
use super::super::object::{Object, Schema};
use super::{Event, Identity, Rejection};

/// The fields of an item; also the columns of a CSV.
pub const FIELDS: [&str; 6] = ["metric_name", "customer_id", "scope", "value", "timestamp", "id"];
const ITEM: Schema = Schema { path: "", known: &FIELDS, ignored: &[] };

/// Reads an item.
pub fn parse(bytes: &[u8]) -> Result<Event<'_>, Rejection> {
    let text = utf8(bytes)?;
    usual(text).map_or_else(|| any(text), Ok)
}

/// The text of an item.
pub fn utf8(bytes: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(bytes)
        .map_err(|error| Rejection::new("malformed_json", format!("the item is not UTF-8: {error}")))
}

/// Reads any item, strictly.
pub fn any(text: &str) -> Result<Event<'_>, Rejection> {
    let object = Object::item(text, &ITEM)?;
    let metric_name = object.required("metric_name")?.checked(names::check_metric_name)?;
    let customer_id = object.some("customer_id").map(|value| value.checked(names::check_id)).transpose()?;
    let scope = object.some("scope").map(|value| value.choice(SCOPES)).transpose()?;
    let amount = object.some("value").map_or(Ok(Amount::from_units(1)), |value| value.amount())?;
    let event_at = object.some("timestamp").map(|value| value.named(names::moment)).transpose()?;
    let id = object.some("id").map(|value| value.checked(names::check_id)).transpose()?;
    check_scope(scope, customer_id.is_some())?;
    Ok(Event { metric_name, customer_id, amount, event_at, id: id.map(Identity::Plain) })
}

/// `customer_id` says the scope by itself; where `scope` is given too, it must say the same.
pub fn check_scope(scope: Option<Scope>, has_customer: bool) -> Result<(), Fault> {
    match (scope, has_customer) {
        (Some(Scope::Business), true) => {
            let detail = "customer_id goes only with scope customer";
            Err(Fault::malformed("customer_id", "invalid_combination", detail))
        }
        (Some(Scope::Customer), false) => {
            let detail = "customer_id is required with scope customer";
            Err(Fault::malformed("customer_id", "missing_field", detail))
        }
        _ => Ok(()),
    }
}

/// Reads an item in its usual form; none says nothing about it.
pub fn usual(text: &str) -> Option<Event<'_>> {
    let mut rest = Rest { text, at: 0 };
    let mut seen = [false; FIELDS.len()];
    let (mut metric_name, mut customer_id, mut scope) = (None, None, None);
    let (mut amount, mut event_at, mut id) = (Amount::from_units(1), None, None);
    rest.space();
    rest.eat(b"{")?;
    loop {
        rest.space();
        let field = rest.field()?;
        if std::mem::replace(&mut seen[field], true) {
            return None;
        }
        rest.space();
        rest.eat(b":")?;
        rest.space();
        match FIELDS[field] {
            "metric_name" => metric_name = Some(rest.name(METRIC_NAME, METRIC_NAME_BYTES_MAX)?),
            _ if rest.eat(b"null").is_some() => (),
            "customer_id" => customer_id = Some(rest.name(ID, ID_BYTES_MAX)?),
            "scope" => scope = Some(rest.scope()?),
            "value" => amount = rest.amount()?,
            "timestamp" => event_at = Some(rest.moment()?),
            _ => id = Some(rest.name(ID, ID_BYTES_MAX)?),
        }
        rest.space();
        if rest.eat(b",").is_none() {
            break;
        }
    }
    rest.eat(b"}")?;
    rest.space();
    let is_whole = rest.at == text.len() && check_scope(scope, customer_id.is_some()).is_ok();
    let metric_name = metric_name.filter(|_| is_whole).map(Cow::Borrowed)?;
    let id = id.map(|id| Identity::Plain(Cow::Borrowed(id)));
    Some(Event { metric_name, customer_id: customer_id.map(Cow::Borrowed), amount, event_at, id })
}

/// Class of the bytes of a metric name.
const METRIC_NAME: u8 = 1;
/// Class of the bytes of an id that are written without an escape.
const ID: u8 = 2;
/// The classes of every byte.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128u8 {
        if names::in_metric_name(byte) {
            classes[byte as usize] |= METRIC_NAME;
        }
        if names::in_id(byte) && !matches!(byte, b'"' | b'\\') {
            classes[byte as usize] |= ID;
        }
        byte += 1;
    }
    classes
};

/// What of an item has not been read.
struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Rest<'a> {
    fn bytes(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes().first() {
            self.at += 1;
        }
    }

    fn eat(&mut self, wanted: &[u8]) -> Option<()> {
        let is_there = self.bytes().starts_with(wanted);
        self.at += if is_there { wanted.len() } else { 0 };
        is_there.then_some(())
    }

    /// The place of a name in `FIELDS`.
    fn field(&mut self) -> Option<usize> {
        self.eat(b"\"")?;
        let field = match self.bytes().first()? {
            b'm' => 0,
            b'c' => 1,
            b's' => 2,
            b'v' => 3,
            b't' => 4,
            b'i' => 5,
            _ => return None,
        };
        self.eat(FIELDS[field].as_bytes())?;
        self.eat(b"\"")?;
        Some(field)
    }

    /// A string of 1 to so many bytes of a class.
    fn name(&mut self, class: u8, bytes_max: usize) -> Option<&'a str> {
        self.eat(b"\"")?;
        let bytes = self.bytes();
        let length = bytes.iter().position(|byte| CLASSES[usize::from(*byte)] & class == 0)?;
        if bytes[length] != b'"' || !(1..=bytes_max).contains(&length) {
            return None;
        }
        let name = &self.text[self.at..self.at + length];
        self.at += length + 1;
        Some(name)
    }

    fn scope(&mut self) -> Option<Scope> {
        let name = self.name(METRIC_NAME, METRIC_NAME_BYTES_MAX)?;
        SCOPES.into_iter().find(|(word, _)| *word == name).map(|(_, scope)| scope)
    }

    /// A number. What an `Amount` reads is what JSON calls one.
    fn amount(&mut self) -> Option<Amount> {
        let bytes = self.bytes();
        let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E');
        let length = bytes.iter().position(|byte| !in_number(byte))?;
        let number = &self.text[self.at..self.at + length];
        self.at += length;
        number.parse().ok()
    }

    fn moment(&mut self) -> Option<Micros> {
        // Every byte of a time is one of an id, save for a space instead of the T.
        names::moment("timestamp", self.name(ID, ID_BYTES_MAX)?).ok()
    }
}
