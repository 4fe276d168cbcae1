//! The store: history that users read with SQL, the projection of the definitions, and the outbox of messages. All SQL is in
//! this room and in `migrations/`.
//!
//! In: parts of emissions and definitions, from the sink thread, one transaction each. Out: progress, for the start of the
//! engine; pages of history, for HTTP; messages, for their delivery. Tables are projections of the journal: losing them loses nothing that the
//! journal still has.
//!
//! Invariants:
//! 1. Definitions, rows, states, deletions and progress of a part are in one transaction.
//! 2. Progress never goes back, and what it covers is not applied again: a repeated part changes nothing, merge rows
//!    included, however the repetition is cut.
//! 3. A row is written for a series in the definitions table only, and takes its names from there: a deleted series
//!    writes nothing.
//! 4. What a part deletes of a cleaned series it deletes before it writes: rows behind the cleanup stay.
//! 5. A business takes keys, secrets, messages, customers, plans, limits, slices and what Stripe told along, a customer its
//!    keys, a series what is said of its billing periods and billed of them, a plan nothing: series and a plan's
//!    limits are deleted one by one. Only `CustomerPlanned` says which plan a customer is on: describing the customer anew
//!    leaves it there.
//!
//! What this room does not do: retry, cut, or decide what is due; that is the sink's.

mod merge;
mod migrations;
mod outbox;
mod postgres;
mod records;
mod sqlite;
mod text;

pub use outbox::{DeadMessage, DueMessages, Look, Message, Outbox, Place};
pub use postgres::{Claim, PostgresHistory, PostgresStore, Target};
pub use sqlite::{SqliteHistory, SqliteStore};

use std::collections::BTreeMap;

use dataflows::types::{
    Amount, AuditEntry, Definition, Epoch, LiveState, Micros, Row, SeriesId, Span, Tally,
};

/// `through` of a part behind which nothing of its emission is left. No series has this number.
pub const ALL_SERIES: SeriesId = SeriesId(u32::MAX);
/// `sink_progress.class` of the definitions.
const DEFINITIONS: &str = "definitions";

/// How far the store has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Which journal feeds the store; none for a new store.
    pub journal_id: Option<String>,
    /// Definitions of epochs up to and including this are in; 0 for none.
    pub definitions: Epoch,
    /// Per batch class: the last epoch with a commit, and the greatest series whose rows of it are in (`ALL_SERIES`:
    /// all).
    pub classes: BTreeMap<Span, (Epoch, SeriesId)>,
    /// Per batch class: the last epoch whose batch is in whole. Behind `classes` while a batch is in in part: what the
    /// batch before it merged must not be merged again.
    pub whole: BTreeMap<Span, Epoch>,
}

/// One transaction.
pub struct Part<'a> {
    /// Which journal the sender reads from.
    pub journal_id: &'a str,
    /// Definitions not yet projected, in order, with their epochs, whole epochs only; applied first. Those that progress
    /// covers are skipped.
    pub definitions: &'a [(Epoch, Definition)],
    /// None: definitions only.
    pub rows: Option<PartRows<'a>>,
}

/// What of a part is not in yet.
struct Due<'a> {
    definitions: &'a [(Epoch, Definition)],
    /// And the series up to and including which they are in.
    rows: Option<(&'a PartRows<'a>, Option<SeriesId>)>,
}

impl Part<'_> {
    /// What is left of it, given what progress says inside the transaction: of the definitions, and of the rows' class.
    fn due(&self, definitions_done: Epoch, done: Option<(Epoch, SeriesId)>) -> Due<'_> {
        let first = self.definitions.partition_point(|(epoch, _)| *epoch <= definitions_done);
        let rows =
            self.rows.as_ref().filter(|rows| done.is_none_or(|done| done < (rows.upper, rows.through)));
        // A repetition may be cut elsewhere than the first time: what the first one brought is skipped by series.
        let after =
            |rows: &PartRows<'_>| done.filter(|(upper, _)| *upper == rows.upper).map(|(_, through)| through);
        Due { definitions: &self.definitions[first..], rows: rows.map(|rows| (rows, after(rows))) }
    }
}

/// Definitions with their epochs and their places in them. Epochs come whole, so that a definition has the same place each
/// time it comes.
fn in_epochs(definitions: &[(Epoch, Definition)]) -> impl Iterator<Item = (Epoch, u32, &Definition)> {
    definitions.chunk_by(|(one, _), (next, _)| one == next).flat_map(|epoch| {
        let places = epoch.iter().zip(0..);
        places.map(|((epoch, definition), index)| (*epoch, index, definition))
    })
}

/// The rows of one transaction: a stretch of one emission.
pub struct PartRows<'a> {
    /// The batch class.
    pub class: Span,
    /// The epoch of the time entry that the rows are as of.
    pub upper: Epoch,
    /// That time entry.
    pub flushed_at: Micros,
    /// In (series, window) order.
    pub rows: &'a [Row],
    /// In series order.
    pub states: &'a [LiveState],
    /// Cleaned series, in series order: their rows with a `window_end` not after that moment, and their states, are
    /// deleted before `rows` and `states` are written. They are in when `through` says so, as rows are.
    pub cleaned: &'a [(SeriesId, Micros)],
    /// Rows of this emission up to and including this series are in after the commit (`ALL_SERIES`: all).
    pub through: SeriesId,
}

impl PartRows<'_> {
    /// When a row counts as written: the time entry, less a millionth of the age of its window. So it rises with
    /// `window_start` within a batch, by a microsecond a second, and does not depend on what else is in the batch, which may
    /// be others'.
    fn row_flushed_at(&self, row: &Row) -> Micros {
        let age = self.flushed_at.0.saturating_sub(row.window_start.0);
        Micros(self.flushed_at.0 - age.div_euclid(Micros::PER_SECOND))
    }
}

/// Why a store did not do as told, by what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was changed: try again later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The commit may have happened: read progress before anything else.
    #[error("the outcome of the commit is unknown: {0}")]
    Ambiguous(String),
    /// Nothing was changed and a human must act: the sentence says what to do.
    #[error("{0}")]
    Fatal(String),
    /// Another service writes this store now: nothing was changed, and nothing will be by this one.
    #[error("{0}")]
    Fenced(String),
}

/// Everything that a store has of the journal that it was written from, but for its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// What builds the registry, in order: businesses, keys, secrets, plans, their limits, each customer with what is
    /// known of it and the plan that it is on, series, what of their usage is billed, subscriptions, events that are
    /// remembered, ends and finality of billing periods; of a kind, what was made first comes first.
    pub definitions: Vec<Definition>,
    /// The first number that no series has had.
    pub next_series: SeriesId,
    /// Newest live periods, in series order.
    pub states: Vec<LiveState>,
    /// The last rows of each series, in (series, window) order.
    pub rows: Vec<Row>,
}

/// The writing side, owned by the sink thread. Blocking. After an error of any kind the next call starts from a new
/// connection.
pub trait Store: Send {
    /// How far the store has come.
    fn progress(&mut self) -> Result<Progress, StoreError>;

    /// One transaction: definitions, rows, states, progress. What progress covers already is skipped.
    fn commit(&mut self, part: &Part<'_>) -> Result<(), StoreError>;

    /// One transaction: those of the messages that are not in yet, and that all of epochs below `upper` are. What an earlier
    /// call said so of is left out, and an id that is there stays as it is, sent or not. If the commit is ambiguous, repeat it.
    fn commit_messages(&mut self, upper: Epoch, messages: &[Message]) -> Result<(), StoreError>;

    /// Says that this writer is there, where others could take it for gone. Called every few seconds without a commit.
    fn heartbeat(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// One page of a series' history. Bounds are on `window_start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Which.
    pub series: SeriesId,
    /// Not before.
    pub start: Option<Micros>,
    /// Strictly before.
    pub end: Option<Micros>,
    /// Strictly before: the cursor, since the newest come first.
    pub before: Option<Micros>,
    /// At most this many rows.
    pub limit: usize,
}

/// One window of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// First moment.
    pub window_start: Micros,
    /// First moment behind it.
    pub window_end: Micros,
    /// The window's own tally.
    pub tally: Tally,
    /// The reading of the live period that contains the window.
    pub value: Amount,
    /// When the row was last written; always present in what the store gives, none for what it does not have yet.
    pub flushed_at: Option<Micros>,
}

/// Rows, and the progress of the series' class read in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// Newest first.
    pub rows: Vec<HistoryRow>,
    /// The class's entry of `Progress::classes`.
    pub progress: Option<(Epoch, SeriesId)>,
}

/// One page of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only entries of this tenant.
    pub business_id: Option<String>,
    /// Strictly before: the cursor, since the newest come first.
    pub before: Option<(Epoch, u32)>,
    /// At most this many entries.
    pub limit: usize,
}

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Of the definitions that it is about.
    pub epoch: Epoch,
    /// Its place among the definitions of the epoch.
    pub index: u32,
    /// What it says.
    pub entry: AuditEntry,
}

/// The reading side; blocking, call it from `spawn_blocking`. Readers never wait for the writer.
pub trait History: Send + Sync {
    /// One page; `class` is the batch interval of the series.
    fn rows(&self, query: &HistoryQuery, class: Span) -> Result<HistoryPage, StoreError>;

    /// Entries of the audit log, newest first.
    fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError>;

    /// Whether the store answers at all.
    fn ready(&self) -> bool;
}
