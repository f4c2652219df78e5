//! What someone with write access to the files does to a log that is not running, and must not get
//! past: entries added behind its end, heads taken away, two logs in one file.

mod common;

use std::fs;

use common::{TestClock, append, event, log_key, options, origin};
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
