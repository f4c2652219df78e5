//! Copies that rotted, written anew from those who have the same.
//!
//! A challenge shows that an entry is lost or was changed on the disk. Then the whole copy is read
//! through, and every bundle that is not what was stored is fetched again: from the node of the log, or
//! from its other mirrors. It is checked against the tree of what was stored, wherever it comes from.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openfang_audit::cosign::Role;
use openfang_audit::feed::MIRRORS;
use openfang_audit::mirror::MendError;
use openfang_audit::policy::assign;
use openfang_audit::tile::{Bundle, TileKind, TilePath, TileSource as _};
use openfang_audit::{Hash, Origin};
use openfang_id::NodeId;
use openfang_mesh::{Mesh, NodeView, View};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::copies::{Copies, Copy, CopyError};
use super::{Holds, PeerTiles};

/// Copies that wait to be mended.
const QUEUE: usize = 32;
/// How long a copy is left alone after it was read through.
const MEND_EVERY: Duration = Duration::from_secs(60);
/// From how many nodes a bundle is tried.
const TRIES: usize = 1 + MIRRORS;

/// A copy that is damaged.
#[derive(Debug)]
pub(super) struct Damaged {
    pub(super) id: Hash,
    pub(super) copies: Arc<Copies>,
}

/// Mends copies, one after the other.
#[derive(Debug)]
pub(crate) struct Mender(mpsc::Receiver<Damaged>);

/// What became of a damaged copy.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mended {
    /// Bundles that were not what was stored.
    pub(super) bad: usize,
    /// How many of them are so again.
    pub(super) mended: usize,
}

/// Why a copy was not read through to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum MendCopyError {
    /// It cannot be used.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// It cannot be read.
    #[error("the copy cannot be read through")]
    Read(#[from] io::Error),
}

/// Makes a mender and the queue in front of it. What does not fit is noticed again.
pub(super) fn mender() -> (mpsc::Sender<Damaged>, Mender) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (sender, Mender(receiver))
}

impl Mender {
    /// Mends until the node ends.
    pub(crate) async fn run(mut self, mesh: Mesh, stop: CancellationToken) {
        let mut last: BTreeMap<Hash, Instant> = BTreeMap::new();
        loop {
            let damaged = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                damaged = self.0.recv() => damaged,
            };
            let Some(Damaged { id, copies }) = damaged else {
                // Nobody keeps copies here.
                return stop.cancelled().await;
            };
            last.retain(|_copy, when| when.elapsed() < MEND_EVERY);
            let (Some(copy), false) = (copies.find(&id), last.contains_key(&id)) else {
                continue;
            };
            last.insert(id, Instant::now());
            let Ok(origin) = copy.name().as_str().parse::<Origin>() else {
                continue;
            };
            let sources = sources(&mesh.view(), &origin);
            let files = PeerTiles::new(mesh.clone(), Handle::current(), origin, sources);
            let until = stop.clone();
            let mended =
                tokio::task::spawn_blocking(move || mend(&copies, &copy, &files, &until)).await;
            tell(&id, mended);
        }
    }
}

fn tell(id: &Hash, mended: Result<Result<Mended, MendCopyError>, tokio::task::JoinError>) {
    match mended {
        Ok(Ok(Mended { bad: 0, .. })) => {
            tracing::info!(copy = %id, "the copy of a log was read through and is whole");
        }
        Ok(Ok(Mended { bad, mended })) if bad == mended => {
            tracing::info!(copy = %id, bundles = mended, "the copy of a log was mended");
        }
        Ok(Ok(Mended { bad, mended })) => {
            tracing::warn!(copy = %id, bad, mended, "the copy of a log is damaged: not every bundle could be had again");
        }
        Ok(Err(why)) => tracing::error!(copy = %id, error = %why, "the copy of a log is damaged"),
        Err(why) => tracing::error!(copy = %id, error = %why, "mending the copy of a log failed"),
    }
}

/// Lists who has a log: its node, and who would be chosen to mirror it.
fn sources(view: &View, origin: &Origin) -> Vec<(NodeId, Holds)> {
    let others = || {
        let there = |node: &&NodeView| node.id != view.me && node.liveness.is_reachable();
        view.nodes.iter().filter(there)
    };
    let own = others().filter(|node| origin.belongs_to(&node.id));
    let own = own.map(|node| (node.id, Holds::Own));
    let keeps = |node: &&NodeView| node.record.record().cosigners.mirror.is_some();
    let mirrors: Vec<NodeId> = others().filter(keeps).map(|node| node.id).collect();
    let mirrors = assign(Role::Mirror, origin, &mirrors, MIRRORS);
    own.chain(mirrors.into_iter().map(|node| (node, Holds::Mirror)))
        .collect()
}

/// Reads a copy through and writes what rotted anew.
fn mend(
    copies: &Copies,
    copy: &Copy,
    files: &PeerTiles,
    stop: &CancellationToken,
) -> Result<Mended, MendCopyError> {
    let bad = copies.read(copy, |mirror| mirror.scrub(&mut |_progress| ()))??;
    let mut mended = Mended {
        bad: bad.len(),
        mended: 0,
    };
    for index in bad {
        if stop.is_cancelled() {
            break;
        }
        mended.mended += usize::from(mend_bundle(copies, copy, files, index)?);
    }
    Ok(mended)
}

fn mend_bundle(
    copies: &Copies,
    copy: &Copy,
    files: &PeerTiles,
    index: u64,
) -> Result<bool, CopyError> {
    for _try in 0..TRIES {
        let place = copies.read(copy, |mirror| {
            TilePath::at(TileKind::Entries, index, mirror.next_entry())
        })?;
        let Some(path) = place else {
            return Ok(false);
        };
        let bundle = match files.tile(&path) {
            Ok(Some(bytes)) => Bundle::parse(bytes, path.width()).ok(),
            Ok(None) => None,
            Err(why) => {
                tracing::debug!(%path, error = %why, "a bundle cannot be had");
                return Ok(false);
            }
        };
        let Some(bundle) = bundle else {
            return Ok(false);
        };
        match copies.write(copy, |mirror| mirror.mend(index, &bundle))? {
            Ok(()) => return Ok(true),
            // Another log, or a lie: whoever is next may have the right one.
            Err(MendError::Other) => files.distrust(),
            Err(why @ (MendError::Displaced | MendError::Store(_))) => {
                tracing::error!(%path, error = %why, "a bundle of the copy of a log cannot be written");
                return Ok(false);
            }
        }
    }
    Ok(false)
}
