//! Nodes on real sockets of this machine, and a host whose agents do what the message says.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a module of the tests, each of which uses another part of it"
)]

pub mod knock;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openfang_audit::Hash;
use openfang_id::{
    AgentId, AgentKey, AgentName, NetAddr, NodeId, NodeSeed, PeerAddr, SharedSecret, Transport,
};
use openfang_mesh::{
    Answer, Config, Host, Joining, Limits, Listen, Mesh, MeshEvent, Owner, Question, StartError,
    Status,
};
use openfang_ofp::call::{CallId, Chunk, End, Failure, Frame, Request};
use openfang_ofp::gate::Epoch;
use openfang_ofp::heads::CannotProve;
use openfang_ofp::roster::{AgentAd, AgentState, Ed25519, Event, Known, Liveness};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up: a busy machine is not a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a proof of the test host's log is.
pub type Prover = Box<dyn Fn(u64, u64) -> Result<Vec<Hash>, CannotProve> + Send + Sync>;

/// A host without agents of its own: the message says what to do.
pub struct TestHost {
    pub events: Mutex<Vec<MeshEvent>>,
    /// How often each call was run.
    pub runs: Mutex<BTreeMap<CallId, u32>>,
    pub cancelled: watch::Sender<u32>,
    /// Lets a `step:` call go on by one chunk.
    pub steps: Arc<Semaphore>,
    pub prover: Mutex<Option<Prover>>,
    /// The paths that peers asked for.
    pub questions: Mutex<Vec<String>>,
    /// Holds back a join until it fires.
    pub readiness: Mutex<Option<oneshot::Receiver<()>>>,
    /// One for each join that is under way, and one here.
    under_way: Arc<()>,
    /// Holds back answers while it has no permit.
    pub answers: Arc<Semaphore>,
}

impl TestHost {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            events: Mutex::default(),
            runs: Mutex::default(),
            cancelled: watch::channel(0).0,
            steps: Arc::new(Semaphore::new(0)),
            prover: Mutex::default(),
            questions: Mutex::default(),
            readiness: Mutex::default(),
            under_way: Arc::default(),
            answers: Arc::new(Semaphore::new(1_000)),
        })
    }

    /// How many joins are under way.
    pub fn joins(&self) -> usize {
        Arc::strong_count(&self.under_way) - 1
    }

    pub fn any_event(&self, wanted: impl Fn(&MeshEvent) -> bool) -> bool {
        lock(&self.events).iter().any(wanted)
    }

    pub fn any_roster_event(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.any_event(|event| matches!(event, MeshEvent::Roster(event) if wanted(event)))
    }

    pub fn runs_of(&self, id: CallId) -> u32 {
        lock(&self.runs).get(&id).copied().unwrap_or(0)
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host for TestHost {
    fn call(
        &self,
        _from: NodeId,
        request: Request,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Frame>, Failure>> {
        *lock(&self.runs).entry(request.id).or_default() += 1;
        if let AgentKey::Name(name) = &request.agent
            && name.as_str() == "nobody"
        {
            let looked_for = name.to_string();
            return Box::pin(async { Err(Failure::UnknownAgent { looked_for }) });
        }
        let cancelled = self.cancelled.clone();
        let steps = Arc::clone(&self.steps);
        Box::pin(async move {
            let (verb, rest) = request
                .message
                .split_once(':')
                .unwrap_or((request.message.as_str(), ""));
            let text = |text: String| Frame::Chunk(Chunk::Text(text));
            let frames: BoxStream<'static, Frame> = match verb {
                "chunks" => {
                    let count: u32 = rest.parse().expect("a number of chunks");
                    let chunks = (0..count).map(move |n| text(n.to_string()));
                    futures::stream::iter(chunks.chain([end("done")])).boxed()
                }
                "step" => {
                    let count: u32 = rest.parse().expect("a number of chunks");
                    futures::stream::iter(0..count)
                        .then(move |n| {
                            let steps = Arc::clone(&steps);
                            async move {
                                let step = steps.acquire_owned().await.expect("never closed");
                                step.forget();
                                Frame::Chunk(Chunk::Text(n.to_string()))
                            }
                        })
                        .chain(futures::stream::iter([end("done")]))
                        .boxed()
                }
                "hang" => futures::stream::once(async move {
                    let _ended = Ended(cancelled);
                    cancel.cancelled().await;
                    Frame::Failure(Failure::Cancelled)
                })
                .boxed(),
                "panic" => futures::stream::once(async { panic!("as the test asked") }).boxed(),
                "big" => {
                    let bytes: usize = rest.parse().expect("a number of bytes");
                    let frames = [text("x".repeat(bytes)), end("done")];
                    futures::stream::iter(frames).boxed()
                }
                _echo => {
                    let answer = end(&request.message);
                    futures::stream::iter([answer]).boxed()
                }
            };
            Ok(frames)
        })
    }

    fn answer(&self, from: NodeId, question: Question) -> BoxFuture<'static, Answer> {
        let mut body = format!(
            "{} {:?} {} ",
            from.fmt_short(),
            question.verb,
            question.path
        )
        .into_bytes();
        body.extend_from_slice(&question.body);
        lock(&self.questions).push(question.path);
        let answers = Arc::clone(&self.answers);
        Box::pin(async move {
            answers.acquire().await.expect("never closed").forget();
            Answer {
                status: 200,
                content_type: "text/plain".to_owned(),
                body,
            }
        })
    }

    fn prove(&self, from: u64, to: u64) -> BoxFuture<'static, Result<Vec<Hash>, CannotProve>> {
        let answer = match &*lock(&self.prover) {
            Some(prover) => prover(from, to),
            None => Err(CannotProve::Later),
        };
        Box::pin(async move { answer })
    }

    fn joining(&self) -> BoxFuture<'static, Joining> {
        let joining = Joining::new(Arc::clone(&self.under_way));
        let readiness = lock(&self.readiness).take();
        Box::pin(async move {
            if let Some(readiness) = readiness {
                readiness.await.expect("it becomes ready");
            }
            joining
        })
    }

    fn on_event(&self, event: MeshEvent) {
        lock(&self.events).push(event);
    }
}

/// Counts a run that is over, whether it was told or dropped.
struct Ended(watch::Sender<u32>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count += 1);
    }
}

pub fn end(response: &str) -> Frame {
    Frame::End(End {
        agent: AgentId::from_bytes([7; 16]),
        agent_name: name("echo"),
        response: Some(response.to_owned()),
        input_tokens: 0,
        output_tokens: 0,
        iterations: 1,
        cause: None,
        hlc: 0,
    })
}

pub fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

pub fn secret(n: u8) -> SharedSecret {
    SharedSecret::from_random(&[n; 32])
}

/// A node, and what it is made of, so that it can be made again.
pub struct Node {
    pub mesh: Mesh,
    pub owner: Option<Owner>,
    pub host: Arc<TestHost>,
    pub plan: Plan,
}

/// What a node is made of.
#[derive(Clone)]
pub struct Plan {
    pub seed: u8,
    pub listen: Vec<Listen>,
    pub bootstrap: Vec<PeerAddr>,
    pub secret: Option<SharedSecret>,
    pub limits: Limits,
    pub log_epoch: Option<u32>,
    pub dir: Arc<tempfile::TempDir>,
}

pub fn tcp(addr: &str) -> Listen {
    Listen {
        transport: Transport::Tcp,
        addr: addr.parse().expect("a socket address"),
    }
}

pub fn quic(addr: &str) -> Listen {
    Listen {
        transport: Transport::Quic,
        ..tcp(addr)
    }
}

impl Plan {
    /// A node on loopback with both transports and secret 1.
    pub fn new(seed: u8) -> Self {
        Self {
            seed,
            listen: vec![tcp("127.0.0.1:0"), quic("127.0.0.1:0")],
            bootstrap: Vec::new(),
            secret: Some(secret(1)),
            limits: Limits::default(),
            log_epoch: None,
            dir: Arc::new(tempfile::tempdir().expect("a folder")),
        }
    }

    pub fn listen(self, listen: &[Listen]) -> Self {
        Self {
            listen: listen.to_vec(),
            ..self
        }
    }

    pub fn bootstrap(self, bootstrap: Vec<PeerAddr>) -> Self {
        Self { bootstrap, ..self }
    }

    pub fn secret(self, secret: Option<SharedSecret>) -> Self {
        Self { secret, ..self }
    }

    pub fn keys(&self) -> openfang_id::Keys {
        NodeSeed::from_bytes([self.seed; 32]).keys()
    }

    pub fn config(&self) -> Config {
        Config {
            keys: self.keys(),
            name: format!("node-{}", self.seed).parse().expect("a name"),
            version: "0.1.0".to_owned(),
            listen: self.listen.clone(),
            bootstrap: self.bootstrap.clone(),
            secret: self.secret.clone().map(|secret| (Epoch(1), secret)),
            log_epoch: self.log_epoch,
            cosigners: openfang_ofp::roster::Cosigners::default(),
            evidence: Vec::new(),
            state_dir: PathBuf::from(self.dir.path()),
            limits: self.limits.clone(),
        }
    }

    pub async fn try_start(self) -> Result<Node, StartError> {
        let host = TestHost::new();
        let (mesh, owner) = Mesh::start(self.config(), host.clone()).await?;
        Ok(Node {
            mesh,
            owner: Some(owner),
            host,
            plan: self,
        })
    }

    pub async fn start(self) -> Node {
        self.try_start().await.expect("the node starts")
    }
}

impl Node {
    pub fn id(&self) -> NodeId {
        self.mesh.node_id()
    }

    /// The addresses of one transport.
    pub fn addrs(&self, transport: Transport) -> Vec<NetAddr> {
        match self.mesh.status() {
            Status::Awake { listen, .. } => listen
                .into_iter()
                .filter(|addr| addr.transport == transport)
                .collect(),
            Status::Asleep => Vec::new(),
        }
    }

    pub fn addr(&self, transport: Transport) -> NetAddr {
        self.addrs(transport).pop().expect("it listens")
    }

    pub fn socket(&self, transport: Transport) -> SocketAddr {
        let addr = self.addr(transport);
        match addr.host {
            openfang_id::Host::Ip(ip) => SocketAddr::new(ip, addr.port),
            openfang_id::Host::Name(name) => panic!("{name} is no socket address"),
        }
    }

    /// The address for others, without saying who is there.
    pub fn anonymous(&self, transport: Transport) -> PeerAddr {
        PeerAddr {
            addr: self.addr(transport),
            node: None,
        }
    }

    pub fn pinned(&self, transport: Transport) -> PeerAddr {
        PeerAddr {
            addr: self.addr(transport),
            node: Some(self.id()),
        }
    }

    pub fn liveness(&self, of: NodeId) -> Option<Liveness> {
        self.mesh.view().node(&of).map(|node| node.liveness)
    }

    pub fn transport_to(&self, of: NodeId) -> Option<Transport> {
        let view = self.mesh.view();
        Some(view.node(&of)?.link.as_ref()?.transport)
    }

    pub fn is_linked(&self, to: NodeId) -> bool {
        self.transport_to(to).is_some()
    }

    pub fn agents_of(&self, node: NodeId) -> Vec<String> {
        let view = self.mesh.view();
        let agents = view.node(&node).map(|node| &node.record.record().agents);
        agents
            .into_iter()
            .flatten()
            .map(|agent| agent.name.to_string())
            .collect()
    }

    /// Ends as a crash does: nothing is said, everything stops.
    pub fn kill(mut self) -> Plan {
        drop(self.owner.take());
        self.plan.clone()
    }

    pub async fn shutdown(mut self) -> Plan {
        if let Some(owner) = self.owner.take() {
            owner.shutdown(Duration::from_secs(5)).await;
        }
        self.plan.clone()
    }
}

/// Whether a node's folder holds the record of this incarnation of another.
pub fn remembers(plan: &Plan, node: NodeId, incarnation: u64) -> bool {
    let Ok(bytes) = std::fs::read(plan.dir.path().join("roster")) else {
        return false;
    };
    let known = Known::decode(&bytes, &Ed25519(plan.keys().identity)).expect("a stored roster");
    let wanted = |record: &Arc<openfang_ofp::roster::SignedRecord>| {
        record.record().origin == node && record.version().incarnation == incarnation
    };
    known.records.iter().any(wanted)
}

pub fn agent(seed: u8, text: &str) -> AgentAd {
    AgentAd {
        id: AgentId::from_bytes([seed; 16]),
        name: name(text),
        description: "an agent of a test".to_owned(),
        tags: vec!["test".to_owned()],
        tools: Vec::new(),
        state: AgentState::Running,
        module: "builtin:echo".to_owned(),
    }
}

pub fn request(seed: u8, message: &str) -> Request {
    Request {
        id: CallId([seed; 16]),
        agent: AgentKey::Name(name("echo")),
        message: message.to_owned(),
        principal: "cli".to_owned(),
        path: Vec::new(),
        deadline_ms: 60_000,
        resume_from: 0,
        hlc: 0,
        cause: None,
        labels: Vec::new(),
        trace: None,
        session: None,
        sender: None,
    }
}

/// Looks until it holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let looked = async {
        while !holds() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, looked).await;
    assert!(held.is_ok(), "never: {what}");
}

/// Starts two nodes, the second of which is told of the first, over one transport.
pub async fn pair(transport: Transport) -> (Node, Node) {
    let listen = match transport {
        Transport::Tcp => tcp("127.0.0.1:0"),
        Transport::Quic => quic("127.0.0.1:0"),
    };
    let a = Plan::new(1).listen(&[listen]).start().await;
    let bootstrap = vec![a.anonymous(transport)];
    let b = Plan::new(2)
        .listen(&[listen])
        .bootstrap(bootstrap)
        .start()
        .await;
    eventually("both see the other alive", || {
        a.liveness(b.id()) == Some(Liveness::Alive)
            && b.liveness(a.id()) == Some(Liveness::Alive)
            && a.is_linked(b.id())
            && b.is_linked(a.id())
    })
    .await;
    (a, b)
}

/// The texts of the chunks and how it ended.
pub async fn collect(
    mut reply: openfang_mesh::Reply,
) -> (Vec<String>, Result<String, openfang_mesh::CallError>) {
    let mut chunks = Vec::new();
    loop {
        match reply.next().await {
            Some(Ok(Frame::Chunk(Chunk::Text(text)))) => chunks.push(text),
            Some(Ok(Frame::End(end))) => {
                return (chunks, Ok(end.response.unwrap_or_default()));
            }
            Some(Err(why)) => return (chunks, Err(why)),
            other => panic!("not a reply: {other:?}"),
        }
    }
}
