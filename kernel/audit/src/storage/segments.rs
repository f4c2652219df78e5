//! The sealed segments of a log: files of [`SEGMENT_LINES`] lines that are never written again, named
//! by the number of their first entry and that of the first behind them. A log that was restored as
//! one file may have a longer one.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::fs::read_some;
use super::rewrite::LinesFile;

/// How many lines a segment has: one full tile of level 1.
pub const SEGMENT_LINES: u64 = 1 << 16;
const SUFFIX: &str = ".jsonl";

/// All sealed segments, one behind the other.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    list: Vec<Segment>,
    /// The segment that was read last: a pass over the log stays in one for a while.
    open: Mutex<Option<(usize, File)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    first: u64,
    /// The number of the first entry behind it.
    end: u64,
    /// Where it begins among the bytes of all lines.
    start: u64,
    len: u64,
}

/// What is sealed of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sealed {
    /// How many bytes of lines.
    pub bytes: u64,
    /// How many lines, when no segment is missing; otherwise `None`.
    pub lines: Option<u64>,
}

/// Returns where the segments of a log are: beside the file of lines, in a folder of its name.
pub(super) fn folder_of(log_path: &Path) -> PathBuf {
    log_path.with_extension("d").join("seg")
}

impl Segments {
    /// Looks for segments. There may be none, and no folder.
    pub(super) fn load(dir: PathBuf) -> io::Result<Self> {
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry?;
            if let Some((first, end)) = entry.file_name().to_str().and_then(numbers_of) {
                found.push((first, end, entry.metadata()?.len()));
            }
        }
        found.sort_unstable();
        let mut segments = Self {
            dir,
            list: Vec::with_capacity(found.len()),
            open: Mutex::default(),
        };
        for (first, end, len) in found {
            segments.push(first..end, len);
        }
        Ok(segments)
    }

    /// Adds one behind the others.
    pub(super) fn push(&mut self, seqs: Range<u64>, len: u64) {
        let start = self.bytes();
        self.list.push(Segment {
            first: seqs.start,
            end: seqs.end,
            start,
            len,
        });
    }

    pub(super) fn bytes(&self) -> u64 {
        self.list.last().map_or(0, |last| last.start + last.len)
    }

    pub(super) fn sealed(&self) -> Sealed {
        let lines = self.list.iter().try_fold(0, |lines, segment| {
            (segment.first == lines && segment.end > lines).then_some(segment.end)
        });
        Sealed {
            bytes: self.bytes(),
            lines,
        }
    }

    pub(super) fn path(&self, seqs: &Range<u64>) -> PathBuf {
        let Range { start, end } = seqs;
        self.dir.join(format!("{start:012}-{end:012}{SUFFIX}"))
    }

    /// Lists the files.
    pub(super) fn files(&self) -> Vec<LinesFile> {
        let files = self.list.iter().map(|segment| {
            let seqs = segment.first..segment.end;
            LinesFile {
                path: self.path(&seqs),
                seqs,
                start: segment.start,
                len: segment.len,
            }
        });
        files.collect()
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads from one segment; nothing behind the last.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let behind = self
            .list
            .partition_point(|segment| segment.start + segment.len <= offset);
        let Some(segment) = self.list.get(behind) else {
            return Ok(0);
        };
        let within = offset - segment.start;
        let left = usize::try_from(segment.len - within).unwrap_or(usize::MAX);
        let room = buffer.len().min(left);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match open.take() {
            Some((at, file)) if at == behind => file,
            Some(_) | None => File::open(self.path(&(segment.first..segment.end)))?,
        };
        let read = read_some(&file, within, &mut buffer[..room])?;
        *open = Some((behind, file));
        if read == 0 && room > 0 {
            // It is shorter than it was: whoever reads on must not take this for the end of the log.
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a sealed segment of the audit log was cut",
            ));
        }
        Ok(read)
    }

    /// Returns a number that changes when any segment is touched.
    pub(super) fn stamp(&self) -> io::Result<u64> {
        let mut hash = Sha256::new();
        for segment in &self.list {
            match std::fs::metadata(self.path(&(segment.first..segment.end))) {
                Ok(found) => {
                    for number in [found.dev(), found.ino(), found.len()] {
                        hash.update(number.to_be_bytes());
                    }
                    for time in [
                        (found.mtime(), found.mtime_nsec()),
                        (found.ctime(), found.ctime_nsec()),
                    ] {
                        hash.update(time.0.to_be_bytes());
                        hash.update(time.1.to_be_bytes());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => hash.update([0]),
                Err(error) => return Err(error),
            }
        }
        let digest: [u8; 32] = hash.finalize().into();
        let (first, _rest) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        Ok(u64::from_be_bytes(*first))
    }

    /// Forgets the open file, and looks at the lengths again.
    pub(super) fn reload(&mut self) -> io::Result<()> {
        *self = Self::load(std::mem::take(&mut self.dir))?;
        Ok(())
    }
}

impl PartialEq for Segments {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

fn numbers_of(name: &str) -> Option<(u64, u64)> {
    let (first, end) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let number = |digits: &str| {
        let plain = digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    Some((number(first)?, number(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_read_one_behind_the_other() {
        let root = tempfile::TempDir::new().expect("a folder");
        let dir = folder_of(&root.path().join("audit.jsonl"));
        assert!(dir.ends_with("audit.d/seg"));
        assert_eq!(
            Segments::load(dir.clone()).expect("none").sealed(),
            Sealed {
                bytes: 0,
                lines: Some(0)
            }
        );
        std::fs::create_dir_all(&dir).expect("made");
        for (name, text) in [
            ("000000000007-000000000009", "cde"),
            ("000000000000-000000000007", "ab"),
            ("x", "no"),
            ("1", "no"),
        ] {
            std::fs::write(dir.join(format!("{name}.jsonl")), text).expect("written");
        }
        let mut segments = Segments::load(dir.clone()).expect("two");
        assert_eq!(
            segments.sealed(),
            Sealed {
                bytes: 5,
                lines: Some(9)
            }
        );
        let mut buffer = [0; 8];
        for (offset, expected) in [(0, "ab"), (1, "b"), (2, "cde"), (4, "e"), (5, "")] {
            let read = segments.read_at(offset, &mut buffer).expect("read");
            assert_eq!(&buffer[..read], expected.as_bytes(), "at {offset}");
        }
        let before = segments.stamp().expect("stamped");
        assert_eq!(segments.stamp().expect("stamped"), before);
        std::fs::write(dir.join("000000000007-000000000009.jsonl"), "c").expect("written");
        assert_ne!(segments.stamp().expect("stamped"), before);
        assert!(segments.read_at(4, &mut buffer).is_err(), "it was cut");
        std::fs::remove_file(dir.join("000000000000-000000000007.jsonl")).expect("removed");
        segments.reload().expect("one");
        assert_eq!(
            segments.sealed(),
            Sealed {
                bytes: 1,
                lines: None
            }
        );
    }
}
