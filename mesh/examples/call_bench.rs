//! Measures joins and calls between nodes of this process over loopback.
//! `cargo run --release -p openfang-mesh --example call_bench [SECONDS]`

#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openfang_audit::Hash;
use openfang_id::{
    AgentId, AgentKey, AgentName, NetAddr, NodeId, NodeSeed, PeerAddr, SharedSecret, Transport,
};
use openfang_mesh::{Config, Host, Limits, Listen, Mesh, MeshEvent, Owner, Status};
use openfang_ofp::call::{CallId, End, Failure, Frame, Request};
use openfang_ofp::gate::Epoch;
use openfang_ofp::heads::CannotProve;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct NoOp;

impl Host for NoOp {
    fn call(
        &self,
        _from: NodeId,
        request: Request,
        _cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Frame>, Failure>> {
        let agent_name: AgentName = "echo".parse().expect("a name");
        let end = Frame::End(End {
            agent: AgentId::from_bytes([7; 16]),
            agent_name,
            response: Some(request.message),
            input_tokens: 0,
            output_tokens: 0,
            iterations: 1,
            cause: None,
            hlc: 0,
        });
        Box::pin(async move { Ok(futures::stream::iter([end]).boxed()) })
    }

    fn prove(&self, _from: u64, _to: u64) -> BoxFuture<'static, Result<Vec<Hash>, CannotProve>> {
        Box::pin(async { Err(CannotProve::Later) })
    }

    fn on_event(&self, _event: MeshEvent) {}
}

fn config(seed: u8, transport: Transport, bootstrap: Vec<PeerAddr>, dir: PathBuf) -> Config {
    Config {
        evidence: Vec::new(),
        keys: NodeSeed::from_bytes([seed; 32]).keys(),
        name: format!("node-{seed}").parse().expect("a name"),
        version: "bench".to_owned(),
        listen: vec![Listen {
            transport,
            addr: "127.0.0.1:0".parse().expect("an address"),
        }],
        bootstrap,
        secret: Some((Epoch(1), SharedSecret::from_random(&[1; 32]))),
        log_epoch: None,
        cosigners: openfang_ofp::roster::Cosigners::default(),
        state_dir: dir,
        limits: Limits::default(),
    }
}

fn request(id: u64) -> Request {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.to_be_bytes());
    Request {
        id: CallId(bytes),
        agent: AgentKey::Name("echo".parse().expect("a name")),
        message: "x".repeat(256),
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

async fn pair(transport: Transport, dir: &std::path::Path) -> ((Mesh, Owner), (Mesh, Owner)) {
    let a = Mesh::start(
        config(1, transport, Vec::new(), dir.join("a")),
        Arc::new(NoOp),
    );
    let (a, a_owner) = a.await.expect("started");
    let Status::Awake { listen, .. } = a.status() else {
        panic!("asleep");
    };
    let addr: NetAddr = listen[0].clone();
    let bootstrap = vec![PeerAddr { addr, node: None }];
    let b = Mesh::start(
        config(2, transport, bootstrap, dir.join("b")),
        Arc::new(NoOp),
    );
    let (b, b_owner) = b.await.expect("started");
    let mut view = b.changed();
    let linked = view.wait_for(|view| view.node(&a.node_id()).is_some_and(|n| n.link.is_some()));
    drop(linked.await.expect("linked"));
    ((a, a_owner), (b, b_owner))
}

/// How long it takes from the question to an authenticated connection.
async fn measure_joins(transport: Transport, dir: &std::path::Path) {
    let start = |seed: u8| {
        let dir = dir.join(seed.to_string());
        Mesh::start(config(seed, transport, Vec::new(), dir), Arc::new(NoOp))
    };
    let (a, a_owner) = start(1).await.expect("started");
    let mut took = Vec::new();
    for seed in 10..30 {
        let (b, b_owner) = start(seed).await.expect("started");
        let Status::Awake { listen, .. } = b.status() else {
            panic!("asleep");
        };
        let addr = listen[0].clone();
        let at = Instant::now();
        let joined = a.join(vec![PeerAddr { addr, node: None }], None).await;
        joined.expect("joined");
        took.push(at.elapsed());
        b_owner.shutdown(Duration::from_secs(1)).await;
    }
    a_owner.shutdown(Duration::from_secs(1)).await;
    took.sort_unstable();
    println!(
        "{transport:?} connect and authenticate: p50 {:?}, longest of {} {:?}",
        took[took.len() / 2],
        took.len(),
        took[took.len() - 1]
    );
}

async fn measure(mesh: &Mesh, to: NodeId, callers: usize, time: Duration) -> (f64, [u128; 3]) {
    static ID: AtomicU64 = AtomicU64::new(0);
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _caller in 0..callers {
        let mesh = mesh.clone();
        tasks.spawn(async move {
            let mut took = Vec::with_capacity(1 << 16);
            while began.elapsed() < time {
                let at = Instant::now();
                let id = ID.fetch_add(1, Ordering::Relaxed);
                let mut reply = mesh.call(to, request(id)).await.expect("a reply");
                let end = reply.next().await.expect("an end").expect("an end");
                assert!(end.is_last());
                took.push(at.elapsed().as_nanos());
            }
            took
        });
    }
    let mut all: Vec<u128> = tasks.join_all().await.into_iter().flatten().collect();
    let rate = all.len() as f64 / began.elapsed().as_secs_f64();
    all.sort_unstable();
    let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize];
    (rate, [at(0.5), at(0.99), at(0.999)])
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(3));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for transport in [Transport::Tcp, Transport::Quic] {
            let dir = std::env::temp_dir().join(format!("call-bench-{}", std::process::id()));
            measure_joins(transport, &dir).await;
            let ((a, a_owner), (b, b_owner)) = pair(transport, &dir).await;
            for callers in [1, 8, 64, 256] {
                let (rate, [p50, p99, p999]) = measure(&b, a.node_id(), callers, time).await;
                println!(
                    "{transport:?} {callers:>4} callers {rate:>9.0} calls/s  p50 {:>7.1} us  p99 {:>8.1} us  p99.9 {:>8.1} us",
                    p50 as f64 / 1e3,
                    p99 as f64 / 1e3,
                    p999 as f64 / 1e3
                );
            }
            b_owner.shutdown(Duration::from_secs(1)).await;
            a_owner.shutdown(Duration::from_secs(1)).await;
            drop(std::fs::remove_dir_all(&dir));
        }
    });
}
