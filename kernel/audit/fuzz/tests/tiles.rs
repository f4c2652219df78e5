//! The same tree, the same proofs and the same tiles by `tlog_tiles`, a port of the tlog of Go.
//!
//! It stands here and not among the tests of the crate because it brings second versions of crates that
//! the workspace has once. It asserts on what is not valid, and is given nothing else.
//! `cargo +nightly test --manifest-path kernel/audit/fuzz/Cargo.toml --test tiles`

use openfang_audit::Hash;
use openfang_audit::proof::{
    build_consistency, build_inclusion, verify_consistency, verify_inclusion,
};
use openfang_audit::tile::{TILE_WIDTH, TileKind, compute_tile, encode_tile, tile_paths};
use openfang_audit::tree::{leaf_hash, root_of};
use tlog_tiles::tlog::{self, HashReader};
use tlog_tiles::{Error, Tile};

/// Hashes in the order in which `tlog` stores them.
struct Stored(Vec<tlog::Hash>);

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, Error> {
        Ok(indexes
            .iter()
            .map(|index| self.0[*index as usize])
            .collect())
    }
}

fn ours(hashes: &[tlog::Hash]) -> Vec<Hash> {
    hashes.iter().map(|hash| Hash::from_bytes(hash.0)).collect()
}

fn theirs(hashes: &[Hash]) -> Vec<tlog::Hash> {
    hashes
        .iter()
        .map(|hash| tlog::Hash(*hash.as_bytes()))
        .collect()
}

#[test]
fn roots_proofs_and_tiles_are_the_same() {
    let mut stored = Stored(Vec::new());
    let mut leaves = Vec::new();
    let mut checked = 0;
    for index in 0..70_000_u64 {
        let entry = format!("entry {index}");
        let more = tlog::stored_hashes(index, entry.as_bytes(), &stored).expect("stored");
        stored.0.extend(more);
        leaves.push(leaf_hash(entry.as_bytes()));
        let size = index + 1;
        let edge = size % 256 <= 1 || size % 65_536 <= 2 || size == 70_000;
        if size > 260 && !(edge && size % 4_096 <= 2) && size != 70_000 {
            continue;
        }
        let root = root_of(&leaves);
        let other = tlog::tree_hash(size, &stored).expect("a root");
        assert_eq!(other.0, *root.as_bytes(), "size {size}");
        let step = 1 + usize::try_from(size / 40).expect("small");
        for index in (0..size).step_by(step).chain([size - 1]) {
            let leaf = leaves[index as usize];
            let proof = build_inclusion(&*leaves, index, size).expect("a proof");
            let other = tlog::prove_record(size, index, &stored).expect("a proof");
            assert_eq!(ours(&other), proof, "entry {index} of {size}");
            let (th, h) = (tlog::Hash(*root.as_bytes()), tlog::Hash(*leaf.as_bytes()));
            tlog::check_record(&theirs(&proof), size, th, index, h).expect("it holds");
            verify_inclusion(index, size, &leaf, &ours(&other), &root).expect("it holds");

            let old = index + 1;
            let old_root = root_of(&leaves[..old as usize]);
            let proof = build_consistency(&*leaves, old, size).expect("a proof");
            let other = tlog::prove_tree(size, old, &stored).expect("a proof");
            assert_eq!(ours(&other), proof, "{old} in {size}");
            let h = tlog::Hash(*old_root.as_bytes());
            tlog::check_tree(&theirs(&proof), size, th, old, h).expect("it holds");
            verify_consistency(old, &old_root, size, &root, &ours(&other)).expect("it holds");
            checked += 1;
        }
    }
    assert!(checked > 10_000, "{checked} proofs");
    let size = leaves.len() as u64;
    for path in tile_paths(size) {
        let TileKind::Hashes(level) = path.kind() else {
            continue;
        };
        let tile = Tile::new(8, level, path.index(), u32::from(path.width()), false);
        let Ok(hashes) = compute_tile(&*leaves, level, path.index(), path.width());
        let other = tile.read_data(&stored).expect("a tile");
        assert_eq!(other, encode_tile(&hashes), "{path}");
        // Their paths name the height as well.
        let expected = path.to_string().replacen("tile/", "tile/8/", 1);
        assert_eq!(tile.path(), expected);
        if path.width() == TILE_WIDTH {
            let root = Tile::subtree_hash(&other);
            assert_eq!(root.0, *root_of(&hashes).as_bytes(), "{path}");
        }
    }
}
