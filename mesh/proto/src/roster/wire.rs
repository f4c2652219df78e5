//! The messages of the sync stream, byte for byte.

use openfang_audit::evidence::EVIDENCE_BYTES_MAX;
use openfang_audit::proof::PROOF_HASHES_MAX;
use openfang_audit::{HEAD_BYTES_MAX, Hash};

use super::accusation::{ACCUSATION_BYTES, Accusation};
use super::record::{RawRecord, Version};
use super::{Key, SignedRecord};
use crate::codec::{DecodeError, Reader, Writer};
use crate::heads::{Alarm, CannotProve, HeldAlarm, Proof, Question};

/// The longest message of the sync stream, in bytes.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Into how many buckets origins fall: by the first six bits of their keys.
pub(super) const BUCKETS: usize = 64;
/// The bytes of a digest that travel.
pub(super) const DIGEST_BYTES: usize = 16;
/// What fits beside the header of any message.
const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - 64;
const ENTRY_BYTES: usize = 32 + 8 + 8 + 8 + 1;
/// The most entries of one summary.
pub(super) const ENTRIES_MAX: usize = BODY_BYTES_MAX / ENTRY_BYTES;
/// The most accusations of one message.
const ACCUSATIONS_MAX: usize = BODY_BYTES_MAX / ACCUSATION_BYTES;
/// The most records of one message: the shortest has more than 100 bytes.
const RECORDS_MAX: usize = BODY_BYTES_MAX / 100;
/// The most heads of one message.
const HEADS_MAX: usize = 32;
/// The most alarms of one message.
const ALARMS_MAX: usize = BODY_BYTES_MAX / 138;
/// The most pieces of evidence of one message: of the longest.
pub(super) const PROOFS_MAX: usize = BODY_BYTES_MAX / (34 + EVIDENCE_BYTES_MAX);
/// The most convicted nodes that one message tells of.
pub(super) const CONVICTED_MAX: usize = BODY_BYTES_MAX / 32;

const BEAT: u8 = 1;
const RECORDS: u8 = 2;
const DIGESTS: u8 = 3;
const SUMMARY: u8 = 4;
const ACCUSATIONS: u8 = 5;
const HEADS: u8 = 6;
const ALARMS: u8 = 7;
const ASK: u8 = 8;
const ANSWER: u8 = 9;
const BYE: u8 = 10;
const PROOFS: u8 = 11;
const CONVICTED: u8 = 12;

/// The first bytes of a SHA-256 over a part of the roster.
pub(super) type Digest = [u8; DIGEST_BYTES];

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// I am here, and this is my roster.
    Beat(Beat),
    /// Records you may lack; `more` when others did not fit.
    Records {
        more: bool,
        records: Vec<(Standing, RawRecord<'a>)>,
    },
    /// My roster in 64 parts, and the alarms I hold.
    Digests(Box<Digests>),
    /// What I hold in the buckets of the mask; `reply` when it answers one.
    Summary {
        reply: bool,
        mask: u64,
        entries: Vec<Entry>,
    },
    /// Who may be dead.
    Accusations(Vec<Accusation>),
    /// Heads of audit logs: mine, or ones I accepted.
    Heads(Vec<(Key, &'a str)>),
    /// Whose audit log contradicts itself.
    Alarms(Vec<Alarm>),
    /// Prove that your log only grew.
    Ask(Question),
    /// The proof, or why there is none.
    Answer {
        id: u32,
        answer: Result<Vec<Hash>, CannotProve>,
    },
    /// This connection ends; I do not.
    Bye,
    /// Evidence against nodes, as it is in files.
    Proofs(Vec<(Key, &'a [u8])>),
    /// The nodes I hold evidence against, by rising key; `reply` when it answers one.
    Convicted { reply: bool, nodes: Vec<Key> },
}

/// A heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    /// One higher in each heartbeat of a connection; the first is 1.
    pub(super) counter: u32,
    /// The last counter that arrived from the other end; 0 before the first.
    pub(super) echo: u32,
    /// How long ago it arrived, in milliseconds.
    pub(super) held_ms: u16,
    /// When the next heartbeat follows, in milliseconds.
    pub(super) interval_ms: u16,
    /// The hybrid clock of the sender's audit log; 0 for none.
    pub(super) hlc: u64,
    /// The digest over all buckets and the alarms.
    pub(super) root: Digest,
}

/// One digest a bucket, and one over the alarms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digests {
    pub(super) buckets: [Digest; BUCKETS],
    pub(super) alarms: Digest,
}

/// One origin in a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) origin: Key,
    pub(super) version: Version,
    /// The first eight bytes of the hash of the record.
    pub(super) hash: [u8; 8],
    pub(super) standing: Standing,
}

/// What the sender of a record knows of its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// The sender knows of accusations, or has not heard of the node since it started.
    pub(super) doubted: bool,
    /// The sender has only heard of the node: it does not vouch for it.
    pub(super) heard: bool,
}

/// A record to be sent, and what the sender knows of its origin.
pub(super) type Told<'a> = (&'a SignedRecord, Standing);

impl Standing {
    /// The sender vouches for the node, without a doubt.
    pub(super) const SURE: Self = Self {
        doubted: false,
        heard: false,
    };
    /// The sender has heard of the node.
    pub(super) const HEARD: Self = Self {
        doubted: false,
        heard: true,
    };

    fn encode_into(self, out: &mut Writer) {
        out.u8(u8::from(self.doubted) | u8::from(self.heard) << 1);
    }

    fn decode_from(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let value = from.u8()?;
        if value > 3 {
            let what = "standing";
            return Err(DecodeError::Unknown { what, value });
        }
        Ok(Self {
            doubted: value & 1 != 0,
            heard: value & 2 != 0,
        })
    }
}

impl Entry {
    /// Makes the entry of a record.
    pub(super) fn of(origin: Key, record: &SignedRecord, standing: Standing) -> Self {
        let mut hash = [0; 8];
        hash.copy_from_slice(&record.hash()[..8]);
        Self {
            origin,
            version: record.version(),
            hash,
            standing,
        }
    }

    pub(super) fn encode_into(&self, out: &mut Writer) {
        out.raw(self.origin.as_bytes())
            .u64(self.version.incarnation)
            .u64(self.version.sequence)
            .raw(&self.hash);
        self.standing.encode_into(out);
    }

    /// Writes what a digest covers: all but whether the node was only heard of.
    pub(super) fn digest_into(&self, out: &mut Writer) {
        let standing = Standing {
            heard: false,
            ..self.standing
        };
        Self { standing, ..*self }.encode_into(out);
    }

    fn decode_from(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            origin: Key::decode_from(from)?,
            version: Version {
                incarnation: from.u64()?,
                sequence: from.u64()?,
            },
            hash: from.array()?,
            standing: Standing::decode_from(from)?,
        })
    }
}

/// Checks whether bytes are one message of the sync stream.
///
/// # Errors
/// When they are not. Signatures are not checked.
pub fn check_frame(bytes: &[u8]) -> Result<(), DecodeError> {
    Frame::decode(bytes).map(drop)
}

impl<'a> Frame<'a> {
    /// Reads a message.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(DecodeError::TooLong {
                len: bytes.len(),
                max: FRAME_BYTES_MAX,
            });
        }
        let mut from = Reader::new(bytes);
        let frame = match from.u8()? {
            BEAT => decode_beat(&mut from)?,
            RECORDS => Self::Records {
                more: from.bool()?,
                records: list(&mut from, RECORDS_MAX, |from| {
                    Ok((Standing::decode_from(from)?, RawRecord::decode_from(from)?))
                })?,
            },
            DIGESTS => decode_digests(&mut from)?,
            SUMMARY => Self::Summary {
                reply: from.bool()?,
                mask: from.u64()?,
                entries: decode_entries(&mut from)?,
            },
            ACCUSATIONS => {
                Self::Accusations(list(&mut from, ACCUSATIONS_MAX, Accusation::decode_from)?)
            }
            HEADS => Self::Heads(list(&mut from, HEADS_MAX, |from| {
                Ok((Key::decode_from(from)?, from.str16(HEAD_BYTES_MAX)?))
            })?),
            ALARMS => Self::Alarms(list(&mut from, ALARMS_MAX, Alarm::decode_from)?),
            ASK => Self::Ask(Question {
                id: from.u32()?,
                from: from.u64()?,
                to: from.u64()?,
            }),
            ANSWER => Self::Answer {
                id: from.u32()?,
                answer: decode_answer(&mut from)?,
            },
            BYE => Self::Bye,
            PROOFS => Self::Proofs(list(&mut from, PROOFS_MAX, |from| {
                Ok((Key::decode_from(from)?, from.bytes16(EVIDENCE_BYTES_MAX)?))
            })?),
            CONVICTED => Self::Convicted {
                reply: from.bool()?,
                nodes: decode_convicted(&mut from)?,
            },
            value => {
                let what = "sync message";
                return Err(DecodeError::Unknown { what, value });
            }
        };
        from.finish()?;
        Ok(frame)
    }
}

fn list<'a, T>(
    from: &mut Reader<'a>,
    max: usize,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = from.count16(max)?;
    (0..count).map(|_nth| read(from)).collect()
}

fn decode_beat<'a>(from: &mut Reader<'a>) -> Result<Frame<'a>, DecodeError> {
    Ok(Frame::Beat(Beat {
        counter: from.u32()?,
        echo: from.u32()?,
        held_ms: from.u16()?,
        interval_ms: from.u16()?,
        hlc: from.u64()?,
        root: from.array()?,
    }))
}

fn decode_digests<'a>(from: &mut Reader<'a>) -> Result<Frame<'a>, DecodeError> {
    let mut buckets = [[0; DIGEST_BYTES]; BUCKETS];
    for bucket in &mut buckets {
        *bucket = from.array()?;
    }
    let alarms = from.array()?;
    Ok(Frame::Digests(Box::new(Digests { buckets, alarms })))
}

/// Reads entries; they must be in ascending order, so that a summary has one form.
fn decode_entries(from: &mut Reader<'_>) -> Result<Vec<Entry>, DecodeError> {
    let entries = list(from, ENTRIES_MAX, Entry::decode_from)?;
    if !entries.is_sorted_by(|a, b| a.origin < b.origin) {
        let what = "order of a summary";
        return Err(DecodeError::Invalid { what });
    }
    Ok(entries)
}

/// Reads the keys of convicted nodes; they must be in ascending order.
fn decode_convicted(from: &mut Reader<'_>) -> Result<Vec<Key>, DecodeError> {
    let nodes = list(from, CONVICTED_MAX, Key::decode_from)?;
    if !nodes.is_sorted_by(|a, b| a < b) {
        let what = "order of convicted nodes";
        return Err(DecodeError::Invalid { what });
    }
    Ok(nodes)
}

fn decode_answer(from: &mut Reader<'_>) -> Result<Result<Vec<Hash>, CannotProve>, DecodeError> {
    match from.u8()? {
        0 => {
            let count = from.count8(PROOF_HASHES_MAX)?;
            let hashes: Result<_, _> = (0..count)
                .map(|_nth| from.array().map(Hash::from_bytes))
                .collect();
            Ok(Ok(hashes?))
        }
        1 => Ok(Err(CannotProve::Behind { have: from.u64()? })),
        2 => Ok(Err(CannotProve::Damaged {
            first_bad: from.u64()?,
        })),
        3 => Ok(Err(CannotProve::Range)),
        4 => Ok(Err(CannotProve::Later)),
        value => {
            let what = "answer";
            Err(DecodeError::Unknown { what, value })
        }
    }
}

/// Ends a message. Every encoder below keeps within the bound.
fn done(out: Writer) -> Vec<u8> {
    out.finish(FRAME_BYTES_MAX).unwrap_or_default()
}

pub(super) fn beat(beat: &Beat) -> Vec<u8> {
    let mut out = Writer::with_capacity(40);
    out.u8(BEAT)
        .u32(beat.counter)
        .u32(beat.echo)
        .u16(beat.held_ms)
        .u16(beat.interval_ms)
        .u64(beat.hlc)
        .raw(&beat.root);
    done(out)
}

pub(super) fn digests(digests: &Digests) -> Vec<u8> {
    let mut out = Writer::with_capacity(2 + (BUCKETS + 1) * DIGEST_BYTES);
    out.u8(DIGESTS);
    for bucket in &digests.buckets {
        out.raw(bucket);
    }
    out.raw(&digests.alarms);
    done(out)
}

pub(super) fn summary(reply: bool, mask: u64, entries: &[Entry]) -> Vec<u8> {
    let mut out = Writer::with_capacity(16 + entries.len() * ENTRY_BYTES);
    out.u8(SUMMARY).bool(reply).u64(mask).count16(entries.len());
    for entry in entries {
        entry.encode_into(&mut out);
    }
    done(out)
}

/// Writes as many records as one message takes; returns it and how many they were.
pub(super) fn records(records: &[Told<'_>]) -> (Vec<u8>, usize) {
    let mut bytes = 0;
    let fits = |(record, _standing): &&Told<'_>| {
        bytes += 1 + record.encoded_len();
        bytes <= BODY_BYTES_MAX
    };
    let taken = records.iter().take(RECORDS_MAX).take_while(fits).count();
    let mut out = Writer::with_capacity(1_024);
    out.u8(RECORDS).bool(taken < records.len()).count16(taken);
    for (record, standing) in &records[..taken] {
        standing.encode_into(&mut out);
        record.encode_into(&mut out);
    }
    (done(out), taken)
}

pub(super) fn accusations(accusations: &[Accusation]) -> Vec<u8> {
    let taken = &accusations[..accusations.len().min(ACCUSATIONS_MAX)];
    let mut out = Writer::with_capacity(8 + taken.len() * ACCUSATION_BYTES);
    out.u8(ACCUSATIONS).count16(taken.len());
    for accusation in taken {
        accusation.encode_into(&mut out);
    }
    done(out)
}

pub(super) fn heads<'a>(heads: impl Iterator<Item = (Key, &'a str)>) -> Vec<u8> {
    let heads: Vec<_> = heads.take(HEADS_MAX).collect();
    let mut out = Writer::with_capacity(512);
    out.u8(HEADS).count16(heads.len());
    for (origin, note) in heads {
        out.raw(origin.as_bytes()).str16_max(note, HEAD_BYTES_MAX);
    }
    done(out)
}

/// Writes alarms into as many messages as they need.
pub(super) fn alarms(alarms: &[HeldAlarm]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut left = alarms;
    while !left.is_empty() {
        let mut bytes = 0;
        let fits = |alarm: &&HeldAlarm| {
            bytes += alarm.encoded_len();
            bytes <= BODY_BYTES_MAX
        };
        let (taken, rest) = left.split_at(left.iter().take_while(fits).count().max(1));
        let mut out = Writer::new();
        out.u8(ALARMS).count16(taken.len());
        for alarm in taken {
            alarm.encode_into(&mut out);
        }
        frames.push(done(out));
        left = rest;
    }
    frames
}

pub(super) fn ask(question: Question) -> Vec<u8> {
    let mut out = Writer::with_capacity(24);
    out.u8(ASK)
        .u32(question.id)
        .u64(question.from)
        .u64(question.to);
    done(out)
}

pub(super) fn answer(id: u32, answer: &Result<Vec<Hash>, CannotProve>) -> Vec<u8> {
    let mut out = Writer::with_capacity(64);
    out.u8(ANSWER).u32(id);
    match answer {
        Ok(hashes) => {
            out.u8(0)
                .check(hashes.len(), PROOF_HASHES_MAX)
                .count8(hashes.len());
            for hash in hashes {
                out.raw(hash.as_bytes());
            }
        }
        Err(CannotProve::Behind { have }) => {
            out.u8(1).u64(*have);
        }
        Err(CannotProve::Damaged { first_bad }) => {
            out.u8(2).u64(*first_bad);
        }
        Err(CannotProve::Range) => {
            out.u8(3);
        }
        Err(CannotProve::Later) => {
            out.u8(4);
        }
    }
    done(out)
}

pub(super) fn bye() -> Vec<u8> {
    vec![BYE]
}

/// Writes pieces of evidence into as many messages as they need.
pub(super) fn proofs(proofs: &[(Key, Proof)]) -> Vec<Vec<u8>> {
    let parts = proofs.chunks(PROOFS_MAX);
    let frames = parts.map(|part| {
        let mut out = Writer::with_capacity(1_024 * part.len());
        out.u8(PROOFS).count16(part.len());
        for (accused, proof) in part {
            out.raw(accused.as_bytes())
                .check(proof.len(), EVIDENCE_BYTES_MAX)
                .bytes16(proof);
        }
        done(out)
    });
    frames.collect()
}

/// Writes who is convicted: those with the lowest keys, if they are too many.
pub(super) fn convicted(reply: bool, nodes: &[Key]) -> Vec<u8> {
    let told = &nodes[..nodes.len().min(CONVICTED_MAX)];
    let mut out = Writer::with_capacity(8 + 32 * told.len());
    out.u8(CONVICTED).bool(reply).count16(told.len());
    for node in told {
        out.raw(node.as_bytes());
    }
    done(out)
}
