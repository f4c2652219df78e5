//! A log as a directory that anyone can serve and check: C2SP tlog-tiles.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::heads::{Found, Heads};
use crate::storage::FsReader;
use crate::tile::{
    BuiltTile, Bundle, Progress, TILE_WIDTH, TileBuilder, TileKind, TilePath, encode_tile,
};
use crate::verify::{Damage, Source, Verdict, VerifyError, judge};
use crate::{Hash, SignedHead};

/// Where everything is written before it is known to be good.
const UNFINISHED: &str = ".unfinished-export";
/// How often progress is told, in entries.
const PROGRESS_ENTRIES: u64 = 4096;

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The head that the directory stands under.
    pub head: SignedHead,
    /// How many tiles and bundles there are.
    pub files: u64,
}

/// Why a log was not exported. The directory is as it was, except where a variant says so.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory holds something.
    #[error("{path} is not empty")]
    NotEmpty {
        /// Which.
        path: PathBuf,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] VerifyError),
    /// Nothing was signed yet, so that there is nothing to check an export against.
    #[error("the log has no signed head yet")]
    Unsigned,
    /// The log is not what was signed.
    #[error("the log is not as it was signed: {0}")]
    Tampered(Damage),
    /// The head that was given is not one of this log.
    #[error("the log does not lead to the given head")]
    OtherHead,
    /// A file cannot be written; some may be left.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Writes the entries under a head, their tiles and that head into an empty directory, made if it is
/// missing: `checkpoint`, `tile/<level>/…`, `tile/entries/…`. Without a head, the last one that was
/// signed is taken; a cosigned one may be older.
///
/// The whole log is verified meanwhile, and nothing stands at its place before that is done; the
/// `checkpoint` comes last. The files are not made durable one by one.
///
/// # Errors
/// When the log cannot be read or is not what was signed, or the directory is not empty or cannot be
/// written.
pub fn export_directory(
    source: Source<'_>,
    head: Option<&SignedHead>,
    out: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Exported, DirectoryError> {
    let reader = FsReader::open(source.log_path, source.dir)
        .map_err(|(path, source)| VerifyError::Unreadable { path, source })?;
    let head = match head {
        Some(head) => head.clone(),
        None => last_head(&reader, source)?.ok_or(DirectoryError::Unsigned)?,
    };
    let unfinished = make_empty(out)?;
    let written = write_tree(&reader, source, &head, &unfinished, progress);
    let files = written
        .and_then(|files| {
            publish(out, &unfinished, &head)
                .map_err(|(path, source)| DirectoryError::Write { path, source })?;
            Ok(files)
        })
        .inspect_err(|_failed| {
            if let Err(error) = fs::remove_dir_all(&unfinished) {
                tracing::warn!(%error, "what was written of an export cannot be removed");
            }
        })?;
    Ok(Exported { head, files })
}

/// Returns the published head when it is the last one, because it may carry cosignatures, or the floor.
fn last_head(reader: &FsReader, source: Source<'_>) -> Result<Option<SignedHead>, DirectoryError> {
    let heads = Heads::load(reader, source.origin, source.key).map_err(|error| {
        VerifyError::Unreadable {
            path: source.dir.to_owned(),
            source: error,
        }
    })?;
    Ok(match (&heads.checkpoint, heads.top()) {
        (Found::Head(published), Some(top)) if published.checkpoint == top.checkpoint => {
            Some(published.clone())
        }
        (_, top) => top.cloned(),
    })
}

/// Makes the directory, and in it the one that everything is written into first.
fn make_empty(out: &Path) -> Result<PathBuf, DirectoryError> {
    let unfinished = out.join(UNFINISHED);
    let failed = |source| DirectoryError::Write {
        path: out.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .create(out)
        .map_err(failed)?;
    for entry in fs::read_dir(out).map_err(failed)? {
        if entry.map_err(failed)?.file_name() != UNFINISHED {
            return Err(DirectoryError::NotEmpty {
                path: out.to_owned(),
            });
        }
        // Left by an export that was ended.
        fs::remove_dir_all(&unfinished).map_err(failed)?;
    }
    fs::create_dir(&unfinished).map_err(failed)?;
    Ok(unfinished)
}

fn write_tree(
    reader: &FsReader,
    source: Source<'_>,
    head: &SignedHead,
    out: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, DirectoryError> {
    let total = head.checkpoint.size;
    let mut tree = Tree {
        out,
        builder: TileBuilder::default(),
        bundle: Bundle::default(),
        files: 0,
    };
    let mut failure = None;
    let report = judge(reader, source, 0, |passing| {
        if passing.seq >= total {
            return ControlFlow::Continue(());
        }
        if let Err(error) = tree.push(passing.bytes, passing.leaf) {
            failure = Some(error);
            return ControlFlow::Break(());
        }
        let done = passing.seq + 1;
        if done.is_multiple_of(PROGRESS_ENTRIES) || done == total {
            progress(Progress { done, total });
        }
        ControlFlow::Continue(())
    })?;
    let failed = |(path, source)| DirectoryError::Write { path, source };
    if let Some(error) = failure {
        return Err(failed(error));
    }
    match report.verdict {
        Verdict::Tampered {
            first_bad_seq,
            kind,
        } => {
            return Err(DirectoryError::Tampered(Damage {
                first_bad_seq,
                kind,
            }));
        }
        Verdict::Empty | Verdict::Intact { .. } => {}
    }
    if tree.builder.size() != total || tree.builder.root() != head.checkpoint.root {
        return Err(DirectoryError::OtherHead);
    }
    tree.finish().map_err(failed)
}

/// The files of a tree on their way to the disk.
struct Tree<'a> {
    out: &'a Path,
    builder: TileBuilder,
    bundle: Bundle,
    files: u64,
}

/// A file that could not be written.
type Failed = (PathBuf, io::Error);

impl Tree<'_> {
    fn push(&mut self, line: &[u8], leaf: Hash) -> Result<(), Failed> {
        let (out, files) = (self.out, &mut self.files);
        self.bundle.push(line).map_err(|error| {
            let long = io::Error::new(io::ErrorKind::InvalidData, error);
            (out.to_owned(), long)
        })?;
        if self.bundle.len() == TILE_WIDTH {
            let index = self.builder.size() / u64::from(TILE_WIDTH);
            write_bundle(out, index, &self.bundle)?;
            self.bundle.clear();
            *files += 1;
        }
        self.builder.push(leaf, |tile| {
            *files += 1;
            write_tile(out, tile)
        })
    }

    /// Writes what is not full; returns how many files there are.
    fn finish(mut self) -> Result<u64, Failed> {
        let (out, files) = (self.out, &mut self.files);
        if !self.bundle.is_empty() {
            let index = self.builder.size() / u64::from(TILE_WIDTH);
            write_bundle(out, index, &self.bundle)?;
            *files += 1;
        }
        self.builder.finish(|tile| {
            *files += 1;
            write_tile(out, tile)
        })?;
        Ok(self.files)
    }
}

fn write_tile(out: &Path, tile: BuiltTile<'_>) -> Result<(), Failed> {
    let width = u16::try_from(tile.hashes.len()).unwrap_or_default();
    let path = TilePath::new(TileKind::Hashes(tile.level), tile.index, width);
    write_at(out, path, &encode_tile(tile.hashes))
}

fn write_bundle(out: &Path, index: u64, bundle: &Bundle) -> Result<(), Failed> {
    let path = TilePath::new(TileKind::Entries, index, bundle.len());
    write_at(out, path, bundle.as_bytes())
}

fn write_at(out: &Path, path: Option<TilePath>, bytes: &[u8]) -> Result<(), Failed> {
    let Some(path) = path else {
        return Err((out.to_owned(), io::ErrorKind::InvalidInput.into()));
    };
    let path = out.join(path.to_string());
    match write(&path, bytes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(out);
            fs::create_dir_all(parent)
                .and_then(|()| write(&path, bytes))
                .map_err(|error| (path, error))
        }
        done => done.map_err(|error| (path, error)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::create(path)?.write_all(bytes)
}

/// Moves everything to its place.
fn publish(out: &Path, unfinished: &Path, head: &SignedHead) -> Result<(), Failed> {
    let checkpoint = unfinished.join("checkpoint");
    write(&checkpoint, head.note.as_bytes()).map_err(|error| (checkpoint, error))?;
    let mut names = vec!["checkpoint"];
    if head.checkpoint.size > 0 {
        names.insert(0, "tile");
    }
    for name in names {
        fs::rename(unfinished.join(name), out.join(name))
            .map_err(|error| (out.join(name), error))?;
    }
    fs::remove_dir(unfinished).map_err(|error| (unfinished.to_owned(), error))
}
