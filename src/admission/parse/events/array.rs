//! JSON arrays, read element by element; the array is never held as a whole.
//!
//! In: chunks. Out: the text of each element. A scanner counts brackets outside of strings to find where an element ends;
//! what it finds is then read as JSON. An element that is no JSON means that the document is none, and that its end may
//! be another than it seemed: the batch is broken there. An element that is JSON but no event is only rejected. Of one that
//! is too long nothing but its end is looked for. State: one element's text, a depth, four flags.

use serde_json::value::RawValue;

use super::reader::Out;
use super::{Broken, Event, Rejection, partial::Partial};

pub struct Array {
    parse: for<'a> fn(&'a [u8]) -> Result<Event<'a>, Rejection>,
    place: Place,
    scan: Scan,
    partial: Partial,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before `[`.
    Start,
    /// Behind `[`: an element or `]`.
    First,
    /// Behind a comma: an element.
    Next,
    /// Within an element.
    Element,
    /// Behind an element: a comma or `]`.
    Behind,
    /// Behind `]`.
    End,
}

impl Array {
    /// An array whose elements `parse` reads.
    pub fn new(parse: for<'a> fn(&'a [u8]) -> Result<Event<'a>, Rejection>) -> Self {
        Array { parse, place: Place::Start, scan: Scan::default(), partial: Partial::default() }
    }

    pub fn push<S>(&mut self, bytes: &[u8], out: &mut Out<'_, S>) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        let mut at = 0;
        while at < bytes.len() {
            if self.place == Place::Element {
                let Some(length) = self.scan.end(&bytes[at..]) else {
                    self.partial.keep(&bytes[at..]);
                    return Ok(());
                };
                self.end(&bytes[at..at + length], out)?;
                at += length;
            } else if !matches!(bytes[at], b' ' | b'\t' | b'\n' | b'\r') {
                self.place = self.step(bytes[at], out.items())?;
                at += usize::from(self.place != Place::Element);
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    pub fn finish<S>(&mut self, out: &mut Out<'_, S>) -> Result<(), Broken> {
        if self.place == Place::End {
            return Ok(());
        }
        Err(Broken::malformed(out.items(), "malformed_json", "the array ends before its closing bracket"))
    }

    /// The place behind a byte between elements; `Element` leaves the byte to the element.
    fn step(&mut self, byte: u8, items: u32) -> Result<Place, Broken> {
        match (self.place, byte) {
            (Place::Start, b'[') => Ok(Place::First),
            (Place::Start, b'{' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                Err(Broken::malformed(items, "wrong_type", "the body must be a JSON array"))
            }
            (Place::First | Place::Behind, b']') => Ok(Place::End),
            (Place::Behind, b',') => Ok(Place::Next),
            (Place::First | Place::Next, byte) if !matches!(byte, b',' | b']' | b'}') => {
                self.scan = Scan::default();
                Ok(Place::Element)
            }
            (place, byte) => {
                let wanted = match place {
                    Place::Start => "[",
                    Place::First | Place::Next | Place::Element => "an item",
                    Place::Behind => ", or ]",
                    Place::End => "nothing more",
                };
                let seen = byte.escape_ascii();
                let detail =
                    format!("the array is broken at item {items}: {seen} stands where {wanted} should");
                Err(Broken::malformed(items, "malformed_json", detail))
            }
        }
    }

    fn end<S>(&mut self, last: &[u8], out: &mut Out<'_, S>) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        let given = match self.partial.end(last) {
            None => out.give(Err(Rejection::too_large())),
            Some(text) => match (self.parse)(text) {
                Ok(event) => out.give(Ok(event)),
                Err(rejection) => match serde_json::from_slice::<&RawValue>(text) {
                    Ok(_) => out.give(Err(rejection)),
                    Err(error) => {
                        let items = out.items();
                        let detail = format!("the array is broken at item {items}: {error}");
                        Err(Broken::malformed(items, "malformed_json", detail))
                    }
                },
            },
        };
        self.place = Place::Behind;
        self.partial.clear();
        given
    }
}

/// Looks for the end of one JSON value, whatever the chunks. Anything well-formed ends where it should; anything else ends
/// somewhere.
#[derive(Default)]
struct Scan {
    depth: u64,
    is_scalar: bool,
    is_quoted: bool,
    is_escaped: bool,
}

impl Scan {
    /// How many of the bytes belong to the value, if it ends among them.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.is_quoted {
                at += self.closing_quote(&bytes[at..])?;
                if self.depth == 0 {
                    return Some(at);
                }
                continue;
            }
            match byte {
                b'"' | b'{' | b'[' | b'}' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r'
                    if self.is_scalar && self.depth == 0 =>
                {
                    return Some(at);
                }
                b'"' => self.is_quoted = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => self.is_scalar |= self.depth == 0,
            }
            at += 1;
        }
        None
    }

    /// How many of the bytes belong to the string that has been opened, its closing quote included.
    fn closing_quote(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = usize::from(std::mem::take(&mut self.is_escaped));
        loop {
            at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)? + 1;
            if bytes[at - 1] == b'"' {
                self.is_quoted = false;
                return Some(at);
            }
            self.is_escaped = at == bytes.len();
            at += 1;
        }
    }
}
