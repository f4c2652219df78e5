//! Proof files from the files of a log, without a daemon.

use std::ops::ControlFlow;

use super::TlogProof;
use crate::note::Note;
use crate::proof::verify_inclusion;
use crate::scan::Passing;
use crate::storage::FsReader;
use crate::tile::Progress;
use crate::tree::{Compact, leaf_hash};
use crate::verify::{Damage, Report, Source, Verdict, VerifyError, judge};
use crate::{Hash, SignedHead};

/// How often progress is told, in entries.
const PROGRESS_ENTRIES: u64 = 4096;

/// A proof, and what was found on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The proof, with the line of the entry as its extra data.
    pub proof: TlogProof,
    /// The line of the entry, without its line feed.
    pub line: Vec<u8>,
    /// What a verification of the whole log has found. The proof holds whatever stands behind its head.
    pub report: Report,
}

/// Why no proof was made.
#[derive(Debug, thiserror::Error)]
pub enum ProveFileError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] VerifyError),
    /// The head is about fewer entries.
    #[error("the head covers {size} entries, the last of them is {}", .size.saturating_sub(1))]
    NotCovered {
        /// How many entries it covers.
        size: u64,
    },
    /// The entries do not lead to the head.
    #[error("the entries do not lead to the head{}", damage_text(.damage))]
    Tampered {
        /// What was done to them, where that can be told.
        damage: Option<Damage>,
    },
    /// The note of the head cannot stand in a proof file.
    #[error("the head cannot stand in a proof file")]
    Head,
}

fn damage_text(damage: &Option<Damage>) -> String {
    damage.map_or_else(String::new, |damage| format!(": {damage}"))
}

/// Makes the proof that an entry is under a head of this log, whose signature the caller has checked.
/// The whole log is read, and what is not under the head is verified as well.
///
/// # Errors
/// When the log cannot be read, the head does not cover the entry, or the entries are not those of the
/// head.
pub fn prove_entry(
    source: Source<'_>,
    head: &SignedHead,
    seq: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Proved, ProveFileError> {
    let size = head.checkpoint.size;
    if seq >= size {
        return Err(ProveFileError::NotCovered { size });
    }
    let reader = FsReader::open(source.log_path, source.dir)
        .map_err(|(path, source)| VerifyError::Unreadable { path, source })?;
    let mut pass = Pass::new(seq, size);
    let report = judge(&reader, source, 0, |passing| {
        pass.see(&passing);
        let done = passing.seq + 1;
        if done.is_multiple_of(PROGRESS_ENTRIES) || done == size {
            let total = size.max(done);
            progress(Progress { done, total });
        }
        ControlFlow::Continue(())
    })?;
    let root = head.checkpoint.root;
    let (Some(line), true) = (
        pass.line,
        pass.tree.root() == root && pass.tree.size() == size,
    ) else {
        let damage = damage_in(&report);
        return Err(ProveFileError::Tampered { damage });
    };
    let hashes: Vec<Hash> = pass.siblings.iter().map(|one| one.tree.root()).collect();
    // Looked at once more, as whoever gets the proof will.
    if verify_inclusion(seq, size, &leaf_hash(&line), &hashes, &root).is_err() {
        let damage = damage_in(&report);
        return Err(ProveFileError::Tampered { damage });
    }
    let note: Note = head.note.parse().map_err(|_no_note| ProveFileError::Head)?;
    let proof = TlogProof::new(seq, hashes, note).ok_or(ProveFileError::Head)?;
    Ok(Proved {
        proof: proof.with_extra(&line),
        line,
        report,
    })
}

fn damage_in(report: &Report) -> Option<Damage> {
    match report.verdict {
        Verdict::Empty | Verdict::Intact { .. } => None,
        Verdict::Tampered {
            first_bad_seq,
            kind,
        } => Some(Damage {
            first_bad_seq,
            kind,
        }),
    }
}

/// The state of the pass.
struct Pass {
    seq: u64,
    size: u64,
    line: Option<Vec<u8>>,
    /// What hangs beside the path from the entry to the root, from the leaf upwards.
    siblings: Vec<Sibling>,
    /// The tree under the head.
    tree: Compact,
}

/// A part of the tree without the entry.
struct Sibling {
    start: u64,
    end: u64,
    tree: Compact,
}

impl Pass {
    /// Splits the tree as RFC 6962 does: `PATH(m, D[n])`, which descends from the root.
    fn new(seq: u64, size: u64) -> Self {
        let (mut start, mut end) = (0, size);
        let mut siblings = Vec::new();
        while end - start > 1 {
            let half = start + split(end - start);
            let (from, to);
            if seq < half {
                (from, to, end) = (half, end, half);
            } else {
                (from, to, start) = (start, half, half);
            }
            siblings.push(Sibling {
                start: from,
                end: to,
                tree: Compact::default(),
            });
        }
        siblings.reverse();
        Self {
            seq,
            size,
            line: None,
            siblings,
            tree: Compact::default(),
        }
    }

    fn see(&mut self, passing: &Passing<'_>) {
        if passing.seq >= self.size {
            return;
        }
        self.tree.push(passing.leaf);
        if passing.seq == self.seq {
            self.line = Some(passing.bytes.to_vec());
            return;
        }
        let beside = |one: &&mut Sibling| (one.start..one.end).contains(&passing.seq);
        if let Some(sibling) = self.siblings.iter_mut().rev().find(beside) {
            sibling.tree.push(passing.leaf);
        }
    }
}

/// The largest power of two below a size of at least 2.
fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::build_inclusion;

    #[test]
    fn the_parts_beside_the_path_are_those_of_the_proof() {
        for size in 1..70_u64 {
            let leaves: Vec<Hash> = (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect();
            for seq in 0..size {
                let mut pass = Pass::new(seq, size);
                for (at, leaf) in (0..).zip(&leaves) {
                    pass.see(&Passing {
                        seq: at,
                        offset: 0,
                        bytes: b"x",
                        leaf: *leaf,
                    });
                }
                let made: Vec<Hash> = pass.siblings.iter().map(|one| one.tree.root()).collect();
                let expected = build_inclusion(leaves.as_slice(), seq, size).expect("a proof");
                assert_eq!(made, expected, "{seq} of {size}");
                assert_eq!(pass.line.as_deref(), Some(&b"x"[..]));
            }
        }
    }
}
