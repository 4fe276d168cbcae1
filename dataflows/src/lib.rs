//! The pure part of TrackTags: what a metric means, computed from the journal and nothing else.
//!
//! No I/O, no clock, no randomness: state is a function of the works that were submitted, in epoch order.
//!
//! ```text
//!  types · amount · tally · window · limit · edges      the vocabulary and its algebra
//!            │
//!  operators      what happens to an update: meter applies it, batch hands on what has changed
//!            │
//!  graph          the main path as a timely dataflow, top to bottom
//!            │
//!  driver         the synchronous door that service, oracle tests and benches share
//! ```

#![deny(unsafe_code)]

pub mod amount;
pub mod driver;
pub mod edges;
mod graph;
pub mod hydration;
pub mod limit;
mod operators;
mod prefetch;
pub mod reference;
pub mod tally;
pub mod types;
pub mod window;
