//! The export of usage: one thread that has slices cut, hands them to the biller one at a time for each customer's price, and
//! has written down what became of them.
//!
//! ```text
//! every interval, and when a period has ended ─▶ Books::cut ─▶ slices, new
//!        ┌────────────────────────────────────────────────────────┘
//!        ▼
//! lanes ─▶ ready ─▶ Books::moved(sending) ─▶ Biller::send (bounded, paced) ─▶ outcome ─▶ Books::moved(acked | unknown | dead)
//!   one a customer and price           ▲                                         │
//!   in order                           └── after a pause, under the same name ◀──┘ again, unknown
//! ```
//! Invariants:
//! 1. `sending` is durable before the call goes out: a slice that was sent is never taken for one that was not.
//! 2. One call at a time for each customer's price, in the order in which slices were cut.
//! 3. A slice that may have arrived is sent again under the same name for `SAME_NAME_FOR`, while the biller still knows
//!    the name; behind that it is asked what it has counted before anything is sent.
//! 4. Credentials that are refused, prices that cannot be billed and a biller that is away hold slices up; none is dead
//!    for that.
//!
//! What this does not do: decide what a slice is (`control::slices`), keep anything: whatever is lost with the thread is in
//! the journal, and the next start goes on from there.

mod lanes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dataflows::types::{Micros, SeriesId, Slice, SliceMove, SliceState};

use crate::clock::Clock;
use crate::stripe::{Account, Biller, CallError, Counted, Meter, Outcome, Usage};
use lanes::{LaneKey, Lanes, jitter};

/// How long a slice that may have arrived is sent again under its name: the biller knows names for 24 hours.
pub const SAME_NAME_FOR: Duration = Duration::from_secs(20 * 3_600);
/// Calls under way.
pub const UNDER_WAY_MAX: usize = 128;

/// Slices that one look takes over from the books.
const WAITING_MAX: usize = 4_096;
/// Slices held here; beyond, they wait in the books.
const HELD_MAX: usize = 200_000;
/// Calls that one turn starts: each is one entry of one epoch of definitions.
const TURN_MAX: usize = 64;
/// How long a meter is a metric's behind its last slice.
const OWNED_FOR: Duration = Duration::from_secs(86_400);
/// How long what is known of a price counts.
const METER_KEPT: Duration = Duration::from_secs(3_600);
/// Before a price that cannot be billed is asked about again.
const METER_PAUSE: Duration = Duration::from_secs(600);
/// Before credentials that cannot be used are looked at again.
const ACCOUNT_PAUSE: Duration = Duration::from_secs(30);
/// Between two turns of a busy thread: outcomes gather, and the journal's epochs stay few.
const GATHER: Duration = Duration::from_millis(20);
/// Between two looks whether a live period has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Behind books that take nothing just now.
const BOOKS_PAUSE: Duration = Duration::from_secs(1);
/// How long a stop waits for books that do not answer.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
const MINUTE_MICROS: i64 = 60 * Micros::PER_SECOND;

/// The books take nothing just now; the same may be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the books take nothing just now")]
pub struct NotNow;

/// Why a business cannot be billed with anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAccount {
    /// It is no more, and its slices are gone.
    Gone,
    /// Its credentials cannot be used; why.
    Unusable(String),
}

/// A slice that is not known to have arrived.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The slice.
    pub slice: Arc<Slice>,
    /// Its state.
    pub state: SliceState,
    /// Since when it may have arrived; none while it cannot have.
    pub sent_at: Option<Micros>,
}

/// What is billed, and what has become of it. Calls block until it is durable.
pub trait Books: Send {
    /// Has slices cut of what was used by the next series behind `after`; the last of them if there are more.
    fn cut(&self, after: Option<SeriesId>) -> Result<Option<SeriesId>, NotNow>;
    /// Has slices cut of series whose live period has ended since the last call.
    fn cut_ended(&self) -> Result<(), NotNow>;
    /// Slices that are not final in the order in which they were cut, from a place on; and the place to go on from.
    fn waiting(&self, from: u64, limit: usize) -> (Vec<Waiting>, u64);
    /// Slices have come to other states.
    fn moved(&self, moves: Vec<SliceMove>) -> Result<(), NotNow>;
    /// What a business is billed with.
    fn account(&self, business_id: &str) -> Result<Account, NoAccount>;
    /// The sum of slices of the same customer's price that have arrived and are dated in `[from, until)`.
    fn acked_between(&self, slice: &Slice, from: Micros, until: Micros) -> i128;
}

/// Why slices of a price wait: by business and price, or by business alone under the empty name. Shared with who asks.
#[derive(Default)]
pub struct Remarks(Mutex<BTreeMap<(String, String), String>>);

impl Remarks {
    /// Why slices of that price wait, if there is a reason that somebody must know.
    pub fn of(&self, business_id: &str, price_id: &str) -> Option<String> {
        let remarks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |price: &str| remarks.get(&(business_id.to_owned(), price.to_owned())).cloned();
        of(price_id).or_else(|| of(""))
    }

    fn set(&self, business_id: &str, price_id: &str, remark: Option<String>) {
        let key = (business_id.to_owned(), price_id.to_owned());
        let mut remarks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match remark {
            Some(remark) => drop(remarks.insert(key, remark)),
            None => drop(remarks.remove(&key)),
        }
    }
}

/// What the thread is told.
enum Said {
    Sent(LaneKey, Outcome),
    Metered((String, String), Result<Meter, CallError>),
    Counted(LaneKey, Result<i128, CallError>),
    Stop,
}

/// The handle of the thread.
pub struct Billing {
    inbox: Sender<Said>,
    /// The second closes when the thread is done.
    thread: Mutex<Option<(JoinHandle<()>, Receiver<()>)>>,
}

impl Billing {
    /// Starts the thread. An error is the operating system's refusal of one.
    pub fn start(
        books: Box<dyn Books>,
        biller: Arc<dyn Biller>,
        clock: Arc<dyn Clock>,
        interval: Duration,
        remarks: Arc<Remarks>,
    ) -> std::io::Result<Billing> {
        let (inbox, said) = channel();
        let worker = Worker::new(books, biller, clock, inbox.clone(), interval, remarks);
        let (running, ended) = channel::<()>();
        let run = move || {
            let _running = running;
            worker.run(&said);
        };
        let thread = std::thread::Builder::new().name("billing".into()).spawn(run)?;
        Ok(Billing { inbox, thread: Mutex::new(Some((thread, ended))) })
    }

    /// Ends the thread, or leaves it alone if the books do not answer; what is under way is sent again by the next start,
    /// under the same name. Also done on drop.
    pub fn stop(&self) {
        let _ = self.inbox.send(Said::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((thread, ended)) = thread {
            match ended.recv_timeout(STOP_TIMEOUT) {
                Err(RecvTimeoutError::Timeout) => tracing::warn!("the export of usage is left alone"),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => drop(thread.join()),
            }
        }
    }
}

impl Drop for Billing {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What is known of a price.
enum Price {
    /// It was asked about.
    Asked,
    /// How its usage is reported; since when that is known.
    Known(Meter, Duration),
    /// Its usage cannot be reported; asked about again at that time.
    Not(Duration),
}

struct Worker {
    books: Box<dyn Books>,
    biller: Arc<dyn Biller>,
    clock: Arc<dyn Clock>,
    inbox: Sender<Said>,
    interval_micros: i64,
    /// When all series are looked at next.
    cut_at: Micros,
    /// Where a look at all series is: behind this one.
    cutting: Option<Option<SeriesId>>,
    /// The place in the books up to which slices are here.
    from: u64,
    lanes: Lanes,
    meters: HashMap<(String, String), Price>,
    /// Which metric is billed to a customer's meter, and when it last was: another one must not be, until that one has not
    /// been for a while. By business, customer, meter.
    owners: HashMap<(String, String, String), (String, Duration)>,
    /// What the books have not been told yet.
    untold: Vec<SliceMove>,
    /// Calls that begin once that is told.
    calls: Vec<(LaneKey, Account, Usage)>,
    under_way: usize,
    remarks: Arc<Remarks>,
}

impl Worker {
    fn new(
        books: Box<dyn Books>,
        biller: Arc<dyn Biller>,
        clock: Arc<dyn Clock>,
        inbox: Sender<Said>,
        interval: Duration,
        remarks: Arc<Remarks>,
    ) -> Worker {
        Worker {
            books,
            biller,
            clock,
            inbox,
            interval_micros: (interval.as_micros() as i64).max(1),
            cut_at: Micros(i64::MIN),
            cutting: None,
            from: 0,
            lanes: Lanes::default(),
            meters: HashMap::new(),
            owners: HashMap::new(),
            untold: Vec::new(),
            calls: Vec::new(),
            under_way: 0,
            remarks,
        }
    }

    fn run(mut self, said: &Receiver<Said>) {
        loop {
            let wait = self.turn().unwrap_or(BOOKS_PAUSE);
            let mut next = match said.recv_timeout(wait.min(self.clock.look_again())) {
                Ok(next) => Some(next),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(word) = next {
                if matches!(word, Said::Stop) {
                    // What is known now need not be found out by the next start.
                    let _ = self.tell();
                    return;
                }
                self.hear(word);
                next = said.try_recv().ok();
            }
        }
    }

    fn hear(&mut self, word: Said) {
        match word {
            Said::Sent(lane, outcome) => self.sent(&lane, outcome),
            Said::Metered(price, answer) => self.metered(price, answer),
            Said::Counted(lane, total) => self.counted(&lane, total),
            Said::Stop => {}
        }
    }

    /// Cuts, takes over, sends; how long nothing is to do.
    fn turn(&mut self) -> Result<Duration, NotNow> {
        self.tell()?;
        self.cut()?;
        while self.lanes.held() < HELD_MAX {
            let (waiting, next) = self.books.waiting(self.from, WAITING_MAX);
            self.from = next;
            if waiting.is_empty() {
                break;
            }
            waiting.into_iter().for_each(|waiting| self.lanes.push(waiting));
        }
        let now = self.clock.monotonic();
        let ready = self.lanes.ready(now, TURN_MAX.min(UNDER_WAY_MAX.saturating_sub(self.under_way)));
        for key in ready {
            self.decide(key, now);
        }
        self.tell()?;
        for (key, account, usage) in std::mem::take(&mut self.calls) {
            let (inbox, lane) = (self.inbox.clone(), key);
            self.biller.send(
                account,
                usage,
                Box::new(move |outcome| drop(inbox.send(Said::Sent(lane, outcome)))),
            );
        }
        if self.cutting.is_some() {
            return Ok(Duration::ZERO);
        }
        let due = self.lanes.due_in(self.clock.monotonic()).unwrap_or(LOOK_AGAIN);
        Ok(due.clamp(GATHER, LOOK_AGAIN))
    }

    /// Writes down what has become of slices.
    fn tell(&mut self) -> Result<(), NotNow> {
        if self.untold.is_empty() {
            return Ok(());
        }
        self.books.moved(self.untold.clone())?;
        self.untold.clear();
        Ok(())
    }

    /// Has slices cut: of all series at each interval, some at a time, and of those whose period has ended.
    fn cut(&mut self) -> Result<(), NotNow> {
        self.books.cut_ended()?;
        let now = self.clock.wall();
        if self.cutting.is_none() && now >= self.cut_at {
            self.cutting = Some(None);
        }
        if let Some(after) = self.cutting {
            let next = self.books.cut(after)?;
            self.cutting = next.map(Some);
            if next.is_none() {
                let passed = now.0.rem_euclid(self.interval_micros);
                self.cut_at = Micros(now.0.saturating_add(self.interval_micros - passed));
            }
        }
        Ok(())
    }

    /// What is done about the first slice of a lane: ask for its price, ask what was counted, or send it.
    fn decide(&mut self, key: LaneKey, now: Duration) {
        let account = match self.books.account(&key.business_id) {
            Ok(account) => account,
            Err(NoAccount::Gone) => return self.lanes.abandon(&key),
            Err(NoAccount::Unusable(reason)) => {
                self.remarks.set(&key.business_id, "", Some(reason));
                return self.lanes.hold(&key, now + ACCOUNT_PAUSE);
            }
        };
        let price = (key.business_id.clone(), key.price_id.clone());
        let meter = match self.meters.get(&price) {
            Some(Price::Known(meter, at)) if now.saturating_sub(*at) < METER_KEPT => meter.clone(),
            Some(Price::Asked) => return self.lanes.hold(&key, now + LOOK_AGAIN),
            Some(Price::Not(until)) if now < *until => {
                let until = *until;
                return self.lanes.hold(&key, until);
            }
            _ => {
                self.meters.insert(price.clone(), Price::Asked);
                self.under_way += 1;
                self.lanes.hold(&key, now + LOOK_AGAIN);
                let (inbox, price_id) = (self.inbox.clone(), price.1.clone());
                let done = move |answer| drop(inbox.send(Said::Metered(price, answer)));
                return self.biller.meter(account, price_id, Box::new(done));
            }
        };
        let wall = self.clock.wall();
        let Some(item) = self.lanes.first_mut(&key) else { return };
        let slice = item.slice.clone();
        let may_have_arrived = item.may_have_arrived;
        let is_old = item.sent_at.is_some_and(|at| wall.0 - at.0 > SAME_NAME_FOR.as_micros() as i64);
        if !self.owns(&slice, &meter, now) {
            let reason = "another metric of this customer is billed by the same meter";
            self.remarks.set(&key.business_id, &key.price_id, Some(reason.to_owned()));
            return self.lanes.hold(&key, now + METER_PAUSE);
        }
        self.under_way += 1;
        self.lanes.begin(&key);
        if may_have_arrived && is_old {
            let (from, until) = minute(&slice);
            let of = Counted { meter_id: meter.id, customer: slice.stripe_customer_id.clone(), from, until };
            let inbox = self.inbox.clone();
            let done = move |total| drop(inbox.send(Said::Counted(key, total)));
            return self.biller.total(account, of, Box::new(done));
        }
        let Some(item) = self.lanes.first_mut(&key) else { return };
        if item.state == SliceState::New {
            (item.state, item.sent_at) = (SliceState::Sending, Some(wall));
            self.untold.push(moved(&slice, SliceState::Sending, wall, None));
        }
        let usage = Usage {
            event_name: meter.event_name,
            customer_key: meter.customer_key,
            value_key: meter.value_key,
            customer: slice.stripe_customer_id.clone(),
            value: slice.quantity,
            at: slice.dated_at,
            identifier: slice.identifier.clone(),
            failures: item.failures,
        };
        self.calls.push((key, account, usage));
    }

    /// Whether a customer's meter is this metric's: two on one could not be told apart.
    fn owns(&mut self, slice: &Slice, meter: &Meter, now: Duration) -> bool {
        let key = (slice.business_id.clone(), slice.customer_id.clone(), meter.id.clone());
        let (owner, since) = self.owners.entry(key).or_insert_with(|| (slice.metric_name.clone(), now));
        let is_free = now.saturating_sub(*since) > OWNED_FOR;
        if *owner == slice.metric_name || is_free {
            (*owner, *since) = (slice.metric_name.clone(), now);
        }
        *owner == slice.metric_name
    }

    /// What a call has brought.
    fn sent(&mut self, key: &LaneKey, outcome: Outcome) {
        let (now, wall) = (self.clock.monotonic(), self.clock.wall());
        self.under_way = self.under_way.saturating_sub(1);
        let Some(item) = self.lanes.first_mut(key) else { return };
        let slice = item.slice.clone();
        match outcome {
            Outcome::Delivered => self.settle(key, SliceState::Acked, None),
            Outcome::Duplicate if item.may_have_arrived => {
                self.settle(key, SliceState::Acked, Some("it had arrived before".to_owned()));
            }
            Outcome::Duplicate => {
                let reason = "Stripe has an event of this name that was not sent from here";
                self.settle(key, SliceState::Dead, Some(reason.to_owned()));
            }
            // The credential is at fault, not the slice.
            Outcome::Dead { status: Some(401 | 403), reason } => {
                self.remarks.set(&key.business_id, "", Some(reason));
                self.lanes.failed(key, now, None);
            }
            Outcome::Dead { reason, .. } => self.settle(key, SliceState::Dead, Some(reason)),
            Outcome::Again { after, .. } => self.lanes.failed(key, now, after),
            Outcome::Unknown { after, is_answered, reason } => {
                item.may_have_arrived = true;
                item.failures += u32::from(is_answered);
                if item.state != SliceState::Unknown {
                    item.state = SliceState::Unknown;
                    self.untold.push(moved(&slice, SliceState::Unknown, wall, Some(reason)));
                }
                self.lanes.failed(key, now, after);
            }
        }
    }

    /// What the biller has counted in the minute of a slice that may have arrived long ago.
    fn counted(&mut self, key: &LaneKey, total: Result<i128, CallError>) {
        let (now, wall) = (self.clock.monotonic(), self.clock.wall());
        self.under_way = self.under_way.saturating_sub(1);
        let Some(slice) = self.lanes.first_mut(key).map(|item| item.slice.clone()) else { return };
        let total = match total {
            Ok(total) => total,
            Err(CallError::Again { after, .. }) => return self.lanes.failed(key, now, after),
            Err(CallError::Refused { reason, .. }) => {
                self.remarks.set(&key.business_id, &key.price_id, Some(reason));
                return self.lanes.failed(key, now, Some(METER_PAUSE));
            }
        };
        let (from, until) = minute(&slice);
        let without = self.books.acked_between(&slice, from, until);
        if total == without + i128::from(slice.quantity) {
            return self.settle(key, SliceState::Acked, Some("found in what Stripe has counted".to_owned()));
        }
        if total != without {
            let reason = format!(
                "Stripe counts {total} in its minute, {without} without it: whether it is in cannot be told"
            );
            return self.settle(key, SliceState::Dead, Some(reason));
        }
        self.untold.push(moved(&slice, SliceState::New, wall, Some("Stripe has not counted it".to_owned())));
        if let Some(item) = self.lanes.first_mut(key) {
            (item.state, item.sent_at, item.may_have_arrived) = (SliceState::New, None, false);
        }
        self.lanes.answered(key, now);
    }

    /// Nothing more happens to the first slice of a lane.
    fn settle(&mut self, key: &LaneKey, state: SliceState, reason: Option<String>) {
        let (now, wall) = (self.clock.monotonic(), self.clock.wall());
        if let Some(slice) = self.lanes.settle(key, now) {
            if state == SliceState::Dead {
                let (identifier, reason) = (&slice.identifier, reason.as_deref().unwrap_or_default());
                tracing::warn!(identifier, reason, "a slice of usage cannot be billed");
            } else {
                self.remarks.set(&key.business_id, "", None);
            }
            self.untold.push(moved(&slice, state, wall, reason));
        }
    }

    /// What a price is billed by.
    fn metered(&mut self, price: (String, String), answer: Result<Meter, CallError>) {
        let now = self.clock.monotonic();
        self.under_way = self.under_way.saturating_sub(1);
        let (known, remark) = match answer {
            Ok(meter) => match meter.unfit() {
                None => (Price::Known(meter, now), None),
                Some(why) => (Price::Not(now + METER_PAUSE), Some(why.to_owned())),
            },
            Err(CallError::Refused { reason, .. }) => (Price::Not(now + METER_PAUSE), Some(reason)),
            Err(CallError::Again { after, reason }) => {
                let pause = after.unwrap_or_default().max(jitter(LOOK_AGAIN * 2));
                (Price::Not(now + pause), Some(reason))
            }
        };
        if let Price::Known(..) = known {
            self.lanes.release(&price.0, &price.1, now);
        }
        self.remarks.set(&price.0, &price.1, remark);
        self.meters.insert(price, known);
    }
}

fn moved(slice: &Slice, state: SliceState, at: Micros, reason: Option<String>) -> SliceMove {
    SliceMove { identifier: slice.identifier.clone(), state, at, reason }
}

/// The minute that a slice is dated in: what the biller tells apart.
fn minute(slice: &Slice) -> (Micros, Micros) {
    let from = slice.dated_at.0.div_euclid(MINUTE_MICROS) * MINUTE_MICROS;
    (Micros(from), Micros(from + MINUTE_MICROS))
}
