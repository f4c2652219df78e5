//! `agent_send`: a message to any agent of the mesh.

use std::time::Duration;

use openfang_id::AgentRef;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{Context, Definition, ToolError};
use crate::{Outgoing, Principal};

/// The other agent must end this much before the turn that waits for it, so that its failure can
/// still be told.
const MARGIN: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    agent: String,
    message: String,
}

pub(super) fn definition() -> Definition {
    Definition {
        description: "Sends a message to another agent and returns its answer. The agent is a name, a name@node or an id, as agent_list tells them.",
        parameters: json!({
            "type": "object",
            "properties": {
                "agent": { "type": "string" },
                "message": { "type": "string", "minLength": 1 },
            },
            "required": ["agent", "message"],
            "additionalProperties": false,
        }),
    }
}

pub(super) async fn run(context: Context<'_>, arguments: Arguments) -> Result<String, ToolError> {
    let to: AgentRef = arguments
        .agent
        .parse()
        .map_err(|why: openfang_id::AgentRefError| ToolError::Arguments(why.to_string()))?;
    let target = context.kernel.resolve(&to)?;
    let grants = &context.agent.grants;
    if !grants.may_message(&target.names()) {
        return Err(ToolError::Denied("agent_message does not grant this agent"));
    }
    if target
        .node_names()
        .is_some_and(|names| !grants.may_connect(&names))
    {
        return Err(ToolError::Denied(
            "ofp_connect does not grant the node of this agent",
        ));
    }
    let left = context.deadline.saturating_duration_since(Instant::now());
    let me = context.kernel.me();
    let message = Outgoing {
        path: context.path,
        deadline: Some(left.saturating_sub(MARGIN.min(left / 10))),
        cause: context.cause.map(|cause| cause.to_string()),
        sender: Some(context.agent.name.to_string()),
        ..Outgoing::new(arguments.message, Principal::agent(context.agent.id, me.0))
    };
    let stream = context.kernel.send_boxed(to, message).await?;
    Ok(stream.finish().await?.response)
}
