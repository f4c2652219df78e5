//! Agents: listing, looking at, spawning.

use serde::{Deserialize, Serialize};

/// A node by id and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeRef {
    /// Peer id, `12D3KooW…`.
    pub id: String,
    /// The name it announces.
    pub name: String,
}

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AgentState {
    /// Made, and not yet started.
    Created,
    /// Takes messages.
    Running,
    /// Stopped for a while.
    Suspended,
    /// Ended.
    Terminated,
    /// Failed.
    Crashed,
    /// A state of a newer version.
    #[serde(other)]
    Unknown,
}

impl AgentState {
    /// Returns the text that is sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Running => "Running",
            Self::Suspended => "Suspended",
            Self::Terminated => "Terminated",
            Self::Crashed => "Crashed",
            Self::Unknown => "Unknown",
        }
    }
}

/// One entry of `GET /api/agents`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentSummary {
    /// UUID.
    pub id: String,
    /// Name, unique on its node.
    pub name: String,
    /// What it is doing.
    pub state: AgentState,
    /// What it may do: `full`, `assist` or `observe`; `null` when the agent lives elsewhere.
    pub mode: Option<String>,
    /// Whether a message would be taken now: it runs, and its node can be reached.
    pub ready: bool,
    /// Whether it is answering a message now; `null` when the agent lives elsewhere.
    pub is_inferencing: Option<bool>,
    /// When it was spawned; `null` when the agent lives elsewhere.
    pub created_at: Option<String>,
    /// When it last did something; `null` when the agent lives elsewhere.
    pub last_active: Option<String>,
    /// Who serves its model; `null` when it has none or lives elsewhere.
    pub model_provider: Option<String>,
    /// Its model; `null` when it has none or lives elsewhere.
    pub model_name: Option<String>,
    /// The code behind it, such as `builtin:chat`.
    pub module: String,
    /// What it is for.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The tools it may use.
    pub tools: Vec<String>,
    /// Where it lives.
    pub node: NodeRef,
    /// Whether it lives on the node that answers.
    pub local: bool,
    /// Whether its node can be reached now.
    pub reachable: bool,
}

/// A model and who serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Who serves it.
    pub provider: String,
    /// Its name there.
    pub model: String,
}

/// What an agent may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Tools by name; empty means none.
    pub tools: Vec<String>,
    /// Hosts by pattern; empty means none.
    pub network: Vec<String>,
}

/// The body of `GET /api/agents/{id}`: what a list says, and what only its own node knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentDetail {
    /// What the list says.
    #[serde(flatten)]
    pub summary: AgentSummary,
    /// The session that the next message of a caller without one continues; `null` when the agent lives elsewhere.
    pub session_id: Option<String>,
    /// The model; `null` when it has none or lives elsewhere.
    pub model: Option<ModelRef>,
    /// What it may use.
    pub capabilities: Option<Capabilities>,
    /// Its instructions; `null` when it has none or lives elsewhere.
    pub system_prompt: Option<String>,
    /// Version of the manifest; `null` when the agent lives elsewhere.
    pub version: Option<String>,
}

/// The body of `POST /api/agents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpawnRequest {
    /// The manifest, as TOML; at most 1 MiB.
    pub manifest_toml: String,
}

/// Something in a manifest that was not understood, and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What, and what was perhaps meant.
    pub message: String,
    /// Line, from 1.
    pub line: Option<u64>,
    /// Column, from 1.
    pub column: Option<u64>,
}

/// The answer to a spawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawned {
    /// UUID of the new agent.
    pub agent_id: String,
    /// Its name.
    pub name: String,
    /// Where it lives.
    pub node: NodeRef,
    /// What in the manifest was not understood.
    pub warnings: Vec<Warning>,
}

/// The answer to `DELETE /api/agents/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentKilled {
    /// `killed`.
    pub status: String,
    /// UUID of the agent that is gone.
    pub agent_id: String,
    /// The name it had.
    pub name: String,
}

/// The answer to `POST /api/agents/{id}/restart`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRestarted {
    /// `restarted`.
    pub status: String,
    /// The name.
    pub agent: String,
    /// UUID.
    pub agent_id: String,
    /// What it was doing before.
    pub previous_state: AgentState,
    /// Whether a running turn was cut.
    pub task_cancelled: bool,
}
