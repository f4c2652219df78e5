//! However the files of a mirror are changed: opening, reading and scrubbing never panic, and what is not found
//! to be bad is what was stored.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use openfang_audit::mirror::{
    MemoryMirrorStore, Mirror, MirrorHead, MirrorPart, MirrorStore as _, UploadHeader,
    build_package, package_ranges, parse_complete,
};
use openfang_audit::tile::Bundle;
use openfang_audit::tree::{leaf_hash, root_of};

const PARTS: [MirrorPart; 3] = [MirrorPart::Entries, MirrorPart::Hashes, MirrorPart::Blocks];
const COMPLETE: u64 = 300;
const SIZE: u64 = 560;

struct Good {
    parts: Vec<Vec<u8>>,
    head: Vec<u8>,
    bundles: Vec<Bundle>,
}

fn bundle(from: u64, to: u64) -> Bundle {
    let mut bundle = Bundle::default();
    for index in from..to {
        let entry = &index.to_be_bytes()[(index % 7) as usize..];
        bundle.push(entry).expect("short");
    }
    bundle
}

/// A copy of 560 entries, complete up to 300, and what its files hold.
fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let leaves: Vec<_> = package_ranges(0, SIZE)
            .flat_map(|(from, to)| bundle(from, to).leaves())
            .collect();
        assert_eq!(leaves[0], leaf_hash(&[0; 8]));
        let store = MemoryMirrorStore::default();
        let (mut mirror, _) = Mirror::open(&store, "o", 1 << 20).expect("new");
        for size in [COMPLETE, SIZE] {
            let root = root_of(&leaves[..size as usize]);
            let note = "note\n".to_owned();
            mirror
                .offer(MirrorHead { size, root, note })
                .expect("larger");
            let start = mirror.next_entry();
            let header = UploadHeader {
                origin: "o".to_owned(),
                start,
                end: size,
                ticket: vec![],
            };
            let upload = mirror.begin(&header).expect("begun");
            for (from, to) in package_ranges(start, size.min(SIZE - 1)) {
                let package = build_package(&*leaves, from, bundle(from, to), size);
                mirror
                    .stage(&upload, &package.expect("a package"))
                    .expect("staged");
            }
            mirror.commit(&upload).expect("durable");
        }
        let parts = PARTS.map(|part| {
            let mut bytes = vec![0; store.len(part).expect("in memory") as usize];
            store.read_at(part, 0, &mut bytes).expect("in memory");
            bytes
        });
        Good {
            parts: parts.to_vec(),
            head: store.load_head().expect("in memory").expect("complete"),
            bundles: (0..3)
                .map(|at| bundle(at * 256, (at * 256 + 256).min(SIZE - 1)))
                .collect(),
        }
    })
}

fuzz_target!(|changes: (
    Vec<(u8, u16, u8)>,
    [Option<u16>; 3],
    Option<Vec<u8>>,
    Vec<(u64, Vec<u8>)>
)| {
    let good = good();
    let (flips, cuts, head, ahead) = changes;
    let mut parts = good.parts.clone();
    for (part, at, bits) in flips {
        let part = &mut parts[usize::from(part) % 3];
        let at = usize::from(at) % part.len();
        part[at] ^= bits;
    }
    let store = MemoryMirrorStore::default();
    for ((part, mut bytes), cut) in PARTS.into_iter().zip(parts).zip(cuts) {
        bytes.truncate(cut.map_or(bytes.len(), usize::from));
        store.write_at(part, 0, &bytes).expect("in memory");
    }
    let head = head.unwrap_or_else(|| good.head.clone());
    store.replace_head(&head).expect("in memory");
    for (bundle, bytes) in &ahead {
        store.put_ahead(*bundle, bytes).expect("in memory");
    }
    let opened = Mirror::open(&store, "o", 1 << 20);
    assert_eq!(parse_complete(&head).is_ok(), opened.is_ok());
    let Ok((mirror, _)) = opened else { return };
    let bad = mirror.scrub(&mut |_| ()).expect("in memory");
    for (index, stored) in (0..).zip(&good.bundles) {
        if let Ok(Some(found)) = mirror.bundle(index)
            && !bad.contains(&index)
        {
            assert!(stored.as_bytes().starts_with(found.as_bytes()));
        }
    }
});
