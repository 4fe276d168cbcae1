//! skeleton
use dataflows::types::*;
use std::collections::BTreeMap;

/// How far the store has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Which journal feeds the store; none for a new store.
    pub journal_id: Option<String>,
    /// Definitions of epochs up to and including this are in.
    pub definitions: Epoch,
    /// Per batch class: the last epoch with a commit, and the greatest series whose rows of it are in
    /// (`SeriesId(u32::MAX)`: all).
    pub classes: BTreeMap<Span, (Epoch, SeriesId)>,
}

/// One transaction.
pub struct Part<'a> {
    pub journal_id: &'a str,
    /// Definitions not yet projected, in order, with their epochs; applied first.
    pub definitions: &'a [(Epoch, Definition)],
    /// None: definitions only.
    pub rows: Option<PartRows<'a>>,
}
pub struct PartRows<'a> {
    pub class: Span,
    pub upper: Epoch,
    pub flushed_at: Micros,
    /// In (series, window) order.
    pub rows: &'a [Row],
    pub states: &'a [LiveState],
    /// Rows of this emission up to and including this series are in after the commit (`SeriesId(u32::MAX)`: all).
    pub through: SeriesId,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Try again later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The commit may have happened: read progress again.
    #[error("the outcome of the commit is unknown: {0}")]
    Ambiguous(String),
    /// A human must act; the sentence says what to do.
    #[error("{0}")]
    Fatal(String),
}

/// The writing side, owned by the sink thread.
pub trait Store: Send {
    fn progress(&mut self) -> Result<Progress, StoreError>;
    /// One transaction: definitions, rows, states, progress.
    fn commit(&mut self, part: &Part<'_>) -> Result<(), StoreError>;
}

/// One page of a series' history.
pub struct HistoryQuery {
    pub series: SeriesId,
    pub start: Option<Micros>,
    pub end: Option<Micros>,
    /// strictly before (newest first)
    pub before: Option<Micros>,
    pub limit: usize,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    pub window_start: Micros,
    pub window_end: Micros,
    pub tally: Tally,
    pub value: Amount,
    pub flushed_at: Option<Micros>,
}
/// Rows, and the progress of the series' class read in the same transaction.
pub struct HistoryPage {
    pub rows: Vec<HistoryRow>,
    pub progress: Option<(Epoch, SeriesId)>,
}

/// The reading side; blocking, call from `spawn_blocking`.
pub trait History: Send + Sync {
    fn rows(&self, query: &HistoryQuery, class: Span) -> Result<HistoryPage, StoreError>;
    fn ready(&self) -> bool;
}
