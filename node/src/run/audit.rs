//! The audit log of a node, and all who have to do with it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use openfang_audit::collect::{Collector, Witnessing};
use openfang_audit::feed::{Mirroring, Pace};
use openfang_audit::inquiry::Signing;
use openfang_audit::{Event, Log, Origin, Public};
use openfang_kernel::{Auditor, Demands};
use openfang_mesh::Mesh;
use tokio::sync::watch;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::prepared::doubt_of;
use super::{Parts, Prepared, RunError};
use crate::clock::{self, MachineClock};
use crate::config::{Config, Fingerprint};
use crate::cosigner::RoleKey;
use crate::evidence::{Around, Quarantine};
use crate::home::Home;
use crate::mirror::{self, Desk, Feeding};
use crate::own_log::{Anew, Doubts, Found, Mark, OwnLog};
use crate::put_back::{LeftBehind, is_put_back};
use crate::tasks::Tasks;
use crate::witness::{self, Announcing, Asking, Counter, PublicWindow, Rules, Window};
use crate::{VERSION, audit_epoch, entangle, evidence, own_log, redaction, wire};

/// What takes note of others, and what is known against them.
pub(super) type Known = (Arc<wire::Recorder>, Vec<Vec<u8>>);
/// Where this node cosigns: for the mesh, and for everybody.
pub(super) type Windows = (Option<Window>, Option<Counter>, Option<Arc<PublicWindow>>);

/// Something that is of use once the own log is signed.
pub(super) type Signed<T> = (T, watch::Receiver<Signing>);

/// Opens the window of the witness for the mesh, and for everybody where logs elsewhere are witnessed.
pub(super) fn open_windows(prepared: &Prepared) -> Windows {
    let logs = &prepared.config.audit.witness_logs;
    let folder = prepared.config.home.evidence();
    let kept = evidence::kept(&folder);
    let logs = witness::trusted(logs, &prepared.keys.node_id(), kept);
    let Some(key) = prepared.witness.clone() else {
        return (None, None, None);
    };
    let (window, counter) = witness::counter(key, logs.clone());
    let public = (!logs.is_empty()).then(|| Arc::new(PublicWindow::new(window.clone(), &logs)));
    (Some(window), Some(counter), public)
}

/// Starts to ask the peers what they know of the audit log of this node, now and whenever it is in doubt.
pub(super) fn start_settling(
    prepared: &Prepared,
    parts: &mut Parts,
    mesh: &Mesh,
    witness: Option<Window>,
) {
    let (Some(doubts), Some(found)) = (&parts.doubts, parts.found) else {
        return;
    };
    doubts.attach(mesh.clone());
    let Prepared { config, keys, .. } = prepared;
    let own = OwnLog {
        doubts: doubts.clone(),
        mesh: mesh.clone(),
        me: (keys.node_id(), keys.log.verifying_key()),
        home: config.home.clone(),
        log_path: config.audit.log_path.clone(),
        found,
        strict: config.audit.require_peer_floor,
        released: parts.released,
        expects_peers: !config.network.bootstrap.is_empty(),
        witness,
        pace: own_log::Pace::default(),
    };
    let stop = parts.shutdown.clone();
    parts.settling.spawn(own.keep(stop));
}

/// Says how it stands with signing at first. As long as the own log may not be signed nothing is
/// cosigned either: who forgot the one may have forgotten the other.
fn signing_at_first(found: Option<Found>) -> watch::Sender<Signing> {
    watch::Sender::new(match found {
        Some(_) => Signing::Asking {
            answered: 0,
            needed: 0,
        },
        None => Signing::Free,
    })
}

/// Returns how it stands with signing. Without a log nothing keeps this node from cosigning.
pub(super) fn signing_of(parts: &Parts) -> watch::Receiver<Signing> {
    match &parts.doubts {
        Some(doubts) => doubts.standing(),
        None => signing_at_first(None).subscribe(),
    }
}

/// Waits for the audit log to need a new beginning.
pub(super) async fn anew(settling: &mut JoinSet<Option<Anew>>) -> Anew {
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
pub(super) struct Shown {
    pub(super) witnessing: watch::Sender<Witnessing>,
    pub(super) mirroring: watch::Sender<Mirroring>,
}

impl Shown {
    pub(super) fn new() -> Self {
        Self {
            witnessing: watch::Sender::new(Collector::new().status()),
            mirroring: watch::Sender::new(Mirroring::none()),
        }
    }
}

/// What this node does about audit logs.
pub(super) struct Duties {
    pub(super) auditor: Auditor,
    pub(super) evidence: evidence::Opened,
    pub(super) copies: Desk,
    /// Where this node cosigns, if it does.
    pub(super) counter: Option<(Window, Counter)>,
    pub(super) log: Option<Log>,
    /// Where it is said that the log may not be the newest; there when the log is.
    pub(super) doubts: Option<Doubts>,
    pub(super) shown: Shown,
    pub(super) signing: watch::Receiver<Signing>,
}

impl Duties {
    /// Starts to keep evidence and to look for it, to cosign for others and for the own log, to
    /// announce that, and to ask others to cosign.
    pub(super) fn start(self, tasks: &mut Tasks, prepared: &Prepared, mesh: &Mesh) {
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
            let rules = Rules {
                quarantine,
                desk: evidence.desk.clone(),
                signing: self.signing,
            };
            let counter = counter.run(mesh.clone(), rules, tasks.token());
            tasks.start("witness", counter);
        }
        let (Some(log), Some(doubts)) = (self.log, self.doubts) else {
            return;
        };
        let key = prepared.witness.as_ref().map(RoleKey::cosigner_key);
        let announcing = Announcing {
            log: log.clone(),
            mesh: mesh.clone(),
            witness: window.zip(key.cloned()),
            doubts: doubts.clone(),
        };
        tasks.start("heads", witness::announce(announcing, tasks.token()));
        let quarantine = evidence.desk.quarantine().clone();
        let own = Own {
            log: &log,
            doubts: &doubts,
            quarantine,
        };
        start_cosigners(tasks, prepared, (own, mesh), self.shown);
    }
}

/// The own log, and who has nothing to do with it.
struct Own<'a> {
    log: &'a Log,
    doubts: &'a Doubts,
    quarantine: Quarantine,
}

/// Starts to ask others to cosign the log and to keep copies of it.
fn start_cosigners(
    tasks: &mut Tasks,
    prepared: &Prepared,
    (own, mesh): (Own<'_>, &Mesh),
    shown: Shown,
) {
    let Own {
        log,
        doubts,
        quarantine,
    } = own;
    let home = &prepared.config.home;
    let asking = Asking {
        log: log.clone(),
        mesh: mesh.clone(),
        path: home.cosigned_head(),
        policy: home.audit_policy(),
        key: prepared.keys.log.verifying_key(),
        shown: shown.witnessing,
        doubts: doubts.clone(),
    };
    tasks.start("cosignatures", witness::collect(asking, tasks.token()));
    let feeding = Feeding {
        log: log.clone(),
        key: prepared.keys.log.verifying_key(),
        mesh: mesh.clone(),
        folder: home.mirrored_heads(),
        pace: Pace::default(),
        shown: shown.mirroring,
        doubts: doubts.clone(),
        quarantine,
    };
    tasks.start("copies", mirror::feed(feeding, tasks.token()));
}

/// Logs the start, and what of the configuration changed since the last one.
pub(super) async fn log_start(
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
        let event = Event::config_change(Public::text(&format!("config.toml: {changes}")));
        let announced = auditor.announce_in_doubt(event).await;
        announced.map_err(RunError::NotLogged)?.done();
    }
    config
        .fingerprint
        .save(&config.home)
        .map_err(|why| RunError::Write {
            path: config.home.fingerprint(),
            why,
        })
}

/// Tells whether peers may know of the log of this node: it has met some, or has forgotten whether it has.
fn may_be_known(prepared: &Prepared) -> io::Result<bool> {
    let Config { home, network, .. } = &prepared.config;
    let met = [
        home.audit_policy(),
        home.network_state(),
        // The mesh counts there how often it woke.
        home.mesh().join("incarnation"),
    ];
    for path in met {
        if path.try_exists()? {
            return Ok(true);
        }
    }
    Ok(network.secret.is_some() || audit_epoch::is_wiped(home)?)
}

/// Forgets a doubt when the operator says that there is no mesh. What stands in the place of a log that was
/// gone makes room for the next one: nobody is to see two logs of one name.
fn never_mind(config: &Config, mark: Option<Mark>) -> Result<Option<Mark>, RunError> {
    let epoch = |why| RunError::Epoch { why };
    if mark == Some(Mark::Gone) {
        let now = audit_epoch::current(&config.home).map_err(epoch)?;
        let next = audit_epoch::next(now).map_err(epoch)?;
        audit_epoch::turn(config, next, None).map_err(epoch)?;
    }
    Mark::clear(&config.home).map_err(doubt_of(&config.home))?;
    Ok(None)
}

/// Looks whether what seems whole is where this node wrote it.
fn in_its_place(home: &Home, found: Found) -> Result<Found, RunError> {
    if found != Found::Whole {
        return Ok(found);
    }
    let is_elsewhere = is_put_back(home).map_err(|source| openfang_audit::OpenError::Io {
        action: "read",
        path: home.audit_dir(),
        source,
    })?;
    if !is_elsewhere {
        return Ok(found);
    }
    tracing::warn!(
        "the files of the audit log are not those that this node wrote, as when a backup is put back or a \
         home is moved: nothing is signed before everybody has shown what they know of it"
    );
    Ok(Found::Moved)
}

/// Remembers what was found before anything is done about it: the next start may find a log that looks
/// whole.
fn remember(home: &Home, found: Found) -> Result<(), RunError> {
    match Mark::of(found) {
        // The last run knew more.
        Some(Mark::Moved)
            if Mark::load(home).map_err(doubt_of(home))? == Some(Mark::Contradicted) =>
        {
            Ok(())
        }
        Some(mark) => mark.store(home).map_err(doubt_of(home)),
        None => Ok(()),
    }
}

/// Removes what a refused start has made: an empty file where there was none is no log.
fn remove_if_empty(fresh: bool, path: &Path) {
    let is_empty = fresh && std::fs::metadata(path).is_ok_and(|found| found.len() == 0);
    if is_empty && let Err(why) = crate::files::remove(path) {
        tracing::warn!(path = %path.display(), error = %why, "an empty audit log is left behind");
    }
}

pub(super) fn open_audit(
    prepared: &Prepared,
    parts: &mut Parts,
    witnessing: watch::Receiver<Witnessing>,
) -> Result<Auditor, RunError> {
    let Prepared { config, keys, .. } = prepared;
    if !config.audit.enabled {
        parts.auditor = Some(Auditor::disabled());
        return Ok(Auditor::disabled());
    }
    // What is in another file needs no copy.
    if let Some(left) = LeftBehind::find(config) {
        return Err(RunError::LeftBehind { left });
    }
    // Without a mesh, now or later, there is nobody to ask.
    let asks = config.network.enabled;
    let home = &config.home;
    // Before anything is made of it: under another number the log that is there would look gone.
    let me = (&keys.node_id(), &keys.log.verifying_key());
    let epoch = |why| RunError::Epoch { why };
    audit_epoch::checked(home, me).map_err(epoch)?;
    let mark = Mark::load(home).map_err(doubt_of(home))?;
    let mark = if asks {
        mark
    } else {
        never_mind(config, mark)?
    };
    let is_known = mark.is_some() || may_be_known(prepared).map_err(epoch)?;
    let start = audit_epoch::of_start(config, asks && is_known).map_err(epoch)?;
    let found = Mark::found(mark, start.found);
    let found = match prepared.found_before {
        Some(before) => before,
        None if asks && is_known => in_its_place(home, found)?,
        None => found,
    };
    let (epoch, mut found) = (start.epoch, found);
    if asks {
        remember(home, found)?;
    }
    let options = openfang_audit::Options {
        log_path: config.audit.log_path.clone(),
        dir: config.home.audit_dir(),
        node: keys.node_id(),
        key: keys.log.clone(),
        boot: u64::from_be_bytes(clock::random()?),
        epoch,
        // Where nobody can know anything of it, a floor that is missing is for the operator to judge.
        held: asks && is_known,
    };
    let seed = Zeroizing::new(clock::random()?);
    let guard = |dir: &Path| redaction::guard(prepared, dir, seed);
    let fresh = !config.audit.log_path.exists();
    let (log, opened) = Log::open_guarded(options, Arc::new(MachineClock), guard)
        .inspect_err(|_why| remove_if_empty(fresh, &config.audit.log_path))?;
    tracing::info!(audit.entries = opened.size, "audit log opened");
    if opened.floor_was_missing {
        found = Found::NoFloor;
        remember(home, found)?;
    }
    parts.found = asks.then_some(found);
    for recovered in &opened.recovered {
        tracing::warn!(
            bytes = recovered.bytes, kept = %recovered.kept.display(),
            "the end of the audit log was never finished: cut off and kept"
        );
    }
    Ok(hand_out(config, parts, (log, witnessing)))
}

/// Hands the open log to the parts of the node.
fn hand_out(
    config: &Config,
    parts: &mut Parts,
    (log, witnessing): (Log, watch::Receiver<Witnessing>),
) -> Auditor {
    // A mesh that sleeps has nobody to ask: what is whole is signed, and held again before it wakes.
    let sleeps = config.network.enabled && config.network.secret.is_none();
    let strict = config.audit.require_peer_floor;
    let is_certain = |found| own_log::is_certain(found, strict);
    parts.released = sleeps && parts.found.is_some_and(is_certain);
    if parts.released {
        log.release();
    }
    let in_doubt = parts.found.filter(|_| !parts.released);
    let doubts = Doubts::new(log.clone(), signing_at_first(in_doubt));
    let demands = Demands {
        ordinary: config.audit.durability,
        changes: config.audit.change_durability,
        witnessing,
        signing: doubts.standing(),
    };
    let auditor = Auditor::with(log.clone(), demands);
    parts.doubts = Some(doubts);
    parts.log = Some(log);
    parts.auditor = Some(auditor.clone());
    auditor
}
