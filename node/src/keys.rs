//! The seed of a node's keys, and the file it is kept in.
//!
//! One line, `ofs1_` and the base32 of 32 bytes and a checksum, so that a cut-off or mistyped file
//! is noticed before it becomes another identity. The file is made once and never overwritten.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE32_NOPAD;
use openfang_id::NodeSeed;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::files;

const PREFIX: &str = "ofs1_";
/// The part of the SHA-256 of prefix and seed that is written, in bytes.
const CHECKSUM_BYTES: usize = 4;
/// A key file is one comment and one line; more is another file.
const FILE_BYTES_MAX: u64 = 4096;
const COMMENT: &str =
    "# The identity of this node. Keep a copy in a safe place, and give it to no other node.\n";

/// Why a key file cannot be used. Never holds what is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is none.
    #[error("{path}: this node has no key yet\n    mend: openfang init --quick")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There is none, and there was one.
    #[error(
        "{path} is gone, and with it the identity of this node: its audit log is still here\n    mend: put the copy that you keep of node.key back; without one this machine can only be another node: move {} away, then: openfang init --quick",
        home_of(path).display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("{path}: {why}\n    mend: {}", files::mend(path, why.kind()))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// Others can read it.
    #[error(
        "{path}: holds the key of this node and can be read by other users (mode {mode:04o})\n    mend: chmod 600 {path}"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What it holds is no key.
    #[error(
        "{path}: damaged: its checksum is wrong\n    mend: put the copy you keep of it back; with a new key this would be another node"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the key file of a node.
///
/// # Errors
/// When it is missing, readable by others, or damaged.
pub fn load(path: &Path) -> Result<NodeSeed, KeyFileError> {
    let io = |why: io::Error| {
        let path = path.to_owned();
        if why.kind() != io::ErrorKind::NotFound {
            KeyFileError::Io { path, why }
        } else if was_there(&path) {
            KeyFileError::Gone { path }
        } else {
            KeyFileError::Missing { path }
        }
    };
    if let Some(mode) = files::exposed(path).map_err(io)? {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let damaged = || KeyFileError::Damaged {
        path: path.to_owned(),
    };
    if std::fs::metadata(path).map_err(io)?.len() > FILE_BYTES_MAX {
        return Err(damaged());
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(io)?);
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next().and_then(decode), lines.next()) {
        (Some(seed), None) => Ok(seed),
        (_damaged, _more) => Err(damaged()),
    }
}

/// Writes the key file of a new node. One that exists stays as it is.
///
/// # Errors
/// When it exists ([`io::ErrorKind::AlreadyExists`]) or cannot be written, or there was another one and its
/// audit log is still there.
pub fn create(path: &Path, seed: &NodeSeed) -> Result<(), KeyFileError> {
    if !path.exists() && was_there(path) {
        return Err(KeyFileError::Gone {
            path: path.to_owned(),
        });
    }
    let line = encode(seed);
    let text = Zeroizing::new(format!("{COMMENT}{}\n", line.as_str()));
    let failed = |why| KeyFileError::Io {
        path: path.to_owned(),
        why,
    };
    files::create(path, text.as_bytes()).map_err(failed)?;
    // A key without this mark may have signed before.
    match files::create(&path.with_file_name(EPOCH_FILE), UNUSED_KEY) {
        Ok(()) => Ok(()),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(why) => Err(failed(why)),
    }
}

/// Tells whether a key was used here that is not there any more: its audit log is left, or the number of it.
fn was_there(path: &Path) -> bool {
    let number = std::fs::read(path.with_file_name(EPOCH_FILE));
    let used = number.is_ok_and(|number| number != UNUSED_KEY);
    let log = std::fs::metadata(path.with_file_name(LOG_FILE));
    used || log.is_ok_and(|log| log.len() > 0)
}

fn home_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// The usual file of the audit log, beside the key.
const LOG_FILE: &str = "audit.jsonl";
/// The file of the number of the audit log, beside the key.
const EPOCH_FILE: &str = "audit.epoch";
/// What it holds before there is a log: the key is new.
const UNUSED_KEY: &[u8] = b"0\n";

fn checksum(seed: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Sha256::new()
        .chain_update(PREFIX)
        .chain_update(seed)
        .finalize();
    let mut out = [0; CHECKSUM_BYTES];
    out.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    out
}

fn encode(seed: &NodeSeed) -> Zeroizing<String> {
    let mut payload = Zeroizing::new([0; 32 + CHECKSUM_BYTES]);
    payload[..32].copy_from_slice(seed.as_bytes());
    payload[32..].copy_from_slice(&checksum(seed.as_bytes()));
    let upper = Zeroizing::new(BASE32_NOPAD.encode(payload.as_slice()));
    let lower = Zeroizing::new(upper.to_ascii_lowercase());
    Zeroizing::new(format!("{PREFIX}{}", lower.as_str()))
}

fn decode(line: &str) -> Option<NodeSeed> {
    let encoded = Zeroizing::new(line.strip_prefix(PREFIX)?.to_ascii_uppercase());
    let payload = Zeroizing::new(BASE32_NOPAD.decode(encoded.as_bytes()).ok()?);
    let (seed, sum) = payload.split_at_checked(32)?;
    let seed = Zeroizing::new(<[u8; 32]>::try_from(seed).ok()?);
    (checksum(seed.as_slice()) == sum).then(|| NodeSeed::from_bytes(*seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_file_is_read_back_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.key");
        assert!(matches!(load(&path), Err(KeyFileError::Missing { .. })));
        let seed = NodeSeed::from_bytes([7; 32]);
        create(&path, &seed).expect("created");
        assert_eq!(load(&path).expect("read").as_bytes(), seed.as_bytes());
        // A key that was used and is gone is not made anew: that would be another node.
        std::fs::rename(&path, folder.path().join("kept")).expect("moved");
        assert!(matches!(load(&path), Err(KeyFileError::Missing { .. })));
        for (name, text) in [("audit.epoch", "1\n"), ("audit.jsonl", "{}\n")] {
            let there = folder.path().join(name);
            let before = std::fs::read(&there);
            std::fs::write(&there, text).expect("written");
            let gone = load(&path).expect_err("gone");
            let shown = gone.to_string();
            assert!(matches!(gone, KeyFileError::Gone { .. }), "{name}");
            assert!(shown.contains("node.key back"), "{shown}");
            let made = create(&path, &seed).expect_err("another node");
            assert!(matches!(made, KeyFileError::Gone { .. }) && !path.exists());
            match before {
                Ok(before) => std::fs::write(&there, before).expect("written"),
                Err(_none) => std::fs::remove_file(&there).expect("removed"),
            }
        }
        std::fs::rename(folder.path().join("kept"), &path).expect("moved");
        let other = NodeSeed::from_bytes([8; 32]);
        assert!(matches!(
            create(&path, &other),
            Err(KeyFileError::Io { why, .. }) if why.kind() == io::ErrorKind::AlreadyExists
        ));
        assert_eq!(load(&path).expect("read").as_bytes(), seed.as_bytes());
    }

    #[test]
    fn a_key_file_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.key");
        create(&path, &NodeSeed::from_bytes([7; 32])).expect("created");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
        let shown = load(&path).expect_err("exposed").to_string();
        assert!(
            shown.ends_with(&format!("mend: chmod 600 {}", path.display())),
            "{shown}"
        );
    }

    #[test]
    fn every_damage_is_noticed_and_nothing_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let line = encode(&NodeSeed::from_bytes([7; 32]));
        for at in 0..line.len() {
            let mut bytes = line.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'q' { b'r' } else { b'q' };
            let path = folder.path().join(format!("{at}"));
            files::create(&path, &bytes).expect("created");
            let shown = load(&path).expect_err("damaged").to_string();
            assert!(!shown.contains(&line[5..20]), "{shown}");
        }
        let path = folder.path().join("cut");
        files::create(&path, &line.as_bytes()[..20]).expect("created");
        assert!(matches!(load(&path), Err(KeyFileError::Damaged { .. })));
    }
}
