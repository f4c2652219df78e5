//! Witnesses: this node cosigns the heads of its peers' audit logs, and asks its peers to cosign its
//! own.
//!
//! The rules are in `openfang-audit`: [`openfang_audit::witness`] for the one side,
//! [`openfang_audit::collect`] for the other. Here are the tasks that carry questions and answers
//! between them and the mesh.

use std::io;

use openfang_audit::cosign::{CosignerKey, Role};
use openfang_id::{NodeSeed, VerifyingKey};

use crate::cosigner::RoleKey;
use crate::home::Home;

mod announcing;
mod answering;
mod asking;
mod public;

pub(crate) use announcing::{Announcing, announce};
pub(crate) use answering::{Counter, Rules, Window, counter, trust_in};
pub(crate) use asking::{Asking, WITNESSES, collect};
pub(crate) use public::{PublicWindow, trusted};

/// Where a head is handed in.
const ADD_CHECKPOINT: &str = "witness/add-checkpoint";
/// Where a node asks which heads of its own logs are known: a bundle of notes.
pub(crate) const HEADS_OF_ASKER: &str = "witness/heads-of-asker";

/// Returns the key with which the node of a home cosigns the heads of other logs. `None` when there is
/// none left.
///
/// # Errors
/// When the home cannot be looked at.
pub fn own_key(home: &Home, seed: &NodeSeed) -> io::Result<Option<CosignerKey>> {
    let node = seed.keys().node_id();
    let chosen = RoleKey::choose(home, seed, &node, Role::Witness)?;
    let key = chosen.and_then(|key| VerifyingKey::from_bytes(key.public()).ok());
    Ok(key.map(|key| CosignerKey::of(&node, Role::Witness, key)))
}
