//! Every accepted state of a mirror is written back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::mirror::MirrorInfo;

fuzz_target!(|text: &str| {
    if let Ok(info) = text.parse::<MirrorInfo>() {
        assert_eq!(info.to_string(), text);
    }
});
