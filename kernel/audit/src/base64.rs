//! Base64 as the documents of C2SP want it: RFC 4648 §4, padded, and one text for each value.

use data_encoding::BASE64;

/// Reads a text. `None` when it is none, or another text stands for the same bytes.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    // The library reads several padded texts behind each other as one.
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    if text[..text.len() - padding].contains('=') {
        return None;
    }
    BASE64.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_one_text_stands_for_bytes() {
        assert_eq!(decode("AEE="), Some(vec![0, 0x41]));
        for bad in [
            "AEE", "AEF=", "AE=A0/0=", "AEE=AEE=", "A===", "====", "=", "AEE=\n", "AE E=", "AE-=",
        ] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "[AQgw+/=]{0,12}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(BASE64.encode(&bytes), text);
            }
        }
    }
}
