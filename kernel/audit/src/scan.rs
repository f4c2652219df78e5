//! Reading the file of lines once, from end to end, and hashing every line.
//!
//! Recovery, verification, the look for damage, selection and export are all this one pass with
//! something else done at each line.

use std::io;
use std::ops::ControlFlow;

use memchr::memchr_iter;

use crate::forest::Grow;
use crate::line::{LINE_BYTES_MAX, LineError, SeqFinder};
use crate::storage::{Part, Reader};
use crate::tree::{Compact, leaf_hash};
use crate::verify::{Damage, DamageKind};
use crate::{Hash, Line};

/// How much is read at a time: several of the longest lines, and few system calls.
const CHUNK_BYTES: usize = 1 << 18;
/// The longest end of a log that is cut off. Several times a batch: more is no interrupted write.
pub(crate) const TORN_BYTES_MAX: u64 = 64 << 20;
/// How many bytes of leaf hashes are read at a time.
const HASHES_CHUNK_BYTES: usize = 1 << 16;

/// A size at which the root is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

/// A good line on its way past.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passing<'a> {
    pub(crate) seq: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
    pub(crate) leaf: Hash,
}

/// What one pass found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Examined {
    /// How many good lines there are.
    pub(crate) lines: u64,
    /// Where the last good line ends.
    pub(crate) good_bytes: u64,
    /// How many bytes of unfinished or meaningless text stand behind it.
    pub(crate) torn_bytes: u64,
    /// What is wrong below the largest known size.
    pub(crate) damage: Option<Damage>,
    /// What is wrong above it, where it is not the end of an interrupted write.
    pub(crate) corrupt: Option<Damage>,
}

/// Where the complete lines end, and the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) lines_end: u64,
    pub(crate) file_end: u64,
}

/// Hands every complete line between two offsets to `each`. A line that is too long arrives cut, and
/// still too long.
pub(crate) fn lines<R: Reader + ?Sized>(
    reader: &R,
    from: u64,
    until: u64,
    mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> io::Result<End> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut base, mut filled) = (from, 0);
    loop {
        let left = until.saturating_sub(base + filled as u64);
        let room = (buffer.len() - filled).min(usize::try_from(left).unwrap_or(usize::MAX));
        let spare = &mut buffer[filled..filled + room];
        let read = reader.read_at(Part::Log, base + filled as u64, spare)?;
        if read == 0 {
            break;
        }
        let (searched, end) = (filled, filled + read);
        let mut start = 0;
        for at in memchr_iter(b'\n', &buffer[searched..end]) {
            let stop = searched + at;
            if each(base + start as u64, &buffer[start..stop]).is_break() {
                let lines_end = base + stop as u64 + 1;
                return Ok(End {
                    lines_end,
                    file_end: lines_end,
                });
            }
            start = stop + 1;
        }
        buffer.copy_within(start..end, 0);
        base += start as u64;
        filled = end - start;
        if filled > LINE_BYTES_MAX {
            let (found, at) = skip_line(reader, base + filled as u64, until)?;
            if !found {
                return Ok(End {
                    lines_end: base,
                    file_end: at,
                });
            }
            if each(base, &buffer[..=LINE_BYTES_MAX]).is_break() {
                return Ok(End {
                    lines_end: at,
                    file_end: at,
                });
            }
            (base, filled) = (at, 0);
        }
    }
    Ok(End {
        lines_end: base,
        file_end: base + filled as u64,
    })
}

/// Looks for the end of a line that is too long. Returns whether there is one, and where it or the
/// file ends.
fn skip_line<R: Reader + ?Sized>(reader: &R, from: u64, until: u64) -> io::Result<(bool, u64)> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = from;
    loop {
        let left = usize::try_from(until.saturating_sub(at)).unwrap_or(usize::MAX);
        let room = left.min(buffer.len());
        let read = reader.read_at(Part::Log, at, &mut buffer[..room])?;
        if read == 0 {
            return Ok((false, at));
        }
        if let Some(found) = memchr::memchr(b'\n', &buffer[..read]) {
            return Ok((true, at + found as u64 + 1));
        }
        at += read as u64;
    }
}

/// Where a pass begins, and where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The number of the first line.
    pub(crate) seq: u64,
    /// Where it begins.
    pub(crate) offset: u64,
    /// Where to stop.
    pub(crate) until: u64,
}

impl Span {
    /// The whole log.
    pub(crate) const ALL: Self = Self::until(u64::MAX);

    /// The log up to an offset.
    pub(crate) const fn until(until: u64) -> Self {
        Self {
            seq: 0,
            offset: 0,
            until,
        }
    }
}

/// Reads a part of the log, hashes every line onto `tree`, which holds the lines before it, and
/// compares with the roots that are known, the smallest size first.
pub(crate) fn examine<R: Reader + ?Sized, T: Grow>(
    reader: &R,
    span: Span,
    known: &[Known],
    tree: &mut T,
    mut each: impl FnMut(Passing<'_>) -> ControlFlow<()>,
) -> io::Result<Examined> {
    let until = span.until;
    let mut pass = Pass::new(known, span.seq, tree);
    let end = lines(reader, span.offset, until, |offset, bytes| {
        match pass.take(offset, bytes, tree) {
            Some(passing) => each(passing),
            None => ControlFlow::Continue(()),
        }
    })?;
    let torn_from = pass.bad.map_or(end.lines_end, |bad| bad.offset);
    let mut examined = Examined {
        lines: pass.good,
        good_bytes: torn_from,
        torn_bytes: end.file_end - torn_from,
        damage: None,
        corrupt: pass.corrupt,
    };
    if pass.root_differs || pass.good < pass.signed {
        examined.damage = Some(name_damage(reader, until, &pass)?);
    } else if let Some(bad) = pass.misnumbered.filter(|bad| bad.seq < pass.signed) {
        examined.damage = Some(Damage {
            first_bad_seq: Some(bad.seq),
            kind: DamageKind::Sequence,
        });
    }
    Ok(examined)
}

/// The state of one pass.
struct Pass<'a> {
    finder: SeqFinder,
    known: &'a [Known],
    next_known: usize,
    signed: u64,
    signed_root: Option<Hash>,
    good: u64,
    root_differs: bool,
    misnumbered: Option<Misnumbered>,
    bad: Option<Bad>,
    corrupt: Option<Damage>,
}

#[derive(Clone, Copy)]
struct Misnumbered {
    seq: u64,
    found: Option<u64>,
}

#[derive(Clone, Copy)]
struct Bad {
    seq: u64,
    offset: u64,
    kind: DamageKind,
}

impl<'a> Pass<'a> {
    fn new<T: Grow>(known: &'a [Known], from: u64, tree: &T) -> Self {
        let last = known.last();
        let at_start = known.iter().find(|known| known.size == from && from > 0);
        Self {
            finder: SeqFinder::new(),
            known,
            next_known: known.iter().take_while(|known| known.size <= from).count(),
            signed: last.map_or(0, |known| known.size),
            signed_root: last.map(|known| known.root),
            good: from,
            root_differs: at_start.is_some_and(|known| tree.root() != known.root),
            misnumbered: None,
            bad: None,
            corrupt: None,
        }
    }

    /// Takes a line; returns it when it is worth handing on. Below the largest known size every
    /// line is, because the root decides about it; above, only a good one with no bad one before it.
    fn take<'b, T: Grow>(
        &mut self,
        offset: u64,
        bytes: &'b [u8],
        tree: &mut T,
    ) -> Option<Passing<'b>> {
        let seq = self.good;
        if seq >= self.signed && !self.is_good_tail(offset, bytes) {
            return None;
        }
        if seq < self.signed && self.misnumbered.is_none() {
            let found = self.finder.find(bytes);
            if found != Some(seq) {
                self.misnumbered = Some(Misnumbered { seq, found });
            }
        }
        let leaf = leaf_hash(bytes);
        tree.push(leaf);
        self.good += 1;
        while let Some(known) = self.known.get(self.next_known) {
            if known.size != self.good {
                break;
            }
            self.root_differs |= tree.root() != known.root;
            self.next_known += 1;
        }
        Some(Passing {
            seq,
            offset,
            bytes,
            leaf,
        })
    }

    /// Judges a line that no head covers: it must be an entry with the next number.
    fn is_good_tail(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let parsed = Line::parse(bytes);
        match self.bad {
            None => {
                let (kind, whole) = match parsed {
                    Ok(line) if line.seq.0 == self.good => return true,
                    Ok(_) => (DamageKind::Sequence, true),
                    Err(LineError::Version(_)) => (DamageKind::Altered, true),
                    Err(LineError::TooLong | LineError::Form) => (DamageKind::Altered, false),
                };
                let seq = self.good;
                self.bad = Some(Bad { seq, offset, kind });
                if whole {
                    self.note_corrupt();
                }
            }
            Some(_) if parsed.is_ok() => self.note_corrupt(),
            Some(_) => {}
        }
        false
    }

    /// A whole entry that does not belong here, or stands behind a bad line: no interrupted write
    /// leaves that.
    fn note_corrupt(&mut self) {
        if let (None, Some(bad)) = (self.corrupt, self.bad) {
            self.corrupt = Some(Damage {
                first_bad_seq: Some(bad.seq),
                kind: bad.kind,
            });
        }
    }
}

/// Finds the first line that is not the line that was signed, with the help of the leaf hashes on
/// disk where those lead to the signed root, or of the numbers in the lines where they do not.
fn name_damage<R: Reader + ?Sized>(reader: &R, until: u64, pass: &Pass<'_>) -> io::Result<Damage> {
    // They only help to name the line: that they cannot be read hides no damage.
    let root = hashes_root(reader, pass.signed).ok().flatten();
    if root.is_some() && root == pass.signed_root {
        return first_difference(reader, until, pass.signed);
    }
    let (first_bad_seq, kind) = match pass.misnumbered {
        Some(Misnumbered { seq, found }) => {
            let kind = match found {
                Some(found) if found > seq => DamageKind::Removed,
                Some(_) => DamageKind::Inserted,
                None => DamageKind::Altered,
            };
            (Some(seq), kind)
        }
        None if pass.good < pass.signed => (Some(pass.good), DamageKind::Truncated),
        None => (None, DamageKind::Altered),
    };
    Ok(Damage {
        first_bad_seq,
        kind,
    })
}

/// Compares the lines with the leaf hashes on disk, which lead to the signed root.
fn first_difference<R: Reader + ?Sized>(reader: &R, until: u64, signed: u64) -> io::Result<Damage> {
    let mut expected = LeafCursor::new(reader);
    let mut seq = 0;
    let mut difference = None;
    let mut wanted_comes_later = false;
    let mut failure = None;
    lines(reader, 0, until, |_offset, bytes| {
        let leaf = leaf_hash(bytes);
        if let Some((_found, wanted)) = difference {
            wanted_comes_later |= leaf == wanted;
            return ControlFlow::Continue(());
        }
        if seq == signed {
            return ControlFlow::Break(());
        }
        match expected.next() {
            Ok(Some(wanted)) if wanted == leaf => seq += 1,
            Ok(Some(wanted)) => difference = Some((leaf, wanted)),
            Ok(None) => return ControlFlow::Break(()),
            Err(error) => {
                failure = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    let Some((found, _wanted)) = difference else {
        // Every line is as it was signed, and still a root does not fit: a head is wrong.
        let truncated = seq < signed;
        return Ok(Damage {
            first_bad_seq: truncated.then_some(seq),
            kind: if truncated {
                DamageKind::Truncated
            } else {
                DamageKind::Head
            },
        });
    };
    let found_comes_later = expected.holds(found, signed)?;
    let kind = match (found_comes_later, wanted_comes_later) {
        (true, false) => DamageKind::Removed,
        (false, true) => DamageKind::Inserted,
        (true, true) | (false, false) => DamageKind::Altered,
    };
    Ok(Damage {
        first_bad_seq: Some(seq),
        kind,
    })
}

/// Returns the root over the first leaf hashes on disk; `None` when there are fewer.
fn hashes_root<R: Reader + ?Sized>(reader: &R, size: u64) -> io::Result<Option<Hash>> {
    let mut cursor = LeafCursor::new(reader);
    let mut range = Compact::default();
    for _leaf in 0..size {
        match cursor.next()? {
            Some(leaf) => range.push(leaf),
            None => return Ok(None),
        }
    }
    Ok(Some(range.root()))
}

/// Reads the leaf hashes on disk one after the other.
#[derive(Debug)]
pub(crate) struct LeafCursor<'a, R: ?Sized> {
    reader: &'a R,
    offset: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl<'a, R: Reader + ?Sized> LeafCursor<'a, R> {
    pub(crate) fn new(reader: &'a R) -> Self {
        Self {
            reader,
            offset: 0,
            buffer: Vec::new(),
            used: 0,
        }
    }

    /// Starts at a leaf.
    pub(crate) fn at(reader: &'a R, leaf: u64) -> Self {
        Self {
            offset: leaf * Hash::BYTES as u64,
            ..Self::new(reader)
        }
    }

    /// Returns the next hash; `None` at the end of the file, or when there is no file.
    pub(crate) fn next(&mut self) -> io::Result<Option<Hash>> {
        if self.buffer.len() - self.used < Hash::BYTES && !self.refill()? {
            return Ok(None);
        }
        let rest = &self.buffer[self.used..];
        let hash = rest.first_chunk().copied().map(Hash::from_bytes);
        self.used += Hash::BYTES;
        Ok(hash)
    }

    /// Tells whether a hash is among the next ones, up to a number of leaves in all.
    fn holds(&mut self, wanted: Hash, size: u64) -> io::Result<bool> {
        let done = (self.offset - (self.buffer.len() - self.used) as u64) / Hash::BYTES as u64;
        for _leaf in done..size {
            match self.next()? {
                Some(leaf) if leaf == wanted => return Ok(true),
                Some(_) => {}
                None => break,
            }
        }
        Ok(false)
    }

    fn refill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.used);
        self.used = 0;
        while self.buffer.len() < Hash::BYTES {
            let start = self.buffer.len();
            self.buffer.resize(start + HASHES_CHUNK_BYTES, 0);
            let read = self
                .reader
                .read_at(Part::Hashes, self.offset, &mut self.buffer[start..]);
            let read = match read {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(error),
            };
            self.buffer.truncate(start + read);
            self.offset += read as u64;
            if read == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
