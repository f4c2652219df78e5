//! A stand-in for a language model: an OpenAI-compatible server that follows a script.
//!
//! It exists so that the demonstration can show a model calling another machine's agent without a
//! model being installed. It does what a model with one tool would do: asked something, it calls
//! `agent_send`; given the tool's answer, it repeats it. It says so in its answers.

use std::net::SocketAddr;

use axum::routing::post;
use axum::{Json, Router, http::header, response::IntoResponse};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The scripted server, while it runs.
#[derive(Debug)]
pub(super) struct Scripted {
    /// Where it listens.
    pub(super) address: SocketAddr,
    _server: JoinSet<()>,
}

impl Scripted {
    /// Starts it on a free port; every answer calls `target` first.
    pub(super) async fn start(target: &'static str) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let app = Router::new().route(
            "/v1/chat/completions",
            post(move |Json(request): Json<Value>| async move { answer(target, &request) }),
        );
        let mut server = JoinSet::new();
        server.spawn(async move {
            if let Err(why) = axum::serve(listener, app).await {
                tracing::warn!(%why, "the scripted model stopped");
            }
        });
        Ok(Self {
            address,
            _server: server,
        })
    }
}

fn answer(target: &str, request: &Value) -> impl IntoResponse + use<> {
    let messages = request["messages"].as_array().cloned().unwrap_or_default();
    let last = messages.last().cloned().unwrap_or(Value::Null);
    let delta = if last["role"] == "tool" {
        let told = last["content"].as_str().unwrap_or_default();
        json!({ "content": format!("{target} told me: {told}") })
    } else {
        let asked = last["content"].as_str().unwrap_or_default();
        let arguments = json!({ "agent": target, "message": asked }).to_string();
        json!({ "tool_calls": [{
            "index": 0,
            "id": "call_1",
            "type": "function",
            "function": { "name": "agent_send", "arguments": arguments },
        }] })
    };
    let reason = if last["role"] == "tool" {
        "stop"
    } else {
        "tool_calls"
    };
    let chunk = |delta: Value, reason: Value| {
        let body = json!({
            "id": "scripted", "object": "chat.completion.chunk", "created": 0, "model": "scripted",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }],
            "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
        });
        format!("data: {body}\n\n")
    };
    let body = chunk(delta, Value::Null) + &chunk(json!({}), json!(reason)) + "data: [DONE]\n\n";
    ([(header::CONTENT_TYPE, "text/event-stream")], body)
}
