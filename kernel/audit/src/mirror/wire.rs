//! The body of an `add-entries` request: a header and entry packages. C2SP tlog-mirror.
//!
//! ```text
//! u16 length || origin || u64 upload_start || u64 upload_end || u16 length || ticket || package*
//! package: (u16 length || entry)* || u8 count || (32-byte hash)*
//! ```
//!
//! Which entries a package holds follows from the header: packages end at multiples of 256 and at
//! `upload_end`. All numbers are big-endian.

use super::PACKAGES_MAX;
use crate::Hash;
use crate::proof::{PROOF_HASHES_MAX, Subtree};
use crate::tile::{Bundle, TILE_WIDTH};
use crate::tree::SIZE_MAX;

/// The longest name of a log that is read.
pub const ORIGIN_BYTES_MAX: usize = 255;
/// The longest ticket that is read.
pub const TICKET_BYTES_MAX: usize = 4096;

/// What an `add-entries` request begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadHeader {
    /// The name of the log.
    pub origin: String,
    /// Index of the first entry.
    pub start: u64,
    /// Index behind the last entry: the size of a pending checkpoint.
    pub end: u64,
    /// What the mirror gave out to be shown again.
    pub ticket: Vec<u8>,
}

/// Some consecutive entries of one bundle, and the proof that they belong to the tree of the pending
/// checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Index of the first entry.
    pub start: u64,
    /// The entries.
    pub entries: Bundle,
    /// Subtree consistency proof from the beginning of the bundle to the last of the entries.
    pub proof: Vec<Hash>,
}

/// A piece of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Its beginning.
    Header(UploadHeader),
    /// A package.
    Package(Package),
}

/// Where a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With all packages that its header announced.
    Complete,
    /// Between two packages: more requests follow.
    Prefix,
    /// Inside a package or the header; the part is discarded.
    Torn,
}

/// Why bytes are not an `add-entries` request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The name of the log is empty, too long or not UTF-8.
    #[error("the name of the log is empty, too long or no text")]
    Origin,
    /// The ticket is longer than is read.
    #[error("the ticket is longer than {TICKET_BYTES_MAX} bytes")]
    Ticket,
    /// The request ends before it starts, or beyond 2^63 - 1.
    #[error("the range of entries is not one")]
    Range,
    /// A proof of more than 63 hashes.
    #[error("a proof has {PROOF_HASHES_MAX} hashes at most")]
    Proof,
    /// More than 32 packages, or bytes behind the last one.
    #[error("more packages than announced, or more than {PACKAGES_MAX} in one request")]
    Trailing,
}

impl UploadHeader {
    /// Writes the header behind what is there.
    ///
    /// # Errors
    /// When a reader would not accept it; nothing was written.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        check_range(self.start, self.end)?;
        let origin = Some(self.origin.len())
            .filter(|length| (1..=ORIGIN_BYTES_MAX).contains(length))
            .and_then(|length| u16::try_from(length).ok())
            .ok_or(WireError::Origin)?;
        let ticket = Some(self.ticket.len())
            .filter(|length| *length <= TICKET_BYTES_MAX)
            .and_then(|length| u16::try_from(length).ok())
            .ok_or(WireError::Ticket)?;
        out.extend_from_slice(&origin.to_be_bytes());
        out.extend_from_slice(self.origin.as_bytes());
        out.extend_from_slice(&self.start.to_be_bytes());
        out.extend_from_slice(&self.end.to_be_bytes());
        out.extend_from_slice(&ticket.to_be_bytes());
        out.extend_from_slice(&self.ticket);
        Ok(())
    }
}

impl Package {
    /// Returns the index behind the last entry.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.entries.len()))
    }

    /// Returns the subtree that the proof is about: from the beginning of the bundle.
    #[must_use]
    pub fn subtree(&self) -> Subtree {
        Subtree {
            start: bundle_start(self.start),
            end: self.end(),
        }
    }

    /// Writes the package behind what is there.
    ///
    /// # Errors
    /// When the proof is too long; nothing was written.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let count = Some(self.proof.len())
            .filter(|count| *count <= PROOF_HASHES_MAX)
            .and_then(|count| u8::try_from(count).ok())
            .ok_or(WireError::Proof)?;
        out.extend_from_slice(self.entries.as_bytes());
        out.push(count);
        for hash in &self.proof {
            out.extend_from_slice(hash.as_bytes());
        }
        Ok(())
    }
}

/// Returns the ranges of the packages of an upload, in order: the canonical sequence.
///
/// All but the first begin, and all but the last end, at a multiple of 256.
pub fn package_ranges(start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = start;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let from = at;
            at = package_end(from, end);
            (from, at)
        })
    })
}

fn bundle_start(index: u64) -> u64 {
    index - index % u64::from(TILE_WIDTH)
}

fn package_end(start: u64, end: u64) -> u64 {
    bundle_start(start)
        .saturating_add(u64::from(TILE_WIDTH))
        .min(end)
}

fn check_range(start: u64, end: u64) -> Result<(), WireError> {
    if start <= end && end <= SIZE_MAX {
        Ok(())
    } else {
        Err(WireError::Range)
    }
}

/// Reads a request piece by piece, as its bytes come. It holds one package at most.
#[derive(Debug)]
pub struct UploadDecoder {
    step: Step,
    /// The part of the current field that has come.
    field: Vec<u8>,
    origin: String,
    /// The entries that are still to come: `start` moves on.
    start: u64,
    end: u64,
    packages: usize,
    entries: Bundle,
}

/// The field that comes next. A number is a length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    OriginLength,
    Origin(usize),
    Range,
    TicketLength,
    Ticket(usize),
    EntryLength,
    Entry(usize),
    ProofCount,
    Proof(usize),
    /// Between two packages, before any byte of the next one.
    Between,
}

impl Step {
    fn bytes(self) -> usize {
        match self {
            Self::OriginLength | Self::TicketLength | Self::EntryLength => 2,
            Self::Range => 16,
            Self::ProofCount => 1,
            Self::Origin(length)
            | Self::Ticket(length)
            | Self::Entry(length)
            | Self::Proof(length) => length,
            Self::Between => 0,
        }
    }
}

impl Default for UploadDecoder {
    fn default() -> Self {
        Self {
            step: Step::OriginLength,
            field: Vec::new(),
            origin: String::new(),
            start: 0,
            end: 0,
            packages: 0,
            entries: Bundle::default(),
        }
    }
}

impl UploadDecoder {
    /// Takes bytes from the front of `input` until a piece is finished or there are no more.
    ///
    /// # Errors
    /// When they are not those of a request; the decoder is then not to be used any more.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Piece>, WireError> {
        loop {
            if self.step == Step::Between {
                if input.is_empty() {
                    return Ok(None);
                }
                if self.start == self.end || self.packages == PACKAGES_MAX {
                    return Err(WireError::Trailing);
                }
                self.step = Step::EntryLength;
            }
            let missing = self.step.bytes() - self.field.len();
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.field.extend_from_slice(taken);
            *input = rest;
            if taken.len() < missing {
                return Ok(None);
            }
            let piece = self.take_field()?;
            self.field.clear();
            if piece.is_some() {
                return Ok(piece);
            }
        }
    }

    /// Tells where the request ended.
    #[must_use]
    pub fn finish(self) -> Ended {
        match self.step {
            Step::Between if self.start == self.end => Ended::Complete,
            Step::Between => Ended::Prefix,
            Step::OriginLength
            | Step::Origin(_)
            | Step::Range
            | Step::TicketLength
            | Step::Ticket(_)
            | Step::EntryLength
            | Step::Entry(_)
            | Step::ProofCount
            | Step::Proof(_) => Ended::Torn,
        }
    }

    /// Understands a field that is whole, and says which one is next.
    fn take_field(&mut self) -> Result<Option<Piece>, WireError> {
        match self.step {
            Step::OriginLength => {
                let length = self.length();
                if length == 0 || length > ORIGIN_BYTES_MAX {
                    return Err(WireError::Origin);
                }
                self.step = Step::Origin(length);
            }
            Step::Origin(_) => {
                let origin = String::from_utf8(self.field.clone());
                self.origin = origin.map_err(|_not_utf8| WireError::Origin)?;
                self.step = Step::Range;
            }
            Step::Range => {
                let (numbers, _none) = self.field.as_chunks();
                let mut numbers = numbers.iter().copied().map(u64::from_be_bytes);
                self.start = numbers.next().unwrap_or_default();
                self.end = numbers.next().unwrap_or_default();
                check_range(self.start, self.end)?;
                self.step = Step::TicketLength;
            }
            Step::TicketLength => {
                let length = self.length();
                if length > TICKET_BYTES_MAX {
                    return Err(WireError::Ticket);
                }
                self.step = Step::Ticket(length);
            }
            Step::Ticket(_) => {
                self.step = Step::Between;
                return Ok(Some(Piece::Header(UploadHeader {
                    origin: std::mem::take(&mut self.origin),
                    start: self.start,
                    end: self.end,
                    ticket: self.field.clone(),
                })));
            }
            Step::EntryLength => self.step = Step::Entry(self.length()),
            Step::Entry(_) => {
                self.entries
                    .push(&self.field)
                    .map_err(|_never| WireError::Trailing)?;
                let last =
                    self.start + u64::from(self.entries.len()) == package_end(self.start, self.end);
                self.step = if last {
                    Step::ProofCount
                } else {
                    Step::EntryLength
                };
            }
            Step::ProofCount => {
                let count = self.field.first().copied().map_or(0, usize::from);
                if count > PROOF_HASHES_MAX {
                    return Err(WireError::Proof);
                }
                self.step = Step::Proof(count * Hash::BYTES);
            }
            Step::Proof(_) => return Ok(Some(Piece::Package(self.take_package()))),
            Step::Between => {}
        }
        Ok(None)
    }

    fn take_package(&mut self) -> Package {
        let (hashes, _none) = self.field.as_chunks();
        let package = Package {
            start: self.start,
            entries: std::mem::take(&mut self.entries),
            proof: hashes.iter().copied().map(Hash::from_bytes).collect(),
        };
        self.start = package.end();
        self.packages += 1;
        self.step = Step::Between;
        package
    }

    fn length(&self) -> usize {
        let bytes = self.field.first_chunk().copied();
        usize::from(bytes.map_or(0, u16::from_be_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bundle(entries: &[&[u8]]) -> Bundle {
        let mut bundle = Bundle::default();
        for entry in entries {
            bundle.push(entry).expect("it fits");
        }
        bundle
    }

    fn header(start: u64, end: u64) -> UploadHeader {
        UploadHeader {
            origin: "o".to_owned(),
            start,
            end,
            ticket: b"t".to_vec(),
        }
    }

    /// Feeds bytes in chunks and returns the pieces, how many bytes they took, and the end.
    fn decode(bytes: &[u8], chunk: usize) -> Result<(Vec<Piece>, Ended), WireError> {
        let mut decoder = UploadDecoder::default();
        let mut pieces = Vec::new();
        for mut chunk in bytes.chunks(chunk) {
            while let Some(piece) = decoder.feed(&mut chunk)? {
                pieces.push(piece);
            }
            assert!(chunk.is_empty());
        }
        Ok((pieces, decoder.finish()))
    }

    fn encode(pieces: &[Piece]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces {
            let written = match piece {
                Piece::Header(header) => header.encode(&mut out),
                Piece::Package(package) => package.encode(&mut out),
            };
            written.expect("it was read");
        }
        out
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let package = Package {
            start: 5,
            entries: bundle(&[b"ab", b""]),
            proof: vec![Hash::from_bytes([9; 32])],
        };
        assert_eq!(package.subtree(), Subtree { start: 0, end: 7 });
        let pieces = [Piece::Header(header(5, 7)), Piece::Package(package)];
        let bytes = encode(&pieces);
        let mut expected = b"\x00\x01o".to_vec();
        expected.extend_from_slice(b"\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x07");
        expected.extend_from_slice(b"\x00\x01t\x00\x02ab\x00\x00\x01");
        expected.extend_from_slice(&[9; 32]);
        assert_eq!(bytes, expected);
        for chunk in 1..=bytes.len() {
            assert_eq!(
                decode(&bytes, chunk),
                Ok((pieces.to_vec(), Ended::Complete))
            );
        }
        for cut in 0..bytes.len() {
            let (read, ended) = decode(&bytes[..cut], 7).expect("no wrong byte");
            let between = cut == 22;
            assert_eq!(read.len(), usize::from(cut >= 22), "cut at {cut}");
            assert_eq!(ended == Ended::Prefix, between, "cut at {cut}");
            assert_eq!(ended == Ended::Torn, !between, "cut at {cut}");
        }
    }

    #[test]
    fn packages_are_aligned() {
        let ranges = |start, end| package_ranges(start, end).collect::<Vec<_>>();
        assert_eq!(ranges(0, 0), []);
        assert_eq!(ranges(300, 300), []);
        assert_eq!(ranges(0, 256), [(0, 256)]);
        assert_eq!(ranges(0, 257), [(0, 256), (256, 257)]);
        assert_eq!(ranges(255, 257), [(255, 256), (256, 257)]);
        assert_eq!(ranges(300, 700), [(300, 512), (512, 700)]);
        assert_eq!(ranges(SIZE_MAX - 1, SIZE_MAX), [(SIZE_MAX - 1, SIZE_MAX)]);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let check = |bytes: &[u8], expected: WireError| {
            assert_eq!(decode(bytes, 3).map(|_| ()), Err(expected), "{bytes:?}");
        };
        check(b"\x00\x00", WireError::Origin);
        check(b"\x01\x00", WireError::Origin);
        check(b"\x00\x01\xff", WireError::Origin);
        let mut out = Vec::new();
        header(0, 1).encode(&mut out).expect("a header");
        let with = |at: usize, byte: u8| {
            let mut bytes = out.clone();
            bytes[at] = byte;
            bytes
        };
        check(&with(3 + 7, 2), WireError::Range);
        check(&with(3 + 8, 0x80), WireError::Range);
        check(&with(3 + 16, 0x20), WireError::Ticket);
        let mut long_proof = out.clone();
        long_proof.extend_from_slice(b"\x00\x00\x40");
        check(&long_proof, WireError::Proof);
        let mut trailing = out.clone();
        trailing.extend_from_slice(b"\x00\x00\x00\x00");
        check(&trailing, WireError::Trailing);
        let mut out = Vec::new();
        header(255, 255 + 40 * 256)
            .encode(&mut out)
            .expect("a header");
        out.extend_from_slice(b"\x00\x00\x00");
        for _package in 1..PACKAGES_MAX {
            out.extend_from_slice(&[0; 2 * 256 + 1]);
        }
        let (pieces, ended) = decode(&out, 1000).expect("32 packages");
        assert_eq!((pieces.len(), ended), (1 + PACKAGES_MAX, Ended::Prefix));
        out.push(0);
        check(&out, WireError::Trailing);
        let refused = [header(2, 1), header(0, SIZE_MAX + 1)];
        for header in refused {
            assert_eq!(header.encode(&mut Vec::new()), Err(WireError::Range));
        }
    }

    proptest! {
        #[test]
        fn a_request_reads_back(
            start in 0_u64..600,
            count in 0_u64..600,
            chunk in 1_usize..400,
            proof in prop::collection::vec(any::<[u8; 32]>(), 0..4),
            ticket in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut pieces = vec![Piece::Header(UploadHeader {
                ticket,
                ..header(start, start + count)
            })];
            for (from, to) in package_ranges(start, start + count) {
                let mut entries = Bundle::default();
                for index in from..to {
                    entries.push(&index.to_be_bytes()[..(index % 9) as usize]).expect("it fits");
                }
                let proof = proof.iter().copied().map(Hash::from_bytes).collect();
                pieces.push(Piece::Package(Package { start: from, entries, proof }));
            }
            let bytes = encode(&pieces);
            prop_assert_eq!(decode(&bytes, chunk), Ok((pieces, Ended::Complete)));
        }

        #[test]
        fn decoding_never_panics_and_writes_back(
            start in any::<[u8; 2]>(),
            count in any::<u8>(),
            noise in prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..900),
            at in any::<u16>(),
            flip in any::<u8>(),
        ) {
            let mut bytes = Vec::new();
            let start = u64::from(u16::from_be_bytes(start));
            header(start, start + u64::from(count)).encode(&mut bytes).expect("a header");
            bytes.extend_from_slice(&noise);
            let at = usize::from(at) % (bytes.len() * 4);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= flip;
            }
            if let Ok((pieces, ended)) = decode(&bytes, 64) {
                let written = encode(&pieces);
                prop_assert_eq!(&bytes[..written.len()], &written[..]);
                prop_assert_eq!(ended == Ended::Torn, written.len() < bytes.len() || pieces.is_empty());
            }
        }
    }
}
