//! No text is taken for a head of a log whose key did not sign it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::{Origin, SignedHead};
use openfang_id::NodeSeed;

fuzz_target!(|text: &str| {
    let keys = NodeSeed::from_bytes([1; 32]).keys();
    let origin = Origin::of(&keys.node_id(), 1);
    assert!(SignedHead::open(text, &origin, &keys.log.verifying_key()).is_err());
});
