//! A message to an agent: the answer in one piece, or as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{Stream, StreamExt as _, stream};
use openfang_id::AgentRef;
use openfang_kernel::{Outgoing, Principal, TurnEvent, TurnStream};
use openfang_schema::{ErrorBody, Phase, event};

use super::{Answer, AppState, ok};
use crate::error::ApiError;
use crate::extract::{Agent, Caller, Message};
use crate::state::App;
use crate::wire;

/// How long the first event may take before the stream begins without it; until then an error is
/// answered with its own status.
const FIRST_EVENT_WAIT: Duration = Duration::from_secs(10);
/// How often a silent stream shows that it lives: proxies give up after a minute or so.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Asks nginx not to hold events back.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// `POST /api/agents/{id}/message`. A caller that goes away cancels the turn, unless the message has an
/// idempotency key.
pub(crate) async fn send(
    State(app): AppState,
    Caller(principal): Caller,
    Agent(agent): Agent,
    message: Message,
) -> Answer {
    let turn = begin(&app, agent, principal, message).await?;
    let done = turn.finish().await?;
    ok(&wire::reply(done))
}

/// `POST /api/agents/{id}/message/stream`. The same.
pub(crate) async fn stream(
    State(app): AppState,
    Caller(principal): Caller,
    Agent(agent): Agent,
    message: Message,
) -> Answer {
    let mut turn = begin(&app, agent, principal, message).await?;
    let first = match tokio::time::timeout(FIRST_EVENT_WAIT, turn.next()).await {
        Ok(Some(TurnEvent::Failed(error))) => return Err(error.into()),
        Ok(Some(first)) => sse(first),
        Ok(None) => return Err(openfang_kernel::TurnError::Cut.into()),
        Err(_still_waiting) => event_of(event::PHASE, &waiting()),
    };
    Ok(events(first, turn))
}

async fn begin(
    app: &App,
    agent: AgentRef,
    principal: Principal,
    message: Message,
) -> Result<TurnStream, ApiError> {
    let call_id = message.call_id(&agent, &principal);
    let outgoing = Outgoing {
        call_id,
        sender: message.sender,
        ..Outgoing::new(message.text, principal)
    };
    let kernel = app.state.kernel.clone();
    let sent = async move { kernel.send(agent, outgoing).await };
    Ok(match call_id {
        Some(id) => app.calls.run(id, sent).await?,
        None => sent.await?,
    })
}

fn events(first: Event, turn: TurnStream) -> Response {
    let all = stream::iter([first]).chain(turn.map(sse));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    (
        [UNBUFFERED],
        Sse::new(infallible(all)).keep_alive(keep_alive),
    )
        .into_response()
}

fn infallible(events: impl Stream<Item = Event>) -> impl Stream<Item = Result<Event, Infallible>> {
    events.map(Ok)
}

fn waiting() -> Phase {
    Phase {
        phase: "waiting".to_owned(),
        detail: Some("The agent has not begun to answer yet.".to_owned()),
    }
}

/// One event of a turn as a server-sent event.
fn sse(turn: TurnEvent) -> Event {
    match turn {
        TurnEvent::Chunk { text } => event_of(event::CHUNK, &wire::chunk(text)),
        TurnEvent::ToolStart { id, tool, input } => event_of(
            event::TOOL_USE,
            &openfang_schema::ToolUse { id, tool, input },
        ),
        TurnEvent::ToolEnd {
            id,
            tool,
            output,
            is_error,
        } => event_of(
            event::TOOL_RESULT,
            &openfang_schema::ToolResult {
                id,
                tool,
                result: output,
                is_error,
            },
        ),
        TurnEvent::Done(done) => event_of(event::DONE, &wire::done(done)),
        TurnEvent::Failed(error) => {
            let body: ErrorBody = ApiError::from(error).into_body();
            event_of(event::ERROR, &body)
        }
    }
}

/// JSON has no line ends of its own, so that one line of data holds it.
fn event_of(name: &'static str, data: &impl serde::Serialize) -> Event {
    let data = serde_json::to_string(data).unwrap_or_else(|error| {
        tracing::error!(%error, "an event is not JSON");
        "{}".to_owned()
    });
    Event::default().event(name).data(data)
}
