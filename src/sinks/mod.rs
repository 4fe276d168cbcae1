//! Sinks: what leaves the engine for good.
//!
//! In: emissions (the changed rows of one batch class at one time entry) and definitions, handed over by the engine
//! without blocking it. Out: transactions of the store, and a word back once they are in. The engine keeps what it has not
//! heard back about: the rows dirty, the journal unpruned.
//!
//! Invariants:
//! 1. Emissions reach the store in the order in which they were taken, of whatever class: one that is stuck holds up all,
//!    so that an older emission never overwrites what a newer one brought.
//! 2. Definitions are in the store before the rows that were emitted behind them.
//! 3. Bounded: at most one emission per class is taken before it is reported stored (the engine's promise), and the engine
//!    stops accepting definitions while `DEFINITIONS_WAITING_MAX` of them wait here.

mod health;
mod history;
mod parts;

pub use health::SinkHealth;
pub use history::{HistorySink, Options};

use std::sync::Arc;

use dataflows::types::{Definition, Epoch, LiveState, Micros, Row, SeriesId, Span};

/// Definitions that may wait for the store (`SinkHealth::definitions_waiting`) before the control thread refuses new
/// ones as overload: about 0.5 KB each.
pub const DEFINITIONS_WAITING_MAX: u64 = 1 << 20;

/// Everything that changed in one class at one time entry, all workers' rows merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// The batch interval of the series in it.
    pub class: Span,
    /// The epoch of the time entry: all changes before it are in.
    pub upper: Epoch,
    /// The time entry.
    pub at: Micros,
    /// Changed windows, in (series, window) order.
    pub rows: Vec<Row>,
    /// Live periods of the changed series, in series order.
    pub states: Vec<LiveState>,
    /// Rows up to this series are in the store already, from before a restart.
    pub after: Option<SeriesId>,
}

/// Where emissions and definitions go. Neither call blocks.
pub trait Sink: Send + Sync {
    /// The next emission; its class has none outstanding.
    fn take(&self, emission: Arc<Emission>);

    /// All definitions of one epoch, in rising order of epochs, each before the emissions behind it.
    fn project(&self, epoch: Epoch, definitions: Vec<Definition>);
}

/// Who wants to know that something is in the store. Called by the sink's thread behind the commit; must not block.
pub trait Stored: Send + Sync {
    /// The emission of this class is in, all of it.
    fn stored(&self, class: Span, upper: Epoch);

    /// Definitions up to and including this epoch are in.
    fn definitions_stored(&self, upper: Epoch);
}
