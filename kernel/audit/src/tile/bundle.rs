//! Entry bundles: each entry behind its length, 16 bits, big-endian.

use super::TILE_WIDTH;
use crate::Hash;
use crate::tree::leaf_hash;

/// The longest entry: what its length field can say.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;
/// The longest bundle.
pub const BUNDLE_BYTES_MAX: usize = TILE_WIDTH as usize * (LENGTH_BYTES + ENTRY_BYTES_MAX);

const LENGTH_BYTES: usize = 2;

/// Up to 256 entries, as C2SP tlog-tiles and tlog-mirror write them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Always whole entries, `len` of them.
    bytes: Vec<u8>,
    len: u16,
}

/// Why something is not a bundle, or does not go into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// An entry of more than 65,535 bytes.
    #[error("the entry is longer than {ENTRY_BYTES_MAX} bytes")]
    EntryTooLong,
    /// More than 256 entries.
    #[error("a bundle holds {TILE_WIDTH} entries at most")]
    Full,
    /// The bytes end inside an entry, or before the last one.
    #[error("the bundle ends too early")]
    Short,
    /// Bytes stand behind the last entry.
    #[error("the bundle goes on behind its last entry")]
    Trailing,
}

impl Bundle {
    /// Reads a bundle that must hold exactly `width` entries.
    ///
    /// # Errors
    /// When it does not.
    pub fn parse(bytes: Vec<u8>, width: u16) -> Result<Self, BundleError> {
        if width > TILE_WIDTH {
            return Err(BundleError::Full);
        }
        let mut rest = bytes.as_slice();
        for _entry in 0..width {
            (_, rest) = split_entry(rest).ok_or(BundleError::Short)?;
        }
        if rest.is_empty() {
            Ok(Self { bytes, len: width })
        } else {
            Err(BundleError::Trailing)
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When it is too long or one too many; the bundle is then as it was.
    pub fn push(&mut self, entry: &[u8]) -> Result<(), BundleError> {
        let length = u16::try_from(entry.len()).map_err(|_long| BundleError::EntryTooLong)?;
        if self.len == TILE_WIDTH {
            return Err(BundleError::Full);
        }
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(entry);
        self.len += 1;
        Ok(())
    }

    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> u16 {
        self.len
    }

    /// Tells whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the entries, first to last.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (entry, after) = split_entry(rest)?;
            rest = after;
            Some(entry)
        })
    }

    /// Returns the leaf hashes of the entries.
    #[must_use]
    pub fn leaves(&self) -> Vec<Hash> {
        self.iter().map(leaf_hash).collect()
    }

    /// Returns the encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the encoded bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns the encoded bytes of all entries but the first so many.
    #[must_use]
    pub fn bytes_from(&self, first: u16) -> &[u8] {
        &self.bytes[self.offset_of(first)..]
    }

    /// Cuts the bundle to its first entries.
    pub fn truncate(&mut self, len: u16) {
        let end = self.offset_of(len);
        self.bytes.truncate(end);
        self.len = self.len.min(len);
    }

    /// Removes every entry.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.len = 0;
    }

    fn offset_of(&self, entry: u16) -> usize {
        let before = self.iter().take(usize::from(entry));
        before.map(|entry| LENGTH_BYTES + entry.len()).sum()
    }
}

/// Splits off the first entry; `None` when there is no whole one.
pub fn split_entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bundle(entries: &[Vec<u8>]) -> Bundle {
        let mut bundle = Bundle::default();
        for entry in entries {
            bundle.push(entry).expect("it fits");
        }
        bundle
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let bundle = bundle(&[b"ab".to_vec(), Vec::new(), b"c".to_vec()]);
        assert_eq!(bundle.as_bytes(), b"\x00\x02ab\x00\x00\x00\x01c");
        assert_eq!(bundle.iter().collect::<Vec<_>>(), [&b"ab"[..], b"", b"c"]);
        assert_eq!(bundle.leaves()[1], leaf_hash(b""));
        assert_eq!(bundle.bytes_from(1), b"\x00\x00\x00\x01c");
        assert_eq!(bundle.bytes_from(3), b"");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut bundle = Bundle::default();
        let long = vec![b'x'; ENTRY_BYTES_MAX + 1];
        assert_eq!(bundle.push(&long), Err(BundleError::EntryTooLong));
        bundle.push(&long[1..]).expect("the longest entry");
        for _rest in 1..TILE_WIDTH {
            bundle.push(b"").expect("a short entry");
        }
        assert_eq!(bundle.push(b""), Err(BundleError::Full));
        assert_eq!(bundle.len(), TILE_WIDTH);
        assert!(bundle.as_bytes().len() <= BUNDLE_BYTES_MAX);
        let parse = |bytes: &[u8], width| Bundle::parse(bytes.to_vec(), width);
        assert_eq!(parse(b"", 1), Err(BundleError::Short));
        assert_eq!(parse(b"\x00", 1), Err(BundleError::Short));
        assert_eq!(parse(b"\x00\x02a", 1), Err(BundleError::Short));
        assert_eq!(parse(b"\x00\x01a\x00", 1), Err(BundleError::Trailing));
        assert_eq!(parse(b"\x00\x01a", 0), Err(BundleError::Trailing));
        assert_eq!(parse(b"", 257), Err(BundleError::Full));
        assert_eq!(parse(b"", 0), Ok(Bundle::default()));
    }

    proptest! {
        #[test]
        fn a_bundle_reads_back(
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40),
            cut in 0_u16..50,
        ) {
            let mut bundle = bundle(&entries);
            let width = bundle.len();
            prop_assert_eq!(usize::from(width), entries.len());
            prop_assert_eq!(Bundle::parse(bundle.as_bytes().to_vec(), width), Ok(bundle.clone()));
            let shorter = Bundle::parse(bundle.as_bytes().to_vec(), width.wrapping_sub(1));
            prop_assert!(shorter.is_err());
            bundle.truncate(cut);
            let kept: Vec<_> = entries.into_iter().take(usize::from(cut)).collect();
            prop_assert_eq!(bundle.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), kept);
        }

        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60), width in 0_u16..300) {
            if let Ok(bundle) = Bundle::parse(bytes.clone(), width) {
                prop_assert_eq!(bundle.len(), width);
                let mut again = Bundle::default();
                for entry in bundle.iter() {
                    again.push(entry).expect("it fitted");
                }
                prop_assert_eq!(again.into_bytes(), bytes);
            }
        }
    }
}
