//! The append-only log of one node.
//!
//! [`Log::open`] takes the directory, recovers what a crash left, and starts the one writer thread.
//! Everything that is appended goes through it: it writes a batch with one `write` and one
//! `fdatasync`, and only then acknowledges. Heads are signed from time to time, after the new lines
//! were read back from the file and hashed a second time.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use openfang_id::{NodeId, SigningKey};

use crate::verify::{Damage, Report, VerifyError};
use crate::{Clock, Event, Hash, Line, Origin, ReadError, Seq, SignedHead};

/// What a log is opened with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file of lines.
    pub log_path: PathBuf,
    /// The directory beside it: lock, signing floor, checkpoint, leaf hashes, evidence.
    pub dir: PathBuf,
    /// The node that writes.
    pub node: NodeId,
    /// The key that signs the heads.
    pub key: SigningKey,
    /// Which run of the node this is: a random number.
    pub boot: u64,
    /// The epoch of the log: part of its name. It grows when a log cannot be continued.
    pub epoch: u32,
}

/// What was found when the log was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// How many entries there are, including one that tells of a repair.
    pub size: u64,
    /// The last head that was signed.
    pub head: Option<SignedHead>,
    /// What was cut off at the end, if anything.
    pub recovered: Vec<Recovered>,
    /// Whether the leaf hashes were missing or stale and had to be computed again.
    pub hashes_rebuilt: bool,
}

/// An end of the log that was never finished, cut off and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256, in lower hexadecimal digits.
    pub sha256: String,
    /// Where they are kept.
    pub kept: PathBuf,
}

/// Why a log cannot be opened. Nothing was changed, except where a variant says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the audit log is in use by another process ({holder}): stop it first")]
    Locked {
        /// What that process wrote into the lock file.
        holder: String,
    },
    /// Lines that were signed are not as they were signed.
    #[error(
        "the audit log was altered: {damage}; restore {log_path} from a copy that verifies, or move it and {dir} away to begin a new log in a new epoch"
    )]
    Tampered {
        /// What and where.
        damage: Damage,
        /// The file of lines.
        log_path: PathBuf,
        /// The directory beside it.
        dir: PathBuf,
    },
    /// A line that no head covers yet is damaged, and good ones follow it.
    #[error(
        "line {seq} of the audit log is damaged and good lines follow it, so this is not the end of an interrupted write: restore {log_path} from a copy, or remove that line's bytes to {dir}/evidence by hand"
    )]
    Corrupt {
        /// The number of the bad line.
        seq: u64,
        /// The file of lines.
        log_path: PathBuf,
        /// The directory beside it.
        dir: PathBuf,
    },
    /// The signing floor is missing, unreadable, or older than the published head.
    #[error(
        "the signing floor {path} {problem}: signing on could contradict a head that was shown to others; if the log is complete, remove {checkpoint} to accept it as it is"
    )]
    Floor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FloorProblem,
        /// The published head.
        checkpoint: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a signing floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FloorProblem {
    /// There is none, and yet a head was published.
    #[error("is missing although a head was published (was the log restored from a backup?)")]
    Missing,
    /// It is not a head signed by this log's key.
    #[error("is not a head of this log")]
    Damaged,
    /// The published head is larger, or has another root for the same size.
    #[error("is older than the published head, or contradicts it")]
    RolledBack,
}

/// Why an entry is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// More is waiting than the queue holds. The entry was not written; try again later.
    #[error("the audit log cannot keep up")]
    Full,
    /// The log cannot be written any more until it is opened again. Whether an entry that was
    /// waiting is on disk is not known.
    #[error("the audit log has stopped: {reason}")]
    Poisoned {
        /// Why.
        reason: Poison,
    },
    /// The log was closed.
    #[error("the audit log is closed")]
    Closed,
    /// The line would be longer than 65,535 bytes. It was not written.
    #[error("the entry is too long for the audit log")]
    TooLong,
    /// The file could not be extended. The entry was not written; the log stays usable.
    #[error("the audit log cannot be written ({kind})")]
    Disk {
        /// Why.
        kind: io::ErrorKind,
    },
}

/// Why a log has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// `fdatasync` failed: what is on disk is not known, and a second call may wrongly succeed.
    #[error("the disk did not confirm a write ({0})")]
    Sync(io::ErrorKind),
    /// A write failed half-way and could not be undone.
    #[error("a failed write could not be undone ({0})")]
    Undo(io::ErrorKind),
    /// The file was removed, replaced by another or cut short.
    #[error("the file was removed or cut short by someone else")]
    FileGone,
    /// The lines on disk are not the lines that were written.
    #[error("the file does not hold what was written into it")]
    NotAsWritten,
    /// Someone else changed the signing floor.
    #[error("the signing floor was changed by someone else")]
    FloorChanged,
}

/// How the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Ok,
    /// The file is not what was written. Entries are still taken, but nothing old can be proved.
    Damaged {
        /// The first bad entry, where it can be named.
        first_bad_seq: Option<u64>,
    },
    /// No entry is taken any more.
    Poisoned {
        /// Why.
        reason: Poison,
    },
}

/// Why there is no consistency proof.
#[derive(Debug, thiserror::Error)]
pub enum ConsistencyError {
    /// The log is shorter than the proof would have to be.
    #[error("the log has {have} entries")]
    Behind {
        /// How many entries there are.
        have: u64,
    },
    /// The file is not what was written.
    #[error("the log is damaged")]
    Damaged {
        /// The first bad entry, where it can be named.
        seq: Option<u64>,
    },
    /// `from` is 0 or larger than `to`.
    #[error("no proof exists for these sizes")]
    Range,
    /// A file cannot be read.
    #[error("the log cannot be read")]
    Io(#[source] io::Error),
}

/// Why a log was not closed with a final head. Its entries are safe where they were acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// The log had stopped before.
    #[error("the audit log had stopped: {reason}")]
    Poisoned {
        /// Why.
        reason: Poison,
    },
    /// The last head could not be written. It is signed when the log is opened again.
    #[error("the last head of the audit log could not be written ({kind})")]
    Head {
        /// Why.
        kind: io::ErrorKind,
    },
    /// The writer ended in a way that it should not have.
    #[error("the writer of the audit log ended unexpectedly")]
    Writer,
}

/// Called with the number of an entry when it is durable, or with the reason why it is not.
pub type Ack = Box<dyn FnOnce(Result<Seq, AppendError>) + Send>;
/// Called with each head after it was published.
pub type HeadListener = Box<dyn Fn(SignedHead) + Send + Sync>;

/// A handle to an open log; cheap to clone. The last one to go closes it.
#[derive(Debug, Clone)]
pub struct Log;

impl Log {
    /// Opens a log, or begins one.
    ///
    /// # Errors
    /// When it is in use, was tampered with, or cannot be read or written.
    pub fn open(options: Options, clock: Arc<dyn Clock>) -> Result<(Self, Opened), OpenError> {
        unimplemented!()
    }

    /// Queues an entry. Never blocks. `ack` is called by the writer, once, when the entry is durable or
    /// has failed; it must not block. When this returns an error, it is not called at all.
    ///
    /// # Errors
    /// When the entry was not queued.
    pub fn append(&self, event: Event, ack: Ack) -> Result<(), AppendError> {
        unimplemented!()
    }

    /// Returns the number of durable entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        unimplemented!()
    }

    /// Returns the last published head.
    #[must_use]
    pub fn head(&self) -> Option<SignedHead> {
        unimplemented!()
    }

    /// Returns the name of the log.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        unimplemented!()
    }

    /// Adds a listener that is called, by the writer, after each head is published. It must not block.
    pub fn on_head(&self, listener: HeadListener) {
        unimplemented!()
    }

    /// Proves that the log of `to` entries begins with that of `from` entries.
    ///
    /// # Errors
    /// When the log is shorter or damaged, or there is nothing to prove.
    pub fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, ConsistencyError> {
        unimplemented!()
    }

    /// Reads the whole file again and checks it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn verify(&self) -> Result<Report, VerifyError> {
        unimplemented!()
    }

    /// Returns the last `n` entries, oldest first, each checked against its leaf hash.
    ///
    /// # Errors
    /// When they cannot be read or are not what was written.
    pub fn recent(&self, n: usize) -> Result<Vec<Line>, ReadError> {
        unimplemented!()
    }

    /// Tells how the log is.
    #[must_use]
    pub fn health(&self) -> Health {
        unimplemented!()
    }

    /// Writes what is queued, signs and publishes a last head, and ends the writer. Later calls do nothing.
    ///
    /// # Errors
    /// When the log had stopped, or the head could not be written.
    pub fn close(&self) -> Result<(), CloseError> {
        unimplemented!()
    }
}
