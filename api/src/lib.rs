//! The HTTP API: routes, authentication, limits and headers.
//!
//! [`router()`] makes the routes of a [`State`], [`serve()`] answers on a socket. Here the facts of the
//! kernel, the mesh and the audit log become JSON ([`openfang_schema`]) and nowhere else; no rule of
//! theirs is decided here. What is decided here is who may ask: `auth` holds that decision, as one
//! pure function.
//!
//! Walk of a request: `serve` (socket, limits) → `edge` (number, span, access, headers) → a handler in
//! `routes` → kernel or mesh → `wire` or `error` (JSON).

mod auth;
mod calls;
mod cors;
mod edge;
mod error;
mod extract;
mod failures;
mod headers;
mod peers;
mod places;
mod rate;
mod router;
mod routes;
mod serve;
mod state;
mod wire;

pub use auth::{Access, AuthConfig, Decision, Denial, Reach, RequestFacts, decide};
pub use router::router;
pub use serve::{DRAIN, ServeError, serve};
pub use state::{JoinStore, KeepError, LogFiles, Membership, NodeInfo, PublicWitness, State};
