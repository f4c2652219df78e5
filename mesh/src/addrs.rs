//! Between this project's addresses and libp2p's.

use std::net::IpAddr;

use libp2p::core::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use openfang_id::{Host, NetAddr, NodeId, Transport};

/// Returns the node behind a peer id, or `None` for another kind of key.
pub(crate) fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).ok()
}

/// Returns the peer id of a node.
pub(crate) fn peer_id(node: &NodeId) -> PeerId {
    PeerId::from_bytes(&node.to_peer_id_bytes())
        .expect("a node id is the binary form of a peer id by construction")
}

/// Writes an address as libp2p dials it, without the expected peer.
pub(crate) fn multiaddr(addr: &NetAddr) -> Multiaddr {
    let host = match &addr.host {
        Host::Ip(IpAddr::V4(ip)) => Protocol::Ip4(*ip),
        Host::Ip(IpAddr::V6(ip)) => Protocol::Ip6(*ip),
        Host::Name(name) => Protocol::Dns(name.to_string().into()),
    };
    let out = Multiaddr::empty().with(host);
    match addr.transport {
        Transport::Tcp => out.with(Protocol::Tcp(addr.port)),
        Transport::Quic => out.with(Protocol::Udp(addr.port)).with(Protocol::QuicV1),
    }
}

/// Reads an address of libp2p; a `/p2p/` part at its end is left out. `None` when it is of a kind
/// this mesh does not use.
pub(crate) fn net_addr(addr: &Multiaddr) -> Option<NetAddr> {
    let bare: Multiaddr = addr
        .iter()
        .filter(|part| !matches!(part, Protocol::P2p(_)))
        .collect();
    bare.to_string().parse().ok()
}

/// Of the addresses this node listens on, those another machine can use: loopback only when there is
/// nothing else, and no link-local IPv6, which means nothing without the interface.
pub(crate) fn reachable(listening: &[NetAddr]) -> Vec<NetAddr> {
    let usable = |addr: &&NetAddr| match &addr.host {
        Host::Ip(IpAddr::V4(ip)) => !ip.is_unspecified(),
        Host::Ip(IpAddr::V6(ip)) => !ip.is_unspecified() && !ip.is_unicast_link_local(),
        Host::Name(_) => true,
    };
    let outside: Vec<NetAddr> = listening
        .iter()
        .filter(usable)
        .filter(|addr| !is_loopback(addr))
        .cloned()
        .collect();
    if outside.is_empty() {
        return listening.iter().filter(usable).cloned().collect();
    }
    outside
}

fn is_loopback(addr: &NetAddr) -> bool {
    match &addr.host {
        Host::Ip(ip) => ip.is_loopback(),
        Host::Name(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> NetAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_survive_the_way_to_libp2p_and_back() {
        for text in [
            "/ip4/192.0.2.7/tcp/4200",
            "/ip6/2001:db8::1/udp/4200/quic-v1",
            "/dns/node.example/tcp/1",
        ] {
            let there = multiaddr(&addr(text));
            assert_eq!(net_addr(&there), Some(addr(text)));
        }
        let node = openfang_id::NodeSeed::from_bytes([4; 32]).keys().node_id();
        let with_peer =
            multiaddr(&addr("/ip4/192.0.2.7/tcp/1")).with(Protocol::P2p(peer_id(&node)));
        assert_eq!(net_addr(&with_peer), Some(addr("/ip4/192.0.2.7/tcp/1")));
        assert_eq!(node_id(&peer_id(&node)), Some(node));
    }

    #[test]
    fn loopback_is_told_only_when_there_is_nothing_else() {
        let loopback = addr("/ip4/127.0.0.1/tcp/1");
        let lan = addr("/ip4/192.0.2.7/tcp/1");
        let link_local = addr("/ip6/fe80::1/tcp/1");
        assert_eq!(
            reachable(&[loopback.clone(), lan.clone(), link_local.clone()]),
            vec![lan]
        );
        assert_eq!(reachable(&[loopback.clone(), link_local]), vec![loopback]);
    }
}
