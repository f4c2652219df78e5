//! Comparison with an independent implementation of signed notes: `signed_note` of Cloudflare's azul.
//!
//! It is no dependency of the crate itself, because it brings older versions of what is there already.

use openfang_audit::note::{Note, Signature, Verifier};
use signed_note::{Note as Theirs, StandardVerifier, Verifier as _};

/// Both accept a note or neither does, and they find the same in it.
///
/// # Panics
/// When they differ.
pub fn compare_note(text: &str) {
    let ours = text.parse::<Note>();
    let theirs = Theirs::from_bytes(text.as_bytes());
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.text().as_bytes(), theirs.text());
            assert_eq!(ours.to_string().as_bytes(), theirs.to_bytes());
        }
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{text:?}: {ours:?} and {:?}", theirs.map(|_| ())),
    }
    // A line alone: they leave control characters to the check of the whole note.
    if text.bytes().any(|byte| byte < 0x20) {
        return;
    }
    let ours = text.parse::<Signature>();
    if let Ok(theirs) = signed_note::Signature::from_bytes(text.as_bytes()) {
        let ours = ours.expect("they accept it");
        assert_eq!(ours.name, theirs.name());
        assert_eq!(u32::from_be_bytes(ours.key_id), theirs.id());
        assert_eq!(ours.bytes, theirs.signature());
    } else {
        assert!(ours.is_err(), "{text:?}");
    }
}

/// What we accept as a verifier key, they accept, with the same name and id. They also accept keys of
/// small order.
///
/// # Panics
/// When they differ.
pub fn compare_vkey(text: &str) {
    if let Ok(ours) = text.parse::<Verifier>() {
        let theirs = StandardVerifier::new(text).expect("we accept it");
        assert_eq!(ours.name(), theirs.name());
        assert_eq!(u32::from_be_bytes(ours.key_id()), theirs.key_id());
    }
}
