//! The store room and the history sink from outside, on real SQLite files: what a commit leaves behind, what a reader of the
//! database sees, and that every row is right and there once whatever fails on the way.

mod cleanup;
mod commits;
mod faults;
mod reading;
mod sink;
mod support;
