//! Watching what keys sign of a log: its own key, and the one with which its node cosigns.

use openfang_audit::cosign::{CosignerKey, Role};
use openfang_audit::evidence::{Accused, Evidence as Proven, Watch};
use openfang_audit::note::{Note, Verifier};
use openfang_audit::{Origin, SignedHead};
use openfang_id::VerifyingKey;

use super::Log;

impl Log {
    /// Begins to watch what the key of the log signs. Returns what the heads that are held prove.
    pub(super) fn watch(&mut self) -> Vec<Proven> {
        let origin = Origin::of(&self.node, self.key.epoch);
        let key = VerifyingKey::from_bytes(self.key.key).ok();
        let key = key.and_then(|key| Verifier::new(origin.as_str(), key));
        self.heads = key.map(|key| Watch::new(Accused::Log(key), (&origin).into()));
        self.look_at_held()
    }

    /// Begins to watch what the node cosigns of its own log. Returns as [`Log::watch`].
    pub(super) fn watch_own(&mut self, witness: Option<[u8; 32]>) -> Vec<Proven> {
        let key = witness.and_then(|key| VerifyingKey::from_bytes(key).ok());
        let key = key.map(|key| Accused::Cosigner(CosignerKey::of(&self.node, Role::Witness, key)));
        if self.own.as_ref().map(Watch::accused) == key.as_ref() {
            return Vec::new();
        }
        let origin = Origin::of(&self.node, self.key.epoch);
        self.own = key.map(|key| Watch::new(key, (&origin).into()));
        self.look_at_held()
    }

    /// Shows a new watch what is held: on the disk there may be what proves something.
    fn look_at_held(&mut self) -> Vec<Proven> {
        let verdict = self.verdict.iter().map(|(_why, evidence)| evidence);
        let shown = verdict.flat_map(|shown| [&shown.accepted, &shown.offending]);
        let held = self.accepted.iter().chain(shown.flatten());
        let held: Vec<SignedHead> = held.cloned().collect();
        held.iter().flat_map(|head| self.look_at(head)).collect()
    }

    /// Tells whether no further head can make a difference.
    pub(super) fn is_settled(&self) -> bool {
        self.is_convicted() && self.heads.is_none()
    }

    /// Shows the watches a head. Returns what it proves together with an earlier one.
    pub(super) fn look_at(&mut self, head: &SignedHead) -> Vec<Proven> {
        let Ok(note) = head.note.parse::<Note>() else {
            return Vec::new();
        };
        let watches = [&mut self.heads, &mut self.own].into_iter().flatten();
        watches.filter_map(|watch| watch.see(&note)).collect()
    }
}
