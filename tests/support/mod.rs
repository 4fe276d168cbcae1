//! What the scenarios share: the real binary, the calls a client makes, disks that lose their power, documents whose
//! examples are run, and the auditor that knows what every answer must be.

pub mod api;
pub mod audit;
#[cfg(feature = "seeded-bugs")]
pub mod clock;
pub mod disk;
pub mod documents;
pub mod history;
pub mod ledger;
pub mod postgres;
pub mod python;
pub mod server;
pub mod stripe;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use postgres::until;

/// The key of the demo business in tests that do not read it from the data directory.
pub const KEY: &str = "tk_live_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

/// A secret key of the service.
pub const SECRET_KEY: &str = "8f1d3c5b7a9e02468ace13579bdf0f1e2d3c4b5a69788796a5b4c3d2e1f00718";

/// `short`, or `long` where the tests may take their time (`TRACKTAGS_TEST_FULL`).
pub fn rounds<T>(short: T, long: T) -> T {
    if std::env::var_os("TRACKTAGS_TEST_FULL").is_some() { long } else { short }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a file below the folder holds these bytes.
pub fn is_kept(folder: &Path, bytes: &[u8]) -> bool {
    !kept_in(folder, bytes).is_empty()
}

/// The files below the folder that hold these bytes.
pub fn kept_in(folder: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a readable folder").flatten();
    let kept = entries.flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return kept_in(&path, bytes);
        }
        let content = std::fs::read(&path).unwrap_or_default();
        // What is prepared for later frames are zeros.
        let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let is_there = content[..end].windows(bytes.len()).any(|window| window == bytes);
        if is_there { vec![path] } else { Vec::new() }
    });
    kept.collect()
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>): one seed gives one run of choices.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// The seed of `TRACKTAGS_TEST_SEED`, else one from the clock. Printed, so that a failure can be tried again.
    pub fn seeded(test: &str) -> Random {
        Random::seeded_else(test, None)
    }

    /// The same, with this seed instead of one from the clock.
    pub fn seeded_else(test: &str, seed: Option<u64>) -> Random {
        let given = std::env::var("TRACKTAGS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let seed = given.or(seed).unwrap_or(clock);
        println!("{test}: TRACKTAGS_TEST_SEED={seed}");
        Random(seed)
    }

    /// Another run of choices.
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }

    /// The run of choices of that name, whatever was chosen before.
    #[cfg(feature = "seeded-bugs")]
    pub fn named(&self, name: u64) -> Random {
        let mut named = Random(self.0 ^ name.wrapping_mul(0x2545_f491_4f6c_dd1d));
        named.fork()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `[0, bound)`; `bound` is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A time in `[least, most)`, in milliseconds.
    pub fn millis(&mut self, least: usize, most: usize) -> Duration {
        Duration::from_millis((least + self.below(most - least)) as u64)
    }
}
