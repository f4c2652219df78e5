//! Construction of proofs from the nodes of a tree.

use std::convert::Infallible;

use super::Subtree;
use crate::Hash;
use crate::tree::{EMPTY_ROOT, fold_peaks, root_of};

/// Where the hashes of a tree come from.
pub trait Nodes {
    /// Why a hash cannot be had.
    type Error;

    /// Returns the root of the perfect subtree over the leaves `index << level .. (index + 1) << level`.
    /// It is asked only for subtrees that are full at the size the proof is built for.
    ///
    /// # Errors
    /// When it cannot be read.
    fn node(&self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// Leaf hashes in memory.
impl Nodes for [Hash] {
    type Error = Infallible;

    fn node(&self, level: u32, index: u64) -> Result<Hash, Infallible> {
        let in_bounds = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.len());
        let start = in_bounds(index << level);
        let end = in_bounds((index + 1) << level);
        Ok(root_of(&self[start..end]))
    }
}

/// Why a proof cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError<E> {
    /// No proof exists for these sizes.
    #[error("no proof exists for these sizes")]
    Range,
    /// A hash of the tree cannot be had.
    #[error("a hash of the tree cannot be read")]
    Nodes(#[source] E),
}

/// Builds the proof that leaf `index` is part of the tree of the first `size` leaves.
///
/// # Errors
/// When `index` is not below `size`, or a hash cannot be had.
pub fn build_inclusion<N: Nodes + ?Sized>(
    nodes: &N,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, BuildError<N::Error>> {
    build_subtree_inclusion(
        nodes,
        index,
        Subtree {
            start: 0,
            end: size,
        },
    )
}

/// Builds the proof that the tree of `size_2` leaves begins with that of `size_1`.
///
/// # Errors
/// When `size_1` is 0 or larger than `size_2`, or a hash cannot be had.
pub fn build_consistency<N: Nodes + ?Sized>(
    nodes: &N,
    size_1: u64,
    size_2: u64,
) -> Result<Vec<Hash>, BuildError<N::Error>> {
    build_subtree_consistency(
        nodes,
        Subtree {
            start: 0,
            end: size_1,
        },
        size_2,
    )
}

/// Builds the proof that leaf `index` of the tree is part of the subtree.
///
/// # Errors
/// When the range is no subtree or does not hold the index, or a hash cannot be had.
pub fn build_subtree_inclusion<N: Nodes + ?Sized>(
    nodes: &N,
    index: u64,
    subtree: Subtree,
) -> Result<Vec<Hash>, BuildError<N::Error>> {
    let Subtree { mut start, mut end } = subtree;
    if !subtree.is_valid() || index < start || index >= end {
        return Err(BuildError::Range);
    }
    let mut from_root = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            from_root.push(subtree_root(nodes, middle, end)?);
            end = middle;
        } else {
            from_root.push(subtree_root(nodes, start, middle)?);
            start = middle;
        }
    }
    from_root.reverse();
    Ok(from_root)
}

/// Builds the proof that the tree of the first `size` leaves holds the subtree.
///
/// # Errors
/// When the range is no subtree of such a tree, or a hash cannot be had.
pub fn build_subtree_consistency<N: Nodes + ?Sized>(
    nodes: &N,
    subtree: Subtree,
    size: u64,
) -> Result<Vec<Hash>, BuildError<N::Error>> {
    if !subtree.is_valid() || subtree.end > size {
        return Err(BuildError::Range);
    }
    let Subtree {
        start: mut wanted,
        end: wanted_end,
    } = subtree;
    let (mut start, mut end) = (0, size);
    // Whoever checks knows the root of the whole subtree, but not of a part of it.
    let mut known = true;
    let mut from_root = Vec::new();
    while (wanted, wanted_end) != (start, end) {
        let middle = start + split(end - start);
        if wanted_end <= middle {
            from_root.push(subtree_root(nodes, middle, end)?);
            end = middle;
        } else {
            from_root.push(subtree_root(nodes, start, middle)?);
            start = middle;
            if wanted < middle {
                wanted = middle;
                known = false;
            }
        }
    }
    if !known {
        from_root.push(subtree_root(nodes, start, end)?);
    }
    from_root.reverse();
    Ok(from_root)
}

/// Returns the root over the leaves `start..end`, which must be a subtree, or empty.
///
/// # Errors
/// When a hash cannot be had.
pub fn subtree_root<N: Nodes + ?Sized>(
    nodes: &N,
    start: u64,
    end: u64,
) -> Result<Hash, BuildError<N::Error>> {
    let mut peaks = Vec::new();
    let mut at = start;
    while at < end {
        let level = (end - at).ilog2();
        peaks.push(nodes.node(level, at >> level).map_err(BuildError::Nodes)?);
        at += 1 << level;
    }
    Ok(fold_peaks(peaks.iter().rev()).unwrap_or(EMPTY_ROOT))
}

/// Returns the largest power of two below `size`, which must be at least 2.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}
