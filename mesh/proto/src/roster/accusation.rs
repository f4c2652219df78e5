//! An accusation: one node's signed word that another may be dead.

use openfang_id::NodeId;

use super::record::Life;
use super::{Crypto, Key};
use crate::codec::{DecodeError, Reader, Writer};

/// Separates these signatures from every other use of the identity key.
const DOMAIN: &[u8] = b"OFP-ACCUSE-V1\0";
/// Target, incarnation, refutation, accuser, kind, signature.
pub(super) const ACCUSATION_BYTES: usize = 32 + 8 + 4 + 32 + 1 + 64;

/// Why a node is accused, the weakest reason first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// Its heartbeats have stopped.
    Silent,
    /// Its connection ended without a farewell.
    Closed,
    /// It could not be reached again.
    Refused,
}

/// What travels. It is about one life of the target; a refutation begins the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accusation {
    pub(crate) target: Key,
    pub(crate) life: Life,
    pub(crate) accuser: Key,
    pub(crate) doubt: Doubt,
    signature: [u8; 64],
}

impl Doubt {
    fn code(self) -> u8 {
        match self {
            Self::Silent => 1,
            Self::Closed => 2,
            Self::Refused => 3,
        }
    }

    fn from_code(value: u8) -> Result<Self, DecodeError> {
        match value {
            1 => Ok(Self::Silent),
            2 => Ok(Self::Closed),
            3 => Ok(Self::Refused),
            value => {
                let what = "kind of accusation";
                Err(DecodeError::Unknown { what, value })
            }
        }
    }
}

impl Accusation {
    /// Signs an accusation in the name of this node.
    pub(crate) fn sign(
        target: Key,
        life: Life,
        doubt: Doubt,
        (me, crypto): (&NodeId, &dyn Crypto),
    ) -> Self {
        let mut accusation = Self {
            target,
            life,
            accuser: Key::of(me),
            doubt,
            signature: [0; 64],
        };
        accusation.signature = crypto.sign(&accusation.message());
        accusation
    }

    /// Tells whether the accuser has signed it.
    pub(crate) fn verify(&self, accuser: &NodeId, crypto: &dyn Crypto) -> bool {
        crypto.verify(accuser, &self.message(), &self.signature)
    }

    fn message(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(DOMAIN.len() + ACCUSATION_BYTES);
        out.raw(DOMAIN);
        self.body_into(&mut out);
        out.finish(usize::MAX).unwrap_or_default()
    }

    fn body_into(&self, out: &mut Writer) {
        out.raw(self.target.as_bytes())
            .u64(self.life.incarnation)
            .u32(self.life.refutation)
            .raw(self.accuser.as_bytes())
            .u8(self.doubt.code());
    }

    pub(crate) fn encode_into(&self, out: &mut Writer) {
        self.body_into(out);
        out.raw(&self.signature);
    }

    pub(crate) fn decode_from(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            target: Key::decode_from(from)?,
            life: Life {
                incarnation: from.u64()?,
                refutation: from.u32()?,
            },
            accuser: Key::decode_from(from)?,
            doubt: Doubt::from_code(from.u8()?)?,
            signature: from.array()?,
        })
    }
}
