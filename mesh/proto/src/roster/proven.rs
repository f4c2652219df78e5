//! Evidence on the sync stream: taken, believed, passed on, reconciled.
//!
//! Evidence needs nobody's word, so it may come from anyone, at any time, about anyone: it is checked
//! against the keys that the accused has announced, and convicts. What comes is looked at in the order
//! in which looking costs: whether the accused is convicted already, whether it is a node of this mesh,
//! whether the bearer may bring more now, the form, the key, and the signatures last. Who brings
//! evidence that proves nothing has broken the protocol, because everyone checks before passing on.

use openfang_audit::cosign::{CosignerKey, Role};
use openfang_audit::evidence::{Accused, Evidence};
use openfang_audit::{Origin, mesh_name};
use openfang_id::NodeId;

use super::config::{EVIDENCE_PER_LINK, SUMMARIES_PER_LINK};
use super::state::State;
use super::wire::{self, CONVICTED_MAX};
use super::{Cosigners, Event, Key, LinkId, Offence};
use crate::heads::{PROOFS_MAX, Proof, Worth};

/// Why evidence convicts nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// It proves nothing: whoever brings it has not checked it.
    Forged,
    /// It is not about a key that the accused has announced here.
    Foreign,
}

impl State {
    /// Convicts those whose heads have proved something.
    pub(super) fn convict_found(&mut self) {
        for (key, evidence) in self.book.take_found() {
            if let Some(node) = self.book.node(&key) {
                self.convict(node, &evidence, None);
            }
        }
    }

    /// Takes evidence that is on the disk, or that this node has found: its key was checked then, so
    /// that a witness key that was replaced since counts as well. Against nodes that are not known yet
    /// it waits for them.
    pub(super) fn add_evidence(&mut self, files: &[Vec<u8>]) {
        for file in files {
            let Ok(evidence) = Evidence::open(file) else {
                continue;
            };
            if self.unclaimed.len() < PROOFS_MAX {
                let name = evidence.accused_name().to_owned();
                self.unclaimed.entry(name).or_insert(evidence);
            }
        }
        let me = self.config.me;
        let others = self.table.iter().map(|(key, node)| (*key, node.id));
        let all: Vec<(Key, NodeId)> = others.chain([(self.me, me)]).collect();
        for (key, node) in all {
            self.claim_evidence(&key, &node);
        }
    }

    /// Convicts a node by evidence that has waited for it.
    pub(super) fn claim_evidence(&mut self, key: &Key, node: &NodeId) {
        if self.unclaimed.is_empty() {
            return;
        }
        let Some(evidence) = self.unclaimed.remove(&mesh_name(node)) else {
            return;
        };
        let other_log = match evidence.accused() {
            Accused::Log(of) => {
                (self.book.log_key(key)).is_some_and(|log| log.key != of.key().to_bytes())
            }
            Accused::Cosigner(_) => false,
        };
        if !other_log {
            self.convict(*node, &evidence, None);
        }
    }

    /// Takes evidence that a neighbour has brought.
    pub(super) fn on_proofs(&mut self, link: LinkId, proofs: &[(Key, &[u8])]) {
        let mut news = false;
        for (accused, bytes) in proofs {
            if self.convicted.get(accused).is_some() {
                continue;
            }
            let Some(node) = self.member(accused) else {
                continue;
            };
            let now = self.now;
            let Some(bearer) = self.links.get_mut(link) else {
                return;
            };
            if !bearer.evidence.take(EVIDENCE_PER_LINK, now) {
                break;
            }
            match self.examine(accused, &node, bytes) {
                Ok(evidence) => news |= self.convict(node, &evidence, Some(link)),
                Err(Refused::Foreign) => {}
                Err(Refused::Forged) => return self.offend(link, Offence::ForgedEvidence),
            }
        }
        if news && let Some(link) = self.links.get_mut(link) {
            link.sync.idle = 0;
        }
    }

    /// Returns the id of a node of this mesh, this one among them.
    fn member(&self, key: &Key) -> Option<NodeId> {
        if *key == self.me {
            return Some(self.config.me);
        }
        self.table.get(key).map(|node| node.id)
    }

    fn examine(&self, key: &Key, node: &NodeId, bytes: &[u8]) -> Result<Evidence, Refused> {
        let evidence = Evidence::decode(bytes).map_err(|_form| Refused::Forged)?;
        if !self.is_announced(key, node, evidence.accused()) {
            return Err(Refused::Foreign);
        }
        evidence.verify().map_err(|_nothing| Refused::Forged)?;
        Ok(evidence)
    }

    /// Tells whether a key is one that a node has announced, in the role in which it is accused.
    fn is_announced(&self, key: &Key, node: &NodeId, accused: &Accused) -> bool {
        match accused {
            Accused::Log(of) => {
                let origin = of.name().parse::<Origin>();
                let log = self.book.log_key(key);
                origin.is_ok_and(|origin| origin.belongs_to(node))
                    && log.is_some_and(|log| log.key == of.key().to_bytes())
            }
            Accused::Cosigner(of) => {
                let own = *key == self.me;
                let record = self
                    .table
                    .get(key)
                    .map(|node| node.record.record().cosigners);
                let keys = record.or(own.then_some(self.config.cosigners));
                keys.is_some_and(|keys| cosigns(&keys, node, of))
            }
        }
    }

    /// Convicts a node by evidence that was checked, tells everyone, and forgets nothing. Returns
    /// whether it is news.
    fn convict(&mut self, node: NodeId, evidence: &Evidence, from: Option<LinkId>) -> bool {
        let (me, table) = (self.me, &self.table);
        let worth = |key: &Key| match table.get(key) {
            _own if *key == me => Worth::Met,
            Some(node) if node.met => Worth::Met,
            Some(_) => Worth::Unmet,
            None => Worth::Gone,
        };
        let Some((conviction, proof)) = self.convicted.convict(node, evidence, worth) else {
            return false;
        };
        let key = Key::of(&node);
        self.book.convicted(&key, evidence);
        self.push_proof(key, Proof::clone(&proof), from);
        self.event(Event::Convicted {
            node,
            conviction,
            evidence: proof,
        });
        self.persist_soon();
        true
    }

    /// Returns those of the nodes of this mesh that are convicted, by rising key: what all agree on.
    pub(super) fn convicted_here(&self) -> impl Iterator<Item = &Key> {
        let here = |key: &&Key| **key == self.me || self.table.get(key).is_some();
        self.convicted.keys().filter(here)
    }

    /// Tells a neighbour who is convicted here, if anyone is.
    pub(super) fn send_convicted(&mut self, link: LinkId, reply: bool) {
        let nodes: Vec<Key> = self.convicted_here().take(CONVICTED_MAX).copied().collect();
        if reply || !nodes.is_empty() {
            self.send(link, wire::convicted(reply, &nodes));
        }
    }

    /// Compares whom a neighbour holds evidence against with whom this node does. Sends what it lacks,
    /// one message at a time, and asks for the rest.
    pub(super) fn on_convicted(&mut self, id: LinkId, reply: bool, theirs: &[Key]) {
        let now = self.now;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if !link.summaries.take(SUMMARIES_PER_LINK, now) {
            return;
        }
        let lacking = |key: &&Key| theirs.binary_search(key).is_err();
        let proofs = self.convicted_here().filter(lacking);
        let proofs =
            proofs.filter_map(|key| Some((*key, Proof::clone(self.convicted.proof(key)?))));
        let proofs: Vec<(Key, Proof)> = proofs.take(wire::PROOFS_MAX).collect();
        for frame in wire::proofs(&proofs) {
            self.send(id, frame);
        }
        let new = |key: &Key| self.convicted.get(key).is_none() && self.member(key).is_some();
        if !reply && theirs.iter().any(new) {
            self.send_convicted(id, true);
        }
    }
}

/// Tells whether a key is one with which a node says that it cosigns.
fn cosigns(announced: &Cosigners, node: &NodeId, key: &CosignerKey) -> bool {
    let keys = [
        (Role::Witness, announced.witness),
        (Role::Mirror, announced.mirror),
    ];
    let of = key.key().to_bytes();
    keys.into_iter()
        .any(|(role, announced)| announced == Some(of) && role.name_of(node) == key.name())
}
