//! The calling end of a substream.

use super::message::{CallId, Chunk, End, Failure, Frame, FrameKind, Request};
use super::wire::CallEncodeError;
use super::{FRAME_BYTES_MAX, Violation};
use crate::codec::FrameBuffer;

/// What happens to the calling end.
#[derive(Debug, Clone, Copy)]
pub enum In<'a> {
    /// Make this call.
    Call(&'a Request),
    /// Bytes arrived, of any number.
    Bytes(&'a [u8]),
    /// The answer is not wanted any more.
    Cancel,
    /// The substream will not be used again and is about to be closed.
    Retire,
    /// The stream ended or failed.
    Closed,
}

/// What the driver must do or pass on, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// Write these bytes as they are, and flush.
    Send(Vec<u8>),
    /// A piece of the answer.
    Chunk(Chunk),
    /// The answer is complete; the substream is idle.
    End(End),
    /// There is no (more) answer; the substream is idle.
    Failure(Failure),
    /// The call was not made; the state is what it was.
    NotSent(NotSent),
    /// The stream ended between calls.
    Closed,
    /// The stream ended during a call: whether and how far it ran is not known. Ask again with the
    /// same id, and with [`Client::received`] as `resume_from`.
    Lost(CallId),
    /// The server broke the protocol. Drop the substream; of a call in progress nothing more is known
    /// than after [`Out::Lost`].
    Violated(Violation),
}

/// Why a call was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// It is larger than a request may be.
    #[error(transparent)]
    Encode(#[from] CallEncodeError),
    /// Another call is using the substream.
    #[error("another call is using the substream")]
    InUse,
    /// The substream has ended.
    #[error("the substream has ended")]
    Ended,
}

/// The calling end of one substream: one call at a time, any number after one another.
#[derive(Debug)]
pub struct Client {
    state: State,
    buffer: FrameBuffer,
    received: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle { after_a_call: bool },
    Waiting(CallId),
    Cancelling(CallId),
    Ended,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// Starts on a fresh substream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Idle {
                after_a_call: false,
            },
            buffer: FrameBuffer::new(FRAME_BYTES_MAX),
            received: 0,
        }
    }

    /// Says whether a call may be made.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle { .. })
    }

    /// Returns how many chunks of the answer have arrived, with those of earlier attempts: the
    /// `resume_from` of the next attempt. Counted for the latest call.
    #[must_use]
    pub fn received(&self) -> u32 {
        self.received
    }

    /// Takes what happened and returns what to do.
    pub fn handle(&mut self, event: In<'_>) -> Vec<Out> {
        match event {
            In::Call(request) => vec![self.call(request).unwrap_or_else(Out::NotSent)],
            In::Bytes(bytes) => self.bytes(bytes),
            In::Cancel => self.cancel(),
            In::Retire => self.retire(),
            In::Closed => self.closed(),
        }
    }

    fn call(&mut self, request: &Request) -> Result<Out, NotSent> {
        match self.state {
            State::Idle { .. } => {}
            State::Waiting(_) | State::Cancelling(_) => return Err(NotSent::InUse),
            State::Ended => return Err(NotSent::Ended),
        }
        let bytes = super::wire::request_to_stream(request)?;
        self.state = State::Waiting(request.id);
        self.received = request.resume_from;
        Ok(Out::Send(bytes))
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> Vec<Out> {
        let mut out = Vec::new();
        while self.state != State::Ended {
            match self.next(&mut bytes) {
                Ok(Some(effect)) => out.extend(effect),
                Ok(None) => break,
                Err(violation) => {
                    self.state = State::Ended;
                    out.push(Out::Violated(violation));
                }
            }
        }
        out
    }

    /// Takes one frame. `None` when the bytes are used up.
    fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Option<Out>>, Violation> {
        let Some(frame) = self.buffer.feed(bytes)? else {
            return Ok(None);
        };
        self.frame(Frame::decode(&frame)?).map(Some)
    }

    fn frame(&mut self, frame: Frame) -> Result<Option<Out>, Violation> {
        let kind = frame.kind();
        let when = match self.state {
            State::Waiting(_) | State::Cancelling(_) => "from the answering end",
            State::Idle { .. } | State::Ended => "between calls",
        };
        let cancelling = matches!(self.state, State::Cancelling(_));
        match (self.state, frame) {
            (State::Waiting(_) | State::Cancelling(_), Frame::Chunk(chunk)) => {
                self.received = self.received.checked_add(1).ok_or(Violation::Chunks)?;
                Ok((!cancelling).then_some(Out::Chunk(chunk)))
            }
            (State::Waiting(_) | State::Cancelling(_), Frame::End(end)) => {
                self.state = State::Idle { after_a_call: true };
                Ok(Some(Out::End(end)))
            }
            (State::Waiting(_) | State::Cancelling(_), Frame::Failure(failure)) => {
                self.state = State::Idle { after_a_call: true };
                Ok(Some(Out::Failure(failure)))
            }
            (_state, _frame) => Err(Violation::Unexpected { kind, when }),
        }
    }

    fn cancel(&mut self) -> Vec<Out> {
        match self.state {
            State::Waiting(id) => {
                self.state = State::Cancelling(id);
                vec![Out::Send(super::wire::bare_to_stream(FrameKind::Cancel))]
            }
            State::Idle { .. } | State::Cancelling(_) | State::Ended => Vec::new(),
        }
    }

    fn retire(&mut self) -> Vec<Out> {
        let State::Idle { after_a_call } = self.state else {
            return Vec::new();
        };
        self.state = State::Ended;
        let received =
            after_a_call.then(|| Out::Send(super::wire::bare_to_stream(FrameKind::Received)));
        received.into_iter().collect()
    }

    fn closed(&mut self) -> Vec<Out> {
        let ended = match std::mem::replace(&mut self.state, State::Ended) {
            State::Waiting(id) | State::Cancelling(id) => Out::Lost(id),
            State::Idle { .. } => match self.buffer.finish() {
                Ok(()) => Out::Closed,
                Err(truncated) => Out::Violated(truncated.into()),
            },
            State::Ended => return Vec::new(),
        };
        vec![ended]
    }
}
