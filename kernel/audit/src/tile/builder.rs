//! The tiles of a tree, as its leaves come.

use super::{TILE_WIDTH, peaks_from_right};
use crate::Hash;
use crate::tree::{EMPTY_ROOT, fold_peaks, root_of};

/// Makes every tile of a tree from its leaf hashes, one after the other, and holds one unfinished tile
/// a level.
#[derive(Debug, Clone, Default)]
pub struct TileBuilder {
    size: u64,
    /// The hashes of the last tile of each level while it is not full.
    levels: Vec<Vec<Hash>>,
}

/// A tile that is finished, or as far as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltTile<'a> {
    /// Its level.
    pub level: u8,
    /// Its number in the level.
    pub index: u64,
    /// Its hashes.
    pub hashes: &'a [Hash],
}

impl TileBuilder {
    /// Returns the number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf hash and hands on the tiles that it fills.
    ///
    /// # Errors
    /// What `each` returns; the builder is then not to be used any more.
    pub fn push<E>(
        &mut self,
        leaf: Hash,
        mut each: impl FnMut(BuiltTile<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut hash = leaf;
        self.size += 1;
        let mut count = self.size;
        for level in 0.. {
            if self.levels.len() == usize::from(level) {
                self.levels
                    .push(Vec::with_capacity(usize::from(TILE_WIDTH)));
            }
            let row = &mut self.levels[usize::from(level)];
            row.push(hash);
            if row.len() < usize::from(TILE_WIDTH) {
                break;
            }
            count /= u64::from(TILE_WIDTH);
            each(BuiltTile {
                level,
                index: count - 1,
                hashes: row,
            })?;
            hash = root_of(row);
            row.clear();
        }
        Ok(())
    }

    /// Hands on the tiles that are not full.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn finish<E>(&self, mut each: impl FnMut(BuiltTile<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut count = self.size;
        for (level, row) in (0..).zip(&self.levels) {
            count /= u64::from(TILE_WIDTH);
            if !row.is_empty() {
                each(BuiltTile {
                    level,
                    index: count,
                    hashes: row,
                })?;
            }
        }
        Ok(())
    }

    /// Returns the root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let peaks: Vec<_> = self
            .levels
            .iter()
            .flat_map(|row| peaks_from_right(row))
            .collect();
        fold_peaks(peaks.iter()).unwrap_or(EMPTY_ROOT)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::tile::{TileKind, TilePath, compute_tile, tile_paths};
    use crate::tree::{Compact, leaf_hash};

    #[test]
    fn the_builder_makes_the_tiles_that_exist_at_every_size() {
        let mut leaves = Vec::new();
        let mut builder = TileBuilder::default();
        let mut range = Compact::default();
        let mut full = Vec::new();
        let path = |tile: &BuiltTile<'_>| {
            let width = u16::try_from(tile.hashes.len()).expect("256 at most");
            TilePath::new(TileKind::Hashes(tile.level), tile.index, width).expect("a path")
        };
        for number in 0_u64..70_000 {
            let leaf = leaf_hash(&number.to_be_bytes());
            leaves.push(leaf);
            range.push(leaf);
            let pushed = builder.push(leaf, |tile| {
                full.push((path(&tile), tile.hashes.to_vec()));
                Ok::<_, Infallible>(())
            });
            assert_eq!(pushed, Ok(()));
            if number % 997 == 0 || number == 65_535 {
                assert_eq!(builder.root(), range.root(), "size {}", number + 1);
            }
        }
        assert_eq!(builder.size(), 70_000);
        assert_eq!(builder.root(), range.root());
        let finished = builder.finish(|tile| {
            full.push((path(&tile), tile.hashes.to_vec()));
            Ok::<_, Infallible>(())
        });
        assert_eq!(finished, Ok(()));
        full.sort();
        let expected: Vec<_> = tile_paths(70_000)
            .filter_map(|path| match path.kind() {
                TileKind::Hashes(level) => {
                    let nodes = leaves.as_slice();
                    let tile = compute_tile(nodes, level, path.index(), path.width());
                    Some((path, tile.unwrap_or_else(|never| match never {})))
                }
                TileKind::Entries => None,
            })
            .collect();
        assert!(full == expected, "the tiles differ");
        assert_eq!(TileBuilder::default().root(), EMPTY_ROOT);
    }
}
