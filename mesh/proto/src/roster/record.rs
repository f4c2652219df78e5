//! What a node says of itself: one signed, versioned record.
//!
//! The signature covers a domain and the exact bytes that travel, never a re-encoding. Decoding is
//! strict: a record has one form only, so that equal records are equal bytes.

use std::cmp::Ordering;

use openfang_id::{AgentId, AgentName, NetAddr, NodeId, NodeName};
use sha2::{Digest as _, Sha256};

use super::{Crypto, Key};
use crate::codec::{DecodeError, EncodeError, Reader, Writer};

/// The longest record, in bytes: with its signature it fits one message of the sync stream.
pub const RECORD_BYTES_MAX: usize = 255 * 1024;
/// The most agents of one node.
pub(super) const AGENTS_MAX: usize = 1_000;
/// The most addresses of one node.
pub(super) const ADDRS_MAX: usize = 16;
/// The longest software version, in bytes.
pub(super) const SOFTWARE_BYTES_MAX: usize = 64;
/// The longest description of an agent, in bytes.
pub(super) const DESCRIPTION_BYTES_MAX: usize = 1_024;
/// The longest module of an agent, in bytes.
pub(super) const MODULE_BYTES_MAX: usize = 128;
/// The most tags of one agent.
pub(super) const TAGS_MAX: usize = 32;
/// The most tools of one agent.
pub(super) const TOOLS_MAX: usize = 128;
/// The longest tag or tool name, in bytes.
pub(super) const WORD_BYTES_MAX: usize = 64;

/// The only layout of a record so far.
const FORMAT: u8 = 1;
/// Separates these signatures from every other use of the identity key.
const DOMAIN: &[u8] = b"OFP-ROSTER-V1\0";
/// Format, origin, incarnation, sequence: what comes before anything of variable length.
const HEADER_BYTES: usize = 1 + 32 + 8 + 8;

/// Which of two records of one origin is newer: first by incarnation, then by sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// One higher at every start of the node; stored before it is used.
    pub incarnation: u64,
    /// One higher at every change within an incarnation.
    pub sequence: u64,
}

/// The key and number of a node's audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogKey {
    /// The Ed25519 public key that verifies its heads.
    pub key: [u8; 32],
    /// The number of the log in its origin; it only grows.
    pub epoch: u32,
}

/// The Ed25519 public keys with which a node cosigns heads of other logs, a role each. Absent where the
/// node does not act in the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cosigners {
    /// Of heads of logs that only grow.
    pub witness: Option<[u8; 32]>,
    /// Of heads of logs it has a copy of.
    pub mirror: Option<[u8; 32]>,
}

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentState {
    /// Made, never run.
    Created,
    /// Ready to take messages.
    Running,
    /// Stopped by its owner; it keeps its state.
    Suspended,
    /// Ended.
    Terminated,
    /// Ended by a failure.
    Crashed,
}

/// An agent as its node announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAd {
    /// Its id.
    pub id: AgentId,
    /// Its name; unique on its node only.
    pub name: AgentName,
    /// What it is for, in a sentence; at most 1,024 bytes travel.
    pub description: String,
    /// Words to find it by; at most 32 of 64 bytes travel.
    pub tags: Vec<String>,
    /// The tools it may use; at most 128 of 64 bytes travel.
    pub tools: Vec<String>,
    /// What it is doing.
    pub state: AgentState,
    /// What runs it, such as `builtin:chat`; at most 128 bytes travel.
    pub module: String,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose record it is; its key signs it.
    pub origin: NodeId,
    /// Which of the origin's records it is.
    pub version: Version,
    /// How often the origin has refuted an accusation in this incarnation. Accusations name the
    /// incarnation and this number, so that a late record is never taken for a sign of life.
    pub refutation: u32,
    /// When it was signed, by the origin's clock: Unix milliseconds. Shown, never compared.
    pub issued_ms: u64,
    /// Whether the node has left the mesh on purpose.
    pub left: bool,
    /// What people call the node.
    pub name: NodeName,
    /// The version of the software it runs.
    pub software: String,
    /// Its audit log; `None` when it keeps none.
    pub log: Option<LogKey>,
    /// The keys with which it cosigns.
    pub cosigners: Cosigners,
    /// Where it can be dialed.
    pub addrs: Vec<NetAddr>,
    /// The agents it runs, by ascending id.
    pub agents: Vec<AgentAd>,
}

/// A record whose signature was checked or made here, with the bytes that were signed.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedRecord {
    record: Record,
    bytes: Box<[u8]>,
    signature: [u8; 64],
    hash: [u8; 32],
}

/// Why bytes are not a record to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a record, or not in its one form.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The origin has not signed it.
    #[error("the signature of the record does not verify")]
    Signature,
}

impl AgentState {
    fn code(self) -> u8 {
        match self {
            Self::Created => 1,
            Self::Running => 2,
            Self::Suspended => 3,
            Self::Terminated => 4,
            Self::Crashed => 5,
        }
    }

    fn from_code(value: u8) -> Result<Self, DecodeError> {
        match value {
            1 => Ok(Self::Created),
            2 => Ok(Self::Running),
            3 => Ok(Self::Suspended),
            4 => Ok(Self::Terminated),
            5 => Ok(Self::Crashed),
            value => Err(DecodeError::Unknown {
                what: "agent state",
                value,
            }),
        }
    }

    /// Returns the name used in the API: `running`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Terminated => "terminated",
            Self::Crashed => "crashed",
        }
    }
}

impl Record {
    /// Returns the canonical bytes.
    ///
    /// # Errors
    /// When a field is over its bound; the agents must be in ascending order of their ids.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut out = Writer::with_capacity(256);
        out.u8(FORMAT)
            .node_id(&self.origin)
            .u64(self.version.incarnation)
            .u64(self.version.sequence)
            .u32(self.refutation)
            .u64(self.issued_ms)
            .bool(self.left)
            .node_name(&self.name)
            .str16_max(&self.software, SOFTWARE_BYTES_MAX)
            .option(self.log, |out, log| {
                out.raw(&log.key).u32(log.epoch);
            });
        for key in [self.cosigners.witness, self.cosigners.mirror] {
            out.option(key, |out, key| {
                out.raw(&key);
            });
        }
        out.check(self.addrs.len(), ADDRS_MAX)
            .count8(self.addrs.len());
        for addr in &self.addrs {
            out.net_addr(addr);
        }
        out.check(self.agents.len(), AGENTS_MAX)
            .count16(self.agents.len());
        for agent in &self.agents {
            agent.encode_into(&mut out);
        }
        out.finish(RECORD_BYTES_MAX)
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are not the one form of a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_as(bytes, None)
    }

    fn decode_as(bytes: &[u8], known: Option<NodeId>) -> Result<Self, DecodeError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(DecodeError::TooLong {
                len: bytes.len(),
                max: RECORD_BYTES_MAX,
            });
        }
        let mut from = Reader::new(bytes);
        match from.u8()? {
            FORMAT => {}
            value => {
                let what = "record format";
                return Err(DecodeError::Unknown { what, value });
            }
        }
        let record = Self {
            origin: decode_origin(&mut from, known)?,
            version: Version {
                incarnation: from.u64()?,
                sequence: from.u64()?,
            },
            refutation: from.u32()?,
            issued_ms: from.u64()?,
            left: from.bool()?,
            name: from.node_name()?,
            software: from.str16(SOFTWARE_BYTES_MAX)?.to_owned(),
            log: from.option(|from| {
                Ok(LogKey {
                    key: from.array()?,
                    epoch: from.u32()?,
                })
            })?,
            cosigners: Cosigners {
                witness: from.option(Reader::array)?,
                mirror: from.option(Reader::array)?,
            },
            addrs: decode_addrs(&mut from)?,
            agents: decode_agents(&mut from)?,
        };
        from.finish()?;
        Ok(record)
    }

    /// Returns the number of the origin's life that accusations refer to.
    pub(super) fn life(&self) -> Life {
        Life {
            incarnation: self.version.incarnation,
            refutation: self.refutation,
        }
    }
}

/// What an accusation is about: a node between one refutation and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Life {
    pub(crate) incarnation: u64,
    pub(crate) refutation: u32,
}

fn decode_origin(from: &mut Reader<'_>, known: Option<NodeId>) -> Result<NodeId, DecodeError> {
    let bytes: [u8; 32] = from.array()?;
    match known {
        Some(known) if *known.as_bytes() == bytes => Ok(known),
        Some(_) | None => Reader::new(&bytes).node_id(),
    }
}

/// Returns eight bytes of a signature that its author cannot choose freely: two records of one
/// version with the same tag are the same record.
fn tag(signature: &[u8; 64]) -> u64 {
    let (_r, s) = signature.split_at(32);
    s.iter()
        .take(8)
        .fold(0, |tag, byte| tag << 8 | u64::from(*byte))
}

fn decode_addrs(from: &mut Reader<'_>) -> Result<Vec<NetAddr>, DecodeError> {
    let count = from.count8(ADDRS_MAX)?;
    (0..count).map(|_nth| from.net_addr()).collect()
}

fn decode_agents(from: &mut Reader<'_>) -> Result<Vec<AgentAd>, DecodeError> {
    let count = from.count16(AGENTS_MAX)?;
    let mut agents: Vec<AgentAd> = Vec::new();
    for _nth in 0..count {
        let agent = AgentAd::decode_from(from)?;
        if agents.last().is_some_and(|last| last.id >= agent.id) {
            let what = "order of agents";
            return Err(DecodeError::Invalid { what });
        }
        agents.push(agent);
    }
    Ok(agents)
}

impl AgentAd {
    fn encode_into(&self, out: &mut Writer) {
        out.agent_id(&self.id)
            .agent_name(&self.name)
            .str16_max(&self.description, DESCRIPTION_BYTES_MAX)
            .u8(self.state.code())
            .str16_max(&self.module, MODULE_BYTES_MAX);
        for (words, max) in [(&self.tags, TAGS_MAX), (&self.tools, TOOLS_MAX)] {
            out.check(words.len(), max).count8(words.len());
            for word in words {
                out.str16_max(word, WORD_BYTES_MAX);
            }
        }
    }

    fn decode_from(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: from.agent_id()?,
            name: from.agent_name()?,
            description: from.str16(DESCRIPTION_BYTES_MAX)?.to_owned(),
            state: AgentState::from_code(from.u8()?)?,
            module: from.str16(MODULE_BYTES_MAX)?.to_owned(),
            tags: decode_words(from, TAGS_MAX)?,
            tools: decode_words(from, TOOLS_MAX)?,
        })
    }
}

fn decode_words(from: &mut Reader<'_>, max: usize) -> Result<Vec<String>, DecodeError> {
    let count = from.count8(max)?;
    (0..count)
        .map(|_nth| from.str16(WORD_BYTES_MAX).map(str::to_owned))
        .collect()
}

impl SignedRecord {
    /// Signs a record.
    ///
    /// # Errors
    /// When a field is over its bound.
    pub fn sign(record: Record, crypto: &dyn Crypto) -> Result<Self, EncodeError> {
        let bytes = record.encode()?;
        let signature = crypto.sign(&message(&bytes));
        Ok(Self::of(record, bytes, signature))
    }

    /// Reads a record and checks its signature.
    ///
    /// # Errors
    /// When it is malformed or its origin has not signed it.
    pub fn open(
        bytes: &[u8],
        signature: &[u8; 64],
        crypto: &dyn Crypto,
    ) -> Result<Self, RecordError> {
        Self::open_as(bytes, signature, None, crypto)
    }

    fn open_as(
        bytes: &[u8],
        signature: &[u8; 64],
        known: Option<NodeId>,
        crypto: &dyn Crypto,
    ) -> Result<Self, RecordError> {
        let record = Record::decode_as(bytes, known)?;
        if !crypto.verify(&record.origin, &message(bytes), signature) {
            return Err(RecordError::Signature);
        }
        Ok(Self::of(record, bytes.to_vec(), *signature))
    }

    fn of(record: Record, bytes: Vec<u8>, signature: [u8; 64]) -> Self {
        Self {
            hash: Sha256::digest(&bytes).into(),
            record,
            bytes: bytes.into(),
            signature,
        }
    }

    /// Checks the signature again.
    #[must_use]
    pub fn verify(&self, crypto: &dyn Crypto) -> bool {
        crypto.verify(&self.record.origin, &message(&self.bytes), &self.signature)
    }

    /// Returns what was signed.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns the version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.record.version
    }

    /// Returns the canonical bytes that were signed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the signature over the domain and the bytes.
    #[must_use]
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    pub(super) fn tag(&self) -> u64 {
        tag(&self.signature)
    }

    /// Returns SHA-256 of the bytes.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Says which of two records of one origin every node keeps: the higher version; of two that
    /// claim the same version, the one with the lower hash. A total order, so that merging is
    /// commutative, associative and idempotent.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        (self.version().cmp(&other.version())).then_with(|| other.hash.cmp(&self.hash))
    }

    /// Appends bytes and signature.
    pub(super) fn encode_into(&self, out: &mut Writer) {
        out.bytes32(&self.bytes).raw(&self.signature);
    }

    /// Returns how many bytes [`SignedRecord::encode_into`] appends.
    pub(super) fn encoded_len(&self) -> usize {
        4 + self.bytes.len() + 64
    }
}

impl std::fmt::Debug for SignedRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SignedRecord").field(&self.record).finish()
    }
}

/// A record in a message, before anything of it is decoded or verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawRecord<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) signature: [u8; 64],
}

impl<'a> RawRecord<'a> {
    pub(super) fn decode_from(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            bytes: from.bytes32(RECORD_BYTES_MAX)?,
            signature: from.array()?,
        })
    }

    /// Reads origin and version, so that what is already known costs neither decoding nor a
    /// signature check.
    pub(super) fn peek(&self) -> Result<(Key, Version), DecodeError> {
        let mut from = Reader::new(self.bytes.get(..HEADER_BYTES).unwrap_or(self.bytes));
        from.u8()?;
        Ok((
            Key::decode_from(&mut from)?,
            Version {
                incarnation: from.u64()?,
                sequence: from.u64()?,
            },
        ))
    }

    /// Checks the record; an origin that is known is not checked to be a key again.
    pub(super) fn open(
        &self,
        known: Option<NodeId>,
        crypto: &dyn Crypto,
    ) -> Result<SignedRecord, RecordError> {
        SignedRecord::open_as(self.bytes, &self.signature, known, crypto)
    }

    pub(super) fn tag(&self) -> u64 {
        tag(&self.signature)
    }
}

fn message(bytes: &[u8]) -> Vec<u8> {
    [DOMAIN, bytes].concat()
}
