//! Proof files: everything that shows that an entry is in a log, in one text. C2SP tlog-proof.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra BASE64            (optional; signed by nobody)
//! index NUMBER
//! BASE64                  (one line a hash, from the leaf upwards)
//!
//! CHECKPOINT              (the signed and cosigned head, verbatim)
//! ```
//!
//! [`check`] needs the file, the entry and a policy, and nothing else. The file extension is
//! `.tlog-proof`. [`prove_entry`] makes one from the files of a log, with the line of the entry as the
//! extra data, so that the one file is all that has to be handed on.

mod files;

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;

pub use files::{ProveFileError, Proved, prove_entry};

use crate::Hash;
use crate::base64;
use crate::checkpoint::parse_decimal;
use crate::cosign::{TreeHead, TreeHeadError, parse_proof_lines, write_proof_lines};
use crate::note::{Note, NoteError};
use crate::policy::{EvaluateError, Evaluation, Policy};
use crate::proof::{PROOF_HASHES_MAX, ProofError, verify_inclusion};
use crate::tile::ENTRY_BYTES_MAX;
use crate::tree::{SIZE_MAX, leaf_hash};

/// The longest proof file that is parsed.
pub const TLOG_PROOF_BYTES_MAX: usize = 1_000_000;

const HEADER: &str = "c2sp.org/tlog-proof@v1\n";

/// The content of a proof file. What it proves is told by [`TlogProof::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    extra: Option<Vec<u8>>,
    index: u64,
    hashes: Vec<Hash>,
    head: TreeHead,
    note: Note,
}

/// Why a text is not a proof file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// Longer than is parsed.
    #[error("the proof is longer than {TLOG_PROOF_BYTES_MAX} bytes")]
    TooLong,
    /// Not UTF-8, or not with the first line of a proof file.
    #[error("not a proof file: it does not begin with c2sp.org/tlog-proof@v1")]
    Header,
    /// The extra line is not the base64 of something.
    #[error("the extra line of the proof is not base64")]
    Extra,
    /// The index line is missing, or not a plain decimal number below 2^63.
    #[error("the index line of the proof is malformed")]
    Index,
    /// A line that is not the base64 of 32 bytes, more than 63 of them, or no empty line behind them.
    #[error("the hashes of the proof are malformed")]
    Hashes,
    /// What follows is not a signed note.
    #[error("the checkpoint of the proof: {0}")]
    Note(#[source] NoteError),
    /// The note is not that of a head.
    #[error("the checkpoint of the proof: {0}")]
    Head(#[source] TreeHeadError),
}

/// Why a proof file does not prove that an entry is in a log of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It cannot be read.
    #[error("{0}")]
    File(#[source] TlogProofError),
    /// Its head is not believed.
    #[error("{0}")]
    Head(#[source] EvaluateError),
    /// The entry is not at its place under the head: another entry, or another place.
    #[error("the entry is not in the log: {0}")]
    Inclusion(#[source] ProofError),
}

/// What a proof file shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The entry is in the log, and the quorum of the policy has cosigned the head.
    Proven(Shown),
    /// The entry is under a head that the log has signed, but the quorum has not cosigned it: the log
    /// may show others something else.
    BelowQuorum(Shown),
}

/// What a proof file shows, with or without a quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The place of the entry in the log, from 0.
    pub index: u64,
    /// The head and its cosignatures.
    pub evaluation: Evaluation,
}

/// Checks a proof file offline.
///
/// # Errors
/// When it cannot be read, its head is not believed, or the entry is another one.
pub fn check(file: &[u8], entry: &[u8], policy: &Policy) -> Result<Verdict, CheckError> {
    TlogProof::parse(file)
        .map_err(CheckError::File)?
        .check(entry, policy)
}

impl TlogProof {
    /// Puts a proof together. Returns `None` when the note is not that of a head, or the index or
    /// the hashes are more than any log has.
    #[must_use]
    pub fn new(index: u64, hashes: Vec<Hash>, note: Note) -> Option<Self> {
        let head = note.text().parse().ok()?;
        let fits = index <= SIZE_MAX && hashes.len() <= PROOF_HASHES_MAX;
        fits.then_some(Self {
            extra: None,
            index,
            hashes,
            head,
            note,
        })
    }

    /// Puts extra data into the file, at most an entry; none when there is none. Nobody signs it, and
    /// [`Self::check`] does not look at it.
    #[must_use]
    pub fn with_extra(mut self, extra: &[u8]) -> Self {
        let fits = (1..=ENTRY_BYTES_MAX).contains(&extra.len());
        self.extra = fits.then(|| extra.to_vec());
        self
    }

    /// Reads a proof file.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(file: &[u8]) -> Result<Self, TlogProofError> {
        if file.len() > TLOG_PROOF_BYTES_MAX {
            return Err(TlogProofError::TooLong);
        }
        let text = std::str::from_utf8(file).map_err(|_not_text| TlogProofError::Header)?;
        let rest = text.strip_prefix(HEADER).ok_or(TlogProofError::Header)?;
        let (extra, rest) = parse_extra(rest)?;
        let (index, rest) = rest
            .strip_prefix("index ")
            .and_then(|rest| rest.split_once('\n'))
            .ok_or(TlogProofError::Index)?;
        let index = parse_decimal(index)
            .filter(|index| *index <= SIZE_MAX)
            .ok_or(TlogProofError::Index)?;
        let (hashes, rest) = split_at_empty_line(rest).ok_or(TlogProofError::Hashes)?;
        let hashes = parse_proof_lines(hashes).ok_or(TlogProofError::Hashes)?;
        let note: Note = rest.parse().map_err(TlogProofError::Note)?;
        let head = note.text().parse().map_err(TlogProofError::Head)?;
        Ok(Self {
            extra,
            index,
            hashes,
            head,
            note,
        })
    }

    /// Returns the extra data. It is signed by nobody.
    #[must_use]
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }

    /// Returns the place of the entry in the log, from 0.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Returns the inclusion proof, from the leaf upwards.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Returns what the head says, believed by nobody yet.
    #[must_use]
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Returns the signed head.
    #[must_use]
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Checks that these bytes are an entry of a log of the policy.
    ///
    /// # Errors
    /// When the head is not believed, or the entry is another one.
    pub fn check(&self, entry: &[u8], policy: &Policy) -> Result<Verdict, CheckError> {
        let evaluation = policy.evaluate(&self.note).map_err(CheckError::Head)?;
        let TreeHead { size, root, .. } = &evaluation.head;
        verify_inclusion(self.index, *size, &leaf_hash(entry), &self.hashes, root)
            .map_err(CheckError::Inclusion)?;
        let reached = evaluation.reached;
        let shown = Shown {
            index: self.index,
            evaluation,
        };
        Ok(if reached {
            Verdict::Proven(shown)
        } else {
            Verdict::BelowQuorum(shown)
        })
    }
}

impl FromStr for TlogProof {
    type Err = TlogProofError;

    fn from_str(text: &str) -> Result<Self, TlogProofError> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        write_proof_lines(f, &self.hashes)?;
        write!(f, "\n{}", self.note)
    }
}

fn parse_extra(rest: &str) -> Result<(Option<Vec<u8>>, &str), TlogProofError> {
    let Some(rest) = rest.strip_prefix("extra ") else {
        return Ok((None, rest));
    };
    let (encoded, rest) = rest.split_once('\n').ok_or(TlogProofError::Extra)?;
    let extra = base64::decode(encoded).ok_or(TlogProofError::Extra)?;
    // Without data there is no such line.
    if extra.is_empty() {
        return Err(TlogProofError::Extra);
    }
    Ok((Some(extra), rest))
}

/// Splits lines at the first empty one, which may be the very first.
pub(crate) fn split_at_empty_line(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('\n') {
        return Some(("", rest));
    }
    let at = text.find("\n\n")?;
    Some((&text[..=at], &text[at + 2..]))
}

#[cfg(test)]
mod tests;
