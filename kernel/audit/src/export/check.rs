//! A check of an exported directory, as someone would do it who has only the directory and a key.

use std::io;
use std::path::{Path, PathBuf};

use crate::note::{NOTE_BYTES_MAX, Note, NoteError, Verifier};
use crate::tile::{
    BuiltTile, Bundle, DirSource, Progress, TILE_WIDTH, TileBuilder, TileKind, TilePath,
    TileSource as _, encode_tile, read_some,
};
use crate::{Checkpoint, CheckpointError, Hash};

/// What a check found to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What the signed head says; the entries and tiles lead to it.
    pub checkpoint: Checkpoint,
    /// How many bytes of entries and tiles were read.
    pub bytes: u64,
}

/// Why a directory is not a log under the given key.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no `checkpoint`.
    #[error("there is no checkpoint in the directory")]
    NoCheckpoint,
    /// The checkpoint is no note, or not signed by the key.
    #[error("the checkpoint: {0}")]
    Note(#[source] NoteError),
    /// The text of the note is not that of a checkpoint.
    #[error("{0}")]
    Checkpoint(#[source] CheckpointError),
    /// The checkpoint is of a log that does not have the name of the key.
    #[error("the checkpoint belongs to a log with another name than the key")]
    OtherOrigin,
    /// A tile or bundle is not there.
    #[error("{0} is missing")]
    Missing(TilePath),
    /// A bundle has the wrong form.
    #[error("{0} is malformed")]
    Malformed(TilePath),
    /// A tile does not hold the hashes of the entries.
    #[error("{0} does not fit the entries")]
    Differs(TilePath),
    /// The entries do not lead to the root that was signed.
    #[error("the entries do not lead to the signed root")]
    Root,
}

/// Checks a directory: that the checkpoint is signed by the key of the log, that the entries lead to its
/// root, and that every tile of its size is there and right. Files beyond that are not looked at.
///
/// # Errors
/// When anything is not as it must be; the first such thing.
pub fn check_directory(
    dir: &Path,
    key: &Verifier,
    progress: &mut dyn FnMut(Progress),
) -> Result<Checked, CheckError> {
    let checkpoint = read_checkpoint(dir, key)?;
    let total = checkpoint.size;
    let mut files = Files {
        dir,
        source: DirSource::new(dir),
        size: total,
        bytes: 0,
    };
    let mut builder = TileBuilder::default();
    for index in 0..total.div_ceil(u64::from(TILE_WIDTH)) {
        for leaf in files.leaves(index)? {
            builder.push(leaf, |tile| files.compare(tile))?;
        }
        progress(Progress {
            done: builder.size(),
            total,
        });
    }
    builder.finish(|tile| files.compare(tile))?;
    if builder.root() != checkpoint.root {
        return Err(CheckError::Root);
    }
    Ok(Checked {
        checkpoint,
        bytes: files.bytes,
    })
}

fn read_checkpoint(dir: &Path, key: &Verifier) -> Result<Checkpoint, CheckError> {
    let path = dir.join("checkpoint");
    let bytes = read_some(&path, NOTE_BYTES_MAX)
        .map_err(|source| CheckError::Io { path, source })?
        .ok_or(CheckError::NoCheckpoint)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_not_utf8| CheckError::Note(NoteError::Form))?;
    let note: Note = text.parse().map_err(CheckError::Note)?;
    note.verify(key).map_err(CheckError::Note)?;
    let checkpoint: Checkpoint = note.text().parse().map_err(CheckError::Checkpoint)?;
    // The text of a key begins with its name, which has no `+`.
    if key
        .to_string()
        .starts_with(&format!("{}+", checkpoint.origin))
    {
        Ok(checkpoint)
    } else {
        Err(CheckError::OtherOrigin)
    }
}

struct Files<'a> {
    dir: &'a Path,
    source: DirSource,
    size: u64,
    bytes: u64,
}

impl Files<'_> {
    /// Reads a file, or the first part of the full one in its place.
    fn read(&mut self, path: TilePath) -> Result<(Vec<u8>, u16), CheckError> {
        for path in [path, path.full()] {
            let found = self.source.tile(&path).map_err(|source| CheckError::Io {
                path: self.dir.join(path.to_string()),
                source,
            })?;
            if let Some(bytes) = found {
                self.bytes += bytes.len() as u64;
                return Ok((bytes, path.width()));
            }
        }
        Err(CheckError::Missing(path))
    }

    fn leaves(&mut self, index: u64) -> Result<Vec<Hash>, CheckError> {
        let Some(path) = TilePath::at(TileKind::Entries, index, self.size) else {
            return Ok(Vec::new());
        };
        let (bytes, width) = self.read(path)?;
        let bundle = Bundle::parse(bytes, width);
        let mut bundle = bundle.map_err(|_why| CheckError::Malformed(path))?;
        bundle.truncate(path.width());
        Ok(bundle.leaves())
    }

    fn compare(&mut self, tile: BuiltTile<'_>) -> Result<(), CheckError> {
        let kind = TileKind::Hashes(tile.level);
        let Some(path) = TilePath::at(kind, tile.index, self.size) else {
            return Err(CheckError::Root);
        };
        let expected = encode_tile(tile.hashes);
        let (bytes, width) = self.read(path)?;
        let whole = bytes.len() == usize::from(width) * Hash::BYTES;
        if whole && bytes.starts_with(&expected) {
            Ok(())
        } else {
            Err(CheckError::Differs(path))
        }
    }
}
