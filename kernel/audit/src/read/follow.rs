//! Entries as they are written: each look reads what is new, and goes on verifying.

use std::io;
use std::ops::ControlFlow;

use super::{Choice, Filter, Selection};
use crate::heads::Heads;
use crate::scan::{Known, Span, examine};
use crate::storage::{FsReader, Part, Reader as _};
use crate::tree::Compact;
use crate::verify::{Damage, DamageKind, Source, VerifyError, verify_each};
use crate::{Line, SignedHead};

/// A place in a log up to which everything was read, and what is wanted of what comes.
///
/// The place is counted over the sealed segments and the file that is written to, so that sealing changes
/// nothing. What was read is compared with every head that is signed later.
#[derive(Debug)]
pub struct Follow {
    choice: Choice,
    /// The tree over what was read.
    tree: Compact,
    /// Where the next line begins.
    offset: u64,
}

/// Why a log cannot be followed any more.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] VerifyError),
    /// The log is not what was signed, or not what was read before.
    #[error("the audit log is not what was written: {0}")]
    Tampered(Damage),
}

/// Verifies the whole log, returns the entries that are wanted, and the place to go on from.
///
/// # Errors
/// When a file cannot be read.
pub fn select_and_follow(
    source: Source<'_>,
    filter: &Filter,
) -> Result<(Selection, Follow), VerifyError> {
    let mut follow = Follow {
        choice: Choice::new(filter),
        tree: Compact::default(),
        offset: 0,
    };
    let report = verify_each(source, |passing| {
        follow.choice.see(&passing);
        follow.tree.push(passing.leaf);
        follow.offset = passing.offset + passing.bytes.len() as u64 + 1;
        ControlFlow::Continue(())
    })?;
    let (matched, before) = (follow.choice.matched, follow.choice.unreadable);
    let lines = follow.choice.take();
    let selection = Selection {
        lines,
        matched,
        unreadable: before + follow.choice.unreadable,
        report,
    };
    // From now on nothing is left out.
    follow.choice.filter.limit = None;
    Ok((selection, follow))
}

impl Follow {
    /// Returns how many entries were read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Returns the wanted entries that were written since the last look. A line that is being written is
    /// left for the next one.
    ///
    /// # Errors
    /// When a file cannot be read, or the log is no continuation of what was read before.
    pub fn poll(&mut self, source: Source<'_>) -> Result<Vec<Line>, FollowError> {
        let reader = FsReader::open(source.log_path, source.dir)
            .map_err(|(path, source)| VerifyError::Unreadable { path, source })?;
        let unreadable = |error| VerifyError::Unreadable {
            path: source.log_path.to_owned(),
            source: error,
        };
        let heads = Heads::load(&reader, source.origin, source.key).map_err(unreadable)?;
        if !heads.agree() {
            return Err(FollowError::Tampered(Damage {
                first_bad_seq: None,
                kind: DamageKind::Head,
            }));
        }
        if !self.stands_on(&reader).map_err(unreadable)? {
            return Err(self.damaged(DamageKind::Truncated));
        }
        if heads.top().is_some_and(|head| self.is_behind(head)) {
            return Err(self.damaged(DamageKind::Head));
        }
        let size = self.tree.size();
        let at_or_after = |known: &Known| known.size >= size;
        let known: Vec<Known> = heads.known().into_iter().filter(at_or_after).collect();
        let span = Span {
            seq: size,
            offset: self.offset,
            until: u64::MAX,
        };
        let (choice, offset) = (&mut self.choice, &mut self.offset);
        let examined = examine(&reader, span, &known, &mut self.tree, |passing| {
            choice.see(&passing);
            *offset = passing.offset + passing.bytes.len() as u64 + 1;
            ControlFlow::Continue(())
        });
        let examined = match examined {
            Ok(examined) => examined,
            // Nothing was written yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && size == 0 => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(unreadable(error).into()),
        };
        match examined.damage.or(examined.corrupt) {
            Some(damage) => Err(FollowError::Tampered(damage)),
            None => Ok(self.choice.take()),
        }
    }

    /// Tells whether the last line that was read still ends where it did.
    fn stands_on(&self, reader: &FsReader) -> io::Result<bool> {
        let Some(before) = self.offset.checked_sub(1) else {
            return Ok(true);
        };
        let mut byte = [0];
        let read = match reader.read_at(Part::Log, before, &mut byte) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(read == 1 && byte == *b"\n")
    }

    /// Tells whether a head of the size that was read has another root.
    fn is_behind(&self, head: &SignedHead) -> bool {
        let head = &head.checkpoint;
        head.size == self.tree.size() && head.size > 0 && head.root != self.tree.root()
    }

    fn damaged(&self, kind: DamageKind) -> FollowError {
        FollowError::Tampered(Damage {
            first_bad_seq: self.tree.size().checked_sub(1),
            kind,
        })
    }
}
