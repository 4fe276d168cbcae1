//! The real binary from outside: documents whose examples run, kills, power cuts, starts that must fail, stops.
//!
//! Each scenario prints its seed. `TRACKTAGS_TEST_FULL=1` (set by `tests/run --full`) runs the long loops.

// A scenario says what it did and which seed repeats it.
#![allow(clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod billing;
mod businesses;
mod chunks;
mod customers;
mod cuts;
mod database;
mod database_faults;
mod events;
mod export;
mod keys;
mod kills;
mod limits;
mod localstripe;
mod openapi;
mod plans;
mod proxy;
#[cfg(feature = "seeded-bugs")]
mod quarter;
mod readme;
mod secrets;
mod secrets_database;
mod seed;
mod starts;
mod stops;
mod stripe;
mod templates;
mod tenancy;
mod webhooks;
