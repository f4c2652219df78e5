//! Files that must be whole, or not there, and that only their owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Read and write for the owner, nothing for others.
const PRIVATE_FILE: u32 = 0o600;
/// The same for a folder.
const PRIVATE_FOLDER: u32 = 0o700;
/// The permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;

/// Returns the permission bits of a file when anyone but its owner may do anything with it.
///
/// # Errors
/// When the file cannot be asked.
pub fn exposed(path: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    Ok((mode & OTHERS != 0).then_some(mode))
}

/// Returns what to do about a file or folder of the home that cannot be used.
#[must_use]
pub fn mend(path: &Path, kind: io::ErrorKind) -> String {
    const MENDS: [(&[io::ErrorKind], &str); 6] = [
        (
            &[io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded],
            "make room on the disk of {}: df -h",
        ),
        (
            &[io::ErrorKind::ReadOnlyFilesystem],
            "the disk of {} is read-only: export OPENFANG_HOME to a folder on another",
        ),
        (
            &[
                io::ErrorKind::NotADirectory,
                io::ErrorKind::IsADirectory,
                io::ErrorKind::AlreadyExists,
            ],
            "a file stands where a folder should be, or a folder for a file, on the way to {}: move it away",
        ),
        (
            &[io::ErrorKind::InvalidFilename],
            "{} is too long: export OPENFANG_HOME to a shorter path",
        ),
        (
            &[io::ErrorKind::InvalidData],
            "{} must hold text in UTF-8: iconv -f latin1 -t utf-8 shows it",
        ),
        (
            &[io::ErrorKind::PermissionDenied],
            "ls -ld {} shows whose it is: run openfang as that user, or: chown \"$USER\" {} && chmod u+rwX {}",
        ),
    ];
    let path = path.display().to_string();
    let found = MENDS.iter().find(|(kinds, _mend)| kinds.contains(&kind));
    found.map_or_else(
        || format!("ls -ld {path}"),
        |(_kinds, mend)| mend.replace("{}", &path),
    )
}

/// Creates a file for its owner alone and returns when it is on the disk. Never overwrites.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is one; then it is untouched.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_new(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(why) = written {
        fs::remove_file(path)?;
        return Err(why);
    }
    sync_folder(path)
}

/// Replaces a file, for its owner alone, so that a reader or a crash sees the old or the new one.
///
/// # Errors
/// When it cannot be written; then the old one is untouched.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, |_file| Ok(bytes.to_vec()))
}

/// The same with bytes that tell of the file they are written to.
///
/// # Errors
/// When it cannot be written; then the old one is untouched.
pub(crate) fn replace_with(
    path: &Path,
    bytes: impl FnOnce(&File) -> io::Result<Vec<u8>>,
) -> io::Result<()> {
    let beside = clear_beside(path)?;
    let mut file = create_new(&beside)?;
    let written = bytes(&file).and_then(|bytes| file.write_all(&bytes));
    if let Err(why) = written.and_then(|()| file.sync_all()) {
        fs::remove_file(&beside)?;
        return Err(why);
    }
    fs::rename(&beside, path)?;
    sync_folder(path)
}

/// The same for what means nothing after a crash: a reader sees the old or the new file, and nobody
/// waits for the disk.
///
/// # Errors
/// When it cannot be written; then the old one is untouched.
pub fn replace_volatile(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = clear_beside(path)?;
    create_new(&beside)?.write_all(bytes)?;
    fs::rename(&beside, path)
}

/// Returns the name under which the next version is written, with nothing there.
fn clear_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    remove(&beside)?;
    Ok(beside)
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(path)
}

/// Opens a file to read. What is no plain file is refused: a pipe has no end, and opening one may take as long.
///
/// # Errors
/// When it is none, or cannot be opened.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblock)
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    let why = "it is no plain file";
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// Reads a plain file. One that is longer than `bytes_max` is read to a byte behind that.
///
/// # Errors
/// As [`open_plain`], and when it cannot be read.
pub fn read_plain(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_plain(path)?
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Creates a folder, and those above it, for their owner alone. One that exists stays as it is.
///
/// # Errors
/// When it cannot be made.
pub fn create_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_FOLDER)
        .create(path)
}

/// Takes everything from everyone but the owner of a folder.
///
/// # Errors
/// When it is not ours.
pub fn make_private(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(PRIVATE_FOLDER))
}

/// Removes a file; one that is not there is no error.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes the name of a file as durable as its content.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("made");
        for path in [&path, folder.path()] {
            let why = read_plain(path, 9).expect_err("no file");
            assert_eq!(why.kind(), io::ErrorKind::InvalidInput, "{why}");
        }
        let plain = folder.path().join("plain");
        fs::write(&plain, b"0123456789abc").expect("written");
        assert_eq!(read_plain(&plain, 9).expect("read"), b"0123456789");
        assert_eq!(read_plain(&plain, 99).expect("read").len(), 13);
    }

    #[test]
    fn a_file_is_created_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        create(&path, b"one").expect("created");
        assert_eq!(exposed(&path).expect("asked"), None);
        let again = create(&path, b"two").expect_err("never overwritten");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("read"), b"one");
    }

    #[test]
    fn a_replaced_file_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        for text in [b"one", b"two"] {
            replace(&path, text).expect("replaced");
            assert_eq!(fs::read(&path).expect("read"), text);
            replace_volatile(&path, b"three").expect("replaced");
            assert_eq!(fs::read(&path).expect("read"), b"three");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
        assert_eq!(exposed(&path).expect("asked"), None);
    }

    #[test]
    fn what_mends_it_fits_what_is_wrong() {
        let check = |kind, expected: &str| {
            let mend = mend(Path::new("/home/u/x"), kind);
            assert!(
                mend.contains(expected) && mend.contains("/home/u/x"),
                "{mend}"
            );
            assert_eq!(
                mend.contains("chown"),
                kind == io::ErrorKind::PermissionDenied,
                "{mend}"
            );
        };
        check(io::ErrorKind::StorageFull, "df -h");
        check(io::ErrorKind::PermissionDenied, "run openfang as that user");
        check(io::ErrorKind::NotADirectory, "move it away");
        check(io::ErrorKind::InvalidFilename, "shorter");
        check(io::ErrorKind::InvalidData, "UTF-8");
        check(io::ErrorKind::Other, "ls -ld");
    }

    #[test]
    fn a_file_others_can_read_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        create(&path, b"one").expect("created");
        for (mode, shown) in [(0o644, Some(0o644)), (0o660, Some(0o660)), (0o400, None)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(exposed(&path).expect("asked"), shown, "{mode:o}");
        }
    }
}
