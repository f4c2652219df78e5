//! Every accepted line keeps its bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::Line;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(line) = Line::parse(bytes) {
        assert_eq!(line.raw.as_bytes(), bytes);
    }
});
