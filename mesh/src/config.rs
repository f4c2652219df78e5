//! What a mesh node is started with.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use openfang_id::{Keys, NodeName, PeerAddr, SharedSecret, Transport};
use openfang_ofp::gate::Epoch;
use openfang_ofp::roster::Cosigners;

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// How connections are carried.
    pub transport: Transport,
    /// On which address; port 0 lets the system choose, and [`Status`](crate::Status) tells which.
    pub addr: SocketAddr,
}

/// What a mesh node is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The keys of the node; the identity key authenticates every connection.
    pub keys: Keys,
    /// What the node is called.
    pub name: NodeName,
    /// The version of the software, shown to the other nodes.
    pub version: String,
    /// Where to listen once awake. A port in use is an error at the start.
    pub listen: Vec<Listen>,
    /// Who to connect to; dialled for ever.
    pub bootstrap: Vec<PeerAddr>,
    /// The secret of the mesh and its epoch. `None`: the mesh sleeps until [`Mesh::join`](crate::Mesh::join)
    /// wakes it; no port is bound.
    pub secret: Option<(Epoch, SharedSecret)>,
    /// The number of this node's audit log; `None` when it keeps none.
    pub log_epoch: Option<u32>,
    /// The keys with which this node cosigns heads of other logs, as the others are told.
    pub cosigners: Cosigners,
    /// Evidence against nodes that was found before: files as `openfang-audit` writes them.
    pub evidence: Vec<Vec<u8>>,
    /// A folder of this node's own for `incarnation` and `roster`; made when missing.
    pub state_dir: PathBuf,
    /// The bounds.
    pub limits: Limits,
}

/// The bounds on what peers may use. Every one holds per node unless it says otherwise.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections from outside that are being set up, members' included; so many for TCP and as many
    /// for QUIC. 1 and more.
    pub pending_incoming_max: u32,
    /// Of these, how many may come from addresses the roster does not know; the rest is kept for
    /// members. At most `pending_incoming_max`.
    pub pending_strangers_max: u32,
    /// Connections being set up from one address (IPv6: one /64) over one transport; sixteen times as
    /// many for members.
    pub pending_per_address_max: u32,
    /// New connections per second from one address over one transport; sixteen times as many for
    /// members.
    pub knocks_per_second: NonZeroU32,
    /// How many of them may come at once.
    pub knock_burst: NonZeroU32,
    /// Dials under way.
    pub pending_outgoing_max: u32,
    /// Connections to members.
    pub connections_max: u32,
    /// Connections to one member: one, a second from dialling at the same time, and room for a restart
    /// that the old connection has not noticed yet.
    pub connections_per_peer_max: u32,
    /// Calls of one peer that run at once; above, the peer is told to come back.
    pub calls_in_flight_per_peer: u32,
    /// Calls per second of one peer.
    pub calls_per_second_per_peer: NonZeroU32,
    /// Call substreams of one peer that are open at once, over all its connections; above, they are
    /// reset.
    pub call_substreams_per_peer: u32,
    /// How long a request may take from its first byte to its last; then its substream is reset.
    pub request_arrival: Duration,
    /// Bytes of requests of one peer that have begun and not arrived whole; above, the substream that
    /// brings more is reset, and its caller tries again. At least the size of the largest request.
    pub unfinished_bytes_per_peer: usize,
    /// The same for all peers together.
    pub unfinished_bytes_max: usize,
    /// Calls to one peer that may wait here for a free substream; above, the caller is told.
    pub calls_waiting_per_peer: usize,
}

impl Default for Limits {
    /// Bounds that hold for a machine in production: a flood of strangers costs little, a member's
    /// traffic is not slowed.
    fn default() -> Self {
        Self {
            pending_incoming_max: 256,
            pending_strangers_max: 192,
            pending_per_address_max: 4,
            knocks_per_second: at_least_one(5),
            knock_burst: at_least_one(20),
            pending_outgoing_max: 64,
            connections_max: 1_024,
            connections_per_peer_max: 4,
            calls_in_flight_per_peer: 64,
            calls_per_second_per_peer: at_least_one(400_000),
            call_substreams_per_peer: CALL_SUBSTREAMS_PER_PEER,
            request_arrival: Duration::from_secs(10),
            unfinished_bytes_per_peer: 4 << 20,
            unfinished_bytes_max: 64 << 20,
            calls_waiting_per_peer: 1_024,
        }
    }
}

/// A peer like this one has its pool of substreams to each peer. When a connection breaks, its new one
/// may be there before the old one is missed here: as often as it may have connections.
const CALL_SUBSTREAMS_PER_PEER: u32 = 4 * 48;
const _: () = assert!(CALL_SUBSTREAMS_PER_PEER as usize == 4 * crate::pool::STREAMS_PER_PEER);

const fn at_least_one(n: u32) -> NonZeroU32 {
    match NonZeroU32::new(n) {
        Some(n) => n,
        None => NonZeroU32::MIN,
    }
}
