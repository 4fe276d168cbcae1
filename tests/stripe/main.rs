//! The room `stripe` from outside: its calls against a Stripe of our own, with refusals and faults; its reading of webhooks
//! against that one's deliveries and against Stripe's own library.

// A test says which seed repeats it.
#![allow(clippy::print_stdout)]

mod calls;
mod faults;
mod library;
mod refusals;
mod support;
mod webhooks;

#[path = "../support/stripe/mod.rs"]
mod fake;
