//! Entries of a log that were lost, fetched again from a copy of it.
//!
//! Every bundle is checked against the trusted head before it is written, so that a bad source is
//! noticed at once and another one can go on: [`restore`] begins where the file of the last try ends,
//! after checking that part again. The file stands beside the log, and is no part of it before
//! [`Log::take_back`](crate::Log::take_back) has copied it behind the entries that are left.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::line::LINE_BYTES_MAX;
use crate::tile::{Bundle, Progress, TILE_WIDTH, TileError, TileNodes, TileSource};
use crate::tree::{leaf_hash, root_of};
use crate::{Checkpoint, Hash};

/// How many bundles are asked for at once: about 5 MiB of usual lines.
const BUNDLES_AT_ONCE: u64 = 64;
/// What stands behind the name of the log in that of the file.
const UNFINISHED_SUFFIX: &str = ".restoring";

/// Entries that were fetched again: a file of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Where the lines are.
    pub path: PathBuf,
    /// The number of the first of them: the begin of a bundle.
    pub first: u64,
    /// The number of the entry behind the last of them.
    pub end: u64,
    /// How many bytes of lines.
    pub bytes: u64,
    /// How many of the entries were there from an earlier try.
    pub resumed: u64,
}

/// Why entries were not fetched. What was written stays, for the next try.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError<E> {
    /// The source cannot be read, or does not have what the head covers: try another one.
    #[error("the copy of the log: {0}")]
    Source(#[source] TileError<E>),
    /// An entry has a line feed in it: this is not a log of lines.
    #[error("entry {seq} of the copy is not one line")]
    NotALine {
        /// Its number.
        seq: u64,
    },
    /// A file cannot be read or written.
    #[error("cannot write {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Writes the lines of a log under a trusted head, from the bundle of entry `from` on, to the file
/// `path`, and makes them durable.
///
/// # Errors
/// When the source fails, or the file cannot be written.
pub fn restore<S: TileSource>(
    source: S,
    head: &Checkpoint,
    (from, path): (u64, &Path),
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, RestoreError<S::Error>> {
    let nodes = TileNodes::open(source, head.size, head.root).map_err(RestoreError::Source)?;
    let failed = io_error(path);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(&failed)?;
    let width = u64::from(TILE_WIDTH);
    let first = from.min(head.size) / width * width;
    let (resumed, offset) = find_good(&file, &nodes, first, &failed)?;
    file.set_len(offset).map_err(&failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    out.seek(SeekFrom::Start(offset)).map_err(&failed)?;
    let mut bytes = offset;
    let total = head.size;
    let mut done = first + resumed;
    progress(Progress { done, total });
    while done < total {
        let bundle = done / width;
        let last = (bundle + BUNDLES_AT_ONCE).min(total.div_ceil(width));
        for bundle in nodes.bundles(bundle..last).map_err(RestoreError::Source)? {
            bytes += write_lines(&mut out, done, &bundle, &failed)?;
            done += u64::from(bundle.len());
        }
        progress(Progress { done, total });
    }
    out.flush().map_err(&failed)?;
    drop(out);
    file.sync_all().map_err(&failed)?;
    Ok(Restored {
        path: path.to_owned(),
        first,
        end: total,
        bytes,
        resumed,
    })
}

/// Returns where the file of restored lines stands: beside the log.
#[must_use]
pub fn restoring_path(log_path: &Path) -> PathBuf {
    let mut path = log_path.as_os_str().to_owned();
    path.push(UNFINISHED_SUFFIX);
    path.into()
}

fn io_error<E>(path: &Path) -> impl Fn(io::Error) -> RestoreError<E> {
    move |source| RestoreError::Io {
        path: path.to_owned(),
        source,
    }
}

fn write_lines<E>(
    out: &mut impl io::Write,
    first: u64,
    bundle: &Bundle,
    failed: &impl Fn(io::Error) -> RestoreError<E>,
) -> Result<u64, RestoreError<E>> {
    let mut bytes = 0;
    for (seq, line) in (first..).zip(bundle.iter()) {
        if memchr::memchr(b'\n', line).is_some() {
            return Err(RestoreError::NotALine { seq });
        }
        out.write_all(line).map_err(failed)?;
        out.write_all(b"\n").map_err(failed)?;
        bytes += line.len() as u64 + 1;
    }
    Ok(bytes)
}

/// Returns how many full bundles an earlier try left that are right, in entries, and where they end.
fn find_good<S: TileSource>(
    file: &File,
    nodes: &TileNodes<S>,
    first: u64,
    failed: &impl Fn(io::Error) -> RestoreError<S::Error>,
) -> Result<(u64, u64), RestoreError<S::Error>> {
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let width = u64::from(TILE_WIDTH);
    let (mut entries, mut end) = (0, 0);
    let mut line = Vec::new();
    while first + entries + width <= nodes.size() {
        let mut leaves: Vec<Hash> = Vec::with_capacity(usize::from(TILE_WIDTH));
        let mut at = end;
        while leaves.len() < usize::from(TILE_WIDTH) {
            line.clear();
            let mut limited = (&mut reader).take(LINE_BYTES_MAX as u64 + 1);
            io::BufRead::read_until(&mut limited, b'\n', &mut line).map_err(failed)?;
            let Some(text) = line.strip_suffix(b"\n") else {
                return Ok((entries, end));
            };
            at += line.len() as u64;
            leaves.push(leaf_hash(text));
        }
        let expected = nodes
            .hash(1, (first + entries) / width)
            .map_err(RestoreError::Source)?;
        if root_of(&leaves) != expected {
            break;
        }
        entries += width;
        end = at;
    }
    Ok((entries, end))
}
