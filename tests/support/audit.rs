//! The auditor: many clients that know what every answer must be. Each has series of its own and sends one update after
//! another, so between two calls its model is exact. What is unknown is sent again by its identity until it is
//! definite; then engine, store and model must be equal.
//!
//! Findings are collected, not thrown: a loop that hunts a seeded bug wants to find some.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataflows::types::{Operation, Tally};

use super::api::{self, Client, Outcome};
use super::history::{self, Place};
use super::ledger::{Identity, Kind, Track, Update};
use super::{Random, until};

/// How long unknown outcomes may stay unknown while the server is up.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const OPERATIONS: [Operation; 5] =
    [Operation::Sum, Operation::Count, Operation::Avg, Operation::Max, Operation::Min];

/// How the clients behave.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Whether audit series are made as the load goes on; each is a definition among the updates.
    pub audits: bool,
    /// Batch intervals of the series, in turn.
    pub batches: &'static [&'static str],
}

/// Clients and what they know.
pub struct Fleet {
    auditors: Vec<Auditor>,
}

impl Fleet {
    /// `clients` clients.
    pub fn new(clients: usize, habits: Habits, random: &mut Random) -> Fleet {
        let auditor = |number| Auditor::new(number, habits, random.fork());
        Fleet { auditors: (0..clients).map(auditor).collect() }
    }

    /// The clients work against `base` for as long as `meanwhile` takes; its answer is returned.
    pub fn load<T>(&mut self, base: &str, meanwhile: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for auditor in &mut self.auditors {
                scope.spawn(|| auditor.work(&Client::new(base), &stop));
            }
            let answer = meanwhile();
            stop.store(true, Ordering::Relaxed);
            answer
        })
    }

    /// Sends what is unknown until it is definite.
    pub fn settle(&mut self, base: &str) {
        std::thread::scope(|scope| {
            for auditor in &mut self.auditors {
                scope.spawn(|| auditor.settle(&Client::new(base)));
            }
        });
    }

    /// The clients no longer expect a server to remember what they have sent.
    pub fn forget_repeats(&mut self) {
        let tracks = self.auditors.iter_mut().flat_map(|auditor| &mut auditor.tracks);
        tracks.for_each(|track| track.repeats.clear());
    }

    /// Compares what the server at `base` reads with the model. Only after `settle`.
    pub fn audit_engine(&mut self, base: &str) {
        let client = Client::new(base);
        self.auditors.iter_mut().for_each(|auditor| auditor.read_all(&client));
    }

    /// Compares the store with the model; it has `limit` to catch up. Only after `settle`.
    pub fn audit_store(&mut self, place: Place<'_>, limit: Duration) {
        let compare = || {
            let stored = history::read(place).map_err(|why| vec![why])?;
            let tracks = self.auditors.iter().flat_map(|auditor| &auditor.tracks);
            let findings: Vec<_> =
                tracks.filter_map(|track| track.judge_stored(stored.get(&track.stored_name()))).collect();
            if findings.is_empty() { Ok(()) } else { Err(findings) }
        };
        if let Err(findings) = until(limit, compare) {
            self.auditors[0].findings.extend(findings);
        }
    }

    /// How many series have had an update.
    pub fn series(&self) -> usize {
        let tracks = self.auditors.iter().flat_map(|auditor| &auditor.tracks);
        tracks.filter(|track| track.tally.count > 0).count()
    }

    /// How many updates have been acknowledged.
    pub fn acknowledged(&self) -> u64 {
        let tracks = self.auditors.iter().flat_map(|auditor| &auditor.tracks);
        tracks.map(|track| track.tally.count).sum()
    }

    /// How many calls had an unknown outcome.
    pub fn unknown(&self) -> u64 {
        self.auditors.iter().map(|auditor| auditor.unknown).sum()
    }

    /// What was wrong since the last time of asking.
    pub fn findings(&mut self) -> Vec<String> {
        self.auditors.iter_mut().flat_map(|auditor| std::mem::take(&mut auditor.findings)).collect()
    }

    /// Panics if anything was wrong. `when` says where in the test that is.
    pub fn demand_nothing_wrong(&mut self, when: &str) {
        let findings = self.findings();
        let shown: Vec<_> = findings.iter().take(20).map(String::as_str).collect();
        assert!(findings.is_empty(), "{when}: {} findings\n{}", findings.len(), shown.join("\n"));
    }
}

/// An update whose outcome is not definite yet.
struct Pending {
    track: usize,
    update: Update,
    /// Whether an earlier attempt may have been counted.
    perhaps: bool,
}

/// One client.
struct Auditor {
    number: usize,
    habits: Habits,
    random: Random,
    tracks: Vec<Track>,
    /// Index of the audit series that is being filled.
    audit: usize,
    pending: Option<Pending>,
    updates: usize,
    unknown: u64,
    findings: Vec<String>,
}

impl Auditor {
    fn new(number: usize, habits: Habits, random: Random) -> Auditor {
        let mut auditor = Auditor {
            number,
            habits,
            random,
            tracks: Vec::new(),
            audit: 0,
            pending: None,
            updates: 0,
            unknown: 0,
            findings: Vec::new(),
        };
        auditor.open(Kind::Mixed(OPERATIONS[number % OPERATIONS.len()]));
        if habits.audits {
            auditor.audit = auditor.open(Kind::Audit);
        }
        auditor
    }

    fn open(&mut self, kind: Kind) -> usize {
        let count = self.tracks.len();
        self.tracks.push(Track {
            name: format!("audit.{}.{count}", self.number),
            of_customer: (self.number + count).is_multiple_of(2),
            kind,
            batch: self.habits.batches[(self.number + count) % self.habits.batches.len()],
            created: false,
            tally: Tally::EMPTY,
            repeats: Vec::new(),
        });
        count
    }

    /// Calls until told to stop. A call without an answer is followed by a short pause, and then sent again.
    fn work(&mut self, client: &Client, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if !self.step(client) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// One call. False if it has to be made again.
    fn step(&mut self, client: &Client) -> bool {
        if let Some(track) = self.tracks.iter().position(|track| !track.created) {
            return self.create(client, track);
        }
        if self.pending.is_none() {
            match self.random.below(20) {
                0 => return self.read(client, self.audit.min(self.tracks.len() - 1)),
                1 => return self.repeat(client),
                _ => self.choose(),
            }
        }
        self.pending.is_none() || self.send(client)
    }

    fn choose(&mut self) {
        let mixed = !self.habits.audits || self.random.one_in(4);
        if !mixed && self.tracks[self.audit].is_full() {
            self.audit = self.open(Kind::Audit);
            return;
        }
        let track = if mixed { 0 } else { self.audit };
        self.updates += 1;
        let update = self.tracks[track].next_update(self.updates, &mut self.random);
        self.pending = Some(Pending { track, update, perhaps: false });
    }

    fn create(&mut self, client: &Client, track: usize) -> bool {
        let (path, body) =
            (format!("/api/v1/metrics{}", self.tracks[track].query()), self.tracks[track].definition());
        match client.post(&path, &body) {
            Outcome::Durable(_) => self.tracks[track].created = true,
            other => self.note(other, "creation"),
        }
        self.tracks[track].created
    }

    fn read(&mut self, client: &Client, track: usize) -> bool {
        let track = &self.tracks[track];
        match client.get(&track.path()) {
            Outcome::Durable(body) => {
                let finding =
                    track.judge("a reading", api::amount(&body, "current_value"), api::count(&body, "count"));
                self.findings.extend(finding);
                true
            }
            other => {
                self.note(other, "reading");
                false
            }
        }
    }

    /// Sends an acknowledged update again: it must be known.
    fn repeat(&mut self, client: &Client) -> bool {
        let chosen = self.random.below(self.tracks.len());
        let repeats = &self.tracks[chosen].repeats;
        if repeats.is_empty() {
            return true;
        }
        let update = repeats[self.random.below(repeats.len())].clone();
        match put(client, &self.tracks[chosen], &update) {
            Outcome::Durable(body) if api::flag(&body, "duplicate") => self.judge_answer(chosen, &body),
            Outcome::Durable(body) => {
                self.findings.push(format!("an acknowledged update was taken again: {update:?} {body}"));
            }
            other => self.note(other, "repeat"),
        }
        true
    }

    fn send(&mut self, client: &Client) -> bool {
        let Some(mut pending) = self.pending.take() else { return true };
        match put(client, &self.tracks[pending.track], &pending.update) {
            Outcome::Durable(body) => {
                if api::flag(&body, "duplicate") && !pending.perhaps {
                    self.findings.push(format!("a new update is a duplicate: {:?} {body}", pending.update));
                }
                self.tracks[pending.track].acknowledge(pending.update, &mut self.random);
                self.judge_answer(pending.track, &body);
                return true;
            }
            Outcome::Unknown(_) => {
                self.unknown += 1;
                pending.perhaps = true;
            }
            Outcome::Rejected(503, _) => (),
            // Wrong, and no reason to try again.
            refused => {
                self.note(refused, "update");
                return true;
            }
        }
        self.pending = Some(pending);
        false
    }

    fn judge_answer(&mut self, track: usize, body: &str) {
        let finding = self.tracks[track].judge("an answer", api::amount(body, "current_value"), None);
        self.findings.extend(finding);
    }

    /// Only overload is a reason to refuse the auditor.
    fn note(&mut self, outcome: Outcome, what: &str) {
        match outcome {
            Outcome::Rejected(503, _) => (),
            Outcome::Unknown(_) => self.unknown += 1,
            other => self.findings.push(format!("client {}: {what}: {other:?}", self.number)),
        }
    }

    fn settle(&mut self, client: &Client) {
        let settled = until(SETTLE_LIMIT, || {
            if self.pending.is_some() || self.tracks.iter().any(|track| !track.created) {
                self.step(client);
                return Err(());
            }
            Ok(())
        });
        if settled.is_err() {
            let update = self.pending.as_ref().map(|pending| &pending.update);
            self.findings
                .push(format!("client {}: still unknown after {SETTLE_LIMIT:?}: {update:?}", self.number));
        }
    }

    fn read_all(&mut self, client: &Client) {
        for track in 0..self.tracks.len() {
            // Overload is no excuse when nobody else calls.
            if !self.read(client, track) {
                self.findings.push(format!("{}: cannot be read", self.tracks[track].name));
            }
        }
    }
}

fn put(client: &Client, track: &Track, update: &Update) -> Outcome {
    match &update.identity {
        Identity::Key(key) => client.call("PUT", &track.path(), &[("idempotency-key", key)], &update.body),
        Identity::Event(_) => client.put(&track.path(), &update.body),
    }
}
