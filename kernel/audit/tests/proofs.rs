//! Proofs against a recursive reference that follows the definitions of RFC 6962 word by word.

use openfang_audit::Hash;
use openfang_audit::proof::{
    ProofError, Subtree, build_consistency, build_inclusion, build_subtree_consistency,
    build_subtree_inclusion, subtree_root, verify_consistency, verify_inclusion,
    verify_subtree_consistency, verify_subtree_inclusion,
};
use openfang_audit::tree::{Compact, EMPTY_ROOT, leaf_hash, node_hash};
use proptest::prelude::*;

/// Every pair of sizes and indexes up to this is tried.
const EXHAUSTIVE: usize = 300;

struct Reference {
    leaves: Vec<Hash>,
    /// Roots over `[start, end)`, computed once.
    roots: Vec<Option<Hash>>,
}

impl Reference {
    fn new(size: usize) -> Self {
        let leaves = (0..size).map(|at| leaf_hash(&at.to_be_bytes()));
        Self {
            leaves: leaves.collect(),
            roots: vec![None; (size + 1) * (size + 1)],
        }
    }

    fn split(len: usize) -> usize {
        let mut half = 1;
        while half * 2 < len {
            half *= 2;
        }
        half
    }

    /// MTH(D[start:end]).
    fn root(&mut self, start: usize, end: usize) -> Hash {
        let slot = start * (self.leaves.len() + 1) + end;
        if let Some(root) = self.roots[slot] {
            return root;
        }
        let root = match end - start {
            0 => EMPTY_ROOT,
            1 => self.leaves[start],
            len => {
                let middle = start + Self::split(len);
                node_hash(&self.root(start, middle), &self.root(middle, end))
            }
        };
        self.roots[slot] = Some(root);
        root
    }

    /// PATH(index, D[start:end]).
    fn path(&mut self, index: usize, start: usize, end: usize) -> Vec<Hash> {
        if end - start == 1 {
            return Vec::new();
        }
        let middle = start + Self::split(end - start);
        let (mut path, sibling) = if index < middle {
            (self.path(index, start, middle), self.root(middle, end))
        } else {
            (self.path(index, middle, end), self.root(start, middle))
        };
        path.push(sibling);
        path
    }

    /// SUBTREE_SUBPROOF(from, to, D[start:end], known); SUBPROOF is the case `from == start`.
    fn subproof(
        &mut self,
        range: (usize, usize),
        within: (usize, usize),
        known: bool,
    ) -> Vec<Hash> {
        let ((from, to), (start, end)) = (range, within);
        if range == within {
            return if known {
                Vec::new()
            } else {
                vec![self.root(start, end)]
            };
        }
        let middle = start + Self::split(end - start);
        let (mut proof, sibling) = if to <= middle {
            let proof = self.subproof(range, (start, middle), known);
            (proof, self.root(middle, end))
        } else if from >= middle {
            let proof = self.subproof(range, (middle, end), known);
            (proof, self.root(start, middle))
        } else {
            let proof = self.subproof((middle, to), (middle, end), false);
            (proof, self.root(start, middle))
        };
        proof.push(sibling);
        proof
    }
}

#[test]
fn every_inclusion_proof_agrees_with_the_reference() {
    let mut reference = Reference::new(EXHAUSTIVE);
    let leaves = reference.leaves.clone();
    for size in 1..=EXHAUSTIVE {
        let root = reference.root(0, size);
        for index in 0..size {
            let expected = reference.path(index, 0, size);
            let built = build_inclusion(leaves.as_slice(), index as u64, size as u64);
            assert_eq!(built.as_ref(), Ok(&expected), "index {index} of {size}");
            let leaf = &leaves[index];
            assert_eq!(
                verify_inclusion(index as u64, size as u64, leaf, &expected, &root),
                Ok(()),
                "index {index} of {size}"
            );
        }
    }
}

#[test]
fn every_consistency_proof_agrees_with_the_reference() {
    let mut reference = Reference::new(EXHAUSTIVE);
    let leaves = reference.leaves.clone();
    for size_2 in 1..=EXHAUSTIVE {
        let root_2 = reference.root(0, size_2);
        for size_1 in 1..=size_2 {
            let root_1 = reference.root(0, size_1);
            let expected = reference.subproof((0, size_1), (0, size_2), true);
            let (m, n) = (size_1 as u64, size_2 as u64);
            let built = build_consistency(leaves.as_slice(), m, n);
            assert_eq!(built.as_ref(), Ok(&expected), "{m} to {n}");
            assert_eq!(
                verify_consistency(m, &root_1, n, &root_2, &expected),
                Ok(()),
                "{m} to {n}"
            );
        }
    }
}

#[test]
fn every_subtree_proof_agrees_with_the_reference() {
    const SIZE: usize = 70;
    let mut reference = Reference::new(SIZE);
    let leaves = reference.leaves.clone();
    let mut subtrees = 0;
    for size in 1..=SIZE {
        let root = reference.root(0, size);
        for start in 0..size {
            for end in start + 1..=size {
                let subtree = Subtree {
                    start: start as u64,
                    end: end as u64,
                };
                if !subtree.is_valid() {
                    let built = build_subtree_consistency(leaves.as_slice(), subtree, size as u64);
                    assert!(built.is_err(), "{subtree:?}");
                    continue;
                }
                subtrees += 1;
                let inner = reference.root(start, end);
                assert_eq!(
                    subtree_root(leaves.as_slice(), subtree.start, subtree.end),
                    Ok(inner)
                );
                let expected = reference.subproof((start, end), (0, size), true);
                let built = build_subtree_consistency(leaves.as_slice(), subtree, size as u64);
                assert_eq!(built.as_ref(), Ok(&expected), "{subtree:?} of {size}");
                assert_eq!(
                    verify_subtree_consistency(subtree, &inner, size as u64, &root, &expected),
                    Ok(()),
                    "{subtree:?} of {size}"
                );
                let index = (start + end) / 2;
                let path = reference.path(index, start, end);
                let built = build_subtree_inclusion(leaves.as_slice(), index as u64, subtree);
                assert_eq!(built.as_ref(), Ok(&path));
                assert_eq!(
                    verify_subtree_inclusion(index as u64, subtree, &leaves[index], &path, &inner),
                    Ok(())
                );
            }
        }
    }
    assert_eq!(subtrees, 8_909);
}

#[test]
fn what_has_no_proof_is_refused() {
    let leaf = leaf_hash(b"x");
    let huge = u64::MAX;
    assert_eq!(
        verify_inclusion(1, 1, &leaf, &[], &leaf),
        Err(ProofError::Range)
    );
    assert_eq!(
        verify_inclusion(0, 0, &leaf, &[], &leaf),
        Err(ProofError::Range)
    );
    assert_eq!(
        verify_inclusion(0, huge, &leaf, &[], &leaf),
        Err(ProofError::Range)
    );
    assert_eq!(
        verify_consistency(0, &leaf, 1, &leaf, &[]),
        Err(ProofError::Range)
    );
    assert_eq!(
        verify_consistency(2, &leaf, 1, &leaf, &[]),
        Err(ProofError::Range)
    );
    assert_eq!(
        verify_consistency(1, &leaf, huge, &leaf, &[]),
        Err(ProofError::Range)
    );
    assert_eq!(verify_consistency(5, &leaf, 5, &leaf, &[]), Ok(()));
    assert_eq!(
        verify_consistency(3, &leaf, 5, &leaf, &[]),
        Err(ProofError::Length {
            expected: 4,
            found: 0
        })
    );
    let half = 1 << 62;
    let one = Subtree {
        start: half,
        end: half + 1,
    };
    assert!(verify_subtree_consistency(one, &leaf, half + 2, &leaf, &[leaf; 2]).is_err());
}

fn flip(hash: &Hash, bit: usize) -> Hash {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8 % 32] ^= 1 << (bit % 8);
    Hash::from_bytes(bytes)
}

/// Flips one bit of the hashes that a verifier gets.
fn flip_one(hashes: &[Hash], at: usize, bit: usize) -> Vec<Hash> {
    let mut flipped = hashes.to_vec();
    let at = at % flipped.len();
    flipped[at] = flip(&flipped[at], bit);
    flipped
}

proptest! {
    #[test]
    fn every_flipped_bit_of_an_inclusion_proof_fails(
        size in 1_u64..3_000, index: u64, at: usize, bit in 0_usize..256,
    ) {
        let leaves: Vec<_> = (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let index = index % size;
        let proof = build_inclusion(leaves.as_slice(), index, size).expect("a proof");
        let root = openfang_audit::tree::root_of(&leaves);
        let leaf = leaves[usize::try_from(index).expect("small")];
        prop_assert_eq!(verify_inclusion(index, size, &leaf, &proof, &root), Ok(()));
        let mut all = vec![leaf, root];
        all.extend(&proof);
        let bad = flip_one(&all, at, bit);
        prop_assert!(verify_inclusion(index, size, &bad[0], &bad[2..], &bad[1]).is_err());
        let mut longer = proof.clone();
        longer.push(leaf);
        prop_assert!(verify_inclusion(index, size, &leaf, &longer, &root).is_err());
    }

    #[test]
    fn every_flipped_bit_of_a_consistency_proof_fails(
        size_2 in 1_u64..3_000, size_1: u64, at: usize, bit in 0_usize..256,
    ) {
        let leaves: Vec<_> = (0..size_2).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let size_1 = 1 + size_1 % size_2;
        let proof = build_consistency(leaves.as_slice(), size_1, size_2).expect("a proof");
        let mut range = Compact::default();
        let mut root_1 = EMPTY_ROOT;
        for leaf in &leaves {
            range.push(*leaf);
            if range.size() == size_1 {
                root_1 = range.root();
            }
        }
        let root_2 = range.root();
        prop_assert_eq!(verify_consistency(size_1, &root_1, size_2, &root_2, &proof), Ok(()));
        let mut all = vec![root_1, root_2];
        all.extend(&proof);
        let bad = flip_one(&all, at, bit);
        prop_assert!(verify_consistency(size_1, &bad[0], size_2, &bad[1], &bad[2..]).is_err());
    }

    #[test]
    fn verifying_never_panics(
        a: u64, b: u64, c: u64, count in 0_usize..70,
    ) {
        let hash = leaf_hash(b"x");
        let proof = vec![hash; count];
        let subtree = Subtree { start: a, end: b };
        let results = [
            verify_inclusion(a, b, &hash, &proof, &hash),
            verify_consistency(a, &hash, b, &hash, &proof),
            verify_subtree_inclusion(c, subtree, &hash, &proof, &hash),
            verify_subtree_consistency(subtree, &hash, c, &hash, &proof),
        ];
        // Only the consistency of a size with itself can hold for such hashes.
        prop_assert!(results.iter().all(Result::is_err) || a == b || b == c);
    }
}
