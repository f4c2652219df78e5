//! Keys: one seed a node, every key derived from it with its own label.
//!
//! The labels keep the roles apart: a signature made as a witness can never be taken for one made
//! as a log or as a peer, and one 32-byte file backs up a node. HKDF-SHA256, RFC 5869.

use std::fmt;

use ed25519_dalek::Signer as _;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::NodeId;

/// Separates this derivation from any other use of the same seed.
const SEED_SALT: &[u8] = b"openfang/node-seed/v1";

/// The one secret a node is made of: 32 random bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NodeSeed([u8; 32]);

impl NodeSeed {
    /// Takes 32 bytes; the caller draws them from a cryptographic source.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, to be stored in a file that only the owner can read.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives every key of the node.
    ///
    /// # Panics
    /// Never: the output of the derivation has a fixed, allowed length.
    #[must_use]
    pub fn keys(&self) -> Keys {
        Keys {
            identity: self.derive("openfang/identity/v1"),
            log: self.derive("openfang/audit-log/v1"),
            witness: self.witness_key(0),
            mirror: self.mirror_key(0),
        }
    }

    /// Derives the witness key of a generation. A witness whose state is lost must never use its key
    /// again, because it has forgotten what it has promised with it: the next one takes its place.
    ///
    /// # Panics
    /// Never, as [`NodeSeed::keys`].
    #[must_use]
    pub fn witness_key(&self, generation: u32) -> SigningKey {
        self.derive_generation("openfang/audit-witness/v1", generation)
    }

    /// Derives the mirror key of a generation: as [`NodeSeed::witness_key`], for a mirror that has
    /// forgotten what it said it holds.
    ///
    /// # Panics
    /// Never, as [`NodeSeed::keys`].
    #[must_use]
    pub fn mirror_key(&self, generation: u32) -> SigningKey {
        self.derive_generation("openfang/audit-mirror/v1", generation)
    }

    /// Derives the key of the vault, which seals what the audit log commits to.
    ///
    /// # Panics
    /// Never, as [`NodeSeed::keys`].
    #[must_use]
    pub fn vault_key(&self) -> VaultKey {
        VaultKey(self.expand("openfang/audit-vault/v1"))
    }

    fn derive_generation(&self, label: &str, generation: u32) -> SigningKey {
        match generation {
            0 => self.derive(label),
            later => self.derive(&format!("{label}/{later}")),
        }
    }

    fn derive(&self, label: &str) -> SigningKey {
        SigningKey::from_bytes(&self.expand(label))
    }

    fn expand(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(SEED_SALT), &self.0)
            .expand(label.as_bytes(), bytes.as_mut_slice())
            .expect("32 bytes are within the 255 blocks HKDF-SHA256 can give");
        bytes
    }
}

/// The key under which the vault of the audit log keeps its keys. Redacted in `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct VaultKey(Zeroizing<[u8; 32]>);

impl VaultKey {
    /// Returns the bytes, to derive from.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultKey(redacted)")
    }
}

impl fmt::Debug for NodeSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSeed(redacted)")
    }
}

/// The keys of one node, one a role.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Authenticates connections and signs the node's roster record. Its public half is the [`NodeId`].
    pub identity: SigningKey,
    /// Signs the heads of the node's audit log.
    pub log: SigningKey,
    /// Cosigns the heads of other logs: the first generation of [`NodeSeed::witness_key`].
    pub witness: SigningKey,
    /// Cosigns what it stores of other logs: the first generation of [`NodeSeed::mirror_key`].
    pub mirror: SigningKey,
}

impl Keys {
    /// Returns the id of the node that holds these keys.
    ///
    /// # Panics
    /// Never: the public half of a signing key is a valid key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId::from_public_key(self.identity.verifying_key().to_bytes())
            .expect("the public half of a signing key is a valid key")
    }
}

/// An Ed25519 signing key. Redacted in `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Takes a 32-byte secret key (RFC 8032 §5.1.5).
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(bytes))
    }

    /// Returns the secret bytes; the caller wipes its copy.
    #[must_use]
    pub fn secret_bytes(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// Returns the public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// Signs a message: 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(redacted)")
    }
}

/// Why bytes are not a usable public key, or a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No point of the curve, or one of small order.
    #[error("not a usable Ed25519 public key")]
    Invalid,
    /// The signature is not this key's over this message.
    #[error("the signature does not verify")]
    Signature,
}

/// An Ed25519 public key that was checked when it was made: a canonical point, not of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// Takes 32 bytes.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] for anything with which signatures would be ambiguous.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes)
            .map_err(|_not_a_point| KeyError::Invalid)?;
        if key.is_weak() {
            return Err(KeyError::Invalid);
        }
        Ok(Self(key))
    }

    /// Returns the 32 bytes of the key.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Checks a signature with the strict rule (no malleability, no small-order components).
    ///
    /// # Errors
    /// [`KeyError::Signature`] when it does not hold.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), KeyError> {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0
            .verify_strict(message, &signature)
            .map_err(|_mismatch| KeyError::Signature)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "VerifyingKey({})",
            data_encoding::HEXLOWER.encode(&self.to_bytes())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_of_one_seed_have_different_keys() {
        let keys = NodeSeed::from_bytes([1; 32]).keys();
        let publics = [&keys.identity, &keys.log, &keys.witness, &keys.mirror]
            .map(|key| key.verifying_key().to_bytes());
        for (at, a) in publics.iter().enumerate() {
            assert!(publics[at + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn the_key_of_the_vault_is_no_signing_key_and_does_not_change() {
        let seed = NodeSeed::from_bytes([1; 32]);
        let vault = *seed.vault_key().as_bytes();
        let keys = seed.keys();
        for key in [&keys.identity, &keys.log, &keys.witness, &keys.mirror] {
            assert_ne!(*key.secret_bytes(), vault);
        }
        assert_eq!(vault, *seed.vault_key().as_bytes());
        assert_ne!(vault, *NodeSeed::from_bytes([2; 32]).vault_key().as_bytes());
    }

    #[test]
    fn the_generations_of_both_roles_have_different_keys() {
        let seed = NodeSeed::from_bytes([1; 32]);
        let keys = (0..3).flat_map(|n| [seed.witness_key(n), seed.mirror_key(n)]);
        let publics: Vec<_> = keys.map(|key| key.verifying_key().to_bytes()).collect();
        for (at, a) in publics.iter().enumerate() {
            assert!(publics[at + 1..].iter().all(|b| a != b));
        }
        let first = seed.keys();
        assert_eq!(publics[0], first.witness.verifying_key().to_bytes());
        assert_eq!(publics[1], first.mirror.verifying_key().to_bytes());
    }

    #[test]
    fn the_derivation_does_not_change() {
        // A change here would give every node of every mesh a new identity.
        let id = NodeSeed::from_bytes([42; 32]).keys().node_id();
        assert_eq!(
            id.to_string(),
            "12D3KooWFMRJk5pQnyvkFyf7J5q8rRHAEJkqU5gTifeJCjZaEicf"
        );
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let seed = NodeSeed::from_bytes([0xab; 32]);
        let shown = format!("{seed:?} {:?} {:?}", seed.keys(), seed.vault_key());
        assert!(
            !shown.contains("ab, ab") && !shown.contains("171"),
            "{shown}"
        );
    }

    #[test]
    fn a_signature_holds_for_its_message_only() {
        let key = NodeSeed::from_bytes([2; 32]).keys().log;
        let mut signature = key.sign(b"head");
        assert_eq!(key.verifying_key().verify(b"head", &signature), Ok(()));
        assert_eq!(
            key.verifying_key().verify(b"heaD", &signature),
            Err(KeyError::Signature)
        );
        signature[3] ^= 1;
        assert_eq!(
            key.verifying_key().verify(b"head", &signature),
            Err(KeyError::Signature)
        );
    }
}
