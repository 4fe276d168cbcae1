//! The outbox: messages to webhooks, in the store from the moment that they are due to be sent until they are forgotten.
//!
//! In: messages, from the sink, by `Store::commit_messages`. Out: those whose time has come, to the delivery, which says
//! what became of them.
//!
//! ```text
//!            sent                     forget_sent
//! waiting ─────────► sent (no body) ─────────────► gone
//!   │ ▲   failed, no next time
//!   └─┼────────────► dead
//!     └─── retry ─────┘
//! ```
//!
//! Invariants:
//! 1. A message is in once, whatever is repeated: of epochs below the progress of the class nothing is taken any more, and of
//!    those from there on an id that is there stays as it is.
//! 2. Only a waiting message has a next time, and only a waiting one fails.
//! 3. Whoever has lost the store changes nothing: each write is behind the same fence as the sink's.
//!
//! A message of whatever state goes with its business (`Store::commit`), or when the delivery finds none (`drop_of`).
//!
//! What it does not do: send, decide when to try again, or say that a message arrives once; one that has arrived may be
//! sent again when nobody could write down that it had.

use dataflows::types::{Epoch, Micros};

use super::StoreError;

/// `sink_progress.class` of the messages. All messages of epochs below its upper are in.
pub(super) const MESSAGES: &str = "messages";

/// One message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The same whenever the journal is read again.
    pub id: String,
    /// The epoch that it is about.
    pub epoch: Epoch,
    /// Whose it is.
    pub business_id: String,
    /// Where it goes.
    pub url: String,
    /// JSON.
    pub body: String,
    /// When it was made, or what was given up last asked for again: how long it is tried and remembered counts from then.
    pub created_at: Micros,
    /// How many have failed.
    pub attempts: u32,
    /// When it is tried next. Of a dead one, which is not: `created_at`.
    pub next_at: Micros,
}

/// A place in the order in which messages are due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When the message there is tried next.
    pub next_at: Micros,
    /// Its id: of one moment they come by the order of bytes.
    pub id: String,
}

/// What one look at the outbox passes over and takes.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// Only messages whose time has come by then.
    pub now: Micros,
    /// Strictly behind that place; none: from the first.
    pub after: Option<&'a Place>,
    /// How many it passes over or takes. This bounds what a look costs, whatever waits.
    pub passed_max: usize,
    /// How many of one business it takes: the first ones that it passes.
    pub of_business_max: usize,
}

/// What a look has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueMessages {
    /// In their order.
    pub messages: Vec<Message>,
    /// How far it came, if there may be more behind.
    pub end: Option<Place>,
}

/// One that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadMessage {
    /// As it was when it was tried last.
    pub message: Message,
    /// Why that failed.
    pub last_error: String,
}

/// What the delivery asks and tells. Its own connection; blocking, and neither to be called nor dropped on a thread of an async
/// runtime. What fails may be repeated, an ambiguous commit included. An id that is not there is passed over.
pub trait Outbox: Send {
    /// Messages whose time has come, oldest `next_at` first.
    fn due(&mut self, look: &Look<'_>) -> Result<DueMessages, StoreError>;

    /// The earliest `next_at` of those that wait.
    fn next_at(&mut self) -> Result<Option<Micros>, StoreError>;

    /// It has arrived.
    fn sent(&mut self, id: &str) -> Result<(), StoreError>;

    /// It has not: attempts so far, when to try again (none: it is dead), and why. Changes waiting ones only.
    fn failed(
        &mut self,
        id: &str,
        attempts: u32,
        next_at: Option<Micros>,
        error: &str,
    ) -> Result<(), StoreError>;

    /// Dead ones by id (order of bytes), strictly behind `after`.
    fn dead(&mut self, after: Option<&str>, limit: usize) -> Result<Vec<DeadMessage>, StoreError>;

    /// A dead one is tried again at once, as if it had been made now; false if there is none of that id.
    fn retry(&mut self, id: &str, now: Micros) -> Result<bool, StoreError>;

    /// How many wait and how many are dead.
    fn counts(&mut self) -> Result<(u64, u64), StoreError>;

    /// When the oldest of those that wait was made.
    fn oldest(&mut self) -> Result<Option<Micros>, StoreError>;

    /// All of a business goes.
    fn drop_of(&mut self, business_id: &str) -> Result<(), StoreError>;

    /// Forgets those that were sent and made strictly before.
    fn forget_sent(&mut self, before: Micros) -> Result<(), StoreError>;
}

/// An error as every store can keep it: PostgreSQL has no text with a zero in it.
pub(super) fn kept(error: &str) -> String {
    error.replace('\0', "\u{FFFD}")
}
