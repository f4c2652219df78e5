//! The bytes of a file of the vault: a mark, then records, each of one write.
//!
//! `tag (1) | length of the body (2, big-endian) | body`, and the body ends in the first 8 bytes of the SHA-256 of all
//! before them. The body of a record that was erased is zeros, as is its tag; the length stays, so that those
//! behind it are found. A record that is not what its sum says is passed over, and the file is damaged. What
//! cannot be read ends the file: an interrupted write leaves such an end, and after it another file is begun.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use crate::Hash;
use crate::value::Field;

/// What each file begins with.
pub const MARK: &[u8; 16] = b"openfang/vault/2";
/// Tag and length.
pub(super) const HEAD_BYTES: usize = 3;
const ERASED: u8 = 0;
const KEY: u8 = 1;
const OPENING: u8 = 2;
/// What is kept of the sum of a record.
const SUM_BYTES: usize = 8;
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
    /// Whether sums must be right.
    checked: bool,
    /// Whether a record was passed over.
    passed_over: bool,
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
        Self {
            bytes,
            at,
            checked: true,
            passed_over: false,
        }
    }

    /// As [`Records::of`], for what is to be erased: also those that are not what their sums say, as an erasure
    /// leaves them that was interrupted.
    pub(super) fn of_any(bytes: &'a [u8]) -> Self {
        Self {
            checked: false,
            ..Self::of(bytes)
        }
    }
}

impl Records<'_> {
    /// Tells, behind the last record, whether the file ends in the middle of one: as an interrupted write leaves
    /// it, or somebody who has cut it.
    pub(super) fn is_cut(&self) -> bool {
        self.at < self.bytes.len()
    }

    /// Tells, behind the last record, whether one was passed over, or the rest cannot be read: anything but
    /// nothing, or the beginning of a record, as an interrupted write leaves it.
    pub(super) fn is_damaged(&self) -> bool {
        if self.passed_over {
            return true;
        }
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
        loop {
            let rest = self.bytes.get(self.at..)?;
            let (head, _rest) = rest.split_first_chunk::<HEAD_BYTES>()?;
            let [tag, high, low] = *head;
            if !matches!(tag, ERASED | KEY | OPENING) {
                return None;
            }
            let start = self.at + HEAD_BYTES;
            let end = start + usize::from(u16::from_be_bytes([high, low]));
            let body = self.bytes.get(start..end)?;
            self.at = end;
            match read(*head, body, self.checked) {
                Some(record) => return Some((start..end, record)),
                None => self.passed_over = true,
            }
        }
    }
}

/// Reads a record; a checked one is what its sum says.
fn read(head: [u8; HEAD_BYTES], body: &[u8], checked: bool) -> Option<Record<'_>> {
    let [tag, ..] = head;
    if tag == ERASED {
        let is_right = !checked || body.iter().all(|byte| *byte == 0);
        return is_right.then_some(Record::Erased);
    }
    let (content, sum) = body.split_last_chunk()?;
    if checked && *sum != sum_of(&head, content) {
        return None;
    }
    match tag {
        KEY => read_key(content).map(Record::Key),
        OPENING => read_opening(content).map(Record::Opening),
        _unknown => None,
    }
}

fn sum_of(head: &[u8], content: &[u8]) -> [u8; SUM_BYTES] {
    let digest = Sha256::new().chain_update(head).chain_update(content);
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&digest.finalize()[..SUM_BYTES]);
    sum
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
    let content = parts.concat();
    let len = u16::try_from(content.len() + SUM_BYTES);
    let [high, low] = len
        .expect("a value is far shorter than 64 KiB")
        .to_be_bytes();
    let head = [tag, high, low];
    out.extend_from_slice(&head);
    out.extend_from_slice(&content);
    out.extend_from_slice(&sum_of(&head, &content));
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
        assert!(all(b"openfang/vault/1").is_empty());
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
    fn every_flipped_bit_is_noticed_and_hides_its_record_only() {
        let bytes = file();
        let whole = all(&bytes);
        for at in MARK.len()..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let mut records = Records::of(&bytes);
                let found: Vec<_> = records.by_ref().map(|(_, record)| record).collect();
                assert!(
                    records.is_damaged() || records.is_cut(),
                    "bit {bit} of byte {at}"
                );
                // A length that is wrong may end among zeros.
                let is_known =
                    |record: &Record<'_>| whole.contains(record) || *record == Record::Erased;
                assert!(found.iter().all(is_known));
            }
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
                prop_assert!(body.start >= end + HEAD_BYTES);
                prop_assert!(body.end <= file.len());
                end = body.end;
            }
        }
    }
}
