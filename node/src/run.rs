//! A node from start to end.
//!
//! Start: the home is locked, the configuration and the keys are read ([`prepare`]), then the audit
//! log is recovered and checked, the kernel loads the agents, the mesh starts, the API listens,
//! `daemon.json` is written. Shutdown is the same list upwards. A start that fails half-way takes
//! the same way back.

mod audit;
mod error;
mod prepared;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use openfang_audit::feed::Mirroring;
use openfang_audit::{Event, Log, Public};
use openfang_id::{NodeId, NodeName};
use openfang_kernel::ports::Neighbours;
use openfang_kernel::{Auditor, Kernel};
use openfang_mesh::{Cosigners, Host, Mesh, StartError, Status};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::clock::{self, MachineClock};
use crate::config::Config;
use crate::cosigner::RoleKey;
use crate::daemon::Daemon;
use crate::mirror::{self, Desk};
use crate::own_log::{Anew, Doubts, Found};
use crate::signal::Signals;
use crate::tasks::{TaskFailure, Tasks};
use crate::witness::{Counter, Window};
use crate::{evidence, notify, wire};

use audit::{
    Duties, Known, Shown, Signed, Windows, anew, log_start, open_audit, open_windows, signing_of,
    start_settling,
};
pub use error::RunError;
pub use prepared::{Prepared, prepare};

/// How long turns and requests may run on once the node was told to stop.
pub const GRACE: Duration = Duration::from_secs(10);
// The API outlives the turns: it tells their callers how they ended.
const _: () = assert!(GRACE.as_millis() < openfang_api::DRAIN.as_millis());
/// How long the mirrors of the audit log have for its last entries.
const LAST_COPY: Duration = Duration::from_secs(2);
/// How long the ports of the mesh may stay taken when the node starts anew, and between two looks.
const RELEASE: Duration = Duration::from_secs(5);
const RELEASE_LOOK: Duration = Duration::from_millis(20);
/// How long the farewell to the mesh may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a part has to end when its grace is over: more is a fault, and does not keep the node.
const PART_END: Duration = Duration::from_secs(3);

/// What a node that serves says of itself.
#[derive(Debug, Clone)]
pub struct Ready {
    /// How to reach it.
    pub daemon: Daemon,
    /// Who it is.
    pub node_id: NodeId,
    /// What it is called.
    pub node_name: NodeName,
    /// Whether the mesh is on, in words.
    pub network: String,
}

/// Runs a node until it is told to stop; `on_ready` is called once when it serves.
///
/// The first wish to stop lets turns finish for [`GRACE`], leaves the mesh with a farewell and
/// closes the audit log; the second ends at once.
///
/// # Errors
/// Why it did not start, which part of it failed, or that it was ended at once.
pub async fn run(
    mut prepared: Prepared,
    mut signals: Signals,
    on_ready: impl FnOnce(&Ready),
) -> Result<(), RunError> {
    for warning in &prepared.config.warnings {
        tracing::warn!("{warning}");
    }
    prepared.forget_what_is_lost()?;
    let mut on_ready = Some(on_ready);
    let ended = loop {
        let mut parts = Parts::default();
        let ended = tokio::select! {
            ended = start_and_serve(&prepared, &mut parts, &mut on_ready) => ended,
            wish = signals.next() => Ok(Ended::Wish(wish)),
        };
        let reason = match &ended {
            Ok(Ended::Wish(wish)) => (*wish).to_owned(),
            Ok(Ended::Anew(anew)) => reason_of(anew).to_owned(),
            Err(why) => first_line(&why.to_string()),
        };
        match &ended {
            Ok(Ended::Anew(_)) => tracing::warn!(reason, "starting again in this process"),
            // Whoever started it is told why.
            Err(_) if !parts.announced => tracing::debug!(reason, "not started"),
            Ok(Ended::Wish(_)) | Err(_) => tracing::info!(reason, "stopping"),
        }
        let announced = parts.announced;
        tokio::select! {
            () = parts.stop(&prepared, &reason) => {}
            _wish = signals.next() => return Err(RunError::Interrupted),
        }
        match ended {
            Ok(Ended::Anew(anew)) => prepared.begin_anew(&anew, parts.listen_addr)?,
            Ok(Ended::Wish(_)) => break Ok(()),
            Err(why) if !announced => return Err(why),
            Err(why) => break Err(why),
        }
    };
    tracing::info!("stopped");
    drop(prepared.lock);
    ended
}

/// Why a node does not run any more.
enum Ended {
    /// Someone wants it.
    Wish(&'static str),
    /// Its audit log cannot go on as it is.
    Anew(Anew),
}

/// Says why the node starts anew by itself, as the entry about its stop has it.
fn reason_of(anew: &Anew) -> &'static str {
    match anew {
        Anew::Next { .. } => "the audit log ends here: a new one begins in the next epoch",
        Anew::Follow { .. } => "the node starts again, with its audit log as its peers know it",
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// What was started, in the order in which it was.
#[derive(Default)]
struct Parts {
    log: Option<Log>,
    /// Where it is said that it may not be the newest.
    doubts: Option<Doubts>,
    auditor: Option<Auditor>,
    kernel: Option<openfang_kernel::Owner>,
    mesh: Option<openfang_mesh::Owner>,
    tasks: Option<Tasks>,
    /// Cancelled when the node shall end: by a request, or here. The API then takes no more
    /// connections and lets running requests end.
    shutdown: CancellationToken,
    announced: bool,
    /// What asks the peers about the audit log before it is signed.
    settling: JoinSet<Option<Anew>>,
    /// What was found of the audit log.
    found: Option<Found>,
    /// Whether it is signed before anybody was asked.
    released: bool,
    /// How it stands with the mirrors of the audit log.
    mirroring: Option<watch::Receiver<Mirroring>>,
    /// Where the API listens.
    listen_addr: Option<SocketAddr>,
}

/// Starts everything, then waits for the first reason to stop.
async fn start_and_serve(
    prepared: &Prepared,
    parts: &mut Parts,
    on_ready: &mut Option<impl FnOnce(&Ready)>,
) -> Result<Ended, RunError> {
    let ready = start(prepared, parts).await?;
    parts.announced = true;
    announce(prepared, "READY=1");
    if let Some(on_ready) = on_ready.take() {
        on_ready(&ready);
    }
    tracing::info!(
        api.listen = %ready.daemon.listen_addr, node.id = %ready.node_id, node.name = %ready.node_name,
        network = ready.network, "ready"
    );
    parts.end().await
}

/// Starts everything, in order.
async fn start(prepared: &Prepared, parts: &mut Parts) -> Result<Ready, RunError> {
    let Prepared { config, keys, .. } = prepared;
    let shown = Shown::new();
    let auditor = open_audit(prepared, parts, shown.witnessing.subscribe())?;
    let mut evidence = evidence::open(
        &config.home.evidence(),
        keys.node_id(),
        config.audit.allow_convicted.clone(),
    );
    let recorder = wire::Recorder::new(parts.log.clone(), evidence.desk.clone());
    let recorder = Arc::new(recorder);
    let neighbours = Arc::new(wire::MeshNeighbours::new(
        keys.node_id(),
        config.network.name.clone(),
        Arc::clone(&recorder),
    ));
    let kernel = open_kernel(prepared, parts, &auditor, &neighbours).await?;
    let about = (recorder, std::mem::take(&mut evidence.files));
    let signing = signing_of(parts);
    let windows = (open_windows(prepared), signing.clone());
    let public = windows.0.2.clone();
    let (mesh, counter, copies) = start_mesh(prepared, parts, &kernel, (about, windows)).await?;
    neighbours.attach(mesh.clone(), kernel.list());
    let listen_at = prepared.listen_again.unwrap_or(config.api.listen);
    let listener = listen(listen_at).await?;
    let listen_addr = listener.local_addr().map_err(|why| RunError::ApiListen {
        listen: listen_at,
        why,
    })?;
    parts.listen_addr = Some(listen_addr);
    let own_witness = counter.as_ref().map(|(window, _)| window.clone());
    start_settling(prepared, parts, &mesh, own_witness);
    parts.mirroring = Some(shown.mirroring.subscribe());
    let state = wire::api_state(
        prepared,
        wire::Handles {
            kernel,
            mesh: mesh.clone(),
            log: parts.log.clone(),
            auditor: auditor.clone(),
            listen_addr,
            witnessing: shown.witnessing.subscribe(),
            mirroring: shown.mirroring.subscribe(),
            signing: signing.clone(),
            witness: public,
            shutdown: parts.shutdown.clone(),
        },
    );
    let mut tasks = Tasks::new();
    let duties = Duties {
        auditor,
        evidence,
        copies,
        counter,
        log: parts.log.clone(),
        doubts: parts.doubts.clone(),
        shown,
        signing,
    };
    duties.start(&mut tasks, prepared, &mesh);
    let stop = parts.shutdown.clone();
    tasks.start("api", async move {
        if let Err(why) = openfang_api::serve(listener, openfang_api::router(state), stop).await {
            tracing::error!(error = %why, "the API ended");
        }
    });
    parts.tasks = Some(tasks);
    ready(prepared, &mesh, listen_addr)
}

/// Opens the kernel. The entry of the start is the first in the queue of the log; the database opens
/// while it is being written.
async fn open_kernel(
    prepared: &Prepared,
    parts: &mut Parts,
    auditor: &Auditor,
    neighbours: &Arc<wire::MeshNeighbours>,
) -> Result<Kernel, RunError> {
    let config = &prepared.config;
    let opening = async {
        Kernel::open(
            wire::kernel_config(config, &prepared.model_keys),
            auditor.clone(),
            Arc::clone(neighbours) as Arc<dyn Neighbours>,
        )
        .await
        .map_err(RunError::from)
    };
    let ((), (kernel, owner)) =
        futures::try_join!(log_start(prepared, auditor, parts.log.as_ref()), opening)?;
    parts.kernel = Some(owner);
    Ok(kernel)
}

/// Starts the mesh, with all that peers may ask of this node, and what is known against them.
async fn start_mesh(
    prepared: &Prepared,
    parts: &mut Parts,
    kernel: &Kernel,
    ((recorder, evidence), ((window, counter, _public), signing)): (Known, Signed<Windows>),
) -> Result<(Mesh, Option<(Window, Counter)>, Desk), RunError> {
    let Prepared { config, keys, .. } = prepared;
    let cosigners = Cosigners {
        witness: prepared.witness.as_ref().map(RoleKey::public),
        mirror: prepared.mirror.as_ref().map(RoleKey::public),
    };
    let desk = Desk::new(
        prepared.mirror.clone(),
        config.audit.mirror_quota_bytes,
        parts.log.clone(),
        recorder.quarantine().clone(),
    );
    desk.wait_for(signing);
    let windows = (window.clone(), desk.clone());
    let log = parts.log.clone().zip(parts.doubts.clone());
    let host = wire::NodeHost::new(kernel.clone(), log, windows, recorder);
    let epoch = parts.log.as_ref().map(Log::epoch);
    let host = Arc::new(host);
    let released = Instant::now() + RELEASE;
    let (mesh, owner) = loop {
        let mesh_config = wire::mesh_config(config, keys, epoch, cosigners, evidence.clone());
        match Mesh::start(mesh_config, Arc::clone(&host) as Arc<dyn Host>).await {
            // The sockets of the run before are closed a moment after it.
            Err(StartError::InUse { .. })
                if prepared.listen_again.is_some() && Instant::now() < released =>
            {
                sleep(RELEASE_LOOK).await;
            }
            started => break started?,
        }
    };
    parts.mesh = Some(owner);
    desk.attach(mesh.clone());
    Ok((mesh, window.zip(counter), desk))
}

async fn tasks_failed(tasks: &mut Option<Tasks>) -> TaskFailure {
    match tasks {
        Some(tasks) => tasks.failure().await,
        None => std::future::pending().await,
    }
}

async fn mesh_ended(owner: &mut Option<openfang_mesh::Owner>) {
    match owner {
        Some(owner) => owner.ended().await,
        None => std::future::pending().await,
    }
}

async fn kernel_ended(owner: &mut Option<openfang_kernel::Owner>) {
    match owner {
        Some(owner) => owner.ended().await,
        None => std::future::pending().await,
    }
}

async fn listen(listen: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(listen).await.map_err(|why| {
        if why.kind() == io::ErrorKind::AddrInUse {
            RunError::ApiInUse { listen }
        } else {
            RunError::ApiListen { listen, why }
        }
    })
}

fn ready(prepared: &Prepared, mesh: &Mesh, listen_addr: SocketAddr) -> Result<Ready, RunError> {
    let started_at = clock::rfc3339(MachineClock.now_micros());
    let daemon = Daemon::this(listen_addr, started_at);
    daemon
        .save(&prepared.config.home)
        .map_err(|why| RunError::Write {
            path: prepared.config.home.daemon(),
            why,
        })?;
    Ok(Ready {
        daemon,
        node_id: prepared.keys.node_id(),
        node_name: prepared.config.network.name.clone(),
        network: network_text(&prepared.config, &mesh.status()),
    })
}

fn network_text(config: &Config, status: &Status) -> String {
    match status {
        Status::Awake { listen, .. } => {
            let addrs: Vec<String> = listen.iter().map(ToString::to_string).collect();
            format!("awake at {}", addrs.join(", "))
        }
        Status::Asleep if !config.network.enabled => "asleep: network.enabled is false".to_owned(),
        Status::Asleep => "asleep: no shared secret (openfang join -)".to_owned(),
    }
}

/// Tells the supervisor. A node whose supervisor does not listen runs all the same.
fn announce(prepared: &Prepared, state: &str) {
    let told = notify::notify(
        prepared.notify_socket.as_ref().map(|name| name.as_str()),
        state,
    );
    if let Err(why) = told {
        tracing::warn!(error = %why, "the supervisor cannot be told {state}");
    }
}

/// Waits for the end of a part, and goes on without it when it does not come.
async fn within(limit: Duration, part: &'static str, end: impl Future<Output = ()>) {
    match tokio::time::timeout(limit, end).await {
        Ok(()) => tracing::debug!(part, "stopped"),
        Err(_late) => tracing::error!(part, "did not stop in time: left behind"),
    }
}

impl Parts {
    /// Waits for the first reason to stop.
    async fn end(&mut self) -> Result<Ended, RunError> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Ok(Ended::Wish("POST /api/shutdown")),
            anew = anew(&mut self.settling) => Ok(Ended::Anew(anew)),
            failure = tasks_failed(&mut self.tasks) => Err(failure.into()),
            () = mesh_ended(&mut self.mesh) => Err(TaskFailure::Ended("mesh").into()),
            () = kernel_ended(&mut self.kernel) => Err(TaskFailure::Ended("kernel").into()),
        }
    }

    /// Stops what was started, the last first. Logs what goes wrong: there is nobody to return it to.
    async fn stop(&mut self, prepared: &Prepared, reason: &str) {
        announce(prepared, "STOPPING=1");
        self.shutdown.cancel();
        if let Some(kernel) = self.kernel.take() {
            within(GRACE + PART_END, "kernel", kernel.shutdown(GRACE)).await;
        }
        self.log_stop(reason).await;
        if let Some(tasks) = self.tasks.take() {
            let late = tasks.shutdown(PART_END).await;
            if late > 0 {
                tracing::warn!(late, "tasks did not end in time");
            }
        }
        if let Some(mesh) = self.mesh.take() {
            within(FAREWELL + PART_END, "mesh", mesh.shutdown(FAREWELL)).await;
        }
        if self.announced
            && let Err(why) = crate::files::remove(&prepared.config.home.daemon())
        {
            tracing::warn!(error = %why, "daemon.json is left behind");
        }
        self.close_audit().await;
    }

    /// Logs the stop, and lets those who keep copies of the log have all of it: what is lost here later
    /// is there then.
    async fn log_stop(&mut self, reason: &str) {
        if let Some(auditor) = self.auditor.take()
            && let Err(why) = auditor.record(Event::node_stop(Public::text(reason))).await
        {
            tracing::error!(error = %why, "the stop cannot be logged");
        }
        let (Some(log), Some(mirroring)) = (&self.log, self.mirroring.take()) else {
            return;
        };
        if log.is_held() {
            return;
        }
        let copied = tokio::time::timeout(LAST_COPY, mirror::copied(log, mirroring)).await;
        if copied.is_err() {
            tracing::info!("the last entries are not at all mirrors yet");
        }
    }

    async fn close_audit(&mut self) {
        let Some(log) = self.log.take() else {
            return;
        };
        // Closing waits for the disk.
        match tokio::task::spawn_blocking(move || log.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::error!(error = %why, "the audit log did not close well"),
            Err(why) => tracing::error!(error = %why, "the audit log did not close well"),
        }
    }
}
