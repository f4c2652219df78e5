//! The signing floor as it stands on a disk: a head, and behind it which file it is in.
//!
//! A backup that is put back has all that a log needs, its floor too, and looks as whole as on the day it
//! was made. But its floor is in another file than the one that was written last: every floor is written to
//! a new one, and says its number in the file system, and when it was made. A copy of it says the same, and
//! is another; nor does it say what the file is that it is written over.
//!
//! A folder that is moved aside, and back, is not found this way, nor is the picture of a whole disk or of a
//! machine.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::Small;
use super::fs::{SMALL_BYTES_MAX, small_path};

/// What the two lines begin with.
const FILE: &[u8] = b"\nfile ";
const MADE: &[u8] = b"\nmade ";

/// Tells whether the signing floor in the folder of a log is the one that was written there. A floor that is
/// missing, or does not say, is not.
///
/// # Errors
/// When there is one that cannot be read.
pub fn is_floor_in_place(dir: &Path) -> io::Result<bool> {
    let file = match File::open(small_path(dir, Small::Floor)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let here = name_of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(SMALL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(split(&bytes).1 == Some(here.as_bytes()))
}

/// Returns the head of a floor, without what it says of its file. Anything else stays as it is.
#[must_use]
pub fn without_name(floor: &[u8]) -> &[u8] {
    split(floor).0
}

/// Returns what no two files have in common. Not every file system knows when a file was made.
pub(super) fn name_of(file: &Metadata) -> String {
    let made = file.created().ok();
    let made = made.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let made = made.map_or_else(|| "unknown".to_owned(), |at| at.as_nanos().to_string());
    format!("\nfile {}\nmade {made}\n", file.ino())
}

/// Returns the head of a floor, and what it says of its file.
pub(super) fn split(floor: &[u8]) -> (&[u8], Option<&[u8]>) {
    let name = memchr::memmem::rfind(floor, FILE).map(|at| floor.split_at(at));
    match name {
        Some((head, name)) if is_name(name) => (head, Some(name)),
        Some(_) | None => (floor, None),
    }
}

fn is_name(name: &[u8]) -> bool {
    let lines = name.strip_prefix(FILE).and_then(|name| {
        let at = memchr::memmem::find(name, MADE)?;
        let made = name[at + MADE.len()..].strip_suffix(b"\n")?;
        Some((&name[..at], made))
    });
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    lines.is_some_and(|(file, made)| is_number(file) && (made == b"unknown" || is_number(made)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::{FsReader, FsStorage, Reader as _, Storage as _};

    const HEAD: &[u8] = b"log\n0\nroot\n\n\xe2\x80\x94 log c2ln\n";

    #[test]
    fn a_floor_is_known_until_another_takes_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let floor = folder.path().join("floor");
        let is_in_place = || is_floor_in_place(folder.path()).expect("readable");
        assert!(!is_in_place(), "there is none");
        let log = folder.path().join("audit.jsonl");
        let storage = FsStorage::open(&log, folder.path(), "test").expect("opened");
        storage.claim().expect("claimed");
        storage.replace(Small::Floor, HEAD).expect("written");
        assert!(is_in_place());
        assert_eq!(
            storage.load(Small::Floor).expect("read"),
            Some(HEAD.to_vec())
        );
        let reader = FsReader::open(&log, folder.path()).expect("opened");
        assert_eq!(
            reader.load(Small::Floor).expect("read"),
            Some(HEAD.to_vec())
        );

        // The same head once more, and the copy of the first written over it, as `cp` does it.
        let early = std::fs::read(&floor).expect("read");
        storage.replace(Small::Floor, HEAD).expect("written");
        assert!(is_in_place());
        std::fs::write(&floor, &early).expect("written over");
        assert!(!is_in_place());

        // Put in its place, as `rsync` and `tar` do it.
        storage.replace(Small::Floor, HEAD).expect("written");
        let last = std::fs::read(&floor).expect("read");
        std::fs::write(folder.path().join("copy"), last).expect("copied");
        std::fs::rename(folder.path().join("copy"), &floor).expect("put back");
        assert!(!is_in_place());
    }

    #[test]
    fn who_opens_a_floor_that_is_not_in_its_place_does_not_make_it_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("audit.jsonl");
        let is_in_place = || is_floor_in_place(folder.path()).expect("readable");
        std::fs::write(folder.path().join("floor"), HEAD).expect("written");
        let storage = FsStorage::open(&log, folder.path(), "test").expect("opened");
        storage.replace(Small::Floor, HEAD).expect("written");
        assert!(!is_in_place(), "a repair says nothing about where it is");
        storage.claim().expect("claimed");
        assert!(is_in_place());
        assert_eq!(
            storage.load(Small::Floor).expect("read"),
            Some(HEAD.to_vec())
        );
        storage.replace(Small::Floor, HEAD).expect("written");
        assert!(is_in_place());
    }

    #[test]
    fn rubbish_says_nothing() {
        let name = b"\nfile 12\nmade 34\n";
        let whole = [HEAD, name].concat();
        assert_eq!(split(&whole), (HEAD, Some(name.as_slice())));
        for junk in [
            "\nfile 12\nmade 34",
            "\nfile \nmade 34\n",
            "\nfile 12\nmade \n",
            "\nfile 12\n",
            "\nfile 12\nmade 3x\n",
            "\nfile 12\nmade 34\n\n",
            "\nfile 1 2\nmade 34\n",
            "",
        ] {
            let floor = [HEAD, junk.as_bytes()].concat();
            assert_eq!(split(&floor), (floor.as_slice(), None), "{junk:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_of_what_is_no_name(floor in prop::collection::vec(any::<u8>(), 0..200)) {
            let (head, name) = split(&floor);
            prop_assert_eq!([head, name.unwrap_or_default()].concat(), floor);
        }
    }
}
