//! Witnesses: this node cosigns the heads of its peers' audit logs, and asks its peers to cosign its
//! own.
//!
//! The rules are in `openfang-audit`: [`openfang_audit::witness`] for the one side,
//! [`openfang_audit::collect`] for the other. Here are the tasks that carry questions and answers
//! between them and the mesh.

mod announcing;
mod answering;
mod asking;

pub(crate) use announcing::{Announcing, announce};
pub(crate) use answering::{Counter, Window, counter, trust_in};
pub(crate) use asking::{Asking, collect};

/// Where a head is handed in.
const ADD_CHECKPOINT: &str = "witness/add-checkpoint";
