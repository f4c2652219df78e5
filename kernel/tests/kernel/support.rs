//! What the tests share: a kernel with a home, a scripted model server, neighbours in memory and an
//! audit log that can fail.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use axum::routing::post;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use openfang_audit::{Ack, AppendError, Event, Kind, Origin, Seq};
use openfang_id::{NodeId, NodeKey, NodeName, NodeSeed};
use openfang_kernel::ports::{Neighbours, NodeLookup, RemoteAgent};
use openfang_kernel::{
    AgentInfo, Auditor, Config, Delivery, Kernel, Limits, Manifest, ModelConfig, ModelKeys,
    ModelLimits, Outgoing, Owner, Principal, SendError, Sink, TurnEvent, TurnStream,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// The key the node gives to its model server.
pub(crate) const KEY: &str = "sk-canary-0123456789";

/// A node: a kernel and where it lives.
pub(crate) struct Node {
    pub(crate) home: TempDir,
    pub(crate) kernel: Kernel,
    pub(crate) owner: Owner,
    pub(crate) log: Recorder,
}

/// How a node is made.
pub(crate) struct Plan {
    pub(crate) base_url: String,
    pub(crate) limits: Limits,
    pub(crate) neighbours: Arc<dyn Neighbours>,
}

impl Plan {
    pub(crate) fn with(base_url: &str) -> Self {
        Self {
            base_url: base_url.to_owned(),
            limits: quick_limits(),
            neighbours: Wire::new().node("alpha"),
        }
    }

    pub(crate) async fn start(self) -> Node {
        let home = tempfile::tempdir().expect("a folder");
        self.start_in(home, Recorder::new()).await
    }

    pub(crate) async fn start_in(self, home: TempDir, log: Recorder) -> Node {
        let config = config(home.path(), &self.base_url, self.limits);
        let opened = Kernel::open(config, Auditor::new(log.clone()), self.neighbours).await;
        let (kernel, owner) = opened.expect("the kernel opens");
        Node {
            home,
            kernel,
            owner,
            log,
        }
    }
}

/// A node whose agents think with this server.
pub(crate) async fn node(model: &Fake) -> Node {
    Plan::with(&model.base_url()).start().await
}

pub(crate) fn quick_limits() -> Limits {
    Limits {
        model: ModelLimits {
            attempts: 3,
            backoff_base: Duration::from_millis(1),
            backoff_max: Duration::from_millis(2),
            ..ModelLimits::default()
        },
        ..Limits::default()
    }
}

fn config(home: &Path, base_url: &str, limits: Limits) -> Config {
    Config {
        data_dir: home.join("data"),
        agents_dir: home.join("agents"),
        default_model: ModelConfig {
            provider: "custom".to_owned(),
            model: "test-model".to_owned(),
            api_key: Some(KEY.to_owned().into()),
            base_url: Some(base_url.to_owned()),
        },
        model_keys: ModelKeys::default(),
        limits,
    }
}

impl Node {
    pub(crate) async fn spawn(&self, toml: &str) -> AgentInfo {
        let spawned = self
            .kernel
            .spawn(manifest(toml), &Principal::api_key())
            .await;
        spawned.expect("the agent is spawned")
    }

    pub(crate) async fn send(&self, to: &str, message: &str) -> Result<TurnStream, SendError> {
        self.kernel
            .send(to.parse().expect("a reference"), from_api(message))
            .await
    }

    /// Sends a message and returns all that came back.
    pub(crate) async fn ask(&self, to: &str, message: &str) -> Vec<TurnEvent> {
        let stream = self.send(to, message).await.expect("the message is taken");
        stream.collect().await
    }

    /// Closes the node and gives its home back.
    pub(crate) async fn stop(self) -> (TempDir, Recorder) {
        self.owner.shutdown(Duration::from_secs(30)).await;
        (self.home, self.log)
    }
}

pub(crate) fn manifest(toml: &str) -> Manifest {
    Manifest::parse(toml, "agent.toml")
        .expect("a valid manifest")
        .0
}

/// The manifest of a thinking agent with these tools.
pub(crate) fn chat(name: &str, tools: &str) -> String {
    format!("name = \"{name}\"\n[capabilities]\ntools = [{tools}]\n")
}

pub(crate) fn echo(name: &str) -> String {
    format!("name = \"{name}\"\nmodule = \"builtin:echo\"\n")
}

pub(crate) fn from_api(message: &str) -> Outgoing {
    Outgoing::new(message, Principal::api_key())
}

/// The pieces of an answer.
pub(crate) fn chunks(events: &[TurnEvent]) -> Vec<&str> {
    fn text(event: &TurnEvent) -> Option<&str> {
        match event {
            TurnEvent::Chunk { text } => Some(text),
            TurnEvent::ToolStart { .. }
            | TurnEvent::ToolEnd { .. }
            | TurnEvent::Done(_)
            | TurnEvent::Failed(_) => None,
        }
    }
    events.iter().filter_map(text).collect()
}

/// The answer of a turn that went well.
pub(crate) fn answer(events: &[TurnEvent]) -> &str {
    match events.last() {
        Some(TurnEvent::Done(done)) => &done.response,
        other => panic!("the turn should have ended well: {other:?}"),
    }
}

/// The stable word for the failure of a turn.
pub(crate) fn failure(events: &[TurnEvent]) -> String {
    match events.last() {
        Some(TurnEvent::Failed(error)) => error.code().to_owned(),
        other => panic!("the turn should have failed: {other:?}"),
    }
}

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

/// An audit log in memory, which refuses the kinds it is told to.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<RecorderInner>);

struct RecorderInner {
    origin: Origin,
    events: Mutex<Vec<Event>>,
    refused: Mutex<Vec<Kind>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let node = NodeSeed::from_bytes([9; 32]).keys().node_id();
        Self(Arc::new(RecorderInner {
            origin: Origin::of(&node, 1),
            events: Mutex::default(),
            refused: Mutex::default(),
        }))
    }

    pub(crate) fn refuse(&self, kind: Kind) {
        self.0.refused.lock().expect("no panic").push(kind);
    }

    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.0
            .events
            .lock()
            .expect("no panic")
            .iter()
            .map(Event::kind)
            .collect()
    }

    /// Everything that was written, as text.
    pub(crate) fn text(&self, kind: Kind) -> Vec<String> {
        let events = self.0.events.lock().expect("no panic");
        events
            .iter()
            .filter(|event| event.kind() == kind)
            .map(|event| format!("{event:?}"))
            .collect()
    }
}

impl Sink for Recorder {
    fn append(&self, event: Event, ack: Ack) -> Result<(), AppendError> {
        if self
            .0
            .refused
            .lock()
            .expect("no panic")
            .contains(&event.kind())
        {
            return Err(AppendError::Full);
        }
        let mut events = self.0.events.lock().expect("no panic");
        events.push(event);
        let seq = Seq(events.len() as u64 - 1);
        drop(events);
        ack(Ok(seq));
        Ok(())
    }

    fn origin(&self) -> &Origin {
        &self.0.origin
    }
}

/// Joins kernels in memory.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<Vec<Arc<Port>>>>);

/// One end of the wire.
pub(crate) struct Port {
    wire: Wire,
    id: NodeId,
    name: NodeName,
    kernel: OnceLock<Kernel>,
    reachable: Mutex<bool>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn node(&self, name: &str) -> Arc<Port> {
        let mut ports = self.0.lock().expect("no panic");
        let seed = u8::try_from(ports.len()).expect("few nodes") + 1;
        let port = Arc::new(Port {
            wire: self.clone(),
            id: NodeSeed::from_bytes([seed; 32]).keys().node_id(),
            name: name.parse().expect("a name"),
            kernel: OnceLock::new(),
            reachable: Mutex::new(true),
        });
        ports.push(Arc::clone(&port));
        port
    }

    fn others(&self, me: NodeId) -> Vec<Arc<Port>> {
        let ports = self.0.lock().expect("no panic");
        ports.iter().filter(|port| port.id != me).cloned().collect()
    }
}

impl Port {
    pub(crate) fn connect(&self, kernel: &Kernel) {
        assert!(self.kernel.set(kernel.clone()).is_ok(), "connected twice");
    }

    pub(crate) fn unplug(&self) {
        *self.reachable.lock().expect("no panic") = false;
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    fn is_reachable(&self) -> bool {
        *self.reachable.lock().expect("no panic")
    }
}

impl Neighbours for Port {
    fn directory(&self) -> Vec<RemoteAgent> {
        let remote = |port: Arc<Port>| {
            let agents = port.kernel.get().map(Kernel::list).unwrap_or_default();
            agents.into_iter().map(move |agent| RemoteAgent {
                node: port.id,
                node_name: port.name.clone(),
                reachable: port.is_reachable(),
                id: agent.id,
                name: agent.name,
                description: agent.description,
                tags: agent.tags,
                tools: agent.tools,
                state: agent.state,
                module: agent.module,
            })
        };
        self.wire
            .others(self.id)
            .into_iter()
            .flat_map(remote)
            .collect()
    }

    fn me(&self) -> (NodeId, NodeName) {
        (self.id, self.name.clone())
    }

    fn node(&self, key: &NodeKey) -> NodeLookup {
        let is_meant = |id: &NodeId, name: &NodeName| match key {
            NodeKey::Id(wanted) => wanted == id,
            NodeKey::Name(wanted) => wanted == name,
        };
        if is_meant(&self.id, &self.name) {
            return NodeLookup::Here;
        }
        let mut found = self.wire.others(self.id);
        found.retain(|port| is_meant(&port.id, &port.name));
        match found.as_slice() {
            [] => NodeLookup::Unknown,
            [port] => NodeLookup::Known {
                id: port.id,
                name: port.name.clone(),
                reachable: port.is_reachable(),
            },
            several => NodeLookup::Ambiguous(several.iter().map(|port| port.id).collect()),
        }
    }

    fn call(
        &self,
        node: NodeId,
        mut call: Delivery,
    ) -> BoxFuture<'static, Result<TurnStream, SendError>> {
        let found = self
            .wire
            .others(self.id)
            .into_iter()
            .find(|port| port.id == node);
        call.from = Some(self.id);
        Box::pin(async move {
            let unreachable = SendError::Unreachable {
                node,
                node_name: None,
            };
            match found
                .filter(|port| port.is_reachable())
                .and_then(|port| port.kernel.get().cloned())
            {
                Some(kernel) => kernel.deliver(call).await,
                None => Err(unreachable),
            }
        })
    }

    fn publish(&self, _agents: Vec<AgentInfo>) {}
}
