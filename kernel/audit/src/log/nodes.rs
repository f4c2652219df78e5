//! The nodes of an open log's tree: upper ones from memory, leaves from the disk.

use std::cell::RefCell;
use std::io;
use std::ops::ControlFlow;

use crate::Hash;
use crate::forest::{BLOCK_LEAVES, BLOCK_LEVEL, Forest};
use crate::proof::Nodes;
use crate::scan::lines;
use crate::storage::{Part, Reader, Storage};
use crate::tree::{leaf_hash, root_of};

/// How many bytes of leaf hashes are written at a time.
const WRITE_BYTES: usize = 1 << 16;

/// Why a node cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeError {
    /// The leaf hashes on disk are not those of the log.
    #[error("the leaf hashes on disk are stale")]
    Stale,
    /// They cannot be read.
    #[error("the leaf hashes cannot be read")]
    Io(#[source] io::Error),
}

/// The tree of an open log.
pub(super) struct DiskNodes<'a, R: Reader + ?Sized> {
    forest: &'a Forest,
    reader: &'a R,
    /// The block that was read last: a proof asks for several nodes of one block.
    block: RefCell<Option<(u64, Vec<Hash>)>>,
}

impl<'a, R: Reader + ?Sized> DiskNodes<'a, R> {
    pub(super) fn new(forest: &'a Forest, reader: &'a R) -> Self {
        Self {
            forest,
            reader,
            block: RefCell::new(None),
        }
    }

    /// Returns a leaf hash.
    pub(super) fn leaf(&self, index: u64) -> Result<Hash, NodeError> {
        self.node(0, index)
    }

    /// Returns the root over some leaves of one block.
    fn within(&self, block: u64, from: usize, to: usize) -> Result<Hash, NodeError> {
        let Some(root) = self.forest.upper(BLOCK_LEVEL, block) else {
            let leaves = self.forest.last().get(from..to).ok_or(NodeError::Stale)?;
            return Ok(root_of(leaves));
        };
        let mut cached = self.block.borrow_mut();
        let leaves = match cached.take() {
            Some((at, leaves)) if at == block => leaves,
            Some(_) | None => self.read_block(block, root)?,
        };
        let found = root_of(leaves.get(from..to).ok_or(NodeError::Stale)?);
        *cached = Some((block, leaves));
        Ok(found)
    }

    fn read_block(&self, block: u64, root: Hash) -> Result<Vec<Hash>, NodeError> {
        let mut bytes = [0; BLOCK_LEAVES * Hash::BYTES];
        let start = block * bytes.len() as u64;
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = &mut bytes[filled..];
            match self
                .reader
                .read_at(Part::Hashes, start + filled as u64, rest)
            {
                Ok(0) => return Err(NodeError::Stale),
                Ok(read) => filled += read,
                Err(error) => return Err(NodeError::Io(error)),
            }
        }
        let (chunks, _none) = bytes.as_chunks();
        let leaves: Vec<_> = chunks.iter().copied().map(Hash::from_bytes).collect();
        if root_of(&leaves) == root {
            Ok(leaves)
        } else {
            Err(NodeError::Stale)
        }
    }
}

impl<R: Reader + ?Sized> Nodes for DiskNodes<'_, R> {
    type Error = NodeError;

    fn node(&self, level: u32, index: u64) -> Result<Hash, NodeError> {
        if level >= BLOCK_LEVEL {
            return self.forest.upper(level, index).ok_or(NodeError::Stale);
        }
        let first = index << level;
        let from = usize::try_from(first % BLOCK_LEAVES as u64).unwrap_or_default();
        self.within(first / BLOCK_LEAVES as u64, from, from + (1 << level))
    }
}

/// Computes the leaf hashes of the lines before an offset and writes them all.
pub(super) fn write_hashes<S: Storage + ?Sized>(storage: &S, until: u64) -> io::Result<()> {
    let mut pending = Vec::with_capacity(WRITE_BYTES);
    let mut at = 0;
    let mut failure = None;
    lines(storage, 0, until, |_offset, bytes| {
        pending.extend_from_slice(leaf_hash(bytes).as_bytes());
        if pending.len() < WRITE_BYTES {
            return ControlFlow::Continue(());
        }
        if let Err(error) = storage.write_derived(Part::Hashes, at, &pending) {
            failure = Some(error);
            return ControlFlow::Break(());
        }
        at += pending.len() as u64;
        pending.clear();
        ControlFlow::Continue(())
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    storage.write_derived(Part::Hashes, at, &pending)?;
    storage.cut_derived(Part::Hashes, at + pending.len() as u64)
}
