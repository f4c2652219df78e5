//! The node itself.

use serde::{Deserialize, Serialize};

use crate::{AgentSummary, NetworkStatus, NodeRef};

/// In what shape the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It does all it should.
    Ok,
    /// It answers, and a part of it is broken; [`Status`] says which.
    Degraded,
}

/// The body of `GET /api/health`: public, and says no more than this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// In what shape.
    pub status: HealthStatus,
    /// Version of the software.
    pub version: String,
}

/// The audit log in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSummary {
    /// Whether a log is kept.
    pub enabled: bool,
    /// Entries in it.
    pub entries: u64,
    /// `ok`, `damaged`, `failing`, `poisoned`, `convicted` (evidence shows that the keys of this node
    /// have signed what cannot both be true), `contradicted` (peers hold a head that this log has signed and
    /// does not lead to), `behind` (peers know a longer one, and its entries cannot be had) or `off`.
    pub state: String,
    /// The first entry that is not what was written, when damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_bad_seq: Option<u64>,
    /// What is wrong, or what keeps the log from being signed now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The body of `GET /api/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `running`, or `stopping` once a shutdown was asked for.
    pub status: String,
    /// Version of the software.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Who this is.
    pub node: NodeRef,
    /// Since when.
    pub started_at: String,
    /// For how long, in seconds.
    pub uptime_seconds: u64,
    /// Agents on this node.
    pub agent_count: u64,
    /// Agents of the whole mesh, as far as known.
    pub mesh_agent_count: u64,
    /// Who serves the model of an agent that names none; `null` when none is configured.
    pub default_provider: Option<String>,
    /// That model.
    pub default_model: Option<String>,
    /// Where this API listens.
    pub api_listen: String,
    /// Whether a request from this machine needs the key, too.
    pub auth_required_locally: bool,
    /// The home directory.
    pub home_dir: String,
    /// How much is logged.
    pub log_level: String,
    /// Whether the network is awake.
    pub network_enabled: bool,
    /// The network.
    pub network: NetworkStatus,
    /// The audit log.
    pub audit: AuditSummary,
    /// The agents of this node.
    pub agents: Vec<AgentSummary>,
}

/// The body of `GET /api/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// `openfang`.
    pub name: String,
    /// Version of the software.
    pub version: String,
    /// When it was built; `null` when the build did not record it.
    pub build_date: Option<String>,
    /// Of which commit; `null` when the build did not record it.
    pub git_sha: Option<String>,
    /// With which compiler; `null` when the build did not record it.
    pub rust_version: Option<String>,
    /// Operating system.
    pub platform: String,
    /// Processor.
    pub arch: String,
}

/// The answer to `POST /api/shutdown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownReply {
    /// `shutting_down`.
    pub status: String,
}
