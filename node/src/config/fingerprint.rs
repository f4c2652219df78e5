//! Whether the configuration is the one of the last start: the audit log tells of every change, by
//! its keys and never by their values.

use std::collections::BTreeMap;
use std::io;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::home::Home;

/// The hash of every value, by key. A file of the home keeps that of the last start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    pub(super) fn new(hashes: &BTreeMap<&'static str, [u8; 32]>) -> Self {
        let hashes = hashes.iter();
        Self(
            hashes
                .map(|(name, hash)| ((*name).to_owned(), HEXLOWER.encode(hash)))
                .collect(),
        )
    }

    /// Reads that of the last start; `None` when there was none, or it cannot be read.
    #[must_use]
    pub fn load(home: &Home) -> Option<Self> {
        let text = std::fs::read_to_string(home.fingerprint()).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Keeps this one for the next start.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, home: &Home) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        files::replace(&home.fingerprint(), &text)
    }

    /// Returns the keys whose values differ, in alphabetical order.
    #[must_use]
    pub fn changes<'a>(&'a self, before: &'a Self) -> Vec<&'a str> {
        let names = self.0.keys().chain(before.0.keys());
        let mut changed: Vec<&str> = names
            .filter(|name| self.0.get(*name) != before.0.get(*name))
            .map(String::as_str)
            .collect();
        changed.sort_unstable();
        changed.dedup();
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_changed_and_removed_keys_are_named() {
        let of = |pairs: &[(&'static str, u8)]| {
            Fingerprint::new(
                &pairs
                    .iter()
                    .map(|(name, byte)| (*name, [*byte; 32]))
                    .collect(),
            )
        };
        let before = of(&[("a", 1), ("b", 1), ("c", 1)]);
        let after = of(&[("a", 1), ("b", 2), ("d", 1)]);
        assert_eq!(after.changes(&before), ["b", "c", "d"]);
        assert!(after.changes(&after).is_empty());
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        assert_eq!(Fingerprint::load(&home), None);
        after.save(&home).expect("saved");
        assert_eq!(Fingerprint::load(&home), Some(after));
    }
}
