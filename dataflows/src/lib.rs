//! The pure part of TrackTags: what a metric means, computed from the journal and nothing else.
//!
//! No I/O, no clock, no randomness: state is a function of the works that were submitted, in epoch order.
//!
//! ```text
//!  types · amount · tally · window · limit      the vocabulary and its algebra
//!            │
//!  operators {calendar, ledger, ids, meter, batch}      what happens to an update
//!            │
//!  graph          the main path as a timely dataflow, top to bottom
//!            │
//!  driver         the synchronous door that service, oracle tests and benches share
//! ```

pub mod amount;
pub mod driver;
mod graph;
pub mod limit;
pub mod operators;
pub mod reference;
pub mod tally;
pub mod types;
pub mod window;
