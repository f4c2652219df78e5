//! Who is kept away: nodes that evidence convicts, unless the operator allows them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use openfang_audit::evidence::file_name;
use openfang_id::NodeId;
use openfang_mesh::Conviction;

/// Who is convicted, and who may be dealt with all the same. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Quarantine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    me: NodeId,
    allowed: BTreeSet<NodeId>,
    convicted: RwLock<BTreeMap<NodeId, Conviction>>,
}

/// A node that is kept away, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Barred {
    pub(crate) node: NodeId,
    pub(crate) conviction: Conviction,
}

impl Quarantine {
    pub(super) fn new(me: NodeId, allowed: BTreeSet<NodeId>) -> Self {
        Self {
            inner: Arc::new(Inner {
                me,
                allowed,
                convicted: RwLock::default(),
            }),
        }
    }

    pub(super) fn convict(&self, node: NodeId, conviction: Conviction) {
        let inner = &self.inner;
        let mut convicted = inner
            .convicted
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        convicted.insert(node, conviction);
    }

    /// Tells whether a node is kept away, and why. This node keeps itself from nothing: others do.
    pub(crate) fn barred(&self, node: &NodeId) -> Option<Barred> {
        if *node == self.inner.me || self.is_allowed(node) {
            return None;
        }
        let convicted = self
            .inner
            .convicted
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let conviction = *convicted.get(node)?;
        Some(Barred {
            node: *node,
            conviction,
        })
    }

    /// Tells whether the operator has allowed a node, whatever it did.
    pub(crate) fn is_allowed(&self, node: &NodeId) -> bool {
        self.inner.allowed.contains(node)
    }

    /// Tells whether this is the node itself.
    pub(crate) fn is_me(&self, node: &NodeId) -> bool {
        self.inner.me == *node
    }
}

impl Barred {
    /// Returns the name of the file that convicts it.
    pub(crate) fn file(&self) -> String {
        file_name(&self.conviction.evidence)
    }
}

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, kind) = (&self.node, self.conviction.kind);
        write!(
            f,
            "node {node} is convicted: {kind}, evidence {}",
            self.file()
        )
    }
}

#[cfg(test)]
mod tests {
    use openfang_audit::Hash;
    use openfang_audit::evidence::EvidenceKind;
    use openfang_id::NodeSeed;

    use super::*;

    #[test]
    fn whoever_is_convicted_is_kept_away_unless_the_operator_allows_it() {
        let node = |byte| NodeSeed::from_bytes([byte; 32]).keys().node_id();
        let quarantine = Quarantine::new(node(1), BTreeSet::from([node(3)]));
        let conviction = Conviction {
            kind: EvidenceKind::Fork,
            evidence: Hash::from_bytes([0xab; 32]),
        };
        let other = quarantine.clone();
        for byte in [1, 2, 3] {
            other.convict(node(byte), conviction);
        }
        let barred = quarantine.barred(&node(2)).expect("convicted");
        let shown = barred.to_string();
        assert!(shown.contains(&node(2).to_string()), "{shown}");
        assert!(
            shown.contains(&format!("fork, evidence {}.json", "ab".repeat(32))),
            "{shown}"
        );
        assert_eq!(quarantine.barred(&node(1)), None, "itself");
        assert_eq!(quarantine.barred(&node(3)), None, "allowed");
        assert_eq!(quarantine.barred(&node(4)), None, "not convicted");
    }
}
