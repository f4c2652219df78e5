//! Every accepted request to a witness is written back byte for byte, and none is cosigned whose head the
//! log has not signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::Origin;
use openfang_audit::cosign::{Cosigner, LogName, Role};
use openfang_audit::note::Verifier;
use openfang_audit::witness::{AddCheckpoint, MemoryStore, Trust, Witness};
use openfang_id::NodeSeed;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = AddCheckpoint::parse(bytes) {
        assert_eq!(request.to_string().as_bytes(), bytes);
    }
    // A key that no seed of a corpus is signed with.
    let keys = NodeSeed::from_bytes([0xfe; 32]).keys();
    let log = Origin::of(&keys.node_id(), 1);
    let known = Verifier::new(log.as_str(), keys.log.verifying_key()).expect("a valid name");
    let trusted = |name: &LogName| match name.as_str() == log.as_str() {
        true => Trust::Keys(vec![known.clone()]),
        false => Trust::Unknown,
    };
    let cosigner = Cosigner::of(&keys.node_id(), Role::Witness, keys.witness);
    let witness = Witness::new(cosigner, MemoryStore::default());
    let refusal = witness
        .add_checkpoint(bytes, &trusted, 1)
        .expect_err("nobody has signed it");
    assert!(matches!(refusal.status(), 400 | 403 | 404));
});
