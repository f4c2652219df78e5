//! Base64 with one spelling for each byte string: RFC 4648 §4, padded, canonical.

use data_encoding::BASE64;

use crate::Hash;

/// Decodes a text that is written back as it is.
///
/// The decoder below also takes padded texts that are put one behind the other, with `=` in the middle.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    if text.trim_end_matches('=').contains('=') {
        return None;
    }
    BASE64.decode(text.as_bytes()).ok()
}

/// Decodes a hash: 44 characters.
pub(crate) fn decode_hash(text: &str) -> Option<Hash> {
    if text.len() != BASE64.encode_len(Hash::BYTES) {
        return None;
    }
    Some(Hash::from_bytes(decode(text)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn there_is_one_spelling() {
        assert_eq!(decode(""), Some(Vec::new()));
        assert_eq!(decode("YQ=="), Some(b"a".to_vec()));
        assert_eq!(decode("YWE="), Some(b"aa".to_vec()));
        for text in [
            "YQ", "YQ=", "YQ===", "YR==", "YQ==YQ==", "=", "====", "Y Q=", "YQ==\n", "Y-==",
        ] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        // 32 bytes in 44 characters, with the padding in another place.
        let zeros = "A".repeat(43) + "=";
        assert_eq!(decode_hash(&zeros), Some(Hash::from_bytes([0; 32])));
        assert_eq!(decode_hash(&("AAA=".to_owned() + &"A".repeat(40))), None);
        assert_eq!(decode_hash(&"A".repeat(44)), None);
        assert_eq!(decode_hash(""), None);
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_written_back(text in "[A-Za-z0-9+/=]{0,24}", bytes: Vec<u8>) {
            if let Some(decoded) = decode(&text) {
                prop_assert_eq!(BASE64.encode(&decoded), text);
            }
            prop_assert_eq!(decode(&BASE64.encode(&bytes)), Some(bytes));
        }
    }
}
