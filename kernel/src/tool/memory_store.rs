//! `memory_store`: keeps a text under a key, for this agent alone.

use serde::Deserialize;
use serde_json::json;

use super::{Context, Definition, ToolError};
use crate::clock;
use crate::store::Stored;

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 128;
/// The longest value, in bytes.
const VALUE_BYTES_MAX: usize = 32 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    key: String,
    value: String,
}

pub(super) fn definition() -> Definition {
    Definition {
        description: "Stores a text under a key in your own memory, which outlives the conversation. Replaces what was there.",
        parameters: json!({
            "type": "object",
            "properties": {
                "key": { "type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX },
                "value": { "type": "string", "maxLength": VALUE_BYTES_MAX },
            },
            "required": ["key", "value"],
            "additionalProperties": false,
        }),
    }
}

pub(super) async fn run(context: &Context<'_>, arguments: Arguments) -> Result<String, ToolError> {
    let Arguments { key, value } = arguments;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(ToolError::Limit("a key has 1 to 128 bytes"));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(ToolError::Limit("a value has at most 32768 bytes"));
    }
    if !context.agent.grants.may_write(&key) {
        return Err(ToolError::Denied("memory_write does not grant this key"));
    }
    let store = context.kernel.store();
    match store
        .memory_set(context.agent.id, &key, &value, clock::unix_ms())
        .await?
    {
        Stored::Yes => Ok(format!("Stored under {key:?}.")),
        Stored::Full => Err(ToolError::Limit(
            "the memory has 1000 keys, the most there can be",
        )),
    }
}
