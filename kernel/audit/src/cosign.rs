//! Cosignatures: what a witness or a mirror puts under the head of a log. C2SP tlog-cosignature v1.
//!
//! Only the Ed25519 kind (0x04). The signature is 72 bytes: the time as a big-endian number of POSIX
//! seconds, then the signature over `cosignature/v1`, the time and the text of the checkpoint. It
//! says: "as of this time, the largest consistent head that I have seen of this log is this one".
//! The message does not name the cosigner, so a key must serve one name and one role only.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use openfang_id::{NodeId, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::base64::decode_hash;
use crate::checkpoint::{mesh_name, parse_decimal};
use crate::note::{
    KEY_ID_BYTES, Note, NoteError, Signature, VerifierError, is_name, key_id, parse_vkey,
    write_vkey,
};
use crate::tree::SIZE_MAX;
use crate::{Checkpoint, Hash, Origin};

/// The longest name of a log.
pub const LOG_NAME_BYTES_MAX: usize = 255;
/// The longest text of a head that is parsed, with whatever extension lines a log may write.
pub const TREE_HEAD_BYTES_MAX: usize = 16 * 1024;
/// The latest time a cosignature can carry, in POSIX seconds.
pub const TIME_MAX: u64 = i64::MAX as u64;

/// Marks the key of a timestamped Ed25519 cosignature in key ids and verifier keys.
const TYPE_COSIGNATURE: u8 = 0x04;
const TIME_BYTES: usize = 8;
const ED25519_BYTES: usize = 64;

/// The name of a log of whatever maker: not empty, at most 255 bytes, without white space, control
/// characters and `+`. The name of a log of this system is an [`Origin`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName(Box<str>);

/// Why a text is not the name of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a log: 1 to {LOG_NAME_BYTES_MAX} bytes without spaces and +")]
pub struct LogNameError;

/// What the head of any log says. C2SP tlog-checkpoint.
///
/// Whether the root of an empty log is the empty root is not looked at: a witness has its own answer
/// to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeHead {
    /// Which log.
    pub origin: LogName,
    /// How many entries it has, at most 2^63 - 1.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
    /// Further lines, each with its line feed. They are signed and mean nothing here.
    extension: Box<str>,
}

/// Why a text is not the head of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeHeadError {
    /// Longer than is parsed.
    #[error("the head is longer than {TREE_HEAD_BYTES_MAX} bytes")]
    TooLong,
    /// Not three lines or more, an empty line, or a control character.
    #[error("the head of a log has three lines or more, none of them empty")]
    Lines,
    /// The first line is no name.
    #[error("the first line of the head: {0}")]
    Origin(#[source] LogNameError),
    /// The second line is not a plain decimal number below 2^63.
    #[error("the second line of the head is not a size")]
    Size,
    /// The third line is not the base64 of 32 bytes.
    #[error("the third line of the head is not a root")]
    Root,
}

/// What a node cosigns as. Each role has its own name and its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It has checked that the log only grew.
    Witness,
    /// It also holds every entry and serves it.
    Mirror,
}

/// A named key that cosigns.
#[derive(Debug, Clone)]
pub struct Cosigner {
    public: CosignerKey,
    key: SigningKey,
}

/// The public half of a cosigner, written as a verifier key of kind 0x04.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignerKey {
    name: Box<str>,
    key: VerifyingKey,
}

impl LogName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the SHA-256 of the name. Its hexadecimal form stands for the log in paths (C2SP
    /// tlog-witness and tlog-mirror).
    #[must_use]
    pub fn id(&self) -> Hash {
        Hash::from_bytes(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl FromStr for LogName {
    type Err = LogNameError;

    fn from_str(text: &str) -> Result<Self, LogNameError> {
        // Stricter than the specification: names of logs are shown on terminals.
        let plain = !text.chars().any(char::is_control);
        if text.len() <= LOG_NAME_BYTES_MAX && is_name(text) && plain {
            Ok(Self(text.into()))
        } else {
            Err(LogNameError)
        }
    }
}

impl From<&Origin> for LogName {
    fn from(origin: &Origin) -> Self {
        Self(origin.as_str().into())
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogName({})", self.0)
    }
}

impl TreeHead {
    /// Makes a head without extension lines.
    pub(crate) fn plain(origin: LogName, size: u64, root: Hash) -> Self {
        Self {
            origin,
            size,
            root,
            extension: "".into(),
        }
    }

    /// Returns the extension lines. Logs of this system write none.
    pub fn extension_lines(&self) -> std::str::Lines<'_> {
        self.extension.lines()
    }
}

impl FromStr for TreeHead {
    type Err = TreeHeadError;

    fn from_str(text: &str) -> Result<Self, TreeHeadError> {
        if text.len() > TREE_HEAD_BYTES_MAX {
            return Err(TreeHeadError::TooLong);
        }
        let body = text.strip_suffix('\n').ok_or(TreeHeadError::Lines)?;
        let is_line = |line: &str| !line.is_empty() && !line.bytes().any(|byte| byte < 0x20);
        if !body.split('\n').all(is_line) {
            return Err(TreeHeadError::Lines);
        }
        let mut parts = text.splitn(4, '\n');
        let mut part = || parts.next().ok_or(TreeHeadError::Lines);
        let (origin, size, root, extension) = (part()?, part()?, part()?, part()?);
        let origin = origin.parse().map_err(TreeHeadError::Origin)?;
        let size = parse_decimal(size)
            .filter(|size| *size <= SIZE_MAX)
            .ok_or(TreeHeadError::Size)?;
        Ok(Self {
            origin,
            size,
            root: decode_hash(root).ok_or(TreeHeadError::Root)?,
            extension: extension.into(),
        })
    }
}

impl From<&Checkpoint> for TreeHead {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self {
            origin: (&checkpoint.origin).into(),
            size: checkpoint.size,
            root: checkpoint.root,
            extension: "".into(),
        }
    }
}

impl fmt::Display for TreeHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = BASE64.encode(self.root.as_bytes());
        let Self {
            origin,
            size,
            extension,
            ..
        } = self;
        write!(f, "{origin}\n{size}\n{root}\n{extension}")
    }
}

impl Role {
    /// Returns the name a node cosigns under: `n-<16 hex>.openfang.mesh/witness` or `…/mirror`. The
    /// hexadecimal part is the one of the [`Origin`] of its log.
    #[must_use]
    pub fn name_of(self, node: &NodeId) -> String {
        let role = match self {
            Self::Witness => "witness",
            Self::Mirror => "mirror",
        };
        format!("{}/{role}", mesh_name(node))
    }
}

impl Cosigner {
    /// Names a key. Returns `None` for a name that a note cannot hold.
    #[must_use]
    pub fn new(name: &str, key: SigningKey) -> Option<Self> {
        let public = CosignerKey::new(name, key.verifying_key())?;
        Some(Self { public, key })
    }

    /// Makes the cosigner of a node in a role.
    #[must_use]
    pub fn of(node: &NodeId, role: Role, key: SigningKey) -> Self {
        let public = CosignerKey::of(node, role, key.verifying_key());
        Self { public, key }
    }

    /// Returns the public half.
    #[must_use]
    pub fn public(&self) -> &CosignerKey {
        &self.public
    }

    /// Signs a head at a time in POSIX seconds. The caller has made sure that it may: the head must
    /// be consistent with every one that was cosigned before, and the time must not go back.
    ///
    /// Returns `None` for a time after [`TIME_MAX`].
    #[must_use]
    pub fn cosign(&self, head: &TreeHead, time: u64) -> Option<Signature> {
        if time > TIME_MAX {
            return None;
        }
        let mut bytes = time.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.key.sign(message(&head.to_string(), time).as_bytes()));
        Some(Signature {
            name: self.public.name.to_string(),
            key_id: self.public.key_id(),
            bytes,
        })
    }
}

impl CosignerKey {
    /// Names a key. Returns `None` for a name that a note cannot hold.
    #[must_use]
    pub fn new(name: &str, key: VerifyingKey) -> Option<Self> {
        is_name(name).then(|| Self {
            name: name.into(),
            key,
        })
    }

    /// Makes the cosigner key of a node in a role.
    #[must_use]
    pub fn of(node: &NodeId, role: Role, key: VerifyingKey) -> Self {
        Self {
            name: role.name_of(node).into(),
            key,
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// Returns the key id that signature lines carry.
    #[must_use]
    pub fn key_id(&self) -> [u8; KEY_ID_BYTES] {
        key_id(&self.name, TYPE_COSIGNATURE, &self.key)
    }

    /// Checks the cosignature of this key under a note and returns its time in POSIX seconds. Lines of
    /// other keys are passed over. Whether the text is that of a head is not looked at.
    ///
    /// # Errors
    /// [`NoteError::UnknownKey`] when there is none, [`NoteError::Signature`] when there are two or
    /// it does not hold.
    pub fn verify(&self, note: &Note) -> Result<u64, NoteError> {
        let line = note.line_of(&self.name, self.key_id())?;
        let (time, signature) = line
            .bytes
            .split_first_chunk::<TIME_BYTES>()
            .ok_or(NoteError::Signature)?;
        let time = u64::from_be_bytes(*time);
        let signature: &[u8; ED25519_BYTES] = signature
            .try_into()
            .map_err(|_length| NoteError::Signature)?;
        if time > TIME_MAX {
            return Err(NoteError::Signature);
        }
        self.key
            .verify(message(note.text(), time).as_bytes(), signature)
            .map_err(|_mismatch| NoteError::Signature)?;
        Ok(time)
    }

    /// Takes the cosignature of this key out of what a witness has answered and puts it under the note
    /// that was offered. Lines of other keys are passed over. Returns its time in POSIX seconds.
    ///
    /// # Errors
    /// When there is no such line, it does not hold, or the note has no room. The note is then
    /// unchanged.
    pub fn collect(&self, note: &mut Note, answer: &str) -> Result<u64, NoteError> {
        let lines = Signature::parse_lines(answer)?;
        let mut own = lines
            .into_iter()
            .filter(|line| line.is_of(&self.name, self.key_id()));
        let line = own.next().ok_or(NoteError::UnknownKey)?;
        if own.next().is_some() {
            return Err(NoteError::Signature);
        }
        let mut cosigned = note.clone();
        cosigned.add(line)?;
        let time = self.verify(&cosigned)?;
        *note = cosigned;
        Ok(time)
    }
}

impl FromStr for CosignerKey {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let (name, key) = parse_vkey(text, TYPE_COSIGNATURE)?;
        Ok(Self {
            name: name.into(),
            key,
        })
    }
}

impl fmt::Display for CosignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_vkey(f, &self.name, TYPE_COSIGNATURE, &self.key)
    }
}

/// Reads the lines of a proof: hashes in base64, each with its line feed, at most 63.
pub(crate) fn parse_proof_lines(text: &str) -> Option<Vec<Hash>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let lines = text.strip_suffix('\n')?;
    if lines.split('\n').count() > crate::proof::PROOF_HASHES_MAX {
        return None;
    }
    lines.split('\n').map(decode_hash).collect()
}

pub(crate) fn write_proof_lines(f: &mut fmt::Formatter<'_>, proof: &[Hash]) -> fmt::Result {
    for hash in proof {
        writeln!(f, "{}", BASE64.encode(hash.as_bytes()))?;
    }
    Ok(())
}

fn message(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

#[cfg(test)]
mod tests;
