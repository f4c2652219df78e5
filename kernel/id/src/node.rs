//! The identity of a node.

use std::fmt;
use std::str::FromStr;

use crate::key::VerifyingKey;

/// The protobuf and multihash header of an inlined Ed25519 public key: identity multihash (0x00) of
/// 36 bytes, key type 1 (Ed25519), 32 bytes of key. libp2p specs, `peer-ids/peer-ids.md`.
const PEER_ID_HEADER: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
/// Header and key.
const PEER_ID_BYTES: usize = PEER_ID_HEADER.len() + 32;
/// The longest base58 text of that many bytes, with room to spare: longer input is not decoded.
const PEER_ID_TEXT_MAX: usize = 64;

/// Who a node is: its Ed25519 identity key, written as a libp2p peer id (`12D3KooW…`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

/// Why a text or byte string is not a node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeIdError {
    /// Not base58, or not of the length of a peer id.
    #[error("not a node id: expected base58 text such as 12D3KooW…")]
    Encoding,
    /// A peer id of another kind of key.
    #[error("not a node id: the key is not an inlined Ed25519 key")]
    KeyType,
    /// 32 bytes that are no point of the curve, or a weak one.
    #[error("not a node id: the key is not a valid Ed25519 public key")]
    Key,
}

impl NodeId {
    /// Takes the 32 bytes of an Ed25519 public key.
    ///
    /// # Errors
    /// [`NodeIdError::Key`] when they are no valid point, or one of small order.
    pub fn from_public_key(bytes: [u8; 32]) -> Result<Self, NodeIdError> {
        VerifyingKey::from_bytes(bytes).map_err(|_invalid| NodeIdError::Key)?;
        Ok(Self(bytes))
    }

    /// Takes the binary form of a libp2p peer id (38 bytes).
    ///
    /// # Errors
    /// When it is not that of an inlined Ed25519 key.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Result<Self, NodeIdError> {
        if bytes.len() != PEER_ID_BYTES {
            return Err(NodeIdError::Encoding);
        }
        let (header, key) = bytes.split_at(PEER_ID_HEADER.len());
        if header != PEER_ID_HEADER {
            return Err(NodeIdError::KeyType);
        }
        let key = key.try_into().map_err(|_length| NodeIdError::Encoding)?;
        Self::from_public_key(key)
    }

    /// Returns the binary form of the libp2p peer id.
    #[must_use]
    pub fn to_peer_id_bytes(&self) -> [u8; PEER_ID_BYTES] {
        let mut out = [0; PEER_ID_BYTES];
        out[..PEER_ID_HEADER.len()].copy_from_slice(&PEER_ID_HEADER);
        out[PEER_ID_HEADER.len()..].copy_from_slice(&self.0);
        out
    }

    /// Returns the 32 bytes of the public key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the key that verifies what this node signs with its identity.
    ///
    /// # Errors
    /// Never for an id that was made by this module's constructors.
    pub fn verifying_key(&self) -> Result<VerifyingKey, crate::KeyError> {
        VerifyingKey::from_bytes(self.0)
    }

    /// Returns the last eight characters: enough to tell nodes of one mesh apart in a log line.
    #[must_use]
    pub fn fmt_short(&self) -> String {
        let text = self.to_string();
        text[text.len() - 8..].to_owned()
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        if text.len() > PEER_ID_TEXT_MAX {
            return Err(NodeIdError::Encoding);
        }
        let bytes = bs58::decode(text)
            .into_vec()
            .map_err(|_not_base58| NodeIdError::Encoding)?;
        Self::from_peer_id_bytes(&bytes)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&bs58::encode(self.to_peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.fmt_short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeSeed;

    #[test]
    fn a_node_id_is_written_as_a_libp2p_peer_id() {
        let id = NodeSeed::from_bytes([7; 32]).keys().node_id();
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<NodeId>(), Ok(id));
        assert_eq!(NodeId::from_peer_id_bytes(&id.to_peer_id_bytes()), Ok(id));
        assert!(text.ends_with(&id.fmt_short()));
    }

    #[test]
    fn weak_keys_and_other_texts_are_rejected() {
        // The identity point has small order: anyone can make signatures that verify under it.
        let mut weak = [0; 32];
        weak[0] = 1;
        assert_eq!(NodeId::from_public_key(weak), Err(NodeIdError::Key));
        assert_eq!("".parse::<NodeId>(), Err(NodeIdError::Encoding));
        assert_eq!(
            "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG".parse::<NodeId>(),
            Err(NodeIdError::Encoding)
        );
        assert_eq!(
            "1".repeat(1000).parse::<NodeId>(),
            Err(NodeIdError::Encoding)
        );
    }
}
