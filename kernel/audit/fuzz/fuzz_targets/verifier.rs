//! Every accepted verifier key is written back byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::note::Verifier;

fuzz_target!(|text: &str| {
    if let Ok(verifier) = text.parse::<Verifier>() {
        assert_eq!(verifier.to_string(), text);
    }
});
