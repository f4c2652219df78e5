//! Every accepted name, head, cosigner key and signature line is written back byte for byte, and no note
//! is taken for one that was cosigned by a key that has not done so.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_audit::cosign::{CosignerKey, LogName, Role, TreeHead};
use openfang_audit::note::{Note, Signature};
use openfang_id::NodeSeed;

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<LogName>() {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(head) = text.parse::<TreeHead>() {
        assert_eq!(head.to_string(), text);
    }
    if let Ok(key) = text.parse::<CosignerKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(lines) = Signature::parse_lines(text) {
        let written: String = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(written, text);
    }
    if let Ok(note) = text.parse::<Note>() {
        // A key that no seed of a corpus is signed with.
        let keys = NodeSeed::from_bytes([0xfe; 32]).keys();
        let key = CosignerKey::of(&keys.node_id(), Role::Witness, keys.witness.verifying_key());
        assert!(key.verify(&note).is_err());
    }
});
