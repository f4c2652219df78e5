//! `memory_recall`: reads what this agent has stored.

use serde::Deserialize;
use serde_json::json;

use super::{Context, Definition, ToolError};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    key: Option<String>,
}

pub(super) fn definition() -> Definition {
    Definition {
        description: "Returns the text stored under a key in your own memory; without a key, the list of all keys.",
        parameters: json!({
            "type": "object",
            "properties": { "key": { "type": "string" } },
            "additionalProperties": false,
        }),
    }
}

pub(super) async fn run(context: &Context<'_>, arguments: Arguments) -> Result<String, ToolError> {
    let (store, agent) = (context.kernel.store(), context.agent);
    let Some(key) = arguments.key else {
        let mut keys = store.memory_keys(agent.id).await?;
        keys.retain(|key| agent.grants.may_read(key));
        return serde_json::to_string(&keys).map_err(|_unwritable| ToolError::Unwritable);
    };
    if !agent.grants.may_read(&key) {
        return Err(ToolError::Denied("memory_read does not grant this key"));
    }
    match store.memory_get(agent.id, &key).await? {
        Some(value) => Ok(value),
        None => Ok(format!("Nothing is stored under {key:?}.")),
    }
}
