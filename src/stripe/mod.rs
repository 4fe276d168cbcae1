//! Stripe, as far as it can be told without knowing what we bill: what it sends us is checked and read, what we send it is
//! written, its answers are judged. In: raw bodies and headers; usage. Out: events in our words; what became of a call.
//!
//! ```text
//!  webhook ─▶ signature ─▶ event ─▶ Event { what }                    (who asks for it decides what it means)
//!  usage ─▶ identifier ─▶ calls ─▶ outbound ─▶ Stripe ─▶ outcome ─▶ Outcome
//!             one a slice   form                           delivered, duplicate, again, unknown, dead
//! ```
//! # Invariants
//! 1. The bytes that were signed are the bytes that are read, and nothing of them is believed before.
//! 2. A slice of usage has one identifier, computed from what it is: whoever sends it again sends the same.
//! 3. What may have been applied is `Unknown`, never `Again`, and what is `Dead` was not applied.
//! 4. No message shows a secret.
//!
//! `Biller` is the seam: another biller is another implementation of it. What this room does not do: keep what is sent until
//! it is delivered, wait between attempts, remember events, know series, customers and plans.

mod biller;
mod calls;
mod event;
mod identifier;
mod outcome;
mod signature;
mod usage;

pub use crate::control::Plaintext;
pub use biller::{Biller, Done, Spawned};
pub use calls::{API_BASE, API_VERSION, Account, Stripe, livemode};
pub use event::{
    Checkout, ENTRIES_MAX, EVENT_BYTES_MAX, ErrorReport, Event, EventError, ID_BYTES_MAX, Invoice, Item,
    Line, MeterErrors, Period, Reason, Rejected, SECONDS, Status, Subscription, What,
};
pub use identifier::{IDENTIFIER_CHARS_MAX, idempotency_key, identifier, reported};
pub use outcome::{CallError, Outcome};
pub use signature::{HEADER_BYTES_MAX, HEADER_PARTS_MAX, SignatureError, TOLERANCE_SECS, verify};
pub use usage::{Counted, Meter, Price, Usage, VALUE_DIGITS_MAX};
