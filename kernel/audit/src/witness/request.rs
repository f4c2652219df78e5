//! The body of an `add-checkpoint` request.
//!
//! `old SIZE`, the hashes of a consistency proof in base64, one a line, an empty line, and the signed
//! checkpoint. C2SP tlog-witness.

use std::fmt;

use crate::Hash;
use crate::checkpoint::parse_decimal;
use crate::cosign::{TreeHead, TreeHeadError, parse_proof_lines, write_proof_lines};
use crate::note::{Note, NoteError};
use crate::proof::PROOF_HASHES_MAX;
use crate::tlog_proof::split_at_empty_line;
use crate::tree::SIZE_MAX;

/// The longest request that is read: a proof of 63 hashes, and a head with a score of signatures, of
/// which some may be post-quantum ones.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// A head that is offered, and the proof that it continues an older one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    old: u64,
    proof: Vec<Hash>,
    note: Note,
    head: TreeHead,
}

/// Why a body is no such request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than is read.
    #[error("the request is longer than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// Not UTF-8, or not with `old` and a plain decimal number below 2^63 on the first line.
    #[error("the request does not begin with the old size")]
    Old,
    /// A line that is not the base64 of 32 bytes, more than 63 of them, or no empty line behind them.
    #[error("the proof of the request is malformed")]
    Proof,
    /// What follows is not a signed note.
    #[error("the checkpoint of the request: {0}")]
    Note(#[source] NoteError),
    /// The note is not that of a head.
    #[error("the checkpoint of the request: {0}")]
    Head(#[source] TreeHeadError),
}

impl AddCheckpoint {
    /// Offers a head to a witness that has cosigned `old` entries, or none.
    ///
    /// # Errors
    /// When the note is not that of a head, or something is more than a request can hold.
    pub fn new(old: u64, proof: Vec<Hash>, note: Note) -> Result<Self, RequestError> {
        if old > SIZE_MAX {
            return Err(RequestError::Old);
        }
        if proof.len() > PROOF_HASHES_MAX {
            return Err(RequestError::Proof);
        }
        let head = note.text().parse().map_err(RequestError::Head)?;
        let made = Self {
            old,
            proof,
            note,
            head,
        };
        if made.to_string().len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLong);
        }
        Ok(made)
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        if body.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLong);
        }
        let text = std::str::from_utf8(body).map_err(|_not_text| RequestError::Old)?;
        let (old, rest) = text
            .strip_prefix("old ")
            .and_then(|rest| rest.split_once('\n'))
            .ok_or(RequestError::Old)?;
        let old = parse_decimal(old)
            .filter(|old| *old <= SIZE_MAX)
            .ok_or(RequestError::Old)?;
        let (proof, note) = split_at_empty_line(rest).ok_or(RequestError::Proof)?;
        let proof = parse_proof_lines(proof).ok_or(RequestError::Proof)?;
        let note: Note = note.parse().map_err(RequestError::Note)?;
        let head = note.text().parse().map_err(RequestError::Head)?;
        Ok(Self {
            old,
            proof,
            note,
            head,
        })
    }

    /// Returns the size that the witness is believed to have cosigned last.
    #[must_use]
    pub fn old(&self) -> u64 {
        self.old
    }

    /// Returns the consistency proof from that size.
    #[must_use]
    pub fn proof(&self) -> &[Hash] {
        &self.proof
    }

    /// Returns the signed head, with all its lines.
    #[must_use]
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Returns what the head says.
    #[must_use]
    pub fn head(&self) -> &TreeHead {
        &self.head
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        write_proof_lines(f, &self.proof)?;
        write!(f, "\n{}", self.note)
    }
}
