//! An open log serves its own tiles, and a mirror is filled from them.

mod common;

use common::{Memory, TestClock, append_all, origin};
use openfang_audit::challenge;
use openfang_audit::mirror::{
    Committed, MemoryMirrorStore, Mirror, MirrorHead, UploadHeader, build_package, package_ranges,
};
use openfang_audit::proof::{Nodes as _, build_inclusion, verify_inclusion};
use openfang_audit::tile::{TileNodes, TilePath, TileSource as _, tile_paths};
use openfang_audit::tree::{leaf_hash, root_of};
use openfang_audit::{Hash, Log, ServeError};

fn leaves(memory: &Memory) -> Vec<Hash> {
    let text = memory.disk().log.clone();
    let lines = text.strip_suffix(b"\n").expect("whole lines");
    lines.split(|byte| *byte == b'\n').map(leaf_hash).collect()
}

fn open() -> (Memory, Log) {
    let memory = Memory::default();
    let (log, _) = memory.open(TestClock::fast()).expect("a log");
    (memory, log)
}

#[test]
fn an_open_log_serves_the_tiles_of_what_is_durable() {
    let (memory, log) = open();
    let mut from = 0;
    for size in [1_u64, 255, 256, 257, 700, 1_000] {
        append_all(&log, from..size);
        from = size;
        let leaves = leaves(&memory);
        let view = log.tiles();
        assert_eq!(view.size(), size);
        let nodes = TileNodes::open(&view, size, root_of(&leaves)).expect("its tiles fit");
        for index in (0..size).step_by(97).chain([size - 1]) {
            let leaf = leaves[usize::try_from(index).expect("small")];
            let proof = build_inclusion(&view, index, size).expect("a proof");
            let other = build_inclusion(&nodes, index, size).expect("a proof");
            assert_eq!(other, proof);
            let root = root_of(&leaves);
            assert_eq!(verify_inclusion(index, size, &leaf, &proof, &root), Ok(()));
            nodes.bundle(index / 256).expect("a bundle that fits");
            let answer = challenge::answer(&view, index, size).expect("an entry");
            assert_eq!(answer.check(index, size, &root), Ok(()));
        }
        let files =
            tile_paths(size).filter(|path| view.tile(path).is_ok_and(|tile| tile.is_some()));
        assert_eq!(files.count(), tile_paths(size).count());
        let beyond: TilePath = "tile/entries/005".parse().expect("a path");
        assert!(view.tile(&beyond).expect("readable").is_none());
        assert!(matches!(view.node(0, size), Err(ServeError::Range)));
        assert!(matches!(view.node(64, 0), Err(ServeError::Range)));
        assert!(matches!(view.node(1, u64::MAX), Err(ServeError::Range)));
        assert!(matches!(view.entries(0, size + 1), Err(ServeError::Range)));
        assert!(matches!(view.entries(1, 1), Err(ServeError::Range)));
    }
    log.close().expect("closed");
}

#[test]
fn a_mirror_is_filled_from_an_open_log() {
    let (memory, log) = open();
    let name = origin();
    let store = MemoryMirrorStore::default();
    let (mut mirror, _) = Mirror::open(store, name.as_str(), 1 << 30).expect("new");
    let mut from = 0;
    for size in [3_u64, 300, 1_000] {
        append_all(&log, from..size);
        from = size;
        let (view, root) = (log.tiles(), root_of(&leaves(&memory)));
        let note = String::new();
        let head = MirrorHead { size, root, note };
        mirror.offer(head.clone()).expect("a larger head");
        let header = UploadHeader {
            origin: name.to_string(),
            start: mirror.next_entry(),
            end: size,
            ticket: Vec::new(),
        };
        let upload = mirror.begin(&header).expect("it may begin");
        for (start, end) in package_ranges(header.start, size) {
            let entries = view.entries(start, end).expect("entries");
            let package = build_package(&view, start, entries, size).expect("a package");
            mirror.stage(&upload, &package).expect("staged");
        }
        assert_eq!(
            mirror.commit(&upload).expect("durable"),
            Committed::Complete(head)
        );
    }
    log.close().expect("closed");
}

#[test]
fn lines_that_were_changed_are_not_served() {
    let (memory, log) = open();
    append_all(&log, 0..700);
    let view = log.tiles();
    view.entries(256, 512).expect("good lines");
    let good = memory.disk().log.clone();
    let at = good.len() / 2;
    memory.disk().log[at] ^= 1;
    assert!(matches!(
        view.entries(256, 512),
        Err(ServeError::Damaged { first_seq }) if (256..512).contains(&first_seq)
    ));
    view.entries(0, 256).expect("good lines");
    view.entries(600, 700).expect("good lines");
    memory.disk().log[at] ^= 1;
    view.entries(256, 512).expect("good lines again");
    let hashes = memory.disk().hashes.clone();
    memory.disk().hashes[40] ^= 1;
    let first: TilePath = "tile/0/000".parse().expect("a path");
    let tile = view
        .tile(&first)
        .expect("computed again")
        .expect("it is there");
    assert_eq!(tile, hashes[..8192]);
    // A line feed more in front of it moves every line: the log as a whole is not what was written.
    memory.disk().log.insert(7, b'\n');
    for start in [0, 256] {
        let moved = view.entries(start, start + 256);
        assert!(matches!(moved, Err(ServeError::Damaged { .. })), "{start}");
    }
    drop(log);
}
