//! What can go wrong, one type an operation.
//!
//! `code` gives the stable word the API and the mesh carry; texts are for people and may change.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use openfang_id::{AgentId, AgentName, AgentRef, NodeId, NodeKey, NodeName};
use openfang_sandbox::TierMissing;

use crate::{AuditError, MESSAGE_BYTES_MAX, ModelError};

/// Where an agent was looked for in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// On this node only.
    Here(NodeName),
    /// On one other node.
    On(NodeId, NodeName),
    /// On this node and in the announcements of so many others.
    Mesh {
        /// This node.
        here: NodeName,
        /// How many other nodes have announced agents.
        others: usize,
    },
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(name) => write!(f, "on this node ({name})"),
            Self::On(_, name) => write!(f, "on node {name}"),
            Self::Mesh { here, others: 0 } => {
                write!(f, "on this node ({here}); no other node has agents")
            }
            Self::Mesh { here, others: 1 } => write!(f, "on this node ({here}) and 1 other"),
            Self::Mesh { here, others } => {
                write!(f, "on this node ({here}) and {others} others")
            }
        }
    }
}

/// Why a message was not taken. No turn has run, unless the variant says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nobody of that id or name. The caller's mistake, or the agent was killed.
    #[error("there is no agent {looked_for} {where_looked}")]
    UnknownAgent {
        /// As the caller wrote it.
        looked_for: AgentRef,
        /// Where.
        where_looked: Looked,
    },
    /// The node part of the reference names several nodes; one of these ids tells them apart.
    #[error("the node of {looked_for} is not clear, {} carry that name: say by its id which is meant", .nodes.len())]
    AmbiguousNode {
        /// As the caller wrote it.
        looked_for: AgentRef,
        /// Who carries it, ascending.
        nodes: Vec<NodeId>,
    },
    /// Agents of several nodes are called so, or have that id; the node tells them apart.
    #[error("agents of {} nodes answer to {looked_for}: say which node is meant", .nodes.len())]
    AmbiguousAgent {
        /// As the caller wrote it.
        looked_for: AgentRef,
        /// The nodes, ascending.
        nodes: Vec<NodeId>,
    },
    /// The node part of the reference names no node that was ever seen.
    #[error("no node {looked_for} was ever seen")]
    UnknownNode {
        /// As the caller wrote it.
        looked_for: NodeKey,
    },
    /// The node of the agent is known but cannot be reached now. A call that was cut after it had
    /// left may have run.
    #[error("node {} cannot be reached", .node_name.as_ref().map_or_else(|| .node.to_string(), ToString::to_string))]
    Unreachable {
        /// Which node.
        node: NodeId,
        /// What it calls itself, when that is known.
        node_name: Option<NodeName>,
    },
    /// Evidence convicts the node of the agent: its keys have signed what cannot both be true. It is
    /// not called until the operator allows it.
    #[error("node {} is not called: {kind}, evidence {evidence}", .node_name.as_ref().map_or_else(|| .node.to_string(), ToString::to_string))]
    Convicted {
        /// Which node.
        node: NodeId,
        /// What it calls itself, when that is known.
        node_name: Option<NodeName>,
        /// What its keys have done: `equivocation`, `fork` or `cosigner`.
        kind: String,
        /// The file that proves it, in `audit.d/evidence` of this node.
        evidence: String,
    },
    /// Too many messages wait already. Try again later.
    #[error("busy: try again in {} ms", .retry_after.as_millis())]
    Busy {
        /// When it is worth trying.
        retry_after: Duration,
    },
    /// The node of the agent does not allow it.
    #[error("refused: {reason}")]
    Refused {
        /// Why, in a sentence that may be shown to the caller.
        reason: String,
    },
    /// The deadline passed before the turn could start; or, from another node, in the turn.
    #[error("no answer within the deadline")]
    TimedOut,
    /// The message is longer than any agent takes.
    #[error("the message has {bytes} bytes, more than the {max} allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        max: usize,
    },
    /// The message came through too many agents: most likely they call each other in a circle.
    #[error("the call came through {depth} agents, more than the {max} allowed: do they call each other in a circle?", max = crate::DEPTH_MAX)]
    TooDeep {
        /// The length of its path.
        depth: usize,
    },
    /// The agent exists but takes no messages.
    #[error("agent {name} has crashed: {reason}")]
    NotRunning {
        /// Which agent.
        name: AgentName,
        /// What is wrong with it.
        reason: String,
    },
    /// The message could not be logged, so it was not delivered.
    #[error("not delivered, because it cannot be logged: {0}")]
    NotLogged(#[source] AuditError),
    /// A repetition of a call that ran so long ago that its answer is gone. It ran once.
    #[error("this call ran already, and its answer is no longer kept")]
    AlreadyRan,
    /// The node is stopping.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// A failure of another node that this one has no name for.
    #[error("the other node failed: {message}")]
    Remote {
        /// Its stable word.
        code: String,
        /// Its sentence.
        message: String,
    },
}

impl SendError {
    /// A message of so many bytes, which is more than [`MESSAGE_BYTES_MAX`].
    #[must_use]
    pub fn too_large(bytes: usize) -> Self {
        Self::TooLarge {
            bytes,
            max: MESSAGE_BYTES_MAX,
        }
    }

    /// Returns what an ambiguous reference can mean, each so that it is exact.
    #[must_use]
    pub fn candidates(&self) -> Vec<String> {
        if let Self::AmbiguousNode { looked_for, nodes }
        | Self::AmbiguousAgent { looked_for, nodes } = self
        {
            let agent = &looked_for.agent;
            nodes.iter().map(|node| format!("{agent}@{node}")).collect()
        } else {
            Vec::new()
        }
    }

    /// Returns the stable word for it.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::UnknownAgent { .. } => "unknown_agent",
            Self::AmbiguousNode { .. } => "ambiguous_node",
            Self::AmbiguousAgent { .. } => "ambiguous_agent",
            Self::UnknownNode { .. } => "unknown_node",
            Self::Unreachable { .. } => "node_unreachable",
            Self::Convicted { .. } => "node_convicted",
            Self::Busy { .. } => "busy",
            Self::Refused { .. } => "refused",
            Self::TimedOut => "timed_out",
            Self::TooLarge { .. } => "too_large",
            Self::TooDeep { .. } => "too_deep",
            Self::NotRunning { .. } => "agent_not_running",
            Self::NotLogged(_) => "not_logged",
            Self::AlreadyRan => "already_ran",
            Self::ShuttingDown => "shutting_down",
            Self::Remote { code, .. } => code,
        }
    }
}

/// Why a turn that had started did not end well. Its session is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    /// The caller went away, or the agent was restarted.
    #[error("the turn was cancelled")]
    Cancelled,
    /// The deadline passed.
    #[error("the agent did not finish within {} ms", .after.as_millis())]
    TimedOut {
        /// The time it had.
        after: Duration,
    },
    /// The agent was killed while it answered.
    #[error("the agent was killed")]
    Killed,
    /// The node stopped while the agent answered.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The language model gave no usable answer.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model asked for tools again and again.
    #[error("the agent did not come to an end within {max} requests to its model")]
    IterationLimit {
        /// `autonomous.max_iterations` of the agent.
        max: u32,
    },
    /// The model called more tools than a turn may.
    #[error("the agent called more than {max} tools in one turn")]
    ToolCallLimit {
        /// The most.
        max: u32,
    },
    /// The answer grew beyond every bound.
    #[error("the answer is longer than {max} bytes")]
    AnswerTooLong {
        /// The most.
        max: usize,
    },
    /// The agent has used up a limit of its manifest.
    #[error("the agent has used up its {limit}; it may go on in {} s", .retry_after.as_secs())]
    OverLimit {
        /// The key of the manifest.
        limit: &'static str,
        /// When it may go on.
        retry_after: Duration,
    },
    /// Something the agent was about to do could not be logged, so it was not done.
    #[error("stopped, because it cannot be logged: {0}")]
    NotLogged(#[source] AuditError),
    /// The conversation could not be read or stored.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// The message did not reach the agent: known only after it had left this node.
    #[error(transparent)]
    NotDelivered(Box<SendError>),
    /// The turn ended without an end: its node or its task was lost. It may have run.
    #[error("the answer was cut off: it may have run to its end unseen")]
    Cut,
    /// An agent of another node failed, for a reason only that node has a type for.
    #[error("{message}")]
    Remote {
        /// Its stable word.
        code: String,
        /// Its sentence.
        message: String,
    },
}

impl TurnError {
    /// Returns the stable word for it.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Cancelled => "cancelled",
            Self::TimedOut { .. } => "timed_out",
            Self::Killed => "agent_killed",
            Self::ShuttingDown => "shutting_down",
            Self::Model(error) => error.code(),
            Self::IterationLimit { .. } => "iteration_limit",
            Self::ToolCallLimit { .. } => "tool_call_limit",
            Self::AnswerTooLong { .. } => "answer_too_long",
            Self::OverLimit { .. } => "over_limit",
            Self::NotLogged(_) => "not_logged",
            Self::Storage(_) => "storage",
            Self::NotDelivered(error) => error.code(),
            Self::Cut => "cut_off",
            Self::Remote { code, .. } => code,
        }
    }
}

/// Why the store did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed; nothing was changed.
    #[error("the database failed: {0}")]
    Sqlite(String),
    /// What is stored is not what this software writes.
    #[error("the database holds a damaged {what}")]
    Damaged {
        /// Which part of a row.
        what: &'static str,
    },
    /// The kernel is closed.
    #[error("the database is closed")]
    Closed,
}

/// Why the kernel did not open. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of the database cannot be made or used.
    #[error("cannot use {}: {source}", .path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database cannot be opened or brought up to date.
    #[error("cannot open {}: {reason}", .path.display())]
    Database {
        /// Which.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// The database was written by newer software.
    #[error(
        "{} has version {found}, newer than the {known} this program knows: use the newer program", .path.display()
    )]
    NewerDatabase {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest known one.
        known: u32,
    },
    /// TLS or the thread of the database could not be set up.
    #[error("cannot set up {what}: {reason}")]
    Setup {
        /// What.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// What is stored cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an agent was not spawned. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// An agent of this node has that name.
    #[error("there is an agent {name} on this node already")]
    DuplicateName {
        /// The name.
        name: AgentName,
        /// Who has it.
        holder: AgentId,
    },
    /// The module is none of this software.
    #[error("there is no module {module:?}: use {}", crate::manifest::MODULES.join(" or "))]
    UnknownModule {
        /// As the manifest has it.
        module: String,
    },
    /// The module needs a sandbox this program does not have.
    #[error(transparent)]
    TierMissing(#[from] TierMissing),
    /// The node has as many agents as it may.
    #[error("this node has {max} agents, the most it may have")]
    TooMany {
        /// The most.
        max: usize,
    },
    /// It could not be logged, so it was not done.
    #[error("not spawned, because it cannot be logged: {0}")]
    NotLogged(#[source] AuditError),
    /// It could not be stored.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// The node is stopping.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl SpawnError {
    /// Returns the stable word for it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::DuplicateName { .. } => "duplicate_name",
            Self::UnknownModule { .. } => "unknown_module",
            Self::TierMissing(_) => "tier_missing",
            Self::TooMany { .. } => "too_many_agents",
            Self::NotLogged(_) => "not_logged",
            Self::Storage(_) => "storage",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// Why an agent was not killed or restarted. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KillError {
    /// No agent of this node has that id.
    #[error("there is no agent {id} on this node")]
    Unknown {
        /// The id.
        id: AgentId,
    },
    /// It could not be logged, so it was not done.
    #[error("not done, because it cannot be logged: {0}")]
    NotLogged(#[source] AuditError),
    /// It could not be stored.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// The node is stopping.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl KillError {
    /// Returns the stable word for it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown_agent",
            Self::NotLogged(_) => "not_logged",
            Self::Storage(_) => "storage",
            Self::ShuttingDown => "shutting_down",
        }
    }
}
