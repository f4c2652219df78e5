//! Who is convicted, and by which evidence: for good, whoever brought it.
//!
//! One evidence is enough for a node: the first that is found or heard of counts, and another adds
//! nothing. So all nodes end with the same convicted ones, although perhaps not with the same
//! evidence, and who sends more of it is not even read. A verdict stays for as long as this node runs;
//! the bytes that are passed on are bounded, and so is the number of verdicts.

use std::collections::BTreeMap;
use std::sync::Arc;

use openfang_audit::Hash;
use openfang_audit::evidence::{Evidence, EvidenceKind};
use openfang_id::NodeId;

use crate::roster::Key;

/// The most nodes that are convicted at once: more than a roster holds, because verdicts outlive
/// forgotten nodes.
const CONVICTED_MAX: usize = 8_192;
/// Of how many the evidence is kept to be passed on: 4 MiB of the longest.
pub(crate) const PROOFS_MAX: usize = 1_024;

/// What convicts a node: evidence that anyone can check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conviction {
    /// What its key has done.
    pub kind: EvidenceKind,
    /// The SHA-256 of the evidence: the name of its file.
    pub evidence: Hash,
}

/// The bytes of an evidence that was checked.
pub(crate) type Proof = Arc<[u8]>;

/// Which nodes are worth their place least: the first go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Worth {
    /// It is no part of the mesh.
    Gone,
    /// There never was a link with it.
    Unmet,
    /// There was.
    Met,
}

#[derive(Debug)]
struct Held {
    conviction: Conviction,
    proof: Option<Proof>,
}

/// All that are convicted.
#[derive(Debug, Default)]
pub(crate) struct Convicted {
    held: BTreeMap<Key, Held>,
    proofs: usize,
    changes: u64,
}

impl Convicted {
    /// Returns what convicts a node.
    pub(crate) fn get(&self, key: &Key) -> Option<Conviction> {
        self.held.get(key).map(|held| held.conviction)
    }

    /// Returns the evidence against a node, when it is still kept.
    pub(crate) fn proof(&self, key: &Key) -> Option<&Proof> {
        self.held.get(key)?.proof.as_ref()
    }

    /// Returns everyone who is convicted, by ascending key.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.held.keys()
    }

    /// Returns how often someone was convicted.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Convicts a node by evidence that was checked. Returns its bytes, or `None` when the node is
    /// convicted already, or there is no place for a verdict.
    pub(crate) fn convict(
        &mut self,
        node: NodeId,
        evidence: &Evidence,
        worth: impl Fn(&Key) -> Worth,
    ) -> Option<(Conviction, Proof)> {
        let key = Key::of(&node);
        if self.held.contains_key(&key) || !self.has_place(&worth) {
            return None;
        }
        let proof: Proof = evidence.to_bytes().into();
        let conviction = Conviction {
            kind: evidence.kind(),
            evidence: evidence.id(),
        };
        let kept = self.has_place_for_bytes(worth(&key), &worth);
        self.proofs += usize::from(kept);
        let held = Held {
            conviction,
            proof: kept.then(|| Arc::clone(&proof)),
        };
        self.held.insert(key, held);
        self.changes += 1;
        Some((conviction, proof))
    }

    /// Sees to it that there is a place for one more verdict: of one that is gone, if need be.
    fn has_place(&mut self, worth: impl Fn(&Key) -> Worth) -> bool {
        if self.held.len() < CONVICTED_MAX {
            return true;
        }
        let gone = self.held.keys().find(|key| worth(key) == Worth::Gone);
        let Some(gone) = gone.copied() else {
            return false;
        };
        if let Some(held) = self.held.remove(&gone) {
            self.proofs -= usize::from(held.proof.is_some());
        }
        true
    }

    /// Sees to it that there is a place for one more evidence, in the place of one that is worth less.
    fn has_place_for_bytes(&mut self, new: Worth, worth: impl Fn(&Key) -> Worth) -> bool {
        if self.proofs < PROOFS_MAX {
            return true;
        }
        let kept = self
            .held
            .iter_mut()
            .filter(|(_, held)| held.proof.is_some());
        let least = kept.min_by_key(|(key, _)| worth(key));
        match least {
            Some((key, held)) if worth(key) < new => {
                held.proof = None;
                self.proofs -= 1;
                true
            }
            Some(_) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use openfang_audit::note::Verifier;
    use openfang_audit::{Checkpoint, Origin, SignedHead};
    use openfang_id::{Keys, NodeSeed};

    use super::*;

    fn keys(number: u32) -> Keys {
        let mut seed = [0x77; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        NodeSeed::from_bytes(seed).keys()
    }

    fn evidence(keys: &Keys) -> Evidence {
        let origin = Origin::of(&keys.node_id(), 1);
        let key = Verifier::new(origin.as_str(), keys.log.verifying_key()).expect("a name");
        let [one, other] = [1, 2].map(|root| {
            let checkpoint = Checkpoint {
                origin: origin.clone(),
                size: 9,
                root: Hash::from_bytes([root; 32]),
            };
            let head = SignedHead::sign(checkpoint, &keys.log);
            head.note.parse().expect("a note")
        });
        Evidence::equivocation(&key, &one, &other).expect("evidence")
    }

    #[test]
    fn a_node_is_convicted_once() {
        let mut all = Convicted::default();
        let keys = keys(1);
        let evidence = evidence(&keys);
        let key = Key::of(&keys.node_id());
        let first = all.convict(keys.node_id(), &evidence, |_| Worth::Met);
        let (conviction, proof) = first.expect("news");
        assert_eq!(conviction.evidence, evidence.id());
        assert_eq!(all.proof(&key), Some(&proof));
        assert_eq!(all.convict(keys.node_id(), &evidence, |_| Worth::Met), None);
        assert_eq!((all.get(&key), all.changes()), (Some(conviction), 1));
    }

    #[test]
    fn those_who_were_made_up_do_not_take_the_place_of_those_who_are_there() {
        let mut all = Convicted::default();
        let evidence = evidence(&keys(0));
        let node = |number| keys(number).node_id();
        let bound = u32::try_from(PROOFS_MAX).expect("few");
        for number in 1..=bound {
            let kept = all.convict(node(number), &evidence, |_| Worth::Unmet);
            assert!(kept.is_some());
        }
        // One more of their kind is convicted, and its evidence is not kept.
        let more = node(bound + 1);
        assert!(all.convict(more, &evidence, |_| Worth::Unmet).is_some());
        assert_eq!(all.proof(&Key::of(&more)), None);
        let met = node(bound + 2);
        let worth = |key: &Key| {
            if *key == Key::of(&met) {
                Worth::Met
            } else {
                Worth::Unmet
            }
        };
        assert!(all.convict(met, &evidence, worth).is_some());
        assert!(all.proof(&Key::of(&met)).is_some());
        assert_eq!(all.proofs, PROOFS_MAX);
        assert_eq!(all.keys().count(), PROOFS_MAX + 2, "verdicts stay");
    }
}
