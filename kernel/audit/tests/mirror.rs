//! A copy of a log under everything that can go wrong: order, loss, lies, a failing disk and power cuts.

mod tlog;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openfang_audit::Hash;
use openfang_audit::challenge::{self, ChallengeError};
use openfang_audit::mirror::{
    AHEAD_BUNDLES_MAX, BeginError, CommitError, Committed, Ended, FsMirrorStore, LineIndex,
    LinesError, MemoryMirrorStore, Mirror, MirrorHead, MirrorInfo, MirrorOpenError, MirrorPart,
    MirrorStore, OfferError, PENDING_HEADS_KEPT, Package, Piece, StageError, UploadDecoder,
    UploadHeader, build_package, origin_dir, package_ranges,
};
use openfang_audit::proof::ProofError;
use openfang_audit::storage::FsReader;
use openfang_audit::tile::{Bundle, TileKind, TileNodes, TilePath, TileSource as _, tile_paths};
use openfang_audit::tree::{EMPTY_ROOT, root_of};
use proptest::prelude::*;
use tempfile::TempDir;
use tlog::{Files, Tiles, leaves, lines};

const QUOTA: u64 = 1 << 30;
const ORIGIN: &str = "log.example/1";

/// What the log has: the truth.
struct Log {
    lines: Vec<Vec<u8>>,
    leaves: Vec<Hash>,
}

impl Log {
    fn new(size: u64) -> Self {
        let lines = lines(size);
        let leaves = leaves(&lines);
        Self { lines, leaves }
    }

    fn head(&self, size: u64) -> MirrorHead {
        let root = root_of(&self.leaves[..usize::try_from(size).expect("small")]);
        let note = format!("head {size}");
        MirrorHead { size, root, note }
    }

    fn bundle(&self, start: u64, end: u64) -> Bundle {
        let range = usize::try_from(start).expect("small")..usize::try_from(end).expect("small");
        let mut bundle = Bundle::default();
        for line in &self.lines[range] {
            bundle.push(line).expect("it fits");
        }
        bundle
    }

    fn package(&self, start: u64, end: u64, size: u64) -> Package {
        build_package(&*self.leaves, start, self.bundle(start, end), size).expect("a package")
    }

    fn packages(&self, start: u64, size: u64) -> Vec<Package> {
        package_ranges(start, size)
            .map(|(from, to)| self.package(from, to, size))
            .collect()
    }
}

fn header(start: u64, end: u64) -> UploadHeader {
    UploadHeader {
        origin: ORIGIN.to_owned(),
        start,
        end,
        ticket: Vec::new(),
    }
}

fn new_mirror() -> Mirror<MemoryMirrorStore> {
    let (mirror, opened) = Mirror::open(MemoryMirrorStore::default(), ORIGIN, QUOTA).expect("new");
    assert_eq!((opened.next_entry, opened.damaged), (0, false));
    mirror
}

/// Uploads everything that is missing up to a head, as the log would.
fn upload<S: MirrorStore>(mirror: &mut Mirror<S>, log: &Log, size: u64) -> Committed {
    let start = mirror.next_entry().min(size);
    let upload = mirror.begin(&header(start, size)).expect("it may begin");
    for package in log.packages(start, size) {
        mirror.stage(&upload, &package).expect("staged");
    }
    mirror.commit(&upload).expect("durable")
}

/// Everything that the copy gives out is what the log has.
fn assert_right<S: MirrorStore>(mirror: &Mirror<S>, log: &Log) {
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

#[test]
fn a_log_is_copied_grows_and_is_served_as_tiles() {
    let log = Log::new(1000);
    let mut mirror = new_mirror();
    for size in [0, 1, 2, 255, 256, 257, 300, 511, 512, 513, 1000] {
        mirror.offer(log.head(size)).expect("a larger head");
        let head = log.head(size);
        assert_eq!(
            upload(&mut mirror, &log, size),
            Committed::Complete(head.clone())
        );
        assert_eq!(mirror.complete(), Some(&head));
        assert_eq!(mirror.next_entry(), size);
        let lines = &log.lines[..usize::try_from(size).expect("small")];
        let expected = Tiles::of(lines);
        for path in tile_paths(size) {
            let found = mirror.tile(&path).expect("readable");
            assert_eq!(found.as_ref(), expected.files.get(&path), "{path}");
        }
        for (kind, index) in [(TileKind::Entries, size / 256), (TileKind::Hashes(0), 4)] {
            let beyond = TilePath::new(kind, index, 256).expect("a path");
            assert_eq!(mirror.tile(&beyond).expect("readable"), None);
        }
    }
    // What was served under an older head is still there.
    for path in tile_paths(300) {
        let expected = Tiles::of(&log.lines[..300]);
        let found = mirror.tile(&path).expect("readable");
        assert_eq!(found.as_ref(), expected.files.get(&path), "{path}");
    }
    assert_eq!(mirror.scrub(&mut |_| ()).expect("readable"), []);
}

#[test]
fn a_request_goes_through_as_bytes_and_a_prefix_is_continued() {
    let log = Log::new(9_000);
    let mut mirror = new_mirror();
    mirror.offer(log.head(9_000)).expect("a head");
    let mut requests = 0;
    loop {
        let start = mirror.next_entry();
        let mut body = Vec::new();
        header(start, 9_000).encode(&mut body).expect("a header");
        for package in log.packages(start, 9_000).iter().take(32) {
            package.encode(&mut body).expect("a package");
        }
        requests += 1;
        let mut decoder = UploadDecoder::default();
        let mut upload = None;
        for mut chunk in body.chunks(1000) {
            while let Some(piece) = decoder.feed(&mut chunk).expect("a request") {
                match piece {
                    Piece::Header(header) => upload = mirror.begin(&header).ok(),
                    Piece::Package(package) => {
                        let upload = upload.as_ref().expect("begun");
                        mirror.stage(upload, &package).expect("staged");
                    }
                }
            }
        }
        let upload = upload.expect("begun");
        match (decoder.finish(), mirror.commit(&upload).expect("durable")) {
            (Ended::Complete, Committed::Complete(head)) => {
                assert_eq!(head, log.head(9_000));
                break;
            }
            (Ended::Prefix, Committed::Partial(info)) => {
                let next_entry = 8_192;
                let expected = MirrorInfo {
                    size: 9_000,
                    next_entry,
                    ticket: Vec::new(),
                };
                assert_eq!(info, expected);
                assert_eq!(mirror.complete(), None);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(requests, 2);
    assert_right(&mirror, &log);
}

#[test]
fn an_upload_begins_only_where_one_can() {
    let log = Log::new(20_000);
    let mut mirror = new_mirror();
    let nowhere = mirror.begin(&header(0, 0));
    assert_eq!(nowhere, Err(BeginError::NothingPending));
    mirror.offer(log.head(300)).expect("a head");
    mirror.offer(log.head(20_000)).expect("a head");
    let other = UploadHeader {
        origin: "other.example/1".to_owned(),
        ..header(0, 300)
    };
    assert_eq!(mirror.begin(&other), Err(BeginError::OtherOrigin));
    let conflict = |size, next_entry| {
        let ticket = Vec::new();
        Err(BeginError::Conflict(MirrorInfo {
            size,
            next_entry,
            ticket,
        }))
    };
    assert_eq!(mirror.begin(&header(0, 301)), conflict(20_000, 0));
    assert_eq!(mirror.begin(&header(1, 300)), conflict(300, 0));
    assert_eq!(mirror.begin(&header(0, 0)), conflict(20_000, 0));
    let old = mirror
        .begin(&header(0, 300))
        .expect("a head that is not the last");
    upload(&mut mirror, &log, 20_000);
    assert_eq!(mirror.begin(&header(0, 300)), conflict(20_000, 20_000));
    assert_eq!(mirror.begin(&header(0, 20_000)), conflict(20_000, 20_000));
    mirror.begin(&header(19_000, 20_000)).expect("a repetition");
    // The earlier upload goes on, and changes nothing.
    for package in log.packages(0, 300) {
        mirror.stage(&old, &package).expect("known entries");
    }
    let overtaken = mirror.commit(&old).expect("nothing to do");
    assert!(matches!(overtaken, Committed::Overtaken(info) if info.size == 20_000));
    assert_eq!(mirror.complete(), Some(&log.head(20_000)));
    assert_eq!(
        upload(&mut mirror, &log, 20_000),
        Committed::Complete(log.head(20_000))
    );
}

#[test]
fn heads_only_grow_and_never_contradict() {
    let log = Log::new(300);
    let mut mirror = new_mirror();
    mirror.offer(log.head(200)).expect("a head");
    mirror.offer(log.head(200)).expect("the same head");
    assert_eq!(
        mirror.offer(log.head(199)),
        Err(OfferError::Behind { size: 200 })
    );
    let other = MirrorHead {
        root: EMPTY_ROOT,
        ..log.head(200)
    };
    assert_eq!(mirror.offer(other), Err(OfferError::Conflict));
    let form = [
        MirrorHead {
            size: 1 << 63,
            ..log.head(300)
        },
        MirrorHead {
            size: 0,
            ..log.head(300)
        },
        MirrorHead {
            note: "x".repeat(1 << 17),
            ..log.head(300)
        },
    ];
    for head in form {
        assert_eq!(mirror.offer(head), Err(OfferError::Form));
    }
    let last = 200 + PENDING_HEADS_KEPT as u64;
    for size in 201..=last {
        mirror.offer(log.head(size)).expect("a larger head");
    }
    assert!(
        matches!(mirror.begin(&header(0, 200)), Err(BeginError::Conflict(info)) if info.size == last)
    );
    mirror
        .begin(&header(0, 201))
        .expect("one of the last heads");
    assert_eq!(mirror.pending(), Some(&log.head(last)));
}

#[test]
fn nothing_is_stored_that_was_not_proved() {
    let log = Log::new(700);
    let other = {
        let mut lines = lines(700);
        lines[300][9] ^= 1;
        Log {
            leaves: leaves(&lines),
            lines,
        }
    };
    let mut mirror = new_mirror();
    mirror.offer(log.head(600)).expect("a head");
    let upload = mirror.begin(&header(0, 600)).expect("it may begin");
    let good = log.packages(0, 600);
    let mut refused = other.packages(0, 600);
    refused.remove(0);
    refused.remove(1);
    // The right entries with the wrong proof, and the other way round.
    refused.push(Package {
        proof: other.packages(0, 600)[1].proof.clone(),
        ..good[0].clone()
    });
    refused.push(Package {
        proof: good[1].proof.clone(),
        ..refused[0].clone()
    });
    refused.push(Package {
        proof: Vec::new(),
        ..good[0].clone()
    });
    refused.push(Package {
        start: 256,
        ..good[0].clone()
    });
    refused.push(log.package(0, 256, 700));
    for package in refused {
        let found = mirror.stage(&upload, &package);
        assert!(matches!(found, Err(StageError::Proof(_))), "{found:?}");
    }
    let beyond = [
        Package {
            entries: Bundle::default(),
            ..good[0].clone()
        },
        Package {
            start: 1,
            ..good[0].clone()
        },
        Package {
            start: u64::MAX,
            ..good[0].clone()
        },
        log.package(512, 700, 700),
    ];
    for package in beyond {
        let found = mirror.stage(&upload, &package);
        assert!(matches!(found, Err(StageError::Range)), "{found:?}");
    }
    let inside = mirror.stage(&upload, &log.package(300, 512, 600));
    assert!(matches!(inside, Err(StageError::Gap)));
    assert_eq!(mirror.bytes(), 0);
    assert!(matches!(mirror.commit(&upload), Ok(Committed::Partial(info)) if info.next_entry == 0));
    assert_eq!(
        mirror.store().len(MirrorPart::Entries).expect("readable"),
        0
    );
    let wrong_length = Package {
        proof: vec![EMPTY_ROOT; 9],
        ..good[0].clone()
    };
    assert!(matches!(
        mirror.stage(&upload, &wrong_length),
        Err(StageError::Proof(ProofError::Length { found: 9, .. }))
    ));
}

#[test]
fn packages_come_in_any_order() {
    let log = Log::new(1_300);
    let mut mirror = new_mirror();
    mirror.offer(log.head(1_300)).expect("a head");
    let upload = mirror.begin(&header(0, 1_300)).expect("it may begin");
    let packages = log.packages(0, 1_300);
    for package in packages.iter().rev().chain(packages.iter().skip(2)) {
        assert_eq!(mirror.next_entry(), 0);
        mirror.stage(&upload, package).expect("staged");
    }
    // A part of a bundle that came early counts as what is in front of the rest.
    assert_eq!(
        mirror.commit(&upload).expect("durable"),
        Committed::Complete(log.head(1_300))
    );
    assert_right(&mirror, &log);
    assert!(mirror.store().list_ahead().expect("readable").is_empty());

    let mut mirror = new_mirror();
    mirror.offer(log.head(1_300)).expect("a head");
    let upload = mirror.begin(&header(0, 1_300)).expect("it may begin");
    for (from, to) in [(256, 300), (300, 400), (350, 512), (512, 513)] {
        let package = log.package(from, to, 1_300);
        mirror.stage(&upload, &package).expect("kept for later");
    }
    let gap = mirror.stage(&upload, &log.package(600, 700, 1_300));
    assert!(matches!(gap, Err(StageError::Gap)));
    assert!(matches!(mirror.commit(&upload), Ok(Committed::Partial(info)) if info.next_entry == 0));
    assert!(mirror.bytes() > 0);
    mirror.stage(&upload, &packages[0]).expect("staged");
    assert!(
        matches!(mirror.commit(&upload), Ok(Committed::Partial(info)) if info.next_entry == 513)
    );
    assert_right(&mirror, &log);
}

#[test]
fn a_copy_takes_no_more_than_its_quota() {
    let log = Log::new(2_000);
    let whole = {
        let mut mirror = new_mirror();
        mirror.offer(log.head(2_000)).expect("a head");
        upload(&mut mirror, &log, 2_000);
        mirror.bytes()
    };
    for quota in [0, 100, whole / 3, whole - 1, whole, whole + 40] {
        let store = MemoryMirrorStore::default();
        let (mut mirror, _) = Mirror::open(store, ORIGIN, quota).expect("new");
        mirror.offer(log.head(2_000)).expect("a head");
        let upload = mirror.begin(&header(0, 2_000)).expect("it may begin");
        let mut refused = 0;
        for package in log.packages(0, 2_000) {
            match mirror.stage(&upload, &package) {
                Ok(()) => {}
                Err(StageError::Quota { quota_bytes }) => {
                    assert_eq!(quota_bytes, quota);
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
            assert!(mirror.bytes() <= quota);
        }
        let done = mirror.commit(&upload).expect("durable");
        assert!(mirror.bytes() <= quota);
        assert_eq!(matches!(done, Committed::Complete(_)), refused == 0);
        assert_eq!(refused > 0, quota < whole, "{quota} of {whole}");
        assert_right(&mirror, &log);
    }
}

#[test]
fn only_so_many_bundles_come_early() {
    let size = (AHEAD_BUNDLES_MAX as u64 + 3) * 256;
    let log = Log::new(size);
    let mut mirror = new_mirror();
    mirror.offer(log.head(size)).expect("a head");
    let upload = mirror.begin(&header(0, size)).expect("it may begin");
    let mut packages = log.packages(0, size);
    let first = packages.remove(0);
    let last = packages.pop().expect("a package");
    let late = packages.pop().expect("a package");
    for package in packages.iter().chain([&late]) {
        let fits = mirror.stage(&upload, package);
        assert_eq!(
            fits.is_ok(),
            package.start <= AHEAD_BUNDLES_MAX as u64 * 256
        );
    }
    assert!(matches!(
        mirror.stage(&upload, &last),
        Err(StageError::TooFar)
    ));
    mirror.stage(&upload, &first).expect("staged");
    let done = mirror.commit(&upload).expect("durable");
    let next_entry = AHEAD_BUNDLES_MAX as u64 * 256 + 256;
    assert!(matches!(done, Committed::Partial(info) if info.next_entry == next_entry));
}

#[test]
fn the_log_makes_packages_from_its_own_file() {
    let files = Files::new(700);
    let reader = FsReader::open(&files.log_path, &files.dir).expect("readable");
    let mut index = LineIndex::default();
    index.extend(&reader, 300).expect("readable");
    assert_eq!(index.size(), 300);
    assert!(matches!(
        index.bundle(&reader, 256, 301),
        Err(LinesError::Range)
    ));
    index.extend(&reader, 650).expect("readable");
    index.extend(&reader, 200).expect("nothing to do");
    assert_eq!(index.size(), 650);
    let log = Log {
        lines: files.lines.clone(),
        leaves: files.leaves.clone(),
    };
    let mut mirror = new_mirror();
    mirror.offer(log.head(650)).expect("a head");
    let upload = mirror.begin(&header(0, 650)).expect("it may begin");
    for (from, to) in package_ranges(0, 650) {
        let entries = index.bundle(&reader, from, to).expect("lines");
        let package = build_package(&*log.leaves, from, entries, 650).expect("a package");
        mirror.stage(&upload, &package).expect("staged");
    }
    assert_eq!(
        mirror.commit(&upload).expect("durable"),
        Committed::Complete(log.head(650))
    );
    for (start, end) in [(0, 0), (5, 4), (255, 257), (600, 651), (0, u64::MAX)] {
        assert!(matches!(
            index.bundle(&reader, start, end),
            Err(LinesError::Range)
        ));
    }
    index.extend(&reader, u64::MAX).expect("readable");
    assert_eq!(index.size(), 700);
    std::fs::write(&files.log_path, "short\n").expect("written");
    let reader = FsReader::open(&files.log_path, &files.dir).expect("readable");
    assert!(matches!(
        index.bundle(&reader, 600, 700),
        Err(LinesError::Changed)
    ));
}

#[test]
fn a_challenge_is_met_only_with_the_entry() {
    let log = Log::new(1_000);
    let mut mirror = new_mirror();
    mirror.offer(log.head(1_000)).expect("a head");
    upload(&mut mirror, &log, 1_000);
    let head = log.head(1_000);
    let random: Vec<_> = (1..100_u64)
        .map(|seed| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect();
    let indexes = challenge::draw(&random, head.size);
    assert!(indexes.len() > 80 && indexes.iter().all(|index| *index < 1_000));
    for index in indexes {
        let answer = challenge::answer(&mirror, index, head.size).expect("an entry");
        assert_eq!(answer.check(index, head.size, &head.root), Ok(()));
        let other = (index + 1) % 1_000;
        assert_eq!(
            answer.check(other, head.size, &head.root),
            Err(ChallengeError::OtherEntry)
        );
        let mut wrong = answer.clone();
        wrong.entry.push(b' ');
        let refused = wrong.check(index, head.size, &head.root);
        assert_eq!(refused, Err(ChallengeError::Proof(ProofError::Root)));
    }
    assert_eq!(
        challenge::answer(&mirror, 1_000, 1_000)
            .err()
            .map(|why| why.to_string()),
        Some("the log has no such entry at this size".to_owned())
    );
    // The same from foreign tiles.
    let nodes = TileNodes::open(&mirror, head.size, head.root).expect("its tiles fit");
    assert!(nodes.bundle(3).expect("a bundle") == log.bundle(768, 1_000));
}

/// A disk that fails and loses power. What was not synced may be there in part, in any combination.
#[derive(Debug, Default)]
struct Disk {
    now: BTreeMap<MirrorPart, Vec<u8>>,
    durable: BTreeMap<MirrorPart, Vec<u8>>,
    /// Since the last sync.
    pending: BTreeMap<MirrorPart, Vec<Change>>,
    head: Option<Vec<u8>>,
    ahead: BTreeMap<u64, Vec<u8>>,
    removed: BTreeMap<u64, Vec<u8>>,
    ops: u64,
    at: Option<(u64, Fault)>,
    dead: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Fails,
    /// Half of it happens, and it fails.
    Half,
    PowerCut,
}

#[derive(Debug, Clone, Default)]
struct FaultStore(Arc<Mutex<Disk>>);

fn apply(file: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(start, bytes) => {
            if file.len() < start + bytes.len() {
                file.resize(start + bytes.len(), 0);
            }
            file[*start..start + bytes.len()].copy_from_slice(bytes);
        }
        Change::Cut(len) => file.resize(*len, 0),
    }
}

/// Good enough to choose what a power cut leaves.
fn next_random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

impl FaultStore {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail_in(&self, ops: u64, fault: Fault) {
        let mut disk = self.disk();
        disk.at = Some((disk.ops + ops, fault));
    }

    /// Counts an operation that changes something; tells whether it is done in full.
    fn begin(disk: &mut Disk) -> io::Result<bool> {
        let dead = || io::Error::from(io::ErrorKind::BrokenPipe);
        if disk.dead {
            return Err(dead());
        }
        let number = disk.ops;
        disk.ops += 1;
        match disk.at {
            Some((at, Fault::Fails)) if at == number => Err(io::ErrorKind::StorageFull.into()),
            Some((at, Fault::Half)) if at == number => Ok(false),
            Some((at, Fault::PowerCut)) if at == number => {
                disk.dead = true;
                Ok(false)
            }
            Some(_) | None => Ok(true),
        }
    }

    /// The disk after the power is back.
    fn after_power_cut(&self, seed: u64) -> Self {
        let disk = self.disk();
        let mut random = seed;
        let mut left = Disk {
            head: disk.head.clone(),
            ahead: disk.ahead.clone(),
            ..Disk::default()
        };
        for (bundle, bytes) in &disk.removed {
            if next_random(&mut random) % 2 == 0 {
                left.ahead.entry(*bundle).or_insert_with(|| bytes.clone());
            }
        }
        for part in [MirrorPart::Entries, MirrorPart::Hashes, MirrorPart::Blocks] {
            let mut file = disk.durable.get(&part).cloned().unwrap_or_default();
            for change in disk.pending.get(&part).into_iter().flatten() {
                match (change, next_random(&mut random) % 4) {
                    (_, 0) => {}
                    (Change::Write(start, bytes), 1) => {
                        let kept = usize::try_from(next_random(&mut random)).expect("31 bits");
                        let kept = bytes[..kept % (bytes.len() + 1)].to_vec();
                        apply(&mut file, &Change::Write(*start, kept));
                    }
                    // The length was written, and the bytes were not.
                    (Change::Write(start, bytes), 2) => {
                        let zeros = vec![0; bytes.len()];
                        apply(&mut file, &Change::Write(*start, zeros));
                    }
                    (change, _) => apply(&mut file, change),
                }
            }
            left.durable.insert(part, file.clone());
            left.now.insert(part, file);
        }
        Self(Arc::new(Mutex::new(left)))
    }

    fn change(&self, part: MirrorPart, change: Change) -> io::Result<()> {
        let mut disk = self.disk();
        let whole = Self::begin(&mut disk)?;
        let change = match change {
            Change::Write(start, bytes) if !whole => {
                Change::Write(start, bytes[..bytes.len() / 2].to_vec())
            }
            Change::Cut(_) if !whole => return Err(io::ErrorKind::Other.into()),
            change => change,
        };
        apply(disk.now.entry(part).or_default(), &change);
        disk.pending.entry(part).or_default().push(change);
        if whole {
            Ok(())
        } else {
            Err(io::ErrorKind::Other.into())
        }
    }
}

impl MirrorStore for FaultStore {
    fn read_at(&self, part: MirrorPart, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let disk = self.disk();
        let start = usize::try_from(offset).expect("small");
        let file = disk.now.get(&part).map_or(&[][..], Vec::as_slice);
        let rest = file.get(start..).unwrap_or_default();
        // Reads are short at times.
        let read = rest.len().min(buffer.len()).min(70_000);
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn len(&self, part: MirrorPart) -> io::Result<u64> {
        Ok(self.disk().now.get(&part).map_or(0, Vec::len) as u64)
    }

    fn write_at(&self, part: MirrorPart, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).expect("small");
        self.change(part, Change::Write(start, bytes.to_vec()))
    }

    fn sync(&self, part: MirrorPart) -> io::Result<()> {
        let mut disk = self.disk();
        if !Self::begin(&mut disk)? {
            return Err(io::ErrorKind::Other.into());
        }
        let now = disk.now.get(&part).cloned().unwrap_or_default();
        disk.durable.insert(part, now);
        disk.pending.remove(&part);
        Ok(())
    }

    fn cut(&self, part: MirrorPart, len: u64) -> io::Result<()> {
        self.change(part, Change::Cut(usize::try_from(len).expect("small")))
    }

    fn load_head(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.disk().head.clone())
    }

    fn replace_head(&self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let number = disk.ops;
        let whole = Self::begin(&mut disk)?;
        // A power cut in the middle leaves the old one or the new one.
        if whole || number.is_multiple_of(2) {
            disk.head = Some(bytes.to_vec());
        }
        if whole {
            Ok(())
        } else {
            Err(io::ErrorKind::Other.into())
        }
    }

    fn put_ahead(&self, bundle: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let number = disk.ops;
        let whole = Self::begin(&mut disk)?;
        if whole || number.is_multiple_of(2) {
            disk.ahead.insert(bundle, bytes.to_vec());
        }
        if whole {
            Ok(())
        } else {
            Err(io::ErrorKind::Other.into())
        }
    }

    fn load_ahead(&self, bundle: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(self.disk().ahead.get(&bundle).cloned())
    }

    fn drop_ahead(&self, bundle: u64) -> io::Result<()> {
        let mut disk = self.disk();
        if !Self::begin(&mut disk)? {
            return Err(io::ErrorKind::Other.into());
        }
        if let Some(bytes) = disk.ahead.remove(&bundle) {
            disk.removed.insert(bundle, bytes);
        }
        Ok(())
    }

    fn list_ahead(&self) -> io::Result<Vec<u64>> {
        Ok(self.disk().ahead.keys().copied().collect())
    }
}

/// What happens to a copy, one thing after the other.
#[derive(Debug, Clone)]
enum Step {
    Offer(u64),
    /// A package of an upload to one of the heads, perhaps spoilt.
    Package {
        head: usize,
        number: usize,
        from: u16,
        spoil: u8,
        at: u16,
    },
    Commit {
        head: usize,
    },
    Fail {
        ops: u64,
        fault: Fault,
    },
    PowerCut(u64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fault = prop_oneof![Just(Fault::Fails), Just(Fault::Half), Just(Fault::PowerCut)];
    let step = prop_oneof![
        3 => (1_u64..400).prop_map(Step::Offer),
        20 => (any::<usize>(), any::<usize>(), any::<u16>(), 0_u8..9, any::<u16>()).prop_map(
            |(head, number, from, spoil, at)| Step::Package { head, number, from, spoil, at }
        ),
        6 => any::<usize>().prop_map(|head| Step::Commit { head }),
        2 => (0_u64..8, fault).prop_map(|(ops, fault)| Step::Fail { ops, fault }),
        2 => any::<u64>().prop_map(Step::PowerCut),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

/// The log under test and the copy, with what the copy promised.
struct World {
    log: Log,
    store: FaultStore,
    mirror: Mirror<FaultStore>,
    heads: Vec<u64>,
    acknowledged: u64,
    complete: u64,
}

impl World {
    fn new(log: Log) -> Self {
        let store = FaultStore::default();
        let (mirror, _) = Mirror::open(store.clone(), ORIGIN, QUOTA).expect("new");
        Self {
            log,
            store,
            mirror,
            heads: Vec::new(),
            acknowledged: 0,
            complete: 0,
        }
    }

    fn offer(&mut self, more: u64) {
        let last = self.heads.last().copied().unwrap_or_default();
        let size = (last + more).min(self.log.leaves.len() as u64);
        if size > last {
            self.mirror
                .offer(self.log.head(size))
                .expect("a larger head");
            self.heads.push(size);
        }
    }

    /// One of the heads that an upload may end at.
    fn pick(&self, head: usize) -> Option<u64> {
        let kept = self.heads.len().min(PENDING_HEADS_KEPT);
        let recent = &self.heads[self.heads.len() - kept..];
        let complete = self.mirror.complete().map_or(0, |head| head.size);
        let size = *recent.get(head % kept.max(1))?;
        (size >= complete).then_some(size)
    }

    fn package(&mut self, size: u64, (number, from): (usize, u16), (spoil, at): (u8, u16)) {
        let start = self.mirror.next_entry().min(size);
        let upload = self
            .mirror
            .begin(&header(start, size))
            .expect("it may begin");
        let ranges: Vec<_> = package_ranges(0, size).collect();
        let (first, end) = ranges[number % ranges.len()];
        let skip = if spoil == 3 {
            u64::from(from) % (end - first)
        } else {
            0
        };
        let mut package = self.log.package(first + skip, end, size);
        let mut bytes = package.entries.clone().into_bytes();
        let mut spoilt = true;
        let at = usize::from(at);
        match spoil {
            0 => {
                let place = at % bytes.len();
                bytes[place] ^= 1 << (at % 8);
                match Bundle::parse(bytes, package.entries.len()) {
                    Ok(entries) => package.entries = entries,
                    Err(_length) => return,
                }
            }
            1 if !package.proof.is_empty() => {
                let place = at % package.proof.len();
                package.proof[place] = EMPTY_ROOT;
            }
            2 if ranges.len() > 1 => {
                let (other, until) = ranges[(number + 1) % ranges.len()];
                package.entries = self.log.bundle(other, until);
            }
            _ => spoilt = false,
        }
        let staged = self.mirror.stage(&upload, &package);
        if spoilt {
            assert!(staged.is_err(), "a spoilt package was taken");
        }
        if let Err(StageError::Proof(_) | StageError::Range) = staged {
            assert!(spoilt, "a good package was refused: {staged:?}");
        }
    }

    fn commit(&mut self, size: u64) {
        let start = self.mirror.next_entry().min(size);
        let upload = self
            .mirror
            .begin(&header(start, size))
            .expect("it may begin");
        match self.mirror.commit(&upload) {
            Ok(Committed::Complete(head)) => {
                assert_eq!(head, self.log.head(size));
                assert!(self.mirror.next_entry() >= size);
                self.complete = self.complete.max(size);
            }
            Ok(Committed::Partial(info)) => {
                assert!(info.next_entry < size);
                assert_eq!(info.next_entry, self.mirror.next_entry());
            }
            Ok(Committed::Overtaken(_)) => panic!("it may begin, and is overtaken"),
            Err(CommitError::Corrupt) => panic!("the disk keeps what it was given"),
            Err(CommitError::Store(_) | CommitError::Failed) => return,
        }
        self.acknowledged = self.acknowledged.max(self.mirror.next_entry());
    }

    fn reopen(&mut self, store: FaultStore) {
        let (mirror, opened) = Mirror::open(store.clone(), ORIGIN, QUOTA).expect("opened again");
        assert!(!opened.damaged);
        assert!(
            opened.next_entry >= self.acknowledged,
            "acknowledged entries are lost"
        );
        assert!(mirror.complete().map_or(0, |head| head.size) >= self.complete);
        (self.store, self.mirror) = (store, mirror);
        if let Some(last) = self.heads.last() {
            let known = self.mirror.complete().map(|head| head.size);
            if known.is_none_or(|known| known < *last) {
                self.mirror
                    .offer(self.log.head(*last))
                    .expect("the last head");
            }
            self.heads = known.into_iter().chain([*last]).collect();
            self.heads.dedup();
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Offer(more) => self.offer(more),
            Step::Package {
                head,
                number,
                from,
                spoil,
                at,
            } => {
                if let Some(size) = self.pick(head) {
                    self.package(size, (number, from), (spoil, at));
                }
            }
            Step::Commit { head } => {
                if let Some(size) = self.pick(head) {
                    self.commit(size);
                }
            }
            Step::Fail { ops, fault } => self.store.fail_in(ops, fault),
            Step::PowerCut(seed) => self.reopen(self.store.after_power_cut(seed)),
            Step::Reopen => {
                let dead = self.store.disk().dead;
                if !dead {
                    self.store.disk().at = None;
                    self.reopen(self.store.clone());
                }
            }
        }
        let dead = self.store.disk().dead;
        if dead {
            self.reopen(self.store.after_power_cut(step_seed(step)));
        }
    }

    /// In the end, without faults, the copy becomes complete.
    fn finish(&mut self) {
        self.reopen(self.store.after_power_cut(1));
        let size = self.log.leaves.len() as u64;
        if self.heads.last() != Some(&size) {
            self.mirror
                .offer(self.log.head(size))
                .expect("a larger head");
            self.heads.push(size);
        }
        let done = upload(&mut self.mirror, &self.log, size);
        assert_eq!(done, Committed::Complete(self.log.head(size)));
        assert_right(&self.mirror, &self.log);
        assert_eq!(self.mirror.scrub(&mut |_| ()).expect("readable"), []);
    }
}

fn step_seed(step: &Step) -> u64 {
    match step {
        Step::Offer(more) => *more,
        Step::Package { at, .. } => u64::from(*at),
        Step::Commit { head } => *head as u64,
        Step::Fail { ops, .. } => *ops,
        Step::PowerCut(seed) => *seed,
        Step::Reopen => 3,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_order_no_lie_no_fault_and_no_power_cut_stores_a_wrong_byte(steps in steps(), size in 1_u64..1500) {
        let mut world = World::new(Log::new(size));
        for step in &steps {
            world.step(step);
            assert_right(&world.mirror, &world.log);
        }
        world.finish();
    }
}

/// Every operation of a whole upload fails in each way, one after the other.
#[test]
fn every_operation_of_an_upload_may_fail() {
    let log = Log::new(800);
    let run = |fault: Option<(u64, Fault)>| -> (u64, World) {
        let mut world = World::new(Log {
            lines: log.lines.clone(),
            leaves: log.leaves.clone(),
        });
        if let Some((ops, fault)) = fault {
            world.store.fail_in(ops, fault);
        }
        for (more, order) in [(300, [1, 0, 0]), (300, [2, 1, 0]), (200, [3, 2, 1])] {
            world.step(&Step::Offer(more));
            let head = world.heads.len() - 1;
            for number in order {
                world.step(&Step::Package {
                    head,
                    number,
                    from: 0,
                    spoil: 9,
                    at: 0,
                });
            }
            for _again in 0..2 {
                let head = world.heads.len() - 1;
                world.step(&Step::Commit { head });
            }
            assert_right(&world.mirror, &world.log);
        }
        let ops = world.store.disk().ops;
        (ops, world)
    };
    let (ops, world) = run(None);
    assert_eq!(world.complete, 800);
    assert!(ops > 25, "{ops} operations");
    for at in 0..ops {
        for fault in [Fault::Fails, Fault::Half, Fault::PowerCut] {
            let (_, mut world) = run(Some((at, fault)));
            world.finish();
        }
    }
}

/// The files of a copy on a real disk, opened again, and spoilt.
#[test]
fn a_copy_on_the_disk_outlives_its_process_and_its_damage() {
    let root = TempDir::new().expect("a directory");
    let log = Log::new(1_500);
    let open = || {
        let store = FsMirrorStore::open(root.path(), ORIGIN).expect("a store");
        Mirror::open(store, ORIGIN, QUOTA)
    };
    let (mut mirror, _) = open().expect("new");
    let dir = root.path().join(origin_dir(ORIGIN));
    assert_eq!(mirror.store().dir(), dir);
    mirror.offer(log.head(1_000)).expect("a head");
    upload(&mut mirror, &log, 1_000);
    mirror.offer(log.head(1_500)).expect("a head");
    let late = mirror.begin(&header(1_000, 1_500)).expect("it may begin");
    for package in log.packages(1_000, 1_500).iter().skip(1) {
        mirror.stage(&late, package).expect("kept for later");
    }
    drop(mirror);
    std::fs::write(dir.join("complete.new"), "half").expect("written");
    let (mut mirror, opened) = open().expect("opened again");
    assert!(!dir.join("complete.new").exists());
    assert_eq!((opened.next_entry, opened.damaged), (1_000, false));
    assert_eq!(mirror.complete(), Some(&log.head(1_000)));
    mirror.offer(log.head(1_500)).expect("a head");
    let late = mirror.begin(&header(1_000, 1_500)).expect("it may begin");
    mirror
        .stage(&late, &log.package(1_000, 1_024, 1_500))
        .expect("staged");
    assert_eq!(
        mirror.commit(&late).expect("durable"),
        Committed::Complete(log.head(1_500))
    );
    assert_right(&mirror, &log);
    drop(mirror);

    for name in ["entries", "hashes.0", "blocks"] {
        let path = dir.join(name);
        let good = std::fs::read(&path).expect("readable");
        let step = good.len() / 7 + 1;
        let flips = (0..good.len()).step_by(step).map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            bytes
        });
        let cuts = (0..good.len()).step_by(step).map(|at| good[..at].to_vec());
        let longer = [&good[..], &good[..40]].concat();
        for bytes in flips.chain(cuts).chain([longer]) {
            std::fs::write(&path, &bytes).expect("written");
            let (mut mirror, _) = open().expect("opened again");
            assert_eq!(mirror.complete(), Some(&log.head(1_500)));
            // A byte that changed below a complete head is found by whoever reads it, or by the scrub.
            let bad = mirror.scrub(&mut |_| ()).expect("readable");
            if bad.is_empty() {
                assert_right(&mirror, &log);
                upload(&mut mirror, &log, 1_500);
                assert_eq!(mirror.next_entry(), 1_500);
                assert_right(&mirror, &log);
                drop(mirror);
                assert!(std::fs::read(&path).expect("readable") == good, "{name}");
            }
            std::fs::write(&path, &good).expect("written");
        }
    }
    let head = std::fs::read(dir.join("complete")).expect("readable");
    std::fs::write(dir.join("complete"), &head[1..]).expect("written");
    assert!(matches!(open(), Err(MirrorOpenError::Complete(_))));
}

/// What was stored turns out to be something else when the head is to be completed.
#[test]
fn a_copy_that_rotted_is_not_cosigned_and_is_filled_again() {
    let log = Log::new(600);
    let other = {
        let mut lines = lines(600);
        lines[10][9] ^= 1;
        Log {
            leaves: leaves(&lines),
            lines,
        }
    };
    // The same store is filled with another history, as if every file had been changed to fit.
    let store = Arc::new(MemoryMirrorStore::default());
    let (mut mirror, _) = Mirror::open(Arc::clone(&store), ORIGIN, QUOTA).expect("new");
    mirror.offer(other.head(300)).expect("a head");
    let part = mirror.begin(&header(0, 300)).expect("it may begin");
    mirror
        .stage(&part, &other.package(0, 256, 300))
        .expect("staged");
    mirror.commit(&part).expect("durable");
    let (mut mirror, opened) = Mirror::open(store, ORIGIN, QUOTA).expect("opened");
    assert_eq!(opened.next_entry, 256);
    mirror.offer(log.head(600)).expect("a head");
    let upload_rest = mirror.begin(&header(256, 600)).expect("it may begin");
    for package in log.packages(256, 600) {
        mirror
            .stage(&upload_rest, &package)
            .expect("these are right");
    }
    assert!(matches!(
        mirror.commit(&upload_rest),
        Err(CommitError::Corrupt)
    ));
    assert_eq!((mirror.next_entry(), mirror.complete()), (0, None));
    assert_eq!(
        upload(&mut mirror, &log, 600),
        Committed::Complete(log.head(600))
    );
    assert_right(&mirror, &log);
}
