//! What one key has signed of one log, and the contradiction when there is one.
//!
//! Whoever sees heads shows them to a [`Watch`]; it remembers the last of them, and gives the evidence
//! as soon as two cannot both be true. Heads that only grow are never evidence, in whatever order they
//! come. Heads of different sizes that do not continue each other are not noticed here: that takes the
//! trees, see [`Evidence::fork`].

use std::collections::VecDeque;

use super::{Accused, Evidence, Statement};
use crate::Hash;
use crate::cosign::{LogName, TreeHead};
use crate::note::{Note, Signature};

/// How many heads are remembered: 8 KiB. The newest ones say most, because who goes back contradicts
/// the last head first.
pub const WATCHED_MAX: usize = 64;

/// The last heads of one log that one key has signed.
#[derive(Debug, Clone)]
pub struct Watch {
    accused: Accused,
    origin: LogName,
    seen: VecDeque<Seen>,
}

/// One head, as short as can be: the note is made of it again when it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    size: u64,
    root: Hash,
    /// Of a cosignature; 0 for a log, which states none.
    time: u64,
    signature: Box<[u8]>,
}

impl Watch {
    /// Watches what a key signs of a log.
    #[must_use]
    pub fn new(accused: Accused, origin: LogName) -> Self {
        Self {
            accused,
            origin,
            seen: VecDeque::new(),
        }
    }

    /// Returns whose key is watched.
    #[must_use]
    pub fn accused(&self) -> &Accused {
        &self.accused
    }

    /// Takes a note. Returns evidence when the key has signed it and an earlier one that contradicts
    /// it. Notes of other logs, without a signature of the key, or with one that does not hold, are
    /// passed over.
    pub fn see(&mut self, note: &Note) -> Option<Evidence> {
        let statement = Statement::of(&self.accused, note).ok()?;
        let [line] = statement.note.signatures() else {
            return None;
        };
        let head = &statement.head;
        if head.origin != self.origin || head.extension_lines().next().is_some() {
            return None;
        }
        let stated = match &self.accused {
            Accused::Log(_) => 0,
            Accused::Cosigner(_) => u64::from_be_bytes(*line.bytes.first_chunk()?),
        };
        let new = Seen {
            size: head.size,
            root: head.root,
            time: stated,
            signature: line.bytes.clone().into(),
        };
        if self.seen.iter().any(|seen| seen.says_the_same(&new)) {
            return None;
        }
        // Checked only once it says something new: notes come again and again.
        self.accused.time(&statement).ok()?;
        let other = self.seen.iter().find(|seen| seen.contradicts(&new));
        let evidence = other.and_then(|other| self.evidence(other, &statement.note));
        if self.seen.len() >= WATCHED_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(new);
        evidence
    }

    fn evidence(&self, seen: &Seen, note: &Note) -> Option<Evidence> {
        let other = self.note_of(seen)?;
        Evidence::of(self.accused.clone(), &other, note, None).ok()
    }

    fn note_of(&self, seen: &Seen) -> Option<Note> {
        let head = TreeHead::plain(self.origin.clone(), seen.size, seen.root);
        let (name, key_id) = match &self.accused {
            Accused::Log(key) => (key.name(), key.key_id()),
            Accused::Cosigner(key) => (key.name(), key.key_id()),
        };
        let line = Signature {
            name: name.to_owned(),
            key_id,
            bytes: seen.signature.to_vec(),
        };
        format!("{head}\n{line}\n").parse().ok()
    }
}

impl Seen {
    fn says_the_same(&self, other: &Self) -> bool {
        (self.size, self.root, self.time) == (other.size, other.root, other.time)
    }

    fn contradicts(&self, other: &Self) -> bool {
        let two_roots = self.size == other.size && self.root != other.root;
        let back = |first: &Self, then: &Self| then.time > first.time && then.size < first.size;
        two_roots || back(self, other) || back(other, self)
    }
}

#[cfg(test)]
mod tests {
    use openfang_id::{NodeId, NodeSeed};

    use super::*;
    use crate::cosign::{Cosigner, Role};
    use crate::evidence::EvidenceKind;
    use crate::note::Verifier;
    use crate::tree::{leaf_hash, root_of};
    use crate::{Checkpoint, Origin, SignedHead, mesh_name};

    fn node() -> NodeId {
        NodeSeed::from_bytes([1; 32]).keys().node_id()
    }

    /// A head of a tree of which the entries from `fork` on are another story, with a cosignature of
    /// its own node at a time.
    fn head(size: u64, fork: u64, time: u64) -> Note {
        let keys = NodeSeed::from_bytes([1; 32]).keys();
        let leaves: Vec<_> = (0..size)
            .map(|at| leaf_hash(format!("{at} {}", at >= fork).as_bytes()))
            .collect();
        let checkpoint = Checkpoint {
            origin: Origin::of(&node(), 1),
            size,
            root: root_of(&leaves),
        };
        let cosigner = Cosigner::of(&node(), Role::Witness, keys.witness.clone());
        let line = cosigner.cosign(&(&checkpoint).into(), time);
        let mut note: Note = SignedHead::sign(checkpoint, &keys.log)
            .note
            .parse()
            .expect("a note");
        note.add(line.expect("a time")).expect("room");
        note
    }

    fn watches() -> [Watch; 2] {
        let keys = NodeSeed::from_bytes([1; 32]).keys();
        let origin = Origin::of(&node(), 1);
        let log = Verifier::new(origin.as_str(), keys.log.verifying_key()).expect("a name");
        let own = Cosigner::of(&node(), Role::Witness, keys.witness);
        let cosigner = Accused::Cosigner(own.public().clone());
        [Accused::Log(log), cosigner].map(|accused| Watch::new(accused, (&origin).into()))
    }

    #[test]
    fn what_only_grows_is_no_evidence_in_whatever_order_it_comes() {
        let mut sizes: Vec<u64> = (0..40).collect();
        for turn in 0..4 {
            sizes.rotate_left(13);
            for mut watch in watches() {
                for size in &sizes {
                    let note = head(*size, 99, 100 + size);
                    assert_eq!(watch.see(&note), None, "turn {turn} size {size}");
                    assert_eq!(watch.see(&note), None, "the same again");
                    // The same head, cosigned anew.
                    assert_eq!(watch.see(&head(*size, 99, 100 + size)), None);
                }
            }
        }
    }

    #[test]
    fn two_roots_for_one_size_are_evidence_of_both_keys() {
        for mut watch in watches() {
            assert_eq!(watch.see(&head(9, 99, 5)), None);
            assert_eq!(watch.see(&head(20, 99, 6)), None);
            let evidence = watch.see(&head(9, 4, 5)).expect("evidence");
            assert_eq!(Evidence::open(&evidence.to_bytes()), Ok(evidence.clone()));
            assert_eq!(evidence.accused(), watch.accused());
            assert_eq!(evidence.accused_name(), mesh_name(&node()));
        }
    }

    #[test]
    fn going_back_is_evidence_of_the_key_that_states_a_time_and_of_no_other() {
        let [mut log, mut own] = watches();
        let (long, short) = (head(20, 99, 100), head(10, 99, 101));
        assert_eq!((log.see(&long), log.see(&short)), (None, None));
        assert_eq!(own.see(&long), None);
        let evidence = own.see(&short).expect("evidence");
        assert_eq!(evidence.kind(), EvidenceKind::Cosigner);
        assert_eq!(Evidence::open(&evidence.to_bytes()), Ok(evidence));
        // The other way round, and within one second.
        let [_log, mut own] = watches();
        assert_eq!(own.see(&short), None);
        assert!(own.see(&long).is_some());
        let [_log, mut own] = watches();
        assert_eq!(own.see(&head(20, 99, 100)), None);
        assert_eq!(own.see(&head(10, 99, 100)), None);
    }

    #[test]
    fn forged_lines_and_other_logs_are_passed_over() {
        let [mut log, mut own] = watches();
        for watch in [&mut log, &mut own] {
            assert_eq!(watch.see(&head(9, 99, 5)), None);
        }
        let text = head(9, 4, 5).to_string();
        let forged = text.replacen("\n9\n", "\n8\n", 1);
        let other = text.replace("/audit/1", "/audit/2");
        for bad in [forged, other] {
            let note: Note = bad.parse().expect("a note");
            assert_eq!((log.see(&note), own.see(&note)), (None, None));
        }
        // What was forged has left no trace.
        assert_eq!(log.see(&head(8, 99, 5)), None);
    }

    #[test]
    fn a_flood_of_heads_does_not_grow_the_memory() {
        let [mut log, _own] = watches();
        for size in 1..200 {
            log.see(&head(size, 999, 1));
        }
        assert_eq!(log.seen.len(), WATCHED_MAX);
        assert!(log.see(&head(199, 7, 1)).is_some());
    }
}
