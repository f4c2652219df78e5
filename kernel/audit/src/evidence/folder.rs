//! The files of evidence in a folder, each opened and judged.
//!
//! What lies beside them under names of another form, such as pieces that were cut off from a log, is
//! passed over. How many files are opened is bounded, and so is the length of each.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::{EVIDENCE_BYTES_MAX, Evidence, EvidenceError};

const SUFFIX: &str = ".json";

/// What a folder holds.
#[derive(Debug, Default)]
pub struct Listed {
    /// What proves something, by the names of the files.
    pub valid: Vec<(String, Evidence)>,
    /// Files that prove nothing, and why.
    pub worthless: Vec<(String, Worthless)>,
    /// How many more files there are, which were not looked at.
    pub left_out: usize,
}

/// Why a file proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum Worthless {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It is no evidence.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

/// Opens the files of a folder, at most so many, in the order of their names. A folder that is not there
/// holds nothing.
///
/// # Errors
/// When the folder cannot be listed to its end: what is not listed may be evidence.
pub fn list(folder: &Path, files_max: usize) -> io::Result<Listed> {
    let mut listed = Listed::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(listed),
        Err(why) => return Err(why),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(SUFFIX)) else {
            continue;
        };
        names.insert(name.to_owned());
        if names.len() > files_max {
            names.pop_last();
            listed.left_out += 1;
        }
    }
    for name in names {
        match open(&folder.join(&name)) {
            Ok(evidence) => listed.valid.push((name, evidence)),
            Err(why) => listed.worthless.push((name, why)),
        }
    }
    Ok(listed)
}

fn open(path: &Path) -> Result<Evidence, Worthless> {
    // Not a pipe or a device, which may never end: before anything is opened.
    let found = fs::metadata(path).map_err(Worthless::Unreadable)?;
    if !found.is_file() {
        let why = io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file");
        return Err(Worthless::Unreadable(why));
    }
    let file = File::open(path).map_err(Worthless::Unreadable)?;
    let most = u64::try_from(EVIDENCE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(Worthless::Unreadable)?;
    Ok(Evidence::open(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_listed_is_no_empty_folder() {
        let root = tempfile::TempDir::new().expect("a folder");
        let none = list(&root.path().join("none"), 9).expect("nothing");
        assert!(none.valid.is_empty() && none.worthless.is_empty());
        let file = root.path().join("file");
        fs::write(&file, b"x").expect("written");
        assert!(list(&file, 9).is_err(), "a file is no folder");
    }

    #[test]
    fn every_file_that_proves_nothing_is_named_with_why() {
        let root = tempfile::TempDir::new().expect("a folder");
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("a.json")).expect("made");
        fs::write(path("b.json"), b"{}").expect("written");
        fs::write(path("c.json"), vec![b'x'; 1 << 20]).expect("written");
        std::os::unix::fs::symlink(path("none"), path("d.json")).expect("linked");
        std::os::unix::fs::symlink("/dev/zero", path("e.json")).expect("linked");
        fs::write(path("bad-0-x"), b"a piece of a log").expect("written");
        let listed = list(root.path(), 9).expect("listed");
        let names: Vec<&str> = listed.worthless.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["a.json", "b.json", "c.json", "d.json", "e.json"]);
        let why = |at: usize| listed.worthless[at].1.to_string();
        assert_eq!(why(1), EvidenceError::Form.to_string());
        assert_eq!(why(2), EvidenceError::TooLong.to_string());
        for at in [0, 3, 4] {
            assert!(why(at).starts_with("cannot be read: "), "{}", why(at));
        }
        let few = list(root.path(), 2).expect("listed");
        assert_eq!((few.worthless.len(), few.left_out), (2, 3));
    }
}
