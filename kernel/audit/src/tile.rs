//! The tree in tiles, and the entries in bundles. C2SP tlog-tiles.
//!
//! A log is a set of files that anyone can serve and anyone can check: tile `n` of level `l` holds the
//! hashes `MTH(D[(n * 256 + i) * 256^l .. (n * 256 + i + 1) * 256^l])` for `i` from 0 to 255, and bundle
//! `n` the entries under tile `n` of level 0. Only the last of a row may be partial.
//!
//! [`TilePath`] names one of these files, [`Bundle`] is what holds entries, [`TileBuilder`] makes the
//! tiles of a growing tree, and [`TileNodes`] believes a foreign [`TileSource`] no further than a trusted
//! root reaches.

mod builder;
mod bundle;
mod dir;
mod nodes;
mod path;

use crate::Hash;
use crate::proof::Nodes;
use crate::tree::root_of;

pub use builder::{BuiltTile, TileBuilder};

pub use bundle::{BUNDLE_BYTES_MAX, Bundle, BundleError, ENTRY_BYTES_MAX, split_entry};
pub use dir::DirSource;
pub(crate) use dir::read_some;
pub use nodes::{TileError, TileNodes};
pub use path::{TileKind, TilePath, TilePathError, tile_paths};

/// How many hashes a full tile has, and how many entries a full bundle.
pub const TILE_WIDTH: u16 = 256;
/// How many levels of the tree a tile spans.
pub const TILE_HEIGHT: u32 = 8;
/// The highest level that a path can name.
pub const LEVEL_MAX: u8 = 63;

/// Where the files of a tiled log come from: a directory, a mirror, a peer.
pub trait TileSource {
    /// Why a file cannot be had, although it may be there.
    type Error;

    /// Returns the bytes of a tile or bundle; `None` when there is no such file.
    ///
    /// # Errors
    /// When that cannot be told.
    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Returns several at once, in the order of their paths; a source that is far away overrides this.
    ///
    /// # Errors
    /// As [`Self::tile`].
    fn tiles(&self, paths: &[TilePath]) -> Result<Vec<Option<Vec<u8>>>, Self::Error> {
        paths.iter().map(|path| self.tile(path)).collect()
    }
}

impl<S: TileSource + ?Sized> TileSource for &S {
    type Error = S::Error;

    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, Self::Error> {
        (**self).tile(path)
    }

    fn tiles(&self, paths: &[TilePath]) -> Result<Vec<Option<Vec<u8>>>, Self::Error> {
        (**self).tiles(paths)
    }
}

/// How far a long piece of work has come, in entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many entries are done.
    pub done: u64,
    /// How many there are.
    pub total: u64,
}

/// Computes the first `width` hashes of a tile from the nodes of a tree, which must hold them.
///
/// # Errors
/// When a hash cannot be had.
pub fn compute_tile<N: Nodes + ?Sized>(
    nodes: &N,
    level: u8,
    index: u64,
    width: u16,
) -> Result<Vec<Hash>, N::Error> {
    let first = index * u64::from(TILE_WIDTH);
    (first..first + u64::from(width))
        .map(|at| nodes.node(u32::from(level) * TILE_HEIGHT, at))
        .collect()
}

/// Writes the hashes of a tile one after the other, 32 bytes each.
#[must_use]
pub fn encode_tile(hashes: &[Hash]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(hashes.len() * Hash::BYTES);
    for hash in hashes {
        bytes.extend_from_slice(hash.as_bytes());
    }
    bytes
}

/// Reads a tile of a known width; `None` when it has another length.
#[must_use]
pub fn parse_tile(bytes: &[u8], width: u16) -> Option<Vec<Hash>> {
    let (chunks, rest) = bytes.as_chunks();
    let fits = rest.is_empty() && chunks.len() == usize::from(width);
    fits.then(|| chunks.iter().copied().map(Hash::from_bytes).collect())
}

/// Returns the roots of the perfect subtrees that some hashes of one level fall into, the rightmost
/// and smallest first.
fn peaks_from_right(hashes: &[Hash]) -> Vec<Hash> {
    let mut peaks = Vec::new();
    let mut end = hashes.len();
    while end > 0 {
        let start = end - (1 << end.trailing_zeros());
        peaks.push(root_of(&hashes[start..end]));
        end = start;
    }
    peaks
}
