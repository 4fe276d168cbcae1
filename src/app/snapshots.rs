//! When snapshots are taken: every `--snapshot-interval`, if anything was journaled, and earlier when so much has been
//! journaled that a start would take long. The one at the end is the app's.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::control::Control;
use crate::engine::{self, Shared, Ticket};
use crate::journal::Journal;

/// Updates behind the last snapshot that make the next one due: a start applies some millions a second.
const UPDATES_MAX: u64 = 20_000_000;
/// How often the thread looks.
const LOOK: Duration = Duration::from_secs(1);

/// The thread that takes them.
pub(super) struct Snapshots {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Snapshots {
    pub(super) fn start(
        interval: Duration,
        journal: Journal<Ticket>,
        control: Control,
        shared: Arc<Shared>,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("snapshots".into()).spawn(move || {
            let (mut waited, mut last_lsn, mut last_updates) = (Duration::ZERO, 0, 0);
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) {
                waited += LOOK;
                let (lsn, updates) = (journal.stats().position.lsn, shared.updates());
                let due = waited >= interval || updates - last_updates >= UPDATES_MAX;
                if !due || lsn == last_lsn {
                    continue;
                }
                (waited, last_lsn, last_updates) = (Duration::ZERO, lsn, updates);
                match engine::take_snapshot(&journal, &control, &shared) {
                    Ok(()) => tracing::info!(lsn, "snapshot taken"),
                    Err(error) => tracing::warn!(%error, "no snapshot was taken: the journal is kept"),
                }
            }
        })?;
        Ok(Snapshots { stop, thread })
    }

    /// Ends the thread when a snapshot under way is finished.
    pub(super) fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}
