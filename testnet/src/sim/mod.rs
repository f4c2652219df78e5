//! A simulator of meshes: real states, virtual time, a network that can be broken at will.
//!
//! Every run follows from its seed: the same seed gives the same run to the last message. The states
//! are those of the product (`openfang_ofp::roster::State`); what is simulated is the driver, the
//! network, the disks and the operators. Invariants are checked after every step, and all live nodes
//! must agree at the end. A failure names its seed.

mod args;
mod clock;
mod crypto;
mod forks;
mod invariants;
mod model;
mod net;
mod probe;
mod report;
mod scenario;
mod sybil;
mod world;

#[cfg(test)]
mod tests;

pub use args::{Args, run};
pub use forks::{ForkOptions, ForkReport, simulate_forks};
pub use invariants::Violation;
pub use probe::Spread;
pub use report::{Options, Report, simulate};
pub use scenario::NAMES;
pub use world::RunError;
