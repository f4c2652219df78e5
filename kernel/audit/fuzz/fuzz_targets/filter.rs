//! No text makes the filter panic, and a secret of the node gets through in no company.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::guard::{Guard, Known};

const SECRET: &str = "correct horse battery staple";

fuzz_target!(|texts: (&str, &str)| {
    let known = Known::default().with([SECRET.as_bytes()]);
    let guard = Guard::new(known, None);
    let text = format!("{}{SECRET}{}", texts.0, texts.1);
    assert!(!guard.clean_text(&text).contains(SECRET));
});
