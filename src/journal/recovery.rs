//! Opening.
use std::sync::Arc;

use dataflows::types::{Epoch, Micros};

use super::{Follower, Journal, Kind, Observe, OpenError, Options, Position, SnapshotReader};
use crate::clock::Stamps;

/// A journal that has been opened and is not yet written to.
pub struct Recovery {
    position: Position,
}

/// Locks the directory, finds the newest valid snapshot, checks the chain behind it, truncates a torn tail.
pub fn open(options: Options) -> Result<Recovery, OpenError> {
    let _ = options;
    unimplemented!()
}

impl Recovery {
    /// The journal's own random number, written at its birth.
    pub fn journal_id(&self) -> u128 {
        0
    }

    /// The end of the journal.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The last stamp, for `Stamps::new`; none in a new journal.
    pub fn last_stamp(&self) -> Option<Micros> {
        (self.position.lsn > 0).then_some(self.position.stamp)
    }

    /// Reads the snapshot to start from, if there is one.
    pub fn snapshot(&self) -> Result<Option<SnapshotReader>, OpenError> {
        Ok(None)
    }

    /// Reads what lies behind the snapshot.
    pub fn frames(&self) -> Result<Frames, OpenError> {
        unimplemented!()
    }

    /// Starts the writer thread.
    pub fn start<T: Send + 'static>(
        self,
        stamps: Arc<Stamps>,
        follower: impl Follower<T> + 'static,
        observe: Arc<dyn Observe>,
    ) -> Result<Journal<T>, OpenError> {
        let _ = (stamps, follower, observe);
        unimplemented!()
    }
}

/// A frame that was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its number.
    pub lsn: u64,
    /// Arrival of everything in it; T for `Time`.
    pub stamp: Micros,
    /// What it is.
    pub kind: Kind,
    /// What was appended.
    pub payload: &'a [u8],
}

/// Frames in order, one in memory at a time.
pub struct Frames {}

impl Frames {
    /// The next frame; none at the end of the journal.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, OpenError> {
        Ok(None)
    }
}
