//! No content of a file of the vault makes reading it panic or go on for ever, and an intent to erase has one
//! spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::vault::parse_intent;
use openfang_audit::vault::record::{MARK, Record, Records};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(same) = parse_intent(bytes) {
        assert_eq!(same.as_ref(), bytes);
    }
    let file = [&MARK[..], bytes].concat();
    let mut end = MARK.len();
    for (body, record) in Records::of(&file) {
        assert!(end < body.start && body.start <= body.end && body.end <= file.len());
        end = body.end;
        if let Record::Opening(opening) = record {
            assert!(opening.sealed.len() <= body.end - body.start);
        }
    }
});
