//! Snapshots.
use super::{JournalError, OpenError, Position};

/// Writes one snapshot under a temporary name; dropped unfinished it leaves nothing.
pub struct SnapshotWriter {}

impl SnapshotWriter {
    /// Adds a section; `kind` is the caller's, 255 is taken. At most 4 GiB.
    pub fn section(&mut self, kind: u8, bytes: &[u8]) -> Result<(), JournalError> {
        let _ = (kind, bytes);
        Ok(())
    }

    /// Makes it durable and drops all but the last two, and the segments that nobody needs any more.
    pub fn finish(self) -> Result<(), JournalError> {
        Ok(())
    }
}

/// Reads one snapshot.
pub struct SnapshotReader {
    position: Position,
}

impl SnapshotReader {
    /// Behind which frame the state was.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next section in the order of writing; none at the end.
    pub fn next_section(&mut self) -> Result<Option<(u8, &[u8])>, OpenError> {
        Ok(None)
    }
}
