//! The head of a log: origin, size and root, signed by the log. C2SP tlog-checkpoint v1.0.0.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use openfang_id::{NodeId, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::Hash;
use crate::base64::decode_hash;
use crate::note::{Note, NoteError, Verifier};
use crate::tree::{EMPTY_ROOT, SIZE_MAX};

/// The longest note of a head: its own line and a score of cosignatures.
pub const HEAD_BYTES_MAX: usize = 4096;

const ORIGIN_START: &str = "n-";
const MESH: &str = ".openfang.mesh";
const ORIGIN_MIDDLE: &str = ".openfang.mesh/audit/";
/// The part of the hash of the node's key that is written, in bytes.
const ORIGIN_ID_BYTES: usize = 8;

/// The name of a log: `n-<16 hex>.openfang.mesh/audit/<epoch>`.
///
/// The hexadecimal part is the beginning of the SHA-256 of the node's public key, so that the name
/// outlives every address. The epoch grows when a log cannot be continued.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(Box<str>);

/// Why a text is not the name of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the origin of an audit log: expected n-<16 hex>.openfang.mesh/audit/<number>")]
pub struct OriginError;

/// What the head of a log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: Origin,
    /// How many entries it has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

/// Why a text is not a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not three lines.
    #[error("a checkpoint has three lines: origin, size and root")]
    Lines,
    /// The first line names no log.
    #[error("the first line of the checkpoint: {0}")]
    Origin(#[source] OriginError),
    /// The second line is not a plain decimal number below 2^63.
    #[error("the second line of the checkpoint is not a size")]
    Size,
    /// The third line is not the base64 of 32 bytes, or not the root of an empty log that is empty.
    #[error("the third line of the checkpoint is not a root")]
    Root,
}

/// A checkpoint and the note that signs it, made by [`SignedHead::sign`] or [`SignedHead::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// What the head says.
    pub checkpoint: Checkpoint,
    /// The signed note, at most 4,096 bytes.
    pub note: String,
}

/// Why a note is not accepted as the head of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Longer than 4,096 bytes.
    #[error("the head is longer than {HEAD_BYTES_MAX} bytes")]
    TooLong,
    /// Not a note, or not signed by the log.
    #[error("{0}")]
    Note(#[source] NoteError),
    /// The text of the note is not a checkpoint.
    #[error("{0}")]
    Checkpoint(#[source] CheckpointError),
    /// The head of another log.
    #[error("the head belongs to another log")]
    OtherOrigin,
}

impl Origin {
    /// Returns the name of a node's log.
    #[must_use]
    pub fn of(node: &NodeId, epoch: u32) -> Self {
        let id = short_id(node);
        Self(format!("{ORIGIN_START}{id}{ORIGIN_MIDDLE}{epoch}").into())
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the number at its end, which grows when a log cannot be continued.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        let end = self.0.rfind('/').map_or(0, |at| at + 1);
        self.0[end..].parse().unwrap_or_default()
    }

    /// Tells whether this is the log of the node, in whichever epoch.
    #[must_use]
    pub fn belongs_to(&self, node: &NodeId) -> bool {
        let other = Self::of(node, 0);
        let stem = |origin: &Self| {
            let end = origin.0.rfind('/').unwrap_or(0);
            origin.0[..end].to_owned()
        };
        stem(self) == stem(&other)
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let rest = text.strip_prefix(ORIGIN_START).ok_or(OriginError)?;
        let (id, epoch) = rest.split_once(ORIGIN_MIDDLE).ok_or(OriginError)?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let id_ok = id.len() == 2 * ORIGIN_ID_BYTES && id.bytes().all(is_hex);
        let epoch_ok = parse_decimal(epoch).is_some_and(|epoch| u32::try_from(epoch).is_ok());
        if id_ok && epoch_ok {
            Ok(Self(text.into()))
        } else {
            Err(OriginError)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.0)
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let body = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?;
        let mut lines = body.split('\n');
        let mut line = || lines.next().ok_or(CheckpointError::Lines);
        let (origin, size, root) = (line()?, line()?, line()?);
        if lines.next().is_some() {
            return Err(CheckpointError::Lines);
        }
        let origin = origin.parse().map_err(CheckpointError::Origin)?;
        let size = parse_decimal(size)
            .filter(|size| *size <= SIZE_MAX)
            .ok_or(CheckpointError::Size)?;
        let root = decode_hash(root)
            .filter(|root| size > 0 || *root == EMPTY_ROOT)
            .ok_or(CheckpointError::Root)?;
        Ok(Self { origin, size, root })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = BASE64.encode(self.root.as_bytes());
        write!(f, "{}\n{}\n{root}\n", self.origin, self.size)
    }
}

impl SignedHead {
    /// Signs a checkpoint with the key of its log.
    ///
    /// # Panics
    /// Never: what an origin and a checkpoint hold is allowed in a note.
    #[must_use]
    pub fn sign(checkpoint: Checkpoint, key: &SigningKey) -> Self {
        let note = Note::sign(&checkpoint.to_string(), checkpoint.origin.as_str(), key)
            .expect("an origin is a valid key name and a checkpoint a valid text")
            .to_string();
        Self { checkpoint, note }
    }

    /// Reads a note that must be the head of `expected`, signed by `key`. Signatures of others,
    /// such as cosignatures of witnesses, are kept and not looked at.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn open(note: &str, expected: &Origin, key: &VerifyingKey) -> Result<Self, HeadError> {
        if note.len() > HEAD_BYTES_MAX {
            return Err(HeadError::TooLong);
        }
        let parsed: Note = note.parse().map_err(HeadError::Note)?;
        let checkpoint: Checkpoint = parsed.text().parse().map_err(HeadError::Checkpoint)?;
        if checkpoint.origin != *expected {
            return Err(HeadError::OtherOrigin);
        }
        let verifier =
            Verifier::new(expected.as_str(), *key).ok_or(HeadError::Note(NoteError::UnknownKey))?;
        parsed.verify(&verifier).map_err(HeadError::Note)?;
        Ok(Self {
            checkpoint,
            note: note.to_owned(),
        })
    }
}

/// Returns `n-<16 hex>.openfang.mesh`: what all names of a node begin with.
#[must_use]
pub fn mesh_name(node: &NodeId) -> String {
    format!("{ORIGIN_START}{}{MESH}", short_id(node))
}

fn short_id(node: &NodeId) -> String {
    let hash = Sha256::digest(node.as_bytes());
    HEXLOWER.encode(&hash[..ORIGIN_ID_BYTES])
}

/// Reads a decimal number without sign and without leading zeros.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    (digits && plain).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use openfang_id::NodeSeed;
    use proptest::prelude::*;

    fn origin() -> Origin {
        Origin::of(&NodeSeed::from_bytes([1; 32]).keys().node_id(), 3)
    }

    fn checkpoint(size: u64) -> Checkpoint {
        Checkpoint {
            origin: origin(),
            size,
            root: Hash::from_bytes([7; 32]),
        }
    }

    #[test]
    fn an_origin_names_the_key_of_the_node_and_the_epoch() {
        let node = NodeSeed::from_bytes([1; 32]).keys().node_id();
        let hex = Hash::from_bytes(Sha256::digest(node.as_bytes()).into()).to_string();
        let text = format!("n-{}.openfang.mesh/audit/3", &hex[..16]);
        assert_eq!(origin().as_str(), text);
        assert_eq!(text.parse(), Ok(origin()));
        assert!(origin().belongs_to(&node));
        let other = NodeSeed::from_bytes([2; 32]).keys().node_id();
        assert!(!origin().belongs_to(&other));
        for bad in [
            String::new(),
            text.replace("n-", "m-"),
            text.replace("/3", "/03"),
            text.replace("/3", "/+3"),
            text.replace("/3", "/"),
            text.replace("/3", "/4294967296"),
            text.replace("/3", "/3 "),
            text.to_uppercase(),
            text.replacen(&hex[..2], "", 1),
        ] {
            assert_eq!(bad.parse::<Origin>(), Err(OriginError), "{bad:?}");
        }
    }

    #[test]
    fn the_text_of_a_checkpoint_does_not_change() {
        assert_eq!(
            checkpoint(70_000).to_string(),
            format!(
                "{}\n70000\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n",
                origin()
            )
        );
    }

    #[test]
    fn malformed_checkpoints_are_refused() {
        let good = checkpoint(5).to_string();
        let check = |text: &str, expected: CheckpointError| {
            assert_eq!(text.parse::<Checkpoint>(), Err(expected), "{text:?}");
        };
        check("", CheckpointError::Lines);
        check(good.trim_end(), CheckpointError::Lines);
        check(&format!("{good}extension\n"), CheckpointError::Lines);
        check(&format!("{good}\n"), CheckpointError::Lines);
        check(
            &good.replace("/3", "/x"),
            CheckpointError::Origin(OriginError),
        );
        for size in ["05", "+5", "-5", "5 ", "", "9223372036854775808", "٥"] {
            let text = good.replace("\n5\n", &format!("\n{size}\n"));
            check(&text, CheckpointError::Size);
        }
        check(&good.replace("BwcHBwc=", "BwcHBwc"), CheckpointError::Root);
        check(&good.replace("BwcHBwc=", "BwcHBwd="), CheckpointError::Root);
        check(&good.replace("BwcHBwc=", "BwcH"), CheckpointError::Root);
        let moved = format!("BwcHBwcHBwcHBwc={}", "BwcH".repeat(7));
        let text = good.replace(good.lines().last().unwrap_or_default(), &moved);
        check(&text, CheckpointError::Root);
        check(&checkpoint(0).to_string(), CheckpointError::Root);
        let largest = checkpoint(SIZE_MAX);
        assert_eq!(largest.to_string().parse(), Ok(largest));
    }

    #[test]
    fn a_head_is_accepted_only_of_its_log_and_its_key() {
        let keys = NodeSeed::from_bytes([1; 32]).keys();
        let (key, other) = (keys.log.verifying_key(), keys.witness.verifying_key());
        let head = SignedHead::sign(checkpoint(5), &keys.log);
        assert_eq!(
            SignedHead::open(&head.note, &origin(), &key),
            Ok(head.clone())
        );
        assert_eq!(&head.checkpoint, &checkpoint(5));
        let open = |note: &str| SignedHead::open(note, &origin(), &key);
        assert_eq!(
            SignedHead::open(&head.note, &origin(), &other),
            Err(HeadError::Note(NoteError::UnknownKey))
        );
        let next = Origin::of(&keys.node_id(), 4);
        assert_eq!(
            SignedHead::open(&head.note, &next, &key),
            Err(HeadError::OtherOrigin)
        );
        assert_eq!(
            open(&head.note.replace("\n5\n", "\n6\n")),
            Err(HeadError::Note(NoteError::Signature))
        );
        let long = format!("{}{}", &head.note, "\u{2014} x AAAAAAAA\n".repeat(300));
        assert_eq!(open(&long), Err(HeadError::TooLong));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_of_a_head_is_noticed(bit in 0_usize..8 * 230) {
            let keys = NodeSeed::from_bytes([1; 32]).keys();
            let head = SignedHead::sign(checkpoint(123), &keys.log);
            let mut bytes = head.note.as_bytes().to_vec();
            let at = (bit / 8) % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(SignedHead::open(&text, &origin(), &keys.log.verifying_key()).is_err());
            }
        }

        #[test]
        fn parsing_never_panics(text in "(n-[0-9a-f]{16}\\.openfang\\.mesh/audit/[0-9]{1,3})?\n?[0-9]{0,20}\n?[A-Za-z0-9+/]{0,43}=?\n?") {
            if let Ok(parsed) = text.parse::<Checkpoint>() {
                prop_assert_eq!(parsed.to_string(), text);
            }
        }
    }
}
