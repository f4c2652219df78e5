//! No content of the four files makes verification panic, or believe in a head that nobody signed.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use openfang_audit::Origin;
use openfang_audit::verify::{Verdict, verify_files};
use openfang_id::NodeSeed;

fuzz_target!(|files: (&[u8], &[u8], &[u8], &[u8])| {
    let keys = NodeSeed::from_bytes([1; 32]).keys();
    let origin = Origin::of(&keys.node_id(), 1);
    let root = std::env::temp_dir().join(format!("openfang-audit-fuzz-{}", std::process::id()));
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(&root)?;
        std::fs::write(root.join("audit.jsonl"), files.0)?;
        std::fs::write(root.join("hashes.0"), files.1)?;
        std::fs::write(root.join("floor"), files.2)?;
        std::fs::write(root.join("checkpoint"), files.3)
    };
    write().expect("a directory for temporary files");
    let key = keys.log.verifying_key();
    let report = verify_files(&root.join("audit.jsonl"), &root, &key, &origin).expect("readable");
    match report.verdict {
        Verdict::Intact { head, .. } => assert!(head.is_none()),
        Verdict::Empty | Verdict::Tampered { .. } => {}
    }
});
