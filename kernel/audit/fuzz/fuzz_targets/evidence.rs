//! Everything that has the form of evidence is written back byte for byte, and checking it never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::evidence::Evidence;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = Evidence::decode(bytes) {
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(read.verify().is_ok(), Evidence::open(bytes).is_ok());
    }
});
