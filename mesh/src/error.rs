//! What can go wrong, one enum per operation.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use openfang_id::{NetAddr, NodeId, PeerAddr};
use openfang_ofp::call;

/// Why the mesh did not start. Nothing is left bound or running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken by another process.
    #[error("{addr} is in use by another process")]
    InUse {
        /// Which.
        addr: NetAddr,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// Which.
        addr: NetAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The folder for the state cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    State {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The stored incarnation is damaged. Starting with a lower one would make the other nodes ignore
    /// this node; whoever removes the file accepts that it is learnt from them again.
    #[error("{} does not hold a number; remove it to learn it from the other nodes again", path.display())]
    Incarnation {
        /// Which file.
        path: PathBuf,
    },
    /// The transport could not be set up: the identity or the system's resolver.
    #[error("cannot set up the network: {reason}")]
    Transport {
        /// What failed.
        reason: String,
    },
}

/// Why a call gave no answer. Every variant but [`Lost`](Self::Lost) and [`TimedOut`](Self::TimedOut)
/// means that the agent did not take the message, or said itself what went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No node with this id is in the roster.
    #[error("no node {node} is known")]
    UnknownNode {
        /// Which was looked for.
        node: NodeId,
    },
    /// The node is known and cannot be reached; the message was not sent.
    #[error("the node cannot be reached: {last}")]
    Unreachable {
        /// Which.
        node: NodeId,
        /// What happened at the last attempt.
        last: String,
    },
    /// The connection broke after the message was sent, and no other came in time, or the node was
    /// restarted meanwhile: whether the message had an effect is not known.
    #[error("the connection was lost before the answer was complete: {last}")]
    Lost {
        /// Which.
        node: NodeId,
        /// What happened.
        last: String,
    },
    /// Too many calls wait already, here or there.
    #[error("too many calls wait already")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The mesh sleeps: it has no secret.
    #[error("the network is asleep: it has no shared secret")]
    Asleep,
    /// The deadline passed. Whether the message had an effect is not known.
    #[error("no answer within the deadline")]
    TimedOut,
    /// The message is larger than a request may be; it was not sent.
    #[error("the message has {bytes} bytes, more than {max}")]
    TooLarge {
        /// How large the encoded request is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
    /// A field of the request is longer than it may be; it was not sent.
    #[error("the request cannot be sent: {what}")]
    Invalid {
        /// Which.
        what: String,
    },
    /// This node shuts down.
    #[error("this node is shutting down")]
    ShuttingDown,
    /// The other node said no, or the agent failed.
    #[error("{0}")]
    Failed(call::Failure),
    /// The other node broke the protocol.
    #[error("the other node broke the protocol: {what}")]
    Protocol {
        /// How.
        what: String,
    },
}

/// Why a question about audit logs has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The node is not known or cannot be reached; nothing was asked.
    #[error("the node cannot be reached: {last}")]
    Unreachable {
        /// Which.
        node: NodeId,
        /// What happened at the last attempt.
        last: String,
    },
    /// The connection broke, or what came is no answer: whether the question arrived is not known.
    #[error("the question was not answered: {last}")]
    Lost {
        /// Which node was asked.
        node: NodeId,
        /// What happened.
        last: String,
    },
    /// The deadline passed. Whether the question arrived is not known.
    #[error("no answer within the deadline")]
    TimedOut,
    /// It is longer than a question may be; nothing was asked.
    #[error("the question is too long: {why}")]
    TooLarge {
        /// What of it.
        why: openfang_ofp::codec::EncodeError,
    },
    /// This node shuts down.
    #[error("this node is shutting down")]
    ShuttingDown,
}

/// Why this node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No address was given.
    #[error("no address was given")]
    NoAddress,
    /// The mesh sleeps and no secret was given with the addresses.
    #[error("the network has no shared secret, and none was given")]
    NoSecret,
    /// This node is connected to members of a mesh with another secret. It stays there.
    #[error("this node is a member of another mesh already")]
    OtherNetwork,
    /// The mesh could not be woken.
    #[error(transparent)]
    Start(#[from] StartError),
    /// None of the addresses led to a member in time. They are forgotten.
    #[error("no member was reached: {}", shown(tried))]
    Failed {
        /// What happened at each address.
        tried: Vec<Tried>,
    },
    /// This node shuts down.
    #[error("this node is shutting down")]
    ShuttingDown,
}

/// What happened at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Where.
    pub addr: PeerAddr,
    /// What.
    pub why: AddrFailure,
}

/// Why one address did not lead to a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddrFailure {
    /// A node is there and did not accept this node's secret, or has another.
    #[error("the secrets differ")]
    WrongSecret,
    /// Nothing listens there.
    #[error("nothing listens there")]
    Refused,
    /// No answer.
    #[error("no answer")]
    TimedOut,
    /// The address leads to this node.
    #[error("that is this node itself")]
    Itself,
    /// Another node is there than was expected.
    #[error("another node answered: {found}")]
    OtherNode {
        /// Who.
        found: NodeId,
    },
    /// The name does not resolve.
    #[error("the name does not resolve: {0}")]
    Name(String),
    /// Something else on the way.
    #[error("{0}")]
    Network(String),
}

/// Why there is no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// The mesh sleeps: there is no secret to share.
    #[error("the network is asleep: it has no shared secret")]
    Asleep,
    /// This node listens nowhere.
    #[error("this node listens on no address")]
    NoAddress,
}

fn shown(tried: &[Tried]) -> String {
    let one = |tried: &Tried| format!("{}: {}", tried.addr, tried.why);
    tried.iter().map(one).collect::<Vec<_>>().join("; ")
}
