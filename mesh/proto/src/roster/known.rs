//! What survives a restart: every node ever seen, where it answered, and what is held of its log.

use std::collections::BTreeSet;
use std::sync::Arc;

use openfang_audit::{HEAD_BYTES_MAX, Origin, SignedHead};
use openfang_id::{NetAddr, NodeId, VerifyingKey};

use super::record::{ADDRS_MAX, RawRecord};
use super::{Crypto, LogKey, SignedRecord};
use crate::codec::{DecodeError, Reader, Writer};
use crate::heads::{Alarm, Evidence, FAILED_MAX, KeptLog, Why};

const FORMAT: u8 = 3;
/// As [`FORMAT`], without the heads that a log has not proved.
const FORMAT_2: u8 = 2;
/// The most of each list; far above what a roster holds.
const LIST_MAX: usize = u16::MAX as usize;
const ALARMS_MAX: usize = 16;

/// The part of a roster that is written to disk, and given back at the next start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// The records of other nodes.
    pub records: Vec<Arc<SignedRecord>>,
    /// Addresses at which nodes answered last.
    pub addrs: Vec<(NodeId, Vec<NetAddr>)>,
    /// Nodes that there was a link with.
    pub met: BTreeSet<NodeId>,
    pub(crate) logs: Vec<KeptLog>,
}

/// Why bytes are not a stored roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KnownError {
    /// Cut off, altered, or of another version.
    #[error("the stored roster is damaged: {0}")]
    Decode(#[from] DecodeError),
}

impl Known {
    /// Returns the bytes to be written to disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(FORMAT).count16(self.records.len().min(LIST_MAX));
        for record in self.records.iter().take(LIST_MAX) {
            record.encode_into(&mut out);
        }
        out.count16(self.addrs.len().min(LIST_MAX));
        for (node, addrs) in self.addrs.iter().take(LIST_MAX) {
            out.node_id(node).count8(addrs.len().min(ADDRS_MAX));
            for addr in addrs.iter().take(ADDRS_MAX) {
                out.net_addr(addr);
            }
        }
        out.count16(self.logs.len().min(LIST_MAX));
        for log in self.logs.iter().take(LIST_MAX) {
            encode_log(log, &mut out);
        }
        out.count16(self.met.len().min(LIST_MAX));
        for node in self.met.iter().take(LIST_MAX) {
            out.node_id(node);
        }
        out.finish(usize::MAX).unwrap_or_default()
    }

    /// Reads what [`Known::encode`] has written. Records, heads and alarms whose signatures do not
    /// hold are left out.
    ///
    /// # Errors
    /// When the bytes are damaged; start with an empty one then: peers give back the rest.
    pub fn decode(bytes: &[u8], crypto: &dyn Crypto) -> Result<Self, KnownError> {
        let mut from = Reader::new(bytes);
        let format = from.u8()?;
        if ![FORMAT, FORMAT_2].contains(&format) {
            let (what, value) = ("roster format", format);
            return Err(DecodeError::Unknown { what, value }.into());
        }
        let mut known = Self::default();
        for _nth in 0..from.count16(LIST_MAX)? {
            let raw = RawRecord::decode_from(&mut from)?;
            known
                .records
                .extend(raw.open(None, crypto).ok().map(Arc::new));
        }
        for _nth in 0..from.count16(LIST_MAX)? {
            let node = from.node_id()?;
            let count = from.count8(ADDRS_MAX)?;
            let addrs: Result<_, _> = (0..count).map(|_nth| from.net_addr()).collect();
            known.addrs.push((node, addrs?));
        }
        for _nth in 0..from.count16(LIST_MAX)? {
            known.logs.push(decode_log(&mut from, format, crypto)?);
        }
        for _nth in 0..from.count16(LIST_MAX)? {
            known.met.insert(from.node_id()?);
        }
        from.finish()?;
        Ok(known)
    }
}

fn encode_log(log: &KeptLog, out: &mut Writer) {
    out.node_id(&log.node).raw(&log.key.key).u32(log.key.epoch);
    encode_head(log.accepted.as_ref(), out);
    out.option(log.verdict.as_ref(), |out, (why, evidence)| {
        let (code, number) = why.code();
        out.u8(code).u64(number);
        encode_head(evidence.accepted.as_ref(), out);
        encode_head(evidence.offending.as_ref(), out);
    });
    let failed = log.failed.iter().take(FAILED_MAX);
    out.count8(failed.len());
    for head in failed {
        out.str16(&head.note);
    }
    out.count8(log.alarms.len());
    for alarm in &log.alarms {
        alarm.encode_into(out);
    }
}

fn encode_head(head: Option<&SignedHead>, out: &mut Writer) {
    out.option(head, |out, head| {
        out.str16(&head.note);
    });
}

fn decode_log(
    from: &mut Reader<'_>,
    format: u8,
    crypto: &dyn Crypto,
) -> Result<KeptLog, DecodeError> {
    let node = from.node_id()?;
    let key = LogKey {
        key: from.array()?,
        epoch: from.u32()?,
    };
    let mut log = KeptLog {
        node,
        key,
        accepted: decode_head(from, &node, key)?,
        verdict: None,
        failed: Vec::new(),
        alarms: Vec::new(),
    };
    log.verdict = from.option(|from| {
        let why = Why::from_code(from.u8()?, from.u64()?)?;
        let evidence = Evidence {
            accepted: decode_head(from, &node, key)?,
            offending: decode_head(from, &node, key)?,
        };
        Ok((why, evidence))
    })?;
    if format == FORMAT_2 {
        log.failed = offending(log.verdict.as_ref());
    } else {
        for _nth in 0..from.count8(FAILED_MAX)? {
            log.failed.extend(decode_note(from, &node, key)?);
        }
    }
    for _nth in 0..from.count8(ALARMS_MAX)? {
        let alarm = Alarm::decode_from(from)?;
        let reporter = NodeId::from_public_key(*alarm.reporter.as_bytes());
        if reporter.is_ok_and(|reporter| alarm.verify(&reporter, crypto)) {
            log.alarms.push(Arc::new(alarm));
        }
    }
    Ok(log)
}

fn decode_head(
    from: &mut Reader<'_>,
    node: &NodeId,
    key: LogKey,
) -> Result<Option<SignedHead>, DecodeError> {
    let head = from.option(|from| decode_note(from, node, key))?;
    Ok(head.flatten())
}

/// Reads a head; none where the log has not signed it.
fn decode_note(
    from: &mut Reader<'_>,
    node: &NodeId,
    key: LogKey,
) -> Result<Option<SignedHead>, DecodeError> {
    let note = from.str16(HEAD_BYTES_MAX)?;
    let signed_by = VerifyingKey::from_bytes(key.key).ok();
    let origin = Origin::of(node, key.epoch);
    Ok(signed_by.and_then(|signed_by| SignedHead::open(note, &origin, &signed_by).ok()))
}

fn offending(verdict: Option<&(Why, Evidence)>) -> Vec<SignedHead> {
    let offending = verdict.and_then(|(_why, evidence)| evidence.offending.clone());
    offending.into_iter().collect()
}
