//! The tree of an open log, in memory: enough of it to answer for any size.
//!
//! The roots of all full blocks of 256 leaves and everything above them are kept, a quarter of a byte
//! an entry; inside a full block the leaf hashes are read from the disk and checked against its root.
//! A block is what C2SP tlog-tiles calls a full tile of level 0.

use crate::Hash;
use crate::tree::{Compact, EMPTY_ROOT, fold_peaks, node_hash, root_of};

/// The height of a block in levels.
pub(crate) const BLOCK_LEVEL: u32 = 8;
/// The number of leaves in a block.
pub(crate) const BLOCK_LEAVES: usize = 1 << BLOCK_LEVEL;

/// Something that leaves are pushed onto.
pub(crate) trait Grow {
    fn push(&mut self, leaf: Hash);
    fn root(&self) -> Hash;
}

/// The nodes of level 8 and above, and the leaves of the last block while it is not full.
#[derive(Debug, Default)]
pub(crate) struct Forest {
    last: Vec<Hash>,
    levels: Vec<Vec<Hash>>,
}

impl Forest {
    pub(crate) fn size(&self) -> u64 {
        let full = self.levels.first().map_or(0, Vec::len);
        (full * BLOCK_LEAVES + self.last.len()) as u64
    }

    /// Returns the leaves behind the last full block.
    pub(crate) fn last(&self) -> &[Hash] {
        &self.last
    }

    /// Returns the root of a full block or of a perfect subtree above; `level` counts from the leaves.
    pub(crate) fn upper(&self, level: u32, index: u64) -> Option<Hash> {
        let level = usize::try_from(level.checked_sub(BLOCK_LEVEL)?).ok()?;
        let index = usize::try_from(index).ok()?;
        self.levels.get(level)?.get(index).copied()
    }
}

impl Forest {
    /// Appends a whole block by its root. The last block must be full, or there is none.
    pub(crate) fn push_block(&mut self, block: Hash) {
        debug_assert!(self.last.is_empty());
        let mut root = block;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let row = &mut self.levels[level];
            row.push(root);
            let [.., left, right] = row.as_slice() else {
                return;
            };
            if row.len() % 2 == 1 {
                return;
            }
            root = node_hash(left, right);
        }
    }
}

impl Grow for Forest {
    fn push(&mut self, leaf: Hash) {
        self.last.push(leaf);
        if self.last.len() == BLOCK_LEAVES {
            let block = root_of(&self.last);
            self.last.clear();
            self.push_block(block);
        }
    }

    fn root(&self) -> Hash {
        let last = (!self.last.is_empty()).then(|| root_of(&self.last));
        let odd = self.levels.iter().filter(|row| row.len() % 2 == 1);
        let peaks = odd.filter_map(|row| row.last());
        fold_peaks(last.iter().chain(peaks)).unwrap_or(EMPTY_ROOT)
    }
}

impl Grow for Compact {
    fn push(&mut self, leaf: Hash) {
        Self::push(self, leaf);
    }

    fn root(&self) -> Hash {
        Self::root(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::leaf_hash;

    #[test]
    fn the_forest_agrees_with_the_compact_range() {
        let mut forest = Forest::default();
        let mut range = Compact::default();
        let mut leaves = Vec::new();
        for number in 0_u64..2_100 {
            assert_eq!(forest.root(), range.root(), "size {number}");
            assert_eq!(forest.size(), number);
            let leaf = leaf_hash(&number.to_be_bytes());
            leaves.push(leaf);
            forest.push(leaf);
            Compact::push(&mut range, leaf);
        }
        assert_eq!(forest.upper(8, 3), Some(root_of(&leaves[768..1024])));
        assert_eq!(forest.upper(10, 1), Some(root_of(&leaves[1024..2048])));
        assert_eq!(forest.upper(8, 8), None);
        assert_eq!(forest.upper(11, 1), None);
        assert_eq!(forest.upper(7, 0), None);
        assert_eq!(forest.last(), &leaves[2048..]);
    }
}
