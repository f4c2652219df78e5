//! Every accepted checkpoint, origin, cause, hash and list of kinds is written back or at least read without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::read::Kinds;
use openfang_audit::{Cause, Checkpoint, Hash, Origin};

fuzz_target!(|text: &str| {
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        assert_eq!(checkpoint.to_string(), text);
    }
    if let Ok(origin) = text.parse::<Origin>() {
        assert_eq!(origin.to_string(), text);
    }
    if let Ok(cause) = text.parse::<Cause>() {
        assert_eq!(cause.to_string(), text);
    }
    if let Ok(hash) = text.parse::<Hash>() {
        assert_eq!(hash.to_string(), text);
    }
    drop(text.parse::<Kinds>());
});
