//! Which agent a reference means: the one rule for names, the same on every node.
//!
//! Without a node, an agent of this node is meant first; else the one on a reachable node, and when
//! several of those carry the name the caller must say which. With a node, no other is meant, and that
//! node has the last word on whether it has the agent. A node name that several nodes carry, this one
//! among them or not, means none of them: the caller must say which by its id.

use std::collections::BTreeSet;

use openfang_id::{AgentId, AgentKey, AgentName, AgentRef, NodeId, NodeName};

use crate::ports::{Neighbours, NodeLookup, RemoteAgent};
use crate::registry::Registry;
use crate::{Looked, SendError};

/// What a reference means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An agent of this node.
    Here {
        id: AgentId,
        name: AgentName,
        node_name: NodeName,
    },
    /// An agent of another node.
    There {
        node: NodeId,
        node_name: NodeName,
        key: AgentKey,
        /// As that node has announced it; absent when it has not, or not yet.
        announced: Option<(AgentId, AgentName)>,
    },
}

impl Target {
    /// Returns all that the agent goes by, for comparing it with what is granted.
    pub(crate) fn names(&self) -> Vec<String> {
        let (id, name, node) = match self {
            Self::Here {
                id,
                name,
                node_name,
            } => (Some(*id), Some(name.clone()), node_name),
            Self::There {
                node_name,
                key,
                announced,
                ..
            } => match (announced, key) {
                (Some((id, name)), _) => (Some(*id), Some(name.clone()), node_name),
                (None, AgentKey::Id(id)) => (Some(*id), None, node_name),
                (None, AgentKey::Name(name)) => (None, Some(name.clone()), node_name),
            },
        };
        let full = name.as_ref().map(|name| format!("{name}@{node}"));
        let texts = [
            id.map(|id| id.to_string()),
            name.map(|name| name.to_string()),
            full,
        ];
        texts.into_iter().flatten().collect()
    }

    /// Returns all that the other node goes by; `None` for this one.
    pub(crate) fn node_names(&self) -> Option<Vec<String>> {
        match self {
            Self::Here { .. } => None,
            Self::There {
                node, node_name, ..
            } => Some(vec![node.to_string(), node_name.to_string()]),
        }
    }
}

/// Finds out what a reference means.
pub(crate) fn resolve(
    to: &AgentRef,
    registry: &Registry,
    neighbours: &dyn Neighbours,
) -> Result<Target, SendError> {
    let (_, here) = neighbours.me();
    let local = || {
        registry.find(&to.agent).map(|agent| Target::Here {
            id: agent.id,
            name: agent.name.clone(),
            node_name: here.clone(),
        })
    };
    let Some(key) = &to.node else {
        return local().map_or_else(|| anywhere(to, here.clone(), neighbours.directory()), Ok);
    };
    match neighbours.node(key) {
        NodeLookup::Here => local().ok_or_else(|| SendError::UnknownAgent {
            looked_for: to.clone(),
            where_looked: Looked::Here(here.clone()),
        }),
        NodeLookup::Known {
            id,
            name,
            reachable: true,
        } => {
            let on_it = |agent: &RemoteAgent| agent.node == id && is_meant(agent, &to.agent);
            let announced = neighbours.directory().into_iter().find(on_it);
            Ok(Target::There {
                node: id,
                node_name: name,
                key: to.agent.clone(),
                announced: announced.map(|agent| (agent.id, agent.name)),
            })
        }
        NodeLookup::Known {
            id,
            name,
            reachable: false,
        } => Err(SendError::Unreachable {
            node: id,
            node_name: Some(name),
        }),
        NodeLookup::Unknown => Err(SendError::UnknownNode {
            looked_for: key.clone(),
        }),
        NodeLookup::Ambiguous(nodes) => Err(SendError::AmbiguousNode {
            looked_for: to.clone(),
            nodes,
        }),
    }
}

fn is_meant(agent: &RemoteAgent, key: &AgentKey) -> bool {
    match key {
        AgentKey::Id(id) => agent.id == *id,
        AgentKey::Name(name) => agent.name == *name,
    }
}

fn anywhere(
    to: &AgentRef,
    here: NodeName,
    directory: Vec<RemoteAgent>,
) -> Result<Target, SendError> {
    let nodes: BTreeSet<NodeId> = directory.iter().map(|agent| agent.node).collect();
    let mut meant: Vec<_> = directory
        .into_iter()
        .filter(|agent| is_meant(agent, &to.agent))
        .collect();
    meant.sort_by_key(|agent| (!agent.reachable, agent.node));
    let reachable = meant.iter().take_while(|agent| agent.reachable).count();
    if reachable > 1 {
        // Anyone may call an agent of theirs so: whom the caller means is not for us to guess.
        let nodes = meant[..reachable].iter().map(|agent| agent.node).collect();
        return Err(SendError::AmbiguousAgent {
            looked_for: to.clone(),
            nodes,
        });
    }
    match meant.into_iter().next() {
        Some(agent) if agent.reachable => Ok(Target::There {
            node: agent.node,
            node_name: agent.node_name,
            key: AgentKey::Id(agent.id),
            announced: Some((agent.id, agent.name)),
        }),
        Some(agent) => Err(SendError::Unreachable {
            node: agent.node,
            node_name: Some(agent.node_name),
        }),
        None => Err(SendError::UnknownAgent {
            looked_for: to.clone(),
            where_looked: Looked::Mesh {
                here,
                others: nodes.len(),
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Alone;
    use crate::{AgentState, Delivery, TurnStream};
    use futures::future::BoxFuture;
    use openfang_id::{NodeKey, NodeSeed};

    struct Known(Vec<RemoteAgent>);

    fn id(seed: u8) -> NodeId {
        NodeSeed::from_bytes([seed; 32]).keys().node_id()
    }

    fn agent(seed: u8, reachable: bool) -> RemoteAgent {
        RemoteAgent {
            node: id(seed),
            node_name: "far".parse().expect("a name"),
            reachable,
            id: AgentId::from_random([seed; 16]),
            name: "scribe".parse().expect("a name"),
            description: String::new(),
            tags: Vec::new(),
            tools: Vec::new(),
            state: AgentState::Running,
            module: String::new(),
        }
    }

    impl Neighbours for Known {
        fn directory(&self) -> Vec<RemoteAgent> {
            self.0.clone()
        }

        fn me(&self) -> (NodeId, NodeName) {
            (id(0), "here".parse().expect("a name"))
        }

        fn node(&self, key: &NodeKey) -> NodeLookup {
            let (id, name) = self.me();
            let others = self.0.iter();
            let others = others.map(|agent| (agent.node, agent.node_name.clone(), agent.reachable));
            NodeLookup::among(key, (id, &name), others)
        }

        fn call(
            &self,
            node: NodeId,
            call: Delivery,
        ) -> BoxFuture<'static, Result<TurnStream, SendError>> {
            Alone::new(node, self.me().1).call(node, call)
        }

        fn publish(&self, _agents: Vec<crate::AgentInfo>) {}
    }

    fn find(to: &str, known: &Known) -> Result<Target, SendError> {
        let to = to.parse().expect("a reference");
        resolve(&to, &Registry::default(), known)
    }

    fn node_of(found: Result<Target, SendError>) -> NodeId {
        match found.expect("found") {
            Target::There { node, .. } => node,
            here @ Target::Here { .. } => panic!("{here:?}"),
        }
    }

    #[test]
    fn a_name_that_several_nodes_have_is_not_guessed() {
        let mut all = vec![agent(1, true), agent(2, true), agent(3, false)];
        let mut reachable = vec![id(1), id(2)];
        reachable.sort();
        for turn in 0..3 {
            all.rotate_left(turn);
            let found = find("scribe", &Known(all.clone()));
            let Err(SendError::AmbiguousAgent { nodes, .. }) = found else {
                panic!("{found:?}");
            };
            assert_eq!(nodes, reachable);
        }
        for agent in &mut all {
            agent.reachable = agent.node == id(3);
        }
        assert_eq!(
            node_of(find("scribe", &Known(all))),
            id(3),
            "the only one there"
        );
        let gone = find("scribe", &Known(vec![agent(1, false), agent(2, false)]));
        assert!(
            matches!(gone, Err(SendError::Unreachable { .. })),
            "{gone:?}"
        );
    }

    #[test]
    fn an_exact_reference_means_its_node_and_no_other() {
        let known = Known(vec![agent(1, true), agent(2, false)]);
        assert_eq!(node_of(find(&format!("scribe@{}", id(1)), &known)), id(1));
        assert_eq!(node_of(find(&format!("unheard@{}", id(1)), &known)), id(1));
        let check = |to: &str, code: &str| {
            assert_eq!(
                find(to, &known).expect_err("not found").code(),
                code,
                "{to}"
            );
        };
        check(&format!("scribe@{}", id(2)), "node_unreachable");
        check(&format!("scribe@{}", id(9)), "unknown_node");
        check("scribe@moon", "unknown_node");
        check("nobody", "unknown_agent");
        let found = find("scribe", &known).expect("found");
        assert!(
            found.names().contains(&"scribe@far".to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn a_node_name_means_the_one_that_can_be_reached() {
        let known = |first, second| Known(vec![agent(1, first), agent(2, second)]);
        assert_eq!(node_of(find("scribe@far", &known(true, false))), id(1));
        assert_eq!(node_of(find("scribe@far", &known(false, true))), id(2));
        for reachable in [true, false] {
            let found = find("scribe@far", &known(reachable, reachable));
            let refused = found.expect_err("not guessed");
            assert_eq!(refused.code(), "ambiguous_node");
        }
    }

    #[test]
    fn the_name_of_this_node_means_it_only_while_no_other_carries_it() {
        let mut twin = agent(1, true);
        twin.node_name = "here".parse().expect("a name");
        let code =
            |to: &str, known: &Known| find(to, known).expect_err("not found").code().to_owned();
        let alone = Known(vec![agent(1, true)]);
        assert_eq!(code("scribe@here", &alone), "unknown_agent", "asked here");
        let known = Known(vec![twin.clone(), agent(2, true)]);
        let refused = find("scribe@here", &known).expect_err("not guessed");
        let mut nodes = [id(0), id(1)];
        nodes.sort();
        let exact: Vec<String> = nodes.iter().map(|id| format!("scribe@{id}")).collect();
        assert_eq!(refused.candidates(), exact);
        assert_eq!(refused.code(), "ambiguous_node");
        let by_id = format!("scribe@{}", id(0));
        assert_eq!(code(&by_id, &known), "unknown_agent", "asked here");
        // One that is gone takes no name with it.
        twin.reachable = false;
        let known = Known(vec![twin, agent(2, true)]);
        assert_eq!(code("scribe@here", &known), "unknown_agent", "asked here");
    }
}
