//! Dials under way: which address belongs to which dial of the roster, and how each one ended.
//!
//! The addresses of one peer are raced: the best first, the others with a delay each, at once when
//! one before has failed, and not at all once one has succeeded. Best is TCP on this machine and in
//! private networks, QUIC elsewhere. Near by, TCP carries more calls (measured: `docs/BENCHMARKS.md`),
//! and the system tells at once when the process at the other end has died, which over QUIC only
//! silence shows; far away, a lost packet holds up every call over TCP and one over QUIC.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use libp2p::Swarm;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use openfang_id::{Host, NetAddr, NodeId, PeerAddr, Transport};
use openfang_ofp::gate::Refusal;
use openfang_ofp::roster::{DialFailure, DialId};
use tokio::time::Instant;

use crate::AddrFailure;
use crate::addrs;
use crate::behaviour::Behaviour;
use crate::transport::{Fail, GateFail, fail_of};

/// How much later each next address is dialled.
const STAGGER: Duration = Duration::from_millis(30);
/// How much longer TCP waits for QUIC over the Internet: Happy Eyeballs (RFC 8305 §5).
const FAR_STAGGER: Duration = Duration::from_millis(250);

/// How a dial went on.
#[derive(Debug)]
pub(crate) enum Progress {
    /// More of it is under way.
    Pending,
    /// Every address has failed.
    Failed {
        dial: DialId,
        failures: Vec<Failure>,
    },
}

/// What happened at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) addr: PeerAddr,
    pub(crate) why: AddrFailure,
    pub(crate) gate: Option<GateFail>,
}

#[derive(Debug, Default)]
struct Attempt {
    under_way: Vec<(ConnectionId, PeerAddr)>,
    waiting: Vec<(Instant, PeerAddr)>,
    failures: Vec<Failure>,
    won: bool,
}

/// All dials under way.
#[derive(Debug, Default)]
pub(crate) struct Dialer {
    attempts: BTreeMap<DialId, Attempt>,
    by_connection: BTreeMap<ConnectionId, DialId>,
}

impl Dialer {
    /// Starts a dial. Returns how it ended when it cannot even begin.
    pub(crate) fn start(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        dial: DialId,
        mut peer_addrs: Vec<PeerAddr>,
    ) -> Progress {
        let now = Instant::now();
        peer_addrs.sort_by_key(|peer| place(&peer.addr));
        let delay = |peer: &PeerAddr| match place(&peer.addr) {
            Place::Best | Place::Good => Duration::ZERO,
            Place::Last => FAR_STAGGER,
        };
        let mut at = now;
        let mut waiting = Vec::new();
        for peer in peer_addrs {
            waiting.push((at + delay(&peer), peer));
            at += STAGGER;
        }
        // Alone, an address waits for nothing.
        if let Some((first, _)) = waiting.first_mut() {
            *first = now;
        }
        let mut attempt = Attempt {
            waiting,
            ..Attempt::default()
        };
        self.dial_waiting(swarm, dial, &mut attempt, now);
        self.settle(dial, attempt)
    }

    /// Returns when the next delayed address is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let waiting = |attempt: &Attempt| attempt.waiting.first().map(|(at, _)| *at);
        self.attempts.values().filter_map(waiting).min()
    }

    /// Dials the addresses that are due.
    pub(crate) fn on_timer(&mut self, swarm: &mut Swarm<Behaviour>) -> Vec<Progress> {
        let now = Instant::now();
        let due = |attempt: &Attempt| attempt.waiting.first().is_some_and(|(at, _)| *at <= now);
        let dials: Vec<DialId> = (self.attempts.iter())
            .filter_map(|(dial, attempt)| due(attempt).then_some(*dial))
            .collect();
        let mut ended = Vec::new();
        for dial in dials {
            if let Some(mut attempt) = self.attempts.remove(&dial) {
                self.dial_waiting(swarm, dial, &mut attempt, now);
                ended.push(self.settle(dial, attempt));
            }
        }
        ended
    }

    /// A dialled connection stands. Returns its dial, and `false` when another connection of the same
    /// dial came first: this one is to be closed.
    pub(crate) fn on_connected(&mut self, connection: ConnectionId) -> Option<(DialId, bool)> {
        let dial = self.by_connection.remove(&connection)?;
        let attempt = self.attempts.get_mut(&dial)?;
        let first = !std::mem::replace(&mut attempt.won, true);
        attempt.under_way.retain(|(other, _)| *other != connection);
        attempt.waiting.clear();
        if attempt.under_way.is_empty() {
            self.attempts.remove(&dial);
        }
        Some((dial, first))
    }

    /// A dial of the swarm has failed.
    pub(crate) fn on_failed(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        connection: ConnectionId,
        error: &DialError,
    ) -> Progress {
        let Some(dial) = self.by_connection.remove(&connection) else {
            return Progress::Pending;
        };
        let Some(mut attempt) = self.attempts.remove(&dial) else {
            return Progress::Pending;
        };
        let (failed, under_way): (Vec<_>, Vec<_>) = std::mem::take(&mut attempt.under_way)
            .into_iter()
            .partition(|(other, _)| *other == connection);
        attempt.under_way = under_way;
        let failures = failed.iter().map(|(_, peer)| explain(error, peer));
        attempt.failures.extend(failures);
        // The head start is over when its address has failed.
        if let Some((at, _)) = attempt.waiting.first().cloned() {
            self.dial_waiting(swarm, dial, &mut attempt, at);
        }
        self.settle(dial, attempt)
    }

    fn dial_waiting(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        dial: DialId,
        attempt: &mut Attempt,
        now: Instant,
    ) {
        while let Some((at, _)) = attempt.waiting.first() {
            if *at > now {
                break;
            }
            let (_, peer) = attempt.waiting.remove(0);
            let address = addrs::multiaddr(&peer.addr);
            let opts = match &peer.node {
                Some(node) => DialOpts::peer_id(addrs::peer_id(node))
                    .addresses(vec![address])
                    .condition(PeerCondition::Always)
                    .build(),
                None => DialOpts::unknown_peer_id().address(address).build(),
            };
            let connection = opts.connection_id();
            match swarm.dial(opts) {
                Ok(()) => {
                    attempt.under_way.push((connection, peer));
                    self.by_connection.insert(connection, dial);
                    break;
                }
                Err(why) => attempt.failures.push(explain(&why, &peer)),
            }
        }
    }

    fn settle(&mut self, dial: DialId, attempt: Attempt) -> Progress {
        if !attempt.under_way.is_empty() || !attempt.waiting.is_empty() {
            self.attempts.insert(dial, attempt);
            return Progress::Pending;
        }
        if attempt.won {
            return Progress::Pending;
        }
        Progress::Failed {
            dial,
            failures: attempt.failures,
        }
    }
}

/// How early an address is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Best,
    Good,
    Last,
}

fn place(addr: &NetAddr) -> Place {
    let near = match &addr.host {
        Host::Ip(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Host::Ip(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        // Names in a configuration are mostly those of a local network.
        Host::Name(_) => true,
    };
    match (near, addr.transport) {
        (true, Transport::Tcp) | (false, Transport::Quic) => Place::Best,
        (true, Transport::Quic) => Place::Good,
        (false, Transport::Tcp) => Place::Last,
    }
}

/// Says what happened at the address of a dial that failed.
fn explain(error: &DialError, peer: &PeerAddr) -> Failure {
    let (why, gate) = match error {
        DialError::Transport(errors) => {
            let fail = errors.iter().find_map(|(_, error)| fail_of(error));
            let gate = match fail {
                Some(Fail::Gate(gate)) => Some(*gate),
                Some(_) | None => None,
            };
            let other = || AddrFailure::Network(error.to_string());
            (fail.map_or_else(other, classify), gate)
        }
        // The swarm does not dial its own addresses.
        DialError::LocalPeerId { .. } | DialError::NoAddresses => (AddrFailure::Itself, None),
        DialError::WrongPeerId { obtained, .. } => match addrs::node_id(obtained) {
            Some(found) => (AddrFailure::OtherNode { found }, None),
            None => (AddrFailure::Network(error.to_string()), None),
        },
        DialError::DialPeerConditionFalse(_) | DialError::Aborted | DialError::Denied { .. } => {
            (AddrFailure::Network(error.to_string()), None)
        }
    };
    let addr = peer.clone();
    Failure { addr, why, gate }
}

fn classify(fail: &Fail) -> AddrFailure {
    match fail {
        Fail::Gate(GateFail { reason, .. }) => match reason {
            Refusal::OwnId => AddrFailure::Itself,
            Refusal::WrongSecret | Refusal::ProofRejected | Refusal::Epoch => {
                AddrFailure::WrongSecret
            }
            Refusal::Timeout => AddrFailure::TimedOut,
            Refusal::HelloRejected
            | Refusal::Version { .. }
            | Refusal::Method { .. }
            | Refusal::Reflected
            | Refusal::OutOfOrder
            | Refusal::Malformed
            | Refusal::Oversize(_)
            | Refusal::LegacyWire
            | Refusal::Closed => AddrFailure::Network(reason.to_string()),
        },
        Fail::Slow => AddrFailure::TimedOut,
        Fail::Io(why) if why.kind() == io::ErrorKind::ConnectionRefused => AddrFailure::Refused,
        Fail::Io(why) if why.kind() == io::ErrorKind::TimedOut => AddrFailure::TimedOut,
        Fail::Quic(libp2p::quic::Error::HandshakeTimedOut) => AddrFailure::TimedOut,
        Fail::Name(why) => AddrFailure::Name(why.clone()),
        Fail::Io(_) | Fail::Quic(_) | Fail::Secure(_) | Fail::Identity | Fail::Entropy(_) => {
            AddrFailure::Network(fail.to_string())
        }
    }
}

impl Failure {
    /// Returns it as the roster counts it.
    pub(crate) fn for_roster(&self) -> (NetAddr, DialFailure) {
        let why = match &self.why {
            AddrFailure::WrongSecret => DialFailure::Gate,
            AddrFailure::Refused => DialFailure::Refused,
            AddrFailure::TimedOut => DialFailure::Timeout,
            AddrFailure::Itself => DialFailure::Itself,
            AddrFailure::OtherNode { found } => DialFailure::OtherNode(*found),
            AddrFailure::Network(_) if self.gate.is_some() => DialFailure::Gate,
            AddrFailure::Name(_) | AddrFailure::Network(_) => DialFailure::Unreachable,
        };
        (self.addr.addr.clone(), why)
    }

    /// Returns who did not let this node in.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.gate.map(|gate| gate.node).or(self.addr.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_by_tcp_comes_first_and_far_away_quic() {
        let check = |text: &str, expected: Place| {
            let addr: NetAddr = text.parse().expect("an address");
            assert_eq!(place(&addr), expected, "{text}");
        };
        check("/ip4/127.0.0.1/tcp/1", Place::Best);
        check("/ip4/127.0.0.1/udp/1/quic-v1", Place::Good);
        check("/ip4/10.1.2.3/tcp/1", Place::Best);
        check("/ip6/fd00::1/tcp/1", Place::Best);
        check("/dns/node-b/tcp/1", Place::Best);
        check("/ip4/192.0.2.7/tcp/1", Place::Last);
        check("/ip4/192.0.2.7/udp/1/quic-v1", Place::Best);
        check("/ip6/2001:db8::1/tcp/1", Place::Last);
    }
}
