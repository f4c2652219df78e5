//! Every accepted answer to a challenge is written back byte for byte, and checking it never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::Hash;
use openfang_audit::challenge::Answer;

fuzz_target!(|input: (u64, u64, &[u8])| {
    let (index, size, bytes) = input;
    if let Ok(answer) = Answer::parse(bytes) {
        let mut again = Vec::new();
        answer.encode(&mut again).expect("it was read");
        assert_eq!(again, bytes);
        let root = Hash::from_bytes([7; 32]);
        answer
            .check(index, size, &root)
            .expect_err("nobody finds a preimage");
    }
});
