//! A message on its way to an agent.

use std::time::Duration;

use openfang_audit::{Cause, Event, Message, Outcome, Personal, Public, Text};
use openfang_id::{AgentId, AgentKey, NodeId};

use crate::{Principal, SendError};

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

/// The longest name of a session, in bytes.
const SESSION_BYTES_MAX: usize = 64;

/// The longest call of a sender, in bytes.
const SENDER_BYTES_MAX: usize = 128;

/// The session of callers that name none and are no agents.
pub const MAIN_SESSION: &str = "main";

/// A message that was checked, as its turn needs it.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) message: String,
    pub(crate) path: Vec<(NodeId, AgentId)>,
    pub(crate) session: String,
    user: String,
    principal: Principal,
    peer: String,
    /// What the caller calls the conversation: the end of `session`.
    named: Option<String>,
}

/// What a caller calls a conversation is its own: it can be a name.
pub(crate) fn session_in_log(name: &str) -> Text<'_> {
    if name == MAIN_SESSION {
        Public::text(name).into()
    } else {
        Personal::new(name, name).into()
    }
}

impl Delivery {
    /// Checks everything that can be checked without looking at the agent.
    pub(crate) fn check(self, me: NodeId) -> Result<Arrived, SendError> {
        let refused = |reason: &str| SendError::Refused {
            reason: reason.to_owned(),
        };
        check_size(self.message.len(), self.path.len())?;
        let agent = self.principal.as_agent();
        if agent.is_some_and(|(_, node)| node != self.from.unwrap_or(me)) {
            return Err(refused("an agent speaks for itself, from its own node"));
        }
        let named = self.session.as_deref();
        if named.is_some_and(|name| !is_session_name(name)) {
            return Err(refused(
                "a session has 1 to 64 bytes, no control characters, and no colon or slash",
            ));
        }
        // Agents, and callers of other nodes, talk apart from what others say to the agent here: who
        // asks is authenticated, what they call their conversation is not.
        let session = match (self.from, agent, named) {
            (_, Some((id, _)), None) => format!("agent:{id}"),
            (_, Some((id, _)), Some(name)) => format!("agent:{id}/{name}"),
            (Some(node), None, name) => format!("node:{node}/{}", name.unwrap_or(MAIN_SESSION)),
            (None, None, name) => name.unwrap_or(MAIN_SESSION).to_owned(),
        };
        let user = match (self.from, agent) {
            // What that node says; only that it says so is known.
            (Some(node), None) => format!("{}@{node}", self.principal),
            (Some(_), Some(_)) | (None, _) => self.principal.to_string(),
        };
        let peer = match (self.from, agent) {
            (Some(node), None) => format!("node:{node}"),
            (Some(_), Some(_)) | (None, _) => user.clone(),
        };
        Ok(Arrived {
            message: with_sender(self.message, self.sender.as_deref()),
            path: self.path,
            session,
            user,
            principal: self.principal,
            peer,
            named: self.session,
        })
    }
}

fn is_session_name(name: &str) -> bool {
    (1..=SESSION_BYTES_MAX).contains(&name.len())
        && !name.chars().any(|c| c.is_control() || c == ':' || c == '/')
}

impl Arrived {
    /// On whose behalf, for the audit log.
    pub(crate) fn user(&self) -> Text<'_> {
        self.principal.in_log(&self.user)
    }

    /// The conversation, for the audit log.
    pub(crate) fn session(&self) -> Text<'_> {
        match &self.named {
            Some(name) if name != MAIN_SESSION => Personal::new(name, &self.session).into(),
            Some(_) | None => Public::text(&self.session).into(),
        }
    }

    /// The entry for this message in the audit log.
    pub(crate) fn event(
        &self,
        agent: AgentId,
        cause: Option<&Cause>,
        outcome: Outcome<'_>,
    ) -> Event {
        Event::message_in(Message {
            agent,
            peer: if self.peer == self.user {
                self.user()
            } else {
                Public::text(&self.peer).into()
            },
            user: self.user(),
            session: Some(self.session()),
            cause,
            outcome,
        })
    }
}

/// Checks the length of a message and of its path.
pub(crate) fn check_size(bytes: usize, depth: usize) -> Result<(), SendError> {
    if bytes > MESSAGE_BYTES_MAX {
        return Err(SendError::too_large(bytes));
    }
    if depth > DEPTH_MAX {
        return Err(SendError::TooDeep { depth });
    }
    Ok(())
}

/// Tells the agent whom the message is from, on a line of its own.
fn with_sender(message: String, sender: Option<&str>) -> String {
    let plain = |c: &char| !c.is_control();
    let sender: String = sender
        .unwrap_or_default()
        .chars()
        .filter(plain)
        .take(SENDER_BYTES_MAX)
        .collect();
    if sender.is_empty() {
        return message;
    }
    format!("[from {sender}]\n{message}")
}
