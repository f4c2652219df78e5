//! Entries as they are written.

mod common;

use std::fs;

use common::{TestClock, append, append_all, event, keys, log_key, options, origin};
use openfang_audit::read::{Filter, Follow, FollowError, select_and_follow};
use openfang_audit::storage::SEGMENT_LINES;
use openfang_audit::verify::{DamageKind, Source};
use openfang_audit::{Event, Hash, Log, Origin};
use openfang_id::{NodeSeed, VerifyingKey};
use tempfile::TempDir;

struct Files {
    root: TempDir,
    key: VerifyingKey,
    origin: Origin,
    log_path: std::path::PathBuf,
    dir: std::path::PathBuf,
}

impl Files {
    fn new() -> Self {
        let root = TempDir::new().expect("a folder");
        let options = options(root.path());
        Self {
            root,
            key: log_key(),
            origin: origin(),
            log_path: options.log_path,
            dir: options.dir,
        }
    }

    fn open(&self) -> Log {
        let (log, _) = Log::open(options(self.root.path()), TestClock::fast()).expect("a log");
        log
    }

    fn source(&self) -> Source<'_> {
        Source {
            log_path: &self.log_path,
            dir: &self.dir,
            key: &self.key,
            origin: &self.origin,
        }
    }

    fn follow(&self, filter: &Filter) -> (Vec<u64>, Follow) {
        let (selection, follow) = select_and_follow(self.source(), filter).expect("readable");
        (
            selection.lines.iter().map(|line| line.seq.0).collect(),
            follow,
        )
    }

    fn poll(&self, follow: &mut Follow) -> Result<Vec<u64>, FollowError> {
        let lines = follow.poll(self.source())?;
        Ok(lines.iter().map(|line| line.seq.0).collect())
    }
}

fn kind_of(result: Result<Vec<u64>, FollowError>) -> DamageKind {
    match result {
        Err(FollowError::Tampered(damage)) => damage.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_returned_once() {
    let files = Files::new();
    let all = Filter::default();
    let (shown, mut early) = files.follow(&all);
    assert!(shown.is_empty(), "there is no log yet");
    assert!(files.poll(&mut early).expect("nothing").is_empty());
    let log = files.open();
    append(&log, event(0)).expect("appended");
    let (shown, mut follow) = files.follow(&Filter {
        limit: Some(1),
        ..Filter::default()
    });
    assert_eq!(shown, [0]);
    assert!(files.poll(&mut follow).expect("nothing new").is_empty());
    append_all(&log, 1..4);
    assert_eq!(files.poll(&mut follow).expect("new ones"), [1, 2, 3]);
    assert!(files.poll(&mut follow).expect("nothing new").is_empty());
    assert_eq!(files.poll(&mut early).expect("all"), [0, 1, 2, 3]);
    // Across an orderly end, and a new start.
    log.close().expect("closed");
    assert!(files.poll(&mut follow).expect("nothing new").is_empty());
    let log = files.open();
    append(&log, event(4)).expect("appended");
    assert_eq!(files.poll(&mut follow).expect("a new one"), [4]);
    assert_eq!(follow.size(), 5);
    log.close().expect("closed");
}

#[test]
fn only_what_is_wanted_is_returned() {
    let files = Files::new();
    let log = files.open();
    append(&log, event(0)).expect("appended");
    let other = NodeSeed::from_bytes([2; 32]).keys().node_id();
    let filter = Filter {
        node: Some(other),
        ..Filter::default()
    };
    let (shown, mut follow) = files.follow(&filter);
    assert!(shown.is_empty());
    append(&log, event(1)).expect("appended");
    append(&log, Event::peer_connect(&other, "quic")).expect("appended");
    let seen = Event::head_observed(&Origin::of(&other, 3), 1, &Hash::from_bytes([1; 32]));
    append(&log, seen).expect("appended");
    let third = NodeSeed::from_bytes([3; 32]).keys().node_id();
    append(&log, Event::peer_connect(&third, "quic")).expect("appended");
    assert_eq!(files.poll(&mut follow).expect("two of them"), [2, 3]);
    let own = Filter {
        node: Some(keys().node_id()),
        ..Filter::default()
    };
    assert_eq!(files.follow(&own).0.len(), 5, "who writes is named in all");
    log.close().expect("closed");
}

#[test]
fn sealing_a_segment_loses_nothing() {
    let files = Files::new();
    let log = files.open();
    let start = SEGMENT_LINES - 5;
    let mut next = 0;
    while next < start {
        let end = start.min(next + 4_096);
        append_all(&log, next..end);
        next = end;
    }
    let (_, mut follow) = files.follow(&Filter::default());
    let mut seen = Vec::new();
    for number in start..start + 40 {
        append(&log, event(number)).expect("appended");
        seen.extend(files.poll(&mut follow).expect("readable"));
    }
    log.close().expect("closed");
    let again = files.open();
    append(&again, event(0)).expect("appended");
    seen.extend(files.poll(&mut follow).expect("readable"));
    again.close().expect("closed");
    assert_eq!(seen, (start..=start + 40).collect::<Vec<_>>());
    let sealed = fs::read_dir(files.dir.join("seg")).expect("a folder");
    assert_eq!(sealed.count(), 1, "it was sealed meanwhile");
}

#[test]
fn a_log_that_is_changed_behind_the_back_is_no_continuation() {
    let files = Files::new();
    let log = files.open();
    append_all(&log, 0..6);
    log.close().expect("closed");
    let text = fs::read_to_string(&files.log_path).expect("the log");
    let follow = || files.follow(&Filter::default()).1;
    // Cut.
    let mut cut = follow();
    let half: String = text.split_inclusive('\n').take(3).collect();
    fs::write(&files.log_path, half).expect("written");
    assert_eq!(kind_of(files.poll(&mut cut)), DamageKind::Truncated);
    fs::remove_file(&files.log_path).expect("removed");
    assert_eq!(kind_of(files.poll(&mut cut)), DamageKind::Truncated);
    // A line behind an orderly end that is no entry of this place.
    fs::write(&files.log_path, &text).expect("written");
    let mut more = follow();
    let first = text.lines().next().expect("a line");
    fs::write(&files.log_path, format!("{text}{first}\n")).expect("written");
    assert_eq!(kind_of(files.poll(&mut more)), DamageKind::Sequence);
    // Another head of the same size.
    fs::write(&files.log_path, &text).expect("written");
    let mut other = follow();
    fs::write(files.dir.join("floor"), "x").expect("written");
    assert_eq!(kind_of(files.poll(&mut other)), DamageKind::Head);
}

#[test]
fn a_line_that_is_being_written_comes_with_the_next_look() {
    let files = Files::new();
    let log = files.open();
    append(&log, event(0)).expect("appended");
    log.close().expect("closed");
    let early = log.head().expect("a head");
    let log = files.open();
    append_all(&log, 1..3);
    log.close().expect("closed");
    let text = fs::read_to_string(&files.log_path).expect("the log");
    let (two, third) = text.trim_end().rsplit_once('\n').expect("lines");
    let (head, tail) = third.split_at(20);
    fs::write(&files.log_path, format!("{two}\n")).expect("written");
    // No head covers them yet.
    for name in ["floor", "checkpoint"] {
        fs::write(files.dir.join(name), &early.note).expect("written");
    }
    fs::write(files.dir.join("closed"), "").expect("written");
    let (_, mut follow) = files.follow(&Filter::default());
    let before = follow.size();
    fs::write(&files.log_path, format!("{two}\n{head}")).expect("written");
    assert!(files.poll(&mut follow).expect("half a line").is_empty());
    fs::write(&files.log_path, format!("{two}\n{head}{tail}\n")).expect("written");
    assert_eq!(files.poll(&mut follow).expect("a line"), [before]);
}
