//! Secrets that people copy about: the mesh secret and the API key.
//!
//! What `openfang keygen` makes is a prefix, 32 random bytes and a checksum, so that a mistyped or
//! cut-off secret is noticed before it is used, and a scanner can recognise a leaked one. Other
//! texts are accepted when they are long enough not to be guessed; passphrases are not (RFC 9257 §6
//! asks for 128 bits of entropy in a pre-shared key).

use std::fmt;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The fewest characters of a secret that was not made by `openfang keygen`: 32 characters of hex
/// are the 128 bits that RFC 9257 §6 asks for.
const SECRET_CHARS_MIN: usize = 32;
/// The longest secret: more is a file pasted by accident.
const SECRET_CHARS_MAX: usize = 512;
/// The fewest different characters: a text with less is a repetition, not a secret.
const DISTINCT_CHARS_MIN: usize = 8;
/// The part of the checksum that is written, in bytes.
const CHECKSUM_BYTES: usize = 4;
const NETWORK_PREFIX: &str = "ofn1_";
const API_PREFIX: &str = "ofk1_";
/// Parts of texts that stand in guides and templates where a secret belongs.
const PLACEHOLDERS: [&str; 9] = [
    "your-",
    "your_",
    "changeme",
    "change-me",
    "change_me",
    "example",
    "placeholder",
    "secret-here",
    "password",
];

/// Why a text is not accepted as a secret. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too short to resist guessing.
    #[error("it has {0} characters, fewer than {SECRET_CHARS_MIN}")]
    TooShort(usize),
    /// Longer than any secret.
    #[error("it has {0} characters, more than {SECRET_CHARS_MAX}")]
    TooLong(usize),
    /// A text copied from a guide.
    #[error("it is a placeholder, not a secret")]
    Placeholder,
    /// A repetition of few characters.
    #[error("it repeats fewer than {DISTINCT_CHARS_MIN} different characters")]
    Repetitive,
    /// It holds spaces or control characters: most likely cut or pasted wrongly.
    #[error("it holds white space or control characters")]
    Whitespace,
    /// A generated secret with a wrong checksum: mistyped or cut off.
    #[error("its checksum is wrong: it was mistyped or cut off")]
    Checksum,
    /// A secret of the other kind.
    #[error("it is {0}")]
    WrongKind(&'static str),
}

/// The secret all nodes of one mesh share. Redacted in `Debug`, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SharedSecret(String);

/// The key that opens the HTTP API. Redacted in `Debug`, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ApiKey(String);

impl SharedSecret {
    /// Makes a secret of 32 random bytes.
    #[must_use]
    pub fn from_random(bytes: &[u8; 32]) -> Self {
        Self(encode(NETWORK_PREFIX, bytes))
    }

    /// Checks a text from a configuration.
    ///
    /// # Errors
    /// When it could be guessed, was copied from a guide, or is damaged.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if text.starts_with(API_PREFIX) {
            return Err(SecretError::WrongKind("an API key, not a network secret"));
        }
        check(NETWORK_PREFIX, text)?;
        Ok(Self(text.to_owned()))
    }

    /// Returns the bytes to derive keys from: the text itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Returns the text, to be written into a file that only the owner can read, or a ticket.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl ApiKey {
    /// Makes a key of 32 random bytes.
    #[must_use]
    pub fn from_random(bytes: &[u8; 32]) -> Self {
        Self(encode(API_PREFIX, bytes))
    }

    /// Checks a text from a configuration.
    ///
    /// # Errors
    /// When it could be guessed, was copied from a guide, or is damaged.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if text.starts_with(NETWORK_PREFIX) {
            return Err(SecretError::WrongKind("a network secret, not an API key"));
        }
        check(API_PREFIX, text)?;
        Ok(Self(text.to_owned()))
    }

    /// Returns the text, to be written into a file that only the owner can read.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares with what a caller presented, in time that does not depend on where they differ.
    /// Both are hashed first, so that not even the length shows.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        let ours = Sha256::digest(self.0.as_bytes());
        let theirs = Sha256::digest(presented);
        ours.as_slice().ct_eq(theirs.as_slice()).into()
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(redacted)")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(redacted)")
    }
}

fn checksum(prefix: &str, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Sha256::new()
        .chain_update(prefix)
        .chain_update(payload)
        .finalize();
    let mut out = [0; CHECKSUM_BYTES];
    out.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    out
}

fn encode(prefix: &str, bytes: &[u8; 32]) -> String {
    let mut payload = Zeroizing::new([0; 32 + CHECKSUM_BYTES]);
    payload[..32].copy_from_slice(bytes);
    payload[32..].copy_from_slice(&checksum(prefix, bytes));
    let text = Zeroizing::new(BASE32_NOPAD.encode(payload.as_slice()));
    let mut out = String::with_capacity(prefix.len() + text.len());
    out.push_str(prefix);
    out.extend(text.chars().map(|c| c.to_ascii_lowercase()));
    out
}

fn check(prefix: &str, text: &str) -> Result<(), SecretError> {
    if let Some(encoded) = text.strip_prefix(prefix) {
        return check_generated(prefix, encoded);
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(SecretError::Whitespace);
    }
    let lower = Zeroizing::new(text.to_lowercase());
    if PLACEHOLDERS
        .iter()
        .any(|placeholder| lower.contains(placeholder))
    {
        return Err(SecretError::Placeholder);
    }
    let chars = text.chars().count();
    if chars < SECRET_CHARS_MIN {
        return Err(SecretError::TooShort(chars));
    }
    if chars > SECRET_CHARS_MAX {
        return Err(SecretError::TooLong(chars));
    }
    let distinct: std::collections::BTreeSet<char> = text.chars().collect();
    if distinct.len() < DISTINCT_CHARS_MIN {
        return Err(SecretError::Repetitive);
    }
    Ok(())
}

fn check_generated(prefix: &str, encoded: &str) -> Result<(), SecretError> {
    let upper = Zeroizing::new(encoded.to_ascii_uppercase());
    let payload = Zeroizing::new(
        BASE32_NOPAD
            .decode(upper.as_bytes())
            .map_err(|_damaged| SecretError::Checksum)?,
    );
    if payload.len() != 32 + CHECKSUM_BYTES {
        return Err(SecretError::Checksum);
    }
    let (secret, sum) = payload.split_at(32);
    if checksum(prefix, secret) != sum {
        return Err(SecretError::Checksum);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_and_copied_secrets_are_refused() {
        let check = |text: &str, expected: Result<(), SecretError>| {
            assert_eq!(SharedSecret::parse(text).map(|_| ()), expected, "{text:?}");
        };
        check("", Err(SecretError::TooShort(0)));
        check("your-p2p-secret", Err(SecretError::Placeholder));
        check(
            "CHANGEME-0123456789abcdef0123456789abcdef",
            Err(SecretError::Placeholder),
        );
        check(
            "0123456789abcdef0123456789abcde",
            Err(SecretError::TooShort(31)),
        );
        check("0123456789abcdef0123456789abcdef", Ok(()));
        check(&"ab".repeat(40), Err(SecretError::Repetitive));
        check(
            "0123456789abcdef 0123456789abcdef",
            Err(SecretError::Whitespace),
        );
        check(
            &"0123456789abcdef".repeat(40),
            Err(SecretError::TooLong(640)),
        );
    }

    #[test]
    fn a_generated_secret_notices_a_typing_error() {
        let secret = SharedSecret::from_random(&[9; 32]);
        assert!(SharedSecret::parse(secret.expose()).is_ok());
        assert!(matches!(
            ApiKey::parse(secret.expose()),
            Err(SecretError::WrongKind(_))
        ));
        for at in NETWORK_PREFIX.len()..secret.expose().len() {
            let mut text = secret.expose().to_owned().into_bytes();
            text[at] = if text[at] == b'q' { b'r' } else { b'q' };
            let text = String::from_utf8(text).expect("ascii");
            assert_eq!(
                SharedSecret::parse(&text).map(|_| ()),
                Err(SecretError::Checksum),
                "{at}"
            );
        }
        let cut = &secret.expose()[..40];
        assert_eq!(
            SharedSecret::parse(cut).map(|_| ()),
            Err(SecretError::Checksum)
        );
    }

    #[test]
    fn an_api_key_matches_itself_only() {
        let key = ApiKey::from_random(&[5; 32]);
        assert!(key.matches(key.expose().as_bytes()));
        assert!(!key.matches(b""));
        assert!(!key.matches(&key.expose().as_bytes()[1..]));
        assert_eq!(format!("{key:?}"), "ApiKey(redacted)");
    }
}
