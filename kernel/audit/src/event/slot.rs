//! What a field of an event holds before it is a line, and how texts are stripped and cut.

use std::fmt;

use zeroize::Zeroizing;

use super::TEXT_BYTES_MAX;
use crate::Hash;
use crate::value::{Secret, Text};

/// How much of a longer text is looked at: a secret must not be cut in two before it was seen.
const RAW_BYTES_MAX: usize = 4096;

/// What a field holds.
#[derive(Debug, Clone)]
pub(crate) enum Slot {
    /// A public text.
    Open(Box<str>),
    /// A text about a person, before it is sealed.
    Personal(Box<Hidden>),
    /// A secret, before it is committed to.
    Secret(Box<Secret>),
    /// What the line commits to.
    Committed(Box<Hash>),
}

/// A text about a person, and who that is. Not in `Debug`, wiped when dropped.
#[derive(Clone)]
pub(crate) struct Hidden {
    pub(crate) subject: Zeroizing<String>,
    pub(crate) value: Zeroizing<String>,
}

impl Slot {
    /// Returns the text, if everybody may read it.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Open(text) => Some(text),
            Self::Personal(_) | Self::Secret(_) | Self::Committed(_) => None,
        }
    }

    /// Returns the commitment, if there is one.
    pub(crate) fn commitment(&self) -> Option<Hash> {
        match self {
            Self::Committed(commitment) => Some(**commitment),
            Self::Open(_) | Self::Personal(_) | Self::Secret(_) => None,
        }
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(redacted)")
    }
}

impl From<Hash> for Slot {
    fn from(commitment: Hash) -> Self {
        Self::Committed(Box::new(commitment))
    }
}

impl From<Text<'_>> for Slot {
    fn from(text: Text<'_>) -> Self {
        match text {
            Text::Public(text) => Self::Open(stripped(text.as_str())),
            Text::Personal(personal) => Self::Personal(Box::new(Hidden {
                subject: Zeroizing::new(personal.subject().to_owned()),
                value: Zeroizing::new(stripped(personal.value()).into()),
            })),
        }
    }
}

/// Strips what could disguise a text, or a secret in it, and cuts what is far longer than a field. What is
/// cut then ends with a whole word: half a secret would not be known for what it is.
pub(super) fn stripped(text: &str) -> Box<str> {
    if text.len() <= RAW_BYTES_MAX && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len().min(RAW_BYTES_MAX));
    for c in text.chars().filter(|c| !is_disguise(*c)) {
        if out.len() + c.len_utf8() > RAW_BYTES_MAX {
            let words = out.trim_end_matches(|c: char| !c.is_whitespace()).len();
            if words > 0 {
                out.truncate(words);
            }
            break;
        }
        out.push(c);
    }
    out.into()
}

/// Cuts a text to the length of a field, at a character.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// Control characters, line and paragraph separators, the marks that turn the direction of text, and what
/// is not seen at all.
fn is_disguise(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_cut_ends_with_a_whole_word() {
        let text = format!("{} {}", "word ".repeat(800), "x".repeat(200));
        assert_eq!(stripped(&text).trim_end().len(), 4 * 800 + 799);
        assert_eq!(stripped(&"y".repeat(5000)).len(), RAW_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn texts_are_cut_at_a_character(text in "\\PC{0,300}") {
            let kept = cut(&text);
            prop_assert!(kept.len() <= TEXT_BYTES_MAX && text.starts_with(kept));
            prop_assert!(text.len() <= TEXT_BYTES_MAX || kept.len() > TEXT_BYTES_MAX - 4);
        }
    }
}
