//! A few real states, connected by hand; messages arrive at once and in order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use openfang_id::{AgentId, Keys, NetAddr, NodeId, NodeSeed, PeerAddr, Transport};

use crate::Instant;
use crate::heads::CannotProve;
use crate::roster::wire::{self, Standing};
use crate::roster::{
    AgentAd, AgentState, Config, Connected, Cosigners, Crypto, DialFailure, DialId, Ed25519, Event,
    In, Known, LinkId, Liveness, LogKey, NODES_MAX, Out, Record, SignedRecord, Start, State,
    Version,
};

/// The keys of node number `at`.
pub(in crate::roster) fn keys(at: u8) -> Keys {
    NodeSeed::from_bytes([at + 1; 32]).keys()
}

/// An agent for a record.
pub(in crate::roster) fn ad(at: u8) -> AgentAd {
    let name = format!("agent-{at}").parse();
    AgentAd {
        id: AgentId::from_random([at; 16]),
        name: name.expect("a name"),
        description: "what it is for".to_owned(),
        tags: vec!["tag".to_owned()],
        tools: vec!["agent_send".to_owned()],
        state: AgentState::Running,
        module: "builtin:echo".to_owned(),
    }
}

/// A plain record of node number `at`.
pub(in crate::roster) fn record(at: u8, incarnation: u64, sequence: u64) -> Record {
    Record {
        origin: keys(at).node_id(),
        version: Version {
            incarnation,
            sequence,
        },
        refutation: 0,
        issued_ms: 1_700_000_000_000,
        left: false,
        name: "node".parse().expect("a name"),
        software: "test".to_owned(),
        log: None,
        cosigners: Cosigners::default(),
        addrs: vec![addr(at)],
        agents: vec![ad(at)],
    }
}

/// Signs a record with the key of node number `at`, whatever it says.
pub(in crate::roster) fn sign(at: u8, record: Record) -> SignedRecord {
    let crypto = Ed25519(keys(at).identity);
    SignedRecord::sign(record, &crypto).expect("a record within its bounds")
}

/// A message with one record, whose sender vouches for its origin.
pub(in crate::roster) fn told(record: &SignedRecord) -> Vec<u8> {
    wire::records(&[(record, Standing::SURE)]).0
}

/// Where node number `at` listens.
pub(in crate::roster) fn addr(at: u8) -> NetAddr {
    NetAddr::from_socket(Transport::Tcp, ([10, 0, 0, at], 4_200).into())
}

/// How a log answers a question for the proof between two sizes.
type Answer = Box<dyn Fn(u64, u64) -> Result<Vec<openfang_audit::Hash>, CannotProve>>;

/// The states, and everything between them.
pub(in crate::roster) struct Bus {
    pub(in crate::roster) states: Vec<State>,
    pub(in crate::roster) now: Instant,
    /// Everything that was told, by whom.
    pub(in crate::roster) events: Vec<(usize, Event)>,
    /// Dials that wait for an outcome.
    pub(in crate::roster) dials: VecDeque<(usize, DialId, Vec<PeerAddr>)>,
    /// Questions to the own logs.
    pub(in crate::roster) questions: Vec<(usize, In, u64, u64)>,
    /// Incarnations that are to be stored.
    pub(in crate::roster) incarnations: Vec<(usize, u64)>,
    /// How a log answers, by node.
    pub(in crate::roster) answers: BTreeMap<usize, Answer>,
    /// Which hybrid clocks were told: to whom, of whom.
    pub(in crate::roster) hybrids: Vec<(usize, NodeId, u64)>,
    /// The first byte of each message that was sent.
    pub(in crate::roster) sent: Vec<u8>,
    wires: BTreeMap<LinkId, (usize, usize)>,
    queue: VecDeque<(usize, LinkId, Vec<u8>)>,
    numbers: u64,
    frozen: Option<usize>,
}

impl Bus {
    /// Makes nodes that know nothing.
    pub(in crate::roster) fn new(count: u8) -> Self {
        Self::with(vec![Known::default(); usize::from(count)])
    }

    /// Makes nodes that know something from disk.
    pub(in crate::roster) fn with(known: Vec<Known>) -> Self {
        let now = Instant(1_000);
        let made = known.into_iter().enumerate();
        let states: Vec<State> = made
            .map(|(at, known)| Self::make(u8::try_from(at).expect("few nodes"), 1, known, now))
            .collect();
        let mut bus = Self {
            states,
            now,
            events: Vec::new(),
            dials: VecDeque::new(),
            questions: Vec::new(),
            incarnations: Vec::new(),
            answers: BTreeMap::new(),
            hybrids: Vec::new(),
            sent: Vec::new(),
            wires: BTreeMap::new(),
            queue: VecDeque::new(),
            numbers: 0,
            frozen: None,
        };
        for at in 0..bus.states.len() {
            let addrs = vec![addr(u8::try_from(at).expect("few nodes"))];
            bus.tell(at, In::SetAddrs(addrs));
        }
        bus
    }

    /// Makes some nodes that are all linked with each other, and settled.
    pub(super) fn mesh(count: u8) -> Self {
        let mut bus = Self::new(count);
        for from in 0..usize::from(count) {
            for to in from + 1..usize::from(count) {
                bus.connect(from, to);
            }
        }
        bus.pass(Duration::from_secs(6));
        bus
    }

    fn make(at: u8, incarnation: u64, known: Known, now: Instant) -> State {
        let keys = keys(at);
        let config = Config {
            me: keys.node_id(),
            name: format!("node-{at}").parse().expect("a name"),
            software: "test".to_owned(),
            log: Some(LogKey {
                key: keys.log.verifying_key().to_bytes(),
                epoch: 1,
            }),
            cosigners: Cosigners {
                witness: Some(keys.witness.verifying_key().to_bytes()),
                mirror: None,
            },
            nodes_max: NODES_MAX,
        };
        let start = Start {
            incarnation,
            known,
            seed: [at; 32],
            unix_ms: 1_700_000_000_000,
        };
        State::new(config, Box::new(Ed25519(keys.identity)), start, now)
    }

    /// Starts a node again, with another incarnation and what it had on disk.
    pub(in crate::roster) fn restart(&mut self, at: usize, incarnation: u64, known: Known) {
        self.kill(at);
        let number = u8::try_from(at).expect("few nodes");
        self.states[at] = Self::make(number, incarnation, known, self.now);
        self.tell(at, In::SetAddrs(vec![addr(number)]));
    }

    /// Ends every connection of a node, without a word.
    pub(in crate::roster) fn kill(&mut self, at: usize) {
        let wires = self.wires.iter();
        let of: Vec<_> = wires
            .filter(|(_, (a, b))| *a == at || *b == at)
            .map(|(link, ends)| (*link, *ends))
            .collect();
        for (link, (a, b)) in of {
            self.wires.remove(&link);
            let other = if a == at { b } else { a };
            self.tell(other, In::Disconnected { link });
        }
    }

    pub(in crate::roster) fn id(&self, at: usize) -> NodeId {
        keys(u8::try_from(at).expect("few nodes")).node_id()
    }

    pub(in crate::roster) fn crypto(&self, at: usize) -> impl Crypto + use<> {
        Ed25519(keys(u8::try_from(at).expect("few nodes")).identity)
    }

    /// Tells a node something, and carries out what follows, to the last message.
    pub(in crate::roster) fn tell(&mut self, at: usize, event: In) {
        self.give(at, event);
        while let Some((to, link, bytes)) = self.queue.pop_front() {
            self.give(to, In::Frame { link, bytes });
        }
    }

    fn give(&mut self, at: usize, event: In) {
        if self.frozen == Some(at) {
            return;
        }
        for out in self.states[at].handle(event, self.now) {
            match out {
                Out::Send { link, bytes } => self.send(at, link, bytes),
                Out::Dial { dial, addrs } => self.dials.push_back((at, dial, addrs)),
                Out::Close { link, .. } => self.close(at, link),
                Out::StoreIncarnation(incarnation) => self.incarnations.push((at, incarnation)),
                Out::Persist => {}
                Out::Hybrid { peer, hlc } => self.hybrids.push((at, peer, hlc)),
                Out::Prove { ticket, from, to } => {
                    let answer = self.answers.get(&at).map(|answer| answer(from, to));
                    let answer = answer.unwrap_or(Err(CannotProve::Later));
                    let event = In::Proof { ticket, answer };
                    self.questions.push((at, event.clone(), from, to));
                    self.give(at, event);
                }
                Out::Event(event) => self.events.push((at, event)),
            }
        }
    }

    fn send(&mut self, from: usize, link: LinkId, bytes: Vec<u8>) {
        self.sent.push(bytes[0]);
        let Some((a, b)) = self.wires.get(&link).copied() else {
            return;
        };
        let to = if a == from { b } else { a };
        self.queue.push_back((to, link, bytes));
    }

    fn close(&mut self, from: usize, link: LinkId) {
        if let Some((a, b)) = self.wires.remove(&link) {
            // What was sent before arrives before.
            let to = if a == from { b } else { a };
            let (early, rest): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.queue)
                .into_iter()
                .partition(|(_, of, _)| *of == link);
            self.queue = rest;
            for (to, link, bytes) in early {
                self.give(to, In::Frame { link, bytes });
            }
            self.give(to, In::Disconnected { link });
        }
    }

    /// Connects two nodes; the first dials.
    pub(in crate::roster) fn connect(&mut self, from: usize, to: usize) -> LinkId {
        self.connect_for(from, to, DialId(u64::MAX))
    }

    /// Connects two nodes for a dial of the first.
    pub(in crate::roster) fn connect_for(
        &mut self,
        from: usize,
        to: usize,
        dial: DialId,
    ) -> LinkId {
        self.numbers += 1;
        let link = LinkId(self.numbers);
        self.wires.insert(link, (from, to));
        let end = |peer, dial, addr| {
            In::Connected(Connected {
                peer,
                link,
                dial,
                addr,
                transport: Transport::Tcp,
            })
        };
        let to_addr = addr(u8::try_from(to).expect("few nodes"));
        let (here, there) = (self.id(from), self.id(to));
        self.give(to, end(here, None, None));
        self.give(from, end(there, Some(dial), Some(to_addr)));
        self.drain();
        link
    }

    /// Tells node `at` that a connection from `peer`, played by the test, has passed the gate.
    pub(in crate::roster) fn connect_stranger(&mut self, at: usize, peer: u8) -> LinkId {
        self.numbers += 1;
        let link = LinkId(self.numbers);
        let connected = Connected {
            peer: keys(peer).node_id(),
            link,
            dial: None,
            addr: None,
            transport: Transport::Tcp,
        };
        self.tell(at, In::Connected(connected));
        link
    }

    /// Makes node `at` hear of another from as many as it needs to believe them.
    pub(in crate::roster) fn vouch(&mut self, at: usize, record: &SignedRecord) {
        for voucher in [240, 241] {
            let link = self.connect_stranger(at, voucher);
            let bytes = told(record);
            self.tell(at, In::Frame { link, bytes });
        }
    }

    fn drain(&mut self) {
        while let Some((to, link, bytes)) = self.queue.pop_front() {
            self.give(to, In::Frame { link, bytes });
        }
    }

    /// Lets time pass; every timer fires when it is due. Dials are answered by `dialed`.
    pub(in crate::roster) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let due = self.states.iter().enumerate();
            let due = due.filter(|(at, _)| self.frozen != Some(*at));
            let due = due.filter_map(|(at, state)| Some((state.deadline()?, at)));
            match due.min() {
                Some((when, at)) if when <= end => {
                    self.now = self.now.max(when);
                    self.tell(at, In::Timer);
                }
                Some(_) | None => break,
            }
        }
        self.now = end;
    }

    /// A machine vanishes: it does nothing more, and nobody is told.
    pub(in crate::roster) fn freeze(&mut self, at: usize) {
        self.frozen = Some(at);
    }

    /// Reports that every dial so far has failed.
    pub(in crate::roster) fn refuse_dials(&mut self, failure: DialFailure) {
        for (at, dial, addrs) in std::mem::take(&mut self.dials) {
            let failures = addrs.into_iter().map(|addr| (addr.addr, failure));
            let failures = failures.collect();
            self.tell(at, In::DialFailed { dial, failures });
        }
    }

    /// Lets every dial so far succeed.
    pub(in crate::roster) fn accept_dials(&mut self) {
        for (at, dial, addrs) in std::mem::take(&mut self.dials) {
            let wanted = addrs.first().expect("an address").addr.clone();
            let mut all = 0..u8::try_from(self.states.len()).expect("few nodes");
            let to = all.find(|to| addr(*to) == wanted).expect("a listener");
            self.connect_for(at, usize::from(to), dial);
        }
    }

    pub(in crate::roster) fn liveness(&self, at: usize, of: usize) -> Option<Liveness> {
        self.states[at].liveness(&self.id(of))
    }

    /// Returns what a node has been told of since the last time.
    pub(in crate::roster) fn take_events(&mut self, at: usize) -> Vec<Event> {
        let (of, rest) = std::mem::take(&mut self.events)
            .into_iter()
            .partition(|(by, _)| *by == at);
        self.events = rest;
        let of: Vec<(usize, Event)> = of;
        of.into_iter().map(|(_, event)| event).collect()
    }

    /// Tells whether two nodes hold the same of everyone.
    pub(in crate::roster) fn agree(&self, a: usize, b: usize) -> bool {
        let held = |at: usize| {
            let view = self.states[at].view();
            let nodes = view.nodes.iter();
            nodes
                .map(|node| (node.id, *node.record.hash()))
                .collect::<Vec<_>>()
        };
        held(a) == held(b)
    }
}
