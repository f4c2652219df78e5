//! Opening logs that a crash, a backup or a person left in some state.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{TestClock, append, append_all, event, log_key, options, origin};
use openfang_audit::storage::without_name;
use openfang_audit::verify::{Damage, DamageKind, Verdict, verify_files};
use openfang_audit::{
    Clock, FloorProblem, Hash, Line, Log, OpenError, Opened, Options, Origin, Seq, SignedHead,
};
use tempfile::TempDir;

fn open(root: &Path) -> Result<(Log, Opened), OpenError> {
    Log::open(options(root), TestClock::fast())
}

fn fill(root: &Path, entries: std::ops::Range<u64>) -> Option<SignedHead> {
    let (log, _) = open(root).expect("a log");
    append_all(&log, entries);
    log.close().expect("closed");
    log.head()
}

/// A log of six entries whose heads cover only the first four, and the offsets of its lines.
fn partly_signed() -> (TempDir, Vec<u8>, Vec<usize>) {
    let root = TempDir::new().expect("a directory");
    fill(root.path(), 0..4);
    let dir = root.path().join("audit.d");
    let floor = fs::read(dir.join("floor")).expect("a floor");
    fill(root.path(), 4..6);
    fs::write(dir.join("floor"), &floor).expect("written");
    fs::write(dir.join("checkpoint"), &floor).expect("written");
    let text = fs::read(root.path().join("audit.jsonl")).expect("a log");
    let mut starts = vec![0];
    let feeds = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    starts.extend(feeds.map(|(at, _)| at + 1));
    (root, text, starts)
}

fn copy_of(root: &TempDir) -> TempDir {
    let copy = TempDir::new().expect("a directory");
    fs::create_dir_all(copy.path().join("audit.d")).expect("made");
    for file in [
        "audit.jsonl",
        "audit.d/floor",
        "audit.d/checkpoint",
        "audit.d/hashes.0",
    ] {
        fs::copy(root.path().join(file), copy.path().join(file)).expect("copied");
    }
    copy
}

fn verdict(root: &Path) -> Verdict {
    let Options { log_path, dir, .. } = options(root);
    let report = verify_files(&log_path, &dir, &log_key(), &origin()).expect("readable");
    report.verdict
}

#[test]
fn a_new_log_begins_empty_and_continues_where_it_was() {
    let root = TempDir::new().expect("a directory");
    assert_eq!(verdict(root.path()), Verdict::Empty);
    let (log, opened) = open(root.path()).expect("a log");
    assert_eq!((opened.size, &opened.head), (0, &None));
    assert_eq!(log.origin(), &Origin::of(&common::keys().node_id(), 1));
    log.close().expect("closed");
    assert_eq!(verdict(root.path()), Verdict::Empty);
    let first = fill(root.path(), 0..300).expect("a head");
    let (log, opened) = open(root.path()).expect("a log");
    assert_eq!((opened.size, opened.head), (300, Some(first.clone())));
    assert!(!opened.hashes_rebuilt);
    assert_eq!(log.head(), Some(first));
    assert_eq!(append(&log, event(300)), Ok(Seq(300)));
    log.close().expect("closed");
    let Verdict::Intact {
        entries, unsigned, ..
    } = verdict(root.path())
    else {
        panic!("not intact");
    };
    assert_eq!((entries, unsigned), (301, 0));
}

#[test]
fn time_as_the_log_writes_it_never_goes_back_over_restarts() {
    struct Back;
    impl Clock for Back {
        fn unix_micros(&self) -> u64 {
            1_000_000
        }

        fn monotonic_micros(&self) -> u64 {
            0
        }
    }
    let root = TempDir::new().expect("a directory");
    fill(root.path(), 0..3);
    let (log, _) = Log::open(options(root.path()), Arc::new(Back)).expect("a log");
    append(&log, event(3)).expect("appended");
    let lines = log.recent(10).expect("readable");
    log.close().expect("closed");
    assert_eq!(lines.len(), 4);
    assert!(lines.is_sorted_by(|a, b| a.hlc < b.hlc), "{lines:?}");
    assert!(
        lines[3].ts < lines[2].ts,
        "the wall clock is written as it was read"
    );
}

#[test]
fn a_torn_line_is_cut_off_at_every_byte() {
    let (origin_root, text, starts) = partly_signed();
    let last = starts[5];
    for end in last..=text.len() {
        let root = copy_of(&origin_root);
        let path = root.path().join("audit.jsonl");
        fs::write(&path, &text[..end]).expect("written");
        let torn = if end == text.len() { 0 } else { end - last };
        let whole = end == text.len();
        let before = Verdict::Intact {
            entries: if whole { 6 } else { 5 },
            root: common::root_of_lines(&text, if whole { 6 } else { 5 }).expect("lines"),
            head: Some(floor_of(root.path())),
            unsigned: if whole { 2 } else { 1 },
            torn_bytes: torn as u64,
        };
        assert_eq!(verdict(root.path()), before, "cut at {end}");

        let (log, opened) = open(root.path()).expect("recovered");
        log.close().expect("closed");
        if torn == 0 {
            assert_eq!(opened.recovered, []);
            // One more says that unsigned entries were kept.
            assert_eq!(opened.size, if whole { 7 } else { 6 });
            continue;
        }
        assert_eq!(opened.size, 7);
        let [recovered] = opened.recovered.as_slice() else {
            panic!("one piece was cut off: {opened:?}");
        };
        assert_eq!(fs::read(&recovered.kept).expect("kept"), &text[last..end]);
        assert_eq!(recovered.bytes, torn as u64);
        let now = fs::read(&path).expect("a log");
        assert_eq!(now[..last], text[..last], "what was whole stays as it was");
        let mut added = now[last..].split(|byte| *byte == b'\n');
        let mut next = || Line::parse(added.next().expect("a line")).expect("an entry");
        let line = next();
        assert_eq!((line.seq, line.ev.as_str()), (Seq(5), "log_recovered"));
        assert_eq!(line.act.as_deref(), Some("kept 1 unsigned entries"));
        let line = next();
        assert_eq!((line.seq, line.ev.as_str()), (Seq(6), "log_recovered"));
        assert_eq!(line.act, Some(format!("cut {torn} bytes")));
        assert_eq!(line.target, Some(format!("sha256:{}", recovered.sha256)));
        let (log, again) = open(root.path()).expect("a log");
        log.close().expect("closed");
        assert_eq!((again.size, again.recovered), (7, vec![]), "once is enough");
    }
}

fn floor_of(root: &Path) -> SignedHead {
    let floor = fs::read(root.join("audit.d/floor")).expect("a floor");
    let note = String::from_utf8_lossy(without_name(&floor));
    SignedHead::open(&note, &origin(), &log_key()).expect("a head")
}

#[test]
fn several_meaningless_lines_at_the_end_are_one_torn_end() {
    let (root, text, starts) = partly_signed();
    let path = root.path().join("audit.jsonl");
    let mut bad = text[..starts[5]].to_vec();
    let torn = b"\0\0\0\n{\"seq\":5}\n\0\0";
    bad.extend_from_slice(torn);
    fs::write(&path, bad).expect("written");
    let (log, opened) = open(root.path()).expect("recovered");
    log.close().expect("closed");
    assert_eq!(opened.recovered.len(), 1);
    assert_eq!(opened.recovered[0].bytes, torn.len() as u64);
    assert!(
        opened.hashes_rebuilt,
        "there was a hash for the line that is gone"
    );
}

#[test]
fn a_bad_line_with_good_ones_behind_it_is_not_cut_off() {
    let (root, text, starts) = partly_signed();
    let path = root.path().join("audit.jsonl");
    let check = |text: &[u8], wanted: u64| {
        fs::write(&path, text).expect("written");
        match open(root.path()) {
            Err(OpenError::Corrupt { seq, .. }) => assert_eq!(seq, wanted),
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(&path).expect("a log"), text, "nothing is changed");
        let Verdict::Tampered { first_bad_seq, .. } = verdict(root.path()) else {
            panic!("not tampered");
        };
        assert_eq!(first_bad_seq, Some(wanted));
    };
    let mut bad = text.clone();
    bad[starts[4]] = b'x';
    check(&bad, 4);
    // A good line where another belongs.
    let mut doubled = text[..starts[5]].to_vec();
    doubled.extend_from_slice(&text[starts[4]..]);
    check(&doubled, 5);
    let mut skipped = text[..starts[4]].to_vec();
    skipped.extend_from_slice(&text[starts[5]..]);
    check(&skipped, 4);
    // A line of a later version of this program.
    let later = String::from_utf8(text.clone()).expect("text");
    let at = later.rfind("\"v\":1").expect("a version");
    check(format!("{}\"v\":2}}\n", &later[..at]).as_bytes(), 5);
}

#[test]
fn a_log_below_its_floor_is_refused_and_says_where() {
    let (origin_root, text, starts) = partly_signed();
    let check = |text: &[u8], seq: u64, kind: DamageKind| {
        let root = copy_of(&origin_root);
        fs::write(root.path().join("audit.jsonl"), text).expect("written");
        let wanted = Damage {
            first_bad_seq: Some(seq),
            kind,
        };
        match open(root.path()) {
            Err(OpenError::Tampered { damage, .. }) => assert_eq!(damage, wanted),
            other => panic!("{other:?}"),
        }
        let tampered = Verdict::Tampered {
            first_bad_seq: Some(seq),
            kind,
        };
        assert_eq!(verdict(root.path()), tampered);
    };
    check(&text[..starts[3]], 3, DamageKind::Truncated);
    check(&text[..starts[4] - 1], 3, DamageKind::Truncated);
    check(&text[..0], 0, DamageKind::Truncated);
    let mut altered = text.clone();
    altered[starts[2] + 30] ^= 1;
    check(&altered, 2, DamageKind::Altered);
    let mut removed = text[..starts[1]].to_vec();
    removed.extend_from_slice(&text[starts[2]..]);
    check(&removed, 1, DamageKind::Removed);
    let mut inserted = text[..starts[1]].to_vec();
    inserted.extend_from_slice(&text[starts[3]..starts[4]]);
    inserted.extend_from_slice(&text[starts[1]..]);
    check(&inserted, 1, DamageKind::Altered);
    let mut inserted = text[..starts[1]].to_vec();
    inserted.extend_from_slice(b"{\"forged\":true}\n");
    inserted.extend_from_slice(&text[starts[1]..]);
    check(&inserted, 1, DamageKind::Inserted);
    let mut swapped = text[..starts[1]].to_vec();
    swapped.extend_from_slice(&text[starts[2]..starts[3]]);
    swapped.extend_from_slice(&text[starts[1]..starts[2]]);
    swapped.extend_from_slice(&text[starts[3]..]);
    check(&swapped, 1, DamageKind::Altered);
}

#[test]
fn a_doubtful_floor_is_refused() {
    let (origin_root, _text, _starts) = partly_signed();
    let check = |change: &dyn Fn(&Path), wanted: FloorProblem| {
        let root = copy_of(&origin_root);
        change(&root.path().join("audit.d"));
        match open(root.path()) {
            Err(OpenError::Floor { problem, .. }) => assert_eq!(problem, wanted),
            other => panic!("{wanted:?}: {other:?}"),
        }
    };
    check(
        &|dir| fs::remove_file(dir.join("floor")).expect("removed"),
        FloorProblem::Missing,
    );
    check(
        &|dir| fs::write(dir.join("floor"), "").expect("written"),
        FloorProblem::Damaged,
    );
    check(
        &|dir| {
            let note = fs::read_to_string(dir.join("floor")).expect("a floor");
            fs::write(dir.join("floor"), note.replace("\n4\n", "\n3\n")).expect("written");
        },
        FloorProblem::Damaged,
    );
    check(
        &|dir| {
            let mut larger = floor_of(dir.parent().expect("a parent")).checkpoint;
            larger.size = 5;
            larger.root = Hash::from_bytes([9; 32]);
            let head = SignedHead::sign(larger, &common::keys().log);
            fs::write(dir.join("checkpoint"), head.note).expect("written");
        },
        FloorProblem::RolledBack,
    );
    let root = copy_of(&origin_root);
    let next_epoch = Options {
        epoch: 2,
        held: false,
        ..options(root.path())
    };
    match Log::open(next_epoch, TestClock::fast()) {
        Err(OpenError::Floor { problem, .. }) => assert_eq!(problem, FloorProblem::OtherLog),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_head_that_was_signed_but_not_published_is_published() {
    let root = TempDir::new().expect("a directory");
    let head = fill(root.path(), 0..3).expect("a head");
    let checkpoint = root.path().join("audit.d/checkpoint");
    for remove in [true, false] {
        if remove {
            fs::remove_file(&checkpoint).expect("removed");
        } else {
            fs::write(&checkpoint, "garbage").expect("written");
        }
        let (log, opened) = open(root.path()).expect("a log");
        assert_eq!(opened.head, Some(head.clone()));
        assert_eq!(log.head(), Some(head.clone()));
        assert_eq!(fs::read_to_string(&checkpoint).expect("there"), head.note);
        log.close().expect("closed");
    }
}

#[test]
fn the_leaf_hashes_are_computed_again_when_they_are_wrong() {
    let root = TempDir::new().expect("a directory");
    fill(root.path(), 0..600);
    let path = root.path().join("audit.d/hashes.0");
    let right = fs::read(&path).expect("hashes");
    assert_eq!(right.len(), 600 * 32);
    let mut flipped = right.clone();
    flipped[9_000] ^= 1;
    let longer = [right.as_slice(), &[0; 64]].concat();
    for wrong in [&[][..], &right[..100], &flipped, &longer] {
        fs::write(&path, wrong).expect("written");
        let (log, opened) = open(root.path()).expect("a log");
        assert!(opened.hashes_rebuilt);
        log.close().expect("closed");
        assert_eq!(fs::read(&path).expect("hashes"), right);
    }
    fs::remove_file(&path).expect("removed");
    let (log, opened) = open(root.path()).expect("a log");
    assert!(opened.hashes_rebuilt);
    log.close().expect("closed");
    assert_eq!(fs::read(&path).expect("hashes"), right);
}

#[test]
fn a_log_has_one_owner() {
    let root = TempDir::new().expect("a directory");
    let (log, _) = open(root.path()).expect("a log");
    match open(root.path()) {
        Err(OpenError::Locked { holder }) => {
            assert!(
                holder.contains(&format!("pid {}", std::process::id())),
                "{holder}"
            );
            assert!(holder.contains("boot 0000000000000007"), "{holder}");
        }
        other => panic!("{other:?}"),
    }
    append(&log, event(0)).expect("not disturbed");
    log.close().expect("closed");
    let (log, opened) = open(root.path()).expect("free again");
    assert_eq!(opened.size, 1);
    log.close().expect("closed");
}

#[test]
fn the_files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = TempDir::new().expect("a directory");
    fill(root.path(), 0..1);
    let mode = |path: &str| {
        let metadata = fs::metadata(root.path().join(path)).expect("there");
        metadata.permissions().mode() & 0o777
    };
    for dir in ["audit.d", "audit.d/evidence"] {
        assert_eq!(mode(dir), 0o700, "{dir}");
    }
    for file in [
        "audit.jsonl",
        "audit.d/floor",
        "audit.d/checkpoint",
        "audit.d/hashes.0",
    ] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[test]
fn a_clock_that_was_set_is_written_about_before_what_comes_after() {
    let root = TempDir::new().expect("a directory");
    let clock = TestClock::frozen();
    let (log, _) =
        Log::open(options(root.path()), Arc::clone(&clock) as Arc<dyn Clock>).expect("a log");
    append(&log, event(1)).expect("appended");
    clock.set_forward(400_000);
    append(&log, event(2)).expect("appended");
    clock.set_forward(3_600_000_000);
    assert_eq!(
        append(&log, event(3)).expect("appended").0,
        3,
        "one before it"
    );
    let lines = log.recent(10).expect("readable");
    log.close().expect("closed");
    let kinds: Vec<&str> = lines.iter().map(|line| line.ev.as_str()).collect();
    assert_eq!(
        kinds,
        ["node_start", "node_start", "clock_step", "node_start"]
    );
    assert_eq!(lines[2].act.as_deref(), Some("+3600000000 us"));
}
