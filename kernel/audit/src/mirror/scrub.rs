//! Looking after a copy that has been lying around: reading it again, and mending what rotted.

use std::io;

use super::{Mirror, MirrorPart, MirrorReadError, MirrorStore};
use crate::Hash;
use crate::forest::{BLOCK_LEVEL, Forest};
use crate::tile::{Bundle, Progress, TILE_WIDTH};
use crate::tree::root_of;

/// Why a bundle was not mended. Nothing was changed, except where a variant says so.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// It is not the bundle that was stored there.
    #[error("the bundle is not the one that was stored")]
    Other,
    /// Where it stood is not known any more: [`Mirror::clear`] and upload the log again.
    #[error("the place of the bundle is lost")]
    Displaced,
    /// The store failed; the bundle may be there in part.
    #[error("the bundle cannot be written")]
    Store(#[source] io::Error),
}

impl<S: MirrorStore> Mirror<S> {
    /// Reads and hashes every stored entry and leaf hash again. Returns the bundles that are not what was
    /// stored: each can be had from another copy and written with [`Mirror::mend`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn scrub(&self, progress: &mut dyn FnMut(Progress)) -> io::Result<Vec<u64>> {
        let total = self.next_entry();
        let width = u64::from(TILE_WIDTH);
        let mut bad = Vec::new();
        for index in 0..total.div_ceil(width) {
            let done = total.min((index + 1) * width);
            *self.lock_block() = None;
            let stored = self.leaves(index * width, done);
            let good = match (self.bundle(index), stored) {
                (Ok(Some(bundle)), Ok(leaves)) => bundle.leaves() == leaves,
                (Err(MirrorReadError::Io(error)), _) | (_, Err(MirrorReadError::Io(error))) => {
                    return Err(error);
                }
                (Ok(None) | Err(MirrorReadError::Corrupt { .. }), _)
                | (_, Err(MirrorReadError::Corrupt { .. })) => false,
            };
            if !good {
                bad.push(index);
            }
            progress(Progress { done, total });
        }
        Ok(bad)
    }

    /// Writes a bundle again that was stored before, durably. It is checked against the tree of what
    /// was stored, wherever it comes from.
    ///
    /// # Errors
    /// When it is another one, or cannot be written.
    pub fn mend(&mut self, index: u64, bundle: &Bundle) -> Result<(), MendError> {
        let leaves = bundle.leaves();
        let fits = match self.tree.upper(BLOCK_LEVEL, index) {
            Some(root) => leaves.len() == usize::from(TILE_WIDTH) && root_of(&leaves) == root,
            None => {
                let last = self.next_entry() / u64::from(TILE_WIDTH);
                index == last && !leaves.is_empty() && leaves == self.tree.last()
            }
        };
        if !fits {
            return Err(MendError::Other);
        }
        let place = self.place_of(index).ok_or(MendError::Displaced)?;
        let bytes = bundle.as_bytes();
        if place.end - place.start != bytes.len() as u64 {
            return Err(MendError::Displaced);
        }
        let mut hashes = Vec::with_capacity(leaves.len() * Hash::BYTES);
        for leaf in &leaves {
            hashes.extend_from_slice(leaf.as_bytes());
        }
        let hashes_at = index * u64::from(TILE_WIDTH) * Hash::BYTES as u64;
        let write = || {
            self.store
                .write_at(MirrorPart::Entries, place.start, bytes)?;
            self.store
                .write_at(MirrorPart::Hashes, hashes_at, &hashes)?;
            self.store.sync(MirrorPart::Entries)?;
            self.store.sync(MirrorPart::Hashes)
        };
        write().map_err(MendError::Store)
    }

    /// Removes every entry, so that the log can be uploaded again. The complete head stays: nothing older
    /// than it is ever cosigned. When the store fails the copy must be opened again.
    pub fn clear(&mut self) {
        self.tree = Forest::default();
        self.ends.clear();
        self.entries_end = 0;
        *self.lock_block() = None;
        self.discard();
        if self.store.cut(MirrorPart::Blocks, 0).is_err() {
            self.failed = true;
        }
    }
}
