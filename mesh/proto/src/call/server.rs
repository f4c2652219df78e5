//! The answering end of a substream.

use super::message::{CallId, Failure, Frame, Request};
use super::wire::CallEncodeError;
use super::{FRAME_BYTES_MAX, Violation};
use crate::codec::FrameBuffer;

/// What happens to the answering end.
#[derive(Debug, Clone, Copy)]
pub enum In<'a> {
    /// Bytes arrived, of any number.
    Bytes(&'a [u8]),
    /// Answer with this frame: a chunk, or the last one.
    Reply(&'a Frame),
    /// The stream ended or failed.
    Closed,
}

/// What the driver must do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// Write these bytes as they are, and flush.
    Send(Vec<u8>),
    /// Run this request, and reply with chunks and one last frame.
    Run(Box<Request>),
    /// The caller does not want the answer any more. A last frame is still due.
    Cancel(CallId),
    /// The caller has the whole answer to this call: it will not be asked for again.
    Received(CallId),
    /// The reply was not sent; the state is what it was.
    NotSent(NotSent),
    /// The stream ended between calls.
    Closed,
    /// The stream ended during this call. That is not a cancel: the run goes on, for a retry.
    Lost(CallId),
    /// The client broke the protocol. Drop the substream; a call in progress is lost as after
    /// [`Out::Lost`].
    Violated(Violation),
}

/// Why a reply was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// It is larger than it may be: see [`Frame::fit`].
    #[error(transparent)]
    Encode(#[from] CallEncodeError),
    /// No call is waiting for a reply.
    #[error("no call is waiting for a reply")]
    NoCall,
    /// It is not a chunk, an end or a failure.
    #[error("not a frame the answering end sends")]
    NotAReply,
}

/// The answering end of one substream: one call at a time, any number after one another.
#[derive(Debug)]
pub struct Server {
    state: State,
    buffer: FrameBuffer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Running {
        call: CallId,
        cancelled: bool,
    },
    /// Idle after a call. Its cancel may have crossed its last frame on the way. `ran` is the call
    /// when the last frame was the answer of its run, and not that it was turned away or ran before.
    Answered {
        ran: Option<CallId>,
        cancelled: bool,
    },
    /// The client has said that no call follows.
    Retired,
    Ended,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// Starts on a fresh substream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Idle,
            buffer: FrameBuffer::new(FRAME_BYTES_MAX),
        }
    }

    /// Returns the call that waits for a reply.
    #[must_use]
    pub fn running(&self) -> Option<CallId> {
        match self.state {
            State::Running { call, .. } => Some(call),
            State::Idle | State::Answered { .. } | State::Retired | State::Ended => None,
        }
    }

    /// Returns how many bytes of memory a frame takes that has begun and is not whole; 0 between two
    /// frames. Whoever drives many substreams bounds their sum.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.buffer.unfinished()
    }

    /// Takes what happened and returns what to do.
    pub fn handle(&mut self, event: In<'_>) -> Vec<Out> {
        match event {
            In::Bytes(bytes) => self.bytes(bytes),
            In::Reply(frame) => match self.reply(frame) {
                Ok(bytes) => bytes.map(Out::Send).into_iter().collect(),
                Err(why) => vec![Out::NotSent(why)],
            },
            In::Closed => self.closed(),
        }
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> Vec<Out> {
        let mut out = Vec::new();
        while self.state != State::Ended {
            match self.next(&mut bytes, &mut out) {
                Ok(true) => {}
                Ok(false) => break,
                Err(violation) => {
                    self.state = State::Ended;
                    out.push(Out::Violated(violation));
                }
            }
        }
        out
    }

    /// Takes one frame. `false` when the bytes are used up.
    fn next(&mut self, bytes: &mut &[u8], out: &mut Vec<Out>) -> Result<bool, Violation> {
        self.buffer.set_frame_bytes_max(match self.state {
            State::Idle | State::Answered { .. } | State::Ended => FRAME_BYTES_MAX,
            // Only a cancel may come, or nothing: nobody waits for more than its one byte.
            State::Running { .. } | State::Retired => 1,
        });
        let Some(frame) = self.buffer.feed(bytes)? else {
            return Ok(false);
        };
        let frame = Frame::decode(&frame)?;
        let kind = frame.kind();
        match (self.state, frame) {
            (State::Idle, Frame::Request(request)) => self.run(request, out),
            (State::Answered { ran, .. }, Frame::Request(request)) => {
                let others = ran.filter(|call| *call != request.id);
                out.extend(others.map(Out::Received));
                self.run(request, out);
            }
            (
                State::Running {
                    call,
                    cancelled: false,
                },
                Frame::Cancel,
            ) => {
                let cancelled = true;
                self.state = State::Running { call, cancelled };
                out.push(Out::Cancel(call));
            }
            (
                State::Answered {
                    ran,
                    cancelled: false,
                },
                Frame::Cancel,
            ) => {
                let cancelled = true;
                self.state = State::Answered { ran, cancelled };
            }
            (State::Answered { ran, .. }, Frame::Received) => {
                self.state = State::Retired;
                out.extend(ran.map(Out::Received));
            }
            (state, _frame) => {
                let when = match state {
                    State::Running { .. } => "during a call",
                    State::Idle | State::Answered { .. } => "between calls",
                    State::Retired | State::Ended => "after the last call",
                };
                return Err(Violation::Unexpected { kind, when });
            }
        }
        Ok(true)
    }

    fn run(&mut self, request: Request, out: &mut Vec<Out>) {
        self.state = State::Running {
            call: request.id,
            cancelled: false,
        };
        out.push(Out::Run(Box::new(request)));
    }

    /// Chunks of a cancelled call are not sent: the client would drop them.
    fn reply(&mut self, frame: &Frame) -> Result<Option<Vec<u8>>, NotSent> {
        let State::Running { call, cancelled } = self.state else {
            return Err(NotSent::NoCall);
        };
        match frame {
            Frame::Chunk(_) if cancelled => return Ok(None),
            Frame::Chunk(_) | Frame::End(_) | Frame::Failure(_) => {}
            Frame::Request(_) | Frame::Cancel | Frame::Received => return Err(NotSent::NotAReply),
        }
        let bytes = frame.to_stream()?;
        if frame.is_last() {
            let ran = is_of_the_run(frame).then_some(call);
            self.state = State::Answered { ran, cancelled };
        }
        Ok(Some(bytes))
    }

    fn closed(&mut self) -> Vec<Out> {
        let ended = match std::mem::replace(&mut self.state, State::Ended) {
            State::Running { call, .. } => Out::Lost(call),
            State::Idle | State::Answered { .. } | State::Retired => match self.buffer.finish() {
                Ok(()) => Out::Closed,
                Err(truncated) => Out::Violated(truncated.into()),
            },
            State::Ended => return Vec::new(),
        };
        vec![ended]
    }
}

/// Says whether a last frame is what the run of its call came to.
fn is_of_the_run(last: &Frame) -> bool {
    match last {
        Frame::Failure(Failure::AlreadyRan) => false,
        Frame::Failure(failure) => !failure.is_turned_away(),
        Frame::Request(_) | Frame::Chunk(_) | Frame::End(_) | Frame::Cancel | Frame::Received => {
            true
        }
    }
}
