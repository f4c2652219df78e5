//! What can be told about an agent: here, and anywhere in the mesh.

use std::fmt;
use std::str::FromStr;

use openfang_id::{AgentId, AgentName, NodeId, NodeName};

/// Whether an agent takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentState {
    /// It takes messages.
    Running,
    /// What was stored of it can no longer be run; it takes none until it is spawned anew.
    Crashed,
}

/// A text that names no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the state of an agent: expected running or crashed")]
pub struct AgentStateError;

impl AgentState {
    /// Returns the state in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Crashed => "crashed",
        }
    }
}

impl fmt::Display for AgentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for AgentState {
    type Err = AgentStateError;

    fn from_str(text: &str) -> Result<Self, AgentStateError> {
        match text {
            "running" => Ok(Self::Running),
            "crashed" => Ok(Self::Crashed),
            _other => Err(AgentStateError),
        }
    }
}

/// An agent of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentInfo {
    /// Given when it was spawned, kept until it is killed.
    pub id: AgentId,
    /// Unique on this node.
    pub name: AgentName,
    /// What it is for, in its author's words.
    pub description: String,
    /// The version its author gave it.
    pub version: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The tools it may use, in alphabetical order.
    pub tools: Vec<String>,
    /// Whether it takes messages.
    pub state: AgentState,
    /// What runs it: `builtin:echo`, `builtin:chat`.
    pub module: String,
    /// The provider its model is asked at; empty for an agent without a model.
    pub model_provider: String,
    /// The name of its model; empty for an agent without a model.
    pub model_name: String,
    /// When it was spawned: milliseconds since 1970, UTC.
    pub created_ms: u64,
    /// When it last took a message: milliseconds since 1970, UTC; since its spawn, if none.
    pub active_ms: u64,
    /// Whether a turn of it is running now.
    pub busy: bool,
}

/// An agent of the mesh and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The node it runs on.
    pub node: NodeId,
    /// What that node calls itself.
    pub node_name: NodeName,
    /// Whether that node can be reached now; always so for this one.
    pub reachable: bool,
    /// Its id.
    pub id: AgentId,
    /// Its name, unique on its node.
    pub name: AgentName,
    /// What it is for.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The tools it may use.
    pub tools: Vec<String>,
    /// Whether it takes messages.
    pub state: AgentState,
    /// What runs it.
    pub module: String,
    /// What only its own node knows of it: present when it runs here.
    pub local: Option<AgentInfo>,
}

/// What a restart of an agent did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarted {
    /// Its state before.
    pub previous_state: AgentState,
    /// Whether a running turn was cut.
    pub task_cancelled: bool,
}
