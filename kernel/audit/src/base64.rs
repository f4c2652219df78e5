//! Base64 with exactly one text for each value: RFC 4648 §4, padded.
//!
//! The decoder underneath also takes several padded pieces in a row, so that one value would have more
//! than one text, and what is read would not be written back as it was.

use data_encoding::BASE64;

/// Decodes a text; `None` unless [`BASE64`] encodes the value to just that text.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let padding = text.len() - text.trim_end_matches('=').len();
    let inside = &text[..text.len() - padding];
    if padding > 2 || inside.contains('=') {
        return None;
    }
    BASE64.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_in_a_row_are_no_text() {
        assert_eq!(decode(""), Some(Vec::new()));
        assert_eq!(decode("YQ=="), Some(b"a".to_vec()));
        for text in [
            "YQ==YQ==", "YWI=YWJj", "====", "YQ=", "YQ", "YR==", "YQ==\n", "YQ-_", "=", "====",
        ] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        assert!(
            BASE64.decode(b"YQ==YQ==").is_ok(),
            "or else this module is not needed"
        );
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back(text in "[A-Za-c+/]{0,12}={0,3}[A-Za-c+/]{0,6}={0,3}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(BASE64.encode(&bytes), text);
            }
        }
    }
}
