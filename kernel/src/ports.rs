//! What the kernel needs of the world outside its node: who else hosts agents, and how to call them.
//!
//! The node plugs the mesh in here. The kernel names no transport.

use std::fmt;

use futures::future::BoxFuture;
use openfang_id::{AgentId, AgentName, NodeId, NodeKey, NodeName};

use crate::{AgentInfo, AgentState, Delivery, SendError, TurnStream};

/// An agent of another node, as that node announced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAgent {
    /// Its node.
    pub node: NodeId,
    /// What that node calls itself.
    pub node_name: NodeName,
    /// Whether that node can be reached now.
    pub reachable: bool,
    /// Its id.
    pub id: AgentId,
    /// Its name, unique on its node.
    pub name: AgentName,
    /// What it is for.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The tools it may use.
    pub tools: Vec<String>,
    /// Whether it takes messages.
    pub state: AgentState,
    /// What runs it.
    pub module: String,
}

/// What is known of a node that a caller pointed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeLookup {
    /// It is this node.
    Here,
    /// It is another one.
    Known {
        /// Its id.
        id: NodeId,
        /// What it calls itself.
        name: NodeName,
        /// Whether it can be reached now.
        reachable: bool,
    },
    /// Nobody of that id or name was ever seen.
    Unknown,
    /// Several nodes carry that name, this one perhaps among them: their ids, ascending.
    Ambiguous(Vec<NodeId>),
}

impl NodeLookup {
    /// Looks a node up by id or name: the one rule, for every route. A name that several nodes carry
    /// means none of them, this one included; an id always tells them apart. Those that cannot be
    /// reached count only where none can: a machine that was set up anew keeps its name.
    ///
    /// Each of the others is its id, its name, and whether it can be reached now.
    pub fn among(
        key: &NodeKey,
        (me, my_name): (NodeId, &NodeName),
        others: impl IntoIterator<Item = (NodeId, NodeName, bool)>,
    ) -> Self {
        let is_meant = |id: &NodeId, name: &NodeName| match key {
            NodeKey::Id(wanted) => wanted == id,
            NodeKey::Name(wanted) => wanted == name,
        };
        let mut found: Vec<_> = others
            .into_iter()
            .filter(|(id, name, _)| *id != me && is_meant(id, name))
            .collect();
        let here = is_meant(&me, my_name);
        let any = here || found.iter().any(|(_, _, reachable)| *reachable);
        found.retain(|(_, _, reachable)| *reachable || !any);
        match (here, found.len(), found.pop()) {
            (true, _, None) => Self::Here,
            (false, _, None) => Self::Unknown,
            (false, 1, Some((id, name, reachable))) => Self::Known {
                id,
                name,
                reachable,
            },
            (_, _, Some((last, ..))) => {
                let all = found.into_iter().map(|(id, ..)| id);
                let mut nodes: Vec<NodeId> = all.chain([last]).chain(here.then_some(me)).collect();
                nodes.sort();
                Self::Ambiguous(nodes)
            }
        }
    }
}

/// The other nodes. None of the synchronous methods may block.
pub trait Neighbours: Send + Sync + 'static {
    /// Returns the agents of all other known nodes, in any order.
    fn directory(&self) -> Vec<RemoteAgent>;

    /// Returns the id and name of this node.
    fn me(&self) -> (NodeId, NodeName);

    /// Looks a node up by id or name.
    fn node(&self, key: &NodeKey) -> NodeLookup;

    /// Delivers a message to an agent of another node. Dropping the future or the stream cancels
    /// the turn there.
    fn call(
        &self,
        node: NodeId,
        call: Delivery,
    ) -> BoxFuture<'static, Result<TurnStream, SendError>>;

    /// Tells the other nodes which agents this one has; called after every change.
    fn publish(&self, agents: Vec<AgentInfo>);
}

/// A node with no neighbours: for tests and for a sleeping mesh.
#[derive(Clone)]
pub struct Alone {
    id: NodeId,
    name: NodeName,
}

impl Alone {
    /// A lone node of this id and name.
    #[must_use]
    pub fn new(id: NodeId, name: NodeName) -> Self {
        Self { id, name }
    }
}

impl fmt::Debug for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alone({})", self.name)
    }
}

impl Neighbours for Alone {
    fn directory(&self) -> Vec<RemoteAgent> {
        Vec::new()
    }

    fn me(&self) -> (NodeId, NodeName) {
        (self.id, self.name.clone())
    }

    fn node(&self, key: &NodeKey) -> NodeLookup {
        NodeLookup::among(key, (self.id, &self.name), [])
    }

    fn call(
        &self,
        node: NodeId,
        _call: Delivery,
    ) -> BoxFuture<'static, Result<TurnStream, SendError>> {
        Box::pin(std::future::ready(Err(SendError::Unreachable {
            node,
            node_name: None,
        })))
    }

    fn publish(&self, _agents: Vec<AgentInfo>) {}
}
