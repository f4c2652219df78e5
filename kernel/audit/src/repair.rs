//! A damaged log, mended with as little as possible from a copy of it.
//!
//! The file of lines is read once and hashed. Where the hash of a bundle is not the one in the tile of level
//! 1, which led to the trusted head, that bundle is fetched, checked, and handed back beside the bytes
//! that stand there. Lines that were put in or taken out shift those behind them: the search
//! goes on where the first line of a later bundle stands, which its number tells and its hash proves.
//! Lines behind the trusted head are left alone.

mod behind;
mod difference;

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;

use memchr::memmem;

pub use behind::{Behind, NoPart, behind, standing};
pub use difference::Difference;

use crate::line::SeqFinder;
use crate::scan::lines;
use crate::storage::{Part, Reader};
use crate::tile::{Progress, TILE_WIDTH, TileError, TileKind, TileNodes, TilePath, TileSource};
use crate::tree::{leaf_hash, root_of};
use crate::{Checkpoint, Hash};

/// The most bundles in a row that are mended: more is a case for a restore.
pub const REPAIR_BUNDLES_MAX: u64 = 256;
/// The most bytes of bad lines that are handed back in one piece.
pub const REPAIR_BYTES_MAX: u64 = 64 << 20;

/// Bytes of the file of lines that are not what was signed, and the ones that are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// The number of the first entry that is replaced.
    pub first_seq: u64,
    /// How many entries the good lines are.
    pub entries: u64,
    /// Where the bad bytes begin in the file.
    pub offset: u64,
    /// What stands there: to be kept as evidence.
    pub bad: Vec<u8>,
    /// What must stand there: whole lines, checked against the trusted head.
    pub good: Vec<u8>,
}

/// Why a log cannot be mended. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RepairError<E> {
    /// The file of lines cannot be read.
    #[error("the log cannot be read")]
    Io(#[from] io::Error),
    /// The copy cannot be read, or does not have what the head covers: try another one.
    #[error("the copy of the log: {0}")]
    Source(#[from] TileError<E>),
    /// An entry of the copy has a line feed in it: this is not a log of lines.
    #[error("entry {seq} of the copy is not one line")]
    NotALine {
        /// Its number.
        seq: u64,
    },
    /// Too much in a row is bad: restore the log instead.
    #[error("too many lines from entry {first_seq} on are bad to be mended one by one")]
    TooMuch {
        /// Where it begins.
        first_seq: u64,
    },
}

/// Compares the lines with a copy under a trusted head and returns what must be replaced, in the order of
/// the file; nothing when every line under that head is right.
///
/// # Errors
/// When the file or the copy cannot be read, or the damage is too large.
pub fn repair<R: Reader + ?Sized, S: TileSource>(
    local: &R,
    source: S,
    head: &Checkpoint,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Patch>, RepairError<S::Error>> {
    let nodes = TileNodes::open(source, head.size, head.root)?;
    let mut search = Search::new(&nodes);
    let mut failure = None;
    if head.size > 0 {
        let end = lines(local, 0, u64::MAX, |offset, bytes| {
            let seen = Seen {
                offset,
                leaf: leaf_hash(bytes),
                seq: search.finder.find(bytes),
            };
            match search.take(seen, progress) {
                Ok(flow) => flow,
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        search.end(end.lines_end, end.file_end);
    }
    let spans = std::mem::take(&mut search.found);
    let patches = spans.into_iter().map(|span| span.patch(local, &nodes));
    patches.collect()
}

/// Writes the file of lines with the patches in the place of what they replace.
///
/// # Errors
/// When the file cannot be read or the output cannot be written.
pub fn write_repaired<R: Reader + ?Sized>(
    local: &R,
    patches: &[Patch],
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut at = 0;
    for patch in patches {
        copy(local, at, patch.offset, out)?;
        out.write_all(&patch.good)?;
        at = patch.offset + patch.bad.len() as u64;
    }
    copy(local, at, u64::MAX, out)
}

fn copy<R: Reader + ?Sized>(
    local: &R,
    from: u64,
    until: u64,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    let mut at = from;
    while at < until {
        let room = usize::try_from(until - at).unwrap_or(usize::MAX);
        let room = room.min(buffer.len());
        match local.read_at(Part::Log, at, &mut buffer[..room])? {
            0 => break,
            read => {
                out.write_all(&buffer[..read])?;
                at += read as u64;
            }
        }
    }
    Ok(())
}

/// A line on its way past.
#[derive(Debug, Clone, Copy)]
struct Seen {
    offset: u64,
    leaf: Hash,
    seq: Option<u64>,
}

/// Bundles that must be replaced, and the bytes in their place.
#[derive(Debug)]
struct Span {
    bundles: std::ops::Range<u64>,
    offset: u64,
    end: u64,
}

/// Lines that do not fit, until one is found that does.
#[derive(Debug)]
struct Region {
    bundle: u64,
    offset: u64,
    /// Where the last line stands that says to be the first behind the head.
    tail: Option<u64>,
}

struct Search<'a, S> {
    nodes: &'a TileNodes<S>,
    finder: SeqFinder,
    /// How many bundles there must be.
    bundles: u64,
    /// The bundle that the next lines should be.
    at: u64,
    gathered: Vec<Seen>,
    region: Option<Region>,
    found: Vec<Span>,
}

impl<'a, S: TileSource> Search<'a, S> {
    fn new(nodes: &'a TileNodes<S>) -> Self {
        Self {
            nodes,
            finder: SeqFinder::new(),
            bundles: nodes.size().div_ceil(u64::from(TILE_WIDTH)),
            at: 0,
            gathered: Vec::new(),
            region: None,
            found: Vec::new(),
        }
    }

    /// Takes a line; breaks when every bundle was found or given up.
    fn take(
        &mut self,
        line: Seen,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ControlFlow<()>, RepairError<S::Error>> {
        let mut queue = VecDeque::from([line]);
        while let Some(line) = queue.pop_front() {
            if self.region.is_some() && !self.look_for_end(line)? {
                continue;
            }
            if self.at == self.bundles {
                return Ok(ControlFlow::Break(()));
            }
            self.gathered.push(line);
            if self.gathered.len() < self.width() {
                continue;
            }
            let gathered = std::mem::take(&mut self.gathered);
            if self.fits(&gathered)? {
                self.at += 1;
                let total = self.nodes.size();
                let done = total.min(self.at * u64::from(TILE_WIDTH));
                progress(Progress { done, total });
                if self.at == self.bundles {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            }
            self.region = Some(Region {
                bundle: self.at,
                offset: gathered.first().map_or(0, |line| line.offset),
                tail: None,
            });
            for line in gathered.into_iter().rev() {
                queue.push_front(line);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Closes what is open when the file ends.
    fn end(&mut self, lines_end: u64, file_end: u64) {
        if self.at == self.bundles {
            return;
        }
        let (first, offset, tail) = match (&self.region, self.gathered.first()) {
            (Some(region), _) => (region.bundle, region.offset, region.tail),
            (None, Some(line)) => (self.at, line.offset, None),
            (None, None) => (self.at, lines_end, None),
        };
        self.found.push(Span {
            bundles: first..self.bundles,
            offset,
            end: tail.unwrap_or(file_end),
        });
    }

    fn width(&self) -> usize {
        let path = TilePath::at(TileKind::Entries, self.at, self.nodes.size());
        path.map_or(0, |path| usize::from(path.width()))
    }

    fn fits(&self, lines: &[Seen]) -> Result<bool, TileError<S::Error>> {
        let leaves: Vec<_> = lines.iter().map(|line| line.leaf).collect();
        if leaves.len() == usize::from(TILE_WIDTH) {
            return Ok(self.nodes.hash(1, self.at)? == root_of(&leaves));
        }
        Ok(*self.nodes.tile(0, self.at)? == *leaves)
    }

    /// Tells whether the region ends before this line, and makes it a span then.
    fn look_for_end(&mut self, line: Seen) -> Result<bool, RepairError<S::Error>> {
        let Some(region) = &mut self.region else {
            return Ok(true);
        };
        let width = u64::from(TILE_WIDTH);
        if line.offset - region.offset > REPAIR_BYTES_MAX {
            return Err(RepairError::TooMuch {
                first_seq: region.bundle * width,
            });
        }
        let Some(seq) = line.seq else {
            return Ok(false);
        };
        if seq == self.nodes.size() {
            region.tail = Some(line.offset);
        }
        let next = seq / width;
        let may_be = seq.is_multiple_of(width) && next > region.bundle && seq < self.nodes.size();
        if !may_be || self.nodes.hash(0, seq)? != line.leaf {
            return Ok(false);
        }
        self.found.push(Span {
            bundles: region.bundle..next,
            offset: region.offset,
            end: line.offset,
        });
        self.region = None;
        self.at = next;
        Ok(true)
    }
}

impl Span {
    fn patch<R: Reader + ?Sized, S: TileSource>(
        self,
        local: &R,
        nodes: &TileNodes<S>,
    ) -> Result<Patch, RepairError<S::Error>> {
        let first_seq = self.bundles.start * u64::from(TILE_WIDTH);
        let bundles = self.bundles.end - self.bundles.start;
        if bundles > REPAIR_BUNDLES_MAX || self.end - self.offset > 2 * REPAIR_BYTES_MAX {
            return Err(RepairError::TooMuch { first_seq });
        }
        let mut patch = Patch {
            first_seq,
            entries: 0,
            offset: self.offset,
            bad: Vec::new(),
            good: Vec::new(),
        };
        copy(local, self.offset, self.end, &mut patch.bad)?;
        for index in self.bundles {
            for line in nodes.bundle(index)?.iter() {
                if memchr::memchr(b'\n', line).is_some() {
                    let seq = first_seq + patch.entries;
                    return Err(RepairError::NotALine { seq });
                }
                patch.good.extend_from_slice(line);
                patch.good.push(b'\n');
                patch.entries += 1;
            }
        }
        if first_seq + patch.entries == nodes.size() {
            patch.spare_tail(nodes.size());
        }
        Ok(patch)
    }
}

impl Patch {
    /// Leaves the lines behind the head alone where the line feed in front of them was changed.
    fn spare_tail(&mut self, size: u64) {
        let good = self.good.strip_suffix(b"\n").unwrap_or(&self.good);
        let start = memchr::memrchr(b'\n', good).map_or(0, |at| at + 1);
        let last = &good[start..];
        let Some(at) = memmem::rfind(&self.bad, last) else {
            return;
        };
        let end = at + last.len();
        // The line feed is gone, or is something else now.
        let gone = self.bad[end..].starts_with(b"{\"");
        let end = if gone { end } else { end + 1 };
        let tail = self.bad.get(end..).unwrap_or_default();
        let line = tail.split(|byte| *byte == b'\n').next();
        if line.and_then(|line| SeqFinder::new().find(line)) == Some(size) {
            self.bad.truncate(end);
        }
    }
}
