//! One series of the oracle: its admitted updates in journal order, its cuts, and every definition as a scan over them.
//!
//! | word | definition |
//! |---|---|
//! | key of an update | start of its flush window, or of the part of it behind the last cut, by the cuts of then |
//! | period of an update | the live period of its event time, by the cuts of then; its start is its name |
//! | period of a window | the live period that contains its start, by the cuts of now |
//! | tally of a window | all updates with its key |
//! | tally of a period | all updates with that period that arrived while it was in memory |
//! | value of a window | the reading of its period before the first update with a greater key of that period |
//! | in memory (period) | open, or the newest, or the period of a resident window |
//! | resident (window) | opened by an update that came before it was eight windows old, and has not left since |
//! | has left (window) | eight windows old, nothing to emit, nothing in flight, and not the newest resident one |

use std::collections::{BTreeMap, BTreeSet};

use super::Truth;
use super::cleanup::Cleaning;
use crate::types::{
    Amount, Epoch, LiveState, MetricType, Micros, Operation, Operator, Reading, Row, RowKind, SeriesId,
    Shape, Span, Standing, Tally,
};

/// An admitted update.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    arrival: Micros,
    amount: Amount,
    key: Micros,
    period: Option<Micros>,
    /// Whether the window was resident: otherwise the update went into a difference.
    resident: bool,
    /// Whether the period was in memory.
    counted: bool,
}

/// A difference for a window that is not resident.
#[derive(Clone, Copy, Debug)]
struct Merge {
    key: Micros,
    class: Span,
    amount: Amount,
    arrival: Micros,
    /// The emission it was part of.
    sent: Option<Epoch>,
}

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    end: Micros,
    tally: Tally,
    value: Amount,
}

/// One series.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) id: SeriesId,
    pub(super) shape: Shape,
    cuts: Vec<Micros>,
    updates: Vec<Admitted>,
    left: BTreeSet<Micros>,
    /// (window, class) with the arrival of the first change that has not been emitted.
    dirty: BTreeMap<(Micros, Span), Micros>,
    /// (window, class, epoch) of rows on their way to the store.
    in_flight: BTreeSet<(Micros, Span, Epoch)>,
    merges: Vec<Merge>,
    /// The class that still collects changes up to that moment.
    switching: Option<(Span, Micros)>,
    pub(super) was_always_stored: bool,
    pub(super) cleaning: Cleaning,
    /// Updates refused to somebody who waited, since the start.
    pub(super) refused: u64,
}

impl Series {
    /// A series that has just been opened.
    pub(super) fn new(id: SeriesId, shape: Shape) -> Series {
        Series {
            id,
            shape,
            cuts: Vec::new(),
            updates: Vec::new(),
            left: BTreeSet::new(),
            dirty: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            merges: Vec::new(),
            switching: None,
            was_always_stored: shape.stored,
            cleaning: Cleaning::default(),
            refused: 0,
        }
    }

    /// When the last update arrived.
    pub(super) fn last_arrival(&self) -> Option<Micros> {
        self.updates.last().map(|update| update.arrival)
    }

    /// The rows with updates, and where their windows end, cut or not.
    pub(super) fn ends(&self) -> BTreeMap<Micros, Micros> {
        self.updates.iter().map(|update| (update.key, self.shape.flush.window(update.key).end)).collect()
    }

    fn last_cut(&self, at: Micros) -> Option<Micros> {
        self.cuts.iter().copied().filter(|cut| *cut <= at).max()
    }

    fn next_cut(&self, at: Micros) -> Option<Micros> {
        self.cuts.iter().copied().filter(|cut| *cut > at).min()
    }

    fn key(&self, at: Micros) -> Micros {
        let window = self.shape.flush.window(at);
        self.last_cut(at).filter(|cut| window.contains(*cut)).unwrap_or(window.start)
    }

    fn window_end(&self, key: Micros) -> Micros {
        let end = self.shape.flush.window(key).end;
        self.next_cut(key).filter(|cut| *cut < end).unwrap_or(end)
    }

    fn is_reset(&self) -> bool {
        self.shape.metric_type == MetricType::Reset
    }

    fn period(&self, at: Micros) -> Option<Micros> {
        let start = self.is_reset().then(|| self.shape.reset.window(at).start);
        self.last_cut(at).max(start)
    }

    fn period_end(&self, at: Micros) -> Option<Micros> {
        let end = self.is_reset().then(|| self.shape.reset.window(at).end);
        [self.next_cut(at), end].into_iter().flatten().min()
    }

    /// Whether the period of an event is open for an arrival.
    pub(super) fn is_open(&self, event_at: Micros, arrival: Micros) -> bool {
        if self.is_reset() {
            return self.shape.reset.window(event_at).start >= self.shape.reset.back(arrival, 7).start;
        }
        let grace_secs = i64::from(self.shape.max_event_age_secs) + 300;
        self.period_end(event_at).is_none_or(|end| end.0 + grace_secs * Micros::PER_SECOND >= arrival.0)
    }

    fn is_old(&self, key: Micros, arrival: Micros) -> bool {
        key < self.shape.flush.back(arrival, 7).start
    }

    fn is_resident(&self, key: Micros) -> bool {
        self.updates.iter().any(|update| update.resident && update.key == key) && !self.left.contains(&key)
    }

    fn residents(&self) -> BTreeSet<Micros> {
        self.updates.iter().map(|update| update.key).filter(|key| self.is_resident(*key)).collect()
    }

    /// Windows leave as soon as they may; it is enough to look before each change.
    fn let_windows_leave(&mut self, arrival: Micros) {
        let residents = self.residents();
        for key in residents.iter().copied().filter(|key| Some(key) != residents.last()) {
            let is_dirty = self.dirty.keys().any(|(window, _)| *window == key);
            let is_in_flight = self.in_flight.iter().any(|(window, ..)| *window == key);
            if self.is_old(key, arrival) && !is_dirty && !is_in_flight {
                self.left.insert(key);
            }
        }
    }

    /// One ahead only if it has updates.
    fn newest_period(&self, now: Micros) -> Option<Option<Micros>> {
        let of_updates = self.updates.iter().filter(|update| update.counted).map(|update| update.period);
        let begun = self.cuts.iter().filter(|cut| **cut <= now).map(|cut| self.period(*cut));
        of_updates.chain(begun).max()
    }

    pub(super) fn reading(&self, tally: &Tally) -> Amount {
        Reading { operation: self.shape.operation, initial_value: self.shape.initial_value }.value(tally)
    }

    fn period_tally(&self, period: Option<Micros>, updates: &[Admitted]) -> Tally {
        let own = updates.iter().filter(|update| update.counted && update.period == period);
        own.fold(Tally::EMPTY, |tally, update| tally.merge(Tally::of(update.amount)))
    }

    fn content(&self, key: Micros) -> Content {
        let own = self.updates.iter().filter(|update| update.key == key);
        let tally = own.fold(Tally::EMPTY, |tally, update| tally.merge(Tally::of(update.amount)));
        let period = self.period(key);
        let opens_next = |update: &Admitted| update.key > key && self.period(update.key) == period;
        let until = self.updates.iter().position(opens_next).unwrap_or(self.updates.len());
        let value = self.reading(&self.period_tally(period, &self.updates[..until]));
        Content { end: self.window_end(key), tally, value }
    }

    fn contents(&self) -> BTreeMap<Micros, Content> {
        self.residents().into_iter().map(|key| (key, self.content(key))).collect()
    }

    /// The class that collects changes made at a stamp.
    fn class(&self, arrival: Micros) -> Span {
        match self.switching {
            Some((old, until)) if arrival < until => old,
            _ => self.shape.batch,
        }
    }

    /// Every row that says something else than before must be emitted.
    fn mark_changed(&mut self, before: &BTreeMap<Micros, Content>, arrival: Micros) {
        let class = self.class(arrival);
        for (key, content) in self.contents() {
            if self.shape.stored && before.get(&key) != Some(&content) {
                self.dirty.entry((key, class)).or_insert(arrival);
            }
        }
    }

    /// An update that counts.
    pub(super) fn admit(&mut self, arrival: Micros, event_at: Micros, amount: Amount) {
        self.let_windows_leave(arrival);
        let before = self.contents();
        let (key, period) = (self.key(event_at), self.period(event_at));
        let resident = !self.is_old(key, arrival) || self.is_resident(key);
        let has_window = self.residents().into_iter().any(|window| self.period(window) == period);
        let is_newest = self.newest_period(arrival).is_none_or(|newest| period >= newest);
        let counted = self.is_open(event_at, arrival) || is_newest || has_window;
        self.updates.push(Admitted { arrival, amount, key, period, resident, counted });
        if !resident && self.shape.stored {
            self.merges.push(Merge { key, class: self.class(arrival), amount, arrival, sent: None });
        }
        self.mark_changed(&before, arrival);
    }

    /// A new live period begins at a moment, for what comes from now on.
    pub(super) fn cut(&mut self, at: Micros, arrival: Micros) {
        self.let_windows_leave(arrival);
        let (before, live) = (self.contents(), self.live_state(arrival));
        let is_again = self.cuts.contains(&at);
        if !is_again {
            self.cuts.push(at);
        }
        self.mark_changed(&before, arrival);
        // A live period comes to the store with a row, changed or not.
        let is_news = if is_again { at <= arrival } else { self.live_state(arrival) != live };
        if let (Some((newest, _)), true) = (self.contents().pop_last(), is_news && self.shape.stored) {
            let class = self.class(arrival);
            self.dirty.entry((newest, class)).or_insert(arrival);
        }
    }

    /// The definition changes.
    pub(super) fn reshape(&mut self, arrival: Micros, shape: Shape) {
        self.let_windows_leave(arrival);
        let class = self.class(arrival);
        if shape.batch != self.shape.batch && !self.updates.is_empty() {
            self.switching = Some((class, class.window(arrival).end));
        }
        let before = std::mem::replace(&mut self.shape, shape);
        self.want_cleanup(&before, arrival);
        self.was_always_stored &= shape.stored;
        if !shape.stored {
            self.dirty.clear();
            self.merges.clear();
        }
    }

    /// The rows that a class has to emit, oldest window first.
    pub(super) fn emit(&mut self, class: Span, epoch: Epoch) -> Vec<Row> {
        let series = self.id;
        let mut rows = Vec::new();
        for (key, _) in self.dirty.keys().copied().filter(|(_, dirty)| *dirty == class) {
            let Content { end, tally, value } = self.content(key);
            rows.push(Row {
                series,
                window_start: key,
                window_end: end,
                tally,
                value,
                kind: RowKind::Absolute,
            });
            self.in_flight.insert((key, class, epoch));
        }
        self.dirty.retain(|(_, dirty), _| *dirty != class);
        let Shape { operation, initial_value, .. } = self.shape;
        let kind = RowKind::Merge { operation, initial_value, value_follows: self.shape.window_is_period() };
        let mut differences: BTreeMap<Micros, Tally> = BTreeMap::new();
        for merge in self.merges.iter_mut().filter(|merge| merge.class == class && merge.sent.is_none()) {
            merge.sent = Some(epoch);
            let difference = differences.entry(merge.key).or_default();
            *difference = difference.merge(Tally::of(merge.amount));
        }
        for (key, tally) in differences {
            let (window_end, value) = (self.window_end(key), self.reading(&tally));
            rows.push(Row { series, window_start: key, window_end, tally, value, kind });
        }
        rows.sort();
        rows
    }

    /// All that the class has to emit is in the store already.
    pub(super) fn mark_stored(&mut self, class: Span) {
        self.dirty.retain(|(_, dirty), _| *dirty != class);
        self.in_flight.retain(|(_, sent, _)| *sent != class);
        self.merges.retain(|merge| merge.class != class);
        self.cleaning.mark_stored(class);
    }

    /// The emissions of the class up to this epoch are in the store.
    pub(super) fn acknowledge(&mut self, class: Span, upper: Epoch) {
        self.in_flight.retain(|(_, sent, epoch)| *sent != class || *epoch > upper);
        self.merges.retain(|merge| merge.class != class || merge.sent.is_none_or(|epoch| epoch > upper));
        self.cleaning.acknowledge(class, upper);
    }

    /// What was on its way is to be emitted again, except for merges that are in the store.
    pub(super) fn restart(&mut self, is_stored: &dyn Fn(Span, Epoch, SeriesId) -> bool) {
        self.refused = 0;
        // When it changed is not known any more; that it is due is.
        const AT_SOME_TIME: Micros = Micros(i64::MAX / 4);
        for (key, class, _) in std::mem::take(&mut self.in_flight) {
            self.dirty.entry((key, class)).or_insert(AT_SOME_TIME);
        }
        let id = self.id;
        self.merges.retain(|merge| merge.sent.is_none_or(|epoch| !is_stored(merge.class, epoch, id)));
        self.merges.iter_mut().for_each(|merge| merge.sent = None);
        self.cleaning.restart(|class, epoch| is_stored(class, epoch, id), AT_SOME_TIME);
    }

    /// Whether the live period of an event is open at its arrival and past the limit.
    pub(super) fn is_breached(&self, event_at: Micros, arrival: Micros) -> bool {
        self.is_open(event_at, arrival) && self.standing(event_at).breached
    }

    /// What a reader sees at a moment.
    pub(super) fn standing(&self, at: Micros) -> Standing {
        let period_start = self.period(at);
        let tally = self.period_tally(period_start, &self.updates);
        let value = self.reading(&tally);
        let has_value = tally.count > 0 || matches!(self.shape.operation, Operation::Sum | Operation::Count);
        let breached = has_value
            && self.shape.limit.is_some_and(|limit| match limit.operator {
                Operator::Gte => value >= limit.value,
                Operator::Gt => value > limit.value,
                Operator::Lte => value <= limit.value,
                Operator::Lt => value < limit.value,
                Operator::Eq => value == limit.value,
            });
        let (touched, refused) = (!self.updates.is_empty(), self.refused);
        let Shape { limit, limit_source, .. } = self.shape;
        let period_end = self.period_end(at);
        Standing { value, tally, period_start, period_end, breached, limit, limit_source, touched, refused }
    }

    /// The newest live period: one ahead only if it has updates already.
    pub(super) fn live_state(&self, now: Micros) -> LiveState {
        let period_start = self.newest_period(now).flatten();
        let tally = self.period_tally(period_start, &self.updates);
        LiveState { series: self.id, period_start, tally, value: self.reading(&tally) }
    }

    /// What the store must hold in the end. A late update for a period whose newest window has left changes the period
    /// but not the row: where that can be, the value is none.
    pub(super) fn rows(&self) -> BTreeMap<Micros, Truth> {
        let is_certain = self.cuts.is_empty() && (!self.is_reset() || self.shape.window_is_period());
        let keys: BTreeSet<Micros> = self.updates.iter().map(|update| update.key).collect();
        let row = |key| {
            let Content { end, tally, value } = self.content(key);
            (key, Truth { end, tally, value: is_certain.then_some(value) })
        };
        keys.into_iter().map(row).collect()
    }

    /// The first boundary at which something is to be emitted.
    pub(super) fn due_at(&self) -> Option<Micros> {
        let rows = self.dirty.iter().map(|((_, class), since)| class.window(*since).end);
        let merges = self.merges.iter().filter(|merge| merge.sent.is_none());
        let merges = merges.map(|merge| merge.class.window(merge.arrival).end);
        let cleanup = self.cleaning.due_at(&self.shape, self.last_arrival());
        rows.chain(merges).chain(self.cleaning.emits_at()).chain(cleanup).min()
    }
}
