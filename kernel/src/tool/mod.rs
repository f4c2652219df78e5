//! The tools an agent may be granted: one file each, with its definition, its arguments and its work.

mod agent_list;
mod agent_send;
mod memory_recall;
mod memory_store;
mod system_time;

use std::sync::Arc;

use openfang_audit::Cause;
use openfang_id::{AgentId, NodeId};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::handle::Kernel;
use crate::registry::Agent;
use crate::{SendError, StoreError, TurnError};

/// The longest output a model is told, in bytes.
const OUTPUT_BYTES_MAX: usize = 32 * 1024;

/// A tool of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// Lists the agents of the mesh.
    AgentList,
    /// Sends a message to an agent and waits for its answer.
    AgentSend,
    /// Reads what the agent has stored.
    MemoryRecall,
    /// Stores a text under a key.
    MemoryStore,
    /// Tells date and time.
    SystemTime,
}

impl Tool {
    /// All tools, by name.
    pub const ALL: [Self; 5] = [
        Self::AgentList,
        Self::AgentSend,
        Self::MemoryRecall,
        Self::MemoryStore,
        Self::SystemTime,
    ];

    /// Returns the name a model calls it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentList => "agent_list",
            Self::AgentSend => "agent_send",
            Self::MemoryRecall => "memory_recall",
            Self::MemoryStore => "memory_store",
            Self::SystemTime => "system_time",
        }
    }

    /// Looks a tool up by name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }
}

/// What a model is told about a tool.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) description: &'static str,
    /// JSON schema of its arguments.
    pub(crate) parameters: Value,
}

/// Who uses a tool, and where in which call.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) agent: &'a Arc<Agent>,
    /// The agents the call has come through, this one included.
    pub(crate) path: Vec<(NodeId, AgentId)>,
    /// When the turn must end.
    pub(crate) deadline: Instant,
    /// The audit entry of this use.
    pub(crate) cause: Option<Cause>,
}

/// Why a tool gave no result. The model is told, and may go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    #[error("the arguments are not as the schema says: {0}")]
    Arguments(String),
    #[error("refused: {0}")]
    Denied(&'static str),
    #[error("{0}")]
    Limit(&'static str),
    #[error("{}", with_candidates(.0))]
    Send(#[from] SendError),
    #[error(transparent)]
    Turn(#[from] TurnError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the result cannot be written")]
    Unwritable,
}

/// Says with an ambiguous reference what it can mean, as the model would have to write it.
fn with_candidates(error: &SendError) -> String {
    match error.candidates().as_slice() {
        [] => error.to_string(),
        several => format!("{error}. Use one of: {}", several.join(", ")),
    }
}

impl ToolError {
    /// Returns the stable word for it, for the audit log.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Arguments(_) => "bad_arguments",
            Self::Denied(_) => "denied",
            Self::Limit(_) => "limit",
            Self::Send(error) => error.code(),
            Self::Turn(error) => error.code(),
            Self::Store(_) => "storage",
            Self::Unwritable => "unwritable",
        }
    }
}

impl Tool {
    pub(crate) fn definition(self) -> Definition {
        match self {
            Self::AgentList => agent_list::definition(),
            Self::AgentSend => agent_send::definition(),
            Self::MemoryRecall => memory_recall::definition(),
            Self::MemoryStore => memory_store::definition(),
            Self::SystemTime => system_time::definition(),
        }
    }

    /// Runs the tool on arguments in JSON text, and returns what the model is to be told.
    pub(crate) async fn run(
        self,
        context: Context<'_>,
        arguments: &str,
    ) -> Result<String, ToolError> {
        let output = match self {
            Self::AgentList => agent_list::run(&context, parse(arguments)?)?,
            Self::AgentSend => agent_send::run(context, parse(arguments)?).await?,
            Self::MemoryRecall => memory_recall::run(&context, parse(arguments)?).await?,
            Self::MemoryStore => memory_store::run(&context, parse(arguments)?).await?,
            Self::SystemTime => system_time::run(&parse(arguments)?),
        };
        Ok(bounded(output))
    }
}

/// Reads arguments; a model that has none to give may give nothing.
fn parse<T: DeserializeOwned>(arguments: &str) -> Result<T, ToolError> {
    let text = if arguments.trim().is_empty() {
        "{}"
    } else {
        arguments
    };
    serde_json::from_str(text).map_err(|why| ToolError::Arguments(why.to_string()))
}

/// Cuts an output that is too long, and says so.
fn bounded(mut output: String) -> String {
    let bytes = output.len();
    if bytes > OUTPUT_BYTES_MAX {
        let end = (0..=OUTPUT_BYTES_MAX)
            .rev()
            .find(|at| output.is_char_boundary(*at));
        output.truncate(end.unwrap_or(0));
        output += &format!("\n[cut: it had {bytes} bytes]");
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_found_by_their_names_only() {
        for tool in Tool::ALL {
            assert_eq!(Tool::find(tool.name()), Some(tool));
            let definition = tool.definition();
            assert!(!definition.description.is_empty());
            assert_eq!(definition.parameters["type"], "object", "{tool:?}");
            assert_eq!(
                definition.parameters["additionalProperties"], false,
                "{tool:?}"
            );
        }
        assert_eq!(Tool::find("agent_kill"), None);
        assert!(Tool::ALL.is_sorted_by_key(|tool| tool.name()));
    }

    #[test]
    fn arguments_are_checked() {
        let check = |text: &str, ok: bool| {
            assert_eq!(parse::<memory_store::Arguments>(text).is_ok(), ok, "{text}");
        };
        check(r#"{"key":"a","value":"b"}"#, true);
        check(r#"{"key":"a"}"#, false);
        check(r#"{"key":1,"value":"b"}"#, false);
        check(r#"{"key":"a","value":"b","more":1}"#, false);
        check("", false);
        check("[]", false);
        assert!(parse::<system_time::Arguments>(" ").is_ok());
    }

    #[test]
    fn an_output_is_cut_at_a_character_and_says_so() {
        assert_eq!(bounded("é".to_owned()), "é");
        let cut = bounded(format!("x{}", "é".repeat(OUTPUT_BYTES_MAX)));
        assert!(cut.len() < OUTPUT_BYTES_MAX + 40 && cut.ends_with("[cut: it had 65537 bytes]"));
    }
}
