//! The roster: who is in the mesh, what each node runs, and who is alive.
//!
//! Every node keeps one signed [`Record`] of itself, and a copy of everyone else's. Records are
//! replicated to all nodes; each origin is the only writer of its own, so that copies merge by
//! version alone. Whether a node is alive is not part of what it signs: peers watch their links,
//! gossip signed accusations, and only the accused node itself, or a live link to it,
//! clears them. And a record alone makes no node: only one that this node has a link with, or that
//! enough neighbours vouch for, is part of the mesh; others wait outside.
//!
//! [`State`] is the whole of one node, without IO. The protocol of its use:
//!
//! 1. make it with [`State::new`]; the incarnation in [`Start`] is already on disk;
//! 2. give it every [`In`] as it happens, and [`In::Timer`] at or after [`State::deadline`];
//! 3. carry out every [`Out`], in order; [`State::deadline`] may have moved.
//!
//! Messages travel on `/ofp/sync/1`: each end of a connection opens one long-lived substream and
//! writes only there; every message has four bytes of length before it, big-endian, and at most
//! [`FRAME_BYTES_MAX`] bytes. What the bytes mean: `docs/PROTOCOL.md`, *Roster and sync*.
//!
//! It does not carry calls, and it decides nothing that needs one winner: two nodes may run agents
//! of the same name.
//!
//! Sources: SWIM (Das, Gupta, Motivala 2002) for suspicion and refutation; Lifeguard
//! (arXiv:1707.00788) for timeouts that shrink with independent confirmations; scuttlebutt (van
//! Renesse et al. 2008) for reconciliation under a byte budget.

mod accusation;
mod bucket;
mod config;
mod dialing;
mod event;
mod evidence;
mod head_sync;
mod key;
mod known;
mod links;
mod liveness;
mod own;
mod proven;
mod push;
mod record;
mod rng;
mod state;
mod store;
mod strangers;
mod sync;
mod table;
mod timers;
mod trim;
mod view;
mod wire;

#[cfg(test)]
mod tests;

pub use config::{
    Config, Crypto, Ed25519, FULL_MESH_NODES, KEEP_DEAD, NODES_MAX, PICKS, RECORDS_BYTES_MAX, Start,
};
pub use event::{
    CloseReason, Connected, DialFailure, DialId, Event, In, LinkId, Offence, Out, ProofTicket,
};
pub use known::{Known, KnownError};
pub use record::{
    AgentAd, AgentState, Cosigners, LogKey, RECORD_BYTES_MAX, Record, RecordError, SignedRecord,
    Version,
};
pub use rng::Rng;
pub use state::State;
pub use view::{LinkView, Liveness, NodeView, View};
pub use wire::{FRAME_BYTES_MAX, check_frame};

pub(crate) use key::Key;
