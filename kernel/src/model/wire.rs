//! The JSON of the OpenAI chat protocol: the request that is sent, the pieces that come back.
//!
//! What comes back is read leniently: servers leave out, rename and retype fields. Fields without
//! use here are not read.

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::Request;
use super::route::Route;
use crate::tool::Tool;
use crate::turn::{Message, ToolCall};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<WireMessage<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

/// Writes the body of a request.
pub(super) fn body(route: &Route, request: &Request<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let system = WireMessage {
        role: "system",
        content: Some(request.system_prompt),
        tool_calls: Vec::new(),
        tool_call_id: None,
    };
    let first = (!request.system_prompt.is_empty()).then_some(system);
    let new_name = route.max_tokens_field == "max_completion_tokens";
    serde_json::to_vec(&Body {
        model: &route.model,
        messages: first
            .into_iter()
            .chain(request.messages.iter().map(message))
            .collect(),
        stream: true,
        stream_options: route
            .stream_options
            .then(|| serde_json::json!({ "include_usage": true })),
        temperature: (!route.fixed_temperature).then_some(route.temperature),
        max_tokens: (!new_name).then_some(route.max_tokens),
        max_completion_tokens: new_name.then_some(route.max_tokens),
        tools: request.tools.iter().map(|tool| definition(*tool)).collect(),
    })
}

fn definition(tool: Tool) -> Value {
    let definition = tool.definition();
    serde_json::json!({
        "type": "function",
        "function": {
            "name": tool.name(),
            "description": definition.description,
            "parameters": definition.parameters,
        },
    })
}

fn message(message: &Message) -> WireMessage<'_> {
    let (role, content, tool_calls, tool_call_id) = match message {
        Message::User { text } => ("user", Some(text.as_str()), Vec::new(), None),
        Message::Assistant { text, calls } => {
            // Some servers refuse an empty text beside tool calls, others a missing one without.
            let content = (!text.is_empty() || calls.is_empty()).then_some(text.as_str());
            ("assistant", content, calls.iter().map(call).collect(), None)
        }
        Message::Tool { call_id, text, .. } => (
            "tool",
            Some(text.as_str()),
            Vec::new(),
            Some(call_id.as_str()),
        ),
    };
    WireMessage {
        role,
        content,
        tool_calls,
        tool_call_id,
    }
}

fn call(call: &ToolCall) -> WireCall<'_> {
    // A server that parses the arguments of earlier calls must be able to.
    let sound = serde_json::from_str::<&RawValue>(&call.arguments).is_ok();
    WireCall {
        id: &call.id,
        r#type: "function",
        function: WireFunction {
            name: &call.tool,
            arguments: if sound { &call.arguments } else { "{}" },
        },
    }
}

/// A piece of a streamed answer, or a whole answer of a server that does not stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Piece {
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Option<WireUsage>,
    /// Where Groq puts the usage of a streamed answer.
    pub(super) x_groq: Option<Groq>,
    pub(super) error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Groq {
    pub(super) usage: Option<WireUsage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    pub(super) delta: Option<Delta>,
    pub(super) message: Option<Delta>,
    pub(super) finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delta {
    pub(super) content: Option<String>,
    pub(super) refusal: Option<String>,
    pub(super) tool_calls: Option<Vec<CallPiece>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CallPiece {
    pub(super) index: Option<u64>,
    pub(super) id: Option<String>,
    pub(super) function: Option<FunctionPiece>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FunctionPiece {
    pub(super) name: Option<String>,
    /// Text; an object from servers that take the protocol lightly.
    pub(super) arguments: Option<Value>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireUsage {
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
}

/// What an error answer tells: a word and a sentence.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) code: String,
    pub(super) kind: String,
    pub(super) message: String,
}

impl Reported {
    /// Reads `{"error": {"message", "type", "code"}}`, `{"error": "…"}` and `{"message": "…"}`.
    pub(super) fn of(body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        match value.get("error") {
            Some(error) => Self::of_value(error),
            None => Self::of_value(&value),
        }
    }

    pub(super) fn of_value(error: &Value) -> Self {
        let text = |key: &str| match error.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => {
                String::new()
            }
        };
        Self {
            code: text("code"),
            kind: text("type"),
            message: error
                .as_str()
                .map_or_else(|| text("message"), str::to_owned),
        }
    }

    /// Whether it says that the conversation is too long, by the words that servers use for it.
    pub(super) fn is_context_too_long(&self) -> bool {
        [&self.code, &self.kind].into_iter().any(|word| {
            matches!(
                word.as_str(),
                "context_length_exceeded" | "exceed_context_size_error" | "string_above_max_length"
            )
        })
    }
}
