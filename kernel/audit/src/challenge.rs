//! Challenges: whoever claims to hold a log must show entries that nobody could foresee.
//!
//! 459 random entries find a loss of one in a hundred with 99 % certainty. An answer convinces only the
//! one who chose the indexes: silence or a wrong answer is no evidence for others.

mod demand;

use crate::Hash;
use crate::proof::{
    BuildError, Nodes, PROOF_HASHES_MAX, ProofError, build_inclusion, verify_inclusion,
};
use crate::tile::{ENTRY_BYTES_MAX, TILE_WIDTH, TileKind, TilePath, TileSource, split_entry};
use crate::tree::leaf_hash;

pub use demand::{DEMAND_ENTRIES_MAX, Demand, DemandError, DemandTextError};

/// The most entries that are demanded at once.
pub const CHALLENGE_ENTRIES_MAX: usize = 512;
/// The longest answer for one entry: index, entry and proof.
pub const ANSWER_BYTES_MAX: usize = 8 + 2 + ENTRY_BYTES_MAX + 1 + PROOF_HASHES_MAX * Hash::BYTES;

/// An entry that was demanded, and the proof that it is in the log.
///
/// On the wire: `u64 index || u16 length || entry || u8 count || (32-byte hash)*`, big-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which entry.
    pub index: u64,
    /// Its bytes.
    pub entry: Vec<u8>,
    /// Its inclusion proof at the size of the challenge.
    pub proof: Vec<Hash>,
}

/// Why an entry cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError<E> {
    /// The index is not below the size.
    #[error("the log has no such entry at this size")]
    Range,
    /// The entry or its place in the tree cannot be read.
    #[error("the entry cannot be read")]
    Source(#[source] E),
    /// The entry is not there, or not readable any more.
    #[error("the entry is lost")]
    Lost,
}

/// Why bytes are not an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the answer to a challenge")]
pub struct AnswerTextError;

/// Why an answer does not convince.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// It is about another entry.
    #[error("the answer is about another entry")]
    OtherEntry,
    /// The entry is not the one in the log.
    #[error("the entry is not part of the log: {0}")]
    Proof(#[source] ProofError),
}

/// Turns random numbers into indexes below `size`, in order and without doubles. None when `size` is 0.
#[must_use]
pub fn draw(random: &[u64], size: u64) -> Vec<u64> {
    let drawn = random.iter().take(CHALLENGE_ENTRIES_MAX);
    let mut indexes: Vec<_> = drawn
        .filter_map(|number| number.checked_rem(size))
        .collect();
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

/// Shows an entry of a log at a size, from a copy or from the log itself.
///
/// # Errors
/// When it cannot.
pub fn answer<T, E>(log: &T, index: u64, size: u64) -> Result<Answer, AnswerError<E>>
where
    T: TileSource<Error = E> + Nodes<Error = E> + ?Sized,
{
    let proof = build_inclusion(log, index, size).map_err(|error| match error {
        BuildError::Range => AnswerError::Range,
        BuildError::Nodes(error) => AnswerError::Source(error),
    })?;
    let number = index / u64::from(TILE_WIDTH);
    let path = TilePath::at(TileKind::Entries, number, size).ok_or(AnswerError::Range)?;
    let bytes = log.tile(&path).map_err(AnswerError::Source)?;
    let bytes = bytes.ok_or(AnswerError::Lost)?;
    let mut rest = bytes.as_slice();
    for _before in 0..index % u64::from(TILE_WIDTH) {
        (_, rest) = split_entry(rest).ok_or(AnswerError::Lost)?;
    }
    let (entry, _) = split_entry(rest).ok_or(AnswerError::Lost)?;
    Ok(Answer {
        index,
        entry: entry.to_vec(),
        proof,
    })
}

impl Answer {
    /// Checks that this is entry `index` of the log with a trusted head.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, index: u64, size: u64, root: &Hash) -> Result<(), ChallengeError> {
        if self.index != index {
            return Err(ChallengeError::OtherEntry);
        }
        verify_inclusion(index, size, &leaf_hash(&self.entry), &self.proof, root)
            .map_err(ChallengeError::Proof)
    }

    /// Writes the answer behind what is there.
    ///
    /// # Errors
    /// When the entry or the proof is too long; nothing was written.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), AnswerTextError> {
        let length = u16::try_from(self.entry.len()).map_err(|_long| AnswerTextError)?;
        let count = Some(self.proof.len())
            .filter(|count| *count <= PROOF_HASHES_MAX)
            .and_then(|count| u8::try_from(count).ok())
            .ok_or(AnswerTextError)?;
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.entry);
        out.push(count);
        for hash in &self.proof {
            out.extend_from_slice(hash.as_bytes());
        }
        Ok(())
    }

    /// Reads an answer and nothing behind it.
    ///
    /// # Errors
    /// When the bytes are anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, AnswerTextError> {
        match Self::split(bytes) {
            Some((answer, [])) => Ok(answer),
            Some((_, [_, ..])) | None => Err(AnswerTextError),
        }
    }

    /// Splits the first of several answers off; `None` when there is no whole one.
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (index, rest) = bytes.split_first_chunk()?;
        let (entry, rest) = split_entry(rest)?;
        let (count, rest) = rest.split_first()?;
        let count = Some(usize::from(*count)).filter(|count| *count <= PROOF_HASHES_MAX)?;
        let (hashes, rest) = rest.split_at_checked(count * Hash::BYTES)?;
        let (hashes, _none) = hashes.as_chunks();
        let answer = Self {
            index: u64::from_be_bytes(*index),
            entry: entry.to_vec(),
            proof: hashes.iter().copied().map(Hash::from_bytes).collect(),
        };
        Some((answer, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn indexes_are_below_the_size() {
        assert_eq!(draw(&[7, 3, 10, 17, u64::MAX], 7), [0, 1, 3]);
        assert!(draw(&[1, 2], 0).is_empty());
        let many = vec![1; CHALLENGE_ENTRIES_MAX + 1];
        assert_eq!(draw(&many, 5), [1]);
    }

    proptest! {
        #[test]
        fn an_answer_reads_back(
            index in any::<u64>(),
            entry in prop::collection::vec(any::<u8>(), 0..40),
            proof in prop::collection::vec(any::<[u8; 32]>(), 0..=PROOF_HASHES_MAX),
            extra in any::<u8>(),
        ) {
            let proof = proof.into_iter().map(Hash::from_bytes).collect();
            let answer = Answer { index, entry, proof };
            let mut bytes = Vec::new();
            answer.encode(&mut bytes).expect("short enough");
            prop_assert!(bytes.len() <= ANSWER_BYTES_MAX);
            prop_assert_eq!(Answer::parse(&bytes), Ok(answer));
            prop_assert_eq!(Answer::parse(&bytes[..bytes.len() - 1]), Err(AnswerTextError));
            bytes.push(extra);
            prop_assert_eq!(Answer::parse(&bytes), Err(AnswerTextError));
        }

        #[test]
        fn parsing_never_panics_and_writes_back(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(answer) = Answer::parse(&bytes) {
                let mut again = Vec::new();
                answer.encode(&mut again).expect("it was read");
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
