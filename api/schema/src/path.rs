//! Where each route is: the templates the server routes by, and the paths a client asks for.
//!
//! `{id}` stands for a UUID, a name, or either followed by `@` and a node's name or id. None of
//! them holds a character that a path would have to escape.

/// The web page; public.
pub const ROOT: &str = "/";
/// The logo; public.
pub const LOGO: &str = "/logo.png";
/// The icon of the page; public.
pub const FAVICON: &str = "/favicon.ico";
/// [`Health`](crate::Health); public.
pub const HEALTH: &str = "/api/health";
/// [`Status`](crate::Status).
pub const STATUS: &str = "/api/status";
/// [`Version`](crate::Version).
pub const VERSION: &str = "/api/version";
/// POST ends the node: [`ShutdownReply`](crate::ShutdownReply).
pub const SHUTDOWN: &str = "/api/shutdown";
/// GET an array of [`AgentSummary`](crate::AgentSummary), POST a [`SpawnRequest`](crate::SpawnRequest).
pub const AGENTS: &str = "/api/agents";
/// GET an [`AgentDetail`](crate::AgentDetail), DELETE the agent.
pub const AGENT: &str = "/api/agents/{id}";
/// POST starts the agent anew: [`AgentRestarted`](crate::AgentRestarted).
pub const RESTART: &str = "/api/agents/{id}/restart";
/// POST a [`MessageRequest`](crate::MessageRequest), get a [`MessageReply`](crate::MessageReply).
pub const MESSAGE: &str = "/api/agents/{id}/message";
/// POST a [`MessageRequest`](crate::MessageRequest), get server-sent events ([`event`](crate::event)).
pub const STREAM: &str = "/api/agents/{id}/message/stream";
/// A WebSocket ([`ws`](crate::ws)).
pub const WS: &str = "/api/agents/{id}/ws";
/// [`PeersReply`](crate::PeersReply).
pub const PEERS: &str = "/api/peers";
/// [`NetworkStatus`](crate::NetworkStatus).
pub const NETWORK_STATUS: &str = "/api/network/status";
/// POST a [`JoinRequest`](crate::JoinRequest), get a [`JoinReply`](crate::JoinReply).
pub const NETWORK_JOIN: &str = "/api/network/join";
/// [`TicketReply`](crate::TicketReply).
pub const NETWORK_TICKET: &str = "/api/network/ticket";
/// [`AuditRecent`](crate::AuditRecent).
pub const AUDIT_RECENT: &str = "/api/audit/recent";
/// POST a [`RedactRequest`](crate::RedactRequest), get a [`RedactReply`](crate::RedactReply).
pub const AUDIT_REDACT: &str = "/api/audit/redact";
/// [`AuditVerify`](crate::AuditVerify).
pub const AUDIT_VERIFY: &str = "/api/audit/verify";
/// The newest cosigned head of the log, as text: a C2SP checkpoint.
pub const AUDIT_CHECKPOINT: &str = "/api/audit/checkpoint";
/// [`AuditWitnesses`](crate::AuditWitnesses).
pub const AUDIT_WITNESSES: &str = "/api/audit/witnesses";
/// [`AuditMirrors`](crate::AuditMirrors).
pub const AUDIT_MIRRORS: &str = "/api/audit/mirrors";
/// A tile or a bundle of entries of the log: C2SP tlog-tiles.
pub const AUDIT_TILE: &str = "/api/audit/tile/{*path}";
/// A proof that an entry is in the log, as text: C2SP tlog-proof.
pub const AUDIT_PROOF: &str = "/api/audit/proof/{seq}";
/// [`AuditConsistency`](crate::AuditConsistency).
pub const AUDIT_CONSISTENCY: &str = "/api/audit/consistency";
/// [`AuditEvidence`](crate::AuditEvidence).
pub const AUDIT_EVIDENCE: &str = "/api/audit/evidence";
/// [`AuditPeers`](crate::AuditPeers).
pub const AUDIT_PEERS: &str = "/api/audit/peers";
/// POST a head of a log to be cosigned: C2SP tlog-witness; public.
pub const WITNESS_ADD: &str = "/witness/add-checkpoint";
/// The last head of a log that was cosigned: C2SP tlog-witness; public.
pub const WITNESS_CHECKPOINT: &str = "/witness/{id}/checkpoint";

/// Fills the `{id}` of one of the templates above.
#[must_use]
pub fn of_agent(template: &str, id: &str) -> String {
    template.replace("{id}", id)
}
