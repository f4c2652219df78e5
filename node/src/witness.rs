//! Witnesses: this node cosigns the heads of its peers' audit logs, and asks its peers to cosign its
//! own.
//!
//! The rules are in `openfang-audit`: [`openfang_audit::witness`] for the one side,
//! [`openfang_audit::collect`] for the other. Here are the tasks that carry questions and answers
//! between them and the mesh.

use std::io;

use openfang_audit::cosign::{CosignerKey, Role};
use openfang_id::{NodeSeed, VerifyingKey};

use crate::home::Home;

mod answering;
mod asking;
mod generation;
mod public;

pub(crate) use answering::{Counter, Window, counter};
pub(crate) use asking::{Asking, collect};
pub(crate) use generation::WitnessKey;
pub(crate) use public::{PublicWindow, trusted};

/// Where a head is handed in.
const ADD_CHECKPOINT: &str = "witness/add-checkpoint";

/// Returns the key with which the node of a home cosigns the heads of other logs. `None` when there is
/// none left.
///
/// # Errors
/// When the home cannot be looked at.
pub fn own_key(home: &Home, seed: &NodeSeed) -> io::Result<Option<CosignerKey>> {
    let node = seed.keys().node_id();
    let chosen = WitnessKey::choose(home, seed, &node)?;
    let key = chosen.and_then(|key| VerifyingKey::from_bytes(key.public()).ok());
    Ok(key.map(|key| CosignerKey::of(&node, Role::Witness, key)))
}
