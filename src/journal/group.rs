//! A group being made: the frames that one write and one fsync will make durable, and whom to tell.
//!
//! Consecutive appends of updates share a frame, which stays open until something else comes: its payload is copied
//! here once and nothing is allocated an append.

use dataflows::types::Micros;

use super::frame::{Chain, HEAD_BYTES};
use super::{Append, Durable, Kind};

/// Frames that are not yet written.
pub(super) struct Group<T> {
    /// Behind the last complete frame.
    pub chain: Chain,
    /// The frames; the last may be open.
    pub frames: Vec<u8>,
    /// What is to be told, an epoch a frame; the seal is nobody's.
    pub epochs: Vec<Durable<T>>,
    /// How many appends there are.
    pub appends: usize,
    /// Arrival of all of them; none before the first frame.
    pub stamp: Option<Micros>,
    /// Where the frame of updates begins that still takes more, and its stamp.
    open: Option<(usize, Micros)>,
    /// What every frame of the group says about those before it.
    pub synced: u64,
}

impl<T> Group<T> {
    /// An empty group behind `chain`, all of which is durable.
    pub fn new(chain: Chain) -> Self {
        let synced = chain.position.lsn;
        Group { chain, frames: Vec::new(), epochs: Vec::new(), appends: 0, stamp: None, open: None, synced }
    }

    /// Adds a frame of the writer's own.
    pub fn own(&mut self, kind: Kind, stamp: Micros, payload: &[u8]) {
        self.close();
        let start = self.begin(kind, stamp);
        self.frames.extend_from_slice(payload);
        self.chain.append(&mut self.frames, start, kind, stamp, self.synced);
    }

    /// Adds an append: to the open frame, or as a frame of its own.
    pub fn append(&mut self, append: Append<T>, stamp: Micros) {
        let Append { kind, bytes, companion } = append;
        if kind != Kind::Updates || self.open.is_none() {
            self.close();
            let start = self.begin(kind, stamp);
            self.open = Some((start, stamp));
        }
        self.frames.extend_from_slice(&bytes);
        self.appends += 1;
        let epoch = self.epochs.last_mut().expect("`begin` has pushed it");
        epoch.companions.push(companion);
        if kind != Kind::Updates {
            self.close();
        }
    }

    /// Completes the open frame.
    pub fn close(&mut self) {
        if let Some((start, stamp)) = self.open.take() {
            let kind = self.epochs.last().expect("an open frame has an epoch").kind;
            self.chain.append(&mut self.frames, start, kind, stamp, self.synced);
        }
    }

    /// Empties it, written or not: the next one follows `chain`.
    pub fn reset(&mut self, chain: Chain) {
        self.chain = chain;
        self.frames.clear();
        self.epochs.clear();
        (self.appends, self.stamp, self.open) = (0, None, None);
    }

    fn begin(&mut self, kind: Kind, stamp: Micros) -> usize {
        let start = self.frames.len();
        self.frames.resize(start + HEAD_BYTES, 0);
        if kind != Kind::Seal {
            let (epoch, lsn) = (self.chain.position.epoch + 1, self.chain.position.lsn + 1);
            self.epochs.push(Durable { epoch, lsn, stamp, kind, companions: Vec::new() });
        }
        start
    }
}
