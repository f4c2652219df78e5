//! The bytes of a call's frames, and their bounds.

use super::message::{CallId, Chunk, End, Failure, Frame, FrameKind, Hop, Request, Trace};
use super::{CHUNK_BYTES_MAX, END_BYTES_MAX, FAILURE_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::codec::{DecodeError, EncodeError, Reader, Writer};

/// The most bytes of a principal, sender, session, cause, or the id or name of a tool.
const NAME_BYTES_MAX: usize = 256;
/// The most agents in a path: the kernel's own limit is far below.
const HOPS_MAX: usize = 32;
/// The most labels of a request.
const LABELS_MAX: usize = 32;
/// The most bytes of a label.
const LABEL_BYTES_MAX: usize = 128;
/// The most bytes of the reason of [`Failure::Refused`].
const REASON_BYTES_MAX: usize = 1024;
/// The most bytes of the code of [`Failure::AgentFailed`].
const CODE_BYTES_MAX: usize = 64;
/// The most bytes of the message of [`Failure::AgentFailed`].
const FAILURE_TEXT_BYTES_MAX: usize = 4096;
/// More than everything but the text takes in a chunk or an end.
const OVERHEAD_BYTES_MAX: usize = 1024;
/// The length before a frame.
const HEADER_BYTES: usize = 4;

const REQUEST: u8 = 1;
const CHUNK: u8 = 2;
const END: u8 = 3;
const FAILURE: u8 = 4;
const CANCEL: u8 = 5;
const RECEIVED: u8 = 6;

const TEXT: u8 = 1;
const TOOL_START: u8 = 2;
const TOOL_END: u8 = 3;

/// Why a frame cannot be sent. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallEncodeError {
    /// The frame is larger than its kind may be.
    #[error("a {kind:?} frame of {len} bytes is larger than the {max} it may have")]
    TooLarge {
        /// Its kind.
        kind: FrameKind,
        /// Its length in bytes.
        len: usize,
        /// The most it may have.
        max: usize,
    },
    /// A field is longer than it may be.
    #[error(transparent)]
    Field(EncodeError),
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallDecodeError {
    /// The frame is larger than its kind may be.
    #[error("a {kind:?} frame of {len} bytes is larger than the {max} it may have")]
    TooLarge {
        /// Its kind.
        kind: FrameKind,
        /// Its length in bytes.
        len: usize,
        /// The most it may have.
        max: usize,
    },
    /// The frame has no form that is known.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl FrameKind {
    /// Returns the most bytes a frame of this kind may have.
    #[must_use]
    pub fn bytes_max(self) -> usize {
        match self {
            Self::Request => REQUEST_BYTES_MAX,
            Self::Chunk => CHUNK_BYTES_MAX,
            Self::End => END_BYTES_MAX,
            Self::Failure => FAILURE_BYTES_MAX,
            Self::Cancel | Self::Received => 1,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Request => REQUEST,
            Self::Chunk => CHUNK,
            Self::End => END,
            Self::Failure => FAILURE,
            Self::Cancel => CANCEL,
            Self::Received => RECEIVED,
        }
    }

    fn from_code(value: u8) -> Result<Self, DecodeError> {
        Ok(match value {
            REQUEST => Self::Request,
            CHUNK => Self::Chunk,
            END => Self::End,
            FAILURE => Self::Failure,
            CANCEL => Self::Cancel,
            RECEIVED => Self::Received,
            value => {
                let what = "kind of frame";
                return Err(DecodeError::Unknown { what, value });
            }
        })
    }
}

impl Frame {
    /// Returns the frame as it goes on the stream: four bytes of length, then the frame.
    ///
    /// # Errors
    /// When the frame or one of its fields is over its bound.
    pub fn to_stream(&self) -> Result<Vec<u8>, CallEncodeError> {
        let kind = self.kind();
        let mut writer = started(kind, self.bytes_held());
        match self {
            Self::Request(request) => write_request(&mut writer, request),
            Self::Chunk(chunk) => write_chunk(&mut writer, chunk),
            Self::End(end) => write_end(&mut writer, end),
            Self::Failure(failure) => write_failure(&mut writer, failure),
            Self::Cancel | Self::Received => {}
        }
        ended(kind, writer)
    }

    /// Reads a frame, without the length before it.
    ///
    /// # Errors
    /// When it is over its bound, or has no form that is known.
    pub fn decode(bytes: &[u8]) -> Result<Self, CallDecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = FrameKind::from_code(reader.u8()?)?;
        let (len, max) = (bytes.len(), kind.bytes_max());
        if len > max {
            return Err(CallDecodeError::TooLarge { kind, len, max });
        }
        let frame = match kind {
            FrameKind::Request => Self::Request(read_request(&mut reader)?),
            FrameKind::Chunk => Self::Chunk(read_chunk(&mut reader)?),
            FrameKind::End => Self::End(read_end(&mut reader)?),
            FrameKind::Failure => Self::Failure(read_failure(&mut reader)?),
            FrameKind::Cancel => Self::Cancel,
            FrameKind::Received => Self::Received,
        };
        reader.finish()?;
        Ok(frame)
    }

    /// Makes a reply fit: text too long for one chunk becomes several, what a tool was given or
    /// gave back and the texts of a failure are shortened at a character, and an end whose response
    /// is too long becomes [`Failure::TooLarge`]. What is not a reply stays as it is.
    #[must_use]
    pub fn fit(self) -> Vec<Self> {
        match self {
            Self::Chunk(chunk) => fit_chunk(chunk).into_iter().map(Self::Chunk).collect(),
            Self::End(mut end) => {
                end.cause.take_if(|cause| cause.len() > NAME_BYTES_MAX);
                let response = end.response.as_ref().map_or(0, String::len);
                if response > END_BYTES_MAX - OVERHEAD_BYTES_MAX {
                    let limit_bytes = u32::try_from(END_BYTES_MAX).unwrap_or(u32::MAX);
                    return vec![Self::Failure(Failure::TooLarge { limit_bytes })];
                }
                vec![Self::End(end)]
            }
            Self::Failure(failure) => vec![Self::Failure(fit_failure(failure))],
            Self::Request(_) | Self::Cancel | Self::Received => vec![self],
        }
    }
}

/// As [`Frame::to_stream`], of a request that need not be moved into a frame.
pub(super) fn request_to_stream(request: &Request) -> Result<Vec<u8>, CallEncodeError> {
    let kind = FrameKind::Request;
    let mut writer = started(kind, request.message.len() + OVERHEAD_BYTES_MAX);
    write_request(&mut writer, request);
    ended(kind, writer)
}

/// As [`Frame::to_stream`], of a frame without fields.
pub(super) fn bare_to_stream(kind: FrameKind) -> Vec<u8> {
    vec![0, 0, 0, 1, kind.code()]
}

/// Begins a frame with room for its length.
fn started(kind: FrameKind, capacity: usize) -> Writer {
    let mut writer = Writer::with_capacity(HEADER_BYTES + capacity);
    writer.u32(0).u8(kind.code());
    writer
}

/// Checks the length of a frame and puts it before.
fn ended(kind: FrameKind, writer: Writer) -> Result<Vec<u8>, CallEncodeError> {
    let mut bytes = writer.finish(usize::MAX).map_err(CallEncodeError::Field)?;
    let (len, max) = (bytes.len() - HEADER_BYTES, kind.bytes_max());
    match u32::try_from(len) {
        Ok(header) if len <= max => {
            bytes[..HEADER_BYTES].copy_from_slice(&header.to_be_bytes());
            Ok(bytes)
        }
        Ok(_) | Err(_) => Err(CallEncodeError::TooLarge { kind, len, max }),
    }
}

fn write_request(writer: &mut Writer, request: &Request) {
    let name = |writer: &mut Writer, text: &str| {
        writer.str16_max(text, NAME_BYTES_MAX);
    };
    writer
        .raw(&request.id.0)
        .u32(request.deadline_ms)
        .u32(request.resume_from)
        .u64(request.hlc)
        .agent_key(&request.agent)
        .str16_max(&request.principal, NAME_BYTES_MAX)
        .option(request.sender.as_deref(), name)
        .option(request.session.as_deref(), name)
        .option(request.cause.as_deref(), name)
        .option(request.trace.as_ref(), |writer, trace| {
            writer.raw(&trace.trace).raw(&trace.span).u8(trace.flags);
        })
        .check(request.labels.len(), LABELS_MAX)
        .count8(request.labels.len());
    for label in &request.labels {
        writer.str16_max(label, LABEL_BYTES_MAX);
    }
    writer
        .check(request.path.len(), HOPS_MAX)
        .count8(request.path.len());
    for hop in &request.path {
        writer.node_id(&hop.node).agent_id(&hop.agent);
    }
    writer.str32(&request.message);
}

fn read_request(reader: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let name = |reader: &mut Reader<'_>| reader.str16(NAME_BYTES_MAX).map(str::to_owned);
    let id = CallId(reader.array()?);
    let deadline_ms = reader.u32()?;
    let resume_from = reader.u32()?;
    let hlc = reader.u64()?;
    let agent = reader.agent_key()?;
    let principal = name(reader)?;
    let sender = reader.option(name)?;
    let session = reader.option(name)?;
    let cause = reader.option(name)?;
    let trace = reader.option(|reader| {
        Ok(Trace {
            trace: reader.array()?,
            span: reader.array()?,
            flags: reader.u8()?,
        })
    })?;
    let mut labels = Vec::new();
    for _each in 0..reader.count8(LABELS_MAX)? {
        labels.push(reader.str16(LABEL_BYTES_MAX)?.to_owned());
    }
    let mut path = Vec::new();
    for _each in 0..reader.count8(HOPS_MAX)? {
        path.push(Hop {
            node: reader.node_id()?,
            agent: reader.agent_id()?,
        });
    }
    let message = reader.str32(REQUEST_BYTES_MAX)?.to_owned();
    Ok(Request {
        id,
        agent,
        message,
        principal,
        path,
        deadline_ms,
        resume_from,
        hlc,
        cause,
        labels,
        trace,
        session,
        sender,
    })
}

fn write_chunk(writer: &mut Writer, chunk: &Chunk) {
    match chunk {
        Chunk::Text(text) => writer.u8(TEXT).str32(text),
        Chunk::ToolStart { id, tool, input } => writer
            .u8(TOOL_START)
            .str16_max(id, NAME_BYTES_MAX)
            .str16_max(tool, NAME_BYTES_MAX)
            .str32(input),
        Chunk::ToolEnd {
            id,
            tool,
            output,
            is_error,
        } => writer
            .u8(TOOL_END)
            .str16_max(id, NAME_BYTES_MAX)
            .str16_max(tool, NAME_BYTES_MAX)
            .bool(*is_error)
            .str32(output),
    };
}

fn read_chunk(reader: &mut Reader<'_>) -> Result<Chunk, DecodeError> {
    let name = |reader: &mut Reader<'_>| reader.str16(NAME_BYTES_MAX).map(str::to_owned);
    let text = |reader: &mut Reader<'_>| reader.str32(CHUNK_BYTES_MAX).map(str::to_owned);
    Ok(match reader.u8()? {
        TEXT => Chunk::Text(text(reader)?),
        TOOL_START => Chunk::ToolStart {
            id: name(reader)?,
            tool: name(reader)?,
            input: text(reader)?,
        },
        TOOL_END => {
            let (id, tool) = (name(reader)?, name(reader)?);
            let is_error = reader.bool()?;
            Chunk::ToolEnd {
                id,
                tool,
                output: text(reader)?,
                is_error,
            }
        }
        value => {
            let what = "kind of chunk";
            return Err(DecodeError::Unknown { what, value });
        }
    })
}

fn write_end(writer: &mut Writer, end: &End) {
    writer
        .agent_id(&end.agent)
        .agent_name(&end.agent_name)
        .u64(end.input_tokens)
        .u64(end.output_tokens)
        .u32(end.iterations)
        .u64(end.hlc)
        .option(end.cause.as_deref(), |writer, cause| {
            writer.str16_max(cause, NAME_BYTES_MAX);
        })
        .option(end.response.as_deref(), |writer, response| {
            writer.str32(response);
        });
}

fn read_end(reader: &mut Reader<'_>) -> Result<End, DecodeError> {
    let agent = reader.agent_id()?;
    let agent_name = reader.agent_name()?;
    let input_tokens = reader.u64()?;
    let output_tokens = reader.u64()?;
    let iterations = reader.u32()?;
    let hlc = reader.u64()?;
    let cause = reader.option(|reader| reader.str16(NAME_BYTES_MAX).map(str::to_owned))?;
    let response = reader.option(|reader| reader.str32(END_BYTES_MAX).map(str::to_owned))?;
    Ok(End {
        agent,
        agent_name,
        response,
        input_tokens,
        output_tokens,
        iterations,
        cause,
        hlc,
    })
}

fn write_failure(writer: &mut Writer, failure: &Failure) {
    writer.u8(failure.code());
    match failure {
        Failure::UnknownAgent { looked_for } => {
            writer.str16_max(looked_for, NAME_BYTES_MAX);
        }
        Failure::Busy { retry_after_ms: n }
        | Failure::TooLarge { limit_bytes: n }
        | Failure::TooDeep { limit: n } => {
            writer.u32(*n);
        }
        Failure::Refused { reason } => {
            writer.str16_max(reason, REASON_BYTES_MAX);
        }
        Failure::AgentFailed { code, message } => {
            writer
                .str16_max(code, CODE_BYTES_MAX)
                .str16_max(message, FAILURE_TEXT_BYTES_MAX);
        }
        Failure::TimedOut
        | Failure::Cancelled
        | Failure::ShuttingDown
        | Failure::AlreadyRan
        | Failure::Internal => {}
    }
}

fn read_failure(reader: &mut Reader<'_>) -> Result<Failure, DecodeError> {
    let text = |reader: &mut Reader<'_>, max| reader.str16(max).map(str::to_owned);
    Ok(match reader.u8()? {
        1 => Failure::UnknownAgent {
            looked_for: text(reader, NAME_BYTES_MAX)?,
        },
        2 => Failure::Busy {
            retry_after_ms: reader.u32()?,
        },
        3 => Failure::Refused {
            reason: text(reader, REASON_BYTES_MAX)?,
        },
        4 => Failure::TimedOut,
        5 => Failure::Cancelled,
        6 => Failure::TooLarge {
            limit_bytes: reader.u32()?,
        },
        7 => Failure::TooDeep {
            limit: reader.u32()?,
        },
        8 => Failure::AgentFailed {
            code: text(reader, CODE_BYTES_MAX)?,
            message: text(reader, FAILURE_TEXT_BYTES_MAX)?,
        },
        9 => Failure::ShuttingDown,
        10 => Failure::AlreadyRan,
        11 => Failure::Internal,
        value => {
            let what = "failure";
            return Err(DecodeError::Unknown { what, value });
        }
    })
}

fn fit_chunk(chunk: Chunk) -> Vec<Chunk> {
    let max = CHUNK_BYTES_MAX - OVERHEAD_BYTES_MAX;
    match chunk {
        Chunk::Text(text) if text.len() <= max => vec![Chunk::Text(text)],
        Chunk::Text(text) => {
            let mut chunks = Vec::with_capacity(text.len() / max + 1);
            let mut left = text.as_str();
            while !left.is_empty() {
                let (piece, rest) = left.split_at(left.floor_char_boundary(max));
                chunks.push(Chunk::Text(piece.to_owned()));
                left = rest;
            }
            chunks
        }
        Chunk::ToolStart { id, tool, input } => vec![Chunk::ToolStart {
            id: shortened(id, NAME_BYTES_MAX),
            tool: shortened(tool, NAME_BYTES_MAX),
            input: shortened(input, max),
        }],
        Chunk::ToolEnd {
            id,
            tool,
            output,
            is_error,
        } => vec![Chunk::ToolEnd {
            id: shortened(id, NAME_BYTES_MAX),
            tool: shortened(tool, NAME_BYTES_MAX),
            output: shortened(output, max),
            is_error,
        }],
    }
}

fn fit_failure(failure: Failure) -> Failure {
    match failure {
        Failure::UnknownAgent { looked_for } => Failure::UnknownAgent {
            looked_for: shortened(looked_for, NAME_BYTES_MAX),
        },
        Failure::Refused { reason } => Failure::Refused {
            reason: shortened(reason, REASON_BYTES_MAX),
        },
        Failure::AgentFailed { code, message } => Failure::AgentFailed {
            code: shortened(code, CODE_BYTES_MAX),
            message: shortened(message, FAILURE_TEXT_BYTES_MAX),
        },
        Failure::Busy { .. }
        | Failure::TimedOut
        | Failure::Cancelled
        | Failure::TooLarge { .. }
        | Failure::TooDeep { .. }
        | Failure::ShuttingDown
        | Failure::AlreadyRan
        | Failure::Internal => failure,
    }
}

fn shortened(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}
