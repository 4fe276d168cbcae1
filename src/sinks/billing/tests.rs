//! The exporter's decisions, turn by turn, on a clock of the test: books that remember what they are told, a biller that
//! answers when the test says.

use std::sync::Mutex;

use dataflows::types::Amount;

use super::*;
use crate::clock::MockClock;
use crate::stripe::{Counted, Done, Plaintext, Rejected};

const NOON: Micros = Micros::from_seconds(1_790_000_040);

#[derive(Default)]
struct Written {
    slices: Vec<Waiting>,
    moves: Vec<(String, SliceState)>,
    acked: i128,
    is_full: bool,
    is_gone: bool,
    awaited: Vec<(String, String)>,
    reported: Vec<Report>,
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Written>>);

impl Memory {
    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        self.0.lock().expect("no panic")
    }
}

impl Books for Memory {
    fn cut(&self, _after: Option<SeriesId>) -> Result<Option<SeriesId>, NotNow> {
        Ok(None)
    }
    fn cut_ended(&self) -> Result<(), NotNow> {
        Ok(())
    }
    fn waiting(&self, from: u64, _limit: usize) -> (Vec<Waiting>, u64) {
        let slices: Vec<_> = self.written().slices.iter().skip(from as usize).cloned().collect();
        let next = from + slices.len() as u64;
        (slices, next)
    }
    fn moved(&self, moves: Vec<SliceMove>) -> Result<(), NotNow> {
        let mut written = self.written();
        if written.is_full {
            return Err(NotNow);
        }
        written.moves.extend(moves.into_iter().map(|moved| (moved.identifier, moved.state)));
        Ok(())
    }
    fn awaited(&self) -> Vec<(String, String)> {
        self.written().awaited.clone()
    }
    fn reported(&self, report: Report) -> Result<(), NotNow> {
        let mut written = self.written();
        if written.is_full {
            return Err(NotNow);
        }
        written.awaited.retain(|(_, event_id)| *event_id != report.event_id);
        written.reported.push(report);
        Ok(())
    }
    fn account(&self, business_id: &str) -> Result<Account, NoAccount> {
        if self.written().is_gone {
            return Err(NoAccount::Gone);
        }
        Ok(Account { business_id: business_id.into(), secret_key: Plaintext("sk_test_1".into()) })
    }
    fn acked_between(&self, _slice: &Slice, _from: Micros, _until: Micros) -> i128 {
        self.written().acked
    }
}

#[derive(Default)]
struct Script {
    /// What sends are answered, the next one first; then `Delivered`.
    outcomes: Mutex<Vec<Outcome>>,
    totals: Mutex<Vec<i128>>,
    unfit: Mutex<bool>,
    sent: Mutex<Vec<Usage>>,
    /// What questions for reports are answered, the next one first.
    reports: Mutex<Vec<Result<ErrorReport, CallError>>>,
    asked: Mutex<Vec<String>>,
}

impl Biller for Script {
    fn meter(&self, _account: Account, price_id: String, done: Done<Result<Meter, CallError>>) {
        let event_time_window = self.unfit.lock().expect("no panic").then(|| "day".to_owned());
        done(Ok(Meter {
            id: price_id.replace("price", "mtr"),
            event_name: "calls".into(),
            customer_key: "stripe_customer_id".into(),
            value_key: "value".into(),
            aggregation: "sum".into(),
            event_time_window,
            is_active: true,
            livemode: false,
        }));
    }
    fn send(&self, _account: Account, usage: Usage, done: Done<Outcome>) {
        self.sent.lock().expect("no panic").push(usage);
        let mut outcomes = self.outcomes.lock().expect("no panic");
        let next = if outcomes.is_empty() { Outcome::Delivered } else { outcomes.remove(0) };
        done(next);
    }
    fn total(&self, _account: Account, _of: Counted, done: Done<Result<i128, CallError>>) {
        done(Ok(self.totals.lock().expect("no panic").remove(0)));
    }
    fn error_report(&self, _: Account, event_id: String, done: Done<Result<ErrorReport, CallError>>) {
        self.asked.lock().expect("no panic").push(event_id);
        done(self.reports.lock().expect("no panic").remove(0));
    }
}

fn slice(customer: &str, number: u64, price_id: &str) -> Waiting {
    let slice = Slice {
        identifier: format!("{customer}{number}{price_id}"),
        series: SeriesId(1),
        business_id: "biz".into(),
        customer_id: customer.into(),
        metric_name: format!("m{price_id}"),
        stripe_customer_id: format!("cus_{customer}"),
        price_id: price_id.into(),
        period_start: None,
        number,
        quantity: 7,
        scale: Amount::from_units(1),
        remainder: Amount::ZERO,
        dated_at: NOON,
        cut_at: NOON,
    };
    Waiting { slice: Arc::new(slice), state: SliceState::New, sent_at: None }
}

struct Exporter {
    worker: Worker,
    said: Receiver<Said>,
    books: Memory,
    biller: Arc<Script>,
    clock: Arc<MockClock>,
}

impl Exporter {
    fn new(slices: Vec<Waiting>, outcomes: Vec<Outcome>) -> Exporter {
        let (books, biller) = (Memory::default(), Arc::new(Script::default()));
        books.written().slices = slices;
        *biller.outcomes.lock().expect("no panic") = outcomes;
        let clock = Arc::new(MockClock::at(NOON));
        let (inbox, said) = channel();
        let worker = Worker::new(
            Box::new(books.clone()),
            biller.clone(),
            clock.clone(),
            inbox,
            Duration::from_secs(3_600),
            Arc::default(),
        );
        Exporter { worker, said, books, biller, clock }
    }

    /// Turns until nothing happens any more, so many seconds later.
    fn later(&mut self, seconds: i64) {
        self.clock.advance(Duration::from_secs(seconds as u64));
        for _ in 0..20 {
            let _ = self.worker.turn();
            while let Ok(word) = self.said.try_recv() {
                self.worker.hear(word);
            }
        }
        let _ = self.worker.turn();
    }

    fn moves(&self) -> Vec<(String, SliceState)> {
        self.books.written().moves.clone()
    }

    fn states(&self) -> Vec<SliceState> {
        self.moves().into_iter().map(|(_, state)| state).collect()
    }

    fn sent(&self) -> Vec<Usage> {
        self.biller.sent.lock().expect("no panic").clone()
    }
}

fn unknown(is_answered: bool) -> Outcome {
    Outcome::Unknown { after: None, is_answered, reason: "lost".into() }
}

use SliceState::{Acked, Dead, New, Sending, Unknown};

#[test]
fn sending_is_written_down_before_the_call_and_what_became_of_it_behind() {
    let mut exporter = Exporter::new(vec![slice("a", 0, "price"), slice("a", 1, "price")], vec![]);
    exporter.books.written().is_full = true;
    exporter.later(1);
    assert_eq!(exporter.sent().len(), 0, "nothing goes out that is not written down");
    exporter.books.written().is_full = false;
    exporter.later(1);
    assert_eq!(exporter.states(), [Sending, Acked, Sending, Acked]);
    let names: Vec<_> = exporter.sent().into_iter().map(|usage| usage.identifier).collect();
    assert_eq!(names, ["a0price", "a1price"], "in order");
}

#[test]
fn what_may_have_arrived_is_sent_under_the_same_name_and_a_duplicate_of_it_has_arrived() {
    let outcomes = vec![unknown(true), unknown(false), Outcome::Duplicate];
    let mut exporter = Exporter::new(vec![slice("a", 0, "price")], outcomes);
    (0..4).for_each(|_| exporter.later(60));
    assert_eq!(exporter.states(), [Sending, Unknown, Acked]);
    let sent = exporter.sent();
    assert!(sent.iter().all(|usage| usage.identifier == sent[0].identifier));
    assert_eq!(
        sent.iter().map(|usage| usage.failures).collect::<Vec<_>>(),
        [0, 1, 1],
        "an answer is not asked for twice"
    );
}

#[test]
fn a_duplicate_of_what_was_never_sent_is_dead_and_so_is_what_is_refused() {
    let again = Outcome::Again { after: None, reason: "busy".into() };
    let refused = Outcome::Dead { status: Some(400), reason: "no".into() };
    let slices = vec![slice("a", 0, "price"), slice("a", 1, "price"), slice("a", 2, "price")];
    let mut exporter = Exporter::new(slices, vec![again, Outcome::Duplicate, refused]);
    (0..4).for_each(|_| exporter.later(60));
    assert_eq!(exporter.states(), [Sending, Dead, Sending, Dead, Sending, Acked]);
}

#[test]
fn credentials_that_are_refused_hold_slices_up_and_are_said() {
    let refused = || Outcome::Dead { status: Some(401), reason: "bad key".into() };
    let mut exporter = Exporter::new(vec![slice("a", 0, "price")], vec![refused(), refused()]);
    exporter.later(1);
    assert_eq!(exporter.worker.remarks.of("biz", "price").as_deref(), Some("bad key"));
    (0..3).for_each(|_| exporter.later(60));
    assert_eq!(exporter.states(), [Sending, Acked]);
    assert_eq!(exporter.worker.remarks.of("biz", "price"), None);
}

#[test]
fn behind_twenty_hours_the_biller_is_asked_before_anything_is_sent() {
    for (total, expected) in [(107, Acked), (100, New), (103, Dead)] {
        let mut old = slice("a", 0, "price");
        (old.state, old.sent_at) = (Unknown, Some(Micros(NOON.0 - 21 * 3_600 * Micros::PER_SECOND)));
        let mut exporter = Exporter::new(vec![old], vec![]);
        exporter.books.written().acked = 100;
        exporter.biller.totals.lock().expect("no panic").push(total);
        exporter.later(1);
        assert_eq!(exporter.states()[0], expected, "{total}");
        let is_sent = expected == New;
        assert_eq!(exporter.sent().len(), usize::from(is_sent), "{total}");
        if is_sent {
            assert_eq!(exporter.states(), [New, Sending, Acked]);
        }
    }
    let mut young = slice("a", 0, "price");
    (young.state, young.sent_at) = (Sending, Some(Micros(NOON.0 - 19 * 3_600 * Micros::PER_SECOND)));
    let mut exporter = Exporter::new(vec![young], vec![Outcome::Duplicate]);
    exporter.later(1);
    assert_eq!(exporter.states(), [Acked]);
}

#[test]
fn a_price_that_cannot_be_billed_holds_its_slices_until_it_can() {
    let mut exporter = Exporter::new(vec![slice("a", 0, "price")], vec![]);
    *exporter.biller.unfit.lock().expect("no panic") = true;
    exporter.later(1);
    let remark = exporter.worker.remarks.of("biz", "price").expect("it is said");
    assert!(remark.contains("event_time_window") && exporter.sent().is_empty(), "{remark}");
    *exporter.biller.unfit.lock().expect("no panic") = false;
    exporter.later(700);
    assert_eq!(exporter.states(), [Sending, Acked]);
    assert_eq!(exporter.worker.remarks.of("biz", "price"), None);
}

#[test]
fn two_metrics_of_a_customer_do_not_share_a_meter() {
    // The meter is named by what comes behind its price's first word.
    let (first, mut second) = (slice("a", 0, "price"), slice("a", 0, "price"));
    let other = Slice { metric_name: "other".into(), identifier: "other".into(), ..(*second.slice).clone() };
    second.slice = Arc::new(other);
    let mut exporter = Exporter::new(vec![first, second], vec![]);
    (0..3).for_each(|_| exporter.later(60));
    assert_eq!(exporter.sent().len(), 1);
    assert!(
        exporter.worker.remarks.of("biz", "price").is_some_and(|remark| remark.contains("another metric"))
    );
}

#[test]
fn a_business_that_is_gone_is_forgotten() {
    let mut exporter = Exporter::new(vec![slice("a", 0, "price")], vec![]);
    exporter.books.written().is_gone = true;
    exporter.later(1);
    assert_eq!((exporter.worker.lanes.held(), exporter.sent().len()), (0, 0));
}

fn refused(status: u16) -> Result<ErrorReport, CallError> {
    Err(CallError::Refused { status: Some(status), reason: format!("it says {status}") })
}

#[test]
fn a_report_that_is_only_named_is_asked_for_until_it_is_there() {
    let mut exporter = Exporter::new(vec![], vec![]);
    let name = format!("tt_{}", "0".repeat(32));
    let sample = Rejected { name: name.clone(), code: "late".into(), message: "too late".into() };
    let report = ErrorReport { summary: "one".into(), samples: vec![sample] };
    let busy = Err(CallError::Again { after: Some(Duration::from_secs(50)), reason: "busy".into() });
    *exporter.biller.reports.lock().expect("no panic") = vec![busy, refused(401), refused(404), Ok(report)];
    exporter.books.written().awaited = vec![("biz".into(), "evt_1".into())];
    let asked = |exporter: &Exporter| exporter.biller.asked.lock().expect("no panic").len();
    exporter.later(1);
    exporter.later(40);
    assert_eq!(asked(&exporter), 1, "not before it may be");
    exporter.later(20);
    assert_eq!(exporter.worker.remarks.of("biz", "price").as_deref(), Some("it says 401"));
    exporter.later(60);
    exporter.books.written().is_full = true;
    exporter.later(60);
    assert_eq!((asked(&exporter), exporter.books.written().reported.len()), (4, 0));
    exporter.books.written().is_full = false;
    exporter.later(60);
    let slices = Ok(vec![(name, "late: too late".to_owned())]);
    let expected = Report { business_id: "biz".into(), event_id: "evt_1".into(), slices };
    assert_eq!(exporter.books.written().reported, [expected]);
    (0..3).for_each(|_| exporter.later(60));
    assert_eq!((asked(&exporter), exporter.books.written().reported.len()), (4, 1), "once it is there");
}

#[test]
fn a_report_that_is_not_there_for_long_is_none() {
    let mut exporter = Exporter::new(vec![], vec![]);
    *exporter.biller.reports.lock().expect("no panic") = (0..9).map(|_| refused(404)).collect();
    exporter.books.written().awaited = vec![("biz".into(), "evt_1".into())];
    (0..12).for_each(|_| exporter.later(1_000));
    assert_eq!(exporter.books.written().reported[0].slices, Err("it says 404".to_owned()));
}
