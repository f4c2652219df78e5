//! One WebSocket: what the client says becomes turns, what the turns yield becomes messages.
//!
//! Messages are answered in their order; one that comes while the agent works waits. A client that
//! goes away cancels the running turn and those that wait.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use openfang_id::AgentRef;
use openfang_kernel::{Kernel, Listed, Outgoing, Principal, TurnEvent};
use openfang_schema::ws::{self, ClientMessage, ServerMessage, Typing};
use openfang_schema::{ErrorCode, NodeRef};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::extract::check_text;
use crate::state::State;

/// How long a client may take to accept a message before it is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(ws::IDLE_SECS);
const WINDOW: Duration = Duration::from_secs(ws::WINDOW_SECS);

type Turn = BoxStream<'static, Result<TurnEvent, ApiError>>;

/// The state of one connection.
pub(super) struct Session {
    kernel: Kernel,
    shutdown: CancellationToken,
    agent: AgentRef,
    principal: Principal,
    connected: ServerMessage,
    turn: Option<Turn>,
    waiting: VecDeque<String>,
    allowance: Allowance,
}

/// Why a connection ends.
enum End {
    /// The client went away, or does not read.
    Gone,
    /// The client said that it is over.
    Goodbye,
    /// It is told why.
    Close(u16, &'static str),
}

/// What happened next.
enum Next {
    Frame(Option<Result<Message, axum::Error>>),
    Turn(Option<Result<TurnEvent, ApiError>>),
    Idle,
    Shutdown,
}

impl Session {
    pub(super) fn new(state: &State, agent: AgentRef, principal: Principal, found: Listed) -> Self {
        let connected = ServerMessage::Connected {
            agent_id: found.id.to_string(),
            agent_name: found.name.to_string(),
            node: NodeRef {
                id: found.node.to_string(),
                name: found.node_name.to_string(),
            },
        };
        Self {
            kernel: state.kernel.clone(),
            shutdown: state.shutdown.clone(),
            agent,
            principal,
            connected,
            turn: None,
            waiting: VecDeque::new(),
            allowance: Allowance::default(),
        }
    }

    /// Runs the connection to its end.
    pub(super) async fn run(mut self, mut socket: WebSocket) {
        let connected = self.connected.clone();
        let end = match send(&mut socket, &connected).await {
            Ok(()) => self.converse(&mut socket).await,
            Err(end) => end,
        };
        // Nobody listens any more: its turn is cut before the farewell.
        drop(self);
        let farewell = async {
            match end {
                End::Gone => {}
                End::Close(code, reason) => {
                    let frame = CloseFrame {
                        code,
                        reason: Utf8Bytes::from_static(reason),
                    };
                    if socket.send(Message::Close(Some(frame))).await.is_err() {
                        tracing::debug!("a client went away before the farewell");
                    }
                }
                // Reading on is what sends the answer to its farewell (RFC 6455, 5.5.1).
                End::Goodbye => while let Some(Ok(_)) = socket.recv().await {},
            }
        };
        if tokio::time::timeout(SEND_TIMEOUT, farewell).await.is_err() {
            tracing::debug!("a client did not take the farewell");
        }
    }

    async fn converse(&mut self, socket: &mut WebSocket) -> End {
        let mut heard = Instant::now();
        loop {
            let next = self.next(socket, heard + IDLE).await;
            let done = match next {
                Next::Frame(frame) => {
                    heard = Instant::now();
                    self.on_frame(socket, frame).await
                }
                Next::Turn(event) => self.on_turn(socket, event).await,
                Next::Idle => Err(End::Close(close_code::AWAY, "idle")),
                Next::Shutdown => Err(End::Close(close_code::AWAY, "the node is stopping")),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// A running turn may end before a shutdown or idleness ends the connection.
    async fn next(&mut self, socket: &mut WebSocket, idle_at: Instant) -> Next {
        let resting = self.turn.is_none();
        let turn = async {
            match &mut self.turn {
                Some(turn) => turn.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = turn => Next::Turn(event),
            frame = socket.recv() => Next::Frame(frame),
            () = self.shutdown.cancelled(), if resting => Next::Shutdown,
            () = tokio::time::sleep_until(idle_at), if resting => Next::Idle,
        }
    }

    async fn on_frame(
        &mut self,
        socket: &mut WebSocket,
        frame: Option<Result<Message, axum::Error>>,
    ) -> Result<(), End> {
        match frame {
            None => Err(End::Gone),
            Some(Ok(Message::Close(_))) => Err(End::Goodbye),
            // Broken, against the protocol, or longer than any message: nothing more can be read.
            Some(Err(_unread)) => Err(End::Close(close_code::PROTOCOL, "not readable")),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Binary(_))) => Err(End::Close(
                close_code::UNSUPPORTED,
                "only text is understood",
            )),
            Some(Ok(Message::Text(text))) => match read(&text) {
                Ok(ClientMessage::Ping {}) => send(socket, &ServerMessage::Pong).await,
                Ok(ClientMessage::Message { content }) => self.on_message(socket, content).await,
                Err(error) => send(socket, &failed(error)).await,
            },
        }
    }

    async fn on_message(&mut self, socket: &mut WebSocket, text: String) -> Result<(), End> {
        let verdict = check_text(&text).and_then(|()| self.allowance.take(Instant::now()));
        if let Err(error) = verdict {
            return send(socket, &failed(error)).await;
        }
        if self.turn.is_some() {
            self.waiting.push_back(text);
            return Ok(());
        }
        self.begin(socket, text).await
    }

    async fn begin(&mut self, socket: &mut WebSocket, text: String) -> Result<(), End> {
        let outgoing = Outgoing::new(text, self.principal.clone());
        self.turn = Some(turn(self.kernel.clone(), self.agent.clone(), outgoing));
        send(socket, &typing(Typing::Start, None)).await
    }

    async fn on_turn(
        &mut self,
        socket: &mut WebSocket,
        event: Option<Result<TurnEvent, ApiError>>,
    ) -> Result<(), End> {
        let Some(event) = event else {
            self.turn = None;
            send(socket, &typing(Typing::Stop, None)).await?;
            return match self.waiting.pop_front() {
                Some(text) => self.begin(socket, text).await,
                None => Ok(()),
            };
        };
        for message in said(event) {
            send(socket, &message).await?;
        }
        Ok(())
    }
}

/// The events of a turn, its beginning included, so that nothing blocks the connection.
fn turn(kernel: Kernel, agent: AgentRef, outgoing: Outgoing) -> Turn {
    let begun = async move { kernel.send(agent, outgoing).await };
    stream::once(begun)
        .flat_map(|begun| match begun {
            Ok(events) => events.map(Ok).left_stream(),
            Err(error) => {
                stream::once(std::future::ready(Err(ApiError::from(error)))).right_stream()
            }
        })
        .boxed()
}

/// What a turn's event becomes.
fn said(event: Result<TurnEvent, ApiError>) -> Vec<ServerMessage> {
    match event {
        Ok(TurnEvent::Chunk { text }) => vec![ServerMessage::TextDelta { content: text }],
        Ok(TurnEvent::ToolStart { id, tool, input }) => vec![
            typing(Typing::Tool, Some(tool.clone())),
            ServerMessage::ToolStart {
                id: id.clone(),
                tool: tool.clone(),
            },
            ServerMessage::ToolEnd { id, tool, input },
        ],
        Ok(TurnEvent::ToolEnd {
            id,
            tool,
            output,
            is_error,
        }) => vec![ServerMessage::ToolResult {
            id,
            tool,
            result: output,
            is_error,
        }],
        Ok(TurnEvent::Done(done)) => {
            let reply = crate::wire::reply(done);
            vec![ServerMessage::Response {
                content: reply.response,
                input_tokens: reply.input_tokens,
                output_tokens: reply.output_tokens,
                iterations: reply.iterations,
                cost_usd: reply.cost_usd,
                node: reply.node,
                audit: reply.audit,
            }]
        }
        Ok(TurnEvent::Failed(error)) => vec![failed(error.into())],
        Err(error) => vec![failed(error)],
    }
}

fn typing(state: Typing, tool: Option<String>) -> ServerMessage {
    ServerMessage::Typing { state, tool }
}

fn failed(error: ApiError) -> ServerMessage {
    let body = error.into_body();
    ServerMessage::Error {
        content: body.error.clone(),
        code: body.code,
        details: Box::new(body),
    }
}

/// A JSON object is a message of the protocol; anything else is text for the agent.
fn read(text: &str) -> Result<ClientMessage, ApiError> {
    if !text.trim_start().starts_with('{') {
        return Ok(ClientMessage::Message {
            content: text.to_owned(),
        });
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Err(_not_json) => Ok(ClientMessage::Message {
            content: text.to_owned(),
        }),
        Ok(_json) => serde_json::from_str(text).map_err(|error| {
            ApiError::new(
                ErrorCode::InvalidBody,
                format!("This message is not understood: {error}."),
            )
        }),
    }
}

async fn send(socket: &mut WebSocket, message: &ServerMessage) -> Result<(), End> {
    let text = serde_json::to_string(message).map_err(|error| {
        tracing::error!(%error, "a message is not JSON");
        End::Close(close_code::ERROR, "internal error")
    })?;
    let sent = socket.send(Message::Text(text.into()));
    match tokio::time::timeout(SEND_TIMEOUT, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_broken)) => Err(End::Gone),
        Err(_slow) => Err(End::Gone),
    }
}

/// The messages of the last minute.
#[derive(Debug, Default)]
struct Allowance {
    taken: VecDeque<Instant>,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> Result<(), ApiError> {
        while self.taken.front().is_some_and(|at| *at + WINDOW <= now) {
            self.taken.pop_front();
        }
        let most = usize::try_from(ws::MESSAGES_PER_WINDOW).unwrap_or(usize::MAX);
        match self.taken.front() {
            Some(oldest) if self.taken.len() >= most => Err(ApiError::new(
                ErrorCode::RateLimited,
                format!(
                    "A connection takes {most} messages in {} seconds.",
                    ws::WINDOW_SECS
                ),
            )
            .retry_after(*oldest + WINDOW - now)),
            Some(_) | None => {
                self.taken.push_back(now);
                Ok(())
            }
        }
    }
}
