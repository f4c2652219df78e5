//! What the log needs of a disk, as a trait, so that tests can make it fail.
//!
//! [`FsReader`] and [`FsStorage`] are the real thing. A log is one big file of lines and a directory
//! beside it:
//!
//! - `lock`: held by the process that has the log open,
//! - `floor`: the last head that was signed; durable before anyone is shown that head,
//! - `checkpoint`: the last head that was published,
//! - `hashes.0`: the leaf hashes, 32 bytes each. Derived: it can be computed from the lines at any
//!   time. Its slices are the level 0 tiles of C2SP tlog-tiles,
//! - `evidence/`: what was cut off when the log was recovered.

pub(crate) mod fs;

use std::fmt;
use std::io;

pub use fs::{FsReader, FsStorage, LockError};

/// The big files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The lines.
    Log,
    /// The leaf hashes.
    Hashes,
}

/// The small files, replaced as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Small {
    /// The last head that was signed.
    Floor,
    /// The last head that was published.
    Checkpoint,
}

/// What tells whether the file of lines is still as this process left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Whether the path still leads to the open file.
    pub linked: bool,
    /// Device and inode number.
    pub file: (u64, u64),
    /// The length in bytes.
    pub len: u64,
    /// Seconds and nanoseconds of the last change of the content.
    pub modified: (i64, i64),
    /// Seconds and nanoseconds of the last change of content or attributes; programs cannot set it.
    pub changed: (i64, i64),
}

/// A piece of the log that was cut off, kept, and not yet written about in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The name it is kept under.
    pub name: String,
    /// How many bytes.
    pub bytes: u64,
}

/// The reading half.
pub trait Reader: fmt::Debug + Send + Sync {
    /// Reads some bytes from a place; none at the end of the file.
    ///
    /// # Errors
    /// When they cannot be read, or there is no such file (`NotFound`).
    fn read_at(&self, part: Part, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Reads a small file; `None` when there is none. At most 64 KiB are read.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    fn load(&self, small: Small) -> io::Result<Option<Vec<u8>>>;
}

/// A disk with the files of one log, held by this process alone.
pub trait Storage: Reader + 'static {
    /// Writes at the end of the log with one call; returns how many bytes were taken.
    ///
    /// # Errors
    /// When nothing was written.
    fn write_log(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Makes the lines durable (`fdatasync`).
    ///
    /// # Errors
    /// When the disk does not confirm it.
    fn sync_log(&self) -> io::Result<()>;

    /// Cuts the log to a length, durably.
    ///
    /// # Errors
    /// When it cannot be cut.
    fn cut_log(&self, len: u64) -> io::Result<()>;

    /// Looks at the file of lines.
    ///
    /// # Errors
    /// When it cannot be looked at.
    fn stamp(&self) -> io::Result<Stamp>;

    /// Opens whatever file is now at the path of the log.
    ///
    /// # Errors
    /// When there is none, or it cannot be opened.
    fn reopen_log(&self) -> io::Result<()>;

    /// Writes leaf hashes at a place. They need not be durable.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write_hashes(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the leaf hashes to a length.
    ///
    /// # Errors
    /// When they cannot be cut.
    fn cut_hashes(&self, len: u64) -> io::Result<()>;

    /// Puts a small file in the place of the old one, at once or not at all. The floor is durable when
    /// this returns; the checkpoint need not be.
    ///
    /// # Errors
    /// When it cannot be written; whether the old or the new one stands is then not known.
    fn replace(&self, small: Small, bytes: &[u8]) -> io::Result<()>;

    /// Keeps a piece that is about to be cut off, durably, as pending.
    ///
    /// # Errors
    /// When it cannot be written.
    fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Lists what is kept and pending.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn pending(&self) -> io::Result<Vec<Pending>>;

    /// Marks a pending piece as written about.
    ///
    /// # Errors
    /// When it cannot be marked.
    fn settle(&self, name: &str) -> io::Result<()>;

    /// Lets other processes have the log.
    fn release(&self);
}
