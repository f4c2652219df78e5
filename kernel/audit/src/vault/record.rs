//! The bytes of a file of the vault: a mark, then records, each of one write.
//!
//! `tag (1) | length of the body (2, big-endian) | body`. The body of a record that was erased is zeros; tag and
//! length stay, so that those behind it are found. What cannot be read ends the file: only an interrupted
//! write leaves such an end, and after it another file is begun.

use std::ops::Range;

use crate::Hash;
use crate::value::Field;

/// What each file begins with.
pub const MARK: &[u8; 16] = b"openfang/vault/1";
/// Tag and length.
pub(super) const HEAD_BYTES: usize = 3;
const ERASED: u8 = 0;
const KEY: u8 = 1;
const OPENING: u8 = 2;
/// What an AEAD adds.
const TAG_BYTES: usize = 16;

/// Names a key of a subject: 16 random bytes.
pub type KeyId = [u8; 16];
/// Stands for the name of a subject: nobody without the key of the vault can tell whose it is.
pub type Handle = [u8; 16];

/// A key of a subject, wrapped by the key of the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRecord {
    /// Which key.
    pub id: KeyId,
    /// Whose.
    pub handle: Handle,
    /// Of the AEAD.
    pub nonce: [u8; 24],
    /// The key, and the tag of the AEAD.
    pub wrapped: [u8; 32 + TAG_BYTES],
}

/// Key and value of a commitment, sealed by a key of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpeningRecord<'a> {
    /// The number of the entry when it was written. It can have become another one's.
    pub seq: u64,
    /// With which key it is sealed.
    pub key: KeyId,
    /// Of which field.
    pub field: Field,
    /// What the line holds.
    pub commitment: Hash,
    /// Key and value of the commitment, and the tag of the AEAD.
    pub sealed: &'a [u8],
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// It was erased.
    Erased,
    /// A key of a subject.
    Key(KeyRecord),
    /// An opening.
    Opening(OpeningRecord<'a>),
}

/// The records of a file, each with where its body is.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// Reads the bytes of a file; none when it does not begin with [`MARK`].
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        let at = if bytes.starts_with(MARK) {
            MARK.len()
        } else {
            bytes.len()
        };
        Self { bytes, at }
    }
}

impl Records<'_> {
    /// Tells, behind the last record, whether the rest cannot be read: anything but nothing, or the beginning of
    /// a record, as an interrupted write leaves it.
    pub(super) fn is_damaged(&self) -> bool {
        if !self.bytes.starts_with(MARK) {
            return !MARK.starts_with(self.bytes);
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((head, body)) = rest.split_first_chunk::<HEAD_BYTES>() else {
            return false;
        };
        let [tag, high, low] = *head;
        let is_known = matches!(tag, ERASED | KEY | OPENING);
        !is_known || body.len() >= usize::from(u16::from_be_bytes([high, low]))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (Range<usize>, Record<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _rest) = self
            .bytes
            .get(self.at..)?
            .split_first_chunk::<HEAD_BYTES>()?;
        let [tag, high, low] = *head;
        let start = self.at + HEAD_BYTES;
        let end = start + usize::from(u16::from_be_bytes([high, low]));
        let body = self.bytes.get(start..end)?;
        let record = match tag {
            ERASED => Record::Erased,
            KEY => Record::Key(read_key(body)?),
            OPENING => Record::Opening(read_opening(body)?),
            _unknown => return None,
        };
        self.at = end;
        Some((start..end, record))
    }
}

fn read_key(body: &[u8]) -> Option<KeyRecord> {
    let (id, rest) = body.split_first_chunk()?;
    let (handle, rest) = rest.split_first_chunk()?;
    let (nonce, wrapped) = rest.split_first_chunk()?;
    Some(KeyRecord {
        id: *id,
        handle: *handle,
        nonce: *nonce,
        wrapped: wrapped.try_into().ok()?,
    })
}

fn read_opening(body: &[u8]) -> Option<OpeningRecord<'_>> {
    let (seq, rest) = body.split_first_chunk()?;
    let (key, rest) = rest.split_first_chunk()?;
    let ([field], rest) = rest.split_first_chunk()?;
    let (commitment, sealed) = rest.split_first_chunk()?;
    Some(OpeningRecord {
        seq: u64::from_be_bytes(*seq),
        key: *key,
        field: *Field::ALL.get(usize::from(*field))?,
        commitment: Hash::from_bytes(*commitment),
        sealed,
    })
}

/// The number of a field in a record.
pub(super) fn number_of(field: Field) -> u8 {
    match field {
        Field::Session => 0,
        Field::Target => 1,
        Field::User => 2,
        Field::Value => 3,
    }
}

/// Writes a key.
pub(super) fn push_key(out: &mut Vec<u8>, key: &KeyRecord) {
    push(out, KEY, &[&key.id, &key.handle, &key.nonce, &key.wrapped]);
}

/// Writes an opening.
pub(super) fn push_opening(out: &mut Vec<u8>, opening: &OpeningRecord<'_>) {
    let parts: [&[u8]; 5] = [
        &opening.seq.to_be_bytes(),
        &opening.key,
        &[number_of(opening.field)],
        opening.commitment.as_bytes(),
        opening.sealed,
    ];
    push(out, OPENING, &parts);
}

fn push(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let len = u16::try_from(len).expect("a value is far shorter than 64 KiB");
    out.push(tag);
    out.extend_from_slice(&len.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// What is written over a record with a body of this range: where, and the bytes.
pub(super) fn erased(body: &Range<usize>) -> (u64, Vec<u8>) {
    let len = body.end - body.start;
    let mut bytes = vec![0; HEAD_BYTES + len];
    let head = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    bytes[1..HEAD_BYTES].copy_from_slice(&head);
    ((body.start - HEAD_BYTES) as u64, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> KeyRecord {
        KeyRecord {
            id: [1; 16],
            handle: [2; 16],
            nonce: [3; 24],
            wrapped: [4; 48],
        }
    }

    fn opening(sealed: &[u8]) -> OpeningRecord<'_> {
        OpeningRecord {
            seq: 9,
            key: [1; 16],
            field: Field::User,
            commitment: Hash::from_bytes([5; 32]),
            sealed,
        }
    }

    fn file() -> Vec<u8> {
        let mut bytes = MARK.to_vec();
        push_key(&mut bytes, &key());
        push_opening(&mut bytes, &opening(b"sealed"));
        push_opening(&mut bytes, &opening(b""));
        bytes
    }

    fn all(bytes: &[u8]) -> Vec<Record<'_>> {
        Records::of(bytes).map(|(_, record)| record).collect()
    }

    #[test]
    fn records_are_read_back_and_found_behind_an_erased_one() {
        let mut bytes = file();
        let [first, second] = [opening(b"sealed"), opening(b"")].map(Record::Opening);
        assert_eq!(all(&bytes), [Record::Key(key()), first, second]);
        let (body, _) = Records::of(&bytes).nth(1).expect("a record");
        let (at, zeros) = erased(&body);
        let at = usize::try_from(at).expect("an offset");
        bytes[at..at + zeros.len()].copy_from_slice(&zeros);
        assert_eq!(all(&bytes), [Record::Key(key()), Record::Erased, second]);
        assert!(!bytes.windows(6).any(|six| six == b"sealed"));
    }

    #[test]
    fn an_interrupted_write_leaves_all_before_it() {
        let bytes = file();
        let whole = all(&bytes);
        for len in 0..bytes.len() {
            let found = all(&bytes[..len]);
            assert!(
                found.len() < whole.len() && whole.starts_with(&found),
                "{len}"
            );
        }
        assert!(all(b"openfang/vault/2").is_empty());
    }

    #[test]
    fn what_an_interrupted_write_leaves_is_told_from_damage() {
        let damaged = |bytes: &[u8]| {
            let mut records = Records::of(bytes);
            while records.next().is_some() {}
            records.is_damaged()
        };
        let bytes = file();
        for len in 0..=bytes.len() {
            assert!(!damaged(&bytes[..len]), "{len}");
        }
        let first = MARK.len();
        for (at, byte) in [(0, b'x'), (first, 7), (first + 2, 1)] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            assert!(damaged(&bytes), "{at}");
        }
    }

    #[test]
    fn the_numbers_of_fields_are_their_places() {
        for (at, field) in (0..).zip(Field::ALL) {
            assert_eq!(number_of(field), at);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic_or_go_on_for_ever(bytes: Vec<u8>) {
            let mut file = MARK.to_vec();
            file.extend_from_slice(&bytes);
            let mut end = MARK.len();
            for (body, _record) in Records::of(&file) {
                prop_assert_eq!(body.start, end + HEAD_BYTES);
                prop_assert!(body.end <= file.len());
                end = body.end;
            }
        }
    }
}
