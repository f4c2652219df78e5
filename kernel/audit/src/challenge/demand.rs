//! A challenge on the wire: a demand for several entries, and all of the answers in one body.
//!
//! ```text
//! demand:  u64 size || (u64 index)+
//! answers: one for each index, in the same order, one behind the other
//! ```

use super::{Answer, AnswerError, ChallengeError};
use crate::Hash;
use crate::proof::Nodes;
use crate::tile::TileSource;
use crate::tree::SIZE_MAX;

/// The most entries of one demand: the answers, each as long as one can be, are 9 MiB.
pub const DEMAND_ENTRIES_MAX: usize = 128;

/// Some entries of a log at a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The size of the head they are under.
    pub size: u64,
    /// Which, 1 to [`DEMAND_ENTRIES_MAX`].
    pub indexes: Vec<u64>,
}

/// Why bytes are not a demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a demand for entries: expected a size and 1 to {DEMAND_ENTRIES_MAX} indexes below it")]
pub struct DemandTextError;

/// Why the answers to a demand do not convince.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DemandError {
    /// They end early, go on behind the last one, or are none.
    #[error("the answers are not as many as were demanded")]
    Form,
    /// One of them is wrong.
    #[error("entry {index}: {why}")]
    Answer {
        /// Which entry was demanded.
        index: u64,
        /// What is wrong.
        #[source]
        why: ChallengeError,
    },
}

impl Demand {
    /// Writes the demand.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [self.size].into_iter().chain(self.indexes.iter().copied());
        numbers.flat_map(u64::to_be_bytes).collect()
    }

    /// Reads a demand.
    ///
    /// # Errors
    /// When it is none, has too many indexes, or one that is not below the size.
    pub fn parse(bytes: &[u8]) -> Result<Self, DemandTextError> {
        let (numbers, left) = bytes.as_chunks();
        let count_fits = (2..=1 + DEMAND_ENTRIES_MAX).contains(&numbers.len());
        if !left.is_empty() || !count_fits {
            return Err(DemandTextError);
        }
        let mut numbers = numbers.iter().copied().map(u64::from_be_bytes);
        let size = numbers.next().ok_or(DemandTextError)?;
        let indexes: Vec<u64> = numbers.collect();
        if size > SIZE_MAX || indexes.iter().any(|index| *index >= size) {
            return Err(DemandTextError);
        }
        Ok(Self { size, indexes })
    }

    /// Shows every entry, from a copy or from the log itself.
    ///
    /// # Errors
    /// When one of them cannot be shown.
    pub fn answer<T, E>(&self, log: &T) -> Result<Vec<u8>, AnswerError<E>>
    where
        T: TileSource<Error = E> + Nodes<Error = E> + ?Sized,
    {
        let mut body = Vec::new();
        for index in &self.indexes {
            let answer = super::answer(log, *index, self.size)?;
            // What was read from a bundle has the length of an entry.
            answer
                .encode(&mut body)
                .map_err(|_too_long| AnswerError::Lost)?;
        }
        Ok(body)
    }

    /// Checks the answers against the root of the trusted head.
    ///
    /// # Errors
    /// When one of them is missing or wrong.
    pub fn check(&self, root: &Hash, body: &[u8]) -> Result<(), DemandError> {
        let mut rest = body;
        for index in &self.indexes {
            let (answer, left) = Answer::split(rest).ok_or(DemandError::Form)?;
            let index = *index;
            answer
                .check(index, self.size, root)
                .map_err(|why| DemandError::Answer { index, why })?;
            rest = left;
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(DemandError::Form)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_demand_is_for_entries_that_can_be_there() {
        let demand = |size, indexes: &[u64]| Demand {
            size,
            indexes: indexes.to_vec(),
        };
        let check = |demand: Demand, good: bool| {
            assert_eq!(Demand::parse(&demand.encode()).is_ok(), good, "{demand:?}");
        };
        check(demand(5, &[0]), true);
        check(demand(5, &[4, 4, 0]), true);
        check(demand(SIZE_MAX, &[SIZE_MAX - 1]), true);
        check(demand(5, &[]), false);
        check(demand(0, &[0]), false);
        check(demand(5, &[5]), false);
        check(demand(SIZE_MAX + 1, &[0]), false);
        check(demand(5, &[1; DEMAND_ENTRIES_MAX]), true);
        check(demand(5, &[1; DEMAND_ENTRIES_MAX + 1]), false);
        assert!(Demand::parse(&[0; 17]).is_err() && Demand::parse(&[]).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_writes_back(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(demand) = Demand::parse(&bytes) {
                prop_assert_eq!(demand.encode(), bytes);
            }
        }

        #[test]
        fn checking_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), indexes in prop::collection::vec(0_u64..5, 1..4)) {
            let demand = Demand { size: 5, indexes };
            prop_assert!(demand.check(&Hash::from_bytes([1; 32]), &bytes).is_err());
        }
    }
}
