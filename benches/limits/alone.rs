//! One start and some changes, in a process of its own: memory that a round frees is the next one's otherwise.
//!
//! The series are open before the clock starts and before memory is looked at. All workers begin together, and the
//! clock stops when the last has handed its series their limits. The list of facts, which the first worker is handed, is
//! made outside the clock, but counts as memory if the allocator keeps it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use dataflows::driver::{Driver, Output, Settings};
use dataflows::types::{
    Amount, Command, Fact, LimitSource, MetricType, Micros, Notify, Operation, SeriesId, Shape, Span, Work,
};
use timely::worker::Worker;

use crate::facts::{self, NAMES, PLANS};

const SHAPE: Shape = Shape {
    operation: Operation::Sum,
    metric_type: MetricType::Checkpoint,
    flush: Span::H1,
    reset: Span::H1,
    initial_value: Amount::ZERO,
    batch: Span::H1,
    stored: true,
    limit: None,
    limit_source: LimitSource::Series,
    notify: Notify::NONE,
    max_event_age_secs: 86_400,
    cleanup_after_days: None,
};

/// What a round measures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone {
    /// All facts, in an empty graph.
    pub start_millis: f64,
    /// One limit of one plan becomes another.
    pub edit_millis: f64,
    /// One customer is put on another plan.
    pub move_millis: f64,
    /// Of the graph, and what it left in the allocator.
    pub bytes_a_series: f64,
}

/// The round; asserts that each change touches the series concerned and no other.
pub fn run(series: u32, workers: usize) -> Alone {
    let together = Arc::new((Barrier::new(workers), AtomicU64::new(0)));
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let mut hand = Hand::new(worker, series, workers, together.clone());
        // The others' series are open, too.
        together.0.wait();
        let before = resident_bytes();
        let all = if worker.index() == 0 { facts::all(series, workers as u32, true) } else { Vec::new() };
        let start_millis = hand.apply(worker, all, series);
        let of_plan = series / NAMES / PLANS;
        let edit = |edit| vec![(facts::plan_limit(7, 3, edit), -1), (facts::plan_limit(7, 3, edit + 1), 1)];
        let mut edits: Vec<_> = (0..5).map(|at| hand.apply(worker, edit(at), of_plan)).collect();
        let to = |it| vec![(facts::customer(it, it), -1), (facts::customer(it, it + 5), 1)];
        let mut moves: Vec<_> = (0..5).map(|it| hand.apply(worker, to(it), NAMES)).collect();
        let bytes_a_series = (resident_bytes() - before) / f64::from(series);
        hand.driver.close(worker);
        let (edit_millis, move_millis) = (crate::median(&mut edits), crate::median(&mut moves));
        Alone { start_millis, edit_millis, move_millis, bytes_a_series }
    });
    let first = guards.expect("threads start").join().into_iter().next();
    first.expect("there is a worker").expect("no worker panics")
}

struct Hand {
    driver: Driver,
    out: Output,
    epoch: u64,
    /// All workers, and the series that they have touched.
    together: Arc<(Barrier, AtomicU64)>,
}

impl Hand {
    fn new(worker: &mut Worker, series: u32, workers: usize, together: Arc<(Barrier, AtomicU64)>) -> Hand {
        let mut driver = Driver::new(worker, &Settings { workers, dedup_horizon_secs: 3_600 });
        let own = (worker.index() as u32..series).step_by(workers);
        let open = |it| Command::Open { slot: it / workers as u32, series: SeriesId(it), shape: SHAPE };
        driver.submit(Work::Commands { epoch: 1, stamp: Micros(0), commands: own.map(open).collect() });
        let mut out = Output::default();
        driver.step(worker, &mut out);
        Hand { driver, out, epoch: 1, together }
    }

    /// Milliseconds until all workers have passed these facts.
    fn apply(&mut self, worker: &mut Worker, facts: Vec<(Fact, isize)>, touches: u32) -> f64 {
        let facts = if worker.index() == 0 { facts } else { Vec::new() };
        let (barrier, touched) = &*self.together;
        barrier.wait();
        let began = Instant::now();
        self.epoch += 1;
        self.driver.submit(Work::Facts { epoch: self.epoch, stamp: Micros(0), facts, is_news: true });
        self.driver.step(worker, &mut self.out);
        touched.fetch_add(std::mem::take(&mut self.out.limited.series), Ordering::SeqCst);
        barrier.wait();
        let elapsed = began.elapsed();
        if worker.index() == 0 {
            assert_eq!(touched.swap(0, Ordering::SeqCst), u64::from(touches), "series that the facts touch");
        }
        // Nobody goes on before that was looked at.
        barrier.wait();
        elapsed.as_secs_f64() * 1_000.0
    }
}

/// Resident set of the process; 0 where `/proc` is missing.
fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<f64> = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0.0) * 4_096.0
}
