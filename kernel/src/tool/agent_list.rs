//! `agent_list`: the agents of the mesh.

use openfang_id::NodeKey;
use serde::Deserialize;
use serde_json::json;

use super::{Context, Definition, ToolError};
use crate::Listed;
use crate::handle::Kernel;
use crate::ports::NodeLookup;

/// The most agents that are told: a model is to choose among them, not to count them.
const AGENTS_MAX: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    query: Option<String>,
}

pub(super) fn definition() -> Definition {
    Definition {
        description: "Lists the agents you can send messages to, on this node and on all others, each with what it is for. A query keeps those whose name, description or tags hold it.",
        parameters: json!({
            "type": "object",
            "properties": { "query": { "type": "string" } },
            "additionalProperties": false,
        }),
    }
}

pub(super) fn run(context: &Context<'_>, arguments: Arguments) -> Result<String, ToolError> {
    let query = arguments.query.unwrap_or_default().to_lowercase();
    let everywhere = context.agent.grants.may_discover();
    let agents: Vec<serde_json::Value> = context
        .kernel
        .directory()
        .iter()
        .filter(|agent| everywhere || agent.local.is_some())
        .filter(|agent| holds(agent, &query))
        .take(AGENTS_MAX)
        .map(|agent| tell(context.kernel, agent))
        .collect();
    serde_json::to_string(&agents).map_err(|_unwritable| ToolError::Unwritable)
}

fn holds(agent: &Listed, query: &str) -> bool {
    let name = agent.name.as_str();
    let mut texts = [name, &agent.description]
        .into_iter()
        .chain(agent.tags.iter().map(String::as_str));
    texts.any(|text| text.to_lowercase().contains(query))
}

fn tell(kernel: &Kernel, agent: &Listed) -> serde_json::Value {
    // A name that several nodes carry would be refused.
    let node = match kernel.node(&NodeKey::Name(agent.node_name.clone())) {
        NodeLookup::Ambiguous(_) => agent.node.to_string(),
        NodeLookup::Here | NodeLookup::Known { .. } | NodeLookup::Unknown => {
            agent.node_name.to_string()
        }
    };
    json!({
        "agent": format!("{}@{node}", agent.name),
        "description": agent.description,
        "tags": agent.tags,
        "state": agent.state.as_str(),
        "reachable": agent.reachable,
    })
}
