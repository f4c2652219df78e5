//! Every accepted proof file is written back byte for byte, and none proves anything of a log that has
//! not signed it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::Origin;
use openfang_audit::policy::Policy;
use openfang_audit::tlog_proof::{TlogProof, check};
use openfang_id::NodeSeed;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(proof) = TlogProof::parse(bytes) {
        assert_eq!(proof.to_string().as_bytes(), bytes);
    }
    let keys = NodeSeed::from_bytes([1; 32]).keys();
    let origin = Origin::of(&keys.node_id(), 1);
    let policy = Policy::of_log(&origin, keys.log.verifying_key(), &[], 0).expect("a policy");
    assert!(check(bytes, b"entry", &policy).is_err());
});
