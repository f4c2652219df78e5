//! Where two trees differ first.

use crate::proof::{Nodes, Subtree};
use crate::tree::SIZE_MAX;

/// A perfect subtree: the leaves `index << level .. (index + 1) << level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coordinate {
    /// Its height: 0 for a leaf.
    pub level: u32,
    /// Its place among those of its height.
    pub index: u64,
}

/// Why two trees cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescentError<E> {
    /// A node of one of them cannot be had.
    #[error("a hash of the tree cannot be read")]
    Nodes(#[source] E),
    /// Two nodes differ and their children do not.
    #[error("the hashes of a source contradict each other")]
    Source,
}

impl Coordinate {
    /// Returns the leaves, or `None` when no tree is that large.
    #[must_use]
    pub fn subtree(self) -> Option<Subtree> {
        let Self { level, index } = self;
        let span = 1_u64.checked_shl(level).filter(|span| *span <= SIZE_MAX)?;
        let end = index.checked_add(1)?.checked_mul(span)?;
        (end <= SIZE_MAX).then_some(Subtree {
            start: end - span,
            end,
        })
    }

    fn children(self) -> Option<[Self; 2]> {
        let level = self.level.checked_sub(1)?;
        let left = self.index << 1;
        Some([left, left + 1].map(|index| Self { level, index }))
    }
}

/// Finds the first of `size` leaves in which two trees differ; both must have that many. A few nodes a
/// level are asked for.
///
/// # Errors
/// When a node cannot be had, or the nodes of a tree do not belong together.
pub fn first_difference<N: Nodes + ?Sized>(
    a: &N,
    b: &N,
    size: u64,
) -> Result<Option<u64>, DescentError<N::Error>> {
    let path = descend(a, b, size)?;
    Ok(path.last().map(|leaf| leaf.index))
}

/// Returns the perfect subtrees that differ and hold the first differing leaf, from the largest one
/// down to the leaf itself; nothing when the first `size` leaves are the same.
pub(super) fn descend<N: Nodes + ?Sized>(
    a: &N,
    b: &N,
    size: u64,
) -> Result<Vec<Coordinate>, DescentError<N::Error>> {
    let differs = |at: Coordinate| -> Result<bool, DescentError<N::Error>> {
        let of = |nodes: &N| nodes.node(at.level, at.index).map_err(DescentError::Nodes);
        Ok(of(a)? != of(b)?)
    };
    let mut path = Vec::new();
    let mut start = 0;
    while start < size && path.is_empty() {
        let level = (size - start).ilog2();
        let peak = Coordinate {
            level,
            index: start >> level,
        };
        if differs(peak)? {
            path.push(peak);
        }
        start += 1 << level;
    }
    while let Some([left, right]) = path.last().copied().and_then(Coordinate::children) {
        let next = if differs(left)? {
            left
        } else if differs(right)? {
            right
        } else {
            return Err(DescentError::Source);
        };
        path.push(next);
    }
    Ok(path)
}
