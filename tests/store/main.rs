//! The store room and the history sink from outside, on real SQLite files: what a commit leaves behind, what a reader of the
//! database sees, and that every row is right and there once whatever fails on the way.

// A test says which store it is on.
#![allow(clippy::print_stdout)]

mod cleanup;
mod commits;
mod faults;
mod outbox;
mod plans;
mod postgres;
mod reading;
mod sink;
mod slices;
mod support;
#[path = "../support/postgres.rs"]
mod support_postgres;
