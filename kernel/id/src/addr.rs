//! Where a peer can be reached.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::NodeId;

/// The longest host name (RFC 1035 §2.3.4).
const HOST_NAME_BYTES_MAX: usize = 253;

/// How a connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, secured with Noise, multiplexed with Yamux.
    Tcp,
    /// QUIC version 1.
    Quic,
}

/// The machine part of an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name, resolved at every dial.
    Name(Box<str>),
}

/// One address: `/ip4/192.0.2.7/tcp/4200`, `/dns/example.org/udp/4200/quic-v1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetAddr {
    /// How the connection is carried.
    pub transport: Transport,
    /// On which machine.
    pub host: Host,
    /// At which TCP or UDP port.
    pub port: u16,
}

/// An address to dial, and who is expected to answer there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddr {
    /// Where.
    pub addr: NetAddr,
    /// Who; `None` accepts whoever proves to hold the mesh secret.
    pub node: Option<NodeId>,
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Neither `host:port` nor a multiaddr.
    #[error("expected host:port, [ipv6]:port, or a multiaddr such as /ip4/192.0.2.7/tcp/4200")]
    Form,
    /// The port is missing or not between 1 and 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// The host is not an address and not a host name.
    #[error("the host is neither an IP address nor a host name")]
    Host,
    /// The part after `/p2p/` is not a node id.
    #[error("the part after /p2p/ is not a node id")]
    Node,
}

impl NetAddr {
    /// Makes an address of a socket address.
    #[must_use]
    pub fn from_socket(transport: Transport, socket: SocketAddr) -> Self {
        Self {
            transport,
            host: Host::Ip(socket.ip()),
            port: socket.port(),
        }
    }
}

impl PeerAddr {
    /// Reads `host:port` (both transports, QUIC first), or a multiaddr (one), each with an optional
    /// `/p2p/NODE` at its end.
    ///
    /// # Errors
    /// When the text is none of them.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, AddrError> {
        if text.starts_with('/') {
            return Ok(vec![text.parse()?]);
        }
        let (place, node) = match text.split_once("/p2p/") {
            Some((place, node)) => (place, Some(node.parse().map_err(|_bad| AddrError::Node)?)),
            None => (text, None),
        };
        let (host, port) = parse_host_port(place)?;
        let at = |transport| Self {
            addr: NetAddr {
                transport,
                host: host.clone(),
                port,
            },
            node,
        };
        Ok(vec![at(Transport::Quic), at(Transport::Tcp)])
    }
}

impl FromStr for PeerAddr {
    type Err = AddrError;

    /// Reads a multiaddr with an optional `/p2p/NODE` at its end.
    fn from_str(text: &str) -> Result<Self, AddrError> {
        let (place, node) = match text.split_once("/p2p/") {
            Some((place, node)) => (place, Some(node.parse().map_err(|_bad| AddrError::Node)?)),
            None => (text, None),
        };
        Ok(Self {
            addr: place.parse()?,
            node,
        })
    }
}

impl FromStr for NetAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let mut parts = text.split('/');
        if parts.next() != Some("") {
            return Err(AddrError::Form);
        }
        let kind = parts.next().ok_or(AddrError::Form)?;
        let host = parts.next().ok_or(AddrError::Form)?;
        let protocol = parts.next().ok_or(AddrError::Form)?;
        let port = parse_port(parts.next().ok_or(AddrError::Port)?)?;
        let transport = match (protocol, parts.next(), parts.next()) {
            ("tcp", None, None) => Transport::Tcp,
            ("udp", Some("quic-v1"), None) => Transport::Quic,
            _other => return Err(AddrError::Form),
        };
        let ip = |text: &str| text.parse::<IpAddr>().map_err(|_bad| AddrError::Host);
        let host = match kind {
            "ip4" => Some(ip(host)?).filter(IpAddr::is_ipv4).map(Host::Ip),
            "ip6" => Some(ip(host)?).filter(IpAddr::is_ipv6).map(Host::Ip),
            "dns" | "dns4" | "dns6" => Some(parse_host_name(host)?),
            _other => return Err(AddrError::Form),
        };
        Ok(Self {
            transport,
            host: host.ok_or(AddrError::Host)?,
            port,
        })
    }
}

impl fmt::Display for NetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V4(ip)) => write!(f, "/ip4/{ip}")?,
            Host::Ip(IpAddr::V6(ip)) => write!(f, "/ip6/{ip}")?,
            Host::Name(name) => write!(f, "/dns/{name}")?,
        }
        match self.transport {
            Transport::Tcp => write!(f, "/tcp/{}", self.port),
            Transport::Quic => write!(f, "/udp/{}/quic-v1", self.port),
        }
    }
}

impl fmt::Debug for NetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)?;
        match &self.node {
            Some(node) => write!(f, "/p2p/{node}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn parse_port(text: &str) -> Result<u16, AddrError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(AddrError::Port),
    }
}

fn parse_host_port(text: &str) -> Result<(Host, u16), AddrError> {
    let (host, port) = text.rsplit_once(':').ok_or(AddrError::Form)?;
    let port = parse_port(port)?;
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let ip: Ipv6Addr = inner.parse().map_err(|_bad| AddrError::Host)?;
        return Ok((Host::Ip(ip.into()), port));
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => Ok((Host::Ip(ip.into()), port)),
        Ok(IpAddr::V6(_)) => Err(AddrError::Form),
        Err(_not_an_ip) => Ok((parse_host_name(host)?, port)),
    }
}

fn parse_host_name(text: &str) -> Result<Host, AddrError> {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric_end = text
        .rsplit('.')
        .next()
        .is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    if text.len() > HOST_NAME_BYTES_MAX || numeric_end || !text.split('.').all(label_ok) {
        return Err(AddrError::Host);
    }
    Ok(Host::Name(text.to_ascii_lowercase().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn host_and_port_mean_both_transports() {
        let shown = |text: &str| {
            PeerAddr::parse_all(text)
                .map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(
            shown("10.0.0.7:4200"),
            Ok(vec![
                "/ip4/10.0.0.7/udp/4200/quic-v1".to_owned(),
                "/ip4/10.0.0.7/tcp/4200".to_owned()
            ])
        );
        assert_eq!(
            shown("[::1]:4200"),
            Ok(vec![
                "/ip6/::1/udp/4200/quic-v1".to_owned(),
                "/ip6/::1/tcp/4200".to_owned()
            ])
        );
        assert_eq!(
            shown("Node-B.example:7"),
            Ok(vec![
                "/dns/node-b.example/udp/7/quic-v1".to_owned(),
                "/dns/node-b.example/tcp/7".to_owned()
            ])
        );
        for text in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:70000",
            "host:+1",
            "::1:4200",
            "1.2.3:4",
            "a b:1",
            "/ip4/::1/tcp/1",
            "/ip4/1.2.3.4/udp/1",
            "/ip4/1.2.3.4/tcp/1/x",
        ] {
            assert!(shown(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_expected_node_is_kept() {
        let node = crate::NodeSeed::from_bytes([4; 32]).keys().node_id();
        let text = format!("/ip4/10.0.0.7/tcp/4200/p2p/{node}");
        let parsed: PeerAddr = text.parse().expect("a peer address");
        assert_eq!(parsed.node, Some(node));
        assert_eq!(parsed.to_string(), text);
        let both = PeerAddr::parse_all(&format!("10.0.0.7:4200/p2p/{node}")).expect("addresses");
        assert!(both.iter().all(|peer| peer.node == Some(node)));
        assert_eq!(
            "/ip4/10.0.0.7/tcp/4200/p2p/x".parse::<PeerAddr>(),
            Err(AddrError::Node)
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_round_trips(text in "[/a-z0-9.:\\[\\]-]{0,60}") {
            if let Ok(all) = PeerAddr::parse_all(&text) {
                for one in all {
                    prop_assert_eq!(one.to_string().parse::<PeerAddr>(), Ok(one));
                }
            }
        }
    }
}
