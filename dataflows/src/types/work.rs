//! What a worker is handed, in journal order, and what it gives back.

use serde::{Deserialize, Serialize};

use super::{
    Amount, EffectiveLimit, Epoch, Fact, Limit, LimitSource, Micros, Operation, SeriesId, Shape, Span, Tally,
};

/// `Update::item` of an update that nobody waits for.
pub const NO_REPLY: u32 = u32::MAX;

/// From here on `Update::item` is that of one of many: those get no `Decision`, and a `Verdict` only if they are not
/// admitted.
pub const BRIEF: u32 = 1 << 31;

/// One amount for one series, as meter applies it: 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Where the owning worker keeps the series.
    pub slot: u32,
    /// Index of the reply in the epoch's list; from `BRIEF` on, of one of many; or `NO_REPLY`.
    pub item: u32,
    /// The event time.
    pub event_at: Micros,
    /// The amount; negative for refunds.
    pub amount: Amount,
}

/// The identity of an event: the upper 96 bits are a hash of namespace and id, the lower 32 the `SeriesId`, so that
/// any number of workers can find the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId(pub u128);

impl EventId {
    /// Joins 96 bits of `hash` (its upper ones) with the series.
    pub const fn new(hash: u128, series: SeriesId) -> Self {
        EventId((hash & !(u32::MAX as u128)) | series.0 as u128)
    }

    /// The series that the id belongs to.
    pub const fn series(self) -> SeriesId {
        SeriesId(self.0 as u32)
    }
}

/// A set of batch classes: bit i is `Span::FLUSH[i]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClassSet(pub u16);

impl ClassSet {
    /// Every class.
    pub const ALL: ClassSet = ClassSet((1 << Span::FLUSH.len()) - 1);

    /// Whether the class of this batch interval is in the set.
    pub fn contains(self, class: Span) -> bool {
        self.0 & (1 << class as u16) != 0
    }

    /// Adds the class of this batch interval.
    pub fn insert(&mut self, class: Span) {
        self.0 |= 1 << class as u16;
    }

    /// Takes the class of this batch interval out.
    pub fn remove(&mut self, class: Span) {
        self.0 &= !(1 << class as u16);
    }

    /// The classes that are in both sets.
    pub fn and(self, other: ClassSet) -> ClassSet {
        ClassSet(self.0 & other.0)
    }

    /// The classes in the set, shortest interval first.
    pub fn iter(self) -> impl Iterator<Item = Span> {
        Span::FLUSH.into_iter().filter(move |&class| self.contains(class))
    }
}

/// What one definition means to the worker that owns the series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A series begins in an unused slot.
    Open {
        /// Where.
        slot: u32,
        /// Which.
        series: SeriesId,
        /// How it counts. With a limit only where no facts speak of the series.
        shape: Shape,
    },
    /// The definition changed. Operation, type and intervals change only while the series has had no update; should
    /// one have slipped in, its tallies are kept and read in the new shape from then on. The limit stays: `Limit`
    /// changes it.
    Reshape {
        /// Which.
        slot: u32,
        /// How it counts from now on.
        shape: Shape,
    },
    /// Another effective limit, as the limits graph says; nothing for a series that is not there.
    Limit {
        /// Which.
        slot: u32,
        /// The limit.
        limit: Option<EffectiveLimit>,
        /// Whether anybody is to hear of it. Not so at a start, which brings back what was.
        is_news: bool,
    },
    /// A new live period begins: at the epoch's stamp (admin reset, or a start with `restore_on_startup: false`), or where
    /// a billing period ends. Again at its moment or behind it, it makes the store hear of the new period.
    Cut {
        /// Which.
        slot: u32,
        /// The first moment of the new period; none is the stamp. It is ahead of the stamp by no more than events may be,
        /// if no event may be counted in the wrong period.
        at: Option<Micros>,
    },
    /// The series is deleted: its state goes, updates behind this are `Gone`. The slot is not used again.
    Close {
        /// Which.
        slot: u32,
    },
}

/// One worker's share of one epoch. Epochs reach a worker in rising order; a worker that has no share of an epoch of
/// updates does not hear of it, `Time` reaches all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Updates under one arrival stamp, in journal order.
    Updates {
        /// The epoch.
        epoch: Epoch,
        /// Arrival of all of them.
        stamp: Micros,
        /// The updates.
        updates: Vec<Update>,
        /// (index into `updates`, id), rising by index, for those that carry an id.
        ids: Vec<(u32, EventId)>,
    },
    /// Definitions under one stamp.
    Commands {
        /// The epoch.
        epoch: Epoch,
        /// When the definitions were journaled.
        stamp: Micros,
        /// In journal order.
        commands: Vec<Command>,
    },
    /// Changes of the relations that limits are computed from, at a definition or time epoch: behind the commands of the
    /// one, ahead of the time entry of the other. Every worker must be handed one; the facts may be with any of them.
    Facts {
        /// The epoch.
        epoch: Epoch,
        /// The stamp of the entry.
        stamp: Micros,
        /// (row, 1 or -1).
        facts: Vec<(Fact, isize)>,
        /// Whether anybody is to hear of it. Not so at a start, which brings back what was.
        is_news: bool,
    },
    /// The time entry T: what is due by `at` is applied; `at` is a whole second.
    Time {
        /// The epoch.
        epoch: Epoch,
        /// T.
        at: Micros,
        /// Classes whose changed rows are emitted now.
        emit: ClassSet,
        /// Classes (a replay's) whose changes up to here are in the store for the series up to and including the
        /// given one (`u32::MAX`: all); what lies beyond is emitted.
        stored: Vec<(Span, SeriesId)>,
    },
}

impl Work {
    /// The epoch of this share.
    pub fn epoch(&self) -> Epoch {
        match self {
            Work::Updates { epoch, .. }
            | Work::Commands { epoch, .. }
            | Work::Facts { epoch, .. }
            | Work::Time { epoch, .. } => *epoch,
        }
    }
}

/// What meter decided about one update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Counted.
    Admitted,
    /// An earlier update carried the same id; not counted again.
    Duplicate,
    /// The series was deleted before the update; not counted.
    Gone,
    /// It would have moved the value past a `block` limit; not counted, its id is not remembered.
    Refused,
    /// The live period of its event time is no longer open, so that a `block` limit cannot be held there; likewise.
    TooLate,
}

/// What became of an update that is one of many and was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The epoch of the update.
    pub epoch: Epoch,
    /// `Update::item`.
    pub item: u32,
    /// What happened; never `Admitted`.
    pub outcome: Outcome,
}

/// What an update would have done to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The value of the live period of the event's own time, without the update.
    pub value: Amount,
    /// The limit.
    pub limit: Amount,
    /// When that live period ends; none if it never does, or has ended.
    pub resets_at: Option<Micros>,
    /// Whether the amount would be admitted in a live period that has just begun.
    pub fits_anew: bool,
}

/// The answer to one waiting update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// `Update::item`.
    pub item: u32,
    /// What happened.
    pub outcome: Outcome,
    /// Whether the event's window had ended before it arrived.
    pub late: bool,
    /// Whether the value of the live period of the event's own time is breached after the update; false for a period
    /// that is no longer open.
    pub breached: bool,
    /// The reading at the arrival stamp, after the update.
    pub current: Amount,
    /// The arrival stamp.
    pub arrival: Micros,
    /// With `Refused`, and only then: why.
    pub refusal: Option<Refusal>,
    /// The limit that refuses somebody (`deny`, `block`), as of `arrival`; none of a series that is gone.
    pub held: Option<Held>,
}

/// A limit that check and proxy refuse by, and over what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The limit.
    pub limit: Limit,
    /// Start of the live period; none for one that has no beginning but the creation of the series.
    pub period_start: Option<Micros>,
    /// Where it will end, if that is known.
    pub period_end: Option<Micros>,
}

/// A series as a reader sees it at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The value of the live period of that moment.
    pub value: Amount,
    /// Its tally.
    pub tally: Tally,
    /// Where the live period starts; none for a period that has no beginning but the creation of the series.
    pub period_start: Option<Micros>,
    /// Where it will end, if that is known.
    pub period_end: Option<Micros>,
    /// Whether the value is past its limit.
    pub breached: bool,
    /// The effective limit, if any.
    pub limit: Option<Limit>,
    /// Why it applies.
    pub limit_source: LimitSource,
    /// Whether the series ever had an update.
    pub touched: bool,
    /// Updates that this process has refused to somebody who waited for the answer, `TooLate` not among them.
    pub refused: u64,
}

impl Standing {
    /// The limit, if somebody is refused by it.
    pub fn held(&self) -> Option<Held> {
        let limit = self.limit.filter(|limit| limit.action.refuses())?;
        Some(Held { limit, period_start: self.period_start, period_end: self.period_end })
    }
}

/// How a row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RowKind {
    /// The row is the truth: insert or replace.
    Absolute,
    /// The tally is a difference for a window that had left memory: read, merge, write in the sink's transaction. An
    /// inserted row takes the reading of its own tally.
    Merge {
        /// How a tally is read.
        operation: Operation,
        /// With which offset or placeholder.
        initial_value: Amount,
        /// Whether the value of an existing row follows its tally (`reset` with equal intervals).
        value_follows: bool,
    },
}

/// One flush window of one series, on its way to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// The series.
    pub series: SeriesId,
    /// First moment; with the series the primary key.
    pub window_start: Micros,
    /// First moment behind it.
    pub window_end: Micros,
    /// The window's own tally, or the difference to it.
    pub tally: Tally,
    /// The reading of the live period (semantics, section 4); of the difference alone in a merge row.
    pub value: Amount,
    /// Absolute, or to be merged.
    pub kind: RowKind,
}

/// The newest live period of a series, for the store's `series_state`: what hydration starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LiveState {
    /// The series.
    pub series: SeriesId,
    /// Start of its newest live period; none for one without a beginning.
    pub period_start: Option<Micros>,
    /// The tally of that period.
    pub tally: Tally,
    /// The reading of that period.
    pub value: Amount,
}

/// The changed rows of one class at one time entry, from one worker, in (series, window) order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Which class; the batch interval of the series in it.
    pub class: Span,
    /// The epoch of the time entry: all changes before it are in.
    pub upper: Epoch,
    /// The time entry.
    pub at: Micros,
    /// The worker.
    pub worker: u32,
    /// Changed windows.
    pub rows: Vec<Row>,
    /// Live periods of the changed series.
    pub states: Vec<LiveState>,
    /// Cleaned series: their rows whose window had ended by then, and their live periods, go before `rows` and `states`
    /// are written.
    pub cleaned: Vec<(SeriesId, Micros)>,
}
