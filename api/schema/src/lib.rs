//! Wire structs and error codes of the HTTP API.
//!
//! What a body looks like on the wire, and nothing else: the server fills these structs and the
//! command line reads them back. Texts of ids, names and addresses are not checked here; whoever
//! reads them turns them into domain types. Instants are RFC 3339 texts in UTC, durations carry
//! their unit in the field name.
//!
//! A field that a node cannot know, such as the model of an agent that lives elsewhere, is `null`
//! or left out; it is never filled with a guess.

mod agent;
mod audit;
mod audit_mirrors;
mod error;
mod message;
mod network;
mod node;
mod secret;

pub mod path;
pub mod ws;

pub use agent::{
    AgentDetail, AgentKilled, AgentRestarted, AgentState, AgentSummary, Capabilities, ModelRef,
    NodeRef, SpawnRequest, Spawned, Warning,
};
pub use audit::{
    AuditConsistency, AuditEntry, AuditEvidence, AuditPeer, AuditPeers, AuditRecent, AuditSigning,
    AuditValue, AuditValueState, AuditVerify, AuditWitness, AuditWitnesses, CosignState,
    CosignStrength, CosignedHead, EvidenceFile, EvidenceHead, HeldHead, MissingEvidence,
    RedactReply, RedactRequest, SigningState,
};
pub use audit_mirrors::{AuditMirror, AuditMirrors};
pub use error::{ErrorBody, ErrorCode};
pub use message::{
    Chunk, Done, MessageReply, MessageRequest, Phase, ToolResult, ToolUse, Usage, event,
};
pub use network::{
    JoinReply, JoinRequest, Liveness, NetworkState, NetworkStatus, Peer, PeerAgent, PeerAudit,
    PeerAuditState, PeerState, PeersReply, TicketReply, Transport,
};
pub use node::{AuditSummary, Health, HealthStatus, ShutdownReply, Status, Version};
pub use secret::SecretText;
