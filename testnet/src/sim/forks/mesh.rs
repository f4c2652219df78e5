//! A few real states, all linked with all; messages arrive at once, and time is virtual.
//!
//! A liar is a real state too: what it says of its own log is changed on the way, for each neighbour,
//! and so are its answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use openfang_audit::evidence::{Evidence, Side};
use openfang_audit::note::{Note, Verifier};
use openfang_audit::{Hash, SignedHead};
use openfang_id::{Keys, NodeId, NodeSeed, Transport};
use openfang_ofp::Instant;
use openfang_ofp::heads::CannotProve;
use openfang_ofp::roster::{
    Config, Connected, Cosigners, Event, In, Known, LinkId, LogKey, NODES_MAX, Out, Rng, Start,
    State,
};

use super::super::crypto::Cheap;
use super::log::History;

/// The first byte of a message with heads.
const HEADS: u8 = 6;
/// Where the clocks of all nodes begin, in Unix milliseconds.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// How a liar answers what it cannot prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excuse {
    /// It answers nothing at all.
    Silence,
    /// It says that there is no proof.
    Refusal,
    /// It makes one up.
    Nonsense,
}

/// What a liar shows to whom.
#[derive(Debug, Clone)]
pub(super) struct Lie {
    /// By neighbour; who is not there is shown what the state says.
    pub(super) shown: BTreeMap<usize, (SignedHead, History)>,
    pub(super) excuse: Excuse,
}

/// One node.
pub(super) struct Node {
    pub(super) keys: Keys,
    pub(super) id: NodeId,
    pub(super) history: History,
    /// What it has signed last: never given up by an honest node, whatever happens.
    pub(super) floor: usize,
    pub(super) lie: Option<Lie>,
    /// What it had when it contradicted itself: others have copied it.
    pub(super) copies: Vec<History>,
    /// The evidence on its disk.
    pub(super) files: Vec<Vec<u8>>,
    state: Option<State>,
    disk: Known,
    incarnation: u64,
    /// When it cosigned its own log last.
    cosigned: u64,
}

/// All of them.
pub(super) struct Mesh {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Instant,
    /// Verdicts about nodes: by whom, about whom.
    pub(super) verdicts: Vec<(usize, NodeId)>,
    wires: BTreeMap<LinkId, (usize, usize)>,
    queue: VecDeque<(usize, LinkId, Vec<u8>)>,
    numbers: u64,
    /// Whose message is being dealt with.
    asking: Option<usize>,
    rng: Rng,
}

impl Mesh {
    /// Makes nodes, links all with all, and gives each a log.
    pub(super) fn new(count: usize, mut rng: Rng) -> Self {
        let nodes = (0..count).map(|_at| Node::new(&mut rng)).collect();
        let mut mesh = Self {
            nodes,
            now: Instant(1_000_000),
            verdicts: Vec::new(),
            wires: BTreeMap::new(),
            queue: VecDeque::new(),
            numbers: 0,
            asking: None,
            rng,
        };
        for at in 0..count {
            mesh.start(at);
        }
        mesh
    }

    /// Starts a node with what is on its disk, and links it with all that run.
    pub(super) fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.incarnation += 1;
        let config = Config {
            me: node.id,
            name: "node".parse().expect("letters are a name"),
            software: "sim".to_owned(),
            log: Some(LogKey {
                key: node.keys.log.verifying_key().to_bytes(),
                epoch: 1,
            }),
            cosigners: Cosigners {
                witness: Some(node.keys.witness.verifying_key().to_bytes()),
                mirror: None,
            },
            nodes_max: NODES_MAX,
        };
        let start = Start {
            incarnation: node.incarnation,
            known: node.disk.clone(),
            seed: self.rng.seed(),
            unix_ms: EPOCH_MS + self.now.0,
        };
        let crypto = Box::new(Cheap(node.id));
        node.state = Some(State::new(config, crypto, start, self.now));
        let files = node.files.clone();
        self.tell(at, In::AddEvidence(files));
        self.tell(at, In::Timer);
        self.announce(at);
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            if self.nodes[other].state.is_some() {
                self.link(at, other);
            }
        }
    }

    /// Ends a node, without a word.
    pub(super) fn crash(&mut self, at: usize) {
        self.nodes[at].state = None;
        let wires = self.wires.iter();
        let of: Vec<_> = wires
            .filter(|(_, (a, b))| *a == at || *b == at)
            .map(|(link, (a, b))| (*link, if *a == at { *b } else { *a }))
            .collect();
        for (link, other) in of {
            self.wires.remove(&link);
            self.tell(other, In::Disconnected { link });
        }
    }

    fn link(&mut self, from: usize, to: usize) {
        self.numbers += 1;
        let link = LinkId(self.numbers);
        self.wires.insert(link, (from, to));
        for (at, other) in [(to, from), (from, to)] {
            let connected = Connected {
                peer: self.nodes[other].id,
                link,
                dial: None,
                addr: None,
                transport: Transport::Tcp,
            };
            self.give(at, In::Connected(connected));
        }
        self.deliver();
    }

    /// Signs a head over all that a node has, and shows it to everyone. An honest node cosigns its own
    /// head only while its clock is not behind.
    pub(super) fn announce(&mut self, at: usize) {
        let clock = self.clock();
        let node = &mut self.nodes[at];
        let time = (clock >= node.cosigned).then_some(clock);
        node.cosigned = node.cosigned.max(clock);
        node.floor = node.history.size();
        let head = node.history.head(&node.keys, node.floor, time);
        self.tell(at, In::SetHead(head));
    }

    /// Returns what the clocks show, in seconds.
    pub(super) fn clock(&self) -> u64 {
        (EPOCH_MS + self.now.0) / 1_000
    }

    /// Sets the clock of a node back, or what it remembers of it on.
    pub(super) fn clock_was_ahead(&mut self, at: usize, seconds: u64) {
        self.nodes[at].cosigned += seconds;
    }

    /// Tells a node something, and carries out what follows, to the last message.
    fn tell(&mut self, at: usize, event: In) {
        self.give(at, event);
        self.deliver();
    }

    fn deliver(&mut self) {
        while let Some((to, link, bytes)) = self.queue.pop_front() {
            let ends = self.wires.get(&link).copied();
            self.asking = ends.map(|(a, b)| if a == to { b } else { a });
            self.give(to, In::Frame { link, bytes });
            self.asking = None;
        }
    }

    fn give(&mut self, at: usize, event: In) {
        let now = self.now;
        let Some(state) = self.nodes[at].state.as_mut() else {
            return;
        };
        for out in state.handle(event, now) {
            match out {
                Out::Send { link, bytes } => self.send(at, link, bytes),
                Out::Prove { ticket, from, to } => {
                    if let Some(answer) = self.answer(at, from, to) {
                        self.give(at, In::Proof { ticket, answer });
                    }
                }
                Out::Persist => {
                    let node = &mut self.nodes[at];
                    let known = node.state.as_ref().map(State::known);
                    node.disk = known.unwrap_or_default();
                }
                Out::Event(event) => self.on_event(at, event),
                Out::Hybrid { .. } => {}
                Out::Close { link, .. } => self.close(at, link),
                Out::StoreIncarnation(incarnation) => {
                    self.nodes[at].incarnation = incarnation;
                    self.give(at, In::IncarnationStored(incarnation));
                }
                Out::Dial { .. } => {}
            }
        }
    }

    fn close(&mut self, at: usize, link: LinkId) {
        if let Some((a, b)) = self.wires.remove(&link) {
            let other = if a == at { b } else { a };
            self.give(other, In::Disconnected { link });
        }
    }

    fn send(&mut self, from: usize, link: LinkId, bytes: Vec<u8>) {
        let Some((a, b)) = self.wires.get(&link).copied() else {
            return;
        };
        let to = if a == from { b } else { a };
        let bytes = self.falsified(from, to, bytes);
        self.queue.push_back((to, link, bytes));
    }

    /// Puts what a liar wants a neighbour to see in the place of its own head.
    fn falsified(&self, from: usize, to: usize, bytes: Vec<u8>) -> Vec<u8> {
        let node = &self.nodes[from];
        let lie = node.lie.as_ref().and_then(|lie| lie.shown.get(&to));
        let own = bytes.first() == Some(&HEADS) && bytes.get(3..35) == Some(node.id.as_bytes());
        let Some((head, _history)) = lie.filter(|_lie| own) else {
            return bytes;
        };
        let length = u16::try_from(head.note.len()).unwrap_or(u16::MAX);
        let mut frame = vec![HEADS, 0, 1];
        frame.extend_from_slice(node.id.as_bytes());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(head.note.as_bytes());
        frame
    }

    /// Answers for the log of a node; `None` for silence.
    fn answer(&self, at: usize, from: u64, to: u64) -> Option<Result<Vec<Hash>, CannotProve>> {
        let node = &self.nodes[at];
        let Some(lie) = &node.lie else {
            return Some(node.history.prove(from, to));
        };
        let shown = self.asking.and_then(|asking| lie.shown.get(&asking));
        let history = shown.map_or(&node.history, |(_head, history)| history);
        match (history.prove(from, to), lie.excuse) {
            (_, Excuse::Silence) => None,
            (Ok(proof), Excuse::Refusal | Excuse::Nonsense) => Some(Ok(proof)),
            (Err(_), Excuse::Refusal) => Some(Err(CannotProve::Range)),
            (Err(_), Excuse::Nonsense) => Some(Ok(vec![Hash::from_bytes([9; 32]); 3])),
        }
    }

    fn on_event(&mut self, at: usize, event: Event) {
        match event {
            Event::Convicted { evidence, .. } => {
                let files = &mut self.nodes[at].files;
                if !files.iter().any(|file| **file == *evidence) {
                    files.push(evidence.to_vec());
                }
            }
            Event::Inconsistent { node, evidence, .. } => {
                self.verdicts.push((at, node));
                self.compare(at, &node, [evidence.accepted, evidence.offending]);
            }
            Event::Unanswered { node, evidence } => {
                self.compare(at, &node, [evidence.accepted, evidence.offending]);
            }
            Event::NodeUp { .. }
            | Event::NodeSuspected { .. }
            | Event::NodeDown { .. }
            | Event::NodeLeft { .. }
            | Event::NodeForgotten { .. }
            | Event::Recorded { .. }
            | Event::AgentsChanged { .. }
            | Event::Linked { .. }
            | Event::Unlinked { .. }
            | Event::HeadAccepted { .. }
            | Event::InconsistencyReported { .. }
            | Event::Mended { .. }
            | Event::LogReplaced { .. }
            | Event::RecordEquivocation { .. }
            | Event::SelfDial { .. }
            | Event::DuplicateIdentity { .. }
            | Event::Refuted
            | Event::AgentsCut { .. }
            | Event::Violation { .. } => {}
        }
    }

    /// Compares two heads by the copies that others have, as a node does with mirrors.
    fn compare(&mut self, at: usize, of: &NodeId, heads: [Option<SignedHead>; 2]) {
        let [Some(one), Some(other)] = heads else {
            return;
        };
        let Some(node) = self.nodes.iter().find(|node| node.id == *of) else {
            return;
        };
        let lie = node.lie.iter().flat_map(|lie| lie.shown.values());
        let copies = node.copies.iter().chain([&node.history]);
        let copies: Vec<&History> = copies.chain(lie.map(|(_head, history)| history)).collect();
        let find = |head: &SignedHead| copies.iter().find(|copy| copy.is_of(head));
        let (Some(a), Some(b)) = (find(&one), find(&other)) else {
            return;
        };
        let origin = one.checkpoint.origin.as_str();
        let key = Verifier::new(origin, node.keys.log.verifying_key());
        let notes = (
            one.note.parse::<Note>().ok(),
            other.note.parse::<Note>().ok(),
        );
        let (Some(key), (Some(one), Some(other))) = (key, notes) else {
            return;
        };
        let sides = (
            Side {
                note: &one,
                nodes: a.nodes(),
            },
            Side {
                note: &other,
                nodes: b.nodes(),
            },
        );
        if let Ok(evidence) = Evidence::fork(&key, sides.0, sides.1) {
            self.give(at, In::AddEvidence(vec![evidence.to_bytes()]));
        }
    }

    /// Lets time pass; every timer fires when it is due.
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let due = self.nodes.iter().enumerate();
            let due = due.filter_map(|(at, node)| Some((node.state.as_ref()?.deadline()?, at)));
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

    /// Tells whether a node holds another for convicted; `None` while it does not run.
    pub(super) fn convicts(&self, at: usize, of: usize) -> Option<bool> {
        let state = self.nodes[at].state.as_ref()?;
        let view = state.view();
        let node = view.node(&self.nodes[of].id)?;
        Some(node.convicted.is_some())
    }
}

impl Node {
    fn new(rng: &mut Rng) -> Self {
        let keys = NodeSeed::from_bytes(rng.seed()).keys();
        let mut history = History::default();
        history.grow(1 + rng.index(20), rng);
        Self {
            id: keys.node_id(),
            keys,
            history,
            floor: 0,
            lie: None,
            copies: Vec::new(),
            files: Vec::new(),
            state: None,
            disk: Known::default(),
            incarnation: 0,
            cosigned: 0,
        }
    }
}
