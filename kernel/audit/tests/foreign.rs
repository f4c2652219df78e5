//! What someone with write access to the files does to a log that is not running, and must not get
//! past: entries added behind its end, heads taken away, two logs in one file.

mod common;

use std::fs;

use common::{TestClock, append, event, log_key, options, origin};
use openfang_audit::repair::behind;
use openfang_audit::storage::FsStorage;
use openfang_audit::verify::{DamageKind, Verdict, verify_files};
use openfang_audit::{FloorProblem, Line, Log, OpenError, Options};

fn open(options: &Options) -> Result<Log, OpenError> {
    Log::open(options.clone(), TestClock::fast()).map(|(log, _)| log)
}

fn verdict(options: &Options) -> Verdict {
    verify_files(&options.log_path, &options.dir, &log_key(), &origin())
        .expect("readable")
        .verdict
}

/// A log of four entries that was ended in order.
fn ended(options: &Options) {
    let log = open(options).expect("opened");
    for number in 0..4 {
        append(&log, event(number)).expect("appended");
    }
    log.close().expect("closed");
}

fn forged(options: &Options, seq: u64) -> Vec<u8> {
    let text = fs::read_to_string(&options.log_path).expect("a log");
    let last = text.lines().last().expect("a line");
    let parsed = Line::parse(last.as_bytes()).expect("an entry");
    let line = last.replace(
        &format!("\"seq\":{}", parsed.seq),
        &format!("\"seq\":{seq}"),
    );
    assert!(Line::parse(line.as_bytes()).is_ok_and(|line| line.seq.0 == seq));
    [line.as_bytes(), b"\n"].concat()
}

#[test]
fn an_entry_added_after_an_orderly_end_is_not_taken_for_one() {
    let root = tempfile::TempDir::new().expect("a folder");
    let options = options(root.path());
    ended(&options);
    let good = fs::read(&options.log_path).expect("a log");
    for added in [forged(&options, 4), b"{\"seq\":4".to_vec()] {
        fs::write(&options.log_path, [good.as_slice(), &added].concat()).expect("written");
        let inserted = Verdict::Tampered {
            first_bad_seq: Some(4),
            kind: DamageKind::Inserted,
        };
        assert_eq!(verdict(&options), inserted);
        let refused = open(&options);
        assert!(
            matches!(&refused, Err(OpenError::Tampered { damage, .. }) if damage.first_bad_seq == Some(4)),
            "{refused:?}"
        );
    }
    fs::write(&options.log_path, &good).expect("written");
    assert!(matches!(
        verdict(&options),
        Verdict::Intact { entries: 4, .. }
    ));
    let log = open(&options).expect("it is as it was");
    append(&log, event(5)).expect("appended");
    // While it runs there is no mark: an end that is not signed yet is the log's own.
    assert!(matches!(verdict(&options), Verdict::Intact { .. }));
    log.close().expect("closed");
    assert!(matches!(
        verdict(&options),
        Verdict::Intact {
            entries: 5,
            unsigned: 0,
            ..
        }
    ));
}

#[test]
fn a_log_whose_heads_were_taken_away_is_not_believed() {
    let root = tempfile::TempDir::new().expect("a folder");
    let options = options(root.path());
    ended(&options);
    let bare = Verdict::Tampered {
        first_bad_seq: None,
        kind: DamageKind::Head,
    };
    let missing = |refused: Result<Log, OpenError>| {
        let problem = match refused {
            Err(OpenError::Floor { problem, .. }) => problem,
            other => panic!("opened: {other:?}"),
        };
        assert_eq!(problem, FloorProblem::Missing);
    };
    for also_altered in [false, true] {
        for name in ["floor", "checkpoint", "closed"] {
            if let Err(why) = fs::remove_file(options.dir.join(name)) {
                assert!(also_altered, "{name}: {why}");
            }
        }
        if also_altered {
            let text = fs::read_to_string(&options.log_path).expect("a log");
            fs::write(&options.log_path, text.replace("key.1", "key.9")).expect("written");
        }
        assert_eq!(verdict(&options), bare);
        missing(open(&options));
    }
    fs::remove_dir_all(&options.dir).expect("removed");
    assert_eq!(verdict(&options), bare);
    missing(open(&options));
    fs::remove_file(&options.log_path).expect("removed");
    assert_eq!(verdict(&options), Verdict::Empty);
}

#[test]
fn two_homes_cannot_share_one_file_of_lines() {
    let root = tempfile::TempDir::new().expect("a folder");
    let first = Options {
        dir: root.path().join("a/audit.d"),
        ..options(root.path())
    };
    let second = Options {
        dir: root.path().join("b/audit.d"),
        ..first.clone()
    };
    let log = open(&first).expect("opened");
    let refused = open(&second);
    assert!(
        matches!(refused, Err(OpenError::Locked { .. })),
        "{refused:?}"
    );
    append(&log, event(1)).expect("appended");
    log.close().expect("closed");
    // Afterwards it is the log of the first all the same: the second has no heads of it.
    let refused = open(&second);
    let missing = FloorProblem::Missing;
    assert!(
        matches!(&refused, Err(OpenError::Floor { problem, .. }) if *problem == missing),
        "{refused:?}"
    );
}

/// As a node of a mesh opens it: nothing is signed before others were asked.
fn held(options: &Options) -> Result<(Log, openfang_audit::Opened), OpenError> {
    let options = Options {
        held: true,
        ..options.clone()
    };
    Log::open(options, TestClock::fast())
}

#[test]
fn a_backup_without_heads_opens_held_and_signs_nothing_by_itself() {
    for rubbish in [false, true] {
        let root = tempfile::TempDir::new().expect("a folder");
        let options = options(root.path());
        ended(&options);
        let lines = fs::read(&options.log_path).expect("a log");
        for name in ["floor", "checkpoint", "closed"] {
            fs::remove_file(options.dir.join(name)).expect("removed");
        }
        if rubbish {
            fs::write(options.dir.join("checkpoint"), b"rubbish").expect("written");
        }
        let (log, opened) = held(&options).expect("opened");
        assert!(opened.floor_was_missing && opened.head.is_none());
        assert_eq!((log.is_held(), log.signed_size()), (true, 0));
        log.close().expect("closed");
        let now = fs::read(&options.log_path).expect("a log");
        assert!(now.starts_with(&lines), "every entry is kept");
        let told = String::from_utf8_lossy(&now[lines.len()..]).into_owned();
        assert!(told.contains("kept 4 unsigned entries"), "{told}");
    }
    // What is no log is not taken for one.
    let root = tempfile::TempDir::new().expect("a folder");
    let options = options(root.path());
    ended(&options);
    let text = fs::read_to_string(&options.log_path).expect("a log");
    for name in ["floor", "checkpoint", "closed"] {
        fs::remove_file(options.dir.join(name)).expect("removed");
    }
    fs::write(&options.log_path, text.replace("\"seq\":1,", "\"seq\":9,")).expect("written");
    let refused = held(&options).map(|(log, _)| log);
    assert!(
        matches!(refused, Err(OpenError::Corrupt { seq: 1, .. })),
        "{refused:?}"
    );
}

/// Looks for what has to be cut off, and cuts it off; returns how many bytes.
fn cut(options: &Options) -> Option<u64> {
    let storage = FsStorage::open(&options.log_path, &options.dir, "a test").expect("free");
    let found = behind(&storage, &origin(), &log_key()).expect("readable")?;
    let before = fs::read(&options.log_path).expect("a log");
    let name = storage.set_aside(&found).expect("set aside");
    let kept = fs::read(options.dir.join(format!("evidence/{name}.pending"))).expect("kept");
    let after = fs::read(&options.log_path).expect("a log");
    assert!(before.starts_with(&after) && before.ends_with(&kept));
    assert_eq!(before.len(), after.len() + kept.len());
    Some(found.bytes.end - found.bytes.start)
}

#[test]
fn what_was_written_behind_the_end_is_cut_off_and_kept() {
    let root = tempfile::TempDir::new().expect("a folder");
    let options = options(root.path());
    ended(&options);
    assert_eq!(cut(&options), None, "nothing is behind");
    let good = fs::read(&options.log_path).expect("a log");
    let whole = [forged(&options, 4), forged(&options, 5)].concat();
    for added in [&whole[..], b"{\"seq\":4", b"\xff\n\n"] {
        fs::write(&options.log_path, [&good, added].concat()).expect("written");
        assert_eq!(cut(&options), Some(added.len() as u64));
        assert_eq!(fs::read(&options.log_path).expect("a log"), good);
        assert!(matches!(
            verdict(&options),
            Verdict::Intact { entries: 4, .. }
        ));
    }
    // Where a signed line was altered as well, that comes first: nothing is cut.
    let altered = String::from_utf8(good.clone())
        .expect("text")
        .replace("key.1", "key.9");
    fs::write(&options.log_path, [altered.as_bytes(), &whole].concat()).expect("written");
    assert_eq!(cut(&options), None);
    fs::write(&options.log_path, &good).expect("written");
    let (log, opened) = Log::open(options.clone(), TestClock::fast()).expect("opened");
    assert_eq!(
        opened.recovered.len(),
        3,
        "the next start writes about each piece"
    );
    log.close().expect("closed");
}

#[test]
fn a_damaged_line_that_no_head_covers_is_cut_off_with_what_follows() {
    let root = tempfile::TempDir::new().expect("a folder");
    let options = options(root.path());
    ended(&options);
    // It was not ended in order.
    fs::write(options.dir.join("closed"), b"").expect("written");
    let good = fs::read(&options.log_path).expect("a log");
    let next = [&good, &forged(&options, 4)[..]].concat();
    let bad = [b"no entry\n".to_vec(), forged(&options, 6)].concat();
    fs::write(&options.log_path, [&next, &bad[..]].concat()).expect("written");
    assert!(matches!(
        open(&options),
        Err(OpenError::Corrupt { seq: 5, .. })
    ));
    assert_eq!(cut(&options), Some(bad.len() as u64));
    assert_eq!(fs::read(&options.log_path).expect("a log"), next);
    // What an interrupted write leaves is cut off by the start itself.
    fs::write(&options.log_path, [&next, &b"{\"torn"[..]].concat()).expect("written");
    assert_eq!(cut(&options), None);
    open(&options).expect("it opens").close().expect("closed");
}

#[test]
fn a_file_that_poses_as_a_sealed_segment_is_taken_away() {
    let root = tempfile::TempDir::new().expect("a folder");
    let options = options(root.path());
    ended(&options);
    let good = fs::read(&options.log_path).expect("a log");
    let segments = options.dir.join("seg");
    fs::create_dir_all(&segments).expect("made");
    // The lines themselves lie there, and more behind them.
    fs::rename(
        &options.log_path,
        segments.join("000000000000-000000000004.jsonl"),
    )
    .expect("moved");
    fs::write(segments.join("000000000004-000000000009.jsonl"), b"{}\n").expect("written");
    fs::write(&options.log_path, b"more\n").expect("written");
    assert!(matches!(verdict(&options), Verdict::Tampered { .. }));
    let storage = FsStorage::open(&options.log_path, &options.dir, "a test").expect("free");
    let found = behind(&storage, &origin(), &log_key())
        .expect("readable")
        .expect("found");
    assert_eq!(found.bytes, good.len() as u64..good.len() as u64 + 8);
    storage.set_aside(&found).expect("set aside");
    drop(storage);
    assert!(!segments.join("000000000004-000000000009.jsonl").exists());
    assert!(matches!(
        verdict(&options),
        Verdict::Intact { entries: 4, .. }
    ));
}
