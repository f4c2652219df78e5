//! What nodes are looked up by: the bytes of a public key, before anyone has checked that they are
//! one.

use std::cmp::Ordering;

use openfang_id::NodeId;

use crate::codec::{DecodeError, Reader};

/// The 32 bytes of a node's public key, in the order of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// Takes the bytes of a node id.
    pub(crate) fn of(node: &NodeId) -> Self {
        Self(*node.as_bytes())
    }

    /// Takes bytes as they are.
    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Takes the next 32 bytes of a message.
    pub(crate) fn decode_from(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.array().map(Self)
    }

    /// Returns the bytes.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first eight bytes: nearly always enough to tell two keys apart, without a call.
    fn first(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.first().cmp(&other.first())).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
