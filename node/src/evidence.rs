//! Evidence against nodes, this one among them: kept, logged, and acted upon.
//!
//! What evidence is and proves is `openfang-audit`'s affair, whom it convicts and who is told the
//! mesh's. Here it is written to `audit.d/evidence` and into the audit log ([`Keeper`]), and whoever it
//! convicts is in quarantine ([`Quarantine`]). Where a log cannot prove that it only grew, the proof that
//! it did not is looked for ([`Forks`]). Pieces cut off from the own log lie in the same folder,
//! under names of another form.

mod forks;
mod keeper;
mod quarantine;
mod store;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use openfang_audit::Hash;
use openfang_audit::cosign::LogName;
use openfang_audit::evidence::{Evidence, EvidenceKind};
use openfang_id::NodeId;
use openfang_mesh::Conviction;
use tokio::sync::mpsc;

pub(crate) use forks::{Around, Doubt, Forks};
pub(crate) use keeper::Keeper;
pub(crate) use quarantine::{Barred, Quarantine};

/// How many convictions may wait to be written: as many as are kept.
const QUEUE: usize = store::FILES_MAX;
/// How many doubts may wait to be looked into: one that is lost comes again with the next head.
const DOUBTS: usize = 16;

/// A node that evidence has convicted.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) node: NodeId,
    pub(crate) conviction: Conviction,
    pub(crate) evidence: Arc<[u8]>,
}

/// What is to be written down, about which log.
#[derive(Debug)]
struct ToWrite {
    log: LogName,
    kind: EvidenceKind,
    id: Hash,
    evidence: Arc<[u8]>,
}

/// Where convictions are handed in, and looked up.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    quarantine: Quarantine,
    inbox: mpsc::Sender<ToWrite>,
    doubts: mpsc::Sender<Doubt>,
}

/// What there is at the start.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) desk: Desk,
    pub(crate) keeper: Keeper,
    pub(crate) forks: Forks,
    /// What is kept: for the mesh, which knows whom it is about.
    pub(crate) files: Vec<Vec<u8>>,
}

/// Reads what is kept in a folder.
pub(crate) fn open(folder: &Path, me: NodeId, allowed: BTreeSet<NodeId>) -> Opened {
    let kept = store::load(folder);
    let (inbox, queue) = mpsc::channel(QUEUE);
    let (doubts, doubted) = mpsc::channel(DOUBTS);
    Opened {
        desk: Desk {
            quarantine: Quarantine::new(me, allowed),
            inbox,
            doubts,
        },
        keeper: Keeper::new(queue, folder, kept.ids),
        forks: Forks::new(doubted),
        files: kept.files,
    }
}

/// Returns the evidence that is kept in a folder.
pub(crate) fn kept(folder: &Path) -> impl Iterator<Item = Evidence> {
    let files = store::load(folder).files.into_iter();
    files.filter_map(|file| Evidence::open(&file).ok())
}

impl Desk {
    /// Takes a conviction: in force when this returns, written soon after. Never blocks.
    pub(crate) fn convicted(&self, notice: Notice) {
        let Notice {
            node,
            conviction,
            evidence,
        } = notice;
        self.quarantine.convict(node, conviction);
        self.write(ToWrite {
            log: LogName::from(&keeper::origin(node, &evidence)),
            kind: conviction.kind,
            id: conviction.evidence,
            evidence,
        });
    }

    /// Takes evidence against a log that is of no mesh, and is witnessed here for everybody: written soon after.
    /// Never blocks.
    pub(crate) fn contradicted(&self, evidence: &Evidence) {
        tracing::error!(
            log = evidence.origin().as_str(), kind = %evidence.kind(), evidence = evidence.file_name(),
            "a log of audit.witness_logs has contradicted itself: nothing of it is cosigned any more"
        );
        self.write(ToWrite {
            log: evidence.origin().clone(),
            kind: evidence.kind(),
            id: evidence.id(),
            evidence: evidence.to_bytes().into(),
        });
    }

    fn write(&self, evidence: ToWrite) {
        if self.inbox.try_send(evidence).is_err() {
            tracing::error!("evidence is not written: too much waits, or the node stops");
        }
    }

    /// Takes a doubt: two heads of a node's log that may be of two histories. Never blocks.
    pub(crate) fn doubted(&self, doubt: Doubt) {
        if self.doubts.try_send(doubt).is_err() {
            tracing::warn!("a log that does not prove its growth is not looked into: too many are");
        }
    }

    /// Returns who is kept away.
    pub(crate) fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }
}
