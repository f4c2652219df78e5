//! Evidence against nodes, this one among them: kept, logged, and acted upon.
//!
//! What evidence is and proves is `openfang-audit`'s affair, whom it convicts and who is told the
//! mesh's. Here it is written to `audit.d/evidence` and into the audit log ([`Keeper`]), and whoever it
//! convicts is in quarantine ([`Quarantine`]). Pieces cut off from the own log lie in the same folder,
//! under names of another form.

mod keeper;
mod quarantine;
mod store;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use openfang_id::NodeId;
use openfang_mesh::Conviction;
use tokio::sync::mpsc;

pub(crate) use keeper::Keeper;
pub(crate) use quarantine::{Barred, Quarantine};

/// How many convictions may wait to be written: as many as are kept.
const QUEUE: usize = store::FILES_MAX;

/// A node that evidence has convicted.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) node: NodeId,
    pub(crate) conviction: Conviction,
    pub(crate) evidence: Arc<[u8]>,
}

/// Where convictions are handed in, and looked up.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    quarantine: Quarantine,
    inbox: mpsc::Sender<Notice>,
}

/// What there is at the start.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) desk: Desk,
    pub(crate) keeper: Keeper,
    /// What is kept: for the mesh, which knows whom it is about.
    pub(crate) files: Vec<Vec<u8>>,
}

/// Reads what is kept in a folder.
pub(crate) fn open(folder: &Path, me: NodeId, allowed: BTreeSet<NodeId>) -> Opened {
    let kept = store::load(folder);
    let (inbox, queue) = mpsc::channel(QUEUE);
    Opened {
        desk: Desk {
            quarantine: Quarantine::new(me, allowed),
            inbox,
        },
        keeper: Keeper::new(queue, folder, kept.ids),
        files: kept.files,
    }
}

impl Desk {
    /// Takes a conviction: in force when this returns, written soon after. Never blocks.
    pub(crate) fn convicted(&self, notice: Notice) {
        self.quarantine.convict(notice.node, notice.conviction);
        if self.inbox.try_send(notice).is_err() {
            tracing::error!(
                "evidence against a node is not written: too much waits, or the node stops"
            );
        }
    }

    /// Returns who is kept away.
    pub(crate) fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }
}
