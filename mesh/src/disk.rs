//! What a node remembers between runs: its incarnation and the roster it knew.
//!
//! Both are small files of this node's own folder, replaced as a whole: written beside, synced,
//! renamed, and the folder synced. The incarnation is on disk before anything is signed with it, so a
//! node that dies at any moment comes back with a higher one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use openfang_ofp::roster::{Crypto, Known};

use crate::StartError;

/// A stored roster larger than this is not ours: twice what a roster may hold.
const ROSTER_BYTES_MAX: u64 = 128 << 20;

/// The folder and its files.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    dir: PathBuf,
}

impl Disk {
    /// Takes the folder, made when missing.
    pub(crate) fn open(dir: &Path) -> Result<Self, StartError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| state_error(dir, source))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Counts the incarnation up, and returns it once it is safely stored.
    pub(crate) fn next_incarnation(&self) -> Result<u64, StartError> {
        let path = self.dir.join("incarnation");
        let last = match fs::read_to_string(&path) {
            Ok(text) => text
                .trim()
                .parse::<u64>()
                .map_err(|_not_a_number| StartError::Incarnation { path: path.clone() })?,
            Err(why) if why.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(state_error(&path, source)),
        };
        let next = last.saturating_add(1);
        self.store_incarnation(next)
            .map_err(|source| state_error(&path, source))?;
        Ok(next)
    }

    /// Stores an incarnation the roster has jumped to.
    pub(crate) fn store_incarnation(&self, incarnation: u64) -> io::Result<()> {
        self.replace("incarnation", format!("{incarnation}\n").as_bytes())
    }

    /// Reads what the roster knew. What is damaged is left out and logged: it is learnt again from any
    /// peer, and a node must not stay down for it.
    pub(crate) fn load_known(&self, crypto: &dyn Crypto) -> Known {
        let path = self.dir.join("roster");
        let known = match read_bounded(&path) {
            Ok(Some(bytes)) => Known::decode(&bytes, crypto).map_err(|why| why.to_string()),
            Ok(None) => Ok(Known::default()),
            Err(why) => Err(why.to_string()),
        };
        known.unwrap_or_else(|why| {
            tracing::warn!(file = %path.display(), error = %why, "the stored roster is not used");
            Known::default()
        })
    }

    /// Replaces what the roster knew.
    pub(crate) fn store_known(&self, known: &Known) -> io::Result<()> {
        self.replace("roster", &known.encode())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = self.dir.join(format!("{name}.new"));
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, self.dir.join(name))?;
        File::open(&self.dir)?.sync_all()
    }
}

fn state_error(path: &Path, source: io::Error) -> StartError {
    StartError::State {
        path: path.to_owned(),
        source,
    }
}

fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > ROSTER_BYTES_MAX => Err(io::Error::other("it is too large")),
        Ok(_) => fs::read(path).map(Some),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openfang_ofp::roster::Ed25519;

    #[test]
    fn the_incarnation_rises_with_every_start_and_a_damaged_one_is_not_guessed() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(dir.path()).expect("opened");
        assert_eq!(disk.next_incarnation().expect("stored"), 1);
        assert_eq!(disk.next_incarnation().expect("stored"), 2);
        disk.store_incarnation(40).expect("stored");
        assert_eq!(disk.next_incarnation().expect("stored"), 41);
        fs::write(dir.path().join("incarnation"), "x").expect("written");
        assert!(matches!(
            disk.next_incarnation(),
            Err(StartError::Incarnation { .. })
        ));
    }

    #[test]
    fn a_missing_or_foreign_roster_is_an_empty_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(dir.path()).expect("opened");
        let crypto = Ed25519(openfang_id::NodeSeed::from_bytes([1; 32]).keys().identity);
        assert_eq!(disk.load_known(&crypto), Known::default());
        fs::write(dir.path().join("roster"), b"something else").expect("written");
        assert_eq!(disk.load_known(&crypto), Known::default());
        disk.store_known(&Known::default()).expect("stored");
        assert_eq!(disk.load_known(&crypto), Known::default());
    }
}
