//! The file that says up to which head a copy is complete.
//!
//! ```text
//! "of-mirror-head/1\n" || u64 size || root[32] || note || sha256[32] of all before
//! ```

use sha2::{Digest as _, Sha256};

use super::{MirrorHead, NOTE_BYTES_MAX};
use crate::Hash;
use crate::tree::SIZE_MAX;

const MAGIC: &[u8] = b"of-mirror-head/1\n";

/// Why a file does not say up to which head a copy is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the head of a mirrored log")]
pub struct CompleteError;

/// Writes a head.
pub(super) fn encode_complete(head: &MirrorHead) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&head.size.to_be_bytes());
    bytes.extend_from_slice(head.root.as_bytes());
    bytes.extend_from_slice(head.note.as_bytes());
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// Reads what a mirror wrote about its complete head.
///
/// # Errors
/// When it is anything else, or a byte of it changed.
pub fn parse_complete(bytes: &[u8]) -> Result<MirrorHead, CompleteError> {
    let (body, checksum) = bytes.split_last_chunk::<32>().ok_or(CompleteError)?;
    let rest = body.strip_prefix(MAGIC).ok_or(CompleteError)?;
    let (size, rest) = rest.split_first_chunk().ok_or(CompleteError)?;
    let (root, note) = rest.split_first_chunk().ok_or(CompleteError)?;
    let size = u64::from_be_bytes(*size);
    if note.len() > NOTE_BYTES_MAX || size > SIZE_MAX || *checksum != *Sha256::digest(body) {
        return Err(CompleteError);
    }
    let note = std::str::from_utf8(note).map_err(|_not_utf8| CompleteError)?;
    Ok(MirrorHead {
        size,
        root: Hash::from_bytes(*root),
        note: note.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_head_reads_back_and_no_other(
            size in 0..=SIZE_MAX,
            root in any::<[u8; 32]>(),
            note in "\\PC{0,40}",
            at in any::<usize>(),
            flip in 1_u8..,
        ) {
            let head = MirrorHead { size, root: Hash::from_bytes(root), note };
            let mut bytes = encode_complete(&head);
            prop_assert_eq!(parse_complete(&bytes), Ok(head));
            let cut = at % bytes.len();
            prop_assert_eq!(parse_complete(&bytes[..cut]), Err(CompleteError));
            bytes[cut] ^= flip;
            prop_assert_eq!(parse_complete(&bytes), Err(CompleteError));
        }

        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse_complete(&bytes).is_err());
        }
    }

    #[test]
    fn a_size_that_cannot_be_is_refused() {
        let head = MirrorHead {
            size: SIZE_MAX + 1,
            root: Hash::from_bytes([1; 32]),
            note: String::new(),
        };
        assert_eq!(parse_complete(&encode_complete(&head)), Err(CompleteError));
    }
}
