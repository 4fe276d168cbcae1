//! skeleton
#![forbid(unsafe_code)]
#![allow(missing_docs, dead_code)]
pub mod admission;
pub mod clock;
pub mod control;
pub mod http;
pub mod store;
