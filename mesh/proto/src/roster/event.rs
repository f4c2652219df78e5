//! What a roster is told, and what it wants done.

use std::sync::Arc;

use openfang_audit::{Hash, SignedHead};
use openfang_id::{NetAddr, NodeId, PeerAddr, Transport};

use super::{AgentAd, Version};
use crate::heads::{CannotProve, Conviction, Evidence, Why};

/// A connection, as the driver numbers it. Never used twice in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A dial, as the state numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// A question to the own audit log, to be given back with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProofTicket(pub u64);

/// What happens to a roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum In {
    /// The time of [`State::deadline`](super::State::deadline) has come.
    Timer,
    /// A connection has passed the gate.
    Connected(Connected),
    /// A connection is gone. One that was closed through [`Out::Close`] may be reported or not.
    Disconnected {
        /// Which.
        link: LinkId,
    },
    /// A whole message arrived, without its length.
    Frame {
        /// On which connection.
        link: LinkId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Every address of a dial has failed. Given once for a dial that led to no [`In::Connected`].
    DialFailed {
        /// Which dial.
        dial: DialId,
        /// What happened at each address.
        failures: Vec<(NetAddr, DialFailure)>,
    },
    /// The agents of this node, all of them.
    SetAgents(Vec<AgentAd>),
    /// The addresses this node can be dialed at, all of them.
    SetAddrs(Vec<NetAddr>),
    /// Evidence that is on the disk of this node, or that it has found by itself: files as
    /// [`openfang_audit::evidence`] writes them. What is none is passed over.
    AddEvidence(Vec<Vec<u8>>),
    /// The audit log of this node has a new head, and its floor is on disk.
    SetHead(SignedHead),
    /// The head of the own audit log is not announced any more, until the next [`In::SetHead`].
    HideHead,
    /// Addresses to dial until each has led to a node, and again whenever that node is gone. Those
    /// of one node or of one host and port are tried together.
    AddBootstrap(Vec<PeerAddr>),
    /// Addresses that are no longer to be dialed.
    DropBootstrap(Vec<NetAddr>),
    /// The incarnation of [`Out::StoreIncarnation`] is on disk.
    IncarnationStored(u64),
    /// The answer of the own audit log to [`Out::Prove`].
    Proof {
        /// The question.
        ticket: ProofTicket,
        /// The proof, or why there is none.
        answer: Result<Vec<Hash>, CannotProve>,
    },
    /// The node leaves the mesh: the farewell is in the outputs. Nothing is dialed afterwards; the
    /// driver flushes and closes.
    Leave,
}

/// A connection that has passed the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Who is at the other end, as the transport proved it.
    pub peer: NodeId,
    /// The number of the connection.
    pub link: LinkId,
    /// The dial that made it; `None` when the peer dialed.
    pub dial: Option<DialId>,
    /// The address it was dialed at, or that it comes from.
    pub addr: Option<NetAddr>,
    /// What carries it.
    pub transport: Transport,
}

/// Why an address could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailure {
    /// Nothing listens there.
    Refused,
    /// No way there, or no such host.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// It answered and did not pass the gate, or did not let us pass.
    Gate,
    /// Someone else answered.
    OtherNode(NodeId),
    /// This node answered.
    Itself,
}

/// What the driver must do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// Write a message with its length. Dropped when the connection is gone.
    Send {
        /// On which connection.
        link: LinkId,
        /// The message; at most [`FRAME_BYTES_MAX`](super::FRAME_BYTES_MAX) bytes.
        bytes: Vec<u8>,
    },
    /// Dial these addresses of one peer: race them in this order, and keep the first that succeeds.
    Dial {
        /// The number to report the outcome under.
        dial: DialId,
        /// Where, best first.
        addrs: Vec<PeerAddr>,
    },
    /// Close a connection, after what was sent on it is written. The state has forgotten it.
    Close {
        /// Which.
        link: LinkId,
        /// Why.
        why: CloseReason,
    },
    /// Write this incarnation to disk, then give [`In::IncarnationStored`].
    StoreIncarnation(u64),
    /// [`State::known`](super::State::known) has changed: write it to disk when convenient.
    Persist,
    /// A neighbour has told the hybrid clock of its audit log.
    Hybrid {
        /// Who.
        peer: NodeId,
        /// The clock.
        hlc: u64,
    },
    /// Ask the own audit log for the consistency proof between two sizes, then give [`In::Proof`].
    Prove {
        /// To be given back with the answer.
        ticket: ProofTicket,
        /// The smaller size.
        from: u64,
        /// The larger size.
        to: u64,
    },
    /// For the log, the audit log and the API.
    Event(Event),
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// There is a better one to the same peer, or it is one more than the node keeps.
    Surplus,
    /// The peer has not been heard on it for too long.
    Silent,
    /// The peer broke the protocol.
    Violation(Offence),
    /// This node has left the mesh.
    Leaving,
}

/// How a peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// A message is not one of this protocol.
    Malformed,
    /// It passed on a record that its origin has not signed.
    ForgedRecord,
    /// It passed on an accusation or alarm that its author has not signed.
    ForgedClaim,
    /// It passed on evidence that proves nothing.
    ForgedEvidence,
}

/// What happened in the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A node is alive: new, back, or no longer suspected.
    NodeUp {
        /// Which.
        node: NodeId,
        /// Its incarnation.
        incarnation: u64,
    },
    /// A node may be dead.
    NodeSuspected {
        /// Which.
        node: NodeId,
    },
    /// A node is dead.
    NodeDown {
        /// Which.
        node: NodeId,
    },
    /// A node has left on purpose.
    NodeLeft {
        /// Which.
        node: NodeId,
    },
    /// A node was forgotten: dead or gone for longer than [`KEEP_DEAD`](super::KEEP_DEAD).
    NodeForgotten {
        /// Which.
        node: NodeId,
    },
    /// A record was stored.
    Recorded {
        /// Whose.
        node: NodeId,
        /// Which.
        version: Version,
    },
    /// The agents of a node are not those they were.
    AgentsChanged {
        /// Which node.
        node: NodeId,
    },
    /// A connection is in use.
    Linked {
        /// With whom.
        node: NodeId,
        /// Which.
        link: LinkId,
        /// The dial that made it.
        dial: Option<DialId>,
    },
    /// A connection is gone.
    Unlinked {
        /// With whom.
        node: NodeId,
        /// Which.
        link: LinkId,
    },
    /// The head of a node's audit log is the first one seen, or continues the one before.
    HeadAccepted {
        /// Whose log.
        node: NodeId,
        /// Its head.
        head: SignedHead,
    },
    /// A node's audit log contradicts what it has shown: seen here, or proved by two of its notes.
    Inconsistent {
        /// Whose log.
        node: NodeId,
        /// How.
        why: Why,
        /// What shows it.
        evidence: Evidence,
    },
    /// A node's audit log, which was inconsistent, has proved that all that was seen of it is one history.
    Mended {
        /// Whose log.
        node: NodeId,
        /// Its head.
        head: SignedHead,
    },
    /// A node has not answered a question about its audit log for long: its heads are unproven.
    Unanswered {
        /// Whose log.
        node: NodeId,
        /// The two heads it was asked about.
        evidence: Evidence,
    },
    /// Evidence convicts a node, perhaps this one: told once in a run for each node.
    Convicted {
        /// Whom.
        node: NodeId,
        /// Of what.
        conviction: Conviction,
        /// The evidence: the bytes of its file.
        evidence: Arc<[u8]>,
    },
    /// Another node says that a node's audit log contradicts itself, without a proof.
    InconsistencyReported {
        /// Whose log.
        node: NodeId,
        /// Who says so.
        by: NodeId,
        /// How, in its words.
        why: Why,
    },
    /// A node has begun another audit log.
    LogReplaced {
        /// Whose.
        node: NodeId,
        /// The number of the new one.
        epoch: u32,
    },
    /// A node has signed two different records of one version.
    RecordEquivocation {
        /// Which.
        node: NodeId,
    },
    /// An address leads to this node; it is not dialed again.
    SelfDial {
        /// Which.
        addr: NetAddr,
    },
    /// Another machine runs with the key of this node.
    DuplicateIdentity {
        /// The incarnation it has reached.
        incarnation: u64,
    },
    /// This node was held for dead, and has refuted it.
    Refuted,
    /// The own agents do not fit a record; texts were shortened or agents left out.
    AgentsCut {
        /// How many of them are announced.
        announced: usize,
        /// How many there are.
        agents: usize,
    },
    /// A peer broke the protocol.
    Violation {
        /// Which.
        node: NodeId,
        /// How.
        offence: Offence,
    },
}
