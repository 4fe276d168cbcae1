//! skeleton
#![forbid(unsafe_code)]
pub mod admission;
pub mod clock;
pub mod control;
pub mod engine;
pub mod http;
pub mod journal;
pub mod sinks;
pub mod store;
