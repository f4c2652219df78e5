//! The nodes of a tree whose tiles come from somebody else.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{
    Bundle, TILE_HEIGHT, TILE_WIDTH, TileKind, TilePath, TileSource, parse_tile, peaks_from_right,
};
use crate::Hash;
use crate::proof::Nodes;
use crate::tree::{EMPTY_ROOT, fold_peaks, root_of};

/// How many full tiles are kept: 2 MiB. A proof touches one a level.
const TILES_KEPT: usize = 256;

/// The nodes of the tree with a trusted size and root, read from tiles that nobody vouches for.
///
/// Every tile is checked before anything in it is used: the partial ones at the right edge together
/// lead to the root, and every other one to its hash in the tile above it. What is not at the
/// trusted size is not answered. Where a partial file is gone, the full one is asked for.
#[derive(Debug)]
pub struct TileNodes<S> {
    source: S,
    size: u64,
    root: Hash,
    /// The partial tile of each level that has one.
    edge: BTreeMap<u8, Arc<[Hash]>>,
    kept: RefCell<Kept>,
}

/// The full tiles that were read last.
#[derive(Debug, Default)]
struct Kept {
    tiles: BTreeMap<(u8, u64), Arc<[Hash]>>,
    order: VecDeque<(u8, u64)>,
}

/// Why a tile or bundle cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError<E> {
    /// The source cannot tell.
    #[error("{path} cannot be read")]
    Source {
        /// Which file.
        path: TilePath,
        /// Why not.
        #[source]
        source: E,
    },
    /// There is no such file.
    #[error("{0} is missing")]
    Missing(TilePath),
    /// It has the wrong length or form.
    #[error("{0} is malformed")]
    Malformed(TilePath),
    /// It is not what the trusted root covers.
    #[error("{0} does not belong to the tree with the trusted root")]
    Foreign(TilePath),
    /// The tiles at the right edge of the tree do not lead to the trusted root.
    #[error("the tiles do not lead to the trusted root")]
    Root,
    /// The tree of the trusted size does not have it.
    #[error("the tree of the trusted size has no such node")]
    Range,
}

impl<S: TileSource> TileNodes<S> {
    /// Reads the right edge of the tree and checks it against the trusted root.
    ///
    /// # Errors
    /// When it cannot be read or leads to another root.
    pub fn open(source: S, size: u64, root: Hash) -> Result<Self, TileError<S::Error>> {
        let mut nodes = Self {
            source,
            size,
            root,
            edge: BTreeMap::new(),
            kept: RefCell::default(),
        };
        let mut peaks = Vec::new();
        for level in 0.. {
            let kind = TileKind::Hashes(level);
            let count = kind.count_at(size);
            if count == 0 {
                break;
            }
            let last = TilePath::at(kind, count / u64::from(TILE_WIDTH), size);
            let Some(path) = last else { continue };
            let hashes = nodes.fetch_hashes(path)?;
            peaks.extend(peaks_from_right(&hashes));
            nodes.edge.insert(level, hashes.into());
        }
        if fold_peaks(peaks.iter()).unwrap_or(EMPTY_ROOT) == root {
            Ok(nodes)
        } else {
            Err(TileError::Root)
        }
    }

    /// Returns the trusted size.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the trusted root.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// Returns where the tiles come from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Returns a tile as it is at the trusted size.
    ///
    /// # Errors
    /// When it cannot be had, or is not what the trusted root covers.
    pub fn tile(&self, level: u8, index: u64) -> Result<Arc<[Hash]>, TileError<S::Error>> {
        let path = TilePath::at(TileKind::Hashes(level), index, self.size);
        let path = path.ok_or(TileError::Range)?;
        if path.is_partial() {
            return self.edge.get(&level).cloned().ok_or(TileError::Range);
        }
        if let Some(tile) = self.kept.borrow().tiles.get(&(level, index)) {
            return Ok(Arc::clone(tile));
        }
        // A full tile has a hash in the tile above; eight levels up there is none that is full.
        let expected = self.hash(level + 1, index)?;
        let hashes = self.fetch_hashes(path)?;
        if root_of(&hashes) != expected {
            return Err(TileError::Foreign(path));
        }
        let tile: Arc<[Hash]> = hashes.into();
        self.kept
            .borrow_mut()
            .keep((level, index), Arc::clone(&tile));
        Ok(tile)
    }

    /// Returns one hash of a level of tiles.
    ///
    /// # Errors
    /// As [`Self::tile`].
    pub fn hash(&self, level: u8, index: u64) -> Result<Hash, TileError<S::Error>> {
        let width = u64::from(TILE_WIDTH);
        let tile = self.tile(level, index / width)?;
        let at = usize::try_from(index % width).unwrap_or_default();
        tile.get(at).copied().ok_or(TileError::Range)
    }

    /// Returns a bundle as it is at the trusted size.
    ///
    /// # Errors
    /// When it cannot be had, or is not what the trusted root covers.
    pub fn bundle(&self, index: u64) -> Result<Bundle, TileError<S::Error>> {
        let path = TilePath::at(TileKind::Entries, index, self.size).ok_or(TileError::Range)?;
        let (bytes, width) = self.fetch(path)?;
        self.check_bundle(path, bytes, width)
    }

    /// Returns several bundles, asked for at once.
    ///
    /// # Errors
    /// As [`Self::bundle`], for the first of them that cannot be had.
    pub fn bundles(
        &self,
        indexes: std::ops::Range<u64>,
    ) -> Result<Vec<Bundle>, TileError<S::Error>> {
        let paths = indexes.map(|index| TilePath::at(TileKind::Entries, index, self.size));
        let paths: Option<Vec<_>> = paths.collect();
        let paths = paths.ok_or(TileError::Range)?;
        let Some(first) = paths.first().copied() else {
            return Ok(Vec::new());
        };
        let found = self
            .source
            .tiles(&paths)
            .map_err(|source| TileError::Source {
                path: first,
                source,
            })?;
        if found.len() != paths.len() {
            return Err(TileError::Missing(first));
        }
        let found = paths.into_iter().zip(found);
        found
            .map(|(path, bytes)| match bytes {
                Some(bytes) => self.check_bundle(path, bytes, path.width()),
                None => self.bundle(path.index()),
            })
            .collect()
    }

    fn check_bundle(
        &self,
        path: TilePath,
        bytes: Vec<u8>,
        width: u16,
    ) -> Result<Bundle, TileError<S::Error>> {
        let mut bundle = Bundle::parse(bytes, width).map_err(|_why| TileError::Malformed(path))?;
        bundle.truncate(path.width());
        let leaves = bundle.leaves();
        let fits = if path.is_partial() {
            *self.tile(0, path.index())? == *leaves
        } else {
            self.hash(1, path.index())? == root_of(&leaves)
        };
        if fits {
            Ok(bundle)
        } else {
            Err(TileError::Foreign(path))
        }
    }

    fn fetch_hashes(&self, path: TilePath) -> Result<Vec<Hash>, TileError<S::Error>> {
        let (bytes, width) = self.fetch(path)?;
        let mut hashes = parse_tile(&bytes, width).ok_or(TileError::Malformed(path))?;
        hashes.truncate(usize::from(path.width()));
        Ok(hashes)
    }

    /// Reads a file, or the full one in its place, and tells which width it must have.
    fn fetch(&self, path: TilePath) -> Result<(Vec<u8>, u16), TileError<S::Error>> {
        let tries = [path, path.full()];
        let tries = if path.is_partial() {
            &tries[..]
        } else {
            &tries[..1]
        };
        for path in tries {
            let found = self.source.tile(path);
            let found = found.map_err(|source| TileError::Source {
                path: *path,
                source,
            })?;
            if let Some(bytes) = found {
                return Ok((bytes, path.width()));
            }
        }
        Err(TileError::Missing(path))
    }
}

impl Kept {
    fn keep(&mut self, place: (u8, u64), tile: Arc<[Hash]>) {
        if self.tiles.insert(place, tile).is_some() {
            return;
        }
        self.order.push_back(place);
        if self.order.len() > TILES_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.tiles.remove(&oldest);
        }
    }
}

impl<S: TileSource> Nodes for TileNodes<S> {
    type Error = TileError<S::Error>;

    fn node(&self, level: u32, index: u64) -> Result<Hash, Self::Error> {
        let tile_level = u8::try_from(level / TILE_HEIGHT).map_err(|_high| TileError::Range)?;
        let within = level % TILE_HEIGHT;
        let span = 1_usize << within;
        let first = index.checked_mul(1 << within).ok_or(TileError::Range)?;
        let width = u64::from(TILE_WIDTH);
        let tile = self.tile(tile_level, first / width)?;
        let from = usize::try_from(first % width).unwrap_or_default();
        let hashes = tile.get(from..from + span).ok_or(TileError::Range)?;
        Ok(root_of(hashes))
    }
}
