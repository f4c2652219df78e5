//! Mirrors: this node keeps copies of its peers' audit logs, and has its own copied by them.
//!
//! The rules are in `openfang-audit`: [`openfang_audit::mirror`] for the one side,
//! [`openfang_audit::feed`] for the other. Here are the files of the copies and the tasks that carry
//! questions and answers between them and the mesh. A peer hands in its own log only, and every
//! member may read: that is what repair and restoring need.

mod answering;
mod copies;
mod feeding;
mod mending;
mod packing;
mod peer_tiles;
mod receiving;
mod saved;

use openfang_audit::Log;
use openfang_audit::feed::{Mirroring, Standing};
use tokio::sync::watch;

pub use peer_tiles::{Holds, NoTile, PeerTiles, PeerTilesError};

pub(crate) use answering::Desk;
pub(crate) use feeding::{Feeding, feed};
pub use saved::{damaged as damaged_notes, notes as saved_notes};

/// Waits until every mirror that can be reached holds all that is in the log now.
pub(crate) async fn copied(log: &Log, mut mirroring: watch::Receiver<Mirroring>) {
    loop {
        let all = log.size();
        {
            let now = mirroring.borrow_and_update();
            let mut takers = now.mirrors.iter().filter(|mirror| takes(mirror.standing));
            let known = now.size.is_some_and(|size| size >= all);
            if now.mirrors.is_empty() || (known && takers.all(|mirror| mirror.size >= all)) {
                return;
            }
        }
        if mirroring.changed().await.is_err() {
            return;
        }
    }
}

/// Whether a mirror may have more of the log in a moment.
fn takes(standing: Standing) -> bool {
    match standing {
        Standing::New | Standing::Uploading(_) | Standing::Holding => true,
        Standing::Unreachable
        | Standing::Ahead(_)
        | Standing::Full
        | Standing::Refused(_)
        | Standing::Invalid => false,
    }
}

/// Where a head is handed in.
const ADD_CHECKPOINT: &str = "mirror/add-checkpoint";
/// Where entries are handed in.
const ADD_ENTRIES: &str = "mirror/add-entries";

#[cfg(test)]
mod tests;
