//! Configuration, wiring, tasks, signals and telemetry of one node.
//!
//! The only crate that constructs the mesh, the kernel and the API and connects them, and the only
//! one besides the command line that reads the environment and files of the operator. It has no
//! logic of its own: [`prepare`] reads what the node was told and takes its home, [`run()`] starts
//! the parts in order and stops them in the reverse order.

pub mod audit_epoch;
pub mod clock;
pub mod config;
mod cosigner;
pub mod daemon;
mod entangle;
mod evidence;
pub mod files;
pub mod hardening;
pub mod home;
pub mod keys;
pub mod mirror;
pub mod network_state;
pub mod notify;
mod own_log;
pub mod put_back;
pub mod redaction;
pub mod repair;
mod run;
pub mod signal;
pub mod tasks;
pub mod telemetry;
mod wire;
mod witness;

pub use openfang_kernel::manifest::MODULES;
pub use run::{GRACE, Prepared, Ready, RunError, prepare, run};
pub use witness::own_key as witness_key;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
