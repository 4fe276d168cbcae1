//! The HTTP side, from outside: what is read, what is refused and how, and what a connection may do.
//!
//! `parse` holds tables of good and bad requests, `hostile` throws generated ones at every field, `serve` talks to the
//! accept loop over real sockets, `openapi` compares the document with what it is made of,
//! `events` sends batches to the whole service in this process. What else needs the engine is tested end to end elsewhere.

mod events;
mod hostile;
mod openapi;
mod parse;
mod serve;
