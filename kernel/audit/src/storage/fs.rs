//! The files of a log on a file system of Unix.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::{Part, Pending, Reader, Small, Stamp, Storage};

/// The longest small file that is read: a head has at most 4 KiB.
const SMALL_BYTES_MAX: u64 = 64 * 1024;
/// The longest text that is shown of a lock file.
const HOLDER_BYTES_MAX: u64 = 64;
const PENDING_SUFFIX: &str = ".pending";

/// The files of a log, for reading only. Needs no lock: it may be used while a daemon writes.
#[derive(Debug)]
pub struct FsReader {
    log: Option<File>,
    hashes: Option<File>,
    dir: PathBuf,
}

/// The files of a log, locked.
#[derive(Debug)]
pub struct FsStorage {
    log: RwLock<File>,
    hashes: File,
    lock: File,
    log_path: PathBuf,
    dir: PathBuf,
}

/// Why the files of a log cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds them.
    #[error("in use by another process ({holder})")]
    Held {
        /// What it wrote into the lock file.
        holder: String,
    },
    /// A file or directory cannot be made or opened.
    #[error("cannot open {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl FsReader {
    /// Opens what there is.
    ///
    /// # Errors
    /// When a file is there and cannot be opened; its path.
    pub fn open(log_path: &Path, dir: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let open = |path: PathBuf| match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err((path, error)),
        };
        Ok(Self {
            log: open(log_path.to_owned())?,
            hashes: open(dir.join("hashes.0"))?,
            dir: dir.to_owned(),
        })
    }
}

impl Reader for FsReader {
    fn read_at(&self, part: Part, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = match part {
            Part::Log => &self.log,
            Part::Hashes => &self.hashes,
        };
        match file {
            Some(file) => read_some(file, offset, buffer),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn load(&self, small: Small) -> io::Result<Option<Vec<u8>>> {
        load(&small_path(&self.dir, small))
    }
}

impl FsStorage {
    /// Takes the lock of the directory and opens the files, making those that are missing.
    ///
    /// # Errors
    /// When another process holds the lock, or a file cannot be made or opened.
    pub fn open(log_path: &Path, dir: &Path, holder: &str) -> Result<Self, LockError> {
        let parent = parent_of(log_path);
        make_dir(parent)?;
        make_dir(dir)?;
        make_dir(&dir.join("evidence"))?;
        let lock = take_lock(&dir.join("lock"), holder)?;
        let log = open_own(log_path, true)?;
        let hashes = open_own(&dir.join("hashes.0"), false)?;
        for made in [parent, dir] {
            sync_dir(made).map_err(|source| LockError::Io {
                path: made.to_owned(),
                source,
            })?;
        }
        Ok(Self {
            log: RwLock::new(log),
            hashes,
            lock,
            log_path: log_path.to_owned(),
            dir: dir.to_owned(),
        })
    }

    fn with_log<T>(&self, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        work(&self.log.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn evidence(&self, name: &str) -> PathBuf {
        self.dir.join("evidence").join(name)
    }
}

impl Reader for FsStorage {
    fn read_at(&self, part: Part, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match part {
            Part::Log => self.with_log(|log| read_some(log, offset, buffer)),
            Part::Hashes => read_some(&self.hashes, offset, buffer),
        }
    }

    fn load(&self, small: Small) -> io::Result<Option<Vec<u8>>> {
        load(&small_path(&self.dir, small))
    }
}

impl Storage for FsStorage {
    fn write_log(&self, bytes: &[u8]) -> io::Result<usize> {
        self.with_log(|mut log| log.write(bytes))
    }

    fn sync_log(&self) -> io::Result<()> {
        self.with_log(File::sync_data)
    }

    fn cut_log(&self, len: u64) -> io::Result<()> {
        self.with_log(|log| {
            log.set_len(len)?;
            log.sync_data()
        })
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let own = self.with_log(File::metadata)?;
        let linked = match std::fs::metadata(&self.log_path) {
            Ok(there) => (there.dev(), there.ino()) == (own.dev(), own.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(Stamp {
            linked,
            file: (own.dev(), own.ino()),
            len: own.len(),
            modified: (own.mtime(), own.mtime_nsec()),
            changed: (own.ctime(), own.ctime_nsec()),
        })
    }

    fn reopen_log(&self) -> io::Result<()> {
        let there = OpenOptions::new()
            .read(true)
            .append(true)
            .open(&self.log_path)?;
        *self.log.write().unwrap_or_else(PoisonError::into_inner) = there;
        Ok(())
    }

    fn write_hashes(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.hashes.write_all_at(bytes, offset)
    }

    fn cut_hashes(&self, len: u64) -> io::Result<()> {
        self.hashes.set_len(len)
    }

    fn replace(&self, small: Small, bytes: &[u8]) -> io::Result<()> {
        let durable = match small {
            Small::Floor => true,
            Small::Checkpoint => false,
        };
        let path = small_path(&self.dir, small);
        let new = path.with_extension("new");
        write_new(&new, bytes, durable)?;
        std::fs::rename(&new, &path)?;
        if durable {
            sync_dir(&self.dir)?;
        }
        Ok(())
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.evidence(&format!("{name}{PENDING_SUFFIX}"));
        write_new(&path, bytes, true)?;
        sync_dir(&self.dir.join("evidence"))
    }

    fn pending(&self) -> io::Result<Vec<Pending>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.dir.join("evidence"))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name
                .to_str()
                .and_then(|name| name.strip_suffix(PENDING_SUFFIX))
            else {
                continue;
            };
            found.push(Pending {
                name: name.to_owned(),
                bytes: entry.metadata()?.len(),
            });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn settle(&self, name: &str) -> io::Result<()> {
        let from = self.evidence(&format!("{name}{PENDING_SUFFIX}"));
        std::fs::rename(from, self.evidence(name))?;
        sync_dir(&self.dir.join("evidence"))
    }

    fn release(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the lock of the audit log is released only when the process ends");
        }
    }
}

fn small_path(dir: &Path, small: Small) -> PathBuf {
    dir.join(match small {
        Small::Floor => "floor",
        Small::Checkpoint => "checkpoint",
    })
}

pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

fn read_some(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn load(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(SMALL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

pub(crate) fn make_dir(path: &Path) -> Result<(), LockError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| LockError::Io {
            path: path.to_owned(),
            source,
        })
}

fn open_own(path: &Path, append: bool) -> Result<File, LockError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .append(append)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| LockError::Io {
            path: path.to_owned(),
            source,
        })
}

pub(crate) fn take_lock(path: &Path, holder: &str) -> Result<File, LockError> {
    let io_error = |source| LockError::Io {
        path: path.to_owned(),
        source,
    };
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io_error)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let shown = (&lock).take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
            if shown.is_err() || holder.trim().is_empty() {
                "unknown".clone_into(&mut holder);
            }
            return Err(LockError::Held {
                holder: holder.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(io_error(source)),
    }
    lock.set_len(0).map_err(io_error)?;
    writeln!(lock, "{holder}").map_err(io_error)?;
    Ok(lock)
}

pub(crate) fn write_new(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_all()?;
    }
    Ok(())
}

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
