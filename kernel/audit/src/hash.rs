//! The 32-byte hash everything here is made of, and the name of its algorithm.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;

/// A SHA-256 hash: a leaf, a node or a root of the tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; Hash::BYTES]);

/// Why a text is not a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a hash: expected 64 lower-case hexadecimal digits")]
pub struct HashTextError;

/// The hash function of the log. RFC 6962 fixes SHA-256, and so do the C2SP formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-256 (FIPS 180-4).
    Sha256,
}

/// Why a text names no hash function of the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown hash algorithm: the audit log uses \"sha256\", the one its formats define")]
pub struct UnknownAlgorithm;

impl Hash {
    /// The length in bytes.
    pub const BYTES: usize = 32;

    /// Takes 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Returns the first eight hexadecimal digits, for a log line.
    #[must_use]
    pub fn fmt_short(&self) -> String {
        HEXLOWER.encode(&self.0[..4])
    }
}

impl FromStr for Hash {
    type Err = HashTextError;

    fn from_str(text: &str) -> Result<Self, HashTextError> {
        let mut bytes = [0; Self::BYTES];
        if text.len() != 2 * Self::BYTES {
            return Err(HashTextError);
        }
        HEXLOWER
            .decode_mut(text.as_bytes(), &mut bytes)
            .map_err(|_not_hex| HashTextError)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({})", self.fmt_short())
    }
}

impl FromStr for HashAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        match text {
            "sha256" => Ok(Self::Sha256),
            _other => Err(UnknownAlgorithm),
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256 => f.write_str("sha256"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_written_in_lower_hex() {
        let hash = Hash::from_bytes([0xa5; 32]);
        assert_eq!(hash.to_string(), "a5".repeat(32));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for text in [
            "",
            "a5",
            &"A5".repeat(32),
            &"a5".repeat(33),
            &"é".repeat(32),
        ] {
            assert_eq!(text.parse::<Hash>(), Err(HashTextError), "{text:?}");
        }
    }

    #[test]
    fn there_is_one_algorithm() {
        assert_eq!("sha256".parse(), Ok(HashAlgorithm::Sha256));
        assert_eq!(HashAlgorithm::Sha256.to_string(), "sha256");
        for text in ["", "SHA256", "sha512", "md5"] {
            assert_eq!(text.parse::<HashAlgorithm>(), Err(UnknownAlgorithm));
        }
    }
}
