//! What the tests of the formats share: small logs that grow, sign, and fork on demand.

use openfang_id::{Keys, NodeSeed, SigningKey};

use crate::cosign::{Cosigner, LogName, Role, TreeHead};
use crate::note::{Note, Verifier};
use crate::proof::{build_consistency, build_inclusion};
use crate::tree::{leaf_hash, root_of};
use crate::{Checkpoint, Hash, Origin, SignedHead};

/// A log in memory, with whatever entries.
#[derive(Debug, Clone)]
pub(crate) struct TestLog {
    pub(crate) origin: Origin,
    pub(crate) key: SigningKey,
    pub(crate) entries: Vec<Vec<u8>>,
}

pub(crate) fn keys(seed: u8) -> Keys {
    NodeSeed::from_bytes([seed; 32]).keys()
}

/// The witness of a node.
pub(crate) fn cosigner(seed: u8) -> Cosigner {
    let keys = keys(seed);
    Cosigner::of(&keys.node_id(), Role::Witness, keys.witness)
}

impl TestLog {
    pub(crate) fn new(seed: u8, entries: usize) -> Self {
        let keys = keys(seed);
        let mut log = Self {
            origin: Origin::of(&keys.node_id(), 1),
            key: keys.log,
            entries: Vec::new(),
        };
        log.grow(entries, "entry");
        log
    }

    pub(crate) fn grow(&mut self, by: usize, text: &str) {
        for _more in 0..by {
            let entry = format!("{text} {}", self.entries.len());
            self.entries.push(entry.into_bytes());
        }
    }

    /// The same key and name, and other entries from a place on.
    pub(crate) fn forked_at(&self, index: usize) -> Self {
        let mut fork = self.clone();
        fork.entries.truncate(index);
        fork.grow(self.entries.len() - index, "another");
        fork
    }

    pub(crate) fn name(&self) -> LogName {
        (&self.origin).into()
    }

    pub(crate) fn verifier(&self) -> Verifier {
        Verifier::new(self.origin.as_str(), self.key.verifying_key()).expect("a valid name")
    }

    pub(crate) fn leaves(&self, size: u64) -> Vec<Hash> {
        let size = usize::try_from(size).expect("small");
        let entries = self.entries[..size].iter();
        entries.map(|entry| leaf_hash(entry)).collect()
    }

    pub(crate) fn head(&self, size: u64) -> TreeHead {
        (&self.checkpoint(size)).into()
    }

    fn checkpoint(&self, size: u64) -> Checkpoint {
        Checkpoint {
            origin: self.origin.clone(),
            size,
            root: root_of(&self.leaves(size)),
        }
    }

    /// The signed head of a size.
    pub(crate) fn note(&self, size: u64) -> Note {
        let head = SignedHead::sign(self.checkpoint(size), &self.key);
        head.note.parse().expect("a note")
    }

    /// The signed head of a size, cosigned by witnesses at a time each.
    pub(crate) fn cosigned(&self, size: u64, by: &[(&Cosigner, u64)]) -> Note {
        let mut note = self.note(size);
        for (cosigner, time) in by {
            let line = cosigner.cosign(&self.head(size), *time).expect("a time");
            note.add(line).expect("room for a line");
        }
        note
    }

    pub(crate) fn inclusion(&self, index: u64, size: u64) -> Vec<Hash> {
        build_inclusion(self.leaves(size).as_slice(), index, size).expect("an index below the size")
    }

    pub(crate) fn consistency(&self, from: u64, to: u64) -> Vec<Hash> {
        if from == 0 {
            return Vec::new();
        }
        build_consistency(self.leaves(to).as_slice(), from, to).expect("growing sizes")
    }
}
