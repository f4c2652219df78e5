//! Notes and verifier keys are accepted exactly when an independent implementation accepts them, and hold
//! the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit_fuzz::{compare_note, compare_vkey};

fuzz_target!(|text: &str| {
    compare_note(text);
    compare_vkey(text);
});
