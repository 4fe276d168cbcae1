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
mod outcomes;
mod reports;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dataflows::types::{Micros, SeriesId, Slice, SliceMove, SliceState};

use crate::clock::Clock;
use crate::stripe::{Account, Biller, CallError, ErrorReport, Meter, Outcome, Usage};
use lanes::{LaneKey, Lanes};

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

/// A report of what the biller has not counted, which only an event named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose.
    pub business_id: String,
    /// The event.
    pub event_id: String,
    /// The slices that it names, and why each was not counted; or why there is no report.
    pub slices: Result<Vec<(String, String)>, String>,
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
    /// Reports that events only named, by business and event.
    fn awaited(&self) -> Vec<(String, String)>;
    /// What a report said.
    fn reported(&self, report: Report) -> Result<(), NotNow>;
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
    Reported((String, String), Result<ErrorReport, CallError>),
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

/// A report that was asked for.
struct Asked {
    /// When it is again; none while the answer is under way, or has not come to the books.
    due: Option<Duration>,
    failures: u32,
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
    untold_reports: Vec<Report>,
    /// Calls that begin once that is told.
    calls: Vec<(LaneKey, Account, Usage)>,
    under_way: usize,
    /// By business and event.
    reports: HashMap<(String, String), Asked>,
    /// When reports are looked for next.
    reports_at: Duration,
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
            untold_reports: Vec::new(),
            calls: Vec::new(),
            under_way: 0,
            reports: HashMap::new(),
            reports_at: Duration::ZERO,
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
            Said::Reported(report, answer) => self.reported(report, answer),
            Said::Stop => {}
        }
    }
}
