//! What the rest of the node sees of the mesh.

use std::sync::Arc;

use openfang_id::{NetAddr, NodeId, Transport};

use super::SignedRecord;
use crate::heads::{Conviction, HeadView};

/// The mesh at one moment: this node and every other one it knows, by ascending id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// This node.
    pub me: NodeId,
    /// All nodes, this one among them.
    pub nodes: Vec<NodeView>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Which.
    pub id: NodeId,
    /// What it says of itself.
    pub record: Arc<SignedRecord>,
    /// Whether it lives.
    pub liveness: Liveness,
    /// The link in use, when there is one.
    pub link: Option<LinkView>,
    /// What is held of its audit log.
    pub head: HeadView,
    /// The evidence that convicts it, if any does.
    pub convicted: Option<Conviction>,
}

/// Whether a node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// This node.
    Me,
    /// It lives.
    Alive,
    /// It may be dead: it has been accused or lost, and time to answer is running.
    Suspect,
    /// It is dead. It is still dialed, and kept for a day.
    Dead,
    /// It has left on purpose.
    Left,
}

/// A link to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// What carries it.
    pub transport: Transport,
    /// The address it was dialed at, or that it comes from.
    pub addr: Option<NetAddr>,
    /// Whether this node dialed.
    pub dialed: bool,
    /// The last round trip in milliseconds; `None` before the first.
    pub rtt_ms: Option<u32>,
    /// Since when: Unix milliseconds by the clock of this node when it started.
    pub since_ms: u64,
}

impl Liveness {
    /// Returns the name used in the API: `alive`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Me => "me",
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }

    /// Tells whether a message to the node may arrive.
    #[must_use]
    pub fn is_reachable(self) -> bool {
        matches!(self, Self::Me | Self::Alive | Self::Suspect)
    }
}

impl View {
    /// Finds a node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&NodeView> {
        let at = self.nodes.binary_search_by(|node| node.id.cmp(id)).ok()?;
        self.nodes.get(at)
    }
}
