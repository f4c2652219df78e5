//! A node from start to end.
//!
//! Start: the home is locked, the configuration and the keys are read ([`prepare`]), then the audit
//! log is recovered and checked, the kernel loads the agents, the mesh starts, the API listens,
//! `daemon.json` is written. Shutdown is the same list upwards. A start that fails half-way takes
//! the same way back.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openfang_audit::collect::{Collector, Witnessing};
use openfang_audit::cosign::Role;
use openfang_audit::feed::{Mirroring, Pace};
use openfang_audit::inquiry::Signing;
use openfang_audit::{Event, Log, Origin};
use openfang_id::{Keys, NodeId, NodeName};
use openfang_kernel::ports::Neighbours;
use openfang_kernel::{Auditor, Kernel};
use openfang_mesh::{Cosigners, Mesh, StartError, Status};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, MachineClock, NoRandom};
use crate::config::{Config, ConfigErrors, Fingerprint, Lookup, NotText};
use crate::cosigner::RoleKey;
use crate::daemon::Daemon;
use crate::evidence::Around;
use crate::home::{HomeError, Lock};
use crate::keys::KeyFileError;
use crate::mirror::{self, Desk, Feeding};
use crate::own_log::{Anew, Found, OwnLog};
use crate::signal::Signals;
use crate::tasks::{TaskFailure, Tasks};
use crate::witness::{self, Announcing, Asking, Counter, PublicWindow, Window};
use crate::{
    VERSION, audit_epoch, config, entangle, evidence, files, hardening, keys, notify, wire,
};

/// How long turns and requests may run on once the node was told to stop.
pub const GRACE: Duration = Duration::from_secs(10);
// The API outlives the turns: it tells their callers how they ended.
const _: () = assert!(GRACE.as_millis() < openfang_api::DRAIN.as_millis());
/// How long the mirrors of the audit log have for its last entries.
const LAST_COPY: Duration = Duration::from_secs(2);
/// How long the farewell to the mesh may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a part has to end when its grace is over: more is a fault, and does not keep the node.
const PART_END: Duration = Duration::from_secs(3);

/// What was read before anything was started. Holds the home.
#[derive(Debug)]
#[must_use = "dropping it gives the home back"]
pub struct Prepared {
    config: Config,
    keys: Keys,
    witness: Option<RoleKey>,
    mirror: Option<RoleKey>,
    model_keys: openfang_kernel::ModelKeys,
    notify_socket: Option<zeroize::Zeroizing<String>>,
    /// Where the API listens when the node starts anew.
    listen_again: Option<SocketAddr>,
    /// What was found of the audit log before the node started anew.
    found_before: Option<Found>,
    lock: Lock,
}

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

/// Why a node did not start, or did not run to its end. Every message ends with what mends it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A variable of the environment holds no text.
    #[error(transparent)]
    Environment(#[from] NotText),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// No random numbers.
    #[error("{0}\n    mend: check that getrandom(2) is allowed here")]
    Random(#[from] NoRandom),
    /// The audit log cannot be used.
    #[error(
        "{0}\n    mend: openfang audit verify says what is wrong with it; openfang audit repair mends it from copies that peers have"
    )]
    Audit(#[from] openfang_audit::OpenError),
    /// The number of the audit log cannot be read or written.
    #[error(
        "audit.epoch, the number of the audit log: {why}\n    mend: check its permissions and df -h; when it is damaged, write the number at the end of the first line of audit.d/floor into it"
    )]
    Epoch {
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// The start could not be logged.
    #[error("the start cannot be logged: {0}\n    mend: openfang audit verify, df -h")]
    NotLogged(#[source] openfang_kernel::AuditError),
    /// The kernel did not open.
    #[error("{0}\n    mend: check the folder data in the home, df -h")]
    Kernel(#[from] openfang_kernel::OpenError),
    /// The mesh did not start.
    #[error("{why}\n    mend: {}", mend_mesh(why))]
    Mesh {
        /// What went wrong.
        #[from]
        why: StartError,
    },
    /// The address of the API is taken.
    #[error("api_listen {listen} is in use by another process\n    mend: openfang stop if it is an openfang daemon of another home, or api_listen = \"127.0.0.1:{}\"", other_port(*.listen))]
    ApiInUse {
        /// Where it would have listened.
        listen: SocketAddr,
    },
    /// The API cannot listen.
    #[error("api_listen {listen}: {why}\n    mend: api_listen = \"127.0.0.1:4200\"")]
    ApiListen {
        /// Where it would have listened.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// A file of the home cannot be written.
    #[error("{path} cannot be written: {why}\n    mend: {}", files::mend(path, why.kind()))]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// A part of the node failed while it ran.
    #[error("{0}\n    mend: openfang start, and report what the log says before this")]
    Task(#[from] TaskFailure),
    /// Told to stop a second time.
    #[error("ended at once: turns that ran were cut\n    mend: openfang start")]
    Interrupted,
}

impl RunError {
    /// Whether the configuration has to be changed: exit code 64.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Environment(_))
    }
}

fn mend_mesh(why: &StartError) -> &'static str {
    match why {
        StartError::InUse { .. } => {
            "another port in network.listen_addr, or end the process that listens there"
        }
        StartError::Listen { .. } => "network.listen_addr = \"127.0.0.1:4200\"",
        StartError::State { .. } => "make the folder mesh in the home writable",
        StartError::Incarnation { .. } => "remove the file that is named, then: openfang start",
        StartError::Transport { .. } => {
            "check /etc/resolv.conf; network.enabled = false starts without a mesh"
        }
    }
}

fn other_port(listen: SocketAddr) -> u16 {
    listen.port().checked_add(1).unwrap_or(4200)
}

/// Takes the home and reads everything the node is told. Opens no port and changes nothing on the
/// disk; before it reads the first secret, it has the process write no core file.
///
/// # Errors
/// Whatever would keep the node from starting, with what mends it.
pub fn prepare(home: &crate::home::Home, environment: Lookup<'_>) -> Result<Prepared, RunError> {
    home.check_private()?;
    let lock = home.lock()?;
    let hardened = hardening::no_core_dumps();
    let mut config = config::load(home, environment)?;
    if let Err(why) = hardened {
        let warning = format!("a crash may write the secrets of this node to a core file: {why}");
        config.warnings.push(warning);
    }
    let seed = keys::load(&home.node_key())?;
    let keys = seed.keys();
    let mut role_key = |role, does| {
        RoleKey::choose(home, &seed, &keys.node_id(), role).unwrap_or_else(|why| {
            let warning =
                format!("this node {does} no audit logs: its folder cannot be read: {why}");
            config.warnings.push(warning);
            None
        })
    };
    let witness = role_key(Role::Witness, "witnesses");
    let mirror =
        role_key(Role::Mirror, "mirrors").filter(|_key| config.audit.mirror_quota_bytes > 0);
    let mut model_keys = openfang_kernel::ModelKeys::default();
    for variable in openfang_kernel::provider::key_variables() {
        if let Some(key) = environment(variable)? {
            model_keys.insert(variable, key);
        }
    }
    Ok(Prepared {
        config,
        keys,
        witness,
        mirror,
        model_keys,
        notify_socket: environment(notify::VARIABLE)?,
        listen_again: None,
        found_before: None,
        lock,
    })
}

impl Prepared {
    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Prepares for another start, with another audit log or the one that peers know.
    fn begin_anew(&mut self, anew: &Anew, listen: Option<SocketAddr>) -> Result<(), RunError> {
        let epoch = |why| RunError::Epoch { why };
        let now = audit_epoch::current(&self.config.home).map_err(epoch)?;
        let (to, last) = match anew {
            Anew::Next { last } => (audit_epoch::next(now).map_err(epoch)?, last.as_ref()),
            Anew::Follow { epoch } => (*epoch, None),
        };
        audit_epoch::turn(&self.config, to, last).map_err(epoch)?;
        self.listen_again = listen;
        self.found_before = match anew {
            Anew::Next { .. } => None,
            // Whoever forgot its log has forgotten what it has cosigned.
            Anew::Follow { .. } => {
                self.forget_cosigners()?;
                Some(Found::Gone)
            }
        };
        Ok(())
    }

    /// Retires the keys with which this node cosigns.
    fn forget_cosigners(&mut self) -> Result<(), RunError> {
        let seed = keys::load(&self.config.home.node_key())?;
        for (key, role) in [
            (&mut self.witness, Role::Witness),
            (&mut self.mirror, Role::Mirror),
        ] {
            if let Some(forgotten) = key.take() {
                let failed = |why| RunError::Write {
                    path: self.config.home.audit_dir(),
                    why,
                };
                forgotten.forget().map_err(failed)?;
                *key = RoleKey::choose(&self.config.home, &seed, &self.keys.node_id(), role)
                    .map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Returns the keys of the node.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns who the node is.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.keys.node_id()
    }
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
    let mut on_ready = Some(on_ready);
    let ended = loop {
        let mut parts = Parts::default();
        let ended = tokio::select! {
            ended = start_and_serve(&prepared, &mut parts, &mut on_ready) => ended,
            wish = signals.next() => Ok(Ended::Wish(wish)),
        };
        let reason = match &ended {
            Ok(Ended::Wish(wish)) => (*wish).to_owned(),
            Ok(Ended::Anew(_)) => "the audit log begins anew".to_owned(),
            Err(why) => first_line(&why.to_string()),
        };
        tracing::info!(reason, "stopping");
        tokio::select! {
            () = parts.stop(&prepared, &reason) => {}
            _wish = signals.next() => return Err(RunError::Interrupted),
        }
        match ended {
            Ok(Ended::Anew(anew)) => prepared.begin_anew(&anew, parts.listen_addr)?,
            Ok(Ended::Wish(_)) => break Ok(()),
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

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// What was started, in the order in which it was.
#[derive(Default)]
struct Parts {
    log: Option<Log>,
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
    let Prepared { config, keys, .. } = prepared;
    let auditor = open_audit(prepared, parts)?;
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
    let windows = open_windows(prepared);
    let public = windows.2.clone();
    let (mesh, counter, copies) = start_mesh(prepared, parts, &kernel, (about, windows)).await?;
    neighbours.attach(mesh.clone(), kernel.list());
    let listen_at = prepared.listen_again.unwrap_or(config.api.listen);
    let listener = listen(listen_at).await?;
    let listen_addr = listener.local_addr().map_err(|why| RunError::ApiListen {
        listen: listen_at,
        why,
    })?;
    parts.listen_addr = Some(listen_addr);
    let signing = start_settling(prepared, parts, &mesh);
    let shutdown = parts.shutdown.clone();
    let shown = Shown::new();
    parts.mirroring = Some(shown.mirroring.subscribe());
    let state = wire::api_state(
        prepared,
        wire::Handles {
            kernel,
            mesh: mesh.clone(),
            log: parts.log.clone(),
            listen_addr,
            witnessing: shown.witnessing.subscribe(),
            mirroring: shown.mirroring.subscribe(),
            signing,
            witness: public,
            shutdown: shutdown.clone(),
        },
    );
    let mut tasks = Tasks::new();
    let duties = Duties {
        auditor,
        evidence,
        copies,
        counter,
        log: parts.log.clone(),
        shown,
    };
    duties.start(&mut tasks, prepared, &mesh);
    let stop = shutdown.clone();
    tasks.start("api", async move {
        if let Err(why) = openfang_api::serve(listener, openfang_api::router(state), stop).await {
            tracing::error!(error = %why, "the API ended");
        }
    });
    let tasks = parts.tasks.insert(tasks);
    let ready = ready(prepared, &mesh, listen_addr)?;
    parts.announced = true;
    announce(prepared, "READY=1");
    if let Some(on_ready) = on_ready.take() {
        on_ready(&ready);
    }
    tracing::info!(
        api.listen = %listen_addr, node.id = %ready.node_id, node.name = %ready.node_name,
        network = ready.network, "ready"
    );
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(Ended::Wish("POST /api/shutdown")),
        anew = anew(&mut parts.settling) => Ok(Ended::Anew(anew)),
        failure = tasks.failure() => Err(failure.into()),
        () = mesh_ended(&mut parts.mesh) => Err(TaskFailure::Ended("mesh").into()),
        () = kernel_ended(&mut parts.kernel) => Err(TaskFailure::Ended("kernel").into()),
    }
}

/// What takes note of others, and what is known against them.
type Known = (Arc<wire::Recorder>, Vec<Vec<u8>>);
/// Where this node cosigns: for the mesh, and for everybody.
type Windows = (Option<Window>, Option<Counter>, Option<Arc<PublicWindow>>);

/// Opens the window of the witness for the mesh, and for everybody where logs elsewhere are witnessed.
fn open_windows(prepared: &Prepared) -> Windows {
    let logs = &prepared.config.audit.witness_logs;
    let logs = witness::trusted(logs, &prepared.keys.node_id());
    let Some(key) = prepared.witness.clone() else {
        return (None, None, None);
    };
    let (window, counter) = witness::counter(key, logs.clone());
    let public = (!logs.is_empty()).then(|| Arc::new(PublicWindow::new(window.clone(), &logs)));
    (Some(window), Some(counter), public)
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
    ((recorder, evidence), (window, counter, _public)): (Known, Windows),
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
    );
    let windows = (window.clone(), desk.clone());
    let host = wire::NodeHost::new(kernel.clone(), parts.log.clone(), windows, recorder);
    let epoch = parts.log.as_ref().map(Log::epoch);
    let (mesh, owner) = Mesh::start(
        wire::mesh_config(config, keys, epoch, cosigners, evidence),
        Arc::new(host),
    )
    .await?;
    parts.mesh = Some(owner);
    desk.attach(mesh.clone());
    Ok((mesh, window.zip(counter), desk))
}

/// Starts to ask the peers what they know of the audit log of this node.
fn start_settling(prepared: &Prepared, parts: &mut Parts, mesh: &Mesh) -> watch::Receiver<Signing> {
    let (shown, signing) = watch::channel(Signing::Free);
    let (Some(log), Some(found)) = (&parts.log, parts.found) else {
        return signing;
    };
    let Prepared { config, keys, .. } = prepared;
    let own = OwnLog {
        log: log.clone(),
        mesh: mesh.clone(),
        me: (keys.node_id(), keys.log.verifying_key()),
        log_path: config.audit.log_path.clone(),
        found,
        strict: config.audit.require_peer_floor,
        expects_peers: !config.network.bootstrap.is_empty(),
        shown,
    };
    let stop = parts.shutdown.clone();
    parts.settling.spawn(own.settle(stop));
    signing
}

/// Waits for the audit log to need a new beginning.
async fn anew(settling: &mut JoinSet<Option<Anew>>) -> Anew {
    while let Some(settled) = settling.join_next().await {
        match settled {
            Ok(Some(anew)) => return anew,
            Ok(None) => {}
            Err(why) => {
                tracing::error!(error = %why, "asking the peers about the audit log failed: it is not signed")
            }
        }
    }
    std::future::pending().await
}

/// How it stands with those who cosign the log, for whoever asks.
struct Shown {
    witnessing: watch::Sender<Witnessing>,
    mirroring: watch::Sender<Mirroring>,
}

impl Shown {
    fn new() -> Self {
        Self {
            witnessing: watch::Sender::new(Collector::new().status()),
            mirroring: watch::Sender::new(Mirroring::none()),
        }
    }
}

/// What this node does about audit logs.
struct Duties {
    auditor: Auditor,
    evidence: evidence::Opened,
    copies: Desk,
    /// Where this node cosigns, if it does.
    counter: Option<(Window, Counter)>,
    log: Option<Log>,
    shown: Shown,
}

impl Duties {
    /// Starts to keep evidence and to look for it, to cosign for others and for the own log, to
    /// announce that, and to ask others to cosign.
    fn start(self, tasks: &mut Tasks, prepared: &Prepared, mesh: &Mesh) {
        let evidence = self.evidence;
        let entangling = entangle::entangle(self.auditor.clone(), mesh.clone(), tasks.token());
        tasks.start("entangle", entangling);
        let keeping = evidence.keeper.run(self.auditor, tasks.token());
        tasks.start("evidence", keeping);
        if let Some(mender) = self.copies.mender() {
            tasks.start("mender", mender.run(mesh.clone(), tasks.token()));
        }
        let around = Around {
            mesh: mesh.clone(),
            copies: self.copies,
        };
        tasks.start("forks", evidence.forks.run(around, tasks.token()));
        let (window, counter) = self.counter.unzip();
        if let Some(counter) = counter {
            let quarantine = evidence.desk.quarantine().clone();
            let counter = counter.run(mesh.clone(), quarantine, tasks.token());
            tasks.start("witness", counter);
        }
        let Some(log) = self.log else {
            return;
        };
        let key = prepared.witness.as_ref().map(RoleKey::cosigner_key);
        let announcing = Announcing {
            log: log.clone(),
            mesh: mesh.clone(),
            witness: window.zip(key.cloned()),
        };
        tasks.start("heads", witness::announce(announcing, tasks.token()));
        start_cosigners(tasks, prepared, (&log, mesh), self.shown);
    }
}

/// Starts to ask others to cosign the log and to keep copies of it.
fn start_cosigners(
    tasks: &mut Tasks,
    prepared: &Prepared,
    (log, mesh): (&Log, &Mesh),
    shown: Shown,
) {
    let home = &prepared.config.home;
    let asking = Asking {
        log: log.clone(),
        mesh: mesh.clone(),
        path: home.cosigned_head(),
        policy: home.audit_policy(),
        key: prepared.keys.log.verifying_key(),
        shown: shown.witnessing,
    };
    tasks.start("cosignatures", witness::collect(asking, tasks.token()));
    let feeding = Feeding {
        log: log.clone(),
        key: prepared.keys.log.verifying_key(),
        mesh: mesh.clone(),
        folder: home.mirrored_heads(),
        pace: Pace::default(),
        shown: shown.mirroring,
    };
    tasks.start("copies", mirror::feed(feeding, tasks.token()));
}

/// Logs the start, and what of the configuration changed since the last one.
async fn log_start(
    prepared: &Prepared,
    auditor: &Auditor,
    log: Option<&Log>,
) -> Result<(), RunError> {
    let config = &prepared.config;
    if let Some(log) = log.filter(|log| log.size() == 0 && log.epoch() > audit_epoch::FIRST) {
        let before = Origin::of(&prepared.node_id(), log.epoch() - 1);
        let last = audit_epoch::last_head(&config.home);
        let last = last.map_err(|why| RunError::Epoch { why })?;
        let last = last.filter(|last| last.origin == before);
        let began = Event::epoch_start(&before, last.as_ref());
        auditor.record(began).await.map_err(RunError::NotLogged)?;
    }
    auditor
        .record(Event::node_start(VERSION))
        .await
        .map_err(RunError::NotLogged)?;
    let before = Fingerprint::load(&config.home);
    if before.as_ref() == Some(&config.fingerprint) {
        return Ok(());
    }
    if let Some(before) = before {
        let changes = config.fingerprint.changes(&before).join(" ");
        auditor
            .record(Event::config_change(&format!("config.toml: {changes}")))
            .await
            .map_err(RunError::NotLogged)?;
    }
    config
        .fingerprint
        .save(&config.home)
        .map_err(|why| RunError::Write {
            path: config.home.fingerprint(),
            why,
        })
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

fn open_audit(prepared: &Prepared, parts: &mut Parts) -> Result<Auditor, RunError> {
    let Prepared { config, keys, .. } = prepared;
    if !config.audit.enabled {
        parts.auditor = Some(Auditor::disabled());
        return Ok(Auditor::disabled());
    }
    // Without a mesh there is nobody to ask.
    let asks = config.network.enabled && config.network.secret.is_some();
    let start = audit_epoch::of_start(config, asks).map_err(|why| RunError::Epoch { why })?;
    let (epoch, mut found) = (start.epoch, prepared.found_before.unwrap_or(start.found));
    let options = openfang_audit::Options {
        log_path: config.audit.log_path.clone(),
        dir: config.home.audit_dir(),
        node: keys.node_id(),
        key: keys.log.clone(),
        boot: u64::from_be_bytes(clock::random()?),
        epoch,
        held: asks,
    };
    let (log, opened) = Log::open(options, Arc::new(MachineClock))?;
    tracing::info!(audit.entries = opened.size, "audit log opened");
    if opened.floor_was_missing {
        found = Found::NoFloor;
    }
    parts.found = asks.then_some(found);
    for recovered in &opened.recovered {
        tracing::warn!(
            bytes = recovered.bytes, kept = %recovered.kept.display(),
            "the end of the audit log was never finished: cut off and kept"
        );
    }
    let auditor = Auditor::new(log.clone());
    parts.log = Some(log);
    parts.auditor = Some(auditor.clone());
    Ok(auditor)
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
            && let Err(why) = auditor.record(Event::node_stop(reason)).await
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
