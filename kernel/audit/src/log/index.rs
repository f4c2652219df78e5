//! What an open log keeps in memory of its lines: the tree, and where each block begins.

use std::io;

use crate::Hash;
use crate::forest::{BLOCK_LEAVES, BLOCK_LEVEL, Forest, Grow as _};
use crate::storage::{Part, Sealed, Storage};

/// A block on disk: its root, and where its first line begins, big-endian.
const RECORD_BYTES: usize = Hash::BYTES + 8;

/// The tree over the lines, and the offsets of every 256th.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) forest: Forest,
    /// Where each block begins, the one that is not full included.
    starts: Vec<u64>,
}

impl Index {
    /// Reads the blocks of what is sealed. `None` when they are not on disk, or not right: then the
    /// lines must be read.
    pub(super) fn of_sealed<S: Storage + ?Sized>(
        storage: &S,
        sealed: Sealed,
    ) -> io::Result<Option<Self>> {
        let whole_blocks = |lines: &u64| lines.is_multiple_of(BLOCK_LEAVES as u64);
        let Some(lines) = sealed.lines.filter(whole_blocks) else {
            return Ok(None);
        };
        let blocks = usize::try_from(lines).unwrap_or(usize::MAX) / BLOCK_LEAVES;
        let mut bytes = vec![0; blocks * RECORD_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            match storage.read_at(Part::Blocks, filled as u64, &mut bytes[filled..])? {
                0 => return Ok(None),
                read => filled += read,
            }
        }
        let mut index = Self::default();
        let (records, _none) = bytes.as_chunks::<RECORD_BYTES>();
        for record in records {
            let Some((root, start)) = record.split_first_chunk() else {
                return Ok(None);
            };
            let start = start.try_into().map_or(u64::MAX, u64::from_be_bytes);
            let grows = match index.starts.last() {
                Some(last) => *last < start,
                None => start == 0,
            };
            if !grows || start >= sealed.bytes {
                return Ok(None);
            }
            index.forest.push_block(Hash::from_bytes(*root));
            index.starts.push(start);
        }
        Ok(Some(index))
    }

    /// Notes where a line begins; in order, each before or after it is pushed onto the tree.
    pub(super) fn note(&mut self, seq: u64, offset: u64) {
        if seq.is_multiple_of(BLOCK_LEAVES as u64) {
            self.starts.push(offset);
        }
    }

    /// Appends a line.
    pub(super) fn push(&mut self, leaf: Hash, offset: u64) {
        self.note(self.forest.size(), offset);
        self.forest.push(leaf);
    }

    /// Returns where the block of an entry begins, and the number of its first entry.
    pub(super) fn block_of(&self, seq: u64) -> Option<(u64, u64)> {
        let block = seq / BLOCK_LEAVES as u64;
        let start = self.starts.get(usize::try_from(block).ok()?)?;
        Some((block * BLOCK_LEAVES as u64, *start))
    }

    /// How many blocks are full.
    pub(super) fn full_blocks(&self) -> u64 {
        self.forest.size() / BLOCK_LEAVES as u64
    }

    /// Writes the full blocks from one on to the disk. They need not be durable.
    pub(super) fn write_blocks<S: Storage + ?Sized>(
        &self,
        storage: &S,
        from: u64,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for block in from..self.full_blocks() {
            let start = usize::try_from(block).ok();
            let start = start.and_then(|block| self.starts.get(block));
            let (Some(root), Some(start)) = (self.forest.upper(BLOCK_LEVEL, block), start) else {
                break;
            };
            bytes.extend_from_slice(root.as_bytes());
            bytes.extend_from_slice(&start.to_be_bytes());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        storage.write_derived(Part::Blocks, from * RECORD_BYTES as u64, &bytes)
    }
}
