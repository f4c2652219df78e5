//! Agents, the turn, tools, model drivers and memory of one node.
//!
//! The entry is [`Kernel`]: [`Kernel::spawn`] makes an agent of a [`Manifest`], [`Kernel::send`]
//! brings a message to an agent anywhere in the mesh and gives back the events of its turn as a
//! [`TurnStream`]. What the kernel needs of other nodes it states in [`ports`]; it names no
//! transport and no HTTP server. Everything an agent does is in the audit log before it is done.

mod agent;
mod audit;
mod away;
mod change;
mod clock;
mod config;
mod delivery;
mod entropy;
mod error;
mod handle;
mod life;
pub mod manifest;
mod meter;
mod model;
mod policy;
pub mod ports;
mod principal;
pub mod provider;
mod registry;
mod resolve;
mod run;
mod store;
mod stream;
mod tasks;
mod tool;
mod turn;

pub use agent::{AgentInfo, AgentState, AgentStateError, Listed, Restarted};
pub use audit::{Announced, AuditError, Auditor, Demands, Durability, Sink};
pub use config::{Config, Limits, ModelConfig, ModelKeys, ModelLimits};
pub use delivery::{DEPTH_MAX, Delivery, MAIN_SESSION, MESSAGE_BYTES_MAX, Outgoing};
pub use error::{KillError, Looked, OpenError, SendError, SpawnError, StoreError, TurnError};
pub use handle::{Kernel, Owner};
pub use manifest::{Manifest, ManifestError, ManifestWarning};
pub use model::ModelError;
pub use principal::{Principal, PrincipalError};
pub use stream::{CHUNK_BYTES_MAX, SHOWN_BYTES_MAX, TurnDone, TurnEvent, TurnStream};
pub use tool::Tool;
