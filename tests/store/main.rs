//! The store room and the sinks from outside, on real SQLite files: what a commit leaves behind, what a reader of the
//! database sees, that every row is right and there once whatever fails on the way, and which message is sent when.

// A test says which store it is on.
#![allow(clippy::print_stdout)]

mod cleanup;
mod commits;
mod crossings;
mod delivery;
mod faults;
mod outbox;
mod plans;
mod postgres;
mod reading;
mod sink;
mod slices;
mod stripe;
mod support;
#[path = "../support/postgres.rs"]
mod support_postgres;
mod templates;
