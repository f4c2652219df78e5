//! Every accepted note is written back byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::note::Note;

fuzz_target!(|text: &str| {
    if let Ok(note) = text.parse::<Note>() {
        assert_eq!(note.to_string(), text);
    }
});
