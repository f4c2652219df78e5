//! A verification that also compares the log with heads that were kept elsewhere.
//!
//! The files of a log agree with each other after all of them were put back to an older state. What
//! others hold does not: a head that a witness has cosigned, or a mirror has stored. One pass over the
//! lines answers for any number of them.

use std::io;
use std::ops::ControlFlow;

use crate::evidence::is_file_name;
use crate::forest::Grow;
use crate::heads::Heads;
use crate::scan::Passing;
use crate::storage::{FsReader, Part, Reader as _};
use crate::tile::Progress;
use crate::tree::Compact;
use crate::verify::{Report, Source, VerifyError, judge_onto};
use crate::{Checkpoint, Hash, Kind, Line};

/// How often progress is told, in entries.
const PROGRESS_ENTRIES: u64 = 4096;

/// How a head that was kept elsewhere stands to the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The first entries lead to its root.
    Fits,
    /// They do not, or are not good.
    Differs,
    /// There are fewer entries than it is about.
    Beyond,
}

/// What is known of one head that was kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// How it stands to the entries.
    pub fit: Fit,
    /// When the first entry behind it was written, by the clock of the node.
    pub next_entry: Option<String>,
}

/// What a verification found, and how heads that were kept elsewhere stand to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The judgement by the heads beside the log.
    pub report: Report,
    /// One for each head that was given, in their order.
    pub compared: Vec<Compared>,
    /// When the first entry was written that no head beside the log covers.
    pub first_unsigned: Option<String>,
    /// When the last entry was written.
    pub last_entry: Option<String>,
    /// What the log says that was kept as evidence, each once and no more than [`EVIDENCE_MAX`].
    pub evidence: Vec<Told>,
}

/// An entry about evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The name of the file that it was kept in.
    pub file: String,
    /// The log that it is about.
    pub about: Option<String>,
}

/// How many entries about evidence are remembered: a node keeps no more files.
pub const EVIDENCE_MAX: usize = 1_024;

/// Verifies the files, and compares the entries with these heads, whose signatures the caller has
/// checked.
///
/// # Errors
/// When a file cannot be read.
pub fn survey(
    source: Source<'_>,
    heads: &[Checkpoint],
    progress: &mut dyn FnMut(Progress),
) -> Result<Survey, VerifyError> {
    let reader = FsReader::open(source.log_path, source.dir)
        .map_err(|(path, source)| VerifyError::Unreadable { path, source })?;
    // One that cannot be read is told below, unless the entries are bad anyhow.
    let (own, _unread) = Heads::load_readable(&reader, source.origin, source.key);
    let signed = own.top().map_or(0, |head| head.checkpoint.size);
    let mut by_size: Vec<usize> = (0..heads.len()).collect();
    by_size.sort_by_key(|at| heads[*at].size);
    let mut roots = Roots::new(heads, &by_size);
    let mut times = Times::new(heads, &by_size, signed);
    let report = judge_onto(&reader, source, 0, &mut roots, |passing| {
        times.see(&passing);
        let done = passing.seq + 1;
        if done.is_multiple_of(PROGRESS_ENTRIES) || done == signed {
            let total = signed.max(done);
            progress(Progress { done, total });
        }
        ControlFlow::Continue(())
    })?;
    let last = times.last.and_then(|place| read_line(&reader, place).ok());
    let compared = roots.fits.into_iter().zip(times.behind);
    Ok(Survey {
        report,
        compared: compared
            .map(|(fit, next_entry)| Compared { fit, next_entry })
            .collect(),
        first_unsigned: times.first_unsigned,
        last_entry: last.and_then(|line| time_in(&line)),
        evidence: times.evidence,
    })
}

/// The tree that the lines are hashed onto, compared with each head when it has its size.
struct Roots<'a> {
    heads: &'a [Checkpoint],
    /// The places of the heads that are not reached yet, those of the smallest size first.
    left: &'a [usize],
    fits: Vec<Fit>,
    tree: Compact,
}

impl<'a> Roots<'a> {
    fn new(heads: &'a [Checkpoint], by_size: &'a [usize]) -> Self {
        let mut roots = Self {
            heads,
            left: by_size,
            fits: vec![Fit::Beyond; heads.len()],
            tree: Compact::default(),
        };
        roots.compare();
        roots
    }

    fn compare(&mut self) {
        while let Some((at, rest)) = self.left.split_first() {
            let head = &self.heads[*at];
            if head.size != self.tree.size() {
                break;
            }
            self.fits[*at] = if head.root == self.tree.root() {
                Fit::Fits
            } else {
                Fit::Differs
            };
            self.left = rest;
        }
    }
}

impl Grow for Roots<'_> {
    fn push(&mut self, leaf: Hash) {
        self.tree.push(leaf);
        self.compare();
    }

    fn root(&self) -> Hash {
        self.tree.root()
    }
}

/// When the entries were written that matter.
struct Times<'a> {
    heads: &'a [Checkpoint],
    left: &'a [usize],
    /// Of the entry behind each head.
    behind: Vec<Option<String>>,
    signed: u64,
    first_unsigned: Option<String>,
    /// Where the last line is.
    last: Option<(u64, usize)>,
    evidence: Vec<Told>,
}

impl<'a> Times<'a> {
    fn new(heads: &'a [Checkpoint], by_size: &'a [usize], signed: u64) -> Self {
        Self {
            heads,
            left: by_size,
            behind: vec![None; heads.len()],
            signed,
            first_unsigned: None,
            last: None,
            evidence: Vec::new(),
        }
    }

    fn see(&mut self, passing: &Passing<'_>) {
        self.last = Some((passing.offset, passing.bytes.len()));
        if let Some(told) = evidence_in(passing.bytes)
            && self.evidence.len() < EVIDENCE_MAX
            && !self.evidence.contains(&told)
        {
            self.evidence.push(told);
        }
        while let Some((at, rest)) = self.left.split_first() {
            if self.heads[*at].size != passing.seq {
                break;
            }
            self.behind[*at] = time_in(passing.bytes);
            self.left = rest;
        }
        if passing.seq == self.signed {
            self.first_unsigned = time_in(passing.bytes);
        }
    }
}

/// Reads a line once more.
fn read_line(reader: &FsReader, (offset, length): (u64, usize)) -> io::Result<Vec<u8>> {
    let mut line = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let read = reader.read_at(Part::Log, offset + filled as u64, &mut line[filled..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
    }
    Ok(line)
}

/// Returns what a line says of evidence. Looks into a line only where it begins as one that does.
fn evidence_in(bytes: &[u8]) -> Option<Told> {
    let act = bytes.strip_prefix(ACT)?;
    if !KINDS.iter().any(|kind| act.starts_with(kind)) {
        return None;
    }
    let line = Line::parse(bytes).ok()?;
    let (_kind, file) = line.act.as_deref()?.split_once(", evidence ")?;
    let is_told = line.ev == Kind::PeerEvidence.as_str() && is_file_name(file);
    is_told.then(|| Told {
        file: file.to_owned(),
        about: line.target.clone(),
    })
}

/// How the line of an entry begins that has an act.
const ACT: &[u8] = b"{\"act\":\"";
/// How the act of an entry about evidence begins.
const KINDS: [&[u8]; 3] = [
    b"equivocation, evidence ",
    b"fork, evidence ",
    b"cosigner, evidence ",
];

/// Returns when a line was written.
fn time_in(line: &[u8]) -> Option<String> {
    Line::parse(line).ok().map(|line| line.ts)
}
