//! Dials under way: which address belongs to which dial of the roster, and how each one ended.
//!
//! Where the peer is known, the swarm races its addresses itself. Where it is not, libp2p dials one
//! address at a time; then each address is a dial of its own here, the later ones with a delay, and
//! the first that succeeds is the one.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use libp2p::core::transport::TransportError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, Swarm};
use openfang_id::{NetAddr, NodeId, PeerAddr};
use openfang_ofp::gate::Refusal;
use openfang_ofp::roster::{DialFailure, DialId};
use tokio::time::Instant;

use crate::AddrFailure;
use crate::addrs;
use crate::behaviour::Behaviour;
use crate::transport::{Fail, GateFail, fail_of};

/// The head start of the first address of an unknown peer, as the swarm's own racing has it.
const STAGGER: Duration = Duration::from_millis(30);

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
    addrs: Vec<PeerAddr>,
    under_way: Vec<ConnectionId>,
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
        peer_addrs: Vec<PeerAddr>,
    ) -> Progress {
        let node = peer_addrs.first().and_then(|first| first.node);
        let same = node.filter(|node| peer_addrs.iter().all(|addr| addr.node == Some(*node)));
        let mut attempt = Attempt {
            addrs: peer_addrs.clone(),
            ..Attempt::default()
        };
        match same {
            Some(node) => {
                let addresses = peer_addrs.iter().map(|peer| addrs::multiaddr(&peer.addr));
                let opts = DialOpts::peer_id(addrs::peer_id(&node))
                    .addresses(addresses.collect())
                    .condition(PeerCondition::Always)
                    .build();
                self.dial(swarm, dial, &mut attempt, (opts, &peer_addrs));
            }
            None => {
                let now = Instant::now();
                let delays = std::iter::successors(Some(now), |at| Some(*at + STAGGER));
                attempt.waiting = delays.zip(peer_addrs).collect();
                self.dial_waiting(swarm, dial, &mut attempt, now);
            }
        }
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
        attempt.under_way.retain(|other| *other != connection);
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
        attempt.under_way.retain(|other| *other != connection);
        let failures = explain(error, &attempt.addrs);
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
            self.dial(swarm, dial, attempt, (opts, std::slice::from_ref(&peer)));
        }
    }

    fn dial(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        dial: DialId,
        attempt: &mut Attempt,
        (opts, peer_addrs): (DialOpts, &[PeerAddr]),
    ) {
        let connection = opts.connection_id();
        match swarm.dial(opts) {
            Ok(()) => {
                attempt.under_way.push(connection);
                self.by_connection.insert(connection, dial);
            }
            Err(why) => attempt.failures.extend(explain(&why, peer_addrs)),
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

/// Says what happened at each address of a dial that failed.
fn explain(error: &DialError, peer_addrs: &[PeerAddr]) -> Vec<Failure> {
    let all = |why: &AddrFailure| {
        let one = |addr: &PeerAddr| Failure {
            addr: addr.clone(),
            why: why.clone(),
            gate: None,
        };
        peer_addrs.iter().map(one).collect::<Vec<_>>()
    };
    match error {
        DialError::Transport(errors) => {
            let one = |(at, error): &(Multiaddr, TransportError<io::Error>)| {
                let addr = addrs::net_addr(at)?;
                let expected = peer_addrs.iter().find(|peer| peer.addr == addr);
                let addr = expected.cloned().unwrap_or(PeerAddr { addr, node: None });
                let fail = fail_of(error);
                let gate = match fail {
                    Some(Fail::Gate(gate)) => Some(*gate),
                    Some(_) | None => None,
                };
                let why = fail.map_or_else(|| AddrFailure::Network(error.to_string()), classify);
                Some(Failure { addr, why, gate })
            };
            errors.iter().filter_map(one).collect()
        }
        DialError::LocalPeerId { .. } => all(&AddrFailure::Itself),
        DialError::WrongPeerId { obtained, .. } => match addrs::node_id(obtained) {
            Some(found) => all(&AddrFailure::OtherNode { found }),
            None => all(&AddrFailure::Network(
                "another kind of node answered".to_owned(),
            )),
        },
        DialError::NoAddresses => all(&AddrFailure::Itself),
        DialError::DialPeerConditionFalse(_) | DialError::Aborted | DialError::Denied { .. } => {
            all(&AddrFailure::Network(error.to_string()))
        }
    }
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
