//! The store room and the history sink from outside, on real SQLite files: what a commit leaves behind, what a reader of the
//! database sees, and that every row is right and there once whatever fails on the way.

// A test says which store it is on.
#![allow(clippy::print_stdout)]

mod cleanup;
mod commits;
mod faults;
mod postgres;
mod reading;
mod sink;
mod support;
#[path = "../support/postgres.rs"]
mod support_postgres;

use std::time::{Duration, Instant};

/// Asks `question` every few milliseconds until it answers `Ok`; after `limit` the last `Err` is the answer.
fn until<T, E>(limit: Duration, mut question: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let start = Instant::now();
    loop {
        match question() {
            Err(_) if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(10)),
            answer => return answer,
        }
    }
}
