//! A tiled log in a directory: each file at its path.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::{BUNDLE_BYTES_MAX, TILE_WIDTH, TileKind, TilePath, TileSource};
use crate::Hash;

/// The files under a directory. Nothing of them is believed.
#[derive(Debug, Clone)]
pub struct DirSource {
    dir: PathBuf,
}

impl DirSource {
    /// Names the directory that holds `checkpoint` and `tile`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }
}

impl TileSource for DirSource {
    type Error = io::Error;

    /// Reads a file. One that is too long comes cut, and still too long.
    fn tile(&self, path: &TilePath) -> io::Result<Option<Vec<u8>>> {
        let bytes_max = match path.kind() {
            TileKind::Hashes(_) => usize::from(TILE_WIDTH) * Hash::BYTES,
            TileKind::Entries => BUNDLE_BYTES_MAX,
        };
        read_some(&self.dir.join(path.to_string()), bytes_max)
    }
}

/// Reads a file; of one that is longer than `bytes_max`, a byte more. `None` when there is none.
pub(crate) fn read_some(path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
