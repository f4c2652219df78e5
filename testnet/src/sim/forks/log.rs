//! The log of a simulated node: its history, and the heads it signs.

use openfang_audit::cosign::{Cosigner, Role};
use openfang_audit::note::Note;
use openfang_audit::proof::build_consistency;
use openfang_audit::tree::{leaf_hash, root_of};
use openfang_audit::{Checkpoint, Hash, Origin, SignedHead};
use openfang_id::Keys;
use openfang_ofp::heads::CannotProve;
use openfang_ofp::roster::Rng;

/// The entries of a log, as their hashes.
#[derive(Debug, Clone, Default)]
pub(super) struct History(Vec<Hash>);

impl History {
    /// Returns how many entries there are.
    pub(super) fn size(&self) -> usize {
        self.0.len()
    }

    /// Returns the nodes of the tree.
    pub(super) fn nodes(&self) -> &[Hash] {
        &self.0
    }

    /// Adds entries that no other history has.
    pub(super) fn grow(&mut self, count: usize, rng: &mut Rng) {
        let new = (0..count).map(|_nth| leaf_hash(&rng.bits().to_be_bytes()));
        self.0.extend(new);
    }

    /// Returns the same history up to a size.
    pub(super) fn cut(&self, size: usize) -> Self {
        Self(self.0[..size.min(self.0.len())].to_vec())
    }

    /// Tells whether this is the history of a head.
    pub(super) fn is_of(&self, head: &SignedHead) -> bool {
        let size = usize::try_from(head.checkpoint.size).unwrap_or(usize::MAX);
        let begin = self.0.get(..size);
        begin.is_some_and(|begin| root_of(begin) == head.checkpoint.root)
    }

    /// Proves that it has only grown, as an honest log does.
    pub(super) fn prove(&self, from: u64, to: u64) -> Result<Vec<Hash>, CannotProve> {
        let have = u64::try_from(self.0.len()).unwrap_or(u64::MAX);
        if to > have {
            return Err(CannotProve::Behind { have });
        }
        build_consistency(self.nodes(), from, to).map_err(|_range| CannotProve::Range)
    }

    /// Signs a head over the first entries, and cosigns it at a time, when one is given.
    pub(super) fn head(&self, keys: &Keys, size: usize, time: Option<u64>) -> SignedHead {
        let begin = &self.0[..size];
        let checkpoint = Checkpoint {
            origin: Origin::of(&keys.node_id(), 1),
            size: u64::try_from(begin.len()).unwrap_or(u64::MAX),
            root: root_of(begin),
        };
        let head = SignedHead::sign(checkpoint, &keys.log);
        let Some(time) = time else {
            return head;
        };
        let cosigner = Cosigner::of(&keys.node_id(), Role::Witness, keys.witness.clone());
        let line = cosigner.cosign(&(&head.checkpoint).into(), time);
        let note = head.note.parse::<Note>().ok().zip(line);
        let cosigned = note.and_then(|(mut note, line)| note.add(line).ok().map(|()| note));
        match cosigned {
            Some(note) => SignedHead {
                note: note.to_string(),
                ..head
            },
            None => head,
        }
    }
}
