//! What a copy gives out: tiles, bundles, and the nodes of its tree.

use std::io;
use std::ops::Range;
use std::sync::{MutexGuard, PoisonError};

use super::{Mirror, MirrorPart, MirrorStore, bundle_of, read_full};
use crate::Hash;
use crate::forest::{BLOCK_LEAVES, BLOCK_LEVEL};
use crate::proof::{BuildError, Nodes, subtree_root};
use crate::tile::{
    BUNDLE_BYTES_MAX, Bundle, TILE_HEIGHT, TILE_WIDTH, TileKind, TilePath, TileSource, encode_tile,
};
use crate::tree::root_of;

/// Why something cannot be read from a copy.
#[derive(Debug, thiserror::Error)]
pub enum MirrorReadError {
    /// The store cannot be read.
    #[error("the copy of a log cannot be read")]
    Io(#[source] io::Error),
    /// What is there is not what was stored.
    #[error("bundle {bundle} of the copy of a log was changed")]
    Corrupt {
        /// Which bundle.
        bundle: u64,
    },
}

impl<S: MirrorStore> Mirror<S> {
    /// Returns a bundle, as far as it is durable; `None` when nothing of it is.
    ///
    /// # Errors
    /// When it cannot be read, or is no bundle any more.
    pub fn bundle(&self, index: u64) -> Result<Option<Bundle>, MirrorReadError> {
        let Some(path) = TilePath::at(TileKind::Entries, index, self.next_entry()) else {
            return Ok(None);
        };
        let corrupt = MirrorReadError::Corrupt { bundle: index };
        let Some(place) = self.place_of(index) else {
            return Err(corrupt);
        };
        let length = usize::try_from(place.end - place.start).unwrap_or_default();
        let mut bytes = vec![0; length.min(BUNDLE_BYTES_MAX + 1)];
        let read = read_full(&self.store, MirrorPart::Entries, place.start, &mut bytes);
        bytes.truncate(read.map_err(MirrorReadError::Io)?);
        match Bundle::parse(bytes, path.width()) {
            Ok(bundle) => Ok(Some(bundle)),
            Err(_why) => Err(corrupt),
        }
    }

    /// Returns where a bundle stands among the entries.
    pub(super) fn place_of(&self, index: u64) -> Option<Range<u64>> {
        let number = usize::try_from(index).ok()?;
        let start = match number.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        let end = self.ends.get(number).copied().unwrap_or(self.entries_end);
        (start <= end).then_some(start..end)
    }

    /// Returns the root over the first durable entries.
    pub(super) fn root_at(&self, size: u64) -> Result<Hash, BuildError<MirrorReadError>> {
        subtree_root(self, 0, size)
    }

    /// Returns durable leaf hashes of one bundle.
    pub(super) fn leaves(&self, start: u64, end: u64) -> Result<Vec<Hash>, MirrorReadError> {
        let number = bundle_of(start);
        let corrupt = || MirrorReadError::Corrupt { bundle: number };
        let first = number * BLOCK_LEAVES as u64;
        let place = |index: u64| usize::try_from(index - first).unwrap_or(usize::MAX);
        let range = place(start)..place(end);
        let Some(root) = self.tree.upper(BLOCK_LEVEL, number) else {
            let leaves = self.tree.last().get(range).ok_or_else(corrupt)?;
            return Ok(leaves.to_vec());
        };
        let mut kept = self.lock_block();
        let leaves = match kept.take() {
            Some((kept, leaves)) if kept == number => leaves,
            Some(_) | None => {
                let mut bytes = [0; BLOCK_LEAVES * Hash::BYTES];
                let offset = first * Hash::BYTES as u64;
                read_full(&self.store, MirrorPart::Hashes, offset, &mut bytes)
                    .map_err(MirrorReadError::Io)?;
                let (chunks, _none) = bytes.as_chunks();
                let leaves: Vec<_> = chunks.iter().copied().map(Hash::from_bytes).collect();
                if root_of(&leaves) != root {
                    return Err(corrupt());
                }
                leaves
            }
        };
        let wanted = leaves.get(range).ok_or_else(corrupt)?.to_vec();
        *kept = Some((number, leaves));
        Ok(wanted)
    }

    pub(super) fn lock_block(&self) -> MutexGuard<'_, Option<(u64, Vec<Hash>)>> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: MirrorStore> TileSource for Mirror<S> {
    type Error = MirrorReadError;

    /// Returns a tile or bundle of the durable entries. A partial one is made from what is there now,
    /// so that those of older heads can still be had.
    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, MirrorReadError> {
        if !path.is_within(self.next_entry()) {
            return Ok(None);
        }
        let width = u64::from(TILE_WIDTH);
        let first = path.index() * width;
        match path.kind() {
            TileKind::Entries => {
                let bundle = self.bundle(path.index())?;
                Ok(bundle.map(|mut bundle| {
                    bundle.truncate(path.width());
                    bundle.into_bytes()
                }))
            }
            TileKind::Hashes(0) => {
                let leaves = self.leaves(first, first + u64::from(path.width()))?;
                Ok(Some(encode_tile(&leaves)))
            }
            TileKind::Hashes(level) => {
                let level = u32::from(level) * TILE_HEIGHT;
                let hashes: Option<Vec<_>> = (first..first + u64::from(path.width()))
                    .map(|index| self.tree.upper(level, index))
                    .collect();
                Ok(hashes.map(|hashes| encode_tile(&hashes)))
            }
        }
    }
}

impl<S: MirrorStore> Nodes for Mirror<S> {
    type Error = MirrorReadError;

    fn node(&self, level: u32, index: u64) -> Result<Hash, MirrorReadError> {
        if level >= BLOCK_LEVEL {
            let bundle = index;
            let found = self.tree.upper(level, index);
            return found.ok_or(MirrorReadError::Corrupt { bundle });
        }
        let first = index << level;
        Ok(root_of(&self.leaves(first, first + (1 << level))?))
    }
}
