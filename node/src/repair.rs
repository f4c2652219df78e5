//! Mending the audit log of a node that does not run, from copies that its peers have.
//!
//! The home is held as by a running node. The mesh starts with a host that answers nothing, only to
//! reach those who keep copies; what they give is checked against a head that this log has signed.

mod error;
mod files;
mod links;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openfang_audit::repair::NoPart;
use openfang_audit::tile::Progress;
use openfang_audit::{Checkpoint, Hash, Origin};
use openfang_id::NodeId;
use openfang_mesh::{Cosigners, Host, Mesh, MeshEvent, Status, View};
use openfang_ofp::call::{Failure, Frame, Request};
use openfang_ofp::heads::CannotProve;
use tokio_util::sync::CancellationToken;

pub use error::RepairError;
use files::{Files, Fresh};
pub use links::LINKS;
use links::{is_called, links, name_of};

use crate::audit_epoch;
use crate::mirror::{Holds, PeerTiles};
use crate::own_log::{Copies, copies_of};
use crate::run::Prepared;
use crate::wire;

/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted<'a> {
    /// Whose copy to use alone: the name or id of a node.
    pub from: Option<&'a str>,
    /// Whether a node without a mesh takes its entries as they stand where the signed heads are gone.
    pub accept: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repaired {
    /// The head that the lines were checked against; `None` when no copy was needed.
    pub head: Option<Checkpoint>,
    /// Whose copy helped.
    pub from: Vec<String>,
    /// Who was not heard of, and may have a longer copy.
    pub silent: Vec<String>,
    /// What was replaced, in the order of the log.
    pub patches: Vec<Replaced>,
    /// What was cut off behind the last entry that counts.
    pub cut: Option<Cut>,
    /// Whether the signing floor was made again, from a head that the copies have or the published one.
    pub floor: bool,
    /// Whether a damaged published head was made again from the floor.
    pub published: bool,
    /// What was taken as it stands, without a copy.
    pub accepted: Option<Accepted>,
    /// Where the damaged log is, when too much of it was bad: the next start fetches all of it.
    pub put_aside: Option<PathBuf>,
}

/// Lines that were replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// The first entry that differed.
    pub first_seq: u64,
    /// The number behind the last one that did.
    pub end_seq: u64,
    /// How many of those between differed or were missing; 0 when something was only put in.
    pub entries: u64,
    /// How many bytes were bad.
    pub bad_bytes: u64,
    /// How many bytes of lines that stood there are kept.
    pub kept_bytes: u64,
    /// The first entry that was fetched.
    pub fetched_seq: u64,
    /// How many were: whole bundles.
    pub fetched: u64,
}

/// Bytes that were cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The number that an entry in their place would have.
    pub seq: u64,
    /// How many.
    pub bytes: u64,
    /// Why they are no part of the log.
    pub why: NoPart,
    /// Where they are kept.
    pub kept: PathBuf,
}

/// On what a log without a signing floor goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// On its published head of so many entries, to which they lead.
    Published {
        /// How many.
        size: u64,
    },
    /// On its entries as they stand: no signed head says what they were.
    Unsigned {
        /// How many.
        entries: u64,
    },
}

/// Mends the log: cuts off what is no part of it, and replaces what is not what was signed by what peers
/// have. `progress` is told how far the comparison is.
///
/// # Errors
/// When nobody can help, or a file cannot be read or written. It can be done again.
pub async fn repair_log(
    prepared: &Prepared,
    wanted: Wanted<'_>,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Repaired, RepairError> {
    let (config, keys) = (prepared.config(), prepared.keys());
    let me = (&prepared.node_id(), &keys.log.verifying_key());
    let epoch = audit_epoch::checked(&config.home, me);
    let epoch = epoch.map_err(|why| RepairError::Epoch { why })?;
    let in_mesh = config.network.enabled && config.network.secret.is_some();
    if wanted.accept && in_mesh {
        return Err(RepairError::NotAlone);
    }
    let files = Files::of(prepared, epoch);
    let fresh = Fresh::before(&config.audit.log_path);
    let accept = wanted.accept;
    let local = tokio::task::spawn_blocking(move || files.mend_alone(accept, in_mesh)).await;
    let local = local.map_err(|_panicked| RepairError::Cut)??;
    let is_done = local.cut.is_some() || local.floor || local.published || !in_mesh;
    if local.is_whole && is_done && wanted.from.is_none() {
        return Ok(local.repaired());
    }
    let cosigners = Cosigners::default();
    let mesh_config = wire::mesh_config(config, keys, Some(epoch), cosigners, Vec::new());
    let (mesh, owner) = Mesh::start(mesh_config, Arc::new(Nobody)).await?;
    let mended = match mesh.status() {
        Status::Asleep => Err(RepairError::Alone {
            what: "there is nobody to ask".to_owned(),
            heads_gone: false,
        }),
        Status::Awake { .. } => with_mesh(prepared, &mesh, (wanted.from, epoch), progress).await,
    };
    owner.shutdown(FAREWELL).await;
    drop(fresh);
    let nobody = matches!(
        mended,
        Err(RepairError::Unreachable { .. } | RepairError::NoCopy { .. })
    );
    // What is whole needs no copy. That nobody could say whether it is all there was is for the next start.
    if nobody && local.is_intact && wanted.from.is_none() {
        return Ok(local.repaired());
    }
    mended.map(|mended| Repaired {
        cut: local.cut.or(mended.cut),
        floor: local.floor || mended.floor,
        published: local.published,
        ..mended
    })
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
    let Copies { heads, silent } = copies_of(mesh, &view, (&origin, key)).await;
    let mut copies = heads;
    copies.retain(|(node, _)| wanted(node));
    let Some(head) = copies
        .iter()
        .map(|(_, head)| head)
        .max_by_key(|head| head.size)
    else {
        return Err(no_copy(&view, from, &silent));
    };
    let head = head.clone();
    let holders: BTreeSet<NodeId> = copies
        .iter()
        .filter(|(_, theirs)| *theirs == head)
        .map(|(node, _)| *node)
        .collect();
    let names_of = |nodes: &mut dyn Iterator<Item = &NodeId>| {
        let names = nodes.map(|node| name_of(&view, node));
        names.collect::<Vec<String>>()
    };
    let names = names_of(&mut holders.iter());
    let silent = names_of(&mut silent.iter());
    let tiles = PeerTiles::new(
        mesh.clone(),
        tokio::runtime::Handle::current(),
        origin.clone(),
        holders
            .into_iter()
            .map(|node| (node, Holds::Mirror))
            .collect(),
    );
    let files = Files::of(prepared, epoch);
    let done = tokio::task::spawn_blocking(move || files.mend(&tiles, head, progress)).await;
    let done = done.map_err(|_panicked| RepairError::Cut)??;
    Ok(Repaired {
        from: names,
        silent,
        ..done
    })
}

/// Tells a node that has no copy from one that does not say.
fn no_copy(view: &View, from: Option<&str>, silent: &[NodeId]) -> RepairError {
    let others = view.nodes.iter().filter(|node| node.id != view.me);
    let mut asked = others.filter(|node| {
        let wanted = from.is_none_or(|from| is_called(view, &node.id, from));
        wanted && node.liveness.is_reachable()
    });
    if asked.all(|node| silent.contains(&node.id)) {
        let wanted = from.map(str::to_owned);
        return RepairError::Unreachable { wanted };
    }
    let asked = match from {
        Some(name) => format!("the node {name} does not have"),
        None => "none of the nodes that can be reached has".to_owned(),
    };
    let all = from.is_none();
    RepairError::NoCopy { asked, all }
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
