//! Whether the files of the audit log are those that this node wrote.
//!
//! A backup that is put back has all that a log needs, its floor too, and looks as whole as on the day it
//! was made. But its files are other files. So one in the folder of the log says which file it is: its
//! number in the file system, and when it was made. A copy of it says the same, and is another. It is
//! written anew in every run, so that the bytes of an earlier one in its place are found, too.
//!
//! The picture of a whole disk, or of a machine, is not found this way.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::UNIX_EPOCH;

use crate::files;
use crate::home::Home;

/// No file of this kind is longer.
const BYTES_MAX: u64 = 128;

/// Says of the folder of the audit log that it is the one of this node.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn claim(home: &Home) -> io::Result<()> {
    files::create_folder(&home.audit_dir())?;
    files::replace_with(&home.audit_place(), |file| {
        Ok(name_of(&file.metadata()?).into_bytes())
    })
}

/// Tells whether that was said of this folder, and not of one that it was copied from. What cannot be read
/// says nothing.
pub(crate) fn is_claimed(home: &Home) -> bool {
    let compare = || {
        let file = File::open(home.audit_place())?;
        let here = name_of(&file.metadata()?);
        let mut said = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut said)?;
        Ok::<_, io::Error>(said == here.as_bytes())
    };
    compare().unwrap_or(false)
}

/// Returns what no two files have in common. Not every file system knows when a file was made.
fn name_of(file: &Metadata) -> String {
    let made = file.created().ok();
    let made = made.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let made = made.map_or_else(|| "unknown".to_owned(), |at| at.as_nanos().to_string());
    format!("file {}\nmade {made}\n", file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_known_until_another_takes_its_place() {
        let (folder, other) = (folder(), folder());
        let (home, backup) = (Home::at(folder.path()), Home::at(other.path()));
        assert!(!is_claimed(&home), "nothing was said of it");
        claim(&home).expect("claimed");
        assert!(is_claimed(&home));

        // Copied elsewhere, and put back.
        files::create_folder(&backup.audit_dir()).expect("made");
        std::fs::copy(home.audit_place(), backup.audit_place()).expect("copied");
        assert!(!is_claimed(&backup));
        let early = std::fs::read(home.audit_place()).expect("read");
        files::replace(&home.audit_place(), &early).expect("put back as tar and rsync do");
        assert!(!is_claimed(&home));

        // Written over, as `cp` does it: the bytes are those of an earlier run.
        claim(&home).expect("claimed");
        assert!(is_claimed(&home));
        std::fs::write(home.audit_place(), &early).expect("written over");
        assert!(!is_claimed(&home));
    }

    #[test]
    fn rubbish_claims_nothing() {
        let folder = folder();
        let home = Home::at(folder.path());
        claim(&home).expect("claimed");
        let said = std::fs::read(home.audit_place()).expect("read");
        let longer = [said.as_slice(), b"x"].concat();
        for junk in [b"".as_slice(), b"\xff", &said[1..], &longer, &[b'x'; 1_000]] {
            std::fs::write(home.audit_place(), junk).expect("written");
            assert!(!is_claimed(&home));
        }
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }
}
