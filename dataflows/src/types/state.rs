//! What a snapshot keeps of one series: keyed by `SeriesId`, so that any number of workers can load it.

use serde::{Deserialize, Serialize};

use super::{Amount, Micros, SeriesId, Shape, Span, Tally};

/// A resident flush window.
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
    /// Whether the store lacks the current row (changed since the last emission).
    pub dirty: bool,
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

/// Everything meter remembers of one series, apart from ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesState {
    /// The series.
    pub series: SeriesId,
    /// How it counts.
    pub shape: Shape,
    /// Whether it ever had an update.
    pub touched: bool,
    /// Resident windows, oldest first.
    pub windows: Vec<WindowState>,
    /// Live periods in memory, oldest first.
    pub periods: Vec<PeriodState>,
    /// Moments of the cuts that may still matter, oldest first.
    pub cuts: Vec<Micros>,
    /// Differences for windows that have left, not yet emitted: (start, end, difference).
    pub merges: Vec<(Micros, Micros, Tally)>,
    /// The batch class in which changes are still emitted until that boundary, after `batch` was changed.
    pub switching: Option<(Span, Micros)>,
}
