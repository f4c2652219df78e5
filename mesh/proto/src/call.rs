//! Calls: one message to an agent of another node, and its answer back in pieces.
//!
//! A call has a substream of `/ofp/call/1` to itself from its request to its [`End`] or
//! [`Failure`]; then the substream serves the next call. [`Client`] and [`Server`] are its two ends.
//! Each takes what happened and gives back what to do; neither keeps time: deadlines are the
//! driver's, which turns one into [`client::In::Cancel`] or a [`Failure::TimedOut`].
//!
//! ```text
//! client   Idle -- Call --> Waiting -- chunks --> Waiting -- End | Failure --> Idle
//!                              \-- Cancel --> Cancelling -- End | Failure --> Idle
//! server   Idle -- request --> Running -- End | Failure --> Idle
//! either   anything unexpected, or the end of the stream --> Broken
//! ```
//!
//! On the stream each frame has four bytes of length before it, big-endian. A request has at most
//! [`REQUEST_BYTES_MAX`] bytes, a chunk at most [`CHUNK_BYTES_MAX`].
//!
//! A lost connection is not a cancel: the run goes on, and a retry with the same [`CallId`] joins it
//! (see [`dedupe`](crate::dedupe)). The next request on a substream says that the answer to the one
//! before has arrived, as does [`Frame::Received`] before the substream is closed: the server may
//! then forget that call.

pub mod client;
mod message;
pub mod server;
mod wire;

pub use client::Client;
pub use message::{CallId, Chunk, End, Failure, Frame, FrameKind, Hop, Request, Trace};
pub use server::Server;
pub use wire::{CallDecodeError, CallEncodeError};

use crate::codec::FrameError;

/// The longest request, in bytes, with everything in it.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// The longest chunk, in bytes: small enough that the chunks of many calls interleave on one
/// connection, large enough that the frame around the text does not count.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// The longest end, in bytes: an answer has the same room as a question.
pub const END_BYTES_MAX: usize = REQUEST_BYTES_MAX;
/// The longest failure, in bytes.
pub const FAILURE_BYTES_MAX: usize = 8 * 1024;
/// The longest frame of any kind, in bytes: the bound for a [`FrameBuffer`](crate::codec::FrameBuffer).
pub const FRAME_BYTES_MAX: usize = REQUEST_BYTES_MAX;

/// How the other end of a substream broke the protocol. The substream is reset and not used again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The stream does not consist of frames.
    #[error(transparent)]
    Stream(#[from] FrameError),
    /// A frame is not one of this protocol.
    #[error(transparent)]
    Decode(#[from] CallDecodeError),
    /// A frame of this kind is not allowed now.
    #[error("a {kind:?} frame is not allowed {when}")]
    Unexpected {
        /// Its kind.
        kind: FrameKind,
        /// What the substream was doing.
        when: &'static str,
    },
    /// More chunks than can be counted.
    #[error("more chunks than can be counted")]
    Chunks,
}

#[cfg(test)]
mod tests;
