//! No text makes the filter panic, and a secret of the node gets through in no company, in groups or not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::guard::{Guard, Known};

const SECRET: &str = "correct horse battery staple";

fuzz_target!(|texts: (&str, &str)| {
    let known = Known::default().with([SECRET.as_bytes()]);
    let guard = Guard::new(known, None);
    for between in [" ", "-", "%20", "\u{3000}"] {
        let secret = SECRET.replace(' ', between);
        let text = format!("{}{secret}{}", texts.0, texts.1);
        assert!(!guard.clean_text(&text).contains(&secret));
    }
});
