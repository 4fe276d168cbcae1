//! NDJSON: an item a line, ended by `\n` or `\r\n`; the last one may lack its end.
//!
//! A line break cannot stand within a JSON text of one line, so every bad line ends where the next begins.

use super::reader::Out;
use super::{Broken, Event, Rejection, item, partial::Partial};

#[derive(Default)]
pub struct Lines {
    partial: Partial,
}

impl Lines {
    pub fn push<S>(&mut self, mut bytes: &[u8], out: &mut Out<'_, S>) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            self.end(&bytes[..at], out)?;
            bytes = &bytes[at + 1..];
        }
        self.partial.keep(bytes);
        Ok(())
    }

    pub fn finish<S>(&mut self, out: &mut Out<'_, S>) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        if self.partial.is_empty() { Ok(()) } else { self.end(&[], out) }
    }

    fn end<S>(&mut self, last: &[u8], out: &mut Out<'_, S>) -> Result<(), Broken>
    where
        S: FnMut(u32, Result<Event<'_>, Rejection>),
    {
        let given = match self.partial.end(last) {
            Some(line) if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) => Ok(()),
            Some(line) => out.give(item::parse(line)),
            None => out.give(Err(Rejection::too_large())),
        };
        self.partial.clear();
        given
    }
}
