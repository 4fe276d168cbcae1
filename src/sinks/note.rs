//! What is noted beside the journal before an emission is written, and behind it: how far the store had come, and which
//! emission is begun.
//!
//! A store that cannot be reached at the next start cannot be asked for its progress; the note then says what it may be:
//! what it was, or that plus the emission that was begun, in whole or in part. Without it differences that the store has
//! merged already could be merged again.
//!
//! One small JSON file, replaced as a whole: temporary name, fsync, rename, fsync of the directory. A note that cannot be
//! read is as none; what was noted is then checked against the store when it answers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use dataflows::types::{Epoch, SeriesId, Span};
use serde::{Deserialize, Serialize};

use crate::store::Progress;

/// How far a store may have come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    definitions: Epoch,
    classes: BTreeMap<String, (Epoch, u32)>,
    whole: BTreeMap<String, Epoch>,
    begun: Option<(String, Epoch)>,
}

impl Noted {
    /// `progress`, and an emission that is begun.
    pub fn new(progress: &Progress, begun: Option<(Span, Epoch)>) -> Noted {
        let name = |class: Span| class.text().to_owned();
        Noted {
            definitions: progress.definitions,
            classes: progress
                .classes
                .iter()
                .map(|(&class, &(upper, through))| (name(class), (upper, through.0)))
                .collect(),
            whole: progress.whole.iter().map(|(&class, &upper)| (name(class), upper)).collect(),
            begun: begun.map(|(class, upper)| (name(class), upper)),
        }
    }

    /// What was there for certain.
    pub fn progress(&self) -> Progress {
        let class = |name: &String| Span::FLUSH.into_iter().find(|span| span.text() == name);
        let reached = |(name, &(upper, through))| Some((class(name)?, (upper, SeriesId(through))));
        Progress {
            journal_id: None,
            definitions: self.definitions,
            classes: self.classes.iter().filter_map(reached).collect(),
            whole: self.whole.iter().filter_map(|(name, &upper)| Some((class(name)?, upper))).collect(),
        }
    }

    /// What may be there beside.
    pub fn begun(&self) -> Option<(Span, Epoch)> {
        let (name, upper) = self.begun.as_ref()?;
        Some((Span::FLUSH.into_iter().find(|span| span.text() == name)?, *upper))
    }

    /// Whether a store that says `progress` has lost what was in it for certain.
    pub fn is_beyond(&self, progress: &Progress) -> bool {
        let noted = self.progress();
        let is_behind = |(class, done): (&Span, &(Epoch, SeriesId))| {
            progress.classes.get(class).is_none_or(|now| now < done)
        };
        noted.definitions > progress.definitions || noted.classes.iter().any(is_behind)
    }

    /// Whether a store that says `progress` can be the one that was noted.
    pub fn allows(&self, progress: &Progress) -> bool {
        let noted = self.progress();
        let begun = self.begun();
        let classes = noted.classes.keys().chain(progress.classes.keys());
        noted.definitions <= progress.definitions
            && classes.into_iter().all(|class| {
                let now = progress.classes.get(class);
                now == noted.classes.get(class) || begun == now.map(|(upper, _)| (*class, *upper))
            })
    }
}

/// Where it is noted.
#[derive(Clone, Debug)]
pub struct Note(PathBuf);

impl Note {
    /// In this file.
    pub fn at(path: PathBuf) -> Note {
        Note(path)
    }

    /// What was noted last.
    pub fn read(&self) -> Noted {
        let text = fs::read(&self.0).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(super) fn write(&self, noted: &Noted) -> io::Result<()> {
        let temporary = self.0.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(noted)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.0)?;
        self.0.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ALL_SERIES;

    #[test]
    fn a_store_is_where_it_was_or_in_the_emission_that_was_begun() {
        let at = |upper, through, definitions| Progress {
            definitions,
            classes: [(Span::S15, (upper, through))].into(),
            whole: [(Span::S15, 5)].into(),
            ..Progress::default()
        };
        let noted = Noted::new(&at(5, ALL_SERIES, 3), Some((Span::S15, 9)));
        for allowed in
            [at(5, ALL_SERIES, 3), at(5, ALL_SERIES, 4), at(9, SeriesId(2), 3), at(9, ALL_SERIES, 8)]
        {
            assert!(noted.allows(&allowed) && !noted.is_beyond(&allowed), "{allowed:?}");
        }
        let mut other_class = at(5, ALL_SERIES, 3);
        other_class.classes.insert(Span::S30, (9, ALL_SERIES));
        for (other, went_back) in [
            (at(4, ALL_SERIES, 3), true),
            (at(5, ALL_SERIES, 2), true),
            (Progress::default(), true),
            (at(10, ALL_SERIES, 3), false),
            (other_class, false),
        ] {
            assert!(!noted.allows(&other), "{other:?}");
            assert_eq!(noted.is_beyond(&other), went_back, "{other:?}");
        }
    }

    #[test]
    fn what_was_noted_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let note = Note::at(directory.path().join("history.note"));
        assert_eq!(note.read(), Noted::default());
        let classes = [(Span::S1, (7, SeriesId(4)))].into();
        let progress = Progress { definitions: 2, classes, whole: [(Span::S1, 6)].into(), journal_id: None };
        let noted = Noted::new(&progress, Some((Span::S1, 7)));
        note.write(&noted).expect("written");
        assert_eq!(
            (note.read(), note.read().progress(), note.read().begun()),
            (noted, progress, Some((Span::S1, 7)))
        );
    }
}
