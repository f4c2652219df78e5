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
//! - `reserve`, beside the lines: room for the last entries of a disk that is full,
//! - `evidence/`: what was cut off when the log was recovered.

mod floor;
pub(crate) mod fs;
pub(crate) mod rewrite;
mod segments;

use std::fmt;
use std::io;
use std::ops::Range;

pub use floor::{is_floor_in_place, without_name};
pub use fs::{FsReader, FsStorage, LockError};
pub use segments::{SEGMENT_LINES, Sealed};

/// How much room is kept for the last entries of a full disk: more than ten thousand of them.
pub const RESERVE_BYTES: u64 = 4 << 20;

/// The big files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The lines, those of sealed segments before those of the file that is written to.
    Log,
    /// The leaf hashes.
    Hashes,
    /// For each full block of 256 leaves its root, and where its first line begins.
    Blocks,
}

/// The small files, replaced as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Small {
    /// The last head that was signed.
    Floor,
    /// The last head that was published.
    Checkpoint,
    /// The floor at an orderly end, as long as nothing was written after it; otherwise empty.
    Closed,
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
    /// Seconds and nanoseconds of the last change of the folder of sealed segments.
    pub sealed: (i64, i64),
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

    /// Tells how much of the log is sealed.
    fn sealed(&self) -> Sealed;
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

    /// Puts the lines that are written to aside as a sealed segment of these entries, and begins an
    /// empty file. Durable when this returns. Called when the file is durable and has at least
    /// [`SEGMENT_LINES`] lines.
    ///
    /// # Errors
    /// When it was not done; it can be tried again.
    fn seal(&self, seqs: Range<u64>) -> io::Result<()>;

    /// Returns a number that changes when any sealed segment is touched.
    ///
    /// # Errors
    /// When they cannot be looked at.
    fn sealed_stamp(&self) -> io::Result<u64>;

    /// Looks at the file of lines.
    ///
    /// # Errors
    /// When it cannot be looked at.
    fn stamp(&self) -> io::Result<Stamp>;

    /// Opens whatever files are now at the path of the log and among its segments.
    ///
    /// # Errors
    /// When there is none, or it cannot be opened.
    fn reopen_log(&self) -> io::Result<()>;

    /// Writes leaf hashes or blocks at a place. They need not be durable.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write_derived(&self, part: Part, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the leaf hashes or the blocks to a length.
    ///
    /// # Errors
    /// When they cannot be cut.
    fn cut_derived(&self, part: Part, len: u64) -> io::Result<()>;

    /// Puts a small file in the place of the old one, at once or not at all. The floor and the mark of
    /// an orderly end are durable when this returns; the checkpoint need not be.
    ///
    /// # Errors
    /// When it cannot be written; whether the old or the new one stands is then not known.
    fn replace(&self, small: Small, bytes: &[u8]) -> io::Result<()>;

    /// Says of the files that they are those of this log, and no copy of them: from now on a floor says which
    /// file it is in, the one that is there, too. Does nothing when it does so already.
    ///
    /// # Errors
    /// When the floor cannot be written again.
    fn claim(&self) -> io::Result<()>;

    /// Takes room on the disk, durably, for the last entries of a disk that is full otherwise. Does
    /// nothing when it is taken.
    ///
    /// # Errors
    /// When there is no such room; then none is taken.
    fn fill_reserve(&self) -> io::Result<()>;

    /// Gives that room back, and tells whether there was any.
    ///
    /// # Errors
    /// When that cannot be told.
    fn free_reserve(&self) -> io::Result<bool>;

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
