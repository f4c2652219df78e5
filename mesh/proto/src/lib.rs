//! OFP as pure state machines: gate, roster, calls, audit heads; and its codecs.
//!
//! What two nodes say to each other, and what each concludes from it. Every part takes an event and
//! gives back effects: nothing here opens a socket, reads a clock or draws a random number, so a
//! driver, a simulator and a test all run the same code. Time is passed in as an [`Instant`], random
//! bytes as arguments.
//!
//! - [`codec`] reads and writes the bytes of every message, bounded and total;
//! - [`gate`] lets nobody into a mesh who does not hold its secret;
//! - [`call`] carries one message to an agent and its answer back, and [`dedupe`] sees to it that a
//!   repeated call runs once;
//! - [`roster`] is who is in the mesh, what they run and who lives; [`heads`] what is held of their
//!   audit logs;
//! - [`exchange`] carries what witnesses and mirrors of audit logs ask each other;
//! - [`ticket`] is the text that invites another machine.
//!
//! Byte for byte: `docs/PROTOCOL.md`.

pub mod call;
pub mod codec;
pub mod dedupe;
mod dial;
pub mod exchange;
pub mod gate;
pub mod heads;
mod instant;
pub mod roster;
pub mod ticket;

pub use instant::Instant;
