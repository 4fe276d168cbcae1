//! What a snapshot keeps of one series: keyed by `SeriesId`, so that any number of workers can load it.

use serde::{Deserialize, Serialize};

use super::{Amount, ClassSet, Epoch, Micros, SeriesId, Shape, Span, Tally};

/// A flush window in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowState {
    /// First moment.
    pub start: Micros,
    /// First moment behind it.
    pub end: Micros,
    /// Its own tally.
    pub tally: Tally,
    /// The frozen value of its row; none while it is its period's newest and follows the reading.
    pub value: Option<Amount>,
    /// Start of the window whose opening froze the value. A cut may take that one away to another period.
    pub frozen_by: Option<Micros>,
    /// Its place in the order in which the windows of the series were opened.
    pub opened: u32,
    /// The reading of its period just before it opened.
    pub before: Amount,
    /// Whether it has left: its row is final but for merges, and only `value` still matters, to windows opened late.
    pub left: bool,
    /// The batch classes whose emission must still bring the row to the store. What has been emitted but was not yet
    /// acknowledged counts as well: a row may be written twice.
    pub dirty: ClassSet,
}

/// A live period in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeriodState {
    /// First moment; none for the first period of a series whose type has no calendar.
    pub start: Option<Micros>,
    /// First moment behind it; none while open-ended.
    pub end: Option<Micros>,
    /// Its tally.
    pub tally: Tally,
    /// Start of its newest window, if it has had one.
    pub newest: Option<Micros>,
}

/// A difference for a window that has left, on its way to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeState {
    /// First moment of the window.
    pub start: Micros,
    /// First moment behind it.
    pub end: Micros,
    /// What is to be added to the row.
    pub difference: Tally,
    /// The batch class that brings it to the store.
    pub class: Span,
    /// The emission it was part of, while that is not acknowledged; none before.
    pub upper: Option<Epoch>,
}

/// A cleanup whose deletions are on their way to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupState {
    /// Rows whose window had ended by then are deleted, and the live period with them.
    pub ended_by: Micros,
    /// The next emission of any of these batch classes brings it: those in which rows behind the cleanup may come.
    pub classes: ClassSet,
    /// The emission it was part of, while that is not acknowledged; none before.
    pub sent: Option<(Span, Epoch)>,
}

/// Everything meter remembers of one series, apart from ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesState {
    /// The series.
    pub series: SeriesId,
    /// How it counts.
    pub shape: Shape,
    /// Whether it ever had an update.
    pub touched: bool,
    /// Resident windows, and the newest of those that have left; oldest first.
    pub windows: Vec<WindowState>,
    /// Live periods in memory, oldest first.
    pub periods: Vec<PeriodState>,
    /// Moments of the cuts, oldest first.
    pub cuts: Vec<Micros>,
    /// Differences for windows that have left, until their emission is acknowledged.
    pub merges: Vec<MergeState>,
    /// The batch class in which changes are still collected until that boundary, after `batch` was changed.
    pub switching: Option<(Span, Micros)>,
    /// With `cleanup_after`, since when it is quiet: the arrival of its last update, rounded up to seconds. Behind a
    /// cleanup the end of its newest window, if that was too young for it. None while there is nothing to clean.
    pub quiet_since: Option<Micros>,
    /// A cleanup that the store does not have yet.
    pub cleanup: Option<CleanupState>,
}
