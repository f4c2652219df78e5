//! Mending the audit log of a node that does not run, from copies that its peers have.
//!
//! The home is held as by a running node. The mesh starts with a host that answers nothing, only to
//! reach those who keep copies; what they give is checked against a head that this log has signed.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openfang_audit::storage::{FsReader, FsStorage, LockError};
use openfang_audit::tile::{Progress, TileError};
use openfang_audit::{Checkpoint, Hash, Origin, SignedHead, repair};
use openfang_id::{NodeId, VerifyingKey};
use openfang_mesh::{Cosigners, Host, Mesh, MeshEvent, StartError, Status, View};
use openfang_ofp::call::{Failure, Frame, Request};
use openfang_ofp::heads::CannotProve;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::audit_epoch;
use crate::mirror::{Holds, PeerTiles, PeerTilesError};
use crate::own_log::copies_of;
use crate::run::Prepared;
use crate::wire;

/// How long to wait for peers.
const LINKS: Duration = Duration::from_secs(15);
/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// How many damaged logs are kept aside.
const ASIDE_MAX: u32 = 1_000;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// The head that the lines were checked against.
    pub head: Checkpoint,
    /// Whose copy helped.
    pub from: Vec<String>,
    /// What was replaced, in the order of the log.
    pub patches: Vec<Replaced>,
    /// Whether the signing floor was made again.
    pub floor: bool,
    /// Where the damaged log is, when too much of it was bad: the next start fetches all of it.
    pub put_aside: Option<PathBuf>,
}

/// Lines that were replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// The first entry.
    pub first_seq: u64,
    /// How many.
    pub entries: u64,
    /// How many bytes were bad.
    pub bad_bytes: u64,
}

/// Why a log was not mended. Every message ends with what helps.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The node is in no mesh.
    #[error(
        "this node is in no mesh, so that nobody has a copy of its log\n    mend: put the files back from a backup that verifies, or move audit.jsonl and audit.d away to begin a new log"
    )]
    Alone,
    /// The mesh did not start.
    #[error("the mesh did not start: {0}\n    mend: openfang stop, if the node runs elsewhere")]
    Mesh(#[from] StartError),
    /// No peer that is wanted came.
    #[error("{wanted} cannot be reached within {} s\n    mend: start a node that mirrors this one; openfang peers on another node tells which run", LINKS.as_secs())]
    Unreachable {
        /// Who was waited for.
        wanted: String,
    },
    /// There is no copy.
    #[error(
        "{asked} has no copy of this log\n    mend: --from another node, or without --from to ask all that can be reached"
    )]
    NoCopy {
        /// Who was asked.
        asked: String,
    },
    /// The number of the log cannot be read or written.
    #[error(
        "audit.epoch, the number of the audit log: {0}\n    mend: check its permissions and df -h"
    )]
    Epoch(#[source] io::Error),
    /// The files cannot be used.
    #[error(
        "the audit log: {0}\n    mend: openfang stop, if the node runs; ls -l audit.jsonl audit.d"
    )]
    Lock(#[from] LockError),
    /// A file cannot be read or written.
    #[error("{path}: {source}\n    mend: {}", crate::files::mend(path, source.kind()))]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The copies cannot be read, or are not what was signed.
    #[error("the copies of the log: {0}\n    mend: --from another node")]
    Copies(#[source] TileError<PeerTilesError>),
    /// An entry of the copies is not one line.
    #[error("entry {seq} of the copies is not one line\n    mend: --from another node")]
    NotALine {
        /// Its number.
        seq: u64,
    },
    /// The work was cut short.
    #[error("the repair was ended\n    mend: openfang audit repair")]
    Cut,
}

/// Mends the log with what peers have, or with what `from` has: the name or id of a node. `progress` is
/// told how far the comparison is.
///
/// # Errors
/// When nobody can help, or a file cannot be read or written. It can be done again.
pub async fn repair_log(
    prepared: &Prepared,
    from: Option<&str>,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Repaired, RepairError> {
    let (config, keys) = (prepared.config(), prepared.keys());
    let epoch = audit_epoch::current(&config.home).map_err(RepairError::Epoch)?;
    let cosigners = Cosigners::default();
    let mesh_config = wire::mesh_config(config, keys, Some(epoch), cosigners, Vec::new());
    let (mesh, owner) = Mesh::start(mesh_config, Arc::new(Nobody)).await?;
    let mended = match mesh.status() {
        Status::Asleep => Err(RepairError::Alone),
        Status::Awake { .. } => with_mesh(prepared, &mesh, (from, epoch), progress).await,
    };
    owner.shutdown(FAREWELL).await;
    mended
}

async fn with_mesh(
    prepared: &Prepared,
    mesh: &Mesh,
    (from, epoch): (Option<&str>, u32),
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Repaired, RepairError> {
    let view = links(mesh, from).await?;
    let wanted = |node: &NodeId| from.is_none_or(|from| is_called(&view, node, from));
    let origin = Origin::of(&prepared.node_id(), epoch);
    let key = prepared.keys().log.verifying_key();
    let mut copies = copies_of(mesh, &view, (&origin, key)).await.heads;
    copies.retain(|(node, _)| wanted(node));
    let Some(head) = copies
        .iter()
        .map(|(_, head)| head)
        .max_by_key(|head| head.size)
    else {
        let asked = from.map_or_else(|| "no node that can be reached".to_owned(), str::to_owned);
        return Err(RepairError::NoCopy { asked });
    };
    let head = head.clone();
    let holders: BTreeSet<NodeId> = copies
        .iter()
        .filter(|(_, theirs)| *theirs == head)
        .map(|(node, _)| *node)
        .collect();
    let names = holders.iter().map(|node| name_of(&view, node)).collect();
    let tiles = PeerTiles::new(
        mesh.clone(),
        tokio::runtime::Handle::current(),
        origin.clone(),
        holders
            .into_iter()
            .map(|node| (node, Holds::Mirror))
            .collect(),
    );
    let files = Files {
        log_path: prepared.config().audit.log_path.clone(),
        dir: prepared.config().home.audit_dir(),
        key: (key, prepared.keys().log.clone()),
        origin,
    };
    let done = tokio::task::spawn_blocking(move || files.mend(&tiles, head, progress)).await;
    let done = done.map_err(|_panicked| RepairError::Cut)??;
    Ok(Repaired {
        from: names,
        ..done
    })
}

/// Waits for someone who may have a copy; then a little longer for those who are as close.
async fn links(mesh: &Mesh, from: Option<&str>) -> Result<Arc<View>, RepairError> {
    let deadline = Instant::now() + LINKS;
    let mut views = mesh.changed();
    loop {
        let view = views.borrow_and_update().clone();
        let mut others = view.nodes.iter().filter(|node| node.id != view.me);
        let there = others.clone().filter(|node| node.liveness.is_reachable());
        let enough = match from {
            Some(from) => there.clone().any(|node| is_called(&view, &node.id, from)),
            None => {
                there.clone().next().is_some() && others.all(|node| node.liveness.is_reachable())
            }
        };
        if enough {
            return Ok(view);
        }
        let any = from.is_none() && there.count() > 0;
        match timeout_at(deadline, views.changed()).await {
            Ok(Ok(())) => {}
            Err(_late) if any => return Ok(view),
            Ok(Err(_)) | Err(_) => {
                let wanted = from.unwrap_or("no node of the mesh").to_owned();
                return Err(RepairError::Unreachable { wanted });
            }
        }
    }
}

fn is_called(view: &View, node: &NodeId, name: &str) -> bool {
    node.to_string() == name || name_of(view, node) == name
}

fn name_of(view: &View, node: &NodeId) -> String {
    let found = view.node(node);
    found.map_or_else(
        || node.to_string(),
        |node| node.record.record().name.to_string(),
    )
}

/// The files of the log.
struct Files {
    log_path: PathBuf,
    dir: PathBuf,
    key: (VerifyingKey, openfang_id::SigningKey),
    origin: Origin,
}

impl Files {
    fn mend(
        &self,
        tiles: &PeerTiles,
        head: Checkpoint,
        mut progress: impl FnMut(Progress),
    ) -> Result<Repaired, RepairError> {
        let holder = format!("pid {} audit repair", std::process::id());
        let storage = FsStorage::open(&self.log_path, &self.dir, &holder)?;
        let reader = FsReader::open(&self.log_path, &self.dir)
            .map_err(|(path, source)| RepairError::Io { path, source })?;
        let mut repaired = Repaired {
            head: head.clone(),
            from: Vec::new(),
            patches: Vec::new(),
            floor: false,
            put_aside: None,
        };
        let patches = match repair::repair(&reader, tiles, &head, &mut progress) {
            Ok(patches) => patches,
            Err(repair::RepairError::TooMuch { .. }) => {
                drop(storage);
                repaired.put_aside = Some(self.put_aside()?);
                return Ok(repaired);
            }
            Err(why) => return Err(self.failed(why)),
        };
        let io = |source| RepairError::Io {
            path: self.log_path.clone(),
            source,
        };
        storage.mend(&patches).map_err(io)?;
        repaired.patches = patches
            .iter()
            .map(|patch| Replaced {
                first_seq: patch.first_seq,
                entries: patch.entries,
                bad_bytes: patch.bad.len() as u64,
            })
            .collect();
        if !self.is_above_all_signed(&head)? {
            self.leave_without_floor()?;
        } else if self.needs_floor(&head)? {
            let signed = SignedHead::sign(head, &self.key.1);
            storage.set_heads(&signed).map_err(io)?;
            repaired.floor = true;
        }
        Ok(repaired)
    }

    fn failed(&self, why: repair::RepairError<PeerTilesError>) -> RepairError {
        match why {
            repair::RepairError::Io(source) => RepairError::Io {
                path: self.log_path.clone(),
                source,
            },
            repair::RepairError::Source(why) => RepairError::Copies(why),
            repair::RepairError::NotALine { seq } => RepairError::NotALine { seq },
            repair::RepairError::TooMuch { .. } => RepairError::Cut,
        }
    }

    /// Tells whether no head is left here that is larger than that of the copies: a floor below it would
    /// let the log sign a second history.
    fn is_above_all_signed(&self, head: &Checkpoint) -> Result<bool, RepairError> {
        for name in ["floor", "checkpoint", "cosigned"] {
            let path = self.dir.join(name);
            let note = match std::fs::read(&path) {
                Ok(note) => String::from_utf8_lossy(&note).into_owned(),
                Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(RepairError::Io { path, source }),
            };
            let signed = SignedHead::open(&note, &self.origin, &self.key.0);
            if signed.is_ok_and(|signed| signed.checkpoint.size > head.size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts a floor that cannot be read aside. The next start asks the peers.
    fn leave_without_floor(&self) -> Result<(), RepairError> {
        let path = self.dir.join("floor");
        let readable = std::fs::read_to_string(&path)
            .is_ok_and(|note| SignedHead::open(&note, &self.origin, &self.key.0).is_ok());
        if readable {
            return Ok(());
        }
        match std::fs::rename(&path, self.dir.join("floor.damaged")) {
            Ok(()) => Ok(()),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(RepairError::Io { path, source }),
        }
    }

    /// Tells whether the floor is missing, unreadable, or below what the copies have.
    fn needs_floor(&self, head: &Checkpoint) -> Result<bool, RepairError> {
        let path = self.dir.join("floor");
        let note = match std::fs::read_to_string(&path) {
            Ok(note) => note,
            Err(why)
                if matches!(
                    why.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidData
                ) =>
            {
                return Ok(true);
            }
            Err(source) => return Err(RepairError::Io { path, source }),
        };
        let floor = SignedHead::open(&note, &self.origin, &self.key.0);
        // What was signed since the last copy stays the floor.
        Ok(!floor.is_ok_and(|floor| floor.checkpoint.size >= head.size))
    }

    /// Puts the whole log aside: the next start of the node fetches it.
    fn put_aside(&self) -> Result<PathBuf, RepairError> {
        for number in 1..=ASIDE_MAX {
            let folder = self.dir.join(format!("damaged-{number}"));
            let failed = |source| RepairError::Io {
                path: folder.clone(),
                source,
            };
            if folder.try_exists().map_err(failed)? {
                continue;
            }
            audit_epoch::move_log(&self.dir, &self.log_path, &folder).map_err(failed)?;
            return Ok(folder);
        }
        Err(RepairError::Io {
            path: self.dir.join("damaged-1"),
            source: io::ErrorKind::AlreadyExists.into(),
        })
    }
}

/// A host that serves nothing: the node does not run.
#[derive(Debug)]
struct Nobody;

impl Host for Nobody {
    fn call(
        &self,
        _from: NodeId,
        _request: Request,
        _cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Frame>, Failure>> {
        let refused = Failure::Refused {
            reason: "this node is being repaired".to_owned(),
        };
        std::future::ready(Err(refused)).boxed()
    }

    fn prove(&self, _from: u64, _to: u64) -> BoxFuture<'static, Result<Vec<Hash>, CannotProve>> {
        std::future::ready(Err(CannotProve::Later)).boxed()
    }

    fn on_event(&self, event: MeshEvent) {
        tracing::debug!(?event, "mesh event");
    }
}
