//! Making the swarm, and what its events mean.

use std::collections::BTreeSet;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::{ConnectionId, ListenError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use openfang_id::{NetAddr, PeerAddr, Transport};
use openfang_ofp::gate::Refusal;
use openfang_ofp::roster::{Connected, In, LinkId};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::awake::{Awake, Done};
use crate::behaviour::{self, Behaviour};
use crate::dialer::Progress;
use crate::handler::Inbound;
use crate::links::{self, Link};
use crate::transport::{self, Fail, GateFail, Keeper, fail_of};
use crate::{Config, Joined, Listen, MeshEvent, ShortId, StartError, addrs, handler};

/// How long the system may take to name the addresses of a listener.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at whether a port is free.
const RELEASE_LOOK: Duration = Duration::from_millis(10);
/// A connection without any substream closes after so long; members' connections never are without.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Refused connections that are reported, a second; an attacker must not fill the log.
const REPORTS_PER_SECOND: u32 = 10;
/// How many may come at once.
const REPORTS_BURST: u32 = 50;

/// Events that arrived while the ports were being bound.
pub(crate) type Early = Vec<SwarmEvent<behaviour::Event>>;

/// Makes the swarm and listens; returns with the addresses known.
pub(crate) async fn bind(
    config: &Config,
    keeper: &Arc<Keeper>,
    inbound: Inbound,
    connections: TaskTracker,
) -> Result<(Swarm<Behaviour>, BTreeSet<NetAddr>, Early), StartError> {
    for listen in &config.listen {
        probe(*listen)?;
    }
    let failed = |reason: String| StartError::Transport { reason };
    let mut secret = config.keys.identity.secret_bytes();
    let keypair = Keypair::ed25519_from_bytes(secret.as_mut_slice())
        .map_err(|why| failed(why.to_string()))?;
    let transport = transport::build(&keypair, keeper).map_err(|why| failed(why.to_string()))?;
    let swarm_config = libp2p::swarm::Config::with_executor(move |connection| {
        connections.spawn(connection);
    })
    .with_idle_connection_timeout(IDLE_TIMEOUT)
    .with_substream_upgrade_protocol_override(Version::V1Lazy);
    let mut swarm = Swarm::new(
        transport,
        Behaviour::new(&config.limits, inbound),
        keypair.public().to_peer_id(),
        swarm_config,
    );
    let mut unnamed = BTreeSet::new();
    for listen in &config.listen {
        let addr = NetAddr::from_socket(listen.transport, listen.addr);
        match swarm.listen_on(addrs::multiaddr(&addr)) {
            Ok(listener) => unnamed.insert(format!("{listener}")),
            Err(why) => {
                let source = io::Error::other(why.to_string());
                return Err(StartError::Listen { addr, source });
            }
        };
    }
    let named = tokio::time::timeout(LISTEN_TIMEOUT, name_listeners(&mut swarm, unnamed)).await;
    let (listening, early) = named.map_err(|_elapsed| failed("no address was named".to_owned()))?;
    Ok((swarm, listening, early))
}

/// Finds out whether the port is free. The transport could not: it shares its listening port between
/// its own sockets, and would share it with another process of this user as well.
fn probe(listen: Listen) -> Result<(), StartError> {
    if listen.addr.port() == 0 {
        return Ok(());
    }
    let bound = match listen.transport {
        Transport::Tcp => TcpListener::bind(listen.addr).map(drop),
        Transport::Quic => UdpSocket::bind(listen.addr).map(drop),
    };
    let addr = NetAddr::from_socket(listen.transport, listen.addr);
    match bound {
        Ok(()) => Ok(()),
        Err(why) if why.kind() == io::ErrorKind::AddrInUse => Err(StartError::InUse { addr }),
        Err(source) => Err(StartError::Listen { addr, source }),
    }
}

/// Waits until the ports are free that this node itself has held a moment ago.
pub(crate) async fn released(listens: &[Listen], until: Instant) {
    let held = |listen: &Listen| matches!(probe(*listen), Err(StartError::InUse { .. }));
    while listens.iter().any(held) && Instant::now() < until {
        tokio::time::sleep(RELEASE_LOOK).await;
    }
}

/// Waits until every listener has named an address.
async fn name_listeners(
    swarm: &mut Swarm<Behaviour>,
    mut unnamed: BTreeSet<String>,
) -> (BTreeSet<NetAddr>, Early) {
    let mut listening = BTreeSet::new();
    let mut early = Vec::new();
    while !unnamed.is_empty() {
        let event = swarm.select_next_some().await;
        if let SwarmEvent::NewListenAddr {
            listener_id,
            address,
        } = &event
        {
            unnamed.remove(&ListenerId::to_string(listener_id));
            listening.extend(addrs::net_addr(address));
        } else {
            early.push(event);
        }
    }
    (listening, early)
}

/// Keeps reports of refused connections from filling the log.
pub(crate) struct Refusals {
    pace: DefaultDirectRateLimiter,
    withheld: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        let rate = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(rate(REPORTS_PER_SECOND)).allow_burst(rate(REPORTS_BURST));
        Self {
            pace: RateLimiter::direct(quota),
            withheld: 0,
        }
    }
}

impl Refusals {
    /// Says whether to report one more, and how many were withheld before.
    fn report(&mut self) -> Option<u64> {
        if self.pace.check().is_err() {
            self.withheld += 1;
            return None;
        }
        Some(std::mem::take(&mut self.withheld))
    }
}

impl Awake {
    pub(crate) fn on_swarm_event(&mut self, event: SwarmEvent<behaviour::Event>) {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the enum is non-exhaustive; the other events need nothing done"
        )]
        match event {
            SwarmEvent::Behaviour(behaviour::Event {
                connection,
                event: handler::Event::SyncInbound(stream),
            }) => self.on_sync_inbound(connection, stream),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.on_connected(peer_id, connection_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                connection_id,
                cause,
                ..
            } => {
                let why = cause.map_or_else(|| "closed".to_owned(), |why| why.to_string());
                self.on_disconnected(connection_id, &why);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                let progress = self
                    .dialer
                    .on_failed(&mut self.swarm, connection_id, &error);
                self.on_dial_progress(progress);
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => self.on_incoming_error(&send_back_addr, &error),
            SwarmEvent::NewListenAddr { address, .. } => {
                self.listening.extend(addrs::net_addr(&address));
                self.on_listening();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_unlistened(&[address]),
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => {
                if let Err(why) = reason {
                    tracing::error!(error = %why, "a listener failed");
                }
                self.on_unlistened(&addresses);
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a connection could not be accepted");
            }
            _ => {}
        }
    }

    fn on_unlistened(&mut self, addresses: &[Multiaddr]) {
        for address in addresses {
            if let Some(addr) = addrs::net_addr(address) {
                self.listening.remove(&addr);
            }
        }
        self.on_listening();
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let dialed = self.dialer.on_connected(connection);
        let opener = self.swarm.behaviour_mut().take_opener(connection);
        let (Some(node), Some(opener)) = (addrs::node_id(&peer), opener) else {
            self.swarm.close_connection(connection);
            return;
        };
        if dialed.is_some_and(|(_, first)| !first) {
            self.swarm.close_connection(connection);
            return;
        }
        let remote = endpoint.get_remote_address();
        let addr = addrs::net_addr(remote);
        let transport = addr.as_ref().map_or(Transport::Tcp, |addr| addr.transport);
        let link = LinkId(self.links_made);
        self.links_made += 1;
        let span = tracing::info_span!(
            "connection",
            peer.id = %ShortId(&node),
            link.id = link.0,
            transport = ?transport,
            dialed = dialed.is_some(),
        );
        span.in_scope(|| tracing::debug!("connected"));
        let (made, queue) = Link::new(node, connection, span.clone());
        self.links.insert(link, made);
        self.by_connection.insert(connection, link);
        let peer = self.base.peers.peer(node);
        peer.on_connected(link, transport, opener.clone());
        let writer = links::write(link, opener, queue).instrument(span);
        self.tasks.spawn(async move { Done::Link(writer.await) });
        self.base
            .host
            .on_event(MeshEvent::PeerConnected { node, transport });
        self.mark_changed();
        self.tell_roster(In::Connected(Connected {
            peer: node,
            link,
            dial: dialed.map(|(dial, _)| dial),
            addr: addr.clone(),
            transport,
        }));
        if let Some(addr) = addr {
            let addr = PeerAddr {
                addr,
                node: Some(node),
            };
            self.on_joined(&Joined {
                node,
                transport,
                addr,
            });
        }
    }

    fn on_disconnected(&mut self, connection: ConnectionId, why: &str) {
        let Some(link) = self.by_connection.remove(&connection) else {
            return;
        };
        if let Some(gone) = self.links.remove(&link) {
            gone.span
                .in_scope(|| tracing::debug!(reason = why, "disconnected"));
            let peer = self.base.peers.peer(gone.peer);
            peer.on_disconnected(link, why);
            self.base.host.on_event(MeshEvent::PeerDisconnected {
                node: gone.peer,
                reason: why.to_owned(),
            });
        }
        self.mark_changed();
        self.tell_roster(In::Disconnected { link });
    }

    fn on_sync_inbound(&mut self, connection: ConnectionId, stream: libp2p::swarm::Stream) {
        let Some(link) = self.by_connection.get(&connection).copied() else {
            return;
        };
        let Some(open) = self.links.get_mut(&link) else {
            return;
        };
        if std::mem::replace(&mut open.reading, true) {
            tracing::warn!(peer.id = %ShortId(&open.peer), "a second sync substream was opened");
            self.swarm.close_connection(connection);
            return;
        }
        let reader = links::read(link, stream, self.from_links.clone());
        let reader = reader.instrument(open.span.clone());
        self.tasks.spawn(async move { Done::Link(reader.await) });
    }

    fn on_incoming_error(&mut self, from: &Multiaddr, error: &ListenError) {
        let from = addrs::net_addr(from).map_or_else(|| from.to_string(), |addr| addr.to_string());
        match error {
            ListenError::Transport(error) => match fail_of(error) {
                Some(Fail::Gate(gate)) => self.on_gate_failed(from, *gate),
                Some(fail) => tracing::debug!(error = %fail, "an incoming connection failed"),
                None => tracing::debug!(%error, "an incoming connection failed"),
            },
            ListenError::Denied { cause } => {
                let Some(withheld) = self.refusals.report() else {
                    return;
                };
                // What the swarm says is only that it was denied.
                let source = std::error::Error::source(cause);
                let reason = source.map_or_else(|| cause.to_string(), ToString::to_string);
                tracing::warn!(%reason, withheld, "an incoming connection was turned away");
                self.base
                    .host
                    .on_event(MeshEvent::PeerRefused { from, reason });
            }
            ListenError::Aborted
            | ListenError::WrongPeerId { .. }
            | ListenError::LocalPeerId { .. } => {
                tracing::debug!(%error, "an incoming connection failed");
            }
        }
    }

    /// The gate stayed closed. A node that dialled itself is no attack.
    pub(crate) fn on_gate_failed(&mut self, from: String, gate: GateFail) {
        if gate.reason == Refusal::OwnId {
            return;
        }
        let Some(withheld) = self.refusals.report() else {
            return;
        };
        let GateFail { node, reason } = gate;
        tracing::warn!(peer.id = %ShortId(&node), %reason, withheld, "authentication failed");
        self.base
            .host
            .on_event(MeshEvent::AuthFailed { from, node, reason });
    }

    pub(crate) fn on_dial_progress(&mut self, progress: Progress) {
        let Progress::Failed { dial, failures } = progress else {
            return;
        };
        for failure in &failures {
            tracing::debug!(addr = %failure.addr, reason = %failure.why, "dial failed");
            if let Some(gate) = failure.gate {
                self.on_gate_failed(failure.addr.addr.to_string(), gate);
            }
            if let Some(node) = failure.node() {
                let why = format!("{}: {}", failure.addr.addr, failure.why);
                self.base.peers.peer(node).on_dial_failed(&why);
            }
            for join in &mut self.joins {
                join.on_failure(failure);
            }
        }
        let failures = failures
            .iter()
            .map(|failure| failure.for_roster())
            .collect();
        self.mark_changed();
        self.tell_roster(In::DialFailed { dial, failures });
    }
}
