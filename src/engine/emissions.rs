//! Emissions: the workers' batches of one class at one time entry, put together and handed to the sink.
//!
//! At most one emission of a class is on its way; a class that is due meanwhile waits (`pending` in the router) and is
//! emitted with all that has changed by then, so that a store that is down costs no memory here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dataflows::types::{Batch, ClassSet, Epoch, Micros, SeriesId, Span};

use super::Sorted;

/// Everything that changed in one class up to one time entry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Emission {
    /// The class.
    pub class: Span,
    /// The epoch of the time entry.
    pub upper: Epoch,
    /// The time entry.
    pub at: Micros,
    /// One batch a worker.
    pub parts: Vec<Batch>,
    /// Rows of series up to and including this one are in the store already (a start after half a write).
    pub after: Option<SeriesId>,
}

impl Emission {
    /// The rows and live periods that the store lacks, in (series, window) order.
    pub fn sorted(&self) -> Sorted {
        let lacking = |series: SeriesId| self.after.is_none_or(|after| series > after);
        let mut rows: Vec<_> =
            self.parts.iter().flat_map(|part| &part.rows).filter(|row| lacking(row.series)).copied().collect();
        let mut states: Vec<_> =
            self.parts.iter().flat_map(|part| &part.states).filter(|state| lacking(state.series)).copied().collect();
        rows.sort_unstable_by_key(|row| (row.series, row.window_start));
        states.sort_unstable_by_key(|state| state.series);
        (rows, states)
    }

    fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.rows.is_empty() && part.states.is_empty())
    }
}

/// What is being put together and what is on its way.
pub(crate) struct Emissions {
    workers: usize,
    parts: HashMap<(Span, Epoch), Vec<Batch>>,
    on_the_way: BTreeMap<Span, Arc<Emission>>,
    /// Classes that must not be emitted now: being put together or on the way.
    busy: ClassSet,
    /// Emissions of which the store has the first series already.
    after: HashMap<(Span, Epoch), SeriesId>,
    /// While a snapshot at that epoch is being taken: what was on the way there.
    retained: Option<(Epoch, Vec<Arc<Emission>>)>,
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
        Emissions {
            workers,
            parts: HashMap::new(),
            on_the_way: BTreeMap::new(),
            busy: ClassSet::default(),
            after: HashMap::new(),
            retained: None,
        }
    }

    /// The classes of `due` that may be emitted now; they are busy from here on.
    pub(crate) fn begin(&mut self, due: ClassSet) -> ClassSet {
        let free = ClassSet(due.0 & !self.busy.0);
        self.busy.0 |= free.0;
        free
    }

    /// The class is emitted at that epoch for the series behind `after` alone.
    pub(crate) fn begin_after(&mut self, class: Span, upper: Epoch, after: SeriesId) {
        self.busy.insert(class);
        self.after.insert((class, upper), after);
    }

    /// Takes one worker's batch.
    pub(crate) fn collect(&mut self, batch: Batch) -> Collected {
        let (class, upper, at) = (batch.class, batch.upper, batch.at);
        let parts = self.parts.entry((class, upper)).or_default();
        parts.push(batch);
        if parts.len() < self.workers {
            return Collected::Waiting;
        }
        let parts = self.parts.remove(&(class, upper)).unwrap_or_default();
        let after = self.after.remove(&(class, upper));
        let emission = Emission { class, upper, at, parts, after };
        if emission.is_empty() {
            return Collected::Empty(class, upper);
        }
        let emission = Arc::new(emission);
        self.carry(emission.clone());
        Collected::Complete(emission)
    }

    /// Remembers an emission that is on its way to the sink.
    pub(crate) fn carry(&mut self, emission: Arc<Emission>) {
        self.busy.insert(emission.class);
        if let Some((epoch, retained)) = &mut self.retained
            && emission.upper <= *epoch
        {
            retained.push(emission.clone());
        }
        self.on_the_way.insert(emission.class, emission);
    }

    /// The store has the emission of that class.
    pub(crate) fn stored(&mut self, class: Span, upper: Epoch) {
        if self.on_the_way.get(&class).is_none_or(|emission| emission.upper == upper) {
            self.on_the_way.remove(&class);
            self.busy.0 &= !(1 << class as u16);
        }
    }

    /// A snapshot begins at an epoch: what is on the way there belongs to it.
    pub(crate) fn retain(&mut self, epoch: Epoch) {
        self.retained = Some((epoch, self.on_the_way.values().cloned().collect()));
    }

    /// The snapshot is complete: all workers have passed its epoch.
    pub(crate) fn release(&mut self) -> Vec<Arc<Emission>> {
        self.retained.take().map(|(_, retained)| retained).unwrap_or_default()
    }

    /// Classes on their way.
    pub(crate) fn busy(&self) -> ClassSet {
        self.busy
    }
}
