//! The files of a log on a file system of Unix.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::floor::{is_floor_in_place, name_of, split};
use super::rewrite::{LinesFile, with_gaps};
use super::segments::{Segments, folder_of};
use super::{Part, Pending, RESERVE_BYTES, Reader, Sealed, Small, Stamp, Storage};

/// The longest small file that is read: a head has at most 4 KiB.
pub(super) const SMALL_BYTES_MAX: u64 = 64 * 1024;
/// The longest text that is shown of a lock file.
const HOLDER_BYTES_MAX: u64 = 64;
const HASHES: &str = "hashes.0";
const BLOCKS: &str = "blocks";
const RESERVE: &str = "reserve";
const PENDING_SUFFIX: &str = ".pending";

/// A small file as it was, or why it cannot be read.
type Loaded = Result<Option<Vec<u8>>, (io::ErrorKind, String)>;

/// The files of a log, for reading only. Needs no lock: it may be used while a daemon writes.
#[derive(Debug)]
pub struct FsReader {
    segments: Segments,
    log: Option<File>,
    hashes: Option<File>,
    blocks: Option<File>,
    /// As they were before the lines were opened: a daemon that goes on cannot get ahead of them. Why not,
    /// where one cannot be read: the lines can be judged by the other.
    heads: [Loaded; 2],
    dir: PathBuf,
}

/// The files of a log, locked.
#[derive(Debug)]
pub struct FsStorage {
    lines: RwLock<Lines>,
    hashes: File,
    blocks: File,
    /// One for each folder: that of the lines may be another than that of the heads.
    locks: Vec<File>,
    log_path: PathBuf,
    dir: PathBuf,
    /// Whether a floor says which file it is in.
    claimed: AtomicBool,
}

/// The sealed segments, and the file that is written to.
#[derive(Debug)]
struct Lines {
    segments: Segments,
    active: File,
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
    #[error("cannot open {path}: {source}")]
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
        let head = |small| {
            let named = |error: io::Error| {
                let path = small_path(dir, small);
                (error.kind(), format!("{}: {error}", path.display()))
            };
            load(dir, small).map_err(named)
        };
        // The floor is written first, so that a daemon cannot make the checkpoint look newer.
        let checkpoint = head(Small::Checkpoint);
        let heads = [head(Small::Floor), checkpoint];
        // These can be computed from the lines: one that cannot be opened is as good as none.
        let derived = |name: &str| open(dir.join(name)).unwrap_or(None);
        let folder = folder_of(log_path);
        let list = || Segments::load(folder.clone()).map_err(|error| (folder.clone(), error));
        let mut segments = list()?;
        // A daemon may seal a segment between the two looks.
        let log = loop {
            let log = open(log_path.to_owned())?;
            let now = list()?;
            if now == segments {
                break log;
            }
            segments = now;
        };
        Ok(Self {
            segments,
            log,
            hashes: derived(HASHES),
            blocks: derived(BLOCKS),
            heads,
            dir: dir.to_owned(),
        })
    }
}

impl Reader for FsReader {
    fn read_at(&self, part: Part, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let sealed = self.segments.bytes();
        let (file, offset) = match part {
            Part::Log if offset < sealed => return self.segments.read_at(offset, buffer),
            // Between two segments there may be none to write to.
            Part::Log if self.log.is_none() && sealed > 0 => return Ok(0),
            Part::Log => (&self.log, offset - sealed),
            Part::Hashes => (&self.hashes, offset),
            Part::Blocks => (&self.blocks, offset),
        };
        match file {
            Some(file) => read_some(file, offset, buffer),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn load(&self, small: Small) -> io::Result<Option<Vec<u8>>> {
        let [floor, checkpoint] = &self.heads;
        let head = match small {
            Small::Floor => floor,
            Small::Checkpoint => checkpoint,
            Small::Closed => return load(&self.dir, small),
        };
        let known = |(kind, why): &(io::ErrorKind, String)| io::Error::new(*kind, why.clone());
        head.clone().map_err(|why| known(&why))
    }

    fn sealed(&self) -> Sealed {
        self.segments.sealed()
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
        let mut locks = vec![take_lock(&dir.join("lock"), holder)?];
        let folder = folder_of(log_path);
        make_dir(&folder)?;
        let beside = parent_of(&folder);
        if !same_file(beside, dir)? {
            locks.push(take_lock(&beside.join("lock"), holder)?);
        }
        let active = open_own(log_path, true)?;
        let hashes = open_own(&dir.join(HASHES), false)?;
        let blocks = open_own(&dir.join(BLOCKS), false)?;
        for made in [parent, dir, parent_of(&folder), folder.as_path()] {
            sync_dir(made).map_err(|source| LockError::Io {
                path: made.to_owned(),
                source,
            })?;
        }
        let segments = Segments::load(folder.clone()).map_err(|source| LockError::Io {
            path: folder,
            source,
        })?;
        // One that cannot be read says nothing.
        let in_place = is_floor_in_place(dir).unwrap_or(false);
        Ok(Self {
            claimed: AtomicBool::new(in_place),
            lines: RwLock::new(Lines { segments, active }),
            hashes,
            blocks,
            locks,
            log_path: log_path.to_owned(),
            dir: dir.to_owned(),
        })
    }

    fn lines(&self) -> RwLockReadGuard<'_, Lines> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines_mut(&self) -> RwLockWriteGuard<'_, Lines> {
        self.lines.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn derived(&self, part: Part) -> io::Result<&File> {
        match part {
            Part::Hashes => Ok(&self.hashes),
            Part::Blocks => Ok(&self.blocks),
            // Lines come from nothing else.
            Part::Log => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Lists all files that hold lines, or should.
    pub(super) fn files_of_lines(&self) -> io::Result<Vec<LinesFile>> {
        let lines = self.lines();
        let path_of = |seqs: &Range<u64>| lines.segments.path(seqs);
        let len = lines.active.metadata()?.len();
        let sealed = lines.segments.files();
        Ok(with_gaps(sealed, path_of, &self.log_path, len))
    }

    /// On the disk of the lines.
    fn reserve(&self) -> PathBuf {
        parent_of(&folder_of(&self.log_path)).join(RESERVE)
    }

    /// Keeps a piece that is written bit by bit, durably.
    pub(super) fn keep_from(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.evidence(&format!("{name}{PENDING_SUFFIX}"));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let mut out = io::BufWriter::new(file);
        write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        sync_dir(&self.dir.join("evidence"))
    }

    fn evidence(&self, name: &str) -> PathBuf {
        self.dir.join("evidence").join(name)
    }
}

impl Reader for FsStorage {
    fn read_at(&self, part: Part, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if part != Part::Log {
            return read_some(self.derived(part)?, offset, buffer);
        }
        let lines = self.lines();
        let sealed = lines.segments.bytes();
        if offset < sealed {
            return lines.segments.read_at(offset, buffer);
        }
        read_some(&lines.active, offset - sealed, buffer)
    }

    fn load(&self, small: Small) -> io::Result<Option<Vec<u8>>> {
        load(&self.dir, small)
    }

    fn sealed(&self) -> Sealed {
        self.lines().segments.sealed()
    }
}

impl Storage for FsStorage {
    fn write_log(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.lines().active).write(bytes)
    }

    fn sync_log(&self) -> io::Result<()> {
        self.lines().active.sync_data()
    }

    fn cut_log(&self, len: u64) -> io::Result<()> {
        let lines = self.lines();
        let len = len.checked_sub(lines.segments.bytes());
        let len = len.ok_or(io::ErrorKind::InvalidInput)?;
        lines.active.set_len(len)?;
        lines.active.sync_data()
    }

    fn seal(&self, seqs: Range<u64>) -> io::Result<()> {
        let mut lines = self.lines_mut();
        let path = lines.segments.path(&seqs);
        // After a failure half-way it may be there already, and the other name be free.
        match (path.try_exists()?, self.log_path.try_exists()?) {
            (true, true) => return Err(io::ErrorKind::AlreadyExists.into()),
            (true, false) => {}
            (false, _) => std::fs::rename(&self.log_path, &path)?,
        }
        let active = make_own(&self.log_path, true)?;
        sync_dir(lines.segments.dir())?;
        sync_dir(parent_of(&self.log_path))?;
        let len = std::mem::replace(&mut lines.active, active)
            .metadata()?
            .len();
        lines.segments.push(seqs, len);
        Ok(())
    }

    fn sealed_stamp(&self) -> io::Result<u64> {
        self.lines().segments.stamp()
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let lines = self.lines();
        let own = lines.active.metadata()?;
        let folder = match std::fs::metadata(lines.segments.dir()) {
            Ok(folder) => (folder.mtime(), folder.mtime_nsec()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (0, 0),
            Err(error) => return Err(error),
        };
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
            sealed: folder,
        })
    }

    fn reopen_log(&self) -> io::Result<()> {
        let there = OpenOptions::new()
            .read(true)
            .append(true)
            .open(&self.log_path)?;
        let mut lines = self.lines_mut();
        lines.active = there;
        lines.segments.reload()
    }

    fn write_derived(&self, part: Part, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.derived(part)?.write_all_at(bytes, offset)
    }

    fn cut_derived(&self, part: Part, len: u64) -> io::Result<()> {
        self.derived(part)?.set_len(len)
    }

    fn replace(&self, small: Small, bytes: &[u8]) -> io::Result<()> {
        let durable = match small {
            Small::Floor | Small::Closed => true,
            Small::Checkpoint => false,
        };
        let named = small == Small::Floor && self.claimed.load(Ordering::Acquire);
        let path = small_path(&self.dir, small);
        let new = path.with_extension("new");
        write_new_with(&new, durable, |file| {
            let name = named.then(|| file.metadata().map(|file| name_of(&file)));
            let name = name.transpose()?.unwrap_or_default();
            file.write_all(&[bytes, name.as_bytes()].concat())
        })?;
        std::fs::rename(&new, &path)?;
        if durable {
            sync_dir(&self.dir)?;
        }
        Ok(())
    }

    fn claim(&self) -> io::Result<()> {
        if self.claimed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let claimed = match self.load(Small::Floor) {
            Ok(Some(floor)) => self.replace(Small::Floor, &floor),
            Ok(None) => Ok(()),
            Err(why) => Err(why),
        };
        claimed.inspect_err(|_why| self.claimed.store(false, Ordering::Release))
    }

    fn fill_reserve(&self) -> io::Result<()> {
        let path = self.reserve();
        match std::fs::metadata(&path) {
            Ok(there) if there.len() >= RESERVE_BYTES => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // A file with holes takes no room: it is written.
        let bytes = vec![0; usize::try_from(RESERVE_BYTES).unwrap_or_default()];
        let filled = write_new(&path, &bytes, true);
        if filled.is_err() {
            std::fs::remove_file(&path)?;
        }
        filled
    }

    fn free_reserve(&self) -> io::Result<bool> {
        match std::fs::remove_file(self.reserve()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
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
        for lock in &self.locks {
            if let Err(error) = lock.unlock() {
                tracing::warn!(%error, "the lock of the audit log is released only when the process ends");
            }
        }
    }
}

pub(super) fn small_path(dir: &Path, small: Small) -> PathBuf {
    dir.join(match small {
        Small::Floor => "floor",
        Small::Checkpoint => "checkpoint",
        Small::Closed => "closed",
    })
}

pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

pub(super) fn read_some(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn load(dir: &Path, small: Small) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(small_path(dir, small)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(SMALL_BYTES_MAX).read_to_end(&mut bytes)?;
    // Whoever made one head of the other took it along.
    bytes.truncate(split(&bytes).0.len());
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
    make_own(path, append).map_err(|source| LockError::Io {
        path: path.to_owned(),
        source,
    })
}

fn make_own(path: &Path, append: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .append(append)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn same_file(a: &Path, b: &Path) -> Result<bool, LockError> {
    let id = |path: &Path| {
        let found = std::fs::metadata(path).map_err(|source| LockError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok((found.dev(), found.ino()))
    };
    Ok(id(a)? == id(b)?)
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
    write_new_with(path, durable, |file| file.write_all(bytes))
}

fn write_new_with(
    path: &Path,
    durable: bool,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    write(&mut file)?;
    if durable {
        file.sync_all()?;
    }
    Ok(())
}

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
