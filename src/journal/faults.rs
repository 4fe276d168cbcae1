//! Faults that the crash tests must catch: with the feature `seeded-bugs`, `TRACKTAGS_SEEDED_BUG` chooses one at run
//! time. Without the feature every question here is answered `false` at compile time.

#[cfg(feature = "seeded-bugs")]
fn chosen(bug: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("TRACKTAGS_SEEDED_BUG").ok()).as_deref() == Some(bug)
}

#[cfg(not(feature = "seeded-bugs"))]
const fn chosen(_: &str) -> bool {
    false
}

/// `ack-before-fsync`: groups are told durable after the write and never synced.
pub(super) fn acknowledge_before_fsync() -> bool {
    chosen("ack-before-fsync")
}

/// `rename-without-dir-fsync`: a power cut may lose a segment together with its new name.
pub(super) fn skip_directory_fsync() -> bool {
    chosen("rename-without-dir-fsync")
}
