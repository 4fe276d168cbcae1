//! One timely worker: takes messages, steps the dataflow, answers.
//!
//! A worker parks when it has nothing to do and is woken by `unpark` behind each message. It never waits for I/O: what
//! it gives away goes to channels and oneshots that do not block. If it panics the process aborts, because its peers
//! would wait for it for ever.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dataflows::driver::{Driver, Output, Settings};
use dataflows::types::{Micros, Outcome, SeriesState, Work};
use timely::communication::WorkerGuards;
use timely::worker::Worker;

use super::emissions::Collected;
use super::snapshot::{Chunk, Export};
use super::{EngineOptions, Ledger, Message, Shared, WorkerQueue};
use crate::control::Registry;
use crate::control::slices::PeriodUsage;

/// Messages taken before the worker looks after its exports again.
const MESSAGES_MAX: usize = 1_024;
/// How long a worker with an export under way sleeps when the export's reader is slow.
const EXPORT_PAUSE: Duration = Duration::from_millis(1);

/// The running workers. Joins on `stop`.
pub struct Workers {
    guards: WorkerGuards<()>,
    shared: Arc<Shared>,
}

impl Workers {
    /// Starts the workers with empty state.
    pub fn start(
        options: &EngineOptions,
        registry: Arc<std::sync::RwLock<Registry>>,
        ledger: Arc<dyn Ledger>,
    ) -> Result<(Workers, Arc<Shared>), String> {
        let (queues, receivers): (Vec<_>, Vec<_>) = (0..options.workers)
            .map(|_| {
                let (sender, receiver) = mpsc::channel();
                (WorkerQueue { sender, thread: OnceLock::new() }, Mutex::new(Some(receiver)))
            })
            .unzip();
        let shared = Arc::new(Shared {
            registry,
            queues,
            emissions: Mutex::new(super::emissions::Emissions::new(options.workers)),
            crossings: Mutex::new(super::crossings::Crossings::new(options.workers)),
            crossing_due: i64::MAX.into(),
            loads: super::loads::Loads::default(),
            due: (0..options.workers).map(|_| i64::MAX.into()).collect(),
            sink: OnceLock::new(),
            ledger,
            failed: tokio::sync::Notify::new(),
            flush: false.into(),
            wake_journal: OnceLock::new(),
            counters: super::EngineCounters {
                resident: Mutex::new(vec![[0; 4]; options.workers]),
                ..Default::default()
            },
        });
        let settings = Settings { workers: options.workers, dedup_horizon_secs: options.dedup_horizon_secs };
        let of_workers = shared.clone();
        let guards = timely::execute(timely::Config::process(options.workers), move |worker| {
            let _abort = AbortOnPanic;
            let receiver = receivers[worker.index()].lock().unwrap_or_else(PoisonError::into_inner).take();
            let receiver = receiver.expect("each worker takes its own receiver once");
            let driver = Driver::new(worker, &settings);
            let index = worker.index();
            let body =
                Body { index, shared: of_workers.clone(), driver, output: Output::default(), export: None };
            body.run(worker, &receiver);
        })?;
        for (queue, guard) in shared.queues.iter().zip(guards.guards()) {
            queue.thread.get_or_init(|| guard.thread().clone()).unpark();
        }
        Ok((Workers { guards, shared: shared.clone() }, shared))
    }

    /// Ends the workers when they have done what was sent before, and joins them.
    pub fn stop(self) {
        for queue in &self.shared.queues {
            queue.send(Message::Stop);
        }
        self.guards.join().into_iter().for_each(drop);
    }
}

/// What there is to bill of a series.
fn usage(state: &SeriesState) -> Vec<PeriodUsage> {
    let end_of = |start: Micros| {
        let window = state.windows.iter().find(|window| window.start == start);
        window.map_or_else(|| state.shape.flush.window(start).end, |window| window.end)
    };
    let periods = state.periods.iter().map(|period| PeriodUsage {
        start: period.start,
        end: period.end,
        tally: period.tally,
        used_until: period.newest.map(end_of),
    });
    periods.collect()
}

/// If one worker unwinds, its peers wait for it for ever. Make it loud.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

struct Body {
    index: usize,
    shared: Arc<Shared>,
    driver: Driver,
    output: Output,
    export: Option<Export>,
}

impl Body {
    fn run(mut self, worker: &mut Worker, receiver: &Receiver<Message>) {
        loop {
            let mut taken = 0;
            while taken < MESSAGES_MAX {
                match receiver.try_recv() {
                    Ok(Message::Stop) | Err(TryRecvError::Disconnected) => {
                        self.driver.close(worker);
                        return;
                    }
                    Ok(message) => self.handle(worker, message),
                    Err(TryRecvError::Empty) => break,
                }
                taken += 1;
            }
            if taken > 0 {
                self.publish();
            }
            let exporting = self.export();
            if taken == 0 {
                worker.step_or_park(exporting.then_some(EXPORT_PAUSE));
            }
        }
    }

    fn handle(&mut self, worker: &mut Worker, message: Message) {
        match message {
            Message::Updates(work, mut waiting) => {
                self.apply(worker, work);
                let alone = std::mem::take(&mut waiting.alone);
                let mut replies: Vec<_> = alone.into_iter().map(Some).collect();
                for decision in self.output.decisions.drain(..) {
                    if let Some(reply) = replies.get_mut(decision.item as usize).and_then(Option::take) {
                        // A client that has gone away does not want its answer.
                        let _ = reply.send(Ok(decision));
                    }
                }
                waiting.tell(&self.output.verdicts);
                self.output.verdicts.clear();
            }
            Message::Commands(work, completion) => {
                self.apply(worker, work);
                completion.add(std::mem::take(&mut self.output.limited));
            }
            Message::Time(work) => {
                let epoch = work.epoch();
                self.apply(worker, work);
                self.shared.passed(self.index, epoch);
                self.emit();
                self.measure();
            }
            Message::Standings(slots, at, reply) => {
                let _ = reply.send(slots.into_iter().map(|slot| self.driver.standing(slot, at)).collect());
            }
            Message::Refuse(update, id, at, reply) => {
                let decision = self.driver.refuse(&update, id, at);
                let counters = &self.shared.counters;
                match decision.map(|decision| decision.outcome) {
                    Some(Outcome::TooLate) => counters.too_late.fetch_add(1, Ordering::Relaxed),
                    Some(_) => counters.refused.fetch_add(1, Ordering::Relaxed),
                    None => 0,
                };
                let _ = reply.send(decision);
            }
            Message::Periods(slots, reply) => {
                let periods = |slot| self.driver.state(slot).map(|state| usage(&state));
                let _ = reply.send(slots.into_iter().map(periods).collect());
            }
            Message::State(slot, reply) => drop(reply.send(self.driver.state(slot))),
            Message::Stored(class, upper, through) => self.driver.acknowledge_through(class, upper, through),
            Message::Snapshot(chunks) => self.begin_export(chunks),
            Message::Restore(series, ids) => self.restore(&series, ids),
            Message::Flush(done) => drop(done.send(())),
            Message::Stop => {}
        }
    }

    fn apply(&mut self, worker: &mut Worker, work: Work) {
        self.output.groups.clear();
        self.driver.submit(work);
        self.driver.step(worker, &mut self.output);
        self.shared.found(&mut self.output);
        let counters = &self.shared.counters;
        for (counter, new) in [
            (&counters.admitted, &mut self.output.admitted),
            (&counters.duplicates, &mut self.output.duplicates),
            (&counters.gone, &mut self.output.gone),
            (&counters.late, &mut self.output.late),
            (&counters.refused, &mut self.output.refused),
            (&counters.too_late, &mut self.output.too_late),
        ] {
            counter.fetch_add(std::mem::take(new), Ordering::Relaxed);
        }
    }

    fn emit(&mut self) {
        let mut unchanged = Vec::new();
        {
            // The sink gets emissions in the order of the epochs: it is handed them under the lock that orders them.
            let mut emissions = self.shared.emissions();
            for batch in self.output.batches.drain(..) {
                match (emissions.collect(batch), self.shared.sink.get()) {
                    (Collected::Complete(emission), Some(sink)) => sink.take(emission),
                    (Collected::Empty(class, upper), _) => unchanged.push((class, upper)),
                    (Collected::Waiting | Collected::Complete(_), _) => {}
                }
            }
        }
        for (class, upper) in unchanged {
            super::Stored::stored(&*self.shared, class, upper);
        }
    }

    /// Says when this worker next wants a time entry; the journal writer looks again if that is sooner than it knew.
    fn publish(&mut self) {
        let due = self.driver.due_at().map_or(i64::MAX, |at: Micros| at.0);
        if self.shared.due[self.index].swap(due, Ordering::AcqRel) > due {
            self.shared.wake_journal();
        }
    }

    fn measure(&self) {
        let numbers =
            [self.driver.series(), self.driver.windows(), self.driver.ids(), self.driver.resident_bytes()];
        let mut resident = self.shared.counters.resident.lock().unwrap_or_else(PoisonError::into_inner);
        resident[self.index] = numbers.map(|number| number as u64);
        let windows = resident.iter().map(|numbers| numbers[1]).sum();
        self.shared.counters.windows.store(windows, Ordering::Relaxed);
    }

    fn restore(&mut self, series: &[(u32, SeriesState)], ids: Vec<(u64, dataflows::types::EventId)>) {
        for (slot, state) in series {
            self.driver.restore(*slot, state);
        }
        for (generation, id) in ids {
            self.driver.restore_id(generation, id);
            self.shared.ledger.remembered(id.series(), generation);
        }
    }

    fn begin_export(&mut self, chunks: SyncSender<Chunk>) {
        if let Some(mut abandoned) = self.export.take() {
            while !abandoned.step(&mut self.driver) {}
        }
        self.driver.begin_snapshot();
        self.export = Some(Export::new(chunks));
    }

    /// Goes on with a snapshot's export; whether one is under way.
    fn export(&mut self) -> bool {
        match self.export.take() {
            Some(mut export) => {
                let done = export.step(&mut self.driver);
                self.export = (!done).then_some(export);
                !done
            }
            None => false,
        }
    }
}
