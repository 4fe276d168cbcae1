//! The control thread: everything that waits becomes one epoch. In: requested changes. Out: definition epochs to the journal,
//! one at a time, and an answer to each request when the workers concerned have applied its epoch.
//!
//! Invariants: a change is decided against the registry and nothing else, so of two about one subject the second waits for
//! the next epoch; what changes of one epoch share beyond that, numbers and room for series, is handed from one to the next.

use std::collections::HashSet;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use dataflows::types::{Definition, Limited, SeriesId};
use tokio::sync::oneshot;

use super::change::{Change, Subject};
use super::quota::Taken;
use super::{Append, ControlError, DefinitionTicket, Made, Registry, Request, audit, encode};
use crate::clock::Stamps;

/// Definitions in one epoch; the rest waits for the next.
const EPOCH_DEFINITIONS_MAX: usize = 1_024;
/// Definition epochs that the store may lack; beyond, new definitions are `Overloaded` until it has caught up.
const UNPROJECTED_EPOCHS_MAX: usize = 100_000;

/// See the header.
pub(super) struct Thread {
    pub registry: Arc<RwLock<Registry>>,
    pub stamps: Arc<Stamps>,
    pub gate: Arc<Mutex<()>>,
    pub append: Append,
}

/// Who is told what became of an epoch.
struct Reply {
    sender: oneshot::Sender<Result<Made, ControlError>>,
    definitions: usize,
    /// How many of them begin a series.
    series: usize,
}

/// An epoch in the making.
struct Epoch {
    definitions: Vec<Definition>,
    replies: Vec<Reply>,
    deferred: Vec<Request>,
    subjects: HashSet<Subject>,
    /// A change that stands alone is in it, or waits for its end.
    is_closed: bool,
    next_series: SeriesId,
    taken: Taken,
    /// Whether something in it was made from templates.
    is_batch: bool,
}

impl Epoch {
    fn new(next_series: SeriesId) -> Self {
        Epoch {
            definitions: Vec::new(),
            replies: Vec::new(),
            deferred: Vec::new(),
            subjects: HashSet::new(),
            is_closed: false,
            next_series,
            taken: Taken::default(),
            is_batch: false,
        }
    }
}

impl Thread {
    /// Until nobody can send requests any more.
    pub fn run(&self, requests: &Receiver<Request>) {
        let mut deferred = Vec::new();
        loop {
            let mut waiting = std::mem::take(&mut deferred);
            if waiting.is_empty() {
                let Ok(first) = requests.recv() else { return };
                waiting.push(first);
            }
            waiting.extend(requests.try_iter().take(EPOCH_DEFINITIONS_MAX));
            let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            deferred = self.epoch(waiting);
        }
    }

    /// Makes one epoch of the requests; gives back those that must see its effects first.
    fn epoch(&self, waiting: Vec<Request>) -> Vec<Request> {
        let mut epoch;
        {
            let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
            let backlog = registry.unprojected_len();
            epoch = Epoch::new(registry.next_series());
            for request in waiting {
                // Billing leaves room for what tenants ask for: its usage waits where it is.
                let max = UNPROJECTED_EPOCHS_MAX / if request.change.can_wait() { 2 } else { 1 };
                if request.change.is_done(&registry) {
                    // Of many that want the same series at once, the first has it made.
                    let _ = request.reply.send(Ok(Made::default()));
                } else if backlog >= max {
                    let _ = request.reply.send(Err(ControlError::Overloaded));
                } else {
                    self.take(request, &registry, &mut epoch);
                }
            }
        }
        let Epoch { definitions, replies, deferred, taken, is_batch, .. } = epoch;
        if !replies.is_empty() {
            // What is made from templates is one entry of the journal.
            let outcome = if is_batch { self.journal_epoch(definitions) } else { self.journal(definitions) };
            taken.warn(&self.registry.read().unwrap_or_else(PoisonError::into_inner));
            for Reply { sender, definitions, series } in replies {
                let _ = sender.send(outcome.map(|limited| Made { definitions, series, limited }));
            }
        }
        deferred
    }

    /// Decides a request and adds what comes of it, or puts it off.
    fn take(&self, request: Request, registry: &Registry, epoch: &mut Epoch) {
        let Request { change, origin, reply } = request;
        let alone = change.stands_alone();
        if epoch.is_closed || alone && !epoch.subjects.is_empty() || !change.claim(&mut epoch.subjects) {
            // What comes after a request that waits must not overtake it.
            epoch.is_closed |= alone;
            epoch.deferred.push(Request { change, origin, reply });
            return;
        }
        epoch.is_closed = alone;
        let (now, first_series) = (self.stamps.now(), epoch.next_series);
        let mut entries = audit::entries(&change, registry, &origin, now);
        let (must_be, is_batch) = (change.must_be(), matches!(change, Change::CreateFromTemplates(_)));
        let decided = change.within(&epoch.taken).decide(registry, &mut epoch.next_series, now);
        let fits = decided
            .and_then(|decided| epoch.taken.take(registry.quota(), &decided, must_be).map(|()| decided));
        match fits {
            Ok(decided) if !decided.is_empty() => {
                if is_batch {
                    epoch.is_batch = true;
                    entries.extend(audit::applied(&decided, &origin, now));
                }
                let is_series = |definition: &&Definition| matches!(definition, Definition::SeriesCreated(_));
                let (definitions, series) = (decided.len(), decided.iter().filter(is_series).count());
                epoch.replies.push(Reply { sender: reply, definitions, series });
                epoch.definitions.extend(decided.into_iter().chain(entries));
            }
            Ok(_) => drop(reply.send(Ok(Made::default()))),
            Err(error) => {
                epoch.next_series = first_series;
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Journals one epoch. Series that begin ahead of what needs them, of which a limit may need a hundred thousand, go
    /// before it in epochs of their own: nothing speaks of them yet.
    fn journal(&self, mut definitions: Vec<Definition>) -> Result<Limited, ControlError> {
        let is_series = |definition: &Definition| matches!(definition, Definition::SeriesCreated(_));
        let ahead = definitions.iter().take_while(|definition| is_series(definition)).count();
        let parts_ahead = ahead.saturating_sub(1) / EPOCH_DEFINITIONS_MAX;
        for _ in 0..parts_ahead {
            let rest = definitions.split_off(EPOCH_DEFINITIONS_MAX);
            let first = std::mem::replace(&mut definitions, rest);
            self.journal_epoch(first)?;
        }
        // What the change does to limits shows in its own epoch, whose series have all begun by then.
        let outcome = self.journal_epoch(definitions);
        if parts_ahead > 0 { outcome.map_err(|_| ControlError::Unknown) } else { outcome }
    }

    fn journal_epoch(&self, definitions: Vec<Definition>) -> Result<Limited, ControlError> {
        let bytes = encode(&definitions);
        let (done, outcome) = mpsc::channel();
        (self.append)(bytes, DefinitionTicket { definitions: Arc::new(definitions), done })?;
        outcome.recv().unwrap_or(Err(ControlError::Unknown))
    }
}
