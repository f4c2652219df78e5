//! A message to an agent, its answer, and the answer as a stream of events.

use serde::{Deserialize, Serialize};

use crate::NodeRef;

/// The body of `POST /api/agents/{id}/message` and `…/message/stream`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageRequest {
    /// The text; at most 64 KiB of UTF-8.
    pub message: String,
    /// Who speaks, as the calling program knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_id: Option<String>,
    /// What they are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<String>,
    /// A text that makes a repetition of this request the same request: it runs once. The header
    /// `Idempotency-Key` says the same; given twice, both must agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// The answer to a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageReply {
    /// What the agent said.
    pub response: String,
    /// Tokens the model read.
    pub input_tokens: u64,
    /// Tokens the model wrote.
    pub output_tokens: u64,
    /// How often the model was asked in this turn.
    pub iterations: u32,
    /// What it cost in US dollars; left out when the price is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// UUID of the agent that answered.
    pub agent_id: String,
    /// Its name.
    pub agent_name: String,
    /// Where it ran.
    pub node: NodeRef,
    /// The entry of that node's audit log that records the answer, as `origin#sequence`; left out
    /// when that node keeps no log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<String>,
}

/// Names of the events of a stream, in the order in which they may come: any number of the first
/// four, then one `done` or `error`.
pub mod event {
    /// [`Phase`](crate::Phase).
    pub const PHASE: &str = "phase";
    /// [`Chunk`](crate::Chunk).
    pub const CHUNK: &str = "chunk";
    /// [`ToolUse`](crate::ToolUse).
    pub const TOOL_USE: &str = "tool_use";
    /// [`ToolResult`](crate::ToolResult).
    pub const TOOL_RESULT: &str = "tool_result";
    /// [`Done`](crate::Done); the last event.
    pub const DONE: &str = "done";
    /// [`ErrorBody`](crate::ErrorBody); the last event.
    pub const ERROR: &str = "error";
}

/// Event `phase`: what the agent is busy with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// One word, such as `waiting`.
    pub phase: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Event `chunk`: a piece of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The text that follows what came before.
    pub content: String,
    /// Always `false`; [`Done`] says `true`.
    pub done: bool,
}

/// Event `tool_use`: the agent starts a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolUse {
    /// Which call, to find its result.
    pub id: String,
    /// The tool.
    pub tool: String,
    /// What it is given, as JSON text.
    pub input: String,
}

/// Event `tool_result`: a tool has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// Which call.
    pub id: String,
    /// The tool.
    pub tool: String,
    /// What it gave back.
    pub result: String,
    /// Whether it failed.
    pub is_error: bool,
}

/// Tokens of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens the model read.
    pub input_tokens: u64,
    /// Tokens the model wrote.
    pub output_tokens: u64,
}

/// Event `done`: the whole answer, as the plain route would have given it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Always `true`.
    pub done: bool,
    /// Tokens.
    pub usage: Usage,
    /// The answer.
    #[serde(flatten)]
    pub reply: MessageReply,
}
