//! Cuts a stream of bytes into frames: four bytes of length, big-endian, then the frame.

use super::EncodeError;

/// The bytes of a length.
const HEADER_BYTES: usize = 4;

/// Why a stream cannot be read on. The stream is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length is over the bound; nothing of the frame was kept.
    #[error("a frame of {len} bytes is longer than the {max} it may have")]
    TooLong {
        /// The length it says.
        len: usize,
        /// The most it may have.
        max: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
}

/// Collects the bytes of one stream until a frame is whole.
///
/// Holds at most one frame, and grows with what arrives rather than with what a length promises.
#[derive(Debug)]
pub struct FrameBuffer {
    frame_bytes_max: usize,
    header: Vec<u8>,
    body: Vec<u8>,
    wanted: Option<usize>,
}

impl FrameBuffer {
    /// Starts at the beginning of a stream whose frames have at most `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        Self {
            frame_bytes_max,
            header: Vec::with_capacity(HEADER_BYTES),
            body: Vec::new(),
            wanted: None,
        }
    }

    /// Takes bytes from the front of `input` up to the end of the next frame, and returns that
    /// frame when it is whole. `None` means that `input` is used up. Call it until then.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] as soon as a length over the bound was read.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        let wanted = match self.wanted {
            Some(wanted) => wanted,
            None => match self.feed_header(input)? {
                Some(wanted) => wanted,
                None => return Ok(None),
            },
        };
        let missing = wanted - self.body.len();
        let taken = take(input, missing);
        if self.body.capacity() - self.body.len() < taken.len() {
            // Twice as much each time, and never more than the frame will have.
            let room = (2 * self.body.capacity()).max(self.body.len() + taken.len());
            self.body.reserve_exact(room.min(wanted) - self.body.len());
        }
        self.body.extend_from_slice(taken);
        if self.body.len() < wanted {
            return Ok(None);
        }
        self.wanted = None;
        Ok(Some(std::mem::take(&mut self.body)))
    }

    /// Says whether the stream stands between two frames.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wanted.is_none() && self.header.is_empty()
    }

    /// Returns how many bytes of memory it holds.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.header.capacity() + self.body.capacity()
    }

    /// Returns how many bytes of memory a frame takes that has begun and is not whole; 0 between two
    /// frames.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        HEADER_BYTES + self.body.capacity()
    }

    /// Bounds the frames that begin from now on.
    pub(crate) fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when it ends inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.is_empty() {
            return Ok(());
        }
        Err(FrameError::Truncated)
    }

    fn feed_header(&mut self, input: &mut &[u8]) -> Result<Option<usize>, FrameError> {
        let taken = take(input, HEADER_BYTES - self.header.len());
        self.header.extend_from_slice(taken);
        let Ok(header) = <[u8; HEADER_BYTES]>::try_from(self.header.as_slice()) else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
        let max = self.frame_bytes_max;
        if len > max {
            return Err(FrameError::TooLong { len, max });
        }
        self.header.clear();
        self.wanted = Some(len);
        Ok(Some(len))
    }
}

/// Appends a frame to `out` with its length before it.
///
/// # Errors
/// [`EncodeError::MessageTooLong`] when it has more than `frame_bytes_max` bytes; `out` is unchanged.
pub fn frame_into(
    out: &mut Vec<u8>,
    frame: &[u8],
    frame_bytes_max: usize,
) -> Result<(), EncodeError> {
    let len = frame.len();
    let max = frame_bytes_max;
    match u32::try_from(len) {
        Ok(header) if len <= max => {
            out.reserve(HEADER_BYTES + len);
            out.extend_from_slice(&header.to_be_bytes());
            out.extend_from_slice(frame);
            Ok(())
        }
        Ok(_) | Err(_) => Err(EncodeError::MessageTooLong { len, max }),
    }
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, left) = input.split_at(len.min(input.len()));
    *input = left;
    taken
}
