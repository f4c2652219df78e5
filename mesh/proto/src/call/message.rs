//! What a call consists of.

use std::fmt;

use openfang_id::{AgentId, AgentKey, AgentName, NodeId};

/// Which call: 16 random bytes drawn by the caller. Sending the same id again is a retry, and never
/// runs anything twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub [u8; 16]);

impl fmt::Display for CallId {
    /// 32 characters of lower hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({self})")
    }
}

/// One agent a call came through, and where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The node.
    pub node: NodeId,
    /// The agent.
    pub agent: AgentId,
}

/// A position in a distributed trace (W3C Trace Context, `traceparent` version 00).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The whole trace.
    pub trace: [u8; 16],
    /// The span that makes the call.
    pub span: [u8; 8],
    /// The trace flags.
    pub flags: u8,
}

/// A message to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which call this is.
    pub id: CallId,
    /// To which agent of the node it is sent to.
    pub agent: AgentKey,
    /// What it says.
    pub message: String,
    /// On whose behalf, as the calling node names it; at most 256 bytes.
    pub principal: String,
    /// The agents it came through, first to last; at most 32.
    pub path: Vec<Hop>,
    /// How long the caller waits, in milliseconds from the arrival of the request.
    pub deadline_ms: u32,
    /// How many chunks of the answer the caller already has; 0 unless this is a retry.
    pub resume_from: u32,
    /// The hybrid clock of the caller's audit log; 0 for none.
    pub hlc: u64,
    /// The entry of the caller's audit log that this follows from (`origin#seq`); at most 256 bytes.
    pub cause: Option<String>,
    /// Where the values in the message came from; at most 32 of at most 128 bytes.
    pub labels: Vec<String>,
    /// Where it belongs in a distributed trace.
    pub trace: Option<Trace>,
    /// Which conversation it continues; at most 256 bytes.
    pub session: Option<String>,
    /// Who says it, to be shown to the agent; at most 256 bytes.
    pub sender: Option<String>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// More text.
    Text(String),
    /// The agent began to use a tool.
    ToolStart {
        /// Which use of a tool; at most 256 bytes.
        id: String,
        /// Which tool; at most 256 bytes.
        tool: String,
        /// What it was given, as JSON.
        input: String,
    },
    /// The use of a tool is over.
    ToolEnd {
        /// Which use of a tool; at most 256 bytes.
        id: String,
        /// Which tool; at most 256 bytes.
        tool: String,
        /// What it gave back.
        output: String,
        /// Whether that is an error.
        is_error: bool,
    },
}

/// The agent has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The agent that answered.
    pub agent: AgentId,
    /// Its name.
    pub agent_name: AgentName,
    /// The whole answer; `None` when it is the text of the chunks.
    pub response: Option<String>,
    /// Tokens the model was given.
    pub input_tokens: u64,
    /// Tokens the model gave.
    pub output_tokens: u64,
    /// How often the model was asked.
    pub iterations: u32,
    /// The entry of the answering node's audit log (`origin#seq`); at most 256 bytes.
    pub cause: Option<String>,
    /// The hybrid clock of that log; 0 for none.
    pub hlc: u64,
}

/// Why there is no answer, or no more of it. The numbers on the wire never change their meaning:
/// see [`Failure::code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The node has no such agent.
    #[error("no agent {looked_for:?} on that node")]
    UnknownAgent {
        /// The id or name that was asked for; at most 256 bytes.
        looked_for: String,
    },
    /// Everything is in use; nothing was run.
    #[error("the node is busy, try again in {retry_after_ms} ms")]
    Busy {
        /// When to try again, in milliseconds.
        retry_after_ms: u32,
    },
    /// A rule of the node forbids it.
    #[error("refused: {reason}")]
    Refused {
        /// Which; at most 1,024 bytes.
        reason: String,
    },
    /// The deadline of the request passed.
    #[error("the deadline has passed")]
    TimedOut,
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The request or the answer is larger than is allowed.
    #[error("larger than the {limit_bytes} bytes that are allowed")]
    TooLarge {
        /// What is allowed, in bytes.
        limit_bytes: u32,
    },
    /// The call came through too many agents.
    #[error("more than {limit} calls inside one another")]
    TooDeep {
        /// How many are allowed.
        limit: u32,
    },
    /// The agent itself failed.
    #[error("{message}")]
    AgentFailed {
        /// A stable name of the failure; at most 64 bytes.
        code: String,
        /// For people; at most 4,096 bytes.
        message: String,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// This call ran before, and its answer is no longer kept.
    #[error("the call ran already and its answer is no longer kept")]
    AlreadyRan,
    /// A fault of the node.
    #[error("a fault of the node")]
    Internal,
}

/// Everything that travels on a call's substream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Client to server: begin.
    Request(Request),
    /// Server to client: a piece of the answer.
    Chunk(Chunk),
    /// Server to client: the answer is complete.
    End(End),
    /// Server to client: there is no (more) answer.
    Failure(Failure),
    /// Client to server: stop.
    Cancel,
    /// Client to server, between calls: the last answer has arrived, and no other call follows here.
    Received,
}

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// [`Frame::Request`].
    Request,
    /// [`Frame::Chunk`].
    Chunk,
    /// [`Frame::End`].
    End,
    /// [`Frame::Failure`].
    Failure,
    /// [`Frame::Cancel`].
    Cancel,
    /// [`Frame::Received`].
    Received,
}

impl Frame {
    /// Returns its kind.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Request(_) => FrameKind::Request,
            Self::Chunk(_) => FrameKind::Chunk,
            Self::End(_) => FrameKind::End,
            Self::Failure(_) => FrameKind::Failure,
            Self::Cancel => FrameKind::Cancel,
            Self::Received => FrameKind::Received,
        }
    }

    /// Says whether nothing follows it in its call.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::End(_) | Self::Failure(_))
    }

    /// Returns about how many bytes it keeps in memory: its texts and a constant for the rest.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        let texts = match self {
            Self::Request(request) => request.message.len() + request.principal.len(),
            Self::Chunk(Chunk::Text(text)) => text.len(),
            Self::Chunk(
                Chunk::ToolStart {
                    id,
                    tool,
                    input: text,
                }
                | Chunk::ToolEnd {
                    id,
                    tool,
                    output: text,
                    ..
                },
            ) => id.len() + tool.len() + text.len(),
            Self::End(end) => [&end.response, &end.cause]
                .into_iter()
                .flatten()
                .map(String::len)
                .sum(),
            Self::Failure(
                Failure::UnknownAgent { looked_for: text } | Failure::Refused { reason: text },
            ) => text.len(),
            Self::Failure(Failure::AgentFailed { code, message }) => code.len() + message.len(),
            Self::Failure(
                Failure::Busy { .. }
                | Failure::TimedOut
                | Failure::Cancelled
                | Failure::TooLarge { .. }
                | Failure::TooDeep { .. }
                | Failure::ShuttingDown
                | Failure::AlreadyRan
                | Failure::Internal,
            )
            | Self::Cancel
            | Self::Received => 0,
        };
        texts + size_of::<Self>()
    }
}

impl Failure {
    /// Returns its number on the wire.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::UnknownAgent { .. } => 1,
            Self::Busy { .. } => 2,
            Self::Refused { .. } => 3,
            Self::TimedOut => 4,
            Self::Cancelled => 5,
            Self::TooLarge { .. } => 6,
            Self::TooDeep { .. } => 7,
            Self::AgentFailed { .. } => 8,
            Self::ShuttingDown => 9,
            Self::AlreadyRan => 10,
            Self::Internal => 11,
        }
    }

    /// Says that the request was turned away before anything ran, so that it may be asked again with
    /// the same id.
    #[must_use]
    pub fn is_turned_away(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::ShuttingDown)
    }
}
