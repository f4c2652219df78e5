//! What goes over the WebSocket of an agent, one JSON text per message.

use serde::{Deserialize, Serialize};

use crate::{ErrorBody, ErrorCode, NodeRef};

/// The subprotocol that carries the key: a client offers `bearer` and its key, the server
/// chooses `bearer`.
pub const SUBPROTOCOL: &str = "bearer";
/// The longest content of a message, in bytes of UTF-8.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The most messages to the agent within [`WINDOW_SECS`] on one connection.
pub const MESSAGES_PER_WINDOW: u32 = 10;
/// The window of [`MESSAGES_PER_WINDOW`], in seconds.
pub const WINDOW_SECS: u64 = 60;
/// The most connections of one client address.
pub const CONNECTIONS_PER_ADDRESS: u32 = 5;
/// A connection without a message of the client for so long is closed, in seconds.
pub const IDLE_SECS: u64 = 30 * 60;

/// What a client sends. A text that is not a JSON object is taken as the content of a message. A
/// field that is not known is an error, as in a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientMessage {
    /// For the agent.
    Message {
        /// The text.
        content: String,
    },
    /// Answered with [`ServerMessage::Pong`]. With braces, so that unknown fields are noticed.
    Ping {},
}

/// Where the agent is in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Typing {
    /// The turn begins.
    Start,
    /// It uses a tool.
    Tool,
    /// The turn is over.
    Stop,
}

/// What the server sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The first message.
    Connected {
        /// UUID of the agent.
        agent_id: String,
        /// Its name.
        agent_name: String,
        /// Where it lives.
        node: NodeRef,
    },
    /// The agent works.
    Typing {
        /// Where it is.
        state: Typing,
        /// Which tool.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tool: Option<String>,
    },
    /// A piece of the answer.
    TextDelta {
        /// The text that follows what came before.
        content: String,
    },
    /// The agent starts a tool.
    ToolStart {
        /// Which call.
        id: String,
        /// The tool.
        tool: String,
    },
    /// What the tool is given is complete.
    ToolEnd {
        /// Which call.
        id: String,
        /// The tool.
        tool: String,
        /// What it is given, as JSON text.
        input: String,
    },
    /// The tool has ended.
    ToolResult {
        /// Which call.
        id: String,
        /// The tool.
        tool: String,
        /// What it gave back.
        result: String,
        /// Whether it failed.
        is_error: bool,
    },
    /// The whole answer; the turn is over.
    Response {
        /// The text.
        content: String,
        /// Tokens the model read.
        input_tokens: u64,
        /// Tokens the model wrote.
        output_tokens: u64,
        /// How often the model was asked.
        iterations: u32,
        /// What it cost in US dollars; `null` when the price is not known.
        cost_usd: Option<f64>,
        /// Where it ran.
        node: NodeRef,
        /// The audit entry of the answer, as `origin#sequence`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audit: Option<String>,
    },
    /// The message failed; the connection stays open.
    Error {
        /// One sentence.
        content: String,
        /// What went wrong, for a program.
        code: ErrorCode,
        /// The same as the body of an HTTP error.
        details: Box<ErrorBody>,
    },
    /// Answers a ping.
    Pong,
}
