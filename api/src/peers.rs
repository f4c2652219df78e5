//! Facts of the mesh as bodies, and nodes by id or name.

use openfang_audit::evidence::file_name;
use openfang_audit::rfc3339;
use openfang_id::{AgentRef, NodeId, NodeKey, Transport};
use openfang_kernel::SendError;
use openfang_kernel::ports::NodeLookup;
use openfang_mesh::{Conviction, HeadView, Liveness, NodeView, PROTOCOL_VERSION, Status, Why};
use openfang_schema as schema;
use openfang_schema::NodeRef;

use crate::error::ApiError;
use crate::state::State;
use crate::wire::count;

/// What to do about a mesh that sleeps.
const WAKE: &str = "No shared secret is set. Join with openfang join - and a ticket on stdin, or set [network] \
                    shared_secret: openfang keygen --network makes one.";
/// What to do about a mesh that is switched off.
pub(crate) const SWITCH_ON: &str = "network.enabled = true in config.toml, then: openfang restart";

/// A node that a caller pointed at.
pub(crate) struct Found {
    pub(crate) id: NodeId,
    pub(crate) name: String,
}

/// Finds the node of a reference, by the rule of a message.
pub(crate) fn resolve(
    state: &State,
    looked_for: &AgentRef,
    key: &NodeKey,
) -> Result<Found, ApiError> {
    let info = &state.info;
    let view = state.mesh.view();
    let all = view.nodes.iter().map(|node| {
        let name = node.record.record().name.clone();
        (node.id, name, node.liveness.is_reachable())
    });
    match NodeLookup::among(key, (info.node_id, &info.node_name), all) {
        NodeLookup::Here => Ok(Found {
            id: info.node_id,
            name: info.node_name.to_string(),
        }),
        NodeLookup::Known { id, name, .. } => Ok(Found {
            id,
            name: name.to_string(),
        }),
        NodeLookup::Ambiguous(nodes) => Err(SendError::AmbiguousNode {
            looked_for: looked_for.clone(),
            nodes,
        }
        .into()),
        NodeLookup::Unknown => Err(SendError::UnknownNode {
            looked_for: key.clone(),
        }
        .into()),
    }
}

/// Says where an agent is looked for that may be anywhere.
pub(crate) fn everywhere(state: &State) -> String {
    let here = &state.info.node_name;
    match others(&state.mesh.view(), state.info.node_id).count() {
        0 => format!("on this node ({here}); no other node is known"),
        1 => format!("on this node ({here}) and 1 other"),
        others => format!("on this node ({here}) and {others} others"),
    }
}

fn others(view: &openfang_mesh::View, me: NodeId) -> impl Iterator<Item = &NodeView> {
    view.nodes.iter().filter(move |node| node.id != me)
}

/// All other nodes.
pub(crate) fn all(state: &State) -> Vec<schema::Peer> {
    let view = state.mesh.view();
    others(&view, state.info.node_id).map(peer).collect()
}

fn peer(node: &NodeView) -> schema::Peer {
    let record = node.record.record();
    let addresses: Vec<String> = record.addrs.iter().map(ToString::to_string).collect();
    let dialed = node.link.as_ref().and_then(|link| link.addr.as_ref());
    let connected = node.link.is_some();
    let agents = record.agents.iter().map(|agent| schema::PeerAgent {
        id: agent.id.to_string(),
        name: agent.name.to_string(),
    });
    schema::Peer {
        node_id: node.id.to_string(),
        node_name: record.name.to_string(),
        address: dialed
            .map(ToString::to_string)
            .or_else(|| addresses.first().cloned())
            .unwrap_or_default(),
        addresses,
        state: if connected {
            schema::PeerState::Connected
        } else {
            schema::PeerState::Disconnected
        },
        liveness: liveness(node.liveness),
        agents: agents.collect(),
        connected_at: node
            .link
            .as_ref()
            .map(|link| rfc3339(link.since_ms.saturating_mul(1000))),
        last_seen: Some(rfc3339(record.issued_ms.saturating_mul(1000))),
        protocol_version: u32::from(PROTOCOL_VERSION),
        version: record.software.clone(),
        transport: node.link.as_ref().map(|link| transport(link.transport)),
        rtt_ms: node
            .link
            .as_ref()
            .and_then(|link| link.rtt_ms)
            .map(f64::from),
        authenticated: connected,
        audit: audit(node),
    }
}

fn liveness(liveness: Liveness) -> schema::Liveness {
    match liveness {
        Liveness::Me | Liveness::Alive => schema::Liveness::Alive,
        Liveness::Suspect => schema::Liveness::Suspect,
        Liveness::Dead => schema::Liveness::Dead,
        Liveness::Left => schema::Liveness::Left,
    }
}

fn transport(transport: Transport) -> schema::Transport {
    match transport {
        Transport::Tcp => schema::Transport::Tcp,
        Transport::Quic => schema::Transport::Quic,
    }
}

/// What convicts this node, in the eyes of everyone.
pub(crate) fn own_conviction(state: &State) -> Option<Conviction> {
    let view = state.mesh.view();
    view.node(&state.info.node_id)?.convicted
}

/// What convicts a node, in words.
pub(crate) fn convicted(conviction: &Conviction) -> String {
    let file = file_name(&conviction.evidence);
    format!("{}: evidence {file}", conviction.kind)
}

fn audit(node: &NodeView) -> schema::PeerAudit {
    let mut audit = audit_of(&node.head);
    if let Some(conviction) = &node.convicted {
        audit.state = schema::PeerAuditState::Convicted;
        audit.reason = Some(convicted(conviction));
    }
    audit
}

fn audit_of(head: &HeadView) -> schema::PeerAudit {
    let (state, size, root, reason) = match head {
        HeadView::None => (schema::PeerAuditState::Unproven, 0, None, None),
        HeadView::Unproven { size, accepted } => (
            schema::PeerAuditState::Unproven,
            accepted.unwrap_or_default(),
            None,
            Some(format!("a head of {size} entries is not proved yet")),
        ),
        HeadView::Consistent { size, root } => (
            schema::PeerAuditState::Consistent,
            *size,
            Some(root.to_string()),
            None,
        ),
        HeadView::Reported { accepted, by, why } => (
            schema::PeerAuditState::Reported,
            accepted.unwrap_or_default(),
            None,
            Some(format!(
                "{}, as {} other nodes report",
                told(*why),
                by.len()
            )),
        ),
        HeadView::Inconsistent { why, accepted } => (
            schema::PeerAuditState::Inconsistent,
            accepted.unwrap_or_default(),
            None,
            Some(told(*why)),
        ),
    };
    schema::PeerAudit {
        size,
        root,
        state,
        reason,
    }
}

fn told(why: Why) -> String {
    let word = why.as_str();
    match why {
        Why::TwoRoots => format!("{word}: two heads of one size have different roots"),
        Why::Behind { have } => {
            format!("{word}: it has {have} entries, fewer than a head it signed")
        }
        Why::Damaged { first_bad } => {
            format!("{word}: its entry {first_bad} is not what was logged")
        }
        Why::NoProof => format!("{word}: it cannot prove that one head continues the other"),
        Why::WrongProof => format!("{word}: the proof it gave does not hold"),
        Why::OtherLog => format!("{word}: it announces another key for the same log"),
        Why::Fork => format!("{word}: two of its heads differ in an entry that both have"),
    }
}

/// The state of the network.
pub(crate) fn status(state: &State) -> schema::NetworkStatus {
    let view = state.mesh.view();
    let listen: Vec<String> = match state.mesh.status() {
        Status::Asleep => Vec::new(),
        Status::Awake { listen, .. } => listen.iter().map(ToString::to_string).collect(),
    };
    let awake = state.mesh.status() != Status::Asleep;
    let hint = if state.info.network_enabled {
        WAKE
    } else {
        SWITCH_ON
    };
    schema::NetworkStatus {
        enabled: awake,
        state: if awake {
            schema::NetworkState::Awake
        } else {
            schema::NetworkState::Asleep
        },
        node_id: state.info.node_id.to_string(),
        node_name: state.info.node_name.to_string(),
        listen_address: listen.first().cloned().unwrap_or_default(),
        listen_addresses: listen,
        connected_peers: connected(state),
        total_peers: count(others(&view, state.info.node_id).count()),
        hint: (!awake).then(|| hint.to_owned()),
    }
}

/// How many peers have a connection.
pub(crate) fn connected(state: &State) -> u64 {
    let view = state.mesh.view();
    let linked = others(&view, state.info.node_id).filter(|node| node.link.is_some());
    count(linked.count())
}

/// A node by id, with its name when that is known.
pub(crate) fn named(state: &State, id: NodeId) -> NodeRef {
    let name = state
        .mesh
        .view()
        .node(&id)
        .map(|node| node.record.record().name.to_string());
    NodeRef {
        id: id.to_string(),
        name: name.unwrap_or_default(),
    }
}
