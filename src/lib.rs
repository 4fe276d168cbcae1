//! TrackTags: exact, durable, live usage metering beside your Postgres.
//!
//! ```text
//!  http ─▶ admission ─▶ journal ─▶ engine (dataflows) ─▶ sinks ─▶ store
//!    └──── control ───────┘                  └─ the owning worker answers readings
//! ```
//! An update comes in over HTTP, is stamped, journaled and fsynced, decided by a timely dataflow, answered, and is a row
//! in the store at the next batch boundary. Definitions take the same way through the journal.
//! What goes to an address that a tenant names goes through `outbound` alone.
//!
//! # Invariants
//! 1. A receipt means *durable in the journal*. Nothing that could be lost is ever visible.
//! 2. State at an epoch is a function of the journal up to it: arrival stamps, definitions, time effects and restarts are
//!    entries. A replay, with any number of workers, decides as the first run did.
//! 3. A sink commits rows and progress in one transaction; repeating it changes nothing.
//! 4. A dataflow thread never waits for I/O; full queues become 503 with `Retry-After` at admission, before the body is
//!    read; in-flight bytes are bounded per business, so that one tenant cannot starve another.
//! 5. Windows are data, epochs are progress; lateness is a property of an event.
//! 6. A refusal changes no state, so it may be answered early; an admission is decided in meter alone.
//!
//! The pure part (vocabulary, algebra, operators, the graph) is the crate `dataflows`. Which room may know which is a table
//! in `tests/tidy.rs`.
#![forbid(unsafe_code)]

pub mod admission;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod engine;
pub mod http;
pub mod journal;
pub mod outbound;
pub mod sinks;
pub mod store;
pub mod stripe;
pub mod telemetry;
