//! Sinks: what leaves the engine for good.
//!
//! In: emissions (the changed rows of one batch class at one time entry), definitions and crossings of limits, handed over
//! by the engine without blocking it. Out: transactions of the store, and a word back once they are in. The engine keeps
//! what it has not heard back about: the rows dirty, the journal unpruned, the crossings held. What crossings have put into
//! the outbox is delivered from there, on a thread of its own (`webhooks`). Usage that is billed leaves in slices (`billing`).
//!
//! Invariants:
//! 1. Emissions reach the store in the order in which they were taken, of whatever class: one that is stuck holds up all,
//!    so that an older emission never overwrites what a newer one brought.
//! 2. Definitions are in the store before the rows that were emitted behind them.
//! 3. Bounded: at most one emission per class is taken before it is reported stored (the engine's promise), and the control
//!    thread takes no more definitions while too many of them wait here (`control::UNPROJECTED_EPOCHS_MAX`).

pub mod billing;
mod health;
mod history;
mod note;
mod parts;
pub mod webhooks;

pub use billing::Billing;
pub use health::{Counted, MESSAGE_LATE_AFTER, MessageHealth, SinkHealth};
pub use history::{HistorySink, Messages, Options, Recipients};
pub use note::{Note, Noted};
pub use webhooks::Webhooks;
