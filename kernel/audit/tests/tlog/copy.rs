//! A log that is copied, and its copy.

use openfang_audit::Hash;
use openfang_audit::mirror::{
    Committed, MemoryMirrorStore, Mirror, MirrorHead, MirrorStore, Package, UploadHeader,
    build_package, package_ranges,
};
use openfang_audit::tile::{Bundle, TileNodes};
use openfang_audit::tree::root_of;

use super::{Tiles, leaves, lines};

pub const QUOTA: u64 = 1 << 30;
pub const ORIGIN: &str = "log.example/1";

/// What the log has: the truth.
pub struct Log {
    pub lines: Vec<Vec<u8>>,
    pub leaves: Vec<Hash>,
}

impl Log {
    pub fn new(size: u64) -> Self {
        let lines = lines(size);
        let leaves = leaves(&lines);
        Self { lines, leaves }
    }

    pub fn head(&self, size: u64) -> MirrorHead {
        let root = root_of(&self.leaves[..usize::try_from(size).expect("small")]);
        let note = format!("head {size}");
        MirrorHead { size, root, note }
    }

    pub fn bundle(&self, start: u64, end: u64) -> Bundle {
        let range = usize::try_from(start).expect("small")..usize::try_from(end).expect("small");
        let mut bundle = Bundle::default();
        for line in &self.lines[range] {
            bundle.push(line).expect("it fits");
        }
        bundle
    }

    pub fn package(&self, start: u64, end: u64, size: u64) -> Package {
        build_package(&*self.leaves, start, self.bundle(start, end), size).expect("a package")
    }

    pub fn packages(&self, start: u64, size: u64) -> Vec<Package> {
        let lines = &self.lines[..usize::try_from(size).expect("small")];
        let nodes = TileNodes::open(Tiles::of(lines), size, self.head(size).root);
        let nodes = nodes.expect("the tiles fit");
        package_ranges(start, size)
            .map(|(from, to)| {
                let bundle = self.bundle(from, to);
                build_package(&nodes, from, bundle, size).expect("a package")
            })
            .collect()
    }
}

pub fn header(start: u64, end: u64) -> UploadHeader {
    UploadHeader {
        origin: ORIGIN.to_owned(),
        start,
        end,
        ticket: Vec::new(),
    }
}

pub fn new_mirror() -> Mirror<MemoryMirrorStore> {
    let (mirror, opened) = Mirror::open(MemoryMirrorStore::default(), ORIGIN, QUOTA).expect("new");
    assert_eq!((opened.next_entry, opened.damaged), (0, false));
    mirror
}

/// Uploads everything that is missing up to a head, as the log would.
pub fn upload<S: MirrorStore>(mirror: &mut Mirror<S>, log: &Log, size: u64) -> Committed {
    let start = mirror.next_entry().min(size);
    let upload = mirror.begin(&header(start, size)).expect("it may begin");
    for package in log.packages(start, size) {
        mirror.stage(&upload, &package).expect("staged");
    }
    mirror.commit(&upload).expect("durable")
}

/// Everything that the copy gives out is what the log has.
pub fn assert_right<S: MirrorStore>(mirror: &Mirror<S>, log: &Log) {
    let size = mirror.next_entry();
    for index in 0..size.div_ceil(256) {
        let end = size.min(index * 256 + 256);
        let found = mirror
            .bundle(index)
            .expect("readable")
            .expect("it is there");
        assert!(found == log.bundle(index * 256, end), "bundle {index}");
    }
    if let Some(head) = mirror.complete() {
        assert_eq!(head.root, log.head(head.size).root);
    }
}
