//! A copy of a log: what is uploaded, in which order, what is refused, and what is served.

mod tlog;

use std::path::Path;
use std::sync::Arc;

use openfang_audit::challenge::{self, ChallengeError, Demand, DemandError};
use openfang_audit::mirror::{
    AHEAD_BUNDLES_MAX, BeginError, CommitError, Committed, Ended, FsMirrorStore, KeptHead,
    LineIndex, LinesError, MemoryMirrorStore, MendError, Mirror, MirrorHead, MirrorInfo,
    MirrorOpenError, MirrorPart, MirrorStore as _, OfferError, PENDING_HEADS_KEPT, Package, Piece,
    StageError, UploadDecoder, UploadHeader, build_package, kept_heads, origin_dir, package_ranges,
};
use openfang_audit::proof::ProofError;
use openfang_audit::storage::FsReader;
use openfang_audit::tile::{Bundle, TileKind, TileNodes, TilePath, TileSource as _, tile_paths};
use openfang_audit::tree::EMPTY_ROOT;
use tempfile::TempDir;
use tlog::copy::{Log, ORIGIN, QUOTA, assert_right, header, new_mirror, upload};
use tlog::{Files, Tiles, leaves, lines};

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
    assert!(mirror.scrub(&mut |_| ()).expect("readable").is_empty());
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
fn a_head_that_is_cosigned_anew_is_kept_with_its_new_note() {
    let dir = TempDir::new().expect("a directory");
    let log = Log::new(300);
    let open = || {
        let store = FsMirrorStore::open(dir.path(), ORIGIN).expect("a directory");
        let (mirror, _opened) = Mirror::open(store, ORIGIN, QUOTA).expect("it opens");
        mirror
    };
    assert_eq!(kept_heads(dir.path()).expect("readable"), []);
    let mut mirror = open();
    mirror.offer(log.head(300)).expect("a head");
    upload(&mut mirror, &log, 300);
    let anew = MirrorHead {
        note: format!("{}again\n", log.head(300).note),
        ..log.head(300)
    };
    mirror.offer(anew.clone()).expect("the same head");
    assert_eq!(
        mirror.complete(),
        Some(&log.head(300)),
        "not before an upload"
    );
    assert_eq!(
        upload(&mut mirror, &log, 300),
        Committed::Complete(anew.clone())
    );
    drop(mirror);
    let mirror = open();
    assert_eq!(mirror.complete(), Some(&anew));
    let kept = kept_heads(dir.path()).expect("readable");
    let path = mirror.store().dir().join("complete");
    let expected = KeptHead {
        path: path.clone(),
        head: Some(anew),
    };
    assert_eq!(kept, [expected]);
    std::fs::write(&path, b"something else").expect("writable");
    std::fs::write(dir.path().join("a-file"), b"").expect("writable");
    let kept = kept_heads(dir.path()).expect("readable");
    assert_eq!(kept, [KeptHead { path, head: None }]);
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
    assert_eq!(mirror.bytes(), 0);
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
fn a_package_holds_entries_of_one_bundle_of_the_upload() {
    let log = Log::new(700);
    let mut mirror = new_mirror();
    mirror.offer(log.head(600)).expect("a head");
    let upload = mirror.begin(&header(0, 600)).expect("it may begin");
    let good = log.packages(0, 600);
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
    assert!(indexes.len() > 50 && indexes.iter().all(|index| *index < 1_000));
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
    let demand = Demand {
        size: head.size,
        indexes: vec![3, 999, 3, 512],
    };
    let body = demand.answer(&mirror).expect("the entries");
    assert_eq!(demand.check(&head.root, &body), Ok(()));
    let check = |demand: &Demand, body: &[u8]| demand.check(&head.root, body);
    assert_eq!(
        check(&demand, &body[..body.len() - 1]),
        Err(DemandError::Form)
    );
    assert_eq!(
        check(&demand, &[body.as_slice(), &[0]].concat()),
        Err(DemandError::Form)
    );
    let others = Demand {
        indexes: vec![3, 998, 3, 512],
        ..demand.clone()
    };
    assert_eq!(
        check(&others, &body),
        Err(DemandError::Answer {
            index: 998,
            why: ChallengeError::OtherEntry
        })
    );
    // The same from foreign tiles.
    let nodes = TileNodes::open(&mirror, head.size, head.root).expect("its tiles fit");
    assert!(nodes.bundle(3).expect("a bundle") == log.bundle(768, 1_000));
}

/// Changes a file of a copy in many ways; each time the copy is found out, mended or filled again.
fn spoil(path: &Path, log: &Log, open: &dyn Fn() -> Mirror<FsMirrorStore>) {
    let good = std::fs::read(path).expect("readable");
    let step = good.len() / 7 + 1;
    let flips = (0..good.len()).step_by(step).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    });
    let cuts = (0..good.len()).step_by(step).map(|at| good[..at].to_vec());
    let longer = [&good[..], &good[..40]].concat();
    for bytes in flips.chain(cuts).chain([longer]) {
        std::fs::write(path, &bytes).expect("written");
        let mut mirror = open();
        let size = log.leaves.len() as u64;
        assert_eq!(mirror.complete(), Some(&log.head(size)));
        for index in mirror.scrub(&mut |_| ()).expect("readable") {
            let end = mirror.next_entry().min(index * 256 + 256);
            let other = log.bundle(1, end - index * 256);
            assert!(matches!(mirror.mend(index, &other), Err(MendError::Other)));
            match mirror.mend(index, &log.bundle(index * 256, end)) {
                Ok(()) => {}
                Err(MendError::Displaced) if path.ends_with("blocks") => {
                    mirror.clear();
                    break;
                }
                Err(other) => panic!("{}: {other}", path.display()),
            }
        }
        assert_right(&mirror, log);
        upload(&mut mirror, log, size);
        assert_eq!(mirror.next_entry(), size);
        assert_right(&mirror, log);
        drop(mirror);
        let mended = std::fs::read(path).expect("readable");
        assert!(mended == good, "{}", path.display());
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
        spoil(&dir.join(name), &log, &|| open().expect("opened again").0);
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
