//! Many updates of one request: their way through the shares of the workers, and one answer.
//!
//! ```text
//!  BatchTicket ─▶ router: a share a worker (`Waiting`) ─▶ worker: verdicts by item ─▶ Gathering ─▶ one answer
//! ```
//! Admitted updates leave no trace on the way back: what is gathered is what was *not* admitted.

use std::sync::{Arc, Mutex, PoisonError};

use dataflows::types::packed::{Item, Keyed, LoadChunk};
use dataflows::types::{BRIEF, Decision, Outcome, Verdict};
use tokio::sync::oneshot;

use crate::journal::Rejected;

/// The places of updates of a batch that were not admitted, rising, and what became of them; or nothing was written.
/// None of a chunk that had been applied before.
pub type Answer = Result<Option<Vec<(u32, Outcome)>>, Rejected>;

/// Many updates on their way, at least one.
pub struct BatchTicket {
    /// In the order of the request.
    pub updates: Vec<BatchUpdate>,
    /// The key of the request.
    pub keyed: Option<Keyed>,
    /// The chunk of a load that they are.
    pub chunk: Option<LoadChunk>,
    /// Who waits. Dropped without an answer: the outcome is unknown.
    pub reply: oneshot::Sender<Answer>,
}

/// One of many updates.
#[derive(Clone, Copy, Debug)]
pub struct BatchUpdate {
    /// What is journaled of it.
    pub item: Item,
    /// Where the owning worker keeps its series.
    pub slot: u32,
}

/// Who waits for a worker's share of an epoch.
#[derive(Default)]
pub(crate) struct Waiting {
    /// By `Update::item`, below `BRIEF`.
    pub(crate) alone: Vec<oneshot::Sender<Result<Decision, Rejected>>>,
    /// By `Update::item` less `BRIEF`: the place in its batch.
    places: Vec<u32>,
    /// Batches by the end of their part of `places`.
    batches: Vec<(usize, Arc<Gathering>)>,
}

/// What becomes of a batch, from all workers that have a share of it.
pub(crate) struct Gathering(Mutex<Gathered>);

struct Gathered {
    shares: usize,
    told: Vec<(u32, Outcome)>,
    reply: Option<oneshot::Sender<Answer>>,
}

impl Waiting {
    /// The `Update::item` of the next update of a batch, whose place there is given.
    pub(crate) fn item_of(&mut self, place: u32) -> u32 {
        self.places.push(place);
        BRIEF | (self.places.len() - 1) as u32
    }

    fn has_open_batch(&self) -> bool {
        self.places.len() > self.batches.last().map_or(0, |(end, _)| *end)
    }

    /// Tells everybody of a batch what became of it. `verdicts` is in the order of the updates.
    pub(crate) fn tell(&self, verdicts: &[Verdict]) {
        let mut rest = verdicts;
        for (end, gathering) in &self.batches {
            let count = rest.partition_point(|verdict| ((verdict.item & !BRIEF) as usize) < *end);
            let (of_it, others) = rest.split_at(count);
            rest = others;
            let place = |verdict: &Verdict| (self.places[(verdict.item & !BRIEF) as usize], verdict.outcome);
            gathering.add(of_it.iter().map(place));
        }
    }
}

/// Ends a batch in the shares that have updates of it.
pub(crate) fn close<'a>(shares: impl Iterator<Item = &'a mut Waiting>, reply: oneshot::Sender<Answer>) {
    let open: Vec<_> = shares.filter(|share| share.has_open_batch()).collect();
    let gathered = Gathered { shares: open.len(), told: Vec::new(), reply: Some(reply) };
    let gathering = Arc::new(Gathering(Mutex::new(gathered)));
    for share in open {
        share.batches.push((share.places.len(), gathering.clone()));
    }
}

impl Gathering {
    /// Adds a share; with the last one the request is answered.
    fn add(&self, told: impl Iterator<Item = (u32, Outcome)>) {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gathered.told.extend(told);
        gathered.shares -= 1;
        if gathered.shares == 0
            && let Some(reply) = gathered.reply.take()
        {
            let mut told = std::mem::take(&mut gathered.told);
            told.sort_unstable_by_key(|(place, _)| *place);
            // A client that has gone away does not want its answer.
            let _ = reply.send(Ok(Some(told)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_answered_once_by_all_its_shares() {
        let (mut one, mut two) = (Waiting::default(), Waiting::default());
        let verdict = |item, outcome| Verdict { epoch: 1, item, outcome };
        let items: Vec<_> = (0..3).map(|place| one.item_of(place)).collect();
        let (reply, mut first) = oneshot::channel();
        close([&mut one, &mut two].into_iter(), reply);
        let later = [one.item_of(1), two.item_of(0)];
        let (reply, mut second) = oneshot::channel();
        close([&mut one, &mut two].into_iter(), reply);

        let of_one = [verdict(items[1], Outcome::Duplicate), verdict(later[0], Outcome::Refused)];
        one.tell(&of_one);
        assert_eq!(first.try_recv(), Ok(Ok(Some(vec![(1, Outcome::Duplicate)]))), "two has no share of it");
        assert!(second.try_recv().is_err(), "one share is missing");
        two.tell(&[verdict(later[1], Outcome::Gone)]);
        assert_eq!(second.try_recv(), Ok(Ok(Some(vec![(0, Outcome::Gone), (1, Outcome::Refused)]))));
    }

    #[test]
    fn a_share_that_is_dropped_leaves_the_outcome_unknown() {
        let mut share = Waiting::default();
        share.item_of(0);
        let (reply, mut answer) = oneshot::channel();
        close([&mut share].into_iter(), reply);
        drop(share);
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
