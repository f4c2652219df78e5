//! `openfang message`: one message to an agent, and its answer.

use std::io::Read as _;
use std::time::Duration;

use openfang_schema::{Chunk, ErrorBody, MessageReply, MessageRequest, ToolUse, event, path};
use serde_json::{Value, json};

use super::agent::reference;
use crate::args::Message;
use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;
use crate::sse::{Event, Parser};

/// How the pieces of an answer are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// The text as it comes; tools on stderr.
    Text,
    /// One JSON object for each event, a line each.
    Json,
}

/// Sends a message. With `--json` a failure is told on stdout as well, for programs.
pub(crate) fn run(args: &Message, context: &Context) -> Result<Exit, Failure> {
    let sent = send(args, context);
    if args.json
        && let Err(failure) = &sent
        && !failure.is_closed_pipe()
    {
        let why = failure.to_json();
        if args.stream {
            render::json_line(&json!({ "event": event::ERROR, "data": why }))?;
        } else {
            render::json(&why)?;
        }
    }
    sent
}

fn send(args: &Message, context: &Context) -> Result<Exit, Failure> {
    let agent = reference(&args.agent)?;
    let mut message = args.text.clone();
    if message == "-" {
        message.clear();
        std::io::stdin().lock().read_to_string(&mut message)?;
    }
    let request = MessageRequest {
        message,
        ..MessageRequest::default()
    };
    let client = context.client()?;
    let timeout = Duration::from_secs(args.timeout);
    if args.stream {
        let place = path::of_agent(path::STREAM, &agent);
        let show = if args.json { Show::Json } else { Show::Text };
        context.block_on(stream(&client, &place, &request, (timeout, show)))?;
        return Ok(Exit::Ok);
    }
    let place = path::of_agent(path::MESSAGE, &agent);
    let reply: MessageReply = context.block_on(client.post(&place, &request, timeout))?;
    if args.json {
        render::json(&reply)?;
    } else {
        render::line(&render::printable(&reply.response))?;
    }
    Ok(Exit::Ok)
}

/// Sends a message and shows the answer while it comes. A stream without an end is a failure.
pub(crate) async fn stream(
    client: &Client,
    place: &str,
    request: &MessageRequest,
    (timeout, show): (Duration, Show),
) -> Result<(), Failure> {
    let mut response = client.stream(place, request, timeout).await?;
    let mut parser = Parser::default();
    while let Some(piece) = response.chunk().await.map_err(|why| client.failure(&why))? {
        let events = parser
            .push(&piece)
            .map_err(|why| Failure::new(Exit::Failure, why.to_string()))?;
        for event in events {
            if take(&event, show)? {
                return Ok(());
            }
        }
    }
    Err(
        Failure::new(Exit::Failure, "the answer was cut off before its end")
            .mend("openfang status"),
    )
}

/// Shows an event; `true` after the last one.
fn take(event: &Event, show: Show) -> Result<bool, Failure> {
    if event.name == event::ERROR {
        let body: ErrorBody = serde_json::from_str(&event.data)?;
        return Err(Failure::of_api(body));
    }
    match show {
        Show::Json => {
            let data: Value = serde_json::from_str(&event.data)?;
            render::json_line(&json!({ "event": event.name, "data": data }))?;
        }
        Show::Text => show_text(event)?,
    }
    Ok(event.name == event::DONE)
}

fn show_text(event: &Event) -> Result<(), Failure> {
    match event.name.as_str() {
        event::CHUNK => {
            let chunk: Chunk = serde_json::from_str(&event.data)?;
            render::piece(&render::printable(&chunk.content))?;
        }
        event::TOOL_USE => {
            let tool: ToolUse = serde_json::from_str(&event.data)?;
            render::message(&render::cell(&format!("[{} {}]", tool.tool, tool.input)));
        }
        event::DONE => render::piece("\n")?,
        _other => {}
    }
    Ok(())
}
