//! A message on its way to an agent.

use std::time::Duration;

use openfang_id::{AgentId, AgentKey, NodeId};

use crate::Principal;

/// The longest path of agents a message may have taken: a call that comes from the ninth agent of
/// a chain is refused. It ends loops.
pub const DEPTH_MAX: usize = 8;

/// The longest message, in bytes: what a frame of the mesh holds (1 MiB), less room for the rest.
pub const MESSAGE_BYTES_MAX: usize = 960 * 1024;

/// A message as a caller hands it to [`Kernel::send`](crate::Kernel::send).
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The text.
    pub message: String,
    /// On whose behalf.
    pub principal: Principal,
    /// Names the call, so that a repetition is recognised; `None` lets the kernel draw one.
    pub call_id: Option<[u8; 16]>,
    /// The agents the request has come through, oldest first; empty for a call from outside.
    pub path: Vec<(NodeId, AgentId)>,
    /// How long the caller waits for the end of the turn; `None` is the limit of the node.
    pub deadline: Option<Duration>,
    /// The audit entry that led to this call, as `origin#seq`.
    pub cause: Option<String>,
    /// Whom the message is from, in the caller's words: told to the agent, never trusted.
    pub sender: Option<String>,
    /// Which conversation to continue; `None` is the agent's main one.
    pub session: Option<String>,
}

impl Outgoing {
    /// A message of a caller outside the mesh, with nothing but its text.
    #[must_use]
    pub fn new(message: impl Into<String>, principal: Principal) -> Self {
        Self {
            message: message.into(),
            principal,
            call_id: None,
            path: Vec::new(),
            deadline: None,
            cause: None,
            sender: None,
            session: None,
        }
    }
}

/// A message as it reaches the node of its agent, or leaves for it: see
/// [`Kernel::deliver`](crate::Kernel::deliver) and [`Neighbours::call`](crate::ports::Neighbours::call).
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Names the call; a repetition carries the same id.
    pub call_id: [u8; 16],
    /// The node that delivers it, as the transport authenticated it; `None` for this node.
    pub from: Option<NodeId>,
    /// The agent, on the node it is delivered to.
    pub agent: AgentKey,
    /// The text.
    pub message: String,
    /// On whose behalf, as the sending node says.
    pub principal: Principal,
    /// The agents the request has come through, oldest first.
    pub path: Vec<(NodeId, AgentId)>,
    /// How long is left for the turn.
    pub deadline: Duration,
    /// The audit entry of the sending node that led here, as `origin#seq`.
    pub cause: Option<String>,
    /// Whom the message is from, in the caller's words.
    pub sender: Option<String>,
    /// Which conversation to continue; `None` is the agent's main one.
    pub session: Option<String>,
}
