//! Mended lines, written into the files of a log that nobody has open.
//!
//! Only files that hold a bad byte are written again: beside the old one first, then in its place. The
//! bad bytes are kept before that, so that whatever ends half-way loses nothing and can be done again.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::fs::{FsStorage, parent_of, read_some, sync_dir};
use super::{Part, Reader as _, Small, Storage as _};
use crate::SignedHead;
use crate::repair::{Behind, Patch};

/// What the names of pieces that were replaced begin with.
pub(crate) const BAD_PREFIX: &str = "bad-";
/// The same of pieces that were never signed, and were cut off or stood in the place of lost entries.
pub(crate) const UNSIGNED_PREFIX: &str = "unsigned-";
/// The same of entries that were missing and came back: there is nothing to keep but that it was so.
pub(crate) const LOST_PREFIX: &str = "lost-";
/// How much is copied at a time.
const COPY_BYTES: usize = 1 << 18;
/// What the name of a file ends in while it is written.
const SUFFIX: &str = "mended";

/// One file of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinesFile {
    pub(super) path: PathBuf,
    /// The entries that belong into it.
    pub(super) seqs: Range<u64>,
    /// Where it begins among the bytes of all lines, and how long it is. A file that is missing is empty.
    pub(super) start: u64,
    pub(super) len: u64,
}

impl LinesFile {
    /// Returns the bytes of it that a patch replaces.
    fn bad_of(&self, patch: &Patch) -> Range<u64> {
        let end = self.start + self.len;
        let from = patch.offset.clamp(self.start, end);
        let to = (patch.offset + patch.bad.len() as u64).clamp(self.start, end);
        from..to
    }

    /// Returns the lines of a patch that belong into it.
    fn good_of<'a>(&self, patch: &'a Patch) -> &'a [u8] {
        let mut span = None;
        let mut at = 0;
        let lines = patch.good.split_inclusive(|byte| *byte == b'\n');
        for (seq, line) in (patch.first_seq..).zip(lines) {
            if self.seqs.contains(&seq) {
                let begin = span.map_or(at, |(begin, _)| begin);
                span = Some((begin, at + line.len()));
            }
            at += line.len();
        }
        span.map_or(&[], |(from, to)| &patch.good[from..to])
    }

    fn is_touched_by(&self, patch: &Patch) -> bool {
        !self.bad_of(patch).is_empty() || !self.good_of(patch).is_empty()
    }

    fn beside(&self) -> PathBuf {
        self.path.with_extension(SUFFIX)
    }

    /// Writes the file anew, beside it.
    fn write_beside(&self, patches: &[&Patch]) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.beside())?;
        let mut out = BufWriter::with_capacity(COPY_BYTES, file);
        let old = if self.len > 0 {
            Some(File::open(&self.path)?)
        } else {
            None
        };
        let mut at = self.start;
        for patch in patches {
            let bad = self.bad_of(patch);
            self.copy(old.as_ref(), at..bad.start, &mut out)?;
            out.write_all(self.good_of(patch))?;
            at = bad.end;
        }
        self.copy(old.as_ref(), at..self.start + self.len, &mut out)?;
        out.flush()?;
        out.get_ref().sync_all()
    }

    fn copy(
        &self,
        old: Option<&File>,
        range: Range<u64>,
        out: &mut impl io::Write,
    ) -> io::Result<()> {
        let Some(old) = old else {
            return Ok(());
        };
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = range.start;
        while at < range.end {
            let room = usize::try_from(range.end - at).unwrap_or(COPY_BYTES);
            let room = room.min(COPY_BYTES);
            match read_some(old, at - self.start, &mut buffer[..room])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    out.write_all(&buffer[..read])?;
                    at += read as u64;
                }
            }
        }
        Ok(())
    }
}

impl FsStorage {
    /// Puts mended lines in the place of bad ones. The bad bytes are kept; the next start of the log
    /// writes about them, and about entries that were only missing.
    ///
    /// # Errors
    /// When a file cannot be read or written. It can be done again.
    pub fn mend(&self, patches: &[Patch]) -> io::Result<()> {
        for difference in patches.iter().map(Patch::difference) {
            if difference.bad.is_empty() {
                let (first, end) = (difference.first_seq, difference.end_seq);
                if first < end {
                    self.keep(&format!("{LOST_PREFIX}{first}-{end}"), b"")?;
                }
                continue;
            }
            let sha256 = HEXLOWER.encode(&Sha256::digest(difference.bad));
            let name = format!("{BAD_PREFIX}{}-{sha256}", difference.first_seq);
            self.keep(&name, difference.bad)?;
        }
        let mut touched = Vec::new();
        for file in self.files_of_lines()? {
            let own: Vec<&Patch> = patches
                .iter()
                .filter(|patch| file.is_touched_by(patch))
                .collect();
            if !own.is_empty() {
                file.write_beside(&own)?;
                touched.push(file);
            }
        }
        for file in &touched {
            std::fs::rename(file.beside(), &file.path)?;
        }
        for file in &touched {
            sync_dir(parent_of(&file.path))?;
        }
        if touched.is_empty() {
            return Ok(());
        }
        self.reopen_log()
    }

    /// Cuts off what stands behind the entries that count. It is kept; the next start of the log writes about
    /// it. Returns the name under which it is kept in the folder of evidence.
    ///
    /// # Errors
    /// When a file cannot be read or written. It can be done again.
    pub fn set_aside(&self, behind: &Behind) -> io::Result<String> {
        let mut hash = Sha256::new();
        self.pass_on(&behind.bytes, &mut |piece| {
            hash.update(piece);
            Ok(())
        })?;
        let sha256 = HEXLOWER.encode(&hash.finalize());
        let name = format!("{UNSIGNED_PREFIX}{}-{sha256}", behind.seq);
        self.keep_from(&name, |out| {
            self.pass_on(&behind.bytes, &mut |piece| out.write_all(piece))
        })?;
        let cut = behind.bytes.start;
        for file in self.files_of_lines()?.iter().rev() {
            let end = file.start + file.len;
            if file.seqs.end == u64::MAX {
                let active = OpenOptions::new().write(true).open(&file.path)?;
                active.set_len(cut.saturating_sub(file.start).min(file.len))?;
                active.sync_all()?;
            } else if file.start >= cut && file.len > 0 {
                // Nobody seals what is not signed: this one was put there.
                std::fs::remove_file(&file.path)?;
                sync_dir(parent_of(&file.path))?;
            } else if end > cut {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        self.reopen_log()?;
        Ok(name)
    }

    /// Reads a part of the lines, piece by piece.
    fn pass_on(
        &self,
        range: &Range<u64>,
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = range.start;
        while at < range.end {
            let room = usize::try_from(range.end - at).unwrap_or(COPY_BYTES);
            let room = room.min(COPY_BYTES);
            match self.read_at(Part::Log, at, &mut buffer[..room])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    each(&buffer[..read])?;
                    at += read as u64;
                }
            }
        }
        Ok(())
    }

    /// Makes a head the signing floor and the published one. The lines must lead to it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_heads(&self, head: &SignedHead) -> io::Result<()> {
        self.set_floor(head)?;
        self.replace(Small::Checkpoint, head.note.as_bytes())
    }

    /// Makes a head the signing floor. The lines must lead to it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_floor(&self, head: &SignedHead) -> io::Result<()> {
        self.replace(Small::Floor, head.note.as_bytes())
    }
}

/// Fills the gaps between sealed segments with files that are to be written.
pub(super) fn with_gaps(
    sealed: Vec<LinesFile>,
    path_of: impl Fn(&Range<u64>) -> PathBuf,
    active: &Path,
    active_len: u64,
) -> Vec<LinesFile> {
    let mut files: Vec<LinesFile> = Vec::with_capacity(sealed.len() + 1);
    let (mut next, mut start) = (0, 0);
    for file in sealed {
        if file.seqs.start > next {
            let seqs = next..file.seqs.start;
            files.push(LinesFile {
                path: path_of(&seqs),
                seqs,
                start,
                len: 0,
            });
        }
        next = file.seqs.end;
        start = file.start + file.len;
        files.push(file);
    }
    files.push(LinesFile {
        path: active.to_owned(),
        seqs: next..u64::MAX,
        start,
        len: active_len,
    });
    files
}
