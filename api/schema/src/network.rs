//! The mesh: peers, state, joining.

use serde::{Deserialize, Serialize};

use crate::{NodeRef, SecretText};

/// Whether a connection to a peer exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerState {
    /// One does.
    Connected,
    /// None does.
    Disconnected,
}

/// What the mesh holds of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It has not answered for a moment.
    Suspect,
    /// It has not answered for so long that it is held for dead; it may come back.
    Dead,
    /// It said farewell.
    Left,
}

impl Liveness {
    /// Returns the text that is sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }
}

/// How a connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP with Noise and Yamux.
    Tcp,
    /// QUIC.
    Quic,
    /// Inside one process; in tests.
    Memory,
}

impl Transport {
    /// Returns the text that is sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Memory => "memory",
        }
    }
}

/// What is known of the audit log of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerAuditState {
    /// Each head it showed was proved to contain the one before.
    Consistent,
    /// It has shown a head and not yet proved it, or has shown none.
    Unproven,
    /// Other nodes report that it contradicts itself; nothing of the kind was seen here.
    Reported,
    /// It showed heads that contradict each other, or could not prove one: its log was altered.
    Inconsistent,
    /// Evidence that anyone can check shows that its keys have signed what cannot both be true. It is
    /// neither called nor served, unless the operator allows it.
    Convicted,
}

impl PeerAuditState {
    /// Returns the text that is sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consistent => "consistent",
            Self::Unproven => "unproven",
            Self::Reported => "reported",
            Self::Inconsistent => "inconsistent",
            Self::Convicted => "convicted",
        }
    }
}

/// The largest head of a peer's audit log that this node accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAudit {
    /// Number of entries.
    pub size: u64,
    /// Root hash, 64 characters of lower-case hex; `null` when no head was seen.
    pub root: Option<String>,
    /// What is known of it.
    pub state: PeerAuditState,
    /// Why it is inconsistent or unproven; of one that is convicted, what it did and the file that
    /// proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An agent of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAgent {
    /// UUID.
    pub id: String,
    /// Name.
    pub name: String,
}

/// Another node of the mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Peer id.
    pub node_id: String,
    /// The name it announces.
    pub node_name: String,
    /// Where it is connected, or else the first address it announces; empty when it has none.
    pub address: String,
    /// All addresses it announces.
    pub addresses: Vec<String>,
    /// Whether a connection exists.
    pub state: PeerState,
    /// What the mesh holds of it.
    pub liveness: Liveness,
    /// Its agents, as last announced.
    pub agents: Vec<PeerAgent>,
    /// Since when the connection exists; `null` without one, or when this is not known.
    pub connected_at: Option<String>,
    /// When something was last heard of it; `null` when this is not known.
    pub last_seen: Option<String>,
    /// Version of the protocol it speaks.
    pub protocol_version: u32,
    /// Version of its software; empty when it has not said.
    pub version: String,
    /// How the connection is carried; `null` without one.
    pub transport: Option<Transport>,
    /// Round-trip time in milliseconds; `null` without a measurement.
    pub rtt_ms: Option<f64>,
    /// Whether it proved to hold the shared secret: without that there is no connection, so that
    /// this is `true` for each connected peer.
    pub authenticated: bool,
    /// Its audit log.
    pub audit: PeerAudit,
}

/// The body of `GET /api/peers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeersReply {
    /// All nodes this one knows, but itself.
    pub peers: Vec<Peer>,
    /// How many.
    pub total: u64,
}

/// Whether the network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkState {
    /// No shared secret: no port is open, everything local works.
    Asleep,
    /// It listens and dials.
    Awake,
}

/// The body of `GET /api/network/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Whether the network is awake.
    pub enabled: bool,
    /// The same as a word.
    pub state: NetworkState,
    /// Peer id of this node.
    pub node_id: String,
    /// Its name.
    pub node_name: String,
    /// The first address it listens on; empty when asleep.
    pub listen_address: String,
    /// All addresses it listens on.
    pub listen_addresses: Vec<String>,
    /// Peers with a connection.
    pub connected_peers: u64,
    /// Peers known.
    pub total_peers: u64,
    /// What to do when it sleeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The body of `POST /api/network/join`: a ticket, or an address and perhaps a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// What `openfang ticket` printed on a node of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<SecretText>,
    /// `host:port` or a multiaddr, with an optional `/p2p/NODE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// The shared secret, when this node has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretText>,
}

/// The answer to a join: it succeeded, and a restart does not undo it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReply {
    /// `joined`.
    pub status: String,
    /// The node that was reached.
    pub node: NodeRef,
    /// Peers with a connection now.
    pub connected_peers: u64,
}

/// The body of `GET /api/network/ticket`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketReply {
    /// Addresses, peer id and shared secret in one text. Whoever holds it can join.
    pub ticket: SecretText,
    /// The node it leads to.
    pub node: NodeRef,
    /// The addresses in it.
    pub addresses: Vec<String>,
}
