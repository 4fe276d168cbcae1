//! Opening the store: which one, how far it has come, and what an empty journal starts from.
//!
//! | journal | store | start |
//! |---|---|---|
//! | any | answers | goes by the store's own progress |
//! | has content | PostgreSQL, silent | goes by what was noted (`sinks::Note`); degraded until it answers |
//! | empty | PostgreSQL, silent | waits `EMPTY_START_PATIENCE`, then gives up: the database may have everything |
//! | empty | PostgreSQL with content | takes it over and starts from it |

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use dataflows::types::SeriesId;

use crate::clock::Clock;
use crate::config::{Config, Secret};
use crate::engine::{Doubt, StoredProgress};
use crate::journal::Recovery;
use crate::sinks::{Note, Noted};
use crate::store::{
    Claim, Content, History, Outbox, PostgresHistory, PostgresStore, Progress, SqliteHistory, SqliteStore,
    Store, StoreError, Target,
};

/// How long a start on an empty journal waits for its database.
const EMPTY_START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a start with a journal waits for an answer.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of the first series of all.
const FIRST_SERIES: SeriesId = SeriesId(1);
/// Between two attempts.
const EMPTY_START_PAUSE: Duration = Duration::from_secs(1);

/// A store, and what the start must know of it.
pub(super) struct Opened {
    pub store: Box<dyn Store>,
    /// One for the delivery of messages, one for who asks about them.
    pub outboxes: [Box<dyn Outbox>; 2],
    pub history: Arc<dyn History>,
    pub stored: StoredProgress,
    /// What the journal, which is empty, starts from.
    pub content: Option<Content>,
    /// Where batches are noted; none for a store that is always at hand.
    pub note: Option<Note>,
    /// What was noted of a store that does not answer.
    pub doubt: Option<Noted>,
}

/// Opens the store of this configuration. Blocking.
pub(super) fn open(config: &Config, recovery: &Recovery, clock: &dyn Clock) -> anyhow::Result<Opened> {
    let journal_id = format!("{:032x}", recovery.journal_id());
    match &config.database_url {
        Some(url) => {
            open_postgres(config, &target(url, &config.database_schema)?, journal_id, recovery, clock)
        }
        None => open_sqlite(config, &journal_id, recovery),
    }
}

/// The database of these options.
pub(super) fn target(Secret(url): &Secret, schema: &str) -> anyhow::Result<Target> {
    Ok(Target::new(url, schema)?)
}

fn open_sqlite(config: &Config, journal_id: &str, recovery: &Recovery) -> anyhow::Result<Opened> {
    let path = config.data_dir.join("history.db");
    let mut store = SqliteStore::open(&path)?;
    let progress = store.progress()?;
    if progress.journal_id.as_ref().is_some_and(|other| other != journal_id) {
        bail!("{} was written from another journal: move it out of the data directory", path.display());
    }
    require_known_epochs(&progress, recovery)?;
    Ok(Opened {
        outboxes: [store.outbox()?, store.outbox()?],
        store: Box::new(store),
        history: Arc::new(SqliteHistory::new(&path)),
        stored: known(progress),
        content: None,
        note: None,
        doubt: None,
    })
}

fn open_postgres(
    config: &Config,
    target: &Target,
    journal_id: String,
    recovery: &Recovery,
    clock: &dyn Clock,
) -> anyhow::Result<Opened> {
    let is_empty = recovery.is_empty()?;
    let claim = Claim { journal_id, take_over: config.take_over, adopt: is_empty };
    let mut store = PostgresStore::new(target.clone(), claim)?;
    let history = PostgresHistory::new(target.clone(), tokio::runtime::Handle::current())?;
    let note = Note::at(config.data_dir.join("history.note"));
    let begun = clock.monotonic();
    let (stored, doubt) = loop {
        let answer = if is_empty { store.progress() } else { store.progress_within(FIRST_ANSWER_TIMEOUT) };
        match answer {
            Ok(progress) => {
                require_known_epochs(&progress, recovery)?;
                let lost = !is_empty && note.read().is_beyond(&progress);
                break (StoredProgress { lost, ..known(progress) }, None);
            }
            Err(error @ (StoreError::Unavailable(_) | StoreError::Ambiguous(_))) if is_empty => {
                if clock.monotonic() - begun > EMPTY_START_PATIENCE {
                    return Err(error).context(
                        "the data directory is empty, so that the start must see the database once: start it first",
                    );
                }
                tracing::warn!(%error, "an empty data directory waits for its database");
                std::thread::sleep(EMPTY_START_PAUSE);
            }
            Err(error @ (StoreError::Unavailable(_) | StoreError::Ambiguous(_))) => {
                tracing::warn!(%error, "started without the database; history waits for it");
                let noted = note.read();
                let doubt = Some(Doubt { begun: noted.begun() });
                break (StoredProgress { doubt, ..known(noted.progress()) }, Some(noted));
            }
            Err(error) => return Err(error.into()),
        }
    };
    let content = match is_empty {
        true => Some(store.content(clock.wall())?)
            .filter(|content| content.next_series > FIRST_SERIES || !content.definitions.is_empty()),
        false => None,
    };
    if !is_empty && stored.is_new() {
        tracing::warn!(
            "the database is new to this data directory: definitions, current values and the last windows are written to it, \
             older history is not"
        );
    } else if stored.lost {
        tracing::warn!(
            "the database has lost batches that were in it: definitions, current values and the last windows are written \
             again, what was lost of older history is not"
        );
    }
    Ok(Opened {
        outboxes: [store.outbox()?, store.outbox()?],
        store: Box::new(store),
        history: Arc::new(history),
        stored,
        content,
        note: Some(note),
        doubt,
    })
}

/// A store that is ahead of the journal has what this journal does not: an older copy of the data directory.
fn require_known_epochs(progress: &Progress, recovery: &Recovery) -> anyhow::Result<()> {
    let last = recovery.position().epoch;
    let classes = progress.classes.values().map(|(upper, _)| *upper);
    let ahead = classes.chain([progress.definitions]).max().filter(|upper| *upper > last);
    match ahead {
        Some(upper) => bail!(
            "the database has batches up to epoch {upper} and the journal ends at epoch {last}: this data directory is an older \
             copy, or has lost its end. Bring back the newer one, or start with an empty --data-dir from what the database has"
        ),
        None => Ok(()),
    }
}

fn known(progress: Progress) -> StoredProgress {
    let Progress { definitions, classes, whole, .. } = progress;
    StoredProgress { definitions, classes, whole, doubt: None, lost: false }
}
