//! Checks of proofs. They need hashes and numbers only.

use std::iter::zip;

use super::{ProofError, Subtree};
use crate::Hash;
use crate::tree::{EMPTY_ROOT, SIZE_MAX, node_hash};

/// Checks that `leaf` is the leaf at `index` in the tree of `size` leaves with root `root`.
///
/// # Errors
/// When it is not, or the proof is not of the one length that it must have.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: &Hash,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size || size > SIZE_MAX {
        return Err(ProofError::Range);
    }
    let inner = bit_length(index ^ (size - 1));
    let border = (index >> inner).count_ones() as usize;
    let (low, high) = split_exactly(proof, inner, border)?;
    let below = zip(0.., low).fold(*leaf, |hash, (level, sibling)| {
        if index >> level & 1 == 0 {
            node_hash(&hash, sibling)
        } else {
            node_hash(sibling, &hash)
        }
    });
    expect_root(fold_left(below, high), root)
}

/// Checks that the tree of `size_2` leaves with `root_2` begins with that of `size_1` and `root_1`.
///
/// # Errors
/// When it does not, the proof is not of the one length that it must have, or `size_1` is 0: every
/// tree begins with the empty one, and there is nothing to prove.
pub fn verify_consistency(
    size_1: u64,
    root_1: &Hash,
    size_2: u64,
    root_2: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if size_1 == 0 {
        return Err(ProofError::Range);
    }
    let first = Subtree {
        start: 0,
        end: size_1,
    };
    verify_subtree_consistency(first, root_1, size_2, root_2, proof)
}

/// Checks that `leaf` is the leaf at `index` of the tree, in the subtree with root `root`.
///
/// # Errors
/// As [`verify_inclusion`], and when the range is no subtree or does not hold the index.
pub fn verify_subtree_inclusion(
    index: u64,
    subtree: Subtree,
    leaf: &Hash,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if !subtree.is_valid() || index < subtree.start {
        return Err(ProofError::Range);
    }
    verify_inclusion(index - subtree.start, subtree.len(), leaf, proof, root)
}

/// Checks that the tree of `size` leaves with root `root` holds the subtree with root `subtree_root`.
///
/// The empty subtree has the empty root and the empty proof, and is part of every tree.
///
/// # Errors
/// When it does not hold it, the range is no subtree of such a tree, or the proof is not of the one
/// length that it must have.
pub fn verify_subtree_consistency(
    subtree: Subtree,
    subtree_root: &Hash,
    size: u64,
    root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    let Subtree { start, end } = subtree;
    if start > end || end > size || size > SIZE_MAX {
        return Err(ProofError::Range);
    }
    if subtree.is_empty() {
        split_exactly(proof, 0, 0)?;
        return expect_root(EMPTY_ROOT, subtree_root);
    }
    if !subtree.is_valid() {
        return Err(ProofError::Range);
    }
    let height = bit_length((end - 1) ^ start);
    if end == size {
        let (_none, left) = split_exactly(proof, 0, (start >> height).count_ones() as usize)?;
        return expect_root(fold_left(*subtree_root, left), root);
    }
    let last = end - 1;
    let shift = subtree.len().trailing_zeros();
    let fork = bit_length(last ^ (size - 1));
    let inner = fork - shift as usize;
    let border = (last >> fork).count_ones() as usize;
    let (seed, path) = if subtree.len().is_power_of_two() {
        (*subtree_root, proof)
    } else {
        match proof.split_first() {
            Some((seed, path)) => (*seed, path),
            None => {
                return Err(ProofError::Length {
                    expected: 1 + inner + border,
                    found: 0,
                });
            }
        }
    };
    let (low, high) = split_exactly(path, inner, border)?;
    let is_right = |level: usize| (last >> shift) >> level & 1 == 1;

    // The subtree takes part in the path up to its own height; above it, all siblings are outside.
    let own_low = height.min(fork) - shift as usize;
    let above = (last >> height).count_ones() as usize;
    let own_high = border.saturating_sub(above);
    let within = zip(0.., &low[..own_low])
        .filter(|(level, _sibling)| is_right(*level))
        .fold(seed, |hash, (_level, left)| node_hash(left, &hash));
    expect_root(fold_left(within, &high[..own_high]), subtree_root)?;

    let below = zip(0.., low).fold(seed, |hash, (level, sibling)| {
        if is_right(level) {
            node_hash(sibling, &hash)
        } else {
            node_hash(&hash, sibling)
        }
    });
    expect_root(fold_left(below, high), root)
}

/// Splits a proof into its part below the fork and its part above it; nothing may be left over.
fn split_exactly(
    proof: &[Hash],
    inner: usize,
    border: usize,
) -> Result<(&[Hash], &[Hash]), ProofError> {
    if proof.len() != inner + border {
        return Err(ProofError::Length {
            expected: inner + border,
            found: proof.len(),
        });
    }
    Ok(proof.split_at(inner))
}

fn fold_left(hash: Hash, lefts: &[Hash]) -> Hash {
    lefts
        .iter()
        .fold(hash, |right, left| node_hash(left, &right))
}

fn expect_root(computed: Hash, root: &Hash) -> Result<(), ProofError> {
    if computed == *root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

fn bit_length(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()) as usize
}
