//! The room `outbound` from outside, on real sockets: what may be connected to and what an exchange may cost. Servers are
//! threads of this process on addresses of loopback, some of them allowed and some not; names are resolved by a test's
//! own resolver.

// A test says what this machine does not let it try.
#![allow(clippy::print_stdout)]

mod bounds;
mod exchange;
mod guarding;
mod support;
mod tls;
