//! A node without a process, and requests to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openfang_api::{
    AuthConfig, JoinStore, KeepError, LogFiles, Membership, NodeInfo, State, router,
};
use openfang_audit::collect::Collector;
use openfang_audit::feed::Mirroring;
use openfang_audit::guard::{Guard, Known};
use openfang_audit::inquiry::Signing;
use openfang_audit::policy::Strength;
use openfang_audit::vault::{Revealed, Vault};
use openfang_audit::{Clock, Field, Hash, Line, Log, Options};
use openfang_id::{ApiKey, Keys, NodeId, NodeSeed, SharedSecret, Transport};
use openfang_kernel::ports::Alone;
use openfang_kernel::{
    Auditor, Config, Demands, Durability, Kernel, Limits, ModelConfig, ModelKeys,
};
use openfang_mesh::{CannotProve, Epoch, Host, Listen, Mesh, MeshEvent, call};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub(crate) const KEY: &str = "ofk-test-0123456789abcdef-0123456789";
pub(crate) const OWN: &str = "127.0.0.1:4200";
/// The other end of a socket on this machine, and of one from elsewhere.
pub(crate) const HERE: &str = "127.0.0.1:50000";
pub(crate) const ELSEWHERE: &str = "203.0.113.9:50000";

/// How a node is set up.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) key: bool,
    pub(crate) require_local: bool,
    pub(crate) audit: bool,
    /// Whether the mesh may listen, on loopback and ports of the system's choice.
    pub(crate) listen: bool,
    /// Whether the mesh has a secret, and is awake.
    pub(crate) awake: bool,
    pub(crate) network: bool,
    /// Whether changes have four witnesses, none of which answers.
    pub(crate) unwitnessed: bool,
    pub(crate) signing: fn() -> Signing,
    pub(crate) seed: u8,
}

pub(crate) const KEYED: Setup = Setup {
    key: true,
    require_local: false,
    audit: true,
    listen: false,
    awake: false,
    network: true,
    unwitnessed: false,
    signing: || Signing::Free,
    seed: 1,
};
pub(crate) const KEYLESS: Setup = Setup {
    key: false,
    ..KEYED
};

/// A node. Dropping it ends it.
pub(crate) struct Node {
    pub(crate) router: Router,
    pub(crate) mesh: Mesh,
    pub(crate) log: Option<Log>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) kept: Arc<Kept>,
    pub(crate) id: NodeId,
    pub(crate) log_path: std::path::PathBuf,
    owners: Option<(openfang_kernel::Owner, openfang_mesh::Owner)>,
    _dir: TempDir,
}

/// Counts on from a fixed moment, so that nothing depends on the day.
struct Counter(AtomicU64);

impl Clock for Counter {
    fn unix_micros(&self) -> u64 {
        1_800_000_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn monotonic_micros(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What joins stored.
#[derive(Default)]
pub(crate) struct Kept(pub(crate) Mutex<Vec<Membership>>);

impl JoinStore for Kept {
    fn check(&self, _membership: &Membership) -> Result<(), KeepError> {
        Ok(())
    }

    fn keep(&self, membership: &Membership) -> Result<(), KeepError> {
        self.0
            .lock()
            .expect("not poisoned")
            .push(membership.clone());
        Ok(())
    }
}

/// A host that runs no calls: these tests send none over the mesh.
struct NoHost;

impl Host for NoHost {
    fn call(
        &self,
        _from: NodeId,
        _request: call::Request,
        _cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<BoxStream<'static, call::Frame>, call::Failure>> {
        Box::pin(std::future::ready(Err(call::Failure::ShuttingDown)))
    }

    fn prove(&self, _from: u64, _to: u64) -> BoxFuture<'static, Result<Vec<Hash>, CannotProve>> {
        Box::pin(std::future::ready(Err(CannotProve::Range)))
    }

    fn on_event(&self, _event: MeshEvent) {}
}

pub(crate) async fn start(setup: Setup) -> Node {
    let dir = tempfile::tempdir().expect("a folder");
    let seed = NodeSeed::from_bytes([setup.seed; 32]);
    let keys = seed.keys();
    let name = format!("node-{}", setup.seed).parse().expect("a name");
    let id = keys.node_id();
    let log_key = keys.log.verifying_key();
    let log_path = dir.path().join("audit.jsonl");
    let log = setup.audit.then(|| open_log(&dir, &seed, setup));
    let auditor = auditor(&log, setup);
    let (kernel, kernel_owner) = Kernel::open(
        kernel_config(&dir),
        auditor.clone(),
        Arc::new(Alone::new(id, name)),
    )
    .await
    .expect("a kernel");
    let (mesh, mesh_owner) = Mesh::start(mesh_config(&dir, keys, setup), Arc::new(NoHost))
        .await
        .expect("a mesh");
    let kept = Arc::new(Kept::default());
    let shutdown = CancellationToken::new();
    let state = State {
        kernel,
        mesh: mesh.clone(),
        audit: log.clone(),
        auditor,
        witnessing: tokio::sync::watch::channel(Collector::new().status()).1,
        signing: tokio::sync::watch::channel((setup.signing)()).1,
        mirroring: tokio::sync::watch::channel(Mirroring::none()).1,
        witness: None,
        evidence: dir.path().join("audit.d/evidence"),
        log_files: LogFiles {
            log_path: log_path.clone(),
            dir: dir.path().join("audit.d"),
            key: log_key,
        },
        auth: AuthConfig {
            key: setup.key.then(|| ApiKey::parse(KEY).expect("a key")),
            require_local: setup.require_local,
            listen: OWN.parse().expect("an address"),
        },
        info: info(&dir, id, setup),
        shutdown: shutdown.clone(),
        persist: Arc::clone(&kept) as Arc<dyn JoinStore>,
    };
    Node {
        router: router(state),
        mesh,
        log,
        shutdown,
        kept,
        id,
        log_path,
        owners: Some((kernel_owner, mesh_owner)),
        _dir: dir,
    }
}

fn auditor(log: &Option<Log>, setup: Setup) -> Auditor {
    let Some(log) = log.clone() else {
        return Auditor::disabled();
    };
    let mut witnessing = Collector::new().status();
    if setup.unwitnessed {
        witnessing.needed = 3;
        witnessing.strength = Strength::of(3, 4);
    }
    let demands = Demands {
        ordinary: Durability::Durable,
        changes: Durability::Quorum,
        witnessing: tokio::sync::watch::channel(witnessing).1,
        signing: tokio::sync::watch::channel((setup.signing)()).1,
    };
    Auditor::with(log, demands)
}

fn open_log(dir: &TempDir, seed: &NodeSeed, setup: Setup) -> Log {
    let keys = seed.keys();
    let guard = |folder: &std::path::Path| {
        let vault = Vault::open(&folder.join("vault"), &seed.vault_key(), [7; 32].into())?;
        Ok(Guard::new(
            Known::default().with([KEY.as_bytes()]),
            Some(vault),
        ))
    };
    let options = Options {
        log_path: dir.path().join("audit.jsonl"),
        dir: dir.path().join("audit.d"),
        node: keys.node_id(),
        key: keys.log.clone(),
        boot: 1,
        epoch: 0,
        held: (setup.signing)() != Signing::Free,
    };
    let clock = Arc::new(Counter(AtomicU64::new(0)));
    Log::open_guarded(options, clock, guard).expect("a log").0
}

fn kernel_config(dir: &TempDir) -> Config {
    Config {
        data_dir: dir.path().join("data"),
        agents_dir: dir.path().join("agents"),
        default_model: ModelConfig {
            provider: "openai".to_owned(),
            model: "test-model".to_owned(),
            api_key: None,
            base_url: None,
        },
        model_keys: ModelKeys::default(),
        limits: Limits::default(),
    }
}

fn mesh_config(dir: &TempDir, keys: Keys, setup: Setup) -> openfang_mesh::Config {
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let listen = [Transport::Tcp, Transport::Quic].map(|transport| Listen {
        transport,
        addr: loopback,
    });
    openfang_mesh::Config {
        evidence: Vec::new(),
        keys,
        name: format!("node-{}", setup.seed).parse().expect("a name"),
        version: "0.0.0-test".to_owned(),
        listen: if setup.listen {
            listen.to_vec()
        } else {
            Vec::new()
        },
        bootstrap: Vec::new(),
        secret: setup
            .awake
            .then(|| (Epoch(1), SharedSecret::from_random(&[9; 32]))),
        log_epoch: setup.audit.then_some(0),
        cosigners: openfang_mesh::Cosigners::default(),
        state_dir: dir.path().join("mesh"),
        limits: openfang_mesh::Limits::default(),
    }
}

fn info(dir: &TempDir, id: NodeId, setup: Setup) -> NodeInfo {
    NodeInfo {
        version: "0.0.0-test".to_owned(),
        build_date: None,
        git_sha: None,
        rust_version: None,
        node_id: id,
        node_name: format!("node-{}", setup.seed).parse().expect("a name"),
        started_unix_micros: 1_800_000_000_000_000,
        network_enabled: setup.network,
        home: dir.path().to_owned(),
        log_level: "info".to_owned(),
        default_provider: Some("openai".to_owned()),
        default_model: Some("test-model".to_owned()),
    }
}

impl Node {
    pub(crate) fn request(&self, method: Method, path: &str) -> Ask<'_> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", OWN);
        Ask {
            node: self,
            request,
            peer: HERE,
            body: Body::empty(),
        }
    }

    /// A GET of a program on this machine.
    pub(crate) fn get(&self, path: &str) -> Ask<'_> {
        self.request(Method::GET, path)
    }

    /// A POST of JSON by a program on this machine.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Ask<'_> {
        self.request(Method::POST, path)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    pub(crate) fn delete(&self, path: &str) -> Ask<'_> {
        self.request(Method::DELETE, path)
    }

    /// Spawns an agent that answers without a model, and returns its id.
    pub(crate) async fn echo(&self, name: &str) -> String {
        let toml = format!("name = \"{name}\"\nmodule = \"builtin:echo\"\n");
        let answer = self
            .post("/api/agents", &json!({"manifest_toml": toml}))
            .header("authorization", &format!("Bearer {KEY}"))
            .send()
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        answer.json()["agent_id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    /// Opens the one personal value that each line commits to.
    pub(crate) fn revealed(&self, lines: &[Line]) -> Vec<String> {
        let log = self.log.as_ref().expect("a log");
        let revealed = log.reveal(lines).expect("readable");
        let one = |values: Vec<(Field, Revealed)>| match &values[..] {
            [(Field::Target, Revealed::Value(value))] => value.clone(),
            other => panic!("{other:?}"),
        };
        revealed.into_iter().map(one).collect()
    }

    /// Returns the entries of one kind.
    pub(crate) fn logged(&self, kind: &str) -> Vec<Line> {
        let log = self.log.as_ref().expect("a log");
        let all = log.recent(1000).expect("readable");
        all.into_iter().filter(|line| line.ev == kind).collect()
    }

    /// Waits until an entry is written that nobody waits for.
    pub(crate) async fn settle_log(&self) {
        let log = self.log.as_ref().expect("a log");
        let auditor = Auditor::new(log.clone());
        let event = openfang_audit::Event::config_change("settle");
        auditor.record(event).await.expect("durable");
    }

    /// Waits until every entry is covered by a signed head.
    pub(crate) async fn signed(&self) {
        let log = self.log.as_ref().expect("a log");
        let (sender, mut heads) = tokio::sync::watch::channel(0);
        log.on_head(Box::new(move |head| {
            sender.send_replace(head.checkpoint.size);
        }));
        let now = log.head().map_or(0, |head| head.checkpoint.size);
        if now < log.size() {
            let covered = heads.wait_for(|size| *size >= log.size()).await;
            covered.expect("the log is open");
        }
    }

    /// Ends the agents: turns have so long to end, then they are cut.
    pub(crate) async fn end_turns(&mut self, grace: Duration) {
        if let Some((kernel, _mesh)) = self.owners.take() {
            kernel.shutdown(grace).await;
        }
    }

    /// Ends the node in order.
    pub(crate) async fn stop(mut self) {
        if let Some((kernel, mesh)) = self.owners.take() {
            mesh.shutdown(Duration::from_secs(1)).await;
            kernel.shutdown(Duration::from_secs(1)).await;
        }
    }
}

/// A request in the making.
pub(crate) struct Ask<'a> {
    node: &'a Node,
    request: axum::http::request::Builder,
    peer: &'a str,
    body: Body,
}

impl<'a> Ask<'a> {
    pub(crate) fn from(mut self, peer: &'a str) -> Self {
        self.peer = peer;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Replaces the `Host`.
    pub(crate) fn host(mut self, host: &str) -> Self {
        let headers = self.request.headers_mut().expect("a sound request");
        headers.insert("host", host.parse().expect("a header"));
        self
    }

    pub(crate) fn key(self) -> Self {
        self.header("authorization", &format!("Bearer {KEY}"))
    }

    pub(crate) fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn version(mut self, version: axum::http::Version) -> Self {
        self.request = self.request.version(version);
        self
    }

    pub(crate) async fn send(self) -> Answer {
        let response = self.send_open().await;
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX)
            .await
            .expect("a whole body");
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes,
        }
    }

    /// Leaves the body unread.
    pub(crate) async fn send_open(self) -> axum::response::Response {
        let mut request = self.request.body(self.body).expect("a sound request");
        let peer: SocketAddr = self.peer.parse().expect("an address");
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = self.node.router.clone();
        router.oneshot(request).await.expect("infallible")
    }
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Checks that this is an error of this status and code, in JSON.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert!(body["error"].as_str().is_some_and(|text| text.len() > 8));
        body
    }

    #[track_caller]
    pub(crate) fn is_ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        self.json()
    }
}
