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

pub use peer_tiles::{Holds, NoTile, PeerTiles, PeerTilesError};

pub(crate) use answering::Desk;
pub(crate) use feeding::{Feeding, feed};
pub(crate) use mending::Mender;

/// Where a head is handed in.
const ADD_CHECKPOINT: &str = "mirror/add-checkpoint";
/// Where entries are handed in.
const ADD_ENTRIES: &str = "mirror/add-entries";

#[cfg(test)]
mod tests;
