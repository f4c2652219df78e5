//! A verification that also compares the log with heads that were kept elsewhere.
//!
//! The files of a log agree with each other after all of them were put back to an older state. What
//! others hold does not: a head that a witness has cosigned, or a mirror has stored. One pass over the
//! lines answers for any number of them.

use std::ops::ControlFlow;

use crate::heads::Heads;
use crate::scan::Passing;
use crate::storage::FsReader;
use crate::tile::Progress;
use crate::tree::{Compact, EMPTY_ROOT};
use crate::verify::{Report, Source, VerifyError, judge};
use crate::{Checkpoint, Line};

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
}

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
    let own = Heads::load(&reader, source.origin, source.key).map_err(|error| {
        VerifyError::Unreadable {
            path: source.dir.to_owned(),
            source: error,
        }
    })?;
    let signed = own.top().map_or(0, |head| head.checkpoint.size);
    let mut pass = Comparison::new(heads, signed);
    let report = judge(&reader, source, 0, |passing| {
        pass.see(&passing);
        let done = pass.tree.size();
        if done.is_multiple_of(PROGRESS_ENTRIES) || done == signed {
            let total = signed.max(done);
            progress(Progress { done, total });
        }
        ControlFlow::Continue(())
    })?;
    Ok(Survey {
        report,
        compared: pass.compared,
        first_unsigned: pass.first_unsigned,
        last_entry: time_in(&pass.last),
    })
}

/// The state of the pass.
struct Comparison<'a> {
    heads: &'a [Checkpoint],
    /// The places of the heads, those of the smallest size first.
    by_size: Vec<usize>,
    next: usize,
    /// Those whose size was reached by the line before.
    reached: Vec<usize>,
    compared: Vec<Compared>,
    tree: Compact,
    signed: u64,
    first_unsigned: Option<String>,
    /// The line before.
    last: Vec<u8>,
}

impl<'a> Comparison<'a> {
    fn new(heads: &'a [Checkpoint], signed: u64) -> Self {
        let mut by_size: Vec<usize> = (0..heads.len()).collect();
        by_size.sort_by_key(|at| heads[*at].size);
        let not_reached = Compared {
            fit: Fit::Beyond,
            next_entry: None,
        };
        let mut pass = Self {
            heads,
            by_size,
            next: 0,
            reached: Vec::new(),
            compared: vec![not_reached; heads.len()],
            tree: Compact::default(),
            signed,
            first_unsigned: None,
            last: Vec::new(),
        };
        pass.compare();
        pass
    }

    fn see(&mut self, passing: &Passing<'_>) {
        self.last.clear();
        self.last.extend_from_slice(passing.bytes);
        if !self.reached.is_empty() {
            let time = time_in(passing.bytes);
            for at in std::mem::take(&mut self.reached) {
                self.compared[at].next_entry.clone_from(&time);
            }
        }
        if passing.seq == self.signed {
            self.first_unsigned = time_in(passing.bytes);
        }
        self.tree.push(passing.leaf);
        self.compare();
    }

    /// Compares the heads of the size that the tree has now.
    fn compare(&mut self) {
        while let Some(at) = self.by_size.get(self.next).copied() {
            let head = &self.heads[at];
            if head.size != self.tree.size() {
                break;
            }
            let root = if head.size == 0 {
                EMPTY_ROOT
            } else {
                self.tree.root()
            };
            self.compared[at].fit = if head.root == root {
                Fit::Fits
            } else {
                Fit::Differs
            };
            self.reached.push(at);
            self.next += 1;
        }
    }
}

/// Returns when a line was written.
fn time_in(line: &[u8]) -> Option<String> {
    Line::parse(line).ok().map(|line| line.ts)
}
