//! A wiped or lost log, written again from a copy of it.
//!
//! Every bundle is checked against the trusted head before it is written, so that a bad source is
//! noticed at once and another one can go on: [`restore`] begins where the file of the last try ends,
//! after checking that part again. Nothing stands in the log's place before all of it is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::line::LINE_BYTES_MAX;
use crate::tile::{Bundle, Progress, TILE_WIDTH, TileError, TileNodes, TileSource};
use crate::tree::{leaf_hash, root_of};
use crate::{Checkpoint, Hash};

/// How many bundles are asked for at once: about 5 MiB of usual lines.
const BUNDLES_AT_ONCE: u64 = 64;
/// What the name of the file ends in while it is written.
const UNFINISHED_SUFFIX: &str = ".restoring";

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// How many entries.
    pub entries: u64,
    /// How many bytes of lines.
    pub bytes: u64,
    /// How many of the entries were there from an earlier try.
    pub resumed: u64,
}

/// Why a log was not restored. What was written stays beside the place of the log, for the next try.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError<E> {
    /// There is a log already. Nothing was changed.
    #[error("{path} is there and not empty")]
    Exists {
        /// The file of lines.
        path: PathBuf,
    },
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

/// Writes the lines under a trusted head to `log_path`, where there must be no log or an empty one.
/// The head is one that this node signed, with a quorum of cosignatures; it becomes the signing floor, which
/// is not written here. The caller holds the lock of the log.
///
/// # Errors
/// When there is a log, the source fails, or a file cannot be written.
pub fn restore<S: TileSource>(
    source: S,
    head: &Checkpoint,
    log_path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, RestoreError<S::Error>> {
    refuse_existing(log_path)?;
    let nodes = TileNodes::open(source, head.size, head.root).map_err(RestoreError::Source)?;
    let mut unfinished = log_path.as_os_str().to_owned();
    unfinished.push(UNFINISHED_SUFFIX);
    let unfinished = PathBuf::from(unfinished);
    let failed = io_error(&unfinished);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&unfinished)
        .map_err(&failed)?;
    let (resumed, offset) = find_good(&file, &nodes, &failed)?;
    file.set_len(offset).map_err(&failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    out.seek(SeekFrom::Start(offset)).map_err(&failed)?;
    let mut bytes = offset;
    let total = head.size;
    let width = u64::from(TILE_WIDTH);
    let mut done = resumed;
    progress(Progress { done, total });
    while done < total {
        let first = done / width;
        let last = (first + BUNDLES_AT_ONCE).min(total.div_ceil(width));
        for bundle in nodes.bundles(first..last).map_err(RestoreError::Source)? {
            bytes += write_lines(&mut out, done, &bundle, &failed)?;
            done += u64::from(bundle.len());
        }
        progress(Progress { done, total });
    }
    out.flush().map_err(&failed)?;
    drop(out);
    file.sync_all().map_err(&failed)?;
    put_in_place(&unfinished, log_path).map_err(io_error(log_path))?;
    Ok(Restored {
        entries: total,
        bytes,
        resumed,
    })
}

fn io_error<E>(path: &Path) -> impl Fn(io::Error) -> RestoreError<E> {
    move |source| RestoreError::Io {
        path: path.to_owned(),
        source,
    }
}

fn refuse_existing<E>(log_path: &Path) -> Result<(), RestoreError<E>> {
    match fs::metadata(log_path) {
        Ok(there) if there.len() > 0 => Err(RestoreError::Exists {
            path: log_path.to_owned(),
        }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(log_path)(error)),
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

fn put_in_place(unfinished: &Path, log_path: &Path) -> io::Result<()> {
    fs::rename(unfinished, log_path)?;
    let parent = log_path.parent().filter(|path| *path != Path::new(""));
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Returns how many full bundles an earlier try left that are right, in entries, and where they end.
fn find_good<S: TileSource>(
    file: &File,
    nodes: &TileNodes<S>,
    failed: &impl Fn(io::Error) -> RestoreError<S::Error>,
) -> Result<(u64, u64), RestoreError<S::Error>> {
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let width = u64::from(TILE_WIDTH);
    let (mut entries, mut end) = (0, 0);
    let mut line = Vec::new();
    while entries + width <= nodes.size() {
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
            .hash(1, entries / width)
            .map_err(RestoreError::Source)?;
        if root_of(&leaves) != expected {
            break;
        }
        entries += width;
        end = at;
    }
    Ok((entries, end))
}
