//! Verification of a log from its files, without a daemon.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use openfang_id::VerifyingKey;

use crate::forest::Grow;
use crate::heads::Heads;
use crate::scan::{Examined, Passing, Span, examine};
use crate::storage::{FsReader, Reader};
use crate::tree::Compact;
use crate::{Hash, Origin, SignedHead};

/// The files of a log, and what they are checked against.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file of lines.
    pub log_path: &'a Path,
    /// The directory beside it.
    pub dir: &'a Path,
    /// The key that signs the heads.
    pub key: &'a VerifyingKey,
    /// The name of the log.
    pub origin: &'a Origin,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The judgement.
    pub verdict: Verdict,
    /// How many bytes of lines were read and hashed.
    pub bytes: u64,
}

/// The judgement over a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is no log, and nothing says that there ever was one.
    Empty,
    /// Every entry is as it was signed.
    Intact {
        /// How many entries there are.
        entries: u64,
        /// The root over all of them.
        root: Hash,
        /// The last signed head; `None` when nothing was signed yet.
        head: Option<SignedHead>,
        /// How many of the entries were written after that head.
        unsigned: u64,
        /// How many bytes of an unfinished line stand at the end.
        torn_bytes: u64,
    },
    /// The log is not as it was signed.
    Tampered {
        /// The first bad entry, where it can be named.
        first_bad_seq: Option<u64>,
        /// What was done to it.
        kind: DamageKind,
    },
}

/// What is wrong with a log, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The first bad entry, where it can be named.
    pub first_bad_seq: Option<u64>,
    /// What was done to it.
    pub kind: DamageKind,
}

/// What was done to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// A line is not the line that was signed.
    Altered,
    /// Lines are missing between others.
    Removed,
    /// Lines were put between others.
    Inserted,
    /// Lines are missing at the end.
    Truncated,
    /// The number in a line is not its place.
    Sequence,
    /// The file is gone.
    Missing,
    /// The signing floor or the published head is not signed by the log, or they contradict each other.
    Head,
}

/// Why a log cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first_bad_seq {
            Some(seq) => write!(f, "{} at entry {seq}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Altered => "a line was altered",
            Self::Removed => "lines were removed",
            Self::Inserted => "lines were inserted",
            Self::Truncated => "lines are missing at the end",
            Self::Sequence => "a line has the wrong number",
            Self::Missing => "the file is missing",
            Self::Head => "the signed head is not valid",
        })
    }
}

/// Verifies the log in these files against its signed heads. A daemon may be writing meanwhile.
///
/// # Errors
/// When a file cannot be read. A log that is not what was signed is no error but a verdict.
pub fn verify_files(
    log_path: &Path,
    dir: &Path,
    key: &VerifyingKey,
    origin: &Origin,
) -> Result<Report, VerifyError> {
    let source = Source {
        log_path,
        dir,
        key,
        origin,
    };
    verify_each(source, |_line| ControlFlow::Continue(()))
}

/// Verifies the files and hands every good line on while it passes.
pub(crate) fn verify_each(
    source: Source<'_>,
    each: impl FnMut(Passing<'_>) -> ControlFlow<()>,
) -> Result<Report, VerifyError> {
    let reader = FsReader::open(source.log_path, source.dir)
        .map_err(|(path, source)| VerifyError::Unreadable { path, source })?;
    judge(&reader, source, 0, each)
}

/// Judges the log behind a reader, which must have at least so many entries.
pub(crate) fn judge<R: Reader + ?Sized>(
    reader: &R,
    source: Source<'_>,
    at_least: u64,
    each: impl FnMut(Passing<'_>) -> ControlFlow<()>,
) -> Result<Report, VerifyError> {
    judge_onto(reader, source, at_least, &mut Compact::default(), each)
}

/// The same, with every line hashed onto a tree of the caller, which must be empty.
pub(crate) fn judge_onto<R: Reader + ?Sized, T: Grow>(
    reader: &R,
    source: Source<'_>,
    at_least: u64,
    tree: &mut T,
    each: impl FnMut(Passing<'_>) -> ControlFlow<()>,
) -> Result<Report, VerifyError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| VerifyError::Unreadable { path, source }
    };
    let (heads, unread) = Heads::load_readable(reader, source.origin, source.key);
    let tampered = |damage: Damage, bytes| Report {
        verdict: Verdict::Tampered {
            first_bad_seq: damage.first_bad_seq,
            kind: damage.kind,
        },
        bytes,
    };
    if !heads.agree() {
        let damage = Damage {
            first_bad_seq: None,
            kind: DamageKind::Head,
        };
        return Ok(tampered(damage, 0));
    }
    let top = heads.top();
    let mark = source.dir.join("closed");
    // Looked at first: the log only grows.
    let ended = Heads::ended_at(reader, source.origin, source.key);
    let examined = match examine(reader, Span::ALL, &heads.known(), tree, each) {
        Ok(examined) => examined,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let damage = Damage {
                first_bad_seq: Some(0),
                kind: DamageKind::Missing,
            };
            let empty = Report {
                verdict: Verdict::Empty,
                bytes: 0,
            };
            return match (top, unread) {
                (Some(_head), _) => Ok(tampered(damage, 0)),
                (None, Some(why)) => Err(unreadable(source.dir)(why)),
                (None, None) => Ok(empty),
            };
        }
        Err(error) => return Err(unreadable(source.log_path)(error)),
    };
    let bytes = examined.good_bytes + examined.torn_bytes;
    // Whatever else cannot be read: this is bad.
    if let Some(damage) = examined.damage.or(examined.corrupt) {
        return Ok(tampered(damage, bytes));
    }
    if let Some(why) = unread {
        return Err(unreadable(source.dir)(why));
    }
    let at_least = at_least.max(ended.map_err(unreadable(&mark))?);
    // Looked at last: who writes after an orderly end takes its mark away first.
    let closed = heads.is_closed(reader).map_err(unreadable(&mark))?;
    if let Some(damage) = heads.beyond(&examined, closed) {
        return Ok(tampered(damage, bytes));
    }
    if examined.lines < at_least {
        let damage = Damage {
            first_bad_seq: Some(examined.lines),
            kind: DamageKind::Truncated,
        };
        return Ok(tampered(damage, bytes));
    }
    let verdict = good(&examined, top, tree.root());
    Ok(Report { verdict, bytes })
}

/// Judges a log in which nothing is bad.
fn good(examined: &Examined, top: Option<&SignedHead>, root: Hash) -> Verdict {
    let top = top.filter(|head| head.checkpoint.size > 0);
    let bytes = examined.good_bytes + examined.torn_bytes;
    if bytes == 0 && top.is_none() {
        return Verdict::Empty;
    }
    Verdict::Intact {
        entries: examined.lines,
        root,
        head: top.cloned(),
        unsigned: examined.lines - top.map_or(0, |head| head.checkpoint.size),
        torn_bytes: examined.torn_bytes,
    }
}
