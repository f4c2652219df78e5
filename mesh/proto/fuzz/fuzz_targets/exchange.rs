//! Reads bytes as questions and answers about audit logs: nothing may panic, and what is read is
//! written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_ofp::exchange::{Answer, Question};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(question) = Question::decode(bytes) {
        assert_eq!(question.encode().expect("was read"), bytes);
    }
    if let Ok(answer) = Answer::decode(bytes) {
        assert_eq!(answer.encode().expect("was read"), bytes);
    }
});
