//! What a node must not forget about its log before it has found out: a word in a file of its home.
//!
//! A process may end at any moment between finding that something is missing and having it again. The
//! next start would find a log that looks whole. So the doubt is on the disk before anything else is
//! done, and is removed when the log is released.

use std::io;

use crate::files;
use crate::home::Home;

use super::Found;

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The log was gone.
    Gone,
    /// Its floor was.
    NoFloor,
    /// Its files are not those that this node wrote.
    Moved,
    /// Peers hold a head that it has signed and does not lead to.
    Contradicted,
    /// Entries that are missing here are about to come back: the log was put back to an earlier state,
    /// and with it what this node has cosigned. The keys it cosigns with are still to be retired.
    RolledBack,
    /// They are retired.
    Retired,
}

/// The longest word is shorter.
const WORD_BYTES_MAX: u64 = 64;

const WORDS: [(Mark, &str); 6] = [
    (Mark::Gone, "gone"),
    (Mark::NoFloor, "no floor"),
    (Mark::Moved, "moved"),
    (Mark::Contradicted, "contradicted"),
    (Mark::RolledBack, "rolled back"),
    (Mark::Retired, "retired"),
];

impl Mark {
    /// Reads what is remembered. What cannot be understood counts for the worst.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(crate) fn load(home: &Home) -> io::Result<Option<Self>> {
        let bytes = match files::read_plain(&home.audit_doubt(), WORD_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(why),
        };
        let text = String::from_utf8_lossy(&bytes);
        let known = WORDS.iter().find(|(_, word)| *word == text.trim_end());
        Ok(Some(known.map_or(Self::RolledBack, |(mark, _)| *mark)))
    }

    /// Writes it durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn store(self, home: &Home) -> io::Result<()> {
        let known = WORDS.iter().find(|(mark, _)| *mark == self);
        let word = known.map_or("", |(_, word)| *word);
        files::replace(&home.audit_doubt(), format!("{word}\n").as_bytes())
    }

    /// Forgets what was remembered.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(crate) fn clear(home: &Home) -> io::Result<()> {
        files::remove(&home.audit_doubt())
    }

    /// Returns what a start has found, when this is remembered of the one before.
    pub(crate) fn found(mark: Option<Self>, now: Found) -> Found {
        match (now, mark) {
            (Found::Whole, Some(Self::Gone)) => Found::Gone,
            (Found::Whole, Some(Self::NoFloor)) => Found::NoFloor,
            // Whoever contradicts it may be away now: everybody is waited for.
            (Found::Whole, Some(Self::Moved | Self::Contradicted)) => Found::Moved,
            (Found::Whole, Some(Self::RolledBack | Self::Retired)) => Found::Back,
            (
                Found::Whole
                | Found::New
                | Found::Gone
                | Found::NoFloor
                | Found::Moved
                | Found::Back,
                _,
            ) => now,
        }
    }

    /// Returns what is to be remembered of what was found.
    pub(crate) fn of(found: Found) -> Option<Self> {
        match found {
            Found::Gone => Some(Self::Gone),
            Found::NoFloor => Some(Self::NoFloor),
            Found::Moved => Some(Self::Moved),
            Found::Back => Some(Self::Retired),
            Found::Whole | Found::New => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_back_and_what_cannot_be_read_is_the_worst() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        assert_eq!(Mark::load(&home).expect("nothing"), None);
        for (mark, _) in WORDS {
            mark.store(&home).expect("written");
            assert_eq!(Mark::load(&home).expect("read"), Some(mark));
        }
        for damaged in [b"".as_slice(), b"x\n", b"\xff"] {
            std::fs::write(home.audit_doubt(), damaged).expect("written");
            assert_eq!(Mark::load(&home).expect("read"), Some(Mark::RolledBack));
        }
        Mark::clear(&home).expect("removed");
        assert_eq!(Mark::load(&home).expect("nothing"), None);
        Mark::clear(&home).expect("it is not there");
    }

    #[test]
    fn a_log_that_looks_whole_is_as_doubtful_as_it_was() {
        for found in [Found::Gone, Found::NoFloor, Found::Moved, Found::Back] {
            let mark = Mark::of(found);
            assert!(mark.is_some());
            assert_eq!(Mark::found(mark, Found::Whole), found);
            assert_eq!(Mark::found(mark, Found::Gone), Found::Gone);
        }
        assert_eq!(
            Mark::found(Some(Mark::RolledBack), Found::Whole),
            Found::Back
        );
        assert_eq!(
            Mark::found(Some(Mark::Contradicted), Found::Whole),
            Found::Moved
        );
        assert_eq!(Mark::found(None, Found::Whole), Found::Whole);
        assert_eq!((Mark::of(Found::Whole), Mark::of(Found::New)), (None, None));
    }
}
