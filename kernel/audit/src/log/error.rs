//! What can go wrong with an open log, one enum an operation.

use std::io;
use std::path::PathBuf;

use crate::verify::Damage;

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
    #[error("the audit log {log_path} is not what was signed: {damage}")]
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
        "entry {seq} of the audit log {log_path}, which no signed head covers, is damaged, and more follows it: this is not the end of an interrupted write"
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
        "the signing floor {path} {problem}: what is signed without it could contradict a head that others have seen"
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
    #[error("cannot {action} {path}: {source}")]
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
    /// There is none, and yet there are entries, or a head was published.
    #[error("is missing, as in a backup")]
    Missing,
    /// It is no signed head, or its signature does not hold.
    #[error("is damaged: it is no head signed by this log")]
    Damaged,
    /// It is the head of another log: of another node, key or epoch.
    #[error("belongs to the log of another node or epoch")]
    OtherLog,
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
    /// The file was removed, cut short, or written by someone else.
    #[error("the file was removed, cut short or written by someone else")]
    FileChanged,
    /// The lines on disk are not the lines that were written.
    #[error("the file does not hold what was written into it")]
    NotAsWritten,
    /// Someone else changed the signing floor.
    #[error("the signing floor was changed by someone else")]
    FloorChanged,
}

/// Why a log proves nothing, or shows no entry.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
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
    /// The range is empty, too large, or one for which nothing can be proved.
    #[error("nothing can be proved for these sizes")]
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
