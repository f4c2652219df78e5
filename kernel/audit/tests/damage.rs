//! Damage to the files: found from the files alone, and noticed by a running log.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, SystemTime};

use common::{TestClock, append, append_all, event, log_key, options, origin, root_of_lines};
use openfang_audit::proof::verify_consistency;
use openfang_audit::storage::{is_floor_in_place, without_name};
use openfang_audit::verify::{DamageKind, Verdict, verify_files};
use openfang_audit::{
    AppendError, Health, Log, Options, Poison, ProveError, ReadError, Seq, SignedHead,
};
use tempfile::TempDir;

fn verdict(root: &Path) -> Verdict {
    let Options { log_path, dir, .. } = options(root);
    let report = verify_files(&log_path, &dir, &log_key(), &origin()).expect("readable");
    report.verdict
}

fn fill(root: &Path, entries: u64) {
    let (log, _) = Log::open(options(root), TestClock::frozen()).expect("a log");
    append_all(&log, 0..entries);
    log.close().expect("closed");
}

#[test]
fn every_flipped_bit_names_its_line() {
    let root = TempDir::new().expect("a directory");
    fill(root.path(), 6);
    let path = root.path().join("audit.jsonl");
    let text = fs::read(&path).expect("a log");
    let hashes = root.path().join("audit.d/hashes.0");
    let mut line = 0;
    for at in 0..text.len() {
        for bit in [0, 6] {
            let mut bad = text.clone();
            bad[at] ^= 1 << bit;
            fs::write(&path, bad).expect("written");
            let Verdict::Tampered { first_bad_seq, .. } = verdict(root.path()) else {
                panic!("bit {bit} of byte {at} is not noticed");
            };
            assert_eq!(first_bad_seq, Some(line), "bit {bit} of byte {at}");
        }
        line += u64::from(text[at] == b'\n');
    }
    // Without the hashes it is noticed as well, and never blamed on a line before it.
    fs::remove_file(hashes).expect("removed");
    let mut line = 0;
    for at in 0..text.len() {
        let mut bad = text.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).expect("written");
        let Verdict::Tampered { first_bad_seq, .. } = verdict(root.path()) else {
            panic!("byte {at} is not noticed");
        };
        assert!(
            first_bad_seq.is_none_or(|seq| seq >= line),
            "byte {at}: {first_bad_seq:?}"
        );
        line += u64::from(text[at] == b'\n');
    }
}

#[test]
fn every_flipped_bit_of_a_head_is_noticed() {
    let root = TempDir::new().expect("a directory");
    fill(root.path(), 3);
    for file in ["floor", "checkpoint"] {
        let path = root.path().join("audit.d").join(file);
        let note = fs::read(&path).expect("a head");
        for at in 0..note.len() {
            let mut bad = note.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).expect("written");
            let wanted = Verdict::Tampered {
                first_bad_seq: None,
                kind: DamageKind::Head,
            };
            let dir = root.path().join("audit.d");
            // What stands behind the head says which file it is in, and any other number that it is not.
            let elsewhere = file == "floor" && !is_floor_in_place(&dir).expect("readable");
            let is_head = at < without_name(&note).len();
            let found = verdict(root.path());
            assert!(
                found == wanted || (elsewhere && !is_head),
                "byte {at} of {file}: {found:?}"
            );
        }
        fs::write(&path, note).expect("written");
    }
}

/// The end that a run has marked is a head like others: who puts back all but that is found out.
#[test]
fn a_log_that_is_shorter_than_at_its_last_end_is_cut() {
    let (early, late) = (TempDir::new().expect("one"), TempDir::new().expect("one"));
    fill(early.path(), 3);
    fill(late.path(), 5);
    fs::copy(
        late.path().join("audit.d/closed"),
        early.path().join("audit.d/closed"),
    )
    .expect("copied");
    let wanted = Verdict::Tampered {
        first_bad_seq: Some(3),
        kind: DamageKind::Truncated,
    };
    assert_eq!(verdict(early.path()), wanted);
    // One that is older, or rubbish, says nothing.
    for bytes in [
        fs::read(early.path().join("audit.d/checkpoint")).expect("there"),
        b"x".to_vec(),
    ] {
        fs::write(late.path().join("audit.d/closed"), bytes).expect("written");
        assert!(matches!(verdict(late.path()), Verdict::Intact { .. }));
    }
}

/// Puts a folder in the place of a file for a moment, so that it is there and cannot be read.
fn unread<T>(path: &Path, look: impl FnOnce() -> T) -> T {
    let aside = path.with_extension("aside");
    let there = fs::rename(path, &aside).is_ok();
    fs::create_dir(path).expect("made");
    let found = look();
    fs::remove_dir(path).expect("removed");
    if there {
        fs::rename(&aside, path).expect("put back");
    }
    found
}

#[test]
fn what_cannot_be_read_hides_no_damage() {
    let root = TempDir::new().expect("a directory");
    fill(root.path(), 5);
    let dir = root.path().join("audit.d");
    let Options { log_path, .. } = options(root.path());
    let look = || verify_files(&log_path, &dir, &log_key(), &origin());
    let text = fs::read_to_string(&log_path).expect("a log");
    for name in ["floor", "checkpoint", "closed"] {
        let judged = unread(&dir.join(name), look);
        assert!(judged.is_err(), "{name} is not known: {judged:?}");
    }
    for name in ["hashes.0", "blocks"] {
        let judged = unread(&dir.join(name), look).expect("it is not needed");
        assert!(matches!(judged.verdict, Verdict::Intact { .. }), "{name}");
    }
    fs::write(&log_path, text.replace("key.3", "key.X")).expect("written");
    for name in ["floor", "checkpoint", "closed", "hashes.0", "blocks"] {
        let judged = unread(&dir.join(name), look).expect("it is bad all the same");
        assert!(matches!(judged.verdict, Verdict::Tampered { .. }), "{name}");
    }
    fs::remove_file(&log_path).expect("removed");
    for name in ["floor", "checkpoint"] {
        let judged = unread(&dir.join(name), look).expect("the other one tells");
        assert!(matches!(judged.verdict, Verdict::Tampered { .. }), "{name}");
    }
}

#[test]
fn hashes_that_do_not_lead_to_the_signed_root_are_not_believed() {
    let root = TempDir::new().expect("a directory");
    fill(root.path(), 5);
    let hashes = root.path().join("audit.d/hashes.0");
    let mut bytes = fs::read(&hashes).expect("hashes");
    bytes[0] ^= 1;
    fs::write(&hashes, bytes).expect("written");
    assert!(matches!(
        verdict(root.path()),
        Verdict::Intact { entries: 5, .. }
    ));
    let path = root.path().join("audit.jsonl");
    let text = fs::read_to_string(&path).expect("a log");
    fs::write(&path, text.replace("key.3", "key.X")).expect("written");
    let wanted = Verdict::Tampered {
        first_bad_seq: None,
        kind: DamageKind::Altered,
    };
    assert_eq!(
        verdict(root.path()),
        wanted,
        "altered, and nothing tells where"
    );
    fs::write(&path, text.replace("\"seq\":3", "\"seq\":7")).expect("written");
    let Verdict::Tampered { first_bad_seq, .. } = verdict(root.path()) else {
        panic!("not tampered");
    };
    assert_eq!(first_bad_seq, Some(3), "the number in the line tells");
}

#[test]
fn a_missing_log_is_told_from_one_that_never_was() {
    let root = TempDir::new().expect("a directory");
    assert_eq!(verdict(root.path()), Verdict::Empty);
    fill(root.path(), 2);
    let path = root.path().join("audit.jsonl");
    fs::remove_file(&path).expect("removed");
    let wanted = Verdict::Tampered {
        first_bad_seq: Some(0),
        kind: DamageKind::Missing,
    };
    assert_eq!(verdict(root.path()), wanted);
    fs::create_dir(&path).expect("made");
    let Options { log_path, dir, .. } = options(root.path());
    let unreadable = verify_files(&log_path, &dir, &log_key(), &origin());
    assert!(
        unreadable.is_err(),
        "a directory is neither intact nor tampered: {unreadable:?}"
    );
}

#[test]
fn a_line_that_was_signed_with_a_wrong_number_is_noticed() {
    let root = TempDir::new().expect("a directory");
    fill(root.path(), 3);
    let path = root.path().join("audit.jsonl");
    let text = fs::read_to_string(&path).expect("a log");
    let text = text.replace("\"seq\":1", "\"seq\":4");
    fs::write(&path, &text).expect("written");
    // Whoever has the key can sign this; the numbers still do not add up.
    let forged = openfang_audit::Checkpoint {
        origin: origin(),
        size: 3,
        root: root_of_lines(text.as_bytes(), 3).expect("lines"),
    };
    let head = SignedHead::sign(forged, &common::keys().log);
    for file in ["floor", "checkpoint"] {
        fs::write(root.path().join("audit.d").join(file), &head.note).expect("written");
    }
    let wanted = Verdict::Tampered {
        first_bad_seq: Some(1),
        kind: DamageKind::Sequence,
    };
    assert_eq!(verdict(root.path()), wanted);
}

/// A running log, and its heads as they are published.
struct Running {
    root: TempDir,
    log: Log,
    heads: Receiver<SignedHead>,
}

impl Running {
    /// Starts a log with so many entries, all of them under a head.
    fn start(entries: u64) -> Self {
        let root = TempDir::new().expect("a directory");
        let (log, _) = Log::open(options(root.path()), TestClock::fast()).expect("a log");
        let (sender, heads) = sync_channel(10_000);
        log.on_head(Box::new(move |head| sender.send(head).expect("room")));
        append_all(&log, 0..entries);
        let running = Self { root, log, heads };
        running.wait_for_head(entries);
        running
    }

    fn wait_for_head(&self, size: u64) -> SignedHead {
        loop {
            let head = self.heads.recv_timeout(Duration::from_secs(60));
            let head = head.expect("a head");
            if head.checkpoint.size >= size {
                return head;
            }
        }
    }

    /// Changes the file in place, in a way that its times show.
    fn alter(&self, at: u64, byte: u8) {
        let path = self.root.path().join("audit.jsonl");
        let file = OpenOptions::new().write(true).open(path).expect("a log");
        file.write_all_at(&[byte], at).expect("written");
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1 + u64::from(byte));
        file.set_modified(later).expect("set");
    }

    /// Puts another file in its place.
    fn replace(&self, text: &[u8]) {
        let path = self.root.path().join("audit.jsonl");
        let new = self.root.path().join("new");
        fs::write(&new, text).expect("written");
        fs::rename(new, path).expect("renamed");
    }

    fn text(&self) -> Vec<u8> {
        fs::read(self.root.path().join("audit.jsonl")).expect("a log")
    }
}

/// Where the line with a number starts.
fn start_of(text: &[u8], seq: usize) -> usize {
    let feeds = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    feeds.map(|(at, _)| at + 1).nth(seq - 1).expect("a line")
}

#[test]
fn consistency_is_proved_between_any_two_sizes() {
    let running = Running::start(600);
    let text = running.text();
    let root = |size| root_of_lines(&text, size).expect("lines");
    let sizes = [1, 2, 3, 255, 256, 257, 300, 511, 512, 513, 599, 600];
    for from in sizes {
        for to in sizes.into_iter().filter(|to| *to >= from) {
            let proof = running.log.consistency(from, to).expect("a proof");
            assert_eq!(
                verify_consistency(from, &root(from), to, &root(to), &proof),
                Ok(()),
                "{from} to {to}"
            );
        }
    }
    let consistency = |from, to| running.log.consistency(from, to).map(|_| ());
    assert!(matches!(consistency(0, 5), Err(ProveError::Range)));
    assert!(matches!(consistency(6, 5), Err(ProveError::Range)));
    assert!(matches!(
        consistency(5, 601),
        Err(ProveError::Behind { have: 600 })
    ));

    // The leaf hashes are derived: when they are spoilt, they are computed again.
    let hashes = running.root.path().join("audit.d/hashes.0");
    let spoil = OpenOptions::new()
        .write(true)
        .open(&hashes)
        .expect("hashes");
    spoil.write_all_at(&[0xff; 64], 32 * 40).expect("written");
    let proof = running.log.consistency(41, 600).expect("a proof");
    assert_eq!(
        verify_consistency(41, &root(41), 600, &root(600), &proof),
        Ok(())
    );
    running.log.close().expect("closed");
}

#[test]
fn a_byte_altered_under_a_running_log_is_noticed_and_healed() {
    let running = Running::start(20);
    let text = running.text();
    let at = start_of(&text, 7) + 40;
    running.alter(at as u64, b'#');
    let refused = running.log.consistency(5, 20);
    assert!(
        matches!(refused, Err(ProveError::Damaged { seq: Some(7) })),
        "{refused:?}"
    );
    let damaged = Health::Damaged {
        first_bad_seq: Some(7),
    };
    assert_eq!(running.log.health(), damaged);

    // Entries are taken and heads are signed: it is the proof that is missing.
    assert_eq!(append(&running.log, event(20)), Ok(Seq(20)));
    let head = running.wait_for_head(21);
    let mut right = running.text();
    right[at] = text[at];
    assert_eq!(root_of_lines(&right, 21), Some(head.checkpoint.root));
    let refused = running.log.consistency(20, 21);
    assert!(
        matches!(refused, Err(ProveError::Damaged { seq: Some(7) })),
        "{refused:?}"
    );
    let report = running.log.verify().expect("readable");
    let wanted = Verdict::Tampered {
        first_bad_seq: Some(7),
        kind: DamageKind::Altered,
    };
    assert_eq!(report.verdict, wanted);
    assert!(matches!(
        running.log.recent(20),
        Err(ReadError::Damaged { seq: 7 })
    ));

    running.alter(at as u64, text[at]);
    running.log.consistency(5, 21).expect("whole again");
    assert_eq!(running.log.health(), Health::Ok);
    running.log.close().expect("closed");
    assert!(matches!(
        verdict(running.root.path()),
        Verdict::Intact { entries: 21, .. }
    ));
}

#[test]
fn damage_is_noticed_before_the_next_head() {
    let running = Running::start(20);
    let text = running.text();
    running.alter(start_of(&text, 3) as u64 + 10, b'#');
    append(&running.log, event(20)).expect("appended");
    running.wait_for_head(21);
    let damaged = Health::Damaged {
        first_bad_seq: Some(3),
    };
    assert_eq!(running.log.health(), damaged);
}

#[test]
fn a_file_that_was_put_in_its_place_is_taken_when_it_is_the_same() {
    let running = Running::start(10);
    running.replace(&running.text());
    assert_eq!(append(&running.log, event(10)), Ok(Seq(10)));
    assert_eq!(running.log.health(), Health::Ok);
    running.log.close().expect("closed");
    assert!(matches!(
        verdict(running.root.path()),
        Verdict::Intact { entries: 11, .. }
    ));
}

#[test]
fn an_altered_file_that_was_put_in_its_place_goes_on_as_damaged() {
    let running = Running::start(10);
    let mut text = running.text();
    let at = start_of(&text, 4) + 10;
    text.splice(at..at, *b"longer");
    running.replace(&text);
    assert_eq!(append(&running.log, event(10)), Ok(Seq(10)));
    let damaged = Health::Damaged {
        first_bad_seq: Some(4),
    };
    assert_eq!(running.log.health(), damaged);
    running.wait_for_head(11);
    running.log.close().expect("closed");
    assert!(
        running.text().starts_with(&text),
        "the entry went into the new file"
    );
    assert!(running.text().len() > text.len());
}

#[test]
fn a_file_that_is_gone_short_or_written_by_others_stops_the_log() {
    let check = |change: &dyn Fn(&Path), seq: u64| {
        let running = Running::start(10);
        change(&running.root.path().join("audit.jsonl"));
        let stopped = Err(AppendError::Poisoned {
            reason: Poison::FileChanged,
        });
        assert_eq!(append(&running.log, event(10)), stopped);
        let damaged = Health::Damaged {
            first_bad_seq: Some(seq),
        };
        assert_eq!(running.log.health(), damaged);
        let refused = running.log.consistency(2, 5);
        assert!(
            matches!(refused, Err(ProveError::Damaged { .. })),
            "{refused:?}"
        );
    };
    check(&|path| fs::remove_file(path).expect("removed"), 0);
    check(
        &|path| {
            let file = OpenOptions::new().write(true).open(path).expect("a log");
            file.set_len(start_of(&fs::read(path).expect("a log"), 6) as u64)
                .expect("cut");
        },
        6,
    );
    check(
        &|path| {
            let mut file = OpenOptions::new().append(true).open(path).expect("a log");
            file.write_all(b"{\"forged\":true}\n").expect("written");
        },
        10,
    );
}

#[test]
fn the_last_entries_are_read_from_the_end() {
    let running = Running::start(700);
    for n in [0, 1, 2, 300, 699, 700, 9_999] {
        let lines = running.log.recent(n).expect("readable");
        let first = 700_u64.saturating_sub(n as u64);
        let seqs: Vec<_> = lines.iter().map(|line| line.seq.0).collect();
        assert_eq!(seqs, (first..700).collect::<Vec<_>>());
    }
    running.log.close().expect("closed");
}
