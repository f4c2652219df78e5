//! The 518 proof vectors of transparency-dev/merkle, when the file is at hand.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use openfang_audit::Hash;
use openfang_audit::proof::{
    Subtree, verify_consistency, verify_inclusion, verify_subtree_consistency,
    verify_subtree_inclusion,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Some vectors have placeholders where hashes belong. Each stands for a hash of its own, except that
/// the same placeholder in the same role stands for the same hash.
fn hash(case: &Value, role: &str, field: &str) -> Hash {
    let text = case[field].as_str().expect("a hash in base64");
    let bytes = BASE64.decode(text.as_bytes()).expect("base64");
    match <[u8; 32]>::try_from(bytes.as_slice()) {
        Ok(bytes) => Hash::from_bytes(bytes),
        Err(_placeholder) => {
            let hasher = Sha256::new().chain_update(role).chain_update(&bytes);
            Hash::from_bytes(hasher.finalize().into())
        }
    }
}

/// `None` when an element is no hash: such a proof is refused where it is decoded.
fn proof(case: &Value) -> Option<Vec<Hash>> {
    let Some(elements) = case["proof"].as_array() else {
        return Some(Vec::new());
    };
    let element = |element: &Value| {
        let bytes = BASE64.decode(element.as_str()?.as_bytes()).ok()?;
        Some(Hash::from_bytes(bytes.try_into().ok()?))
    };
    elements.iter().map(element).collect()
}

fn number(case: &Value, field: &str) -> u64 {
    case[field].as_u64().expect("a number")
}

fn subtree(case: &Value) -> Subtree {
    Subtree {
        start: number(case, "start"),
        end: number(case, "end"),
    }
}

fn accepts(kind: &str, case: &Value) -> bool {
    let Some(proof) = proof(case) else {
        return false;
    };
    let root = |field: &str| hash(case, "root", field);
    let leaf = || hash(case, "leaf", "leafHash");
    match kind {
        "inclusion" => {
            let (index, size) = (number(case, "leafIdx"), number(case, "treeSize"));
            verify_inclusion(index, size, &leaf(), &proof, &root("root")).is_ok()
        }
        "consistency" => {
            let (size_1, size_2) = (number(case, "size1"), number(case, "size2"));
            verify_consistency(size_1, &root("root1"), size_2, &root("root2"), &proof).is_ok()
        }
        "subtreeinclusion" => {
            let index = number(case, "leafIdx");
            verify_subtree_inclusion(index, subtree(case), &leaf(), &proof, &root("root")).is_ok()
        }
        "subtreeconsistency" => {
            let (first, second) = (root("root1"), root("root2"));
            let size = number(case, "size");
            verify_subtree_consistency(subtree(case), &first, size, &second, &proof).is_ok()
        }
        other => panic!("unknown kind of vector {other:?}"),
    }
}

#[test]
fn all_vectors_are_judged_as_they_say() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path: PathBuf = manifest.join("../../../shared/vectors/rfc6962.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("SKIPPED: no proof vectors at {}", path.display());
        return;
    };
    let kinds: Value = serde_json::from_str(&text).expect("JSON");
    let mut judged = 0;
    let mut accepted = 0;
    for (kind, cases) in kinds.as_object().expect("an object of kinds") {
        for case in cases.as_array().expect("a list of vectors") {
            let wanted = !case["wantErr"].as_bool().expect("a verdict");
            assert_eq!(accepts(kind, case), wanted, "{}", case["name"]);
            judged += 1;
            accepted += usize::from(wanted);
        }
    }
    assert_eq!(judged, 518);
    println!("{judged} vectors judged, {accepted} of them accepted");
}
