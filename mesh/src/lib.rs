//! The libp2p driver of OFP: sockets, clocks and tasks around the state machines of [`openfang_ofp`].
//!
//! Entry point: [`Mesh::start`]. Nothing here decides about the protocol: who may enter is
//! [`openfang_ofp::gate`]'s, who is there is [`openfang_ofp::roster`]'s, what a call is
//! [`openfang_ofp::call`]'s. This crate carries their bytes, keeps their time, and bounds what peers
//! may use. It is the only crate that names libp2p, and knows nothing of agents: the node plugs them
//! in through [`Host`].

mod addrs;
mod admission;
mod awake;
mod behaviour;
mod budget;
mod client;
mod clock;
mod config;
mod dialer;
mod disk;
mod driver;
mod effects;
mod entropy;
mod error;
mod exchange;
mod handler;
mod host;
mod joins;
mod links;
mod mesh;
mod pool;
mod server;
mod swarm;
mod transport;

pub use client::Reply;
pub use config::{Config, Limits, Listen};
pub use error::{AddrFailure, AskError, CallError, JoinError, StartError, TicketError, Tried};
pub use exchange::QUESTIONS_MAX;
pub use host::{Host, Joining, MeshEvent};
pub use mesh::{Joined, Mesh, Owner, Status};
pub use openfang_ofp::call;
pub use openfang_ofp::exchange::{Answer, Question, Verb};
pub use openfang_ofp::gate::{Epoch, VERSION as PROTOCOL_VERSION};
pub use openfang_ofp::heads::{CannotProve, Conviction, HeadView, Why};
pub use openfang_ofp::roster::{Cosigners, LinkView, Liveness, NodeView, View};
pub use openfang_ofp::ticket::{Ticket, TicketParseError};

/// For results that say only that the other side is gone, where nothing is left to do about it.
fn ignore_gone<T>(_result: T) {}

/// Shows a node in a log line, and costs nothing when the line is not written.
struct ShortId<'a>(&'a openfang_id::NodeId);

impl std::fmt::Display for ShortId<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.fmt_short())
    }
}
