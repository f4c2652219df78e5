//! Any bytes as a record: decoded or refused, and what decodes has one form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_id::NodeSeed;
use openfang_ofp::roster::{Ed25519, Known, Record};

fuzz_target!(|data: &[u8]| {
    if let Ok(record) = Record::decode(data) {
        let encoded = record.encode().expect("what decodes is within its bounds");
        assert_eq!(encoded, data);
    }
    let crypto = Ed25519(NodeSeed::from_bytes([1; 32]).keys().identity);
    if let Ok(known) = Known::decode(data, &crypto) {
        let again = Known::decode(&known.encode(), &crypto);
        assert_eq!(again, Ok(known));
    }
});
