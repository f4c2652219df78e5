//! What a text says when it is read kindly: percent-encoding decoded, full-width characters as ASCII; and,
//! for secrets that are known, without what stands between groups and without regard to case.
//!
//! Each byte keeps where it came from, so that what is found is replaced in the text as it stands. A few passes,
//! each once over the text: encodings within encodings are undone twice, and no further.

use std::ops::Range;

/// Bytes, each with where it stands in the text that it was read from.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) bytes: Vec<u8>,
    from: Vec<Range<usize>>,
}

impl Plain {
    /// Undoes the encodings of a text; `None` when it has none.
    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        // A full-width character begins with this byte.
        memchr::memchr2(b'%', WIDE[0], text)?;
        let whole = Self {
            bytes: text.to_vec(),
            from: (0..text.len()).map(|at| at..at + 1).collect(),
        };
        let plain = whole.unescape().narrow().unescape().narrow();
        (plain.bytes.len() < text.len()).then_some(plain)
    }

    /// Returns where a part of it stands in the text.
    pub(super) fn origin(&self, part: &Range<usize>) -> Range<usize> {
        let of = |at: usize| self.from.get(at).cloned().unwrap_or_default();
        of(part.start).start..of(part.end.saturating_sub(1)).end
    }

    /// Makes `%41` an `A`.
    fn unescape(&self) -> Self {
        self.replace(|bytes| match bytes {
            [b'%', high, low, ..] => {
                let (high, low) = (digit(*high)?, digit(*low)?);
                Some((high << 4 | low, 3))
            }
            _other => None,
        })
    }

    /// Makes full-width letters, digits and signs what they stand for: U+FF01 to U+FF5E, and U+3000.
    fn narrow(&self) -> Self {
        self.replace(|bytes| match bytes {
            [0xef, 0xbc, last @ 0x81..=0xbf, ..] => Some((last - 0x60, 3)),
            [0xef, 0xbd, last @ 0x80..=0x9e, ..] => Some((last - 0x20, 3)),
            [0xe3, 0x80, 0x80, ..] => Some((b' ', 3)),
            _other => None,
        })
    }

    /// Replaces what begins with something, by one byte for so many.
    fn replace(&self, with: impl Fn(&[u8]) -> Option<(u8, usize)>) -> Self {
        let mut out = Self {
            bytes: Vec::with_capacity(self.bytes.len()),
            from: Vec::with_capacity(self.bytes.len()),
        };
        let mut at = 0;
        while let Some(byte) = self.bytes.get(at) {
            let (byte, len) = with(&self.bytes[at..]).unwrap_or((*byte, 1));
            out.bytes.push(byte);
            out.from.push(self.origin(&(at..at + len)));
            at += len;
        }
        out
    }
}

/// Returns the letters and digits of a text, small ones for capital ones, and for each its place.
pub(super) fn fold(text: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let letters = text.iter().enumerate();
    letters
        .filter_map(|(at, byte)| Some((folded(*byte)?, at)))
        .unzip()
}

/// A letter or digit, in lower case.
pub(super) fn folded(byte: u8) -> Option<u8> {
    byte.is_ascii_alphanumeric()
        .then(|| byte.to_ascii_lowercase())
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// How a full-width character begins.
const WIDE: [u8; 1] = [0xef];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(text: &str) -> Option<String> {
        let plain = Plain::decode(text.as_bytes())?;
        Some(String::from_utf8_lossy(&plain.bytes).into_owned())
    }

    #[test]
    fn encodings_are_undone_twice() {
        let check =
            |text: &str, expected: &str| assert_eq!(decoded(text).as_deref(), Some(expected));
        check("a%62c", "abc");
        check("%2541 %25", "A %");
        check("ａＢ９！～", "aB9!~");
        check("％41", "A");
        check("%EF%BD%81", "a");
        assert_eq!(decoded("100% of it, %zz"), None);
        assert_eq!(decoded("plain"), None);
        assert_eq!(decoded("ﾊ"), None, "half-width letters of others stay");
    }

    #[test]
    fn what_is_found_is_where_it_stands() {
        let text = "x ｐ%77 y";
        let plain = Plain::decode(text.as_bytes()).expect("encoded");
        assert_eq!(plain.bytes, b"x pw y");
        assert_eq!(&text[plain.origin(&(2..4))], "ｐ%77");
        assert_eq!(fold(b"Ab-9 c"), (b"ab9c".to_vec(), vec![0, 1, 3, 5]));
    }

    proptest! {
        #[test]
        fn every_byte_keeps_its_place(text in "([a-z%]|%[0-9a-f]{2}|[\\u{ff00}-\\u{ff60}]){0,40}") {
            let Some(plain) = Plain::decode(text.as_bytes()) else { return Ok(()) };
            let mut end = 0;
            for at in 0..plain.bytes.len() {
                let origin = plain.origin(&(at..at + 1));
                prop_assert_eq!(origin.start, end);
                end = origin.end;
            }
            prop_assert_eq!(end, text.len());
        }
    }
}
