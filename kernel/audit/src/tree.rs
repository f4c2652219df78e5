//! Hashes of leaves and nodes, and the compact range that appends to a tree.
//!
//! RFC 6962 §2.1. A leaf is hashed behind the byte 0x00 and a node behind 0x01, so that no leaf can
//! be taken for a node. A tree of n > 1 leaves splits at the largest power of two below n.

use sha2::{Digest as _, Sha256};

use crate::Hash;

/// Root of the tree without leaves: SHA-256 of nothing.
pub const EMPTY_ROOT: Hash = Hash::from_bytes([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// The largest size of a tree: sizes travel as signed 64-bit numbers in some implementations.
pub const SIZE_MAX: u64 = i64::MAX as u64;

const LEAF_PREFIX: [u8; 1] = [0x00];
const NODE_PREFIX: u8 = 0x01;

/// Hashes an entry: SHA-256(0x00 || entry).
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(LEAF_PREFIX);
    hasher.update(entry);
    Hash::from_bytes(hasher.finalize().into())
}

/// Hashes an inner node: SHA-256(0x01 || left || right).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut message = [NODE_PREFIX; 1 + 2 * Hash::BYTES];
    message[1..=Hash::BYTES].copy_from_slice(left.as_bytes());
    message[1 + Hash::BYTES..].copy_from_slice(right.as_bytes());
    Hash::from_bytes(Sha256::digest(message).into())
}

/// Returns the root of the perfect or ragged tree over these leaf hashes.
#[must_use]
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut range = Compact::default();
    for leaf in leaves {
        range.push(*leaf);
    }
    range.root()
}

/// The least that must be kept of a tree to append to it: one root of a perfect subtree for every
/// one-bit of the size, the largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compact {
    size: u64,
    peaks: Vec<Hash>,
}

impl Compact {
    /// Takes the roots of the perfect subtrees of so many leaves, the largest first.
    pub(crate) fn of_peaks(size: u64, peaks: Vec<Hash>) -> Self {
        debug_assert_eq!(size.count_ones() as usize, peaks.len());
        Self { size, peaks }
    }

    /// Returns the number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _full_level in 0..self.size.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Returns the root.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold_peaks(self.peaks.iter().rev()).unwrap_or(EMPTY_ROOT)
    }
}

/// Joins the roots of perfect subtrees, given from the smallest (rightmost) to the largest.
pub(crate) fn fold_peaks<'a>(from_right: impl Iterator<Item = &'a Hash>) -> Option<Hash> {
    let mut peaks = from_right;
    let last = *peaks.next()?;
    Some(peaks.fold(last, |right, left| node_hash(left, &right)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_root_is_the_hash_of_nothing() {
        assert_eq!(EMPTY_ROOT.as_bytes(), Sha256::digest([]).as_slice());
        assert_eq!(Compact::default().root(), EMPTY_ROOT);
    }

    /// `testonly/constants.go` of transparency-dev/merkle: eight leaves and the root at each size.
    #[test]
    fn the_reference_roots_hold() {
        let leaves: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "6e340b9c", "fac54203", "aeb6bcfe", "d37ee418", "4e3bbb1f", "76e67dad", "ddb89be4",
            "5dc9da79",
        ];
        let mut range = Compact::default();
        for (at, (leaf, root)) in leaves.iter().zip(roots).enumerate() {
            range.push(leaf_hash(leaf));
            assert_eq!(range.size(), at as u64 + 1);
            assert_eq!(range.root().fmt_short(), root, "size {}", at + 1);
        }
        assert_eq!(
            range.root().to_string(),
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
        );
    }
}
