//! Witnesses: this node cosigns the heads of its peers' audit logs, and asks its peers to cosign its
//! own.
//!
//! The rules are in `openfang-audit`: [`openfang_audit::witness`] for the one side,
//! [`openfang_audit::collect`] for the other. Here are the tasks that carry questions and answers
//! between them and the mesh.

mod answering;
mod asking;

pub(crate) use answering::{Counter, Window, counter, trust_in};
pub(crate) use asking::{Asking, WITNESSES, collect};

/// Where a head is handed in.
const ADD_CHECKPOINT: &str = "witness/add-checkpoint";
/// Where a node asks which heads of its own logs are known: a bundle of notes.
pub(crate) const HEADS_OF_ASKER: &str = "witness/heads-of-asker";
