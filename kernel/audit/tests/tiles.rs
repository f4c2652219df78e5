//! Tiles of somebody else: what is read from them, and what is not believed. And the same tree by an
//! implementation that nobody here wrote.

mod tlog;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use openfang_audit::Hash;
use openfang_audit::proof::{
    Nodes as _, Subtree, build_consistency, build_inclusion, build_subtree_consistency,
    verify_consistency, verify_inclusion,
};
use openfang_audit::tile::{TILE_WIDTH, TileError, TileKind, TileNodes, TilePath, tile_paths};
use openfang_audit::tree::{leaf_hash, root_of};
use proptest::prelude::*;
use sha2::Sha256;
use tlog::{OutOfReach, SIZES, Tiles, leaves, lines};

#[test]
fn proofs_from_tiles_are_those_from_the_leaves() {
    let all = lines(70_000);
    for size in SIZES.into_iter().chain([300, 66_000, 70_000]) {
        let lines = &all[..usize::try_from(size).expect("small")];
        let leaves = leaves(lines);
        let root = root_of(&leaves);
        let tiles = Tiles::of(lines);
        assert_eq!(tiles.files.len(), tile_paths(size).count());
        assert!(tile_paths(size).all(|path| tiles.files.contains_key(&path)));
        let nodes = TileNodes::open(&tiles, size, root).expect("the tiles fit the root");
        let indexes = [0, 1, 254, 255, 256, 511, 40_000, 65_535, 65_536];
        for index in indexes.into_iter().chain([size.saturating_sub(1)]) {
            if index >= size {
                continue;
            }
            let proof = build_inclusion(&nodes, index, size).expect("a proof");
            assert_eq!(Ok(&proof), build_inclusion(&*leaves, index, size).as_ref());
            let leaf = leaf_hash(&lines[usize::try_from(index).expect("small")]);
            assert_eq!(verify_inclusion(index, size, &leaf, &proof, &root), Ok(()));
            let proof = build_consistency(&nodes, index + 1, size).expect("a proof");
            assert_eq!(
                Ok(&proof),
                build_consistency(&*leaves, index + 1, size).as_ref()
            );
            let bundle = Subtree {
                start: index - index % 256,
                end: index + 1,
            };
            assert_eq!(
                build_subtree_consistency(&nodes, bundle, size).ok(),
                build_subtree_consistency(&*leaves, bundle, size).ok(),
            );
            let bundle = nodes.bundle(index / 256).expect("a bundle");
            let at = usize::try_from(index % 256).expect("small");
            let entry = bundle.iter().nth(at).map(<[u8]>::to_vec);
            assert_eq!(
                entry.as_ref(),
                lines.get(usize::try_from(index).expect("small"))
            );
        }
        assert_eq!(nodes.node(0, size), Err(TileError::Range));
        assert_eq!(nodes.node(63, 1), Err(TileError::Range));
        assert_eq!(nodes.node(600, 0), Err(TileError::Range));
        assert_eq!(nodes.node(7, u64::MAX), Err(TileError::Range));
        assert_eq!(nodes.bundle(size.div_ceil(256)), Err(TileError::Range));
        assert_eq!(nodes.bundle(u64::MAX), Err(TileError::Range));
    }
}

#[test]
fn few_tiles_are_read_for_a_proof() {
    let lines = lines(65_537);
    let tiles = Tiles::of(&lines);
    let root = root_of(&leaves(&lines));
    let nodes = TileNodes::open(&tiles, 65_537, root).expect("the tiles fit the root");
    assert_eq!(tiles.asked.borrow().len(), 2, "the right edge");
    build_inclusion(&nodes, 40_000, 65_537).expect("a proof");
    assert_eq!(tiles.asked.borrow().len(), 4, "one tile a level");
    build_inclusion(&nodes, 40_001, 65_537).expect("a proof");
    assert_eq!(tiles.asked.borrow().len(), 4, "they are kept");
}

#[test]
fn a_full_file_stands_in_for_a_partial_one() {
    let lines = lines(512);
    let mut tiles = Tiles::of(&lines);
    let leaves = leaves(&lines[..300]);
    // At 300 the log had these two partial tiles; only the one that is not full yet must be kept.
    let path = TilePath::new(TileKind::Hashes(1), 0, 1).expect("a path");
    let hashes = root_of(&leaves[..256]).as_bytes().to_vec();
    tiles.files.insert(path, hashes);
    let nodes = TileNodes::open(&tiles, 300, root_of(&leaves)).expect("the tiles fit the root");
    assert_eq!(nodes.node(0, 299), Ok(leaves[299]));
    assert_eq!(nodes.node(0, 300), Err(TileError::Range));
    let bundle = nodes.bundle(1).expect("a bundle");
    assert!(bundle.iter().eq(lines[256..300].iter()));
    let bundles = nodes.bundles(0..2).expect("two bundles");
    assert_eq!(bundles[1], bundle);

    tiles
        .files
        .retain(|path, _| path.kind() != TileKind::Hashes(0));
    let missing = TilePath::at(TileKind::Hashes(0), 1, 300).expect("a path");
    let opened = TileNodes::open(&tiles, 300, root_of(&leaves));
    assert_eq!(opened.err(), Some(TileError::Missing(missing)));
}

#[test]
fn what_cannot_be_read_is_not_what_is_missing() {
    let lines = lines(300);
    let root = root_of(&leaves(&lines));
    let mut tiles = Tiles::of(&lines);
    tiles.unreadable = true;
    assert!(matches!(
        TileNodes::open(&tiles, 300, root).err(),
        Some(TileError::Source {
            source: OutOfReach,
            ..
        })
    ));
    tiles.unreadable = false;
    let other = Hash::from_bytes([7; 32]);
    assert_eq!(
        TileNodes::open(&tiles, 300, other).err(),
        Some(TileError::Root)
    );
    let malformed = TilePath::at(TileKind::Hashes(0), 1, 300).expect("a path");
    tiles.files.insert(malformed, vec![0; 33]);
    assert_eq!(
        TileNodes::open(&tiles, 300, root).err(),
        Some(TileError::Malformed(malformed))
    );
}

/// RFC 6962 by `ct-merkle`.
#[test]
fn another_implementation_finds_the_same_roots_and_proofs() {
    let lines = lines(600);
    let ours = leaves(&lines);
    let join = |proof: Vec<Hash>| -> Vec<u8> {
        let hashes = proof.iter().flat_map(|hash| *hash.as_bytes());
        hashes.collect()
    };
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    for (size, line) in (1..).zip(&lines) {
        theirs.push(line.clone());
        let leaves = &ours[..size];
        let root = theirs.root();
        assert_eq!(root.as_bytes().as_slice(), root_of(leaves).as_bytes());
        let (step, size) = (if size < 70 { 1 } else { 37 }, size as u64);
        for index in (0..size).step_by(step) {
            let at = usize::try_from(index).expect("small");
            let proof = build_inclusion(leaves, index, size).expect("a proof");
            assert_eq!(theirs.prove_inclusion(at).as_bytes(), join(proof));
            if index > 0 {
                let proof = build_consistency(leaves, index, size).expect("a proof");
                let added = usize::try_from(size - index).expect("small");
                assert_eq!(
                    theirs.prove_consistency(added).as_bytes(),
                    join(proof.clone())
                );
                let root = Hash::from_bytes((*root.as_bytes()).into());
                let old = root_of(&leaves[..at]);
                assert_eq!(verify_consistency(index, &old, size, &root, &proof), Ok(()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is done to a file: what is read is right, or it is refused.
    #[test]
    fn no_changed_file_is_believed(
        size in prop_oneof![1_u64..1100, Just(65_537_u64 - 300)],
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        change in 0..5,
        asked in any::<prop::sample::Index>(),
    ) {
        // The larger size only once in a while: it takes long to build.
        let size = size.min(3000);
        let lines = lines(size);
        let truth = leaves(&lines);
        let root = root_of(&truth);
        let mut tiles = Tiles::of(&lines);
        let path = *file.get(&tiles.files.keys().copied().collect::<Vec<_>>());
        let bytes = tiles.files.get_mut(&path).expect("it is there");
        let byte = at.index(bytes.len());
        match change {
            0 => bytes[byte] ^= 1,
            1 => bytes.truncate(byte),
            2 => bytes.push(0),
            3 => drop(bytes.remove(byte)),
            _ => bytes.clear(),
        }
        let index = asked.index(truth.len()) as u64;
        if let Ok(nodes) = TileNodes::open(&tiles, size, root) {
            for level in 0..9 {
                let from = index >> level << level;
                let to = from + (1 << level);
                if to > size {
                    break;
                }
                if let Ok(found) = nodes.node(level, index >> level) {
                    let range = usize::try_from(from).expect("small")..usize::try_from(to).expect("small");
                    prop_assert_eq!(found, root_of(&truth[range]));
                }
            }
            let width = u64::from(TILE_WIDTH);
            if let Ok(bundle) = nodes.bundle(index / width) {
                let first = usize::try_from(index / width * width).expect("small");
                let end = lines.len().min(first + usize::from(TILE_WIDTH));
                prop_assert!(bundle.iter().eq(lines[first..end].iter()));
                let changed = TilePath::at(TileKind::Entries, index / width, size);
                prop_assert_ne!(changed, Some(path));
            }
        }
    }
}
