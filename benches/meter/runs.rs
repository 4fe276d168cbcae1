//! The contestants.

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use dataflows::driver::{Driver, Output, PackedBatch, Settings};
use dataflows::types::{
    Amount, ClassSet, Command, EventId, Fact, Micros, NO_REPLY, Row, RowKind, SeriesId, Shape, Tally, Update,
    Work,
};
use foldhash::fast::FixedState;
use timely::worker::Worker;

use crate::input::{BEGAN_AT_SECS, EPOCH, Input, Item, Random};

/// How many epochs may be under way to a worker.
const QUEUE: usize = 8;

/// Time that this thread has run: on a shared machine the wall clock also counts the neighbours. Falls back to the wall
/// clock where `/proc` is missing.
struct Busy {
    began: Instant,
    busy_nanos: Option<u64>,
}

impl Busy {
    fn now() -> Busy {
        Busy { began: Instant::now(), busy_nanos: Busy::nanos() }
    }

    fn nanos() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    fn elapsed(&self) -> Duration {
        match (self.busy_nanos, Busy::nanos()) {
            (Some(before), Some(after)) => Duration::from_nanos(after - before),
            _ => self.began.elapsed(),
        }
    }
}

/// What one worker's run left behind.
#[derive(Default)]
pub struct Run {
    pub elapsed: Duration,
    pub series: usize,
    pub windows: usize,
    pub bytes: usize,
    pub ids: usize,
    pub rows: usize,
    /// Series that facts gave a limit.
    pub limited: u64,
    /// Bytes of one window beyond the first.
    pub record_bytes: f64,
}

type Windows = hashbrown::HashMap<(u32, u32), Tally, FixedState>;

fn window_millis(shape: &Shape) -> u32 {
    shape.flush.seconds().map_or(1, |seconds| seconds as u32 * 1_000)
}

fn fill(windows: &mut Windows, input: &Input, length_millis: u32) {
    for item in &input.items {
        let tally = windows.entry((item.series, item.event_millis / length_millis)).or_default();
        let amount = Amount(i128::from(item.amount_nanos));
        tally.sum = tally.sum + amount;
        tally.count += 1;
        tally.min = tally.min.min(amount);
        tally.max = tally.max.max(amount);
    }
}

/// The loop that one would write by hand.
pub fn plain(input: &Input, shape: &Shape) -> Duration {
    let length_millis = window_millis(shape);
    let mut windows = Windows::with_capacity_and_hasher(input.series as usize, FixedState::default());
    let began = Busy::now();
    fill(&mut windows, input, length_millis);
    let elapsed = began.elapsed();
    black_box(&windows);
    elapsed
}

/// Makes works of the items: what the engine's router does.
struct Router<'a> {
    workers: u32,
    shape: &'a Shape,
    epoch: u64,
    /// The last time entry.
    second: i64,
    with_ids: bool,
}

impl<'a> Router<'a> {
    fn new(workers: u32, shape: &'a Shape, with_ids: bool) -> Router<'a> {
        Router { workers, shape, epoch: 0, second: BEGAN_AT_SECS, with_ids }
    }

    /// The definitions of one worker's series.
    fn open(&mut self, series: u32, worker: u32) -> Work {
        let own = (worker..series).step_by(self.workers as usize);
        let open = |series| Command::Open {
            slot: series / self.workers,
            series: SeriesId(series),
            shape: *self.shape,
        };
        Work::Commands {
            epoch: 1,
            stamp: Micros::from_seconds(BEGAN_AT_SECS),
            commands: own.map(open).collect(),
        }
    }

    /// The time entry before a stamp, if a whole second has passed.
    fn time(&mut self, stamp: Micros) -> Option<Work> {
        let second = stamp.seconds();
        if second <= self.second {
            return None;
        }
        let class = self.shape.batch;
        let is_due =
            class.window(Micros::from_seconds(self.second)) != class.window(Micros::from_seconds(second));
        let mut emit = ClassSet::default();
        if is_due {
            emit.insert(class);
        }
        self.second = second;
        self.epoch += 1;
        Some(Work::Time { epoch: self.epoch + 1, at: Micros::from_seconds(second), emit, stored: Vec::new() })
    }

    /// The updates of an epoch, by worker.
    fn updates(&mut self, items: &[Item], stamp: Micros) -> Vec<Work> {
        self.epoch += 1;
        let workers = self.workers;
        let each = if workers == 1 { items.len() } else { items.len() * 9 / 16 };
        let mut shares: Vec<Vec<Update>> = (0..workers).map(|_| Vec::with_capacity(each)).collect();
        let update = |item: &Item| Update {
            slot: item.series / workers,
            item: NO_REPLY,
            event_at: Micros(BEGAN_AT_SECS * Micros::PER_SECOND + i64::from(item.event_millis) * 1_000),
            amount: Amount(i128::from(item.amount_nanos)),
        };
        match &mut shares[..] {
            [all] => all.extend(items.iter().map(update)),
            shares => {
                items.iter().for_each(|item| shares[(item.series % workers) as usize].push(update(item)))
            }
        }
        let (epoch, with_ids) = (self.epoch + 1, self.with_ids);
        let work = |updates: Vec<Update>| {
            let ids = if with_ids { ids(&updates, epoch) } else { Vec::new() };
            Work::Updates { epoch, stamp, updates, ids }
        };
        shares.into_iter().map(work).collect()
    }
}

fn ids(updates: &[Update], epoch: u64) -> Vec<(u32, EventId)> {
    let mut random = Random(epoch << 32);
    let mut id =
        |slot: u32| EventId::new(u128::from(random.next()) << 64 | u128::from(random.next()), SeriesId(slot));
    updates.iter().enumerate().map(|(index, update)| (index as u32, id(update.slot))).collect()
}

/// A worker's end: applies works, lets the batches go and acknowledges them.
struct Seat {
    driver: Driver,
    out: Output,
    rows: usize,
}

impl Seat {
    fn new(worker: &mut Worker, workers: usize) -> Seat {
        let driver = Driver::new(worker, &Settings { workers, dedup_horizon_secs: 259_200 });
        Seat { driver, out: Output::default(), rows: 0 }
    }

    fn apply(&mut self, worker: &mut Worker, work: Work, store: &mut dyn FnMut(PackedBatch)) {
        self.driver.submit(work);
        self.driver.step(worker, &mut self.out);
        for batch in self.out.batches.drain(..) {
            self.rows += batch.len();
            self.driver.acknowledge(batch.class, batch.upper);
            store(batch);
        }
    }
}

/// One worker that routes for itself.
pub fn one_worker(input: &Input, shape: &Shape, with_ids: bool) -> Run {
    drive(input, shape, with_ids, Vec::new(), &mut |_| {})
}

/// The same with facts about limits, which are there before the clock starts.
pub fn one_worker_with_facts(input: &Input, shape: &Shape, facts: Vec<(Fact, isize)>) -> Run {
    drive(input, shape, false, facts, &mut |_| {})
}

fn drive(
    input: &Input,
    shape: &Shape,
    with_ids: bool,
    facts: Vec<(Fact, isize)>,
    store: &mut dyn FnMut(PackedBatch),
) -> Run {
    // The worker's closure must be 'static, the input is not: this thread is the worker.
    let allocator = timely::communication::Allocator::Thread(Default::default());
    let worker = &mut Worker::new(timely::WorkerConfig::default(), allocator, Some(Instant::now()));
    let mut router = Router::new(1, shape, with_ids);
    let mut seat = Seat::new(worker, 1);
    seat.apply(worker, router.open(input.series, 0), store);
    if !facts.is_empty() {
        let stamp = Micros::from_seconds(BEGAN_AT_SECS);
        seat.apply(worker, Work::Facts { epoch: 1, stamp, facts, is_news: true }, store);
    }
    let began = Busy::now();
    for items in input.items.chunks(EPOCH) {
        let stamp = input.stamp(items);
        for work in router.time(stamp).into_iter().chain(router.updates(items, stamp)) {
            seat.apply(worker, work, store);
        }
    }
    let elapsed = began.elapsed();
    assert_eq!(seat.out.admitted, input.items.len() as u64);
    let driver = &seat.driver;
    let run = Run {
        elapsed,
        series: driver.series(),
        windows: driver.windows(),
        bytes: driver.resident_bytes(),
        ids: driver.ids(),
        rows: seat.rows,
        limited: seat.out.limited.series,
        record_bytes: 72.0,
    };
    let end = router.time(Micros::from_seconds(BEGAN_AT_SECS + 4_000));
    end.into_iter().for_each(|work| seat.apply(worker, work, store));
    seat.driver.close(worker);
    run
}

/// Two workers and a router beside them.
pub fn two_workers(input: &Input, shape: &Shape) -> Duration {
    let (senders, receivers): (Vec<SyncSender<Work>>, Vec<Receiver<Work>>) =
        (0..2).map(|_| sync_channel(QUEUE)).unzip();
    let seats: Vec<_> = receivers.into_iter().map(|receiver| Mutex::new(Some(receiver))).collect();
    let (ready, are_ready) = channel();
    let guards = timely::execute(timely::Config::process(2), move |worker| {
        let seat = seats[worker.index()].lock().ok().and_then(|mut seat| seat.take());
        let works = seat.expect("one receiver a worker");
        let mut seat = Seat::new(worker, 2);
        for work in works {
            let is_definition = matches!(work, Work::Commands { .. });
            seat.apply(worker, work, &mut |_| {});
            if is_definition {
                ready.send(()).expect("the router waits");
            }
        }
        let admitted = seat.out.admitted;
        seat.driver.close(worker);
        admitted
    });
    let guards = guards.expect("two threads can be started");
    let mut router = Router::new(2, shape, false);
    for (worker, sender) in senders.iter().enumerate() {
        sender.send(router.open(input.series, worker as u32)).expect("the worker lives");
        are_ready.recv().expect("the worker lives");
    }
    let began = Instant::now();
    for items in input.items.chunks(EPOCH) {
        let stamp = input.stamp(items);
        if let Some(time) = router.time(stamp) {
            senders.iter().for_each(|sender| sender.send(time.clone()).expect("the worker lives"));
        }
        for (sender, work) in senders.iter().zip(router.updates(items, stamp)) {
            sender.send(work).expect("the worker lives");
        }
    }
    drop(senders);
    let admitted: u64 = guards.join().into_iter().map(|worker| worker.expect("no worker fails")).sum();
    let elapsed = began.elapsed();
    assert_eq!(admitted, input.items.len() as u64);
    elapsed
}

/// Applies the rows to a store in memory, as the sink would, and compares it with the plain loop's map. Panics if any
/// window differs.
pub fn verify(input: &Input, shape: &Shape) {
    let length_millis = window_millis(shape);
    let mut expected = Windows::default();
    fill(&mut expected, input, length_millis);
    let mut stored = Windows::with_capacity_and_hasher(expected.len(), FixedState::default());
    let key = |row: &Row| {
        let millis = (row.window_start.0 / 1_000 - BEGAN_AT_SECS * 1_000) as u32;
        (row.series.0, millis / length_millis)
    };
    drive(input, shape, false, Vec::new(), &mut |batch| {
        for row in batch.unpack().rows {
            let tally = stored.entry(key(&row)).or_default();
            *tally = if row.kind == RowKind::Absolute { row.tally } else { tally.merge(row.tally) };
        }
    });
    assert_eq!(stored.len(), expected.len(), "number of windows");
    assert!(stored.iter().all(|(key, tally)| expected.get(key) == Some(tally)), "tallies");
}
