//! Appends fields to a message.

/// Why a message could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A field is longer than its length prefix can say, or than its bound.
    #[error("a field of {len} bytes is longer than the {max} it may have")]
    FieldTooLong {
        /// Its length in bytes.
        len: usize,
        /// The most it may have.
        max: usize,
    },
    /// The message as a whole is longer than its bound.
    #[error("a message of {len} bytes is longer than the {max} it may have")]
    MessageTooLong {
        /// Its length in bytes.
        len: usize,
        /// The most it may have.
        max: usize,
    },
}

/// Writes one message. A field that does not fit is remembered and reported by [`Writer::finish`].
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    error: Option<EncodeError>,
}

impl Writer {
    /// Starts an empty message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts an empty message with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
            error: None,
        }
    }

    /// Returns how many bytes were written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Says whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Appends a truth value: one byte, 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Appends two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends bytes as they are; their number is known to the reader.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends the number of elements of a list: two bytes.
    pub fn count16(&mut self, count: usize) -> &mut Self {
        let count = self.fitted(count, u16::MAX).unwrap_or(0);
        self.u16(count)
    }

    /// Appends the number of elements of a short list: one byte.
    pub fn count8(&mut self, count: usize) -> &mut Self {
        let count = self.fitted(count, u8::MAX).unwrap_or(0);
        self.u8(count)
    }

    /// Appends a field of at most 65,535 bytes: two bytes of length, then the bytes.
    pub fn bytes16(&mut self, bytes: &[u8]) -> &mut Self {
        match self.fitted(bytes.len(), u16::MAX) {
            Some(len) => self.u16(len).raw(bytes),
            None => self,
        }
    }

    /// Appends a field of at most 4,294,967,295 bytes: four bytes of length, then the bytes.
    pub fn bytes32(&mut self, bytes: &[u8]) -> &mut Self {
        match self.fitted(bytes.len(), u32::MAX) {
            Some(len) => self.u32(len).raw(bytes),
            None => self,
        }
    }

    /// Appends a text of at most 65,535 bytes of UTF-8, as [`Writer::bytes16`].
    pub fn str16(&mut self, text: &str) -> &mut Self {
        self.bytes16(text.as_bytes())
    }

    /// Appends a text of at most 4,294,967,295 bytes of UTF-8, as [`Writer::bytes32`].
    pub fn str32(&mut self, text: &str) -> &mut Self {
        self.bytes32(text.as_bytes())
    }

    /// Appends a text as [`Writer::str16`], and remembers an error when it has more than `max` bytes.
    pub fn str16_max(&mut self, text: &str, max: usize) -> &mut Self {
        self.check(text.len(), max);
        self.str16(text)
    }

    /// Appends a value that may be missing: 0, or 1 and the value.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    /// Remembers an error when `len` is more than `max`.
    pub fn check(&mut self, len: usize, max: usize) -> &mut Self {
        if len > max && self.error.is_none() {
            self.error = Some(EncodeError::FieldTooLong { len, max });
        }
        self
    }

    /// Ends the message.
    ///
    /// # Errors
    /// When a field did not fit, or the message has more than `max` bytes.
    pub fn finish(self, max: usize) -> Result<Vec<u8>, EncodeError> {
        let len = self.bytes.len();
        match self.error {
            Some(error) => Err(error),
            None if len > max => Err(EncodeError::MessageTooLong { len, max }),
            None => Ok(self.bytes),
        }
    }

    fn fitted<T: TryFrom<usize> + Into<u64>>(&mut self, len: usize, max: T) -> Option<T> {
        let fitted = T::try_from(len).ok();
        if fitted.is_none() {
            let max = usize::try_from(max.into()).unwrap_or(usize::MAX);
            self.check(len, max);
        }
        fitted
    }
}
