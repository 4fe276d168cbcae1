//! The keeper prepares files ahead, on a thread of its own, so that a roll does not wait for zeros to be written: a
//! *spare* for the next segment, asked for when the current one is half full, and a *reserve*, kept aside for the day
//! when the disk is full: then time frames and the seal go on in it, and a snapshot may have its room.
//!
//! ```text
//! want ─▶ Wanted ─▶ reserve, if there is none ─▶ spare ─▶ Ready ─▶ take
//!                        └── no room: Failed, appends are refused, again every RETRY until there is room
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::error::{JournalError, io_error};
use super::segment::zeroed;

const SPARE: &str = "spare.tmp";
const RESERVE_UNFINISHED: &str = "reserve.tmp";
const RESERVE: &str = "reserve";
const RETRY: Duration = Duration::from_millis(500);

/// A file of zeros under a temporary name.
pub(super) struct Spare {
    pub path: PathBuf,
    pub file: File,
    bytes: u64,
}

enum Stock {
    /// Nothing is asked for; the reserve may still be missing.
    Idle,
    Wanted(u64),
    Ready(Spare),
    Failed(u64, JournalError),
    Stopped,
}

struct Shared {
    dir: PathBuf,
    reserve_bytes: u64,
    stock: Mutex<Stock>,
    changed: Condvar,
    /// Set while an append has failed for want of a segment and there still is none.
    disk_full: AtomicBool,
}

/// Handle to the keeper's thread, which ends with it.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Begins by making the reserve.
    pub fn start(dir: &Path, reserve_bytes: u64) -> std::io::Result<Keeper> {
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            reserve_bytes,
            stock: Mutex::new(Stock::Idle),
            changed: Condvar::new(),
            disk_full: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("journal-keeper".into()).spawn(move || theirs.run())?;
        Ok(Keeper { shared, thread: Some(thread) })
    }

    /// Appends that do not fit into the current segment are being refused for want of room.
    pub fn disk_full(&self) -> bool {
        self.shared.disk_full.load(Ordering::Relaxed)
    }

    /// Asks for a spare of this size, unless there is one.
    pub fn want(&self, bytes: u64) {
        let mut stock = self.shared.lock();
        if matches!(*stock, Stock::Idle) {
            *stock = Stock::Wanted(bytes);
            self.shared.changed.notify_all();
        }
    }

    /// Takes a spare of at least this size, waiting while it is being made. Without room for it appends are refused
    /// until there is.
    pub fn take(&self, bytes: u64) -> Result<Spare, JournalError> {
        let mut stock = self.shared.lock();
        let mut tried = false;
        loop {
            match std::mem::replace(&mut *stock, Stock::Idle) {
                Stock::Ready(spare) if spare.bytes >= bytes => return Ok(spare),
                Stock::Failed(wanted, error) if wanted >= bytes || tried => {
                    if !self.shared.disk_full.swap(true, Ordering::Relaxed) {
                        tracing::error!(%error, "no room for another segment: appends are refused until there is");
                    }
                    *stock = Stock::Failed(wanted, error.clone());
                    return Err(error);
                }
                Stock::Wanted(wanted) if wanted >= bytes => *stock = Stock::Wanted(wanted),
                Stock::Stopped => {
                    *stock = Stock::Stopped;
                    return Err(JournalError::DiskFull);
                }
                _ => {
                    tried = true;
                    *stock = Stock::Wanted(bytes);
                    self.shared.changed.notify_all();
                }
            }
            stock = self.shared.changed.wait(stock).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the reserve for a segment.
    pub fn take_reserve(&self) -> Option<Spare> {
        let _stock = self.shared.lock();
        let path = self.shared.dir.join(RESERVE);
        let file = File::options().read(true).write(true).open(&path).ok()?;
        let bytes = file.metadata().ok()?.len();
        Some(Spare { path, file, bytes })
    }

    /// Gives the room of the reserve to somebody else; whether there was one.
    pub fn release_reserve(&self) -> bool {
        let _stock = self.shared.lock();
        remove_reserve(&self.shared.dir)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        *self.shared.lock() = Stock::Stopped;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the keeper has been printed; there is nobody left whom it concerns.
            let _ = thread.join();
        }
    }
}

/// Removes what a crash has left unfinished.
pub(super) fn clear_unfinished(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Removes the reserve while no keeper runs; whether there was one.
pub(super) fn remove_reserve(dir: &Path) -> bool {
    fs::remove_file(dir.join(RESERVE)).is_ok()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        // Should it fail, the next spare asks again.
        let _ = self.make_reserve();
        let mut stock = self.lock();
        loop {
            let bytes = match *stock {
                Stock::Stopped => return,
                Stock::Wanted(bytes) => bytes,
                Stock::Failed(bytes, _) => {
                    let waited = self.changed.wait_timeout(stock, RETRY);
                    stock = waited.unwrap_or_else(PoisonError::into_inner).0;
                    if !matches!(*stock, Stock::Failed(..)) {
                        continue;
                    }
                    bytes
                }
                Stock::Idle | Stock::Ready(_) => {
                    stock = self.changed.wait(stock).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            drop(stock);
            let made = self.make_reserve().and_then(|()| self.make_spare(bytes));
            stock = self.lock();
            self.put(&mut stock, bytes, made);
        }
    }

    fn put(&self, stock: &mut Stock, bytes: u64, made: Result<Spare, JournalError>) {
        *stock = match (&*stock, made) {
            (Stock::Stopped, _) => return,
            (_, Ok(spare)) => {
                if self.disk_full.swap(false, Ordering::Relaxed) {
                    tracing::info!("there is room for the journal again");
                }
                Stock::Ready(spare)
            }
            (_, Err(error)) => Stock::Failed(bytes, error),
        };
        self.changed.notify_all();
    }

    fn make_reserve(&self) -> Result<(), JournalError> {
        let path = self.dir.join(RESERVE);
        if path.exists() {
            return Ok(());
        }
        let unfinished = self.dir.join(RESERVE_UNFINISHED);
        zeroed(&unfinished, self.reserve_bytes).map_err(io_error("create", &unfinished))?;
        fs::rename(&unfinished, &path).map_err(io_error("rename", &unfinished))
    }

    fn make_spare(&self, bytes: u64) -> Result<Spare, JournalError> {
        let path = self.dir.join(SPARE);
        let file = zeroed(&path, bytes).map_err(io_error("create", &path))?;
        Ok(Spare { path, file, bytes })
    }
}
