//! An alarm: one node's signed word that another's audit log contradicts itself.

use std::sync::Arc;

use openfang_audit::HEAD_BYTES_MAX;
use openfang_id::NodeId;

use super::{Evidence, Why};
use crate::codec::{DecodeError, Reader, Writer};
use crate::roster::{Crypto, Key};

/// Separates these signatures from every other use of the identity key.
const DOMAIN: &[u8] = b"OFP-ALARM-V1\0";
/// The head that was accepted, and the one that contradicts it.
const NOTES_MAX: usize = 2;

/// What travels: who is accused, by whom, of what, and the notes that show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub(crate) accused: Key,
    pub(crate) reporter: Key,
    pub(crate) why: Why,
    pub(crate) notes: Vec<String>,
    signature: [u8; 64],
}

/// An alarm as it is kept and passed on.
pub(crate) type HeldAlarm = Arc<Alarm>;

impl Alarm {
    /// Signs an alarm in the name of this node.
    pub(crate) fn sign(
        accused: Key,
        (me, crypto): (&NodeId, &dyn Crypto),
        (why, evidence): (Why, &Evidence),
    ) -> Self {
        let heads = [&evidence.accepted, &evidence.offending];
        let notes = heads.into_iter().flatten();
        let mut alarm = Self {
            accused,
            reporter: Key::of(me),
            why,
            notes: notes.map(|head| head.note.clone()).collect(),
            signature: [0; 64],
        };
        alarm.signature = crypto.sign(&alarm.message());
        alarm
    }

    /// Tells whether the reporter has signed it.
    pub(crate) fn verify(&self, reporter: &NodeId, crypto: &dyn Crypto) -> bool {
        crypto.verify(reporter, &self.message(), &self.signature)
    }

    fn message(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.raw(DOMAIN);
        self.body_into(&mut out);
        out.finish(usize::MAX).unwrap_or_default()
    }

    fn body_into(&self, out: &mut Writer) {
        let (code, number) = self.why.code();
        out.raw(self.accused.as_bytes())
            .raw(self.reporter.as_bytes())
            .u8(code)
            .u64(number)
            .count8(self.notes.len());
        for note in &self.notes {
            out.str16_max(note, HEAD_BYTES_MAX);
        }
    }

    pub(crate) fn encode_into(&self, out: &mut Writer) {
        self.body_into(out);
        out.raw(&self.signature);
    }

    pub(crate) fn decode_from(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let accused = Key::decode_from(from)?;
        let reporter = Key::decode_from(from)?;
        let why = Why::from_code(from.u8()?, from.u64()?)?;
        let count = from.count8(NOTES_MAX)?;
        let notes: Result<_, _> = (0..count)
            .map(|_nth| from.str16(HEAD_BYTES_MAX).map(str::to_owned))
            .collect();
        Ok(Self {
            accused,
            reporter,
            why,
            notes: notes?,
            signature: from.array()?,
        })
    }

    /// Returns how many bytes [`Alarm::encode_into`] appends.
    pub(crate) fn encoded_len(&self) -> usize {
        let notes: usize = self.notes.iter().map(|note| 2 + note.len()).sum();
        32 + 32 + 1 + 8 + 1 + notes + 64
    }
}

impl Why {
    pub(crate) fn code(self) -> (u8, u64) {
        match self {
            Self::TwoRoots => (1, 0),
            Self::Behind { have } => (2, have),
            Self::Damaged { first_bad } => (3, first_bad),
            Self::NoProof => (4, 0),
            Self::WrongProof => (5, 0),
            Self::OtherLog => (6, 0),
            Self::Fork => (7, 0),
        }
    }

    pub(crate) fn from_code(value: u8, number: u64) -> Result<Self, DecodeError> {
        let why = match value {
            1 => Self::TwoRoots,
            2 => Self::Behind { have: number },
            3 => Self::Damaged { first_bad: number },
            4 => Self::NoProof,
            5 => Self::WrongProof,
            6 => Self::OtherLog,
            7 => Self::Fork,
            value => {
                let what = "reason of an alarm";
                return Err(DecodeError::Unknown { what, value });
            }
        };
        if why.code().1 != number {
            let what = "number of an alarm";
            return Err(DecodeError::Invalid { what });
        }
        Ok(why)
    }
}
