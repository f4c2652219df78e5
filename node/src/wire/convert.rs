//! Between the words of the kernel and those of the wire: agents, deliveries, events, failures.
//!
//! Every conversion is total: what one side cannot name crosses as a stable word and a sentence.

use std::time::Duration;

use openfang_id::{AgentRef, NodeId, NodeKey, NodeName};
use openfang_kernel::ports::RemoteAgent;
use openfang_kernel::{
    AgentInfo, AgentState, DEPTH_MAX, Delivery, Looked, PrincipalError, SendError, TurnDone,
    TurnError, TurnEvent,
};
use openfang_mesh::CallError;
use openfang_ofp::call::{CallId, Chunk, End, Failure, Frame, Hop, Request};
use openfang_ofp::roster::{self, AgentAd, NodeView};

use crate::evidence::Barred;

/// Another node, as it is named in errors.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub(super) id: NodeId,
    pub(super) name: Option<NodeName>,
}

/// What a failure is about.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) node: Remote,
    pub(super) agent: AgentRef,
    pub(super) message_bytes: usize,
    pub(super) depth: usize,
    pub(super) deadline: Duration,
}

/// An agent of this node, as it is announced.
pub(super) fn ad(agent: AgentInfo) -> AgentAd {
    AgentAd {
        id: agent.id,
        name: agent.name,
        description: agent.description,
        tags: agent.tags,
        tools: agent.tools,
        state: match agent.state {
            AgentState::Running => roster::AgentState::Running,
            AgentState::Crashed => roster::AgentState::Crashed,
        },
        module: agent.module,
    }
}

/// The agents of another node, as it announced them.
pub(super) fn remote_agents(node: &NodeView) -> impl Iterator<Item = RemoteAgent> {
    let record = node.record.record();
    record.agents.iter().map(|agent| RemoteAgent {
        node: node.id,
        node_name: record.name.clone(),
        reachable: node.liveness.is_reachable(),
        id: agent.id,
        name: agent.name.clone(),
        description: agent.description.clone(),
        tags: agent.tags.clone(),
        tools: agent.tools.clone(),
        state: match agent.state {
            roster::AgentState::Running => AgentState::Running,
            roster::AgentState::Created
            | roster::AgentState::Suspended
            | roster::AgentState::Terminated
            | roster::AgentState::Crashed => AgentState::Crashed,
        },
        module: agent.module.clone(),
    })
}

/// A message that leaves this node, at a time of its hybrid clock.
pub(super) fn request(delivery: Delivery, hlc: u64) -> Request {
    let hop = |(node, agent)| Hop { node, agent };
    Request {
        id: CallId(delivery.call_id),
        agent: delivery.agent,
        message: delivery.message,
        principal: delivery.principal.to_string(),
        path: delivery.path.into_iter().map(hop).collect(),
        deadline_ms: millis(delivery.deadline),
        resume_from: 0,
        hlc,
        cause: delivery.cause,
        labels: Vec::new(),
        trace: None,
        session: delivery.session,
        sender: delivery.sender,
    }
}

/// A message that arrived from another node.
pub(super) fn delivery(from: NodeId, request: Request) -> Result<Delivery, PrincipalError> {
    Ok(Delivery {
        call_id: request.id.0,
        from: Some(from),
        agent: request.agent,
        message: request.message,
        principal: request.principal.parse()?,
        path: request
            .path
            .iter()
            .map(|hop| (hop.node, hop.agent))
            .collect(),
        deadline: Duration::from_millis(request.deadline_ms.into()),
        cause: request.cause,
        sender: request.sender,
        session: request.session,
    })
}

/// A piece of an answer that leaves this node. `sent` is the text that left before; the whole answer
/// is sent once more only when it is not that. `hlc` reads the hybrid clock.
pub(super) fn frame(event: TurnEvent, sent: &mut usize, hlc: impl FnOnce() -> u64) -> Frame {
    match event {
        TurnEvent::Chunk { text } => {
            *sent += text.len();
            Frame::Chunk(Chunk::Text(text))
        }
        TurnEvent::ToolStart { id, tool, input } => {
            Frame::Chunk(Chunk::ToolStart { id, tool, input })
        }
        TurnEvent::ToolEnd {
            id,
            tool,
            output,
            is_error,
        } => Frame::Chunk(Chunk::ToolEnd {
            id,
            tool,
            output,
            is_error,
        }),
        TurnEvent::Done(done) => Frame::End(End {
            agent: done.agent_id,
            agent_name: done.agent_name,
            response: (done.response.len() != *sent).then_some(done.response),
            input_tokens: done.input_tokens,
            output_tokens: done.output_tokens,
            iterations: done.iterations,
            cause: done.cause,
            hlc: hlc(),
        }),
        TurnEvent::Failed(why) => Frame::Failure(turn_failure(&why)),
    }
}

/// A piece of an answer that arrived. `text` is what arrived before.
pub(super) fn event(frame: Frame, text: &mut String, about: &About) -> TurnEvent {
    match frame {
        Frame::Chunk(Chunk::Text(more)) => {
            text.push_str(&more);
            TurnEvent::Chunk { text: more }
        }
        Frame::Chunk(Chunk::ToolStart { id, tool, input }) => {
            TurnEvent::ToolStart { id, tool, input }
        }
        Frame::Chunk(Chunk::ToolEnd {
            id,
            tool,
            output,
            is_error,
        }) => TurnEvent::ToolEnd {
            id,
            tool,
            output,
            is_error,
        },
        Frame::End(end) => TurnEvent::Done(done(end, std::mem::take(text), about)),
        Frame::Failure(failure) => TurnEvent::Failed(turn_error(failure, about)),
        Frame::Request(_) | Frame::Cancel | Frame::Received => {
            TurnEvent::Failed(TurnError::Remote {
                code: "protocol".to_owned(),
                message: "the other node broke the protocol".to_owned(),
            })
        }
    }
}

fn done(end: End, text: String, about: &About) -> TurnDone {
    TurnDone {
        response: end.response.unwrap_or(text),
        input_tokens: end.input_tokens,
        output_tokens: end.output_tokens,
        iterations: end.iterations,
        agent_id: end.agent,
        agent_name: end.agent_name,
        node_id: about.node.id,
        node_name: about.node.shown(),
        cause: end.cause,
    }
}

/// Why a message from another node was not taken.
pub(super) fn send_failure(why: &SendError) -> Failure {
    match why {
        SendError::UnknownAgent { looked_for, .. } => Failure::UnknownAgent {
            looked_for: looked_for.agent.to_string(),
        },
        SendError::Busy { retry_after } => Failure::Busy {
            retry_after_ms: millis(*retry_after),
        },
        SendError::Refused { reason } => Failure::Refused {
            reason: reason.clone(),
        },
        SendError::TimedOut => Failure::TimedOut,
        SendError::TooLarge { max, .. } => Failure::TooLarge {
            limit_bytes: u32::try_from(*max).unwrap_or(u32::MAX),
        },
        SendError::TooDeep { .. } => Failure::TooDeep {
            limit: u32::try_from(DEPTH_MAX).unwrap_or(u32::MAX),
        },
        SendError::AlreadyRan => Failure::AlreadyRan,
        SendError::ShuttingDown => Failure::ShuttingDown,
        SendError::AmbiguousNode { .. }
        | SendError::AmbiguousAgent { .. }
        | SendError::UnknownNode { .. }
        | SendError::Unreachable { .. }
        | SendError::NotRunning { .. }
        | SendError::NotLogged(_)
        | SendError::Convicted { .. }
        | SendError::Remote { .. } => Failure::AgentFailed {
            code: why.code().to_owned(),
            message: why.to_string(),
        },
    }
}

/// Why a turn for another node failed.
fn turn_failure(why: &TurnError) -> Failure {
    match why {
        TurnError::Cancelled => Failure::Cancelled,
        TurnError::TimedOut { .. } => Failure::TimedOut,
        TurnError::ShuttingDown => Failure::ShuttingDown,
        TurnError::NotDelivered(why) => send_failure(why),
        TurnError::Killed
        | TurnError::Model(_)
        | TurnError::IterationLimit { .. }
        | TurnError::ToolCallLimit { .. }
        | TurnError::AnswerTooLong { .. }
        | TurnError::OverLimit { .. }
        | TurnError::NotLogged(_)
        | TurnError::Storage(_)
        | TurnError::Cut
        | TurnError::Remote { .. } => Failure::AgentFailed {
            code: why.code().to_owned(),
            message: why.to_string(),
        },
    }
}

/// What another node answered instead of an answer: the failure of a turn when one ran there, an
/// error of the delivery otherwise.
pub(super) fn turn_error(failure: Failure, about: &About) -> TurnError {
    match failure {
        Failure::AgentFailed { code, message } => TurnError::Remote { code, message },
        Failure::Cancelled => TurnError::Cancelled,
        Failure::TimedOut => TurnError::TimedOut {
            after: about.deadline,
        },
        other @ (Failure::UnknownAgent { .. }
        | Failure::Busy { .. }
        | Failure::Refused { .. }
        | Failure::TooLarge { .. }
        | Failure::TooDeep { .. }
        | Failure::ShuttingDown
        | Failure::AlreadyRan
        | Failure::Internal) => TurnError::NotDelivered(Box::new(send_error(other, about))),
    }
}

/// Why another node did not take a message.
fn send_error(failure: Failure, about: &About) -> SendError {
    match failure {
        Failure::UnknownAgent { .. } => SendError::UnknownAgent {
            looked_for: about.agent.clone(),
            where_looked: Looked::On(about.node.id, about.node.shown()),
        },
        Failure::Busy { retry_after_ms } => SendError::Busy {
            retry_after: Duration::from_millis(retry_after_ms.into()),
        },
        Failure::Refused { reason } => SendError::Refused { reason },
        Failure::TimedOut => SendError::TimedOut,
        Failure::TooLarge { limit_bytes } => SendError::TooLarge {
            bytes: about.message_bytes,
            max: usize::try_from(limit_bytes).unwrap_or(usize::MAX),
        },
        Failure::TooDeep { .. } => SendError::TooDeep { depth: about.depth },
        // It is the other node that stops, and takes nothing more.
        Failure::ShuttingDown => about.unreachable(),
        Failure::AlreadyRan => SendError::AlreadyRan,
        Failure::AgentFailed { code, message } => SendError::Remote { code, message },
        Failure::Cancelled => SendError::Remote {
            code: "cancelled".to_owned(),
            message: "the call was cancelled".to_owned(),
        },
        Failure::Internal => SendError::Remote {
            code: "internal".to_owned(),
            message: "a fault of the other node; its log says more".to_owned(),
        },
    }
}

/// Why a node is not called.
pub(super) fn kept_away(barred: &Barred, about: &About) -> SendError {
    SendError::Convicted {
        node: barred.node,
        node_name: about.node.name.clone(),
        kind: barred.conviction.kind.to_string(),
        evidence: barred.file(),
    }
}

/// Why a call did not go through.
pub(super) fn call_error(why: CallError, about: &About) -> SendError {
    match why {
        CallError::UnknownNode { node } => SendError::UnknownNode {
            looked_for: NodeKey::Id(node),
        },
        CallError::Unreachable { .. } | CallError::Lost { .. } | CallError::Asleep => {
            about.unreachable()
        }
        CallError::Busy { retry_after } => SendError::Busy { retry_after },
        CallError::TimedOut => SendError::TimedOut,
        CallError::TooLarge { bytes, max } => SendError::TooLarge { bytes, max },
        CallError::ShuttingDown => SendError::ShuttingDown,
        CallError::Failed(failure) => send_error(failure, about),
        CallError::Invalid { what } => SendError::Refused {
            reason: format!("the call cannot be sent: {what}"),
        },
        CallError::Protocol { what } => SendError::Remote {
            code: "protocol".to_owned(),
            message: format!("the other node broke the protocol: {what}"),
        },
    }
}

impl Remote {
    /// The name, or what stands for one.
    fn shown(&self) -> NodeName {
        self.name.clone().unwrap_or_else(|| {
            self.id
                .fmt_short()
                .parse()
                .expect("eight characters of base58 are a name")
        })
    }
}

impl About {
    fn unreachable(&self) -> SendError {
        SendError::Unreachable {
            node: self.node.id,
            node_name: self.node.name.clone(),
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
