//! A scripted model server.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use axum::routing::post;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// What a scripted server answers.
#[derive(Clone)]
pub(crate) enum Reply {
    /// A status, headers and a body.
    Status(u16, Vec<(&'static str, &'static str)>, String),
    /// A stream in these pieces.
    Stream(Vec<Vec<u8>>),
    /// A stream that breaks off after these pieces, when a permit is given: what was not flushed before
    /// the break never leaves.
    Broken(Vec<Vec<u8>>),
    /// A stream that stays open after these pieces.
    Silent(Vec<Vec<u8>>),
    /// Nothing, until a permit is given; then the text.
    Gated(&'static str),
}

type Script = Box<dyn Fn(usize, &Value) -> Reply + Send + Sync>;

/// An OpenAI-compatible server that does as a script says.
pub(crate) struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// One message for each request, when it has arrived.
    pub(crate) arrived: mpsc::Receiver<()>,
    /// One message for each answer whose reader went away or that was read to its end.
    pub(crate) ended: mpsc::Receiver<()>,
    _server: JoinSet<()>,
}

struct Shared {
    script: Script,
    requests: Mutex<Vec<(HeaderMap, Value)>>,
    gate: Semaphore,
    arrived: mpsc::Sender<()>,
    ended: mpsc::Sender<()>,
}

struct Guard(mpsc::Sender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.try_send(()).expect("room for all answers of a test");
    }
}

impl Fake {
    /// Answers request number N (from 0), or its body, as the script says.
    pub(crate) async fn script(
        script: impl Fn(usize, &Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let (arrived_to, arrived) = mpsc::channel(1000);
        let (ended_to, ended) = mpsc::channel(1000);
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: Mutex::default(),
            gate: Semaphore::new(0),
            arrived: arrived_to,
            ended: ended_to,
        });
        let app = Router::new()
            .route("/v1/chat/completions", post(respond))
            .with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Self {
            address,
            shared,
            arrived,
            ended,
            _server: server,
        }
    }

    /// Gives these answers one after the other, the last one for ever.
    pub(crate) async fn replies(replies: impl IntoIterator<Item = Reply>) -> Self {
        let queue: Mutex<VecDeque<Reply>> = Mutex::new(replies.into_iter().collect());
        Self::script(move |_, _| {
            let mut queue = queue.lock().expect("no panic");
            if queue.len() > 1 {
                queue.pop_front()
            } else {
                queue.front().cloned()
            }
            .expect("an answer")
        })
        .await
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Value> {
        let requests = self.shared.requests.lock().expect("no panic");
        requests.iter().map(|(_, body)| body.clone()).collect()
    }

    pub(crate) fn headers(&self, at: usize) -> HeaderMap {
        self.shared.requests.lock().expect("no panic")[at].0.clone()
    }

    /// Lets gated answers out.
    pub(crate) fn open_gate(&self, answers: usize) {
        self.shared.gate.add_permits(answers);
    }
}

async fn respond(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let body: Value = serde_json::from_slice(&body).expect("a request is JSON");
    let reply = {
        let mut requests = shared.requests.lock().expect("no panic");
        requests.push((headers, body.clone()));
        (shared.script)(requests.len() - 1, &body)
    };
    shared
        .arrived
        .try_send(())
        .expect("room for all requests of a test");
    let guard = Guard(shared.ended.clone());
    let stream = |pieces: Vec<Vec<u8>>| {
        let pieces = futures::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
        let stream = pieces.map(move |piece| {
            let _held = &guard;
            piece
        });
        Response::builder()
            .header("content-type", "text/event-stream; charset=utf-8")
            .body(stream)
    };
    match reply {
        Reply::Status(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).expect("a response")
        }
        Reply::Stream(pieces) => stream(pieces).expect("a response").map(Body::from_stream),
        Reply::Broken(pieces) => {
            let cut = futures::stream::once(async move {
                shared.gate.acquire().await.expect("open").forget();
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
            });
            stream(pieces)
                .expect("a response")
                .map(|stream| Body::from_stream(stream.chain(cut)))
        }
        Reply::Silent(pieces) => stream(pieces)
            .expect("a response")
            .map(|stream| Body::from_stream(stream.chain(futures::stream::pending()))),
        Reply::Gated(text) => {
            shared.gate.acquire().await.expect("open").forget();
            stream(says(text))
                .expect("a response")
                .map(Body::from_stream)
        }
    }
}

fn event(body: &Value) -> Vec<u8> {
    format!("data: {body}\n\n").into_bytes()
}

/// A stream that says this text, word by word.
pub(crate) fn says(text: &str) -> Vec<Vec<u8>> {
    let mut pieces: Vec<Vec<u8>> = text
        .split_inclusive(' ')
        .map(|word| event(&json!({ "choices": [{ "delta": { "content": word } }] })))
        .collect();
    pieces.push(event(
        &json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] }),
    ));
    pieces.push(event(
        &json!({ "choices": [], "usage": { "prompt_tokens": 5, "completion_tokens": 2 } }),
    ));
    pieces.push(b"data: [DONE]\n\n".to_vec());
    pieces
}

/// A stream that calls this tool.
pub(crate) fn calls(tool: &str, arguments: &Value) -> Vec<Vec<u8>> {
    let call = json!({ "index": 0, "id": "call_1", "type": "function",
        "function": { "name": tool, "arguments": arguments.to_string() } });
    vec![
        event(
            &json!({ "choices": [{ "delta": { "tool_calls": [call] }, "finish_reason": "tool_calls" }] }),
        ),
        b"data: [DONE]\n\n".to_vec(),
    ]
}

/// The last message of a request.
pub(crate) fn last_message(request: &Value) -> &Value {
    request["messages"]
        .as_array()
        .and_then(|messages| messages.last())
        .expect("a message")
}
