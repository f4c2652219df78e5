//! The nodes of an open log's tree: upper ones from memory, those of blocks from the disk, and from
//! memory as long as they are asked for.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use super::shared::lock;
use crate::Hash;
use crate::forest::{BLOCK_LEAVES, BLOCK_LEVEL, Forest};
use crate::proof::Nodes;
use crate::scan::lines;
use crate::storage::{Part, Reader, Storage};
use crate::tree::{leaf_hash, node_hash, root_of};

/// How many bytes of leaf hashes are written at a time.
const WRITE_BYTES: usize = 1 << 16;

/// How many blocks are kept whole, 16 KiB each: whoever proves one entry proves its neighbours.
const BLOCKS_KEPT: usize = 64;

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

/// All nodes of a full block, its leaves first, then level by level up to its root.
struct Block(Vec<Hash>);

/// The blocks that were asked for last, the newest behind.
#[derive(Default)]
pub(super) struct Blocks(VecDeque<(u64, Arc<Block>)>);

/// The tree of an open log.
pub(super) struct DiskNodes<'a, R: Reader + ?Sized> {
    forest: &'a Forest,
    reader: &'a R,
    blocks: &'a Mutex<Blocks>,
}

impl Block {
    fn of(leaves: Vec<Hash>) -> Self {
        let mut nodes = leaves;
        nodes.reserve(BLOCK_LEAVES - 1);
        // Every node but the root has a sibling; the parents follow in their order.
        let mut at = 0;
        while at + 1 < nodes.len() {
            nodes.push(node_hash(&nodes[at], &nodes[at + 1]));
            at += 2;
        }
        Self(nodes)
    }

    fn root(&self) -> Option<&Hash> {
        self.0.last()
    }

    fn node(&self, level: u32, index: usize) -> Option<Hash> {
        let all = 2 * BLOCK_LEAVES;
        self.0.get(all - (all >> level) + index).copied()
    }
}

impl Blocks {
    /// Returns a block, unless it has another root.
    fn get(&mut self, number: u64, root: &Hash) -> Option<Arc<Block>> {
        let at = self.0.iter().position(|(known, _)| *known == number)?;
        let (number, block) = self.0.remove(at)?;
        if block.root() != Some(root) {
            return None;
        }
        self.0.push_back((number, Arc::clone(&block)));
        Some(block)
    }

    fn keep(&mut self, number: u64, block: &Arc<Block>) {
        if self.0.len() >= BLOCKS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back((number, Arc::clone(block)));
    }
}

impl<'a, R: Reader + ?Sized> DiskNodes<'a, R> {
    pub(super) fn new(forest: &'a Forest, reader: &'a R, blocks: &'a Mutex<Blocks>) -> Self {
        Self {
            forest,
            reader,
            blocks,
        }
    }

    /// Returns a leaf hash.
    pub(super) fn leaf(&self, index: u64) -> Result<Hash, NodeError> {
        self.node(0, index)
    }

    /// Returns a node of one block, counted within it.
    fn within(&self, number: u64, level: u32, index: usize) -> Result<Hash, NodeError> {
        let Some(root) = self.forest.upper(BLOCK_LEVEL, number) else {
            let leaves = index << level..(index + 1) << level;
            let leaves = self.forest.last().get(leaves).ok_or(NodeError::Stale)?;
            return Ok(root_of(leaves));
        };
        let known = lock(self.blocks).get(number, &root);
        let block = match known {
            Some(block) => block,
            None => {
                let block = Arc::new(self.read_block(number, &root)?);
                lock(self.blocks).keep(number, &block);
                block
            }
        };
        block.node(level, index).ok_or(NodeError::Stale)
    }

    fn read_block(&self, number: u64, root: &Hash) -> Result<Block, NodeError> {
        let mut bytes = [0; BLOCK_LEAVES * Hash::BYTES];
        let start = number * bytes.len() as u64;
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
        let block = Block::of(chunks.iter().copied().map(Hash::from_bytes).collect());
        if block.root() == Some(root) {
            Ok(block)
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
        let in_block = BLOCK_LEAVES as u64 >> level;
        let within = usize::try_from(index % in_block).unwrap_or_default();
        self.within(index / in_block, level, within)
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
