//! Real nodes as processes: each with a home of its own, on free ports of the loopback address.
//!
//! A node here is the `openfang` program, run as a user runs it: `init`, `start`, `join`, signals.
//! What is asked of it goes over its HTTP API, from outside, as any client would.

mod http;
mod node;
mod process;
mod wait;

pub use http::{ApiError, Client, Reply, Streamed};
pub use node::{Node, NodeError, Setup};
pub use process::{Finished, ProcessError, Program};
pub use wait::{Expired, NotYet, until};
