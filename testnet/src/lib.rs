//! Simulator, process testnets, scenarios and benchmarks.
//!
//! Everything that shows that a mesh works, from outside: [`cluster`] runs real nodes as processes,
//! [`demo`] is the main job end to end, [`scenario`] breaks nodes on purpose,
//! [`mod@bench`] measures beside the bare thing, [`sim`] runs a
//! thousand nodes in virtual time. Nothing depends on this crate.

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod scenario;
pub mod sim;
