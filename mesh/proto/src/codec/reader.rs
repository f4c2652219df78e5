//! Takes fields from a message.

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends inside a field.
    #[error("the message ends {missing} bytes too early")]
    Truncated {
        /// How many more bytes the field needs.
        missing: usize,
    },
    /// A length or a number of elements is over its bound.
    #[error("a field says it has {len}, more than the {max} it may have")]
    TooLong {
        /// What it says.
        len: usize,
        /// The most it may have.
        max: usize,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// Bytes are left after the last field.
    #[error("{left} bytes are left after the last field")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// A byte that chooses between forms has a value without a form.
    #[error("{value} is not a known {what}")]
    Unknown {
        /// What it chooses.
        what: &'static str,
        /// Its value.
        value: u8,
    },
    /// A field has the right shape and an impossible value.
    #[error("not a valid {what}")]
    Invalid {
        /// Which field.
        what: &'static str,
    },
}

/// Reads one message from its first field to its last. After an error the position is unspecified:
/// the message is dropped.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Self { left: message }
    }

    /// Returns how many bytes were not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// Takes the next `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when there are fewer.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let missing = len.saturating_sub(self.left.len());
        let (taken, left) = self
            .left
            .split_at_checked(len)
            .ok_or(DecodeError::Truncated { missing })?;
        self.left = left;
        Ok(taken)
    }

    /// Takes a field of a fixed length.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when the message ends inside it.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let missing = N.saturating_sub(self.left.len());
        let (taken, left) = self
            .left
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated { missing })?;
        self.left = left;
        Ok(*taken)
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    /// Takes a truth value.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] for a byte other than 0 and 1.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Unknown {
                what: "truth value",
                value,
            }),
        }
    }

    /// Takes two bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when there are fewer.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Takes four bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when there are fewer.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Takes eight bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when there are fewer.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Takes the number of elements of a list: two bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] when it is over `max`.
    pub fn count16(&mut self, max: usize) -> Result<usize, DecodeError> {
        let count = usize::from(self.u16()?);
        bounded(count, max)
    }

    /// Takes the number of elements of a short list: one byte.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] when it is over `max`.
    pub fn count8(&mut self, max: usize) -> Result<usize, DecodeError> {
        let count = usize::from(self.u8()?);
        bounded(count, max)
    }

    /// Takes a field with two bytes of length.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] when it says more than `max` bytes, or the message ends inside it.
    pub fn bytes16(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = usize::from(self.u16()?);
        self.raw(bounded(len, max)?)
    }

    /// Takes a field with four bytes of length.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] when it says more than `max` bytes, or the message ends inside it.
    pub fn bytes32(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        self.raw(bounded(len, max)?)
    }

    /// Takes a text with two bytes of length.
    ///
    /// # Errors
    /// As [`Reader::bytes16`], and [`DecodeError::Utf8`].
    pub fn str16(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        text(self.bytes16(max)?)
    }

    /// Takes a text with four bytes of length.
    ///
    /// # Errors
    /// As [`Reader::bytes32`], and [`DecodeError::Utf8`].
    pub fn str32(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        text(self.bytes32(max)?)
    }

    /// Takes a value that may be missing.
    ///
    /// # Errors
    /// Those of `read`, and [`DecodeError::Unknown`] for a first byte other than 0 and 1.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool()? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.left.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { left }),
        }
    }
}

fn bounded(len: usize, max: usize) -> Result<usize, DecodeError> {
    if len > max {
        return Err(DecodeError::TooLong { len, max });
    }
    Ok(len)
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_not_utf8| DecodeError::Utf8)
}
