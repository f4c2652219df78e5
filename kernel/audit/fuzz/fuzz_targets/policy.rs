//! No policy panics, and every accepted one keeps its bytes and judges any note without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::note::Note;
use openfang_audit::policy::Policy;

fuzz_target!(|input: (&[u8], &str)| {
    let Ok(policy) = Policy::parse(input.0) else {
        return;
    };
    assert_eq!(policy.as_bytes(), input.0);
    if let Ok(note) = input.1.parse::<Note>()
        && let Ok(found) = policy.evaluate(&note)
    {
        assert!(found.cosignatures.len() <= policy.witnesses().len());
    }
});
