//! A call to an agent on another node that does nothing: the mesh without kernel and HTTP, beside a
//! bare libp2p echo of the same size. Once without the log, and once with the entries that the
//! kernels of both nodes write about a call.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use openfang_audit::{Hash, Log};
use openfang_id::{
    AgentId, AgentKey, AgentName, NodeId, NodeSeed, PeerAddr, SharedSecret, Transport,
};
use openfang_kernel::Auditor;
use openfang_mesh::CannotProve;
use openfang_mesh::{Config, Host, Limits, Listen, Mesh, MeshEvent, Owner, Status};
use openfang_ofp::call::{CallId, End, Failure, Frame, Request};
use openfang_ofp::gate::Epoch;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::BenchError;
use super::audit::{event, open};
use super::raw_libp2p::RawEcho;
use super::stats::{Samples, now, side_by_side};
use crate::cluster::{NotYet, until};

/// What is carried each way.
const PAYLOAD_BYTES: usize = 256;
/// How many callers share the connection in the second figure.
const CALLERS: usize = 64;
/// How many callers share the connection, and the flushes of both disks, when each call is logged.
const DURABLE_CALLERS: usize = 256;
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const DEADLINE_MS: u32 = 30_000;

/// Measures one caller and 64, over the mesh and over bare libp2p.
pub(super) async fn measure(rounds: usize) -> Result<Value, BenchError> {
    let raw_one = RawEcho::connect(1)
        .await?
        .measure(rounds * 5, PAYLOAD_BYTES)
        .await?;
    let raw_many = RawEcho::connect(CALLERS)
        .await?
        .measure(rounds, PAYLOAD_BYTES)
        .await?;
    let mut figures =
        json!({ "raw_libp2p_1": raw_one.to_json(), "raw_libp2p_64": raw_many.to_json() });
    for transport in [Transport::Tcp, Transport::Quic] {
        let pair = Pair::connect(transport, Logs::Off).await?;
        pair.measure(1, rounds).await?;
        let one = pair.measure(1, rounds * 5).await?;
        let many = pair.measure(CALLERS, rounds).await?;
        pair.shutdown().await;
        let name = if transport == Transport::Tcp {
            "tcp"
        } else {
            "quic"
        };
        figures[format!("call_{name}_1")] = one.to_json();
        figures[format!("call_{name}_64")] = many.to_json();
        if transport == Transport::Tcp {
            figures["ratio_p50_to_raw"] = json!(ratio(one.quantile(0.5), raw_one.quantile(0.5)));
            figures["ratio_rate_64_to_raw"] = json!(many.rate() / raw_many.rate());
        }
    }
    let pair = Pair::connect(Transport::Tcp, Logs::Durable).await?;
    let one = pair.measure(1, rounds / 4).await?;
    let many = pair.measure(DURABLE_CALLERS, rounds / 8).await?;
    pair.shutdown().await;
    figures["call_durable_1"] = one.to_json();
    figures["call_durable_256"] = many.to_json();
    Ok(figures)
}

/// Whether the two nodes keep logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logs {
    Off,
    /// An entry is on the disk before the message leaves, one before it is answered, and one about
    /// the end on each side.
    Durable,
}

fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64().max(f64::EPSILON)
}

/// Answers every call with its own text.
#[derive(Debug)]
struct Echo {
    agent: AgentId,
    name: AgentName,
    log: Auditor,
}

impl Host for Echo {
    fn call(
        &self,
        _from: NodeId,
        request: Request,
        _cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Frame>, Failure>> {
        let log = self.log.clone();
        let end = End {
            agent: self.agent,
            agent_name: self.name.clone(),
            response: Some(request.message),
            input_tokens: 0,
            output_tokens: 0,
            iterations: 1,
            cause: None,
            hlc: 0,
        };
        async move {
            log.record(event(0))
                .await
                .map_err(|_lost| Failure::Internal)?;
            log.note(event(1));
            Ok(futures::stream::iter([Frame::End(end)]).boxed())
        }
        .boxed()
    }

    fn prove(&self, _from: u64, _to: u64) -> BoxFuture<'static, Result<Vec<Hash>, CannotProve>> {
        futures::future::ready(Err(CannotProve::Behind { have: 0 })).boxed()
    }

    fn on_event(&self, _event: MeshEvent) {}
}

/// Two nodes of one mesh in this process, joined over a real socket.
struct Pair {
    caller: Mesh,
    callee: Mesh,
    agent: AgentId,
    log: Auditor,
    logs: Vec<Log>,
    owners: Vec<Owner>,
    _folder: tempfile::TempDir,
}

impl Pair {
    async fn connect(transport: Transport, logs: Logs) -> Result<Self, BenchError> {
        let folder = tempfile::tempdir()?;
        let (opened, [caller_log, callee_log]) = auditors(folder.path(), logs)?;
        let secret = SharedSecret::from_random(&[0x5a; 32]);
        let agent = AgentId::from_bytes([1; 16]);
        let host = |log: &Auditor| -> Result<Arc<dyn Host>, BenchError> {
            let name = "echo"
                .parse()
                .map_err(|why: openfang_id::NameError| BenchError::Wrong(why.to_string()))?;
            let log = log.clone();
            Ok(Arc::new(Echo { agent, name, log }))
        };
        let server = config(
            1,
            "callee",
            transport,
            &secret,
            &folder.path().join("callee"),
        )?;
        let (callee, callee_owner) = Mesh::start(server, host(&callee_log)?).await?;
        let mut client = config(
            2,
            "caller",
            transport,
            &secret,
            &folder.path().join("caller"),
        )?;
        client.bootstrap = addresses(&callee)
            .into_iter()
            .map(|addr| PeerAddr { addr, node: None })
            .collect();
        let (caller, caller_owner) = Mesh::start(client, host(&Auditor::disabled())?).await?;
        let target = callee.node_id();
        until("the two nodes to connect", CONNECT_LIMIT, || async {
            one_call(&caller, target, agent, 0)
                .await
                .map_err(NotYet::saw)
        })
        .await?;
        Ok(Self {
            caller,
            callee,
            agent,
            log: caller_log,
            logs: opened,
            owners: vec![callee_owner, caller_owner],
            _folder: folder,
        })
    }

    async fn measure(&self, callers: usize, each: usize) -> Result<Samples, BenchError> {
        let (callee, agent) = (self.callee.node_id(), self.agent);
        side_by_side(callers, each, |caller| {
            let (mesh, log) = (self.caller.clone(), self.log.clone());
            async move {
                let mut times = Vec::with_capacity(each);
                for round in 0..each {
                    let started = now();
                    log.record(event(round)).await?;
                    one_call(&mesh, callee, agent, (caller * each + round) as u64).await?;
                    log.note(event(round));
                    times.push(started.elapsed());
                }
                Ok(times)
            }
        })
        .await
    }

    async fn shutdown(self) {
        for owner in self.owners {
            owner.shutdown(Duration::from_secs(1)).await;
        }
        drop(self.logs);
    }
}

/// Opens the logs of the caller and of the one that is called.
fn auditors(folder: &Path, logs: Logs) -> Result<(Vec<Log>, [Auditor; 2]), BenchError> {
    if logs == Logs::Off {
        return Ok((Vec::new(), [Auditor::disabled(), Auditor::disabled()]));
    }
    let mut opened = Vec::new();
    for (name, seed) in [("caller-log", 2), ("callee-log", 1)] {
        let folder = folder.join(name);
        std::fs::create_dir(&folder)?;
        opened.push(open(&folder, &NodeSeed::from_bytes([seed; 32]).keys())?);
    }
    let auditors = [
        Auditor::new(opened[0].clone()),
        Auditor::new(opened[1].clone()),
    ];
    Ok((opened, auditors))
}

async fn one_call(mesh: &Mesh, to: NodeId, agent: AgentId, number: u64) -> Result<(), BenchError> {
    let mut reply = mesh.call(to, request(agent, number)).await?;
    while let Some(frame) = reply.next().await {
        if let Frame::End(end) = frame? {
            return match end.response {
                Some(text) if text.len() == PAYLOAD_BYTES => Ok(()),
                other => Err(BenchError::Wrong(format!(
                    "the echo came back as {other:?}"
                ))),
            };
        }
    }
    Err(BenchError::Wrong("the answer ended early".to_owned()))
}

fn request(agent: AgentId, number: u64) -> Request {
    let mut id: [u8; 16] = rand::random();
    id[..8].copy_from_slice(&number.to_be_bytes());
    Request {
        id: CallId(id),
        agent: AgentKey::Id(agent),
        message: "x".repeat(PAYLOAD_BYTES),
        principal: "bench".to_owned(),
        path: Vec::new(),
        deadline_ms: DEADLINE_MS,
        resume_from: 0,
        hlc: 0,
        cause: None,
        labels: Vec::new(),
        trace: None,
        session: None,
        sender: None,
    }
}

fn config(
    seed: u8,
    name: &str,
    transport: Transport,
    secret: &SharedSecret,
    folder: &Path,
) -> Result<Config, BenchError> {
    Ok(Config {
        evidence: Vec::new(),
        keys: NodeSeed::from_bytes([seed; 32]).keys(),
        name: name
            .parse()
            .map_err(|why: openfang_id::NameError| BenchError::Wrong(why.to_string()))?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listen: vec![Listen {
            transport,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        }],
        bootstrap: Vec::new(),
        secret: Some((Epoch(1), secret.clone())),
        log_epoch: None,
        cosigners: openfang_ofp::roster::Cosigners::default(),
        state_dir: folder.to_owned(),
        limits: Limits::default(),
    })
}

fn addresses(mesh: &Mesh) -> Vec<openfang_id::NetAddr> {
    match mesh.status() {
        Status::Awake { listen, .. } => listen,
        Status::Asleep => Vec::new(),
    }
}
