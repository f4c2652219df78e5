//! What is true of every simulated node: the reference that what nodes believe is held against.

use std::collections::BTreeMap;
use std::time::Duration;

use openfang_id::{AgentId, NetAddr, NodeId, NodeName, NodeSeed, SigningKey, Transport};
use openfang_ofp::Instant;
use openfang_ofp::roster::{
    AgentAd, AgentState, Config, Cosigners, Crypto, Ed25519, In, Known, NODES_MAX, Rng, Start,
    State,
};

use super::crypto::Cheap;

/// How long a node that was just disturbed may be held for dead by others: suspicions that began
/// before the disturbance ended run out, and the refutation travels.
const EXCUSE: Duration = Duration::from_secs(10);

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// It was never started.
    New,
    /// It runs.
    Up,
    /// Its process is gone; its machine refuses connections.
    Killed,
    /// It does nothing and answers nothing, and will go on.
    Hung,
    /// It has left on purpose.
    Left,
}

/// One simulated node.
#[derive(Debug)]
pub(super) struct Node {
    /// Who it is.
    pub(super) id: NodeId,
    /// Where it listens.
    pub(super) addr: NetAddr,
    /// What it is doing.
    pub(super) run: Run,
    /// The state under test; kept while it hangs.
    pub(super) state: Option<State>,
    /// When its next timer is scheduled.
    pub(super) armed: Option<Instant>,
    /// What it runs, in truth.
    pub(super) agents: Vec<AgentAd>,
    /// Since when it has not been disturbed.
    pub(super) steady_since: Instant,
    /// How often it was started: what was meant for an earlier run does not reach a later one.
    pub(super) starts: u64,
    identity: SigningKey,
    incarnation: u64,
    disk: Known,
}

/// All nodes.
#[derive(Debug)]
pub(super) struct Model {
    /// By number.
    pub(super) nodes: Vec<Node>,
    by_id: BTreeMap<NodeId, usize>,
    by_addr: BTreeMap<NetAddr, usize>,
    real_crypto: bool,
}

impl Model {
    /// Makes nodes that were never started.
    #[must_use]
    pub(super) fn new(count: usize, real_crypto: bool, rng: &mut Rng, now: Instant) -> Self {
        let nodes: Vec<Node> = (0..count)
            .map(|at| Node::new(at, rng.seed(), now))
            .collect();
        let numbered = || nodes.iter().enumerate();
        Self {
            by_id: numbered().map(|(at, node)| (node.id, at)).collect(),
            by_addr: numbered()
                .map(|(at, node)| (node.addr.clone(), at))
                .collect(),
            real_crypto,
            nodes,
        }
    }

    /// Returns the number of a node.
    #[must_use]
    pub(super) fn number(&self, id: &NodeId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// Returns which node listens at an address.
    #[must_use]
    pub(super) fn listener(&self, addr: &NetAddr) -> Option<usize> {
        self.by_addr.get(addr).copied()
    }

    /// Returns the numbers of the nodes that run.
    pub(super) fn up(&self) -> impl Iterator<Item = usize> + '_ {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter(|(_, node)| node.run == Run::Up)
            .map(|(at, _)| at)
    }

    /// Makes the state of a node that starts: one incarnation higher, knowing what is on its disk.
    pub(super) fn start(&mut self, at: usize, seed: [u8; 32], now: Instant) {
        let crypto = self.crypto(at);
        let node = &mut self.nodes[at];
        node.incarnation += 1;
        node.starts += 1;
        let name: Result<NodeName, _> = format!("node-{at}").parse();
        let config = Config {
            me: node.id,
            name: name.expect("letters and digits are a name"),
            software: "sim".to_owned(),
            log: None,
            cosigners: Cosigners::default(),
            nodes_max: NODES_MAX,
        };
        let start = Start {
            incarnation: node.incarnation,
            known: node.disk.clone(),
            seed,
            unix_ms: 1_700_000_000_000 + now.0,
        };
        node.state = Some(State::new(config, crypto, start, now));
        node.armed = None;
        node.run = Run::Up;
        node.steady_since = now;
    }

    /// Returns what checks and makes signatures for a node.
    #[must_use]
    pub(super) fn crypto(&self, at: usize) -> Box<dyn Crypto> {
        let node = &self.nodes[at];
        if self.real_crypto {
            Box::new(Ed25519(node.identity.clone()))
        } else {
            Box::new(Cheap(node.id))
        }
    }

    /// Tells whether signatures are real.
    #[must_use]
    pub(super) fn real_crypto(&self) -> bool {
        self.real_crypto
    }

    /// Tells whether one node has every reason to see another alive.
    #[must_use]
    pub(super) fn must_see(&self, from: usize, to: usize, now: Instant) -> bool {
        let steady = |node: &Node| node.run == Run::Up && now.since(node.steady_since) >= EXCUSE;
        steady(&self.nodes[from]) && steady(&self.nodes[to])
    }
}

impl Node {
    fn new(at: usize, seed: [u8; 32], now: Instant) -> Self {
        let keys = NodeSeed::from_bytes(seed).keys();
        let [_, _, high, low] = u32::try_from(at).unwrap_or(u32::MAX).to_be_bytes();
        Self {
            id: keys.node_id(),
            addr: NetAddr::from_socket(Transport::Quic, ([10, 0, high, low], 4_200).into()),
            run: Run::New,
            state: None,
            armed: None,
            agents: Vec::new(),
            steady_since: now,
            starts: 0,
            identity: keys.identity,
            incarnation: 0,
            disk: Known::default(),
        }
    }

    /// Adds an agent, and returns what the node is told of it.
    pub(super) fn spawn(&mut self, random: [u8; 16]) -> In {
        let number = self.agents.len();
        let name = format!("agent-{number}").parse();
        self.agents.push(AgentAd {
            id: AgentId::from_random(random),
            name: name.expect("letters and digits are a name"),
            description: "An agent of a simulation, with a sentence about itself.".to_owned(),
            tags: vec!["sim".to_owned()],
            tools: vec!["agent_send".to_owned(), "memory_store".to_owned()],
            state: AgentState::Running,
            module: "builtin:echo".to_owned(),
        });
        self.agents.sort_by_key(|agent| agent.id);
        In::SetAgents(self.agents.clone())
    }

    /// Writes to disk what the state wants kept.
    pub(super) fn persist(&mut self) {
        if let Some(state) = &self.state {
            self.disk = state.known();
        }
    }

    /// Writes an incarnation to disk.
    pub(super) fn store_incarnation(&mut self, incarnation: u64) {
        self.incarnation = incarnation;
    }

    /// Loses the disk, with everything on it but the key.
    pub(super) fn lose_disk(&mut self) {
        self.disk = Known::default();
        self.incarnation = 0;
    }
}
