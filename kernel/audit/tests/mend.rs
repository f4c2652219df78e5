//! Damaged files of a log, mended from a copy, and the log opened again.

mod common;
mod tlog;

use std::fs;
use std::path::{Path, PathBuf};

use common::{TestClock, append_all, log_key, options, origin};
use openfang_audit::repair::{RepairError, repair};
use openfang_audit::storage::{FsReader, FsStorage, SEGMENT_LINES};
use openfang_audit::tree::root_of;
use openfang_audit::verify::{Verdict, verify_files};
use openfang_audit::{Checkpoint, Log, SignedHead};
use tempfile::TempDir;
use tlog::{OutOfReach, Tiles, keys, leaves};

const ENTRIES: u64 = SEGMENT_LINES + 900;

/// A log of one sealed segment and some more lines, and a copy of it.
struct Files {
    root: TempDir,
    tiles: Tiles,
    head: Checkpoint,
}

impl Files {
    fn new() -> Self {
        let root = TempDir::new().expect("a folder");
        let (log, _) = Log::open(options(root.path()), TestClock::fast()).expect("a log");
        for begin in (0..ENTRIES).step_by(4_000) {
            append_all(&log, begin..ENTRIES.min(begin + 4_000));
        }
        log.close().expect("closed");
        let mut lines = Vec::new();
        for path in [segment(root.path()), active(root.path())] {
            let text = fs::read(path).expect("readable");
            let all = text.split_inclusive(|byte| *byte == b'\n');
            lines.extend(all.map(|line| line[..line.len() - 1].to_vec()));
        }
        assert_eq!(lines.len() as u64, ENTRIES);
        let head = Checkpoint {
            origin: origin(),
            size: ENTRIES,
            root: root_of(&leaves(&lines)),
        };
        Self {
            root,
            tiles: Tiles::of(&lines),
            head,
        }
    }

    fn verdict(&self) -> Verdict {
        let (path, dir) = (active(self.root.path()), self.root.path().join("audit.d"));
        let report = verify_files(&path, &dir, &log_key(), &origin());
        report.expect("readable").verdict
    }

    /// Mends what is damaged; returns how many entries were replaced.
    fn mend(&self) -> Result<u64, RepairError<OutOfReach>> {
        let (path, dir) = (active(self.root.path()), self.root.path().join("audit.d"));
        let storage = FsStorage::open(&path, &dir, "a test").expect("not in use");
        let reader = FsReader::open(&path, &dir).expect("readable");
        let patches = repair(&reader, &self.tiles, &self.head, &mut |_| ())?;
        storage.mend(&patches).expect("mended");
        storage
            .set_heads(&SignedHead::sign(self.head.clone(), &keys().log))
            .expect("written");
        Ok(patches.iter().map(|patch| patch.entries).sum())
    }

    /// Damages the log, checks that it is noticed, and mends it.
    fn check(&self, what: &str, entries_max: u64, damage: impl FnOnce(&Path)) {
        damage(self.root.path());
        assert!(matches!(self.verdict(), Verdict::Tampered { .. }), "{what}");
        let entries = self.mend().expect(what);
        assert!(entries <= entries_max, "{what}: {entries} entries");
        let verdict = self.verdict();
        assert!(
            matches!(verdict, Verdict::Intact { entries, root, .. } if entries == self.head.size && root == self.head.root),
            "{what}: {verdict:?}"
        );
    }
}

fn segment(root: &Path) -> PathBuf {
    root.join(format!("audit.d/seg/{:012}-{SEGMENT_LINES:012}.jsonl", 0))
}

fn active(root: &Path) -> PathBuf {
    root.join("audit.jsonl")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("readable");
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 4;
    fs::write(path, bytes).expect("written");
}

fn without_line(path: &Path, number: usize) {
    let text = fs::read(path).expect("readable");
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let rest = [&lines[..number], &lines[number + 1..]].concat();
    fs::write(path, rest.concat()).expect("written");
}

/// So often lines were missing below, and nothing stood in their place.
const ONLY_MISSING: usize = 5;

#[test]
fn damage_in_any_file_is_mended() {
    let files = Files::new();
    files.check("a bit of a sealed line", 256, |root| {
        flip(&segment(root), 1_000_000)
    });
    files.check("the last byte of a segment", 512, |root| {
        let at = fs::metadata(segment(root)).expect("there").len() - 1;
        flip(&segment(root), usize::try_from(at).expect("small"));
    });
    files.check("a bit of the first line behind it", 256, |root| {
        flip(&active(root), 3)
    });
    files.check("a line taken out of a segment", 256, |root| {
        without_line(&segment(root), 400)
    });
    files.check("the last line of a segment", 256, |root| {
        without_line(&segment(root), 65_535)
    });
    files.check("the first line behind it", 256, |root| {
        without_line(&active(root), 0)
    });
    files.check("a segment that was cut", 65_536, |root| {
        let path = segment(root);
        let half = fs::metadata(&path).expect("there").len() / 2;
        let file = fs::OpenOptions::new()
            .write(true)
            .open(path)
            .expect("opened");
        file.set_len(half).expect("cut");
    });
    files.check("the lines behind it", 1_024, |root| {
        fs::write(active(root), b"").expect("emptied");
    });
    files.check("the floor", 0, |root| flip(&root.join("audit.d/floor"), 90));
    files.check("the floor and a line", 256, |root| {
        fs::remove_file(root.join("audit.d/floor")).expect("removed");
        flip(&segment(root), 77);
    });
    files.check("a segment that is gone", 65_536, |root| {
        fs::remove_file(segment(root)).expect("removed");
    });

    let (log, opened) =
        Log::open(options(files.root.path()), TestClock::fast()).expect("it opens again");
    // One for each piece that was replaced; where lines were only missing there is nothing to keep.
    assert!(opened.recovered.len() >= 5, "{:?}", opened.recovered);
    for piece in &opened.recovered {
        let kept = fs::read(&piece.kept).expect("kept");
        assert_eq!(kept.len() as u64, piece.bytes);
        assert!(!kept.is_empty(), "{piece:?}");
    }
    let recent = log.recent(20).expect("readable");
    let told = recent.iter().filter(|line| line.ev == "log_recovered");
    assert_eq!(told.count(), opened.recovered.len() + ONLY_MISSING);
    let report = log.verify().expect("readable");
    assert!(
        matches!(report.verdict, Verdict::Intact { .. }),
        "{report:?}"
    );
    log.close().expect("closed");
}

#[test]
fn a_sealed_log_without_heads_goes_on_held() {
    let files = Files::new();
    for name in ["floor", "checkpoint", "closed"] {
        fs::remove_file(files.root.path().join("audit.d").join(name)).expect("removed");
    }
    let options = openfang_audit::Options {
        held: true,
        ..options(files.root.path())
    };
    let (log, opened) = Log::open(options, TestClock::fast()).expect("opened");
    assert!(opened.floor_was_missing);
    append_all(&log, 0..10);
    log.release();
    append_all(&log, 10..20);
    log.close().expect("closed");
    let verdict = files.verdict();
    assert!(
        matches!(verdict, Verdict::Intact { entries, unsigned: 0, .. } if entries > ENTRIES + 20),
        "{verdict:?}"
    );
}

#[test]
fn a_copy_that_lies_changes_no_file() {
    let mut files = Files::new();
    flip(&segment(files.root.path()), 5_000);
    let before = fs::read(segment(files.root.path())).expect("readable");
    for bytes in files.tiles.files.values_mut() {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    assert!(matches!(files.mend(), Err(RepairError::Source(_))));
    assert!(fs::read(segment(files.root.path())).expect("readable") == before);
    files.tiles.unreadable = true;
    assert!(matches!(files.mend(), Err(RepairError::Source(_))));
}
