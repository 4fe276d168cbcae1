//! A clock in a file, which processes that are killed and started share with the test: `TRACKTAGS_TEST_CLOCK` of a build with
//! `seeded-bugs`. It moves when the test says so, and only forward.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// See the header. Times are in microseconds since 1970.
pub struct FileTime {
    path: PathBuf,
    begun_at: i64,
    now: Arc<AtomicI64>,
}

impl FileTime {
    /// One that stands at `begun_at`, in that folder.
    pub fn start(folder: &Path, begun_at: i64) -> FileTime {
        let time = FileTime { path: folder.join("clock"), begun_at, now: Arc::new(AtomicI64::new(begun_at)) };
        time.write(begun_at);
        time
    }

    /// What `TRACKTAGS_TEST_CLOCK` is to be.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("a temporary folder is UTF-8")
    }

    pub fn now(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    /// In whole seconds, for whoever shares it in this process.
    pub fn seconds(&self) -> impl Fn() -> i64 + Send + Sync + 'static {
        let now = self.now.clone();
        move || now.load(Ordering::SeqCst).div_euclid(1_000_000)
    }

    /// It is then.
    pub fn set(&self, at: i64) {
        assert!(at >= self.now(), "time does not go back");
        self.now.store(at, Ordering::SeqCst);
        self.write(at);
    }

    /// Puts a file in the place of the other, so that none is read half written.
    fn write(&self, at: i64) {
        // The machine has been up for an hour.
        let monotonic = at - self.begun_at + 3_600_000_000;
        let next = self.path.with_extension("next");
        fs::write(&next, format!("{at} {monotonic}\n")).expect("a writable folder");
        fs::rename(&next, &self.path).expect("a writable folder");
    }
}
