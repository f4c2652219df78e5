//! What the swarm is made of: connection limits, the block list, admission, and the handler.
//!
//! Composed by hand, not derived: the other parts have no substreams of their own, so every
//! connection carries [`Handler`] alone and a call does not pay for the rest. The bounds come first;
//! the first that says no ends the connection.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, multiaddr::Protocol};
use libp2p::swarm::behaviour::{ConnectionEstablished, DialFailure, ListenFailure};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, allow_block_list, connection_limits};
use openfang_id::Transport;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::config::Limits;
use crate::handler::{self, Handler, Inbound, Opener};

/// A peer whose id is not an inlined Ed25519 key: no node of this mesh.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the peer's identity is not an Ed25519 key")]
pub(crate) struct ForeignIdentity;

/// What a connection tells the driver.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) connection: ConnectionId,
    pub(crate) event: handler::Event,
}

/// The behaviour of the swarm.
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    /// Until when.
    blocked_until: BTreeMap<PeerId, Instant>,
    admission: Admission,
    inbound: Inbound,
    openers: BTreeMap<ConnectionId, Opener>,
    events: std::collections::VecDeque<Event>,
}

impl Behaviour {
    pub(crate) fn new(limits: &Limits, inbound: Inbound) -> Self {
        // Those that come from outside and are being set up are counted by admission.
        let connections = connection_limits::ConnectionLimits::default()
            .with_max_pending_outgoing(Some(limits.pending_outgoing_max))
            .with_max_established(Some(limits.connections_max))
            .with_max_established_per_peer(Some(limits.connections_per_peer_max));
        Self {
            limits: connection_limits::Behaviour::new(connections),
            blocked: allow_block_list::Behaviour::default(),
            blocked_until: BTreeMap::new(),
            admission: Admission::new(limits.clone()),
            inbound,
            openers: BTreeMap::new(),
            events: std::collections::VecDeque::new(),
        }
    }

    /// Returns the bounds on connections that are being set up.
    pub(crate) fn admission_mut(&mut self) -> &mut Admission {
        &mut self.admission
    }

    /// Closes every connection of a peer and lets it in again only then.
    pub(crate) fn block(&mut self, peer: PeerId, until: Instant) {
        self.blocked.block_peer(peer);
        self.blocked_until.insert(peer, until);
    }

    /// Lets those in again whose time is over. Asked whenever someone is at the door.
    fn unblock(&mut self) {
        let now = Instant::now();
        let over = self.blocked_until.extract_if(.., |_, until| *until <= now);
        for (peer, _) in over {
            self.blocked.unblock_peer(peer);
        }
    }

    /// Takes the queue that asks this connection for substreams; once per connection.
    pub(crate) fn take_opener(&mut self, connection: ConnectionId) -> Option<Opener> {
        self.openers.remove(&connection)
    }

    fn make_handler(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
    ) -> Result<Handler, ConnectionDenied> {
        let node =
            crate::addrs::node_id(&peer).ok_or_else(|| ConnectionDenied::new(ForeignIdentity))?;
        let (handler, opener) = Handler::new(node, self.inbound.clone());
        self.openers.insert(connection, opener);
        Ok(handler)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if let Some(ip) = ip_of(remote) {
            self.admission.on_knock(id, transport_of(remote), ip)?;
        }
        self.blocked
            .handle_pending_inbound_connection(id, local, remote)?;
        self.limits
            .handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admission.on_settled(id);
        self.unblock();
        self.limits
            .handle_established_inbound_connection(id, peer, local, remote)?;
        self.blocked
            .handle_established_inbound_connection(id, peer, local, remote)?;
        self.make_handler(id, peer)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.unblock();
        self.limits
            .handle_pending_outbound_connection(id, peer, addresses, role)?;
        self.blocked
            .handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.limits
            .handle_established_outbound_connection(id, peer, address, role, port_use)?;
        self.blocked
            .handle_established_outbound_connection(id, peer, address, role, port_use)?;
        self.make_handler(id, peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the enum is non-exhaustive; other events change nothing here"
        )]
        match &event {
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. })
            | FromSwarm::DialFailure(DialFailure { connection_id, .. }) => {
                self.admission.on_settled(*connection_id);
                self.openers.remove(connection_id);
            }
            FromSwarm::ConnectionEstablished(ConnectionEstablished { connection_id, .. }) => {
                self.admission.on_settled(*connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.openers.remove(connection_id);
            }
            _ => {}
        }
        self.limits.on_swarm_event(event);
        self.blocked.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        _peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.events.push_back(Event { connection, event });
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(event));
        }
        if let Poll::Ready(action) = self.blocked.poll(cx) {
            return Poll::Ready(
                action
                    .map_out(|never| match never {})
                    .map_in(|never| match never {}),
            );
        }
        match self.limits.poll(cx) {
            Poll::Ready(action) => Poll::Ready(
                action
                    .map_out(|never| match never {})
                    .map_in(|never| match never {}),
            ),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn transport_of(addr: &Multiaddr) -> Transport {
    let is_quic = addr.iter().any(|part| part == Protocol::QuicV1);
    if is_quic {
        Transport::Quic
    } else {
        Transport::Tcp
    }
}

fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign enum of all protocols of multiaddr; only two carry an address"
    )]
    addr.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}
