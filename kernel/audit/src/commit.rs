//! What stands in a line in the place of a value: a commitment to it.
//!
//! `c = HMAC-SHA256(key, "openfang/audit/commit/v1" 00 field 00 value)` with 32 random bytes as key. Without
//! the key `c` says nothing about the value, however few values there can be; with it, nobody can show another
//! value for the same `c`. Key and value together are the opening. As the field is part of it, a commitment
//! cannot be taken for that of another field.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::Hash;
use crate::value::Field;

/// Separates these commitments from any other use of HMAC.
const LABEL: &[u8] = b"openfang/audit/commit/v1\0";

/// The key of one commitment; wiped when dropped.
pub type CommitmentKey = Zeroizing<[u8; 32]>;

/// Commits to the value of a field.
#[must_use]
pub fn commit(key: &[u8; 32], field: Field, value: &[u8]) -> Hash {
    let parts = [LABEL, field.as_str().as_bytes(), &[0], value];
    Hash::from_bytes(hmac(key, parts))
}

/// HMAC-SHA256, RFC 2104.
///
/// # Panics
/// Never: HMAC takes keys of every length.
pub(crate) fn hmac<'a>(key: &[u8; 32], parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        // Test case 2 of section 4.3, its key filled up with zeros as HMAC does.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let mac = hmac(&key, [&b"what do ya want "[..], b"for nothing?"]);
        assert_eq!(
            HEXLOWER.encode(&mac),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn a_commitment_is_bound_to_key_field_and_value() {
        let key = [7; 32];
        let one = commit(&key, Field::User, b"ada");
        assert_eq!(one, commit(&key, Field::User, b"ada"));
        assert_ne!(one, commit(&[8; 32], Field::User, b"ada"));
        assert_ne!(one, commit(&key, Field::Target, b"ada"));
        assert_ne!(one, commit(&key, Field::User, b"adb"));
    }

    #[test]
    fn the_bytes_of_a_commitment_do_not_change() {
        // printf 'openfang/audit/commit/v1\0user\0ada' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…
        let one = commit(&[7; 32], Field::User, b"ada");
        assert_eq!(one.to_string(), KNOWN);
    }

    const KNOWN: &str = "b91aa1034abeca4db67b05212d97357a7c9fb7f2e2ddefb17c54b8faf3d2632a";
}
