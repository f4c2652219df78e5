//! The bytes of every message: big-endian numbers and length-prefixed fields.
//!
//! [`Writer`] appends fields and reports once, at the end, whether everything fitted. [`Reader`] is
//! total: it never panics and never reads past its input; every length is checked against a
//! bound that the caller names before anything is copied, and [`Reader::finish`] refuses what is
//! left over, so that a message has one form only. [`FrameBuffer`] cuts a stream into frames.
//!
//! Not a general format: there are no optional or unknown fields. A change of shape is another
//! protocol version.

mod domain;
mod frame;
mod reader;
mod writer;

pub use frame::{FrameBuffer, FrameError, frame_into};
pub use reader::{DecodeError, Reader};
pub use writer::{EncodeError, Writer};

#[cfg(test)]
mod tests;
