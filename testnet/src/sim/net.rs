//! A seeded network: connections with latency and loss, hosts that vanish, partitions.
//!
//! A connection delivers in order, each message after 10 to 50 ms. A lost message is lost for good:
//! harsher than TCP, which would deliver it late, and what a full send queue does. Only the last message
//! of an orderly end always arrives, as it does in a node, which writes it before it closes.

use std::collections::BTreeMap;
use std::time::Duration;

use openfang_ofp::Instant;
use openfang_ofp::roster::{LinkId, Rng};

/// The latency of one way.
const LATENCY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));
/// The ways a connection takes until it has passed the gate: TCP 2, Noise and multiplexer 3, gate 3.
const WAYS_TO_CONNECT: u32 = 8;
/// How long a dial into nowhere takes.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// What is at one end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Which node.
    pub(super) node: usize,
    /// The earliest moment the next message can arrive there: they come in order.
    arrival: Instant,
}

/// A connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire {
    ends: [End; 2],
}

/// How a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It may get lost.
    Lossy,
    /// Nothing ends before it is written: the last message of an orderly end.
    Flushed,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives at this node at this moment.
    Arrives(usize, Instant),
    /// It is lost.
    Lost,
}

/// The network between all nodes.
#[derive(Debug)]
pub(super) struct Net {
    rng: Rng,
    /// Of 65,536 messages, how many get lost.
    loss: u32,
    wires: BTreeMap<LinkId, Wire>,
    of_node: Vec<Vec<LinkId>>,
    numbers: u64,
    /// On which side of a partition each node is.
    sides: Vec<u8>,
}

impl Net {
    /// Makes a network for some nodes, with `loss` of 65,536 messages lost.
    #[must_use]
    pub(super) fn new(nodes: usize, loss: u32, rng: Rng) -> Self {
        Self {
            rng,
            loss,
            wires: BTreeMap::new(),
            of_node: vec![Vec::new(); nodes],
            numbers: 0,
            sides: vec![0; nodes],
        }
    }

    /// Draws the latency of one way.
    pub(super) fn latency(&mut self) -> Duration {
        self.rng.between(LATENCY.0, LATENCY.1)
    }

    /// Puts a node on a side of a partition; those on different sides do not hear each other.
    pub(super) fn set_side(&mut self, node: usize, side: u8) {
        self.sides[node] = side;
    }

    /// Ends every partition.
    pub(super) fn heal(&mut self) {
        self.sides.fill(0);
    }

    /// Tells whether messages between two nodes arrive.
    #[must_use]
    pub(super) fn reaches(&self, a: usize, b: usize) -> bool {
        self.sides[a] == self.sides[b]
    }

    /// Makes a connection; returns it and when it has passed the gate at each end, the dialer's
    /// first.
    pub(super) fn connect(
        &mut self,
        from: usize,
        to: usize,
        now: Instant,
    ) -> (LinkId, Instant, Instant) {
        self.numbers += 1;
        let link = LinkId(self.numbers);
        let before: Duration = (1..WAYS_TO_CONNECT).map(|_way| self.latency()).sum();
        let accepted = now + before;
        let admitted = accepted + self.latency();
        let ends = [
            End {
                node: from,
                arrival: admitted,
            },
            End {
                node: to,
                arrival: accepted,
            },
        ];
        self.wires.insert(link, Wire { ends });
        self.of_node[from].push(link);
        self.of_node[to].push(link);
        (link, admitted, accepted)
    }

    /// Sends a message from one end of a connection; draws what becomes of it.
    pub(super) fn send(
        &mut self,
        link: LinkId,
        from: usize,
        delivery: Delivery,
        now: Instant,
    ) -> Fate {
        let latency = self.latency();
        let lossy = delivery == Delivery::Lossy;
        let lost = lossy && self.loss > 0 && self.rng.chance(self.loss);
        let Some(end) = self.far_end(link, from) else {
            return Fate::Lost;
        };
        let arrival = (now + latency).max(end.arrival);
        if !lost {
            end.arrival = arrival;
        }
        let to = end.node;
        if lost || !self.reaches(from, to) {
            return Fate::Lost;
        }
        Fate::Arrives(to, arrival)
    }

    /// Ends a connection from one end; returns when the other end learns of it, if it can.
    pub(super) fn close(&mut self, link: LinkId, from: usize, now: Instant) -> Fate {
        let latency = self.latency();
        let fate = match self.far_end(link, from) {
            None => return Fate::Lost,
            Some(end) => Fate::Arrives(end.node, (now + latency).max(end.arrival)),
        };
        self.forget(link, from);
        match fate {
            Fate::Arrives(to, _) if !self.reaches(from, to) => Fate::Lost,
            Fate::Arrives(..) | Fate::Lost => fate,
        }
    }

    /// Answers a message for a connection that a node does not have: its sender learns of the end.
    pub(super) fn reset(&mut self, link: LinkId, at: usize, now: Instant) -> Fate {
        let latency = self.latency();
        match self.far_end(link, at) {
            None => Fate::Lost,
            Some(end) => {
                let (node, arrival) = (end.node, (now + latency).max(end.arrival));
                if self.reaches(at, node) {
                    Fate::Arrives(node, arrival)
                } else {
                    Fate::Lost
                }
            }
        }
    }

    /// Returns the connections a node has.
    #[must_use]
    pub(super) fn links_of(&self, node: usize) -> Vec<LinkId> {
        self.of_node[node].clone()
    }

    /// Tells whether a node has this end of a connection open.
    #[must_use]
    pub(super) fn is_open(&self, link: LinkId, node: usize) -> bool {
        self.of_node[node].contains(&link)
    }

    /// Forgets one end of a connection.
    pub(super) fn forget(&mut self, link: LinkId, node: usize) {
        self.of_node[node].retain(|other| *other != link);
        let Some(wire) = self.wires.get(&link) else {
            return;
        };
        let open = |end: &End| self.of_node[end.node].contains(&link);
        if !wire.ends.iter().any(open) {
            self.wires.remove(&link);
        }
    }

    fn far_end(&mut self, link: LinkId, from: usize) -> Option<&mut End> {
        let wire = self.wires.get_mut(&link)?;
        wire.ends.iter_mut().find(|end| end.node != from)
    }
}
