//! One line of the log: written canonically, read verbatim.
//!
//! RFC 8785: keys in order, no white space, integers only. The fields are `act agent boot cause
//! dur_us ev hlc node outcome seq sess target ts user v`; an absent field is left out. The leaf of the
//! tree is the exact bytes of the line without its line feed: a verifier never writes a line again,
//! so that no change of a library can break an old entry.

use std::io::Write as _;

use memchr::memmem;
use openfang_id::AgentId;
use serde::Deserialize;

use crate::clock::{Hybrid, write_rfc3339};
use crate::tree::leaf_hash;
use crate::{Event, Hash, Seq};

/// The longest line, without its line feed: an entry bundle of C2SP tlog-tiles gives it 16 bits.
pub const LINE_BYTES_MAX: usize = 65_535;
/// The version of the line format.
const VERSION: u64 = 1;

/// One verified or parsed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub seq: Seq,
    /// The bytes of the line, without its line feed.
    pub raw: String,
    /// The leaf hash of these bytes.
    pub leaf: Hash,
    /// When, by the wall clock of the node: RFC 3339, UTC, microseconds.
    pub ts: String,
    /// When, by the hybrid clock of the log.
    pub hlc: Hybrid,
    /// The node that wrote it.
    pub node: String,
    /// Which run of the node wrote it: 16 hexadecimal digits.
    pub boot: String,
    /// What happened: the name of a [`Kind`](crate::Kind), or one that this version does not know.
    pub ev: String,
    /// The agent it is about.
    pub agent: Option<AgentId>,
    /// More about what happened.
    pub act: Option<String>,
    /// To or with what.
    pub target: Option<String>,
    /// How it ended: `ok`, `denied…`, `failed…`.
    pub outcome: String,
    /// How long it took, in microseconds.
    pub dur_us: Option<u64>,
    /// The conversation it belongs to.
    pub sess: Option<String>,
    /// On whose behalf.
    pub user: Option<String>,
    /// The entry that led to it: `ORIGIN#SEQ`.
    pub cause: Option<String>,
}

/// Why bytes are not a line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than 65,535 bytes.
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not UTF-8, not JSON, or a field that is missing, double or of the wrong kind.
    #[error("the line is not an entry")]
    Form,
    /// A version of the format that is not known.
    #[error("the line is of format version {0}, this program knows version {VERSION}")]
    Version(u64),
}

/// What the fields of a line hold besides the event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) seq: u64,
    pub(crate) unix_micros: u64,
    pub(crate) hybrid: Hybrid,
    pub(crate) node: &'a str,
    pub(crate) boot: u64,
}

/// Writes a line without its line feed.
pub(crate) fn render(out: &mut Vec<u8>, context: Context<'_>, event: &Event) {
    let mut object = Object { out, first: true };
    object.text("act", event.act.as_deref());
    if let Some(agent) = event.agent {
        object.display("agent", format_args!("\"{agent}\""));
    }
    object.display("boot", format_args!("\"{:016x}\"", context.boot));
    object.text("cause", event.cause.as_deref());
    if let Some(duration_us) = event.duration_us {
        object.display("dur_us", format_args!("{duration_us}"));
    }
    object.text("ev", Some(event.kind.as_str()));
    object.display("hlc", format_args!("\"{}\"", context.hybrid));
    object.text("node", Some(context.node));
    object.text("outcome", Some(&event.outcome));
    object.display("seq", format_args!("{}", context.seq));
    object.text("sess", event.session.as_deref());
    object.text("target", event.target.as_deref());
    object.key("ts");
    object.out.push(b'"');
    write_rfc3339(object.out, context.unix_micros);
    object.out.push(b'"');
    object.text("user", event.user.as_deref());
    object.display("v", format_args!("{VERSION}"));
    object.out.push(b'}');
}

/// Returns the number in the field `seq`, without reading the rest of the line.
///
/// In a canonical line the bytes `,"seq":` can only be that key: inside a text every quotation mark
/// follows a backslash.
pub(crate) fn seq_of(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b",\"seq\":";
    let digits = &line[memmem::find(line, KEY)? + KEY.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    if end == 0 || end > 19 || (digits[0] == b'0' && end > 1) {
        return None;
    }
    let number = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
    Some(digits[..end].iter().fold(0, number))
}

#[derive(Deserialize)]
struct Fields {
    act: Option<String>,
    agent: Option<String>,
    boot: String,
    cause: Option<String>,
    dur_us: Option<u64>,
    ev: String,
    hlc: String,
    node: String,
    outcome: String,
    seq: u64,
    sess: Option<String>,
    target: Option<String>,
    ts: String,
    user: Option<String>,
    v: u64,
}

impl Line {
    /// Reads a line, without its line feed. Fields that are not known are passed over.
    ///
    /// # Errors
    /// When the bytes are no line of a log.
    pub fn parse(bytes: &[u8]) -> Result<Self, LineError> {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(LineError::TooLong);
        }
        let raw = std::str::from_utf8(bytes).map_err(|_not_utf8| LineError::Form)?;
        let fields: Fields = serde_json::from_str(raw).map_err(|_not_json| LineError::Form)?;
        if fields.v != VERSION {
            return Err(LineError::Version(fields.v));
        }
        let agent = fields.agent.map(|agent| agent.parse()).transpose();
        let hlc = u64::from_str_radix(&fields.hlc, 16);
        Ok(Self {
            seq: Seq(fields.seq),
            raw: raw.to_owned(),
            leaf: leaf_hash(bytes),
            ts: fields.ts,
            hlc: hlc.map(Hybrid::from_u64).map_err(|_bad| LineError::Form)?,
            node: fields.node,
            boot: fields.boot,
            ev: fields.ev,
            agent: agent.map_err(|_not_an_id| LineError::Form)?,
            act: fields.act,
            target: fields.target,
            outcome: fields.outcome,
            dur_us: fields.dur_us,
            sess: fields.sess,
            user: fields.user,
            cause: fields.cause,
        })
    }
}

/// A JSON object that is being written. The caller gives the keys in their order.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
        self.out.push(if self.first { b'{' } else { b',' });
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.key(key);
        self.out.push(b'"');
        escape(self.out, value);
        self.out.push(b'"');
    }

    fn display(&mut self, key: &str, value: std::fmt::Arguments<'_>) {
        self.key(key);
        self.out
            .write_fmt(value)
            .expect("writing into memory does not fail");
    }
}

/// RFC 8785 §3.2.2.2.
fn escape(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in text.bytes() {
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0c => b'f',
            b'\r' => b'r',
            0x00..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
                continue;
            }
            _plain => {
                out.push(byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
}
