//! Emissions: the workers' batches of one class at one time entry, put together and handed to the sink.
//!
//! At most one emission of a class is on its way; a class that is due meanwhile waits (`pending` in the router) and is
//! emitted with all that has changed by then, so that a store that is down costs no memory here.

use std::collections::HashMap;
use std::sync::Arc;

use dataflows::driver::PackedBatch;
use dataflows::types::{ClassSet, Epoch, LiveState, Micros, Row, SeriesId, Span};

/// Everything that changed in one class up to one time entry, all workers' rows merged.
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
    /// Cleaned series, in series order: rows whose window had ended by then, and the live period, are deleted before
    /// `rows` and `states` are written.
    pub cleaned: Vec<(SeriesId, Micros)>,
    /// Rows up to this series are in the store already, from before a restart.
    pub after: Option<SeriesId>,
}

impl Emission {
    fn merge(
        class: Span,
        upper: Epoch,
        at: Micros,
        parts: Vec<PackedBatch>,
        after: Option<SeriesId>,
    ) -> Self {
        let (mut rows, mut states, mut cleaned) = (Vec::new(), Vec::new(), Vec::new());
        for mut part in parts.into_iter().map(PackedBatch::unpack) {
            rows.append(&mut part.rows);
            states.append(&mut part.states);
            cleaned.append(&mut part.cleaned);
        }
        // Stable sorts merge the workers' sorted runs.
        rows.sort_by_key(|row| (row.series, row.window_start));
        states.sort_by_key(|state| state.series);
        cleaned.sort();
        Emission { class, upper, at, rows, states, cleaned, after }
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.states.is_empty() && self.cleaned.is_empty()
    }
}

/// What is being put together and what is on its way.
pub(crate) struct Emissions {
    workers: usize,
    parts: HashMap<(Span, Epoch), Vec<PackedBatch>>,
    /// Classes that must not be emitted now: being put together or on the way.
    busy: ClassSet,
    /// Emissions of which the store has the first series already.
    after: HashMap<(Span, Epoch), SeriesId>,
    /// Nothing is emitted: what the store has is not known yet.
    in_doubt: bool,
    /// Nothing is emitted: a start that began in doubt is not through.
    in_replay: bool,
}

/// What to do with a batch that has come.
pub(crate) enum Collected {
    /// Others are missing.
    Waiting,
    /// All are here and nothing has changed: the class is free again.
    Empty(Span, Epoch),
    /// To the sink.
    Complete(Arc<Emission>),
}

impl Emissions {
    pub(crate) fn new(workers: usize) -> Self {
        let (parts, after) = (HashMap::new(), HashMap::new());
        Emissions { workers, parts, busy: ClassSet::default(), after, in_doubt: false, in_replay: false }
    }

    /// A start begins without knowing what the store has: nothing is emitted until it is through and that is known.
    pub(crate) fn begin_in_doubt(&mut self) {
        (self.in_doubt, self.in_replay) = (true, true);
    }

    /// What the store has is known.
    pub(crate) fn end_doubt(&mut self) {
        self.in_doubt = false;
    }

    /// The start is through.
    pub(crate) fn end_replay(&mut self) {
        self.in_replay = false;
    }

    fn is_held(&self) -> bool {
        self.in_doubt || self.in_replay
    }

    /// Emits a class that the store may have already, held or not.
    pub(crate) fn begin_again(&mut self, class: Span) -> ClassSet {
        let mut again = ClassSet::default();
        again.insert(class);
        self.busy.insert(class);
        again
    }

    /// The classes of `due` that may be emitted now; they are busy from here on.
    pub(crate) fn begin(&mut self, due: ClassSet) -> ClassSet {
        let free = if self.is_held() { ClassSet::default() } else { ClassSet(due.0 & !self.busy.0) };
        self.busy.0 |= free.0;
        free
    }

    /// The class is emitted at that epoch for the series behind `after` alone.
    pub(crate) fn begin_after(&mut self, class: Span, upper: Epoch, after: SeriesId) {
        self.busy.insert(class);
        self.after.insert((class, upper), after);
    }

    /// Takes one worker's batch.
    pub(crate) fn collect(&mut self, batch: PackedBatch) -> Collected {
        let (class, upper, at) = (batch.class, batch.upper, batch.at);
        let parts = self.parts.entry((class, upper)).or_default();
        parts.push(batch);
        if parts.len() < self.workers {
            return Collected::Waiting;
        }
        let parts = self.parts.remove(&(class, upper)).unwrap_or_default();
        let after = self.after.remove(&(class, upper));
        let emission = Emission::merge(class, upper, at, parts, after);
        if emission.is_empty() && after.is_none() {
            return Collected::Empty(class, upper);
        }
        Collected::Complete(Arc::new(emission))
    }

    /// The store has what was on its way.
    pub(crate) fn stored(&mut self, class: Span) {
        self.busy.remove(class);
    }

    /// Classes that are not emitted now.
    pub(crate) fn busy(&self) -> ClassSet {
        if self.is_held() { ClassSet::ALL } else { self.busy }
    }
}
