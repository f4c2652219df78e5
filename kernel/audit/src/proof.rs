//! Inclusion and consistency proofs.
//!
//! RFC 6962 §2.1.1 and §2.1.2, and the subtree variants of the Merkle tree certificates draft that
//! C2SP tlog-mirror uses. Builders need the nodes of the tree, verifiers need none: they share
//! no code, so that a mistake in one shows in the other.

mod build;
mod verify;

pub use build::{
    BuildError, Nodes, build_consistency, build_inclusion, build_subtree_consistency,
    build_subtree_inclusion, subtree_root,
};
pub use verify::{
    verify_consistency, verify_inclusion, verify_subtree_consistency, verify_subtree_inclusion,
};

/// The most hashes a proof can have: one a level of the largest tree.
pub const PROOF_HASHES_MAX: usize = 63;

/// The leaves `start..end` of a tree, where they form a subtree: `start` is a multiple of the
/// smallest power of two not below `end - start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subtree {
    /// Index of the first leaf.
    pub start: u64,
    /// Index behind the last leaf.
    pub end: u64,
}

impl Subtree {
    /// Returns the number of leaves.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Tells whether there is no leaf.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether these leaves form a subtree, and not an empty one.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.is_empty()
            && self
                .len()
                .checked_next_power_of_two()
                .is_some_and(|span| self.start.is_multiple_of(span))
    }
}

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The sizes and indexes ask for something that has no proof.
    #[error("no proof exists for these sizes")]
    Range,
    /// The proof has more or fewer hashes than the sizes demand.
    #[error("the proof has {found} hashes, it must have {expected}")]
    Length {
        /// How many hashes the sizes demand.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The hashes lead to another root.
    #[error("the proof leads to another root")]
    Root,
}
