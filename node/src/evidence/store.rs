//! The files of evidence: `<sha256>.json` in `audit.d/evidence`, one each.
//!
//! A file counts when its name is the hash of its bytes and its bytes prove what they say. Anything
//! else in the folder is left alone, and costs no more than a look: the number of files that are opened
//! is bounded, and so is the length of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use openfang_audit::Hash;
use openfang_audit::evidence::{EVIDENCE_BYTES_MAX, Evidence, file_name};

use crate::files;

/// The most files that are kept: one for each node that is convicted.
pub(super) const FILES_MAX: usize = 1_024;
/// The most files that are opened at the start.
const OPENED_MAX: usize = 4 * FILES_MAX;
/// The most files about one node that count: one is enough.
const FILES_PER_NODE_MAX: usize = 2;
const SUFFIX: &str = ".json";

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) ids: BTreeSet<Hash>,
    pub(super) files: Vec<Vec<u8>>,
}

/// Reads a folder. One that is not there holds nothing.
pub(super) fn load(folder: &Path) -> Kept {
    let mut kept = Kept::default();
    let names = match names(folder) {
        Ok(names) => names,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return kept,
        Err(why) => {
            tracing::error!(folder = %folder.display(), error = %why, "the evidence against other nodes cannot be read");
            return kept;
        }
    };
    let mut rubbish = names.len().saturating_sub(OPENED_MAX);
    let mut accused: BTreeMap<String, usize> = BTreeMap::new();
    for id in names.into_iter().take(OPENED_MAX) {
        let Some(evidence) = read(folder, &id) else {
            rubbish += 1;
            continue;
        };
        let about = accused
            .entry(evidence.accused_name().to_owned())
            .or_default();
        if kept.files.len() >= FILES_MAX || *about >= FILES_PER_NODE_MAX {
            rubbish += 1;
            continue;
        }
        *about += 1;
        kept.ids.insert(id);
        kept.files.push(evidence.to_bytes());
    }
    if rubbish > 0 {
        tracing::warn!(folder = %folder.display(), files = rubbish, "files that are no evidence, or one too many, do not count");
    }
    kept
}

/// Writes a file, durably.
///
/// # Errors
/// When it cannot be written.
pub(super) fn save(folder: &Path, id: &Hash, bytes: &[u8]) -> io::Result<()> {
    files::create_folder(folder)?;
    files::replace(&folder.join(file_name(id)), bytes)
}

/// Returns the hashes that files are named after, in order: the same at every start.
fn names(folder: &Path) -> io::Result<BTreeSet<Hash>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        let id = id.and_then(|hash| hash.parse::<Hash>().ok());
        names.extend(id.filter(|id| *file_name(id) == *name));
        if names.len() > 2 * OPENED_MAX {
            names.pop_last();
        }
    }
    Ok(names)
}

fn read(folder: &Path, id: &Hash) -> Option<Evidence> {
    let path = folder.join(file_name(id));
    // Not a link, a pipe or a device, and not long: before anything is opened.
    let found = fs::symlink_metadata(&path).ok()?;
    let longest = u64::try_from(EVIDENCE_BYTES_MAX).unwrap_or(u64::MAX);
    if !found.is_file() || found.len() > longest {
        return None;
    }
    let evidence = Evidence::open(&fs::read(&path).ok()?).ok()?;
    (evidence.id() == *id).then_some(evidence)
}

#[cfg(test)]
pub(super) mod tests {
    use openfang_audit::note::Verifier;
    use openfang_audit::{Checkpoint, Origin, SignedHead};
    use openfang_id::NodeSeed;

    use super::*;

    /// Evidence that the node of a seed has signed two roots for a size.
    pub(in crate::evidence) fn evidence(byte: u8, size: u64) -> Evidence {
        let keys = NodeSeed::from_bytes([byte; 32]).keys();
        let origin = Origin::of(&keys.node_id(), 1);
        let key = Verifier::new(origin.as_str(), keys.log.verifying_key()).expect("a name");
        let [one, other] = [1, 2].map(|root| {
            let checkpoint = Checkpoint {
                origin: origin.clone(),
                size,
                root: Hash::from_bytes([root; 32]),
            };
            SignedHead::sign(checkpoint, &keys.log)
                .note
                .parse()
                .expect("a note")
        });
        Evidence::equivocation(&key, &one, &other).expect("evidence")
    }

    fn put(folder: &Path, evidence: &Evidence) {
        save(folder, &evidence.id(), &evidence.to_bytes()).expect("written");
    }

    #[test]
    fn what_is_written_is_read_again_and_one_that_is_not_there_holds_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("evidence");
        assert!(load(&at).files.is_empty());
        let evidence = evidence(1, 9);
        put(&at, &evidence);
        put(&at, &evidence);
        let kept = load(&at);
        assert_eq!(kept.files, [evidence.to_bytes()]);
        assert_eq!(kept.ids, BTreeSet::from([evidence.id()]));
    }

    #[test]
    fn rubbish_does_not_count_and_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let good = evidence(1, 9);
        put(at, &good);
        let name = |byte: &str| format!("{}.json", byte.repeat(32));
        let mut forged = good.to_bytes();
        let last = forged.len() / 2;
        forged[last] ^= 1;
        let long = vec![b' '; EVIDENCE_BYTES_MAX + 1];
        for (name, bytes) in [
            ("torn-7-3".to_owned(), &b"{\"seq\":7"[..]),
            (name("ab"), &forged),
            (name("ac"), &good.to_bytes()),
            (name("ad"), &long),
            (name("ae"), b""),
            (name("AF"), &good.to_bytes()),
            ("notes.json".to_owned(), b"{}"),
        ] {
            fs::write(at.join(name), bytes).expect("written");
        }
        fs::create_dir(at.join(name("b0"))).expect("made");
        std::os::unix::fs::symlink("/dev/zero", at.join(name("b1"))).expect("made");
        let before = fs::read_dir(at).expect("listed").count();
        let kept = load(at);
        assert_eq!(kept.files, [good.to_bytes()]);
        assert_eq!(fs::read_dir(at).expect("listed").count(), before);
    }

    #[test]
    fn a_store_full_of_rubbish_is_read_no_further_than_its_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        for number in 0..2 * OPENED_MAX + 10 {
            fs::write(at.join(format!("{number:064x}.json")), b"{}").expect("written");
        }
        assert!(load(at).files.is_empty());
        assert!(names(at).expect("read").len() <= 2 * OPENED_MAX + 1);
    }

    #[test]
    fn of_one_node_two_files_count() {
        let folder = tempfile::tempdir().expect("a folder");
        for size in 1..9 {
            put(folder.path(), &evidence(1, size));
        }
        put(folder.path(), &evidence(2, 1));
        assert_eq!(load(folder.path()).files.len(), FILES_PER_NODE_MAX + 1);
    }
}
