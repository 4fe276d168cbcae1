//! The history sink: one thread that owns the writing side of the store.
//!
//! ```text
//! take, project ─▶ inbox ─▶ emissions ┐  one transaction at a time:                       ┌─▶ Stored
//!                           definitions ┘  definitions waiting + next part of the first emission ─▶ store
//! ```
//! What is next follows from progress alone (`parts`). Progress is read before the first transaction and again behind
//! every error, so that retry, unknown outcome and restart are one path. While the store fails everything is kept and tried
//! again after a pause that doubles, with jitter; an error that needs a human is tried at the longest pause. A store whose
//! progress went back has lost what the engine no longer holds: nothing is written until a restart replays it.
//!
//! Messages about crossings go in a transaction of their own behind the part, with a progress of their own, so many crossings
//! at a time. A cut within an epoch leaves progress before it: what is in of it already stays as it is when it comes again.
//!
//! Definitions ride in the next part; when no emission comes they go on their own after `Options::definitions_delay`.
//! What this does not do: decide what is due, or drop anything.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dataflows::types::{Crossing, Definition, Epoch, Span};

use super::{Note, Noted, SinkHealth, parts};
use crate::clock::Clock;
use crate::engine::{Emission, Sink, Stored};
use crate::store::{self, ALL_SERIES, Part, PartRows, Progress, Store, StoreError};

/// How much longer than `Options::stop_timeout` a stop waits for a store that neither answers nor fails.
const STOP_MARGIN: Duration = Duration::from_secs(1);

/// Makes messages of crossings: whom they go to and what they say, as of now.
pub trait Recipients: Send + Sync {
    /// The messages of one crossing; none if nobody wants to hear of it. The same crossing gives the same ids.
    fn messages(&self, epoch: Epoch, crossing: &Crossing) -> Vec<store::Message>;

    /// Messages are in the outbox.
    fn posted(&self);
}

/// Where messages go.
#[derive(Clone)]
pub struct Messages(pub Arc<dyn Recipients>);

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Messages")
    }
}

/// How a history sink works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who hears of crossings; nobody without.
    pub messages: Option<Messages>,
    /// The journal that the engine reads.
    pub journal_id: String,
    /// Rows in a transaction (more only if one series has more).
    pub part_rows_max: usize,
    /// Definitions in a transaction (more only if one epoch has more).
    pub part_definitions_max: usize,
    /// Crossings whose messages are in a transaction.
    pub part_crossings_max: usize,
    /// How long definitions wait for an emission.
    pub definitions_delay: Duration,
    /// The first pause after a failure; doubles up to `retry_max`.
    pub retry_min: Duration,
    /// The longest pause.
    pub retry_max: Duration,
    /// How often the store hears of this writer when nothing is written.
    pub heartbeat: Duration,
    /// How long `stop` goes on trying while the store fails.
    pub stop_timeout: Duration,
    /// Where it is noted which emission is begun, for a store that may be out of reach at the next start.
    pub note: Option<Note>,
    /// What the engine was told of a store that could not be asked at the start.
    pub doubt: Option<Noted>,
}

impl Options {
    /// The defaults, for this journal.
    pub fn new(journal_id: String) -> Options {
        Options {
            messages: None,
            journal_id,
            part_rows_max: 50_000,
            part_definitions_max: 50_000,
            part_crossings_max: 5_000,
            definitions_delay: Duration::from_secs(1),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(3),
            note: None,
            doubt: None,
        }
    }
}

enum Message {
    Emission(Arc<Emission>),
    Definitions(Epoch, Vec<Definition>),
    Crossings(Epoch, Vec<(Epoch, Crossing)>),
    Stop,
}

/// The handle of the sink's thread.
pub struct HistorySink {
    inbox: Sender<Message>,
    health: Arc<SinkHealth>,
    /// The second closes when the thread is done.
    thread: Mutex<Option<(JoinHandle<()>, Receiver<()>)>>,
    stop_timeout: Duration,
}

impl HistorySink {
    /// Starts the thread. An error is the operating system's refusal of one.
    pub fn start(
        store: Box<dyn Store>,
        stored: Arc<dyn Stored>,
        clock: Arc<dyn Clock>,
        options: Options,
        health: Arc<SinkHealth>,
    ) -> std::io::Result<HistorySink> {
        let (inbox, messages) = channel();
        let stop_timeout = options.stop_timeout;
        let worker = Worker {
            store,
            stored,
            clock,
            options,
            health: health.clone(),
            messages,
            definitions: VecDeque::new(),
            definitions_due: None,
            emissions: VecDeque::new(),
            crossings: VecDeque::new(),
            is_begun: false,
            progress: None,
            floor: Progress::default(),
            heartbeat_due: Duration::ZERO,
            stop_within: None,
        };
        let (running, ended) = channel::<()>();
        let run = move || {
            let _running = running;
            worker.run();
        };
        let thread = std::thread::Builder::new().name("history-sink".into()).spawn(run)?;
        Ok(HistorySink { inbox, health, thread: Mutex::new(Some((thread, ended))), stop_timeout })
    }

    /// Writes what has been taken, then ends the thread; gives up once the store has failed, or not answered, for
    /// `Options::stop_timeout`: the journal has it all. Also done on drop.
    pub fn stop(&self) {
        let _ = self.inbox.send(Message::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((thread, ended)) = thread else { return };
        if ended.recv_timeout(self.stop_timeout + STOP_MARGIN) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("stopped in the middle of a transaction; the next start asks what became of it");
            return;
        }
        // `Alarm` has reported a panic.
        let _ = thread.join();
    }
}

impl Drop for HistorySink {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Sink for HistorySink {
    fn take(&self, emission: Arc<Emission>) {
        // A closed inbox means that the sink has stopped: what comes later stays in the journal.
        let _ = self.inbox.send(Message::Emission(emission));
    }

    fn project(&self, epoch: Epoch, definitions: Vec<Definition>) {
        self.health.definitions_taken(definitions.len());
        let _ = self.inbox.send(Message::Definitions(epoch, definitions));
    }

    fn cross(&self, upper: Epoch, crossings: Vec<(Epoch, Crossing)>) {
        let _ = self.inbox.send(Message::Crossings(upper, crossings));
    }
}

/// What the thread owns.
struct Worker {
    store: Box<dyn Store>,
    stored: Arc<dyn Stored>,
    clock: Arc<dyn Clock>,
    options: Options,
    health: Arc<SinkHealth>,
    messages: Receiver<Message>,
    /// Not in the store, in order.
    definitions: VecDeque<(Epoch, Definition)>,
    /// When they go without an emission, by the monotonic clock.
    definitions_due: Option<Duration>,
    /// Not in the store, in the order taken; the first is being written.
    emissions: VecDeque<Arc<Emission>>,
    /// Not in the store, in the order taken; bounded by what the engine holds.
    crossings: VecDeque<(Epoch, VecDeque<(Epoch, Crossing)>)>,
    /// Whether a part of the first emission has been sent.
    is_begun: bool,
    /// The store's progress; none: read it before the next transaction.
    progress: Option<Progress>,
    /// What the store has been known to have.
    floor: Progress,
    /// When the store next hears of this writer, by the monotonic clock.
    heartbeat_due: Duration,
    /// Time left for failing; set by `stop`.
    stop_within: Option<Duration>,
}

/// Says that the thread has died, should it panic.
struct Alarm(Arc<SinkHealth>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the history sink has died");
            self.0.degraded("the history sink has died: restart the service".into());
        }
    }
}

impl Worker {
    fn run(mut self) {
        let _alarm = Alarm(self.health.clone());
        let mut pause = Duration::ZERO;
        loop {
            self.await_work();
            let begun = self.clock.monotonic();
            match self.write() {
                Ok(()) => pause = Duration::ZERO,
                Err(error) => {
                    // A store may take its time to fail.
                    let taken = self.clock.monotonic() - begun;
                    self.stop_within = self.stop_within.map(|left| left.saturating_sub(taken));
                    pause = self.pause_after(&error, pause);
                    if self.stop_within == Some(Duration::ZERO) {
                        let (emissions, definitions) = (self.emissions.len(), self.definitions.len());
                        tracing::warn!(
                            emissions,
                            definitions,
                            "stopped with a failing store; the journal has the rest"
                        );
                        return;
                    }
                    self.rest(pause);
                }
            }
            let is_done =
                self.emissions.is_empty() && self.definitions.is_empty() && self.crossings.is_empty();
            if self.stop_within.is_some() && is_done {
                return;
            }
        }
    }

    /// Takes what has come; waits while nothing is due.
    fn await_work(&mut self) {
        loop {
            while let Ok(message) = self.messages.try_recv() {
                self.accept(message);
            }
            let is_due = !(self.emissions.is_empty() && self.crossings.is_empty());
            if self.stop_within.is_some() || self.options.doubt.is_some() || is_due {
                return;
            }
            let now = self.clock.monotonic();
            let due = self.definitions_due.unwrap_or(Duration::MAX).min(self.heartbeat_due);
            let wait = due.saturating_sub(now);
            // A wait that has passed is over, whatever a clock that tests move by hand says.
            match self.messages.recv_timeout(wait.min(self.clock.look_again())) {
                Ok(message) => self.accept(message),
                Err(_) => return,
            }
        }
    }

    /// Takes messages for as long as the pause is, or until told to stop.
    fn rest(&mut self, pause: Duration) {
        let random = getrandom::u32().unwrap_or(u32::MAX);
        let mut pause = pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX));
        if let Some(left) = self.stop_within {
            pause = pause.min(left);
            self.stop_within = Some(left - pause);
        }
        let until = self.clock.monotonic() + pause;
        loop {
            let left = until.saturating_sub(self.clock.monotonic());
            match self.messages.recv_timeout(left) {
                Ok(Message::Stop) => return self.accept(Message::Stop),
                Ok(message) => self.accept(message),
                Err(_) => return,
            }
        }
    }

    fn accept(&mut self, message: Message) {
        match message {
            Message::Emission(emission) => {
                self.emissions.push_back(emission);
                self.health.waits_since(self.emissions.front().map(|first| first.at));
            }
            Message::Definitions(epoch, definitions) => {
                let due = self.clock.monotonic() + self.options.definitions_delay;
                self.definitions_due.get_or_insert(due);
                self.definitions.extend(definitions.into_iter().map(|definition| (epoch, definition)));
            }
            Message::Crossings(upper, crossings) => self.crossings.push_back((upper, crossings.into())),
            Message::Stop => self.stop_within = self.stop_within.or(Some(self.options.stop_timeout)),
        }
    }

    /// One transaction, if there is anything to write or to say.
    fn write(&mut self) -> Result<(), StoreError> {
        let is_idle = self.emissions.is_empty() && self.definitions.is_empty() && self.crossings.is_empty();
        if self.options.doubt.is_none() && is_idle {
            return self.say_alive();
        }
        let known = self.progress.take();
        let known = known.map_or_else(|| self.read_progress(), Ok)?;
        self.settle(&known);
        let progress = self.commit_next(known)?;
        self.settle(&progress);
        self.floor = progress.clone();
        self.progress = Some(progress);
        self.post()?;
        self.wrote();
        Ok(())
    }

    /// Brings the messages of the first crossings into the outbox. Repeating it changes nothing.
    fn post(&mut self) -> Result<(), StoreError> {
        let Some((whole, crossings)) = self.crossings.front_mut() else { return Ok(()) };
        let (count, upper) =
            crossings_cut(crossings.make_contiguous(), *whole, self.options.part_crossings_max);
        let messages: Vec<store::Message> = match &self.options.messages {
            Some(Messages(recipients)) => {
                let part = crossings.iter().take(count);
                part.flat_map(|(epoch, it)| recipients.messages(*epoch, it)).collect()
            }
            None => Vec::new(),
        };
        // Even without messages it is kept how far this has come: who sets a webhook later hears of nothing earlier.
        if let Err(error) = self.store.commit_messages(upper, &messages) {
            // As behind any error: it is asked again how far the store has come.
            self.progress = None;
            return Err(error);
        }
        self.stored.crossings_stored(upper);
        crossings.drain(..count);
        if crossings.is_empty() {
            self.crossings.pop_front();
        }
        if let Some(Messages(recipients)) = self.options.messages.as_ref().filter(|_| !messages.is_empty()) {
            recipients.posted();
        }
        Ok(())
    }

    fn say_alive(&mut self) -> Result<(), StoreError> {
        if self.stop_within.is_none() && self.clock.monotonic() >= self.heartbeat_due {
            // Behind an error it is asked again how far the store has come.
            let known = self.progress.take();
            self.store.heartbeat()?;
            self.progress = known;
            self.wrote();
        }
        Ok(())
    }

    fn wrote(&mut self) {
        self.heartbeat_due = self.clock.monotonic() + self.options.heartbeat;
        self.health.recovered();
    }

    fn read_progress(&mut self) -> Result<Progress, StoreError> {
        let progress = self.store.progress()?;
        let behind = |(class, done)| progress.classes.get(class).is_none_or(|now| now < done);
        if progress.definitions < self.floor.definitions || self.floor.classes.iter().any(behind) {
            return Err(StoreError::Fatal(
                "the history database has lost batches that were in it: restart the service to write current values and the last windows again"
                    .into(),
            ));
        }
        if self.options.doubt.as_ref().is_some_and(|noted| !noted.allows(&progress)) {
            return Err(StoreError::Fatal(
                "the history database is not as this data directory left it: restart the service, which then goes by what \
                 the database says"
                    .into(),
            ));
        }
        if self.options.doubt.take().is_some() {
            self.stored.progress_read(&progress.classes, &progress.whole);
        }
        self.floor = progress.clone();
        Ok(progress)
    }

    /// Commits what is next behind `progress`; gives the progress behind that.
    fn commit_next(&mut self, mut progress: Progress) -> Result<Progress, StoreError> {
        let count = definitions_cut(self.definitions.make_contiguous(), self.options.part_definitions_max);
        let (definitions, _) = self.definitions.as_slices();
        let definitions = &definitions[..count];
        // Rows only once all definitions before them fit.
        let emission = self.emissions.front().filter(|_| count == self.definitions.len());
        let cut = emission.and_then(|emission| {
            let done = progress.classes.get(&emission.class).copied();
            Some((emission, parts::next(emission, done, self.options.part_rows_max)?))
        });
        if definitions.is_empty() && cut.is_none() {
            return Ok(progress);
        }
        if let (Some((emission, _)), true) = (&cut, !self.is_begun) {
            note(&self.options, &progress, Some((emission.class, emission.upper)))?;
            self.is_begun = true;
        }
        let rows = cut.as_ref().map(|(emission, cut)| PartRows {
            class: emission.class,
            upper: emission.upper,
            flushed_at: emission.at,
            rows: &emission.rows[cut.rows.clone()],
            states: &emission.states[cut.states.clone()],
            cleaned: &emission.cleaned[cut.cleaned.clone()],
            through: cut.through,
        });
        self.store.commit(&Part { journal_id: &self.options.journal_id, definitions, rows })?;
        self.health.committed(cut.as_ref().map_or(0, |(_, cut)| cut.rows.len()));
        progress.definitions = definitions.last().map_or(progress.definitions, |(epoch, _)| *epoch);
        let mut is_whole = !self.is_begun;
        if let Some((emission, cut)) = cut {
            progress.classes.insert(emission.class, (emission.upper, cut.through));
            is_whole = cut.through == ALL_SERIES;
        }
        if is_whole {
            // Before anybody relies on it: a store that has less later has lost it.
            note(&self.options, &progress, None)?;
        }
        Ok(progress)
    }

    /// Lets go of what the store has, and says so.
    fn settle(&mut self, progress: &Progress) {
        let count = self.definitions.partition_point(|(epoch, _)| *epoch <= progress.definitions);
        if count > 0 {
            self.definitions.drain(..count);
            self.health.definitions_left(count);
            self.stored.definitions_stored(progress.definitions);
        }
        if self.definitions.is_empty() {
            self.definitions = VecDeque::new();
            self.definitions_due = None;
        }
        while let Some(emission) = self.emissions.front() {
            let done = progress.classes.get(&emission.class).copied();
            if parts::next(emission, done, self.options.part_rows_max).is_some() {
                break;
            }
            self.stored.stored(emission.class, emission.upper);
            self.emissions.pop_front();
            self.is_begun = false;
        }
        self.health.waits_since(self.emissions.front().map(|first| first.at));
    }

    /// Reports a failure; gives the pause behind it, `last` being the one before.
    fn pause_after(&self, error: &StoreError, last: Duration) -> Duration {
        let Options { retry_min, retry_max, .. } = self.options;
        self.health.failed(error.to_string());
        match error {
            StoreError::Fatal(_) | StoreError::Fenced(_) => {
                tracing::error!(%error, "history is not being written");
                retry_max
            }
            StoreError::Unavailable(_) | StoreError::Ambiguous(_) => {
                tracing::warn!(%error, "a batch of history will be tried again");
                (last * 2).clamp(retry_min, retry_max)
            }
        }
    }
}

/// Notes how far the store has come and what is begun, if it is noted at all.
fn note(options: &Options, progress: &Progress, begun: Option<(Span, Epoch)>) -> Result<(), StoreError> {
    let Some(note) = &options.note else { return Ok(()) };
    note.write(&Noted::new(progress, begun)).map_err(|error| {
        StoreError::Unavailable(format!("the batch cannot be noted beside the journal: {error}"))
    })
}

/// How many definitions go into the next transaction: at most `max`, cut between epochs; an epoch that is larger goes
/// whole.
fn definitions_cut(definitions: &[(Epoch, Definition)], max: usize) -> usize {
    let Some((beyond, _)) = definitions.get(max) else { return definitions.len() };
    let before = definitions.partition_point(|(epoch, _)| epoch < beyond);
    if before > 0 { before } else { definitions.partition_point(|(epoch, _)| epoch <= beyond) }
}

/// How many crossings go into the next transaction, `upper` being behind all of them, and below which epoch all are in then:
/// at most `max`, cut between epochs; an epoch that is larger is cut within.
fn crossings_cut(crossings: &[(Epoch, Crossing)], upper: Epoch, max: usize) -> (usize, Epoch) {
    let Some((beyond, _)) = crossings.get(max) else { return (crossings.len(), upper) };
    let before = crossings.partition_point(|(epoch, _)| epoch < beyond);
    (if before > 0 { before } else { max }, *beyond)
}
