//! What can go wrong in the journal: one variant per thing that a caller can do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// Why an append was not taken: nothing of it is or will be in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rejected {
    /// The queue is at its bound: try again soon.
    #[error("the journal's queue is full")]
    Full,
    /// The journal is closing.
    #[error("the journal is closing")]
    Draining,
    /// No room for another segment: try again when there is.
    #[error("the disk is full")]
    DiskFull,
    /// A write or fsync has failed: the process must end.
    #[error("the journal is poisoned")]
    Poisoned,
}

/// Why a journal that runs could not do something.
#[derive(Clone, Debug, Error)]
pub enum JournalError {
    /// A write or fsync of a segment failed: what the disk holds is unknown. Only a new start can tell.
    #[error("writing {} failed: what is on the disk is unknown, the process must end", .path.display())]
    Poisoned {
        /// The segment.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// No room; whatever was begun has been undone.
    #[error("the disk is full")]
    DiskFull,
    /// Anything else about a file that is not a segment being written.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// The verb: `create`, `write`, `sync`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
}

/// Why a journal could not be opened. The directory has not been changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process: stop that one, or give this one another data directory", .dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A file or directory cannot be read or written.
    #[error("cannot {action} {}: check that it exists and belongs to this user", .path.display())]
    Io {
        /// The verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Bytes that were durable once are not what was written: restore the file from a copy.
    #[error("{segment} is damaged at offset {offset}, lsn {lsn}: {why}; restore the file from a copy")]
    Damaged {
        /// Name of the file.
        segment: String,
        /// Byte offset of the damaged frame or header.
        offset: u64,
        /// Number of the first frame that cannot be read.
        lsn: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// The chain has a hole: restore the file from a copy.
    #[error("the segment with lsn {lsn} is missing next to {beside}; restore the file from a copy")]
    Missing {
        /// Name of the file that needs it.
        beside: String,
        /// First frame that is missing.
        lsn: u64,
    },
    /// Written by a newer version: start that one.
    #[error("{file} has format version {version}, which this program does not know: start a newer one")]
    UnknownVersion {
        /// Name of the file.
        file: String,
        /// The version found.
        version: u32,
    },
    /// Files of two journals in one directory.
    #[error("{file} belongs to another journal: move it out of the directory")]
    Foreign {
        /// Name of the file.
        file: String,
    },
}

/// Attaches verb and path to an error of the system.
pub(super) fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> JournalError + 'a {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalError::DiskFull,
        _ => JournalError::Io { action, path: path.to_owned(), source: Arc::new(source) },
    }
}

/// The same while opening.
pub(super) fn open_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { action, path: path.to_owned(), source }
}
