//! Where the lines of a log stand, so that any bundle of them can be read at once.

use std::io;
use std::ops::ControlFlow;

use crate::scan::lines;
use crate::storage::Reader;
use crate::tile::{Bundle, BundleError, TILE_WIDTH};

/// The places of every 256th line of a log, found by one pass over the file and eight bytes each.
#[derive(Debug, Clone, Default)]
pub struct LineIndex {
    /// Where each bundle begins.
    starts: Vec<u64>,
    /// How many lines were seen.
    size: u64,
    /// Where the next line begins.
    end: u64,
}

/// Why lines cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The file cannot be read.
    #[error("the lines of the log cannot be read")]
    Io(#[source] io::Error),
    /// There are not so many.
    #[error("the log has no such lines")]
    Range,
    /// A line is too long, or the file is not what it was.
    #[error("the lines of the log are not as they were")]
    Changed,
}

impl LineIndex {
    /// Returns how many lines are known.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads on behind the known lines until there are `size`, or the file ends.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn extend<R: Reader + ?Sized>(&mut self, reader: &R, size: u64) -> io::Result<()> {
        if self.size >= size {
            return Ok(());
        }
        lines(reader, self.end, u64::MAX, |offset, bytes| {
            if self.size.is_multiple_of(u64::from(TILE_WIDTH)) {
                self.starts.push(offset);
            }
            self.size += 1;
            self.end = offset + bytes.len() as u64 + 1;
            if self.size == size {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(())
    }

    /// Reads the lines `start..end`, which are of one bundle.
    ///
    /// # Errors
    /// When they are not, or not known, or cannot be read.
    pub fn bundle<R: Reader + ?Sized>(
        &self,
        reader: &R,
        start: u64,
        end: u64,
    ) -> Result<Bundle, LinesError> {
        let width = u64::from(TILE_WIDTH);
        if start >= end || end > self.size || start / width != (end - 1) / width {
            return Err(LinesError::Range);
        }
        let number = usize::try_from(start / width).map_err(|_large| LinesError::Range)?;
        let from = *self.starts.get(number).ok_or(LinesError::Range)?;
        let until = self.starts.get(number + 1).copied().unwrap_or(self.end);
        let mut index = start - start % width;
        let mut bundle = Bundle::default();
        let mut failure: Option<BundleError> = None;
        lines(reader, from, until, |_offset, bytes| {
            if index >= start {
                failure = bundle.push(bytes).err();
            }
            index += 1;
            if index == end || failure.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .map_err(LinesError::Io)?;
        if failure.is_none() && u64::from(bundle.len()) == end - start {
            Ok(bundle)
        } else {
            Err(LinesError::Changed)
        }
    }
}
